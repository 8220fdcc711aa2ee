//! A root key from a passphrase: Argon2id version 0x13, 64 MiB, 3 passes, 1 lane, with the install id as salt.
//!
//! The parameters are fixed: there is no header that could name others, and so none that could be weakened.

use super::root_key::read_private;
use super::{KeyError, RootKey, Secret};
use argon2::{Algorithm, Argon2, Params, Version};
use std::path::Path;
use zeroize::Zeroizing;

/// Characters that a passphrase has at least.
pub(super) const SHORTEST_PASSPHRASE: usize = 12;

/// Bytes that a passphrase has at most.
const LONGEST_PASSPHRASE: usize = 1024;

const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 1;

impl RootKey {
    /// The key of a passphrase in this install; one trailing newline is not part of it. Takes a tenth of a second and
    /// 64 MiB.
    ///
    /// # Errors
    /// [`KeyError::Passphrase`] when it is too short or too long.
    pub fn from_passphrase(text: &Secret, install_id: &str, origin: &str) -> Result<Self, KeyError> {
        // The key is made from it.
        Self::stretch(text.expose().as_bytes(), install_id)
            .ok_or_else(|| KeyError::Passphrase { origin: origin.to_owned() })
    }

    /// The key of a passphrase in a file, which is refused like a key file that others may read.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn load_passphrase(path: &Path, install_id: &str) -> Result<Self, KeyError> {
        // Room for the newline, and to tell a longer text from a right one.
        let text = read_private(path, LONGEST_PASSPHRASE + 2)?;
        Self::stretch(&text, install_id).ok_or_else(|| KeyError::Passphrase { origin: path.display().to_string() })
    }

    fn stretch(text: &[u8], install_id: &str) -> Option<Self> {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let characters = std::str::from_utf8(text).ok()?.chars().count();
        if characters < SHORTEST_PASSPHRASE || text.len() > LONGEST_PASSPHRASE {
            return None;
        }
        let parameters = Params::new(MEMORY_KIB, PASSES, LANES, Some(32)).expect("the parameters are allowed ones");
        let mut key = Zeroizing::new([0; 32]);
        // The blocks are of the size asked for and are wiped, which the crate leaves to its caller.
        let mut blocks = Zeroizing::new(vec![argon2::Block::new(); parameters.block_count()]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
            .hash_password_into_with_memory(text, install_id.as_bytes(), &mut key[..], &mut blocks[..])
            .expect("text and salt have lengths that Argon2 takes");
        Some(Self::from_bytes(&key))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const INSTALL: &str = "0123456789abcdef0123456789abcdef";

    fn key(text: &str) -> Result<RootKey, KeyError> {
        RootKey::from_passphrase(&Secret::new(text.to_owned()), INSTALL, "NEXUS_ROOT_KEY")
    }

    #[test]
    fn the_documented_key_is_what_is_made() {
        let document = include_str!("../../docs/store-format.md");
        let line = |name: &str| document.lines().find_map(|l| l.strip_prefix(&format!("{name} = "))).unwrap();
        let made = key(line("passphrase")).unwrap();
        let made: String = made.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(made, line("key of the passphrase"));
    }

    #[test]
    fn the_install_and_every_character_count() {
        let text = "correct horse battery";
        let one = key(text).unwrap();
        assert_eq!(one.bytes(), key(&format!("{text}\n")).unwrap().bytes(), "one newline is not part of it");
        for other in ["correct horse batterx", "correct horse battery ", "correct horse battery\n\n"] {
            assert_ne!(one.bytes(), key(other).unwrap().bytes(), "{other:?}");
        }
        let secret = Secret::new(text.to_owned());
        let elsewhere = RootKey::from_passphrase(&secret, "fedcba9876543210fedcba9876543210", "x").unwrap();
        assert_ne!(one.bytes(), elsewhere.bytes());
    }

    #[test]
    fn others_are_refused_without_being_shown() {
        let rows = [
            ("empty", String::new()),
            ("newline", "\n".to_owned()),
            ("eleven", "hunter2hunt".to_owned()),
            ("eleven and a newline", "hunter2hunt\n".to_owned()),
            ("eleven characters of two bytes", "é".repeat(11)),
            ("too long", "a".repeat(1025)),
        ];
        for (name, text) in rows {
            let error = key(&text).err().unwrap_or_else(|| panic!("{name}"));
            assert!(matches!(&error, KeyError::Passphrase { origin } if origin == "NEXUS_ROOT_KEY"), "{name}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{name}");
        }
        assert!(key(&"é".repeat(12)).is_ok());
        assert!(key(&format!("{}\n", "a".repeat(1024))).is_ok());
    }

    #[test]
    fn a_file_is_read_like_a_key_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passphrase");
        std::fs::write(&path, "correct horse battery\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(RootKey::load_passphrase(&path, INSTALL), Err(KeyError::Mode { .. })));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let loaded = RootKey::load_passphrase(&path, INSTALL).unwrap();
        assert_eq!(loaded.bytes(), key("correct horse battery").unwrap().bytes());
        for (name, text) in [("not UTF-8", &[0xff; 20][..]), ("too long", &[b'a'; 5000][..]), ("short", b"short\n")] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(RootKey::load_passphrase(&path, INSTALL), Err(KeyError::Passphrase { .. })), "{name}");
        }
    }
}
