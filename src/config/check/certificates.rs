//! `[[identity.certificate]]`: what certificates of the operator's own CAs mean here.

use super::identity::mapping;
use super::list;
use crate::config::Config;
use crate::config::file::{Document, Section, shown};
use crate::identity::CertificateMapping;

/// Reads every `[[identity.certificate]]`.
pub(super) fn certificates(document: &mut Document<'_>, section: &mut Section<'_>, config: &mut Config) {
    let entries = section.take(document, "certificate");
    for entry in list(document, entries, "one [[identity.certificate]] for each kind of certificate") {
        let Some(mut section) = entry.section(document) else { continue };
        let name = section.required_text(document, "name");
        let mapping = mapping(document, &mut section);
        section.finish(document);
        let Some((name, place)) = name else { continue };
        let is_taken = config.certificates.iter().any(|other| &*other.name == name);
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            document.problem(&place, format!("{} is not a name; write 1 to 64 characters", shown(name)));
        } else if is_taken {
            document.problem(&place, "the name is taken by another certificate; choose another".to_owned());
        } else if let Some(mapping) = mapping {
            config.certificates.push(CertificateMapping { name: name.into(), mapping });
        }
    }
}
