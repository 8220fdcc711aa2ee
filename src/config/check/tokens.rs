//! `[tokens]`: how long agent tokens may work.

use super::{optional, positive};
use crate::config::Config;
use crate::config::file::{Document, Place, Section};
use crate::config::settings::TokenLimits;
use crate::types::format_duration;
use std::time::Duration;
use toml::de::DeTable;

/// Reads `[tokens]`.
pub(super) fn tokens(document: &mut Document<'_>, mut section: Section<'_>, config: &mut Config) {
    let limits = &mut config.tokens;
    let value = section.take(document, "max_expires");
    let place = value.as_ref().map(|value| value.place.clone());
    if let Some(max) = optional(document, value) {
        refuse_fractions(document, place, max);
        limits.max_expires = max;
    }
    let default = section.take(document, "default_expires");
    let place = default.as_ref().map(|value| value.place.clone());
    let max = limits.max_expires;
    if place.is_none() {
        // A lower maximum lowers what nobody has set.
        limits.default_expires = max.map_or(limits.default_expires, |max| max.min(limits.default_expires));
    } else if let Some(time) = positive(document, default) {
        refuse_fractions(document, place.clone(), Some(time));
        limits.default_expires = time;
    }
    if let (Some(place), Some(max)) = (place, max)
        && limits.default_expires > max
    {
        let message = format!("must not be longer than max_expires, which is {}", format_duration(max));
        document.problem(&place, message);
    }
    section.finish(document);
}

/// Tokens end at whole seconds; `0s` is told as what it is.
fn refuse_fractions(document: &mut Document<'_>, place: Option<Place>, time: Option<Duration>) {
    if let (Some(place), Some(time)) = (place, time)
        && !time.is_zero()
        && time < Duration::from_secs(1)
    {
        document.problem(&place, "must be 1s or longer".to_owned());
    }
}

/// The section of a text that has problems elsewhere. One that has problems itself allows no more than the default, since
/// nobody can tell what limit was meant.
pub(super) fn check_tokens(text: &str, root: &DeTable<'_>) -> TokenLimits {
    let mut document = Document::new("", text);
    let section = Section::root(root).section(&mut document, "tokens");
    let mut config = Config::default();
    tokens(&mut document, section, &mut config);
    if document.into_problems().is_empty() {
        return config.tokens;
    }
    let TokenLimits { default_expires, .. } = TokenLimits::default();
    TokenLimits { default_expires, max_expires: Some(default_expires) }
}
