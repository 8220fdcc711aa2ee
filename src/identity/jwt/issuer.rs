//! Issuers from the config: their settings, and what a token must have to be theirs.

use super::source::{KeyLocation, KeySource};
use super::token::{self, Registered, VerifiedJwt};
use super::{Algorithm, JwtError};
use crate::identity::Mapping;
use crate::types::UnixSeconds;
use std::sync::Arc;
use std::time::Duration;

/// `[[identity.issuer]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSettings {
    /// What the log and the audit record call it.
    pub name: Arc<str>,
    /// The exact `iss`.
    pub issuer: String,
    /// One of these must be in `aud`.
    pub audience: Vec<String>,
    /// The algorithm of its signatures.
    pub algorithm: Algorithm,
    /// Where its keys are.
    pub keys: KeyLocation,
    /// By how much its clock may differ.
    pub leeway: Duration,
    /// Tokens that are valid for longer are refused.
    pub max_lifetime: Duration,
    /// What its tokens mean here.
    pub mapping: Mapping,
}

/// An issuer with its keys.
#[derive(Debug)]
pub struct Issuer {
    /// Its settings.
    pub settings: IssuerSettings,
    /// Its keys, shared with the snapshots before.
    pub keys: Arc<KeySource>,
}

impl Issuer {
    fn is_meant(&self, registered: &Registered) -> bool {
        self.settings.issuer == registered.issuer
            && self.settings.audience.iter().any(|own| registered.audience.contains(own))
    }

    #[expect(clippy::cast_precision_loss, reason = "the time of day is far below 2^52")]
    pub(super) fn check_times(&self, registered: &Registered, now: UnixSeconds) -> Result<(), JwtError> {
        let IssuerSettings { leeway, max_lifetime, .. } = &self.settings;
        registered.check_times(now as f64, leeway.as_secs_f64(), max_lifetime.as_secs_f64())
    }

    /// Whether a token that was verified before is still one of this issuer's: settings, times and keys may have
    /// changed.
    ///
    /// # Errors
    /// See [`JwtError`].
    pub(in crate::identity) fn check_again(&self, token: &VerifiedJwt, now: UnixSeconds) -> Result<(), JwtError> {
        if !self.is_meant(&token.registered) {
            return Err(JwtError::Audience);
        }
        let pinned = self.settings.algorithm;
        if token.algorithm != pinned {
            return Err(JwtError::Algorithm { found: token.algorithm.to_string(), pinned });
        }
        self.check_times(&token.registered, now)?;
        let keys = self.keys.current(now).ok_or(JwtError::NoKeys)?;
        if keys.has(&token.key, pinned) { Ok(()) } else { Err(JwtError::UnknownKey) }
    }
}

/// Everybody whose tokens are taken. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Issuers {
    /// This install, for run tokens.
    own: Option<Arc<str>>,
    all: Arc<[Issuer]>,
}

impl Issuers {
    /// This install's own issuer (see [`super::own_issuer`]) and those of the config.
    #[must_use]
    pub fn new(own: Option<Arc<str>>, issuers: Vec<Issuer>) -> Self {
        Self { own, all: issuers.into() }
    }

    /// Those of the config.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Issuer> {
        self.all.iter()
    }

    /// Whether a text is a JWT that says it is of one of these issuers: an agent's proof, right or wrong. Every other
    /// JWT is the API's business.
    #[must_use]
    pub fn is_named_in(&self, text: &str) -> bool {
        token::names_issuer(text, |issuer| {
            self.own.as_deref() == Some(issuer) || self.all.iter().any(|known| known.settings.issuer == issuer)
        })
    }

    pub(super) fn is_own(&self, issuer: &str) -> bool {
        self.own.as_deref() == Some(issuer)
    }

    pub(in crate::identity) fn by_name(&self, name: &str) -> Option<&Issuer> {
        self.all.iter().find(|issuer| &*issuer.settings.name == name)
    }

    /// The first issuer that a token's `iss` and `aud` mean.
    pub(super) fn meant_by(&self, registered: &Registered) -> Option<&Issuer> {
        self.all.iter().find(|issuer| issuer.is_meant(registered))
    }
}
