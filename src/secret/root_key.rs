//! The root key and its file.

use super::passphrase::SHORTEST_PASSPHRASE;
use super::{Secret, random_bytes, write_private_file};
use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rustix::fs::{Mode, OFlags};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use zeroize::Zeroizing;

/// The 32-byte root key, wiped on drop. Boxed, so that moving it leaves no copy behind.
pub struct RootKey(Box<Zeroizing<[u8; 32]>>);

/// Why a root key could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read or written.
    #[error("root key file {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Others may read it.
    #[error("root key file {path} may be read by others (mode {mode:o}); run: chmod 600 {path}")]
    Mode {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a passphrase that may stand for a key.
    #[error("passphrase {origin} must be UTF-8 of {SHORTEST_PASSPHRASE} characters or more and 1 KiB or less")]
    Passphrase {
        /// Where it came from: a path or variable name.
        origin: String,
    },
    /// Not 64 hexadecimal digits or base64 of 32 bytes.
    #[error("root key {origin} is not 64 hexadecimal digits or base64 of 32 bytes")]
    Form {
        /// Where it came from: a path or variable name.
        origin: String,
    },
}

/// Both alphabets, padded or not; 64 hexadecimal digits are never 32 bytes of base64, so no text has two meanings.
const BASE64: [GeneralPurpose; 2] = {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [GeneralPurpose::new(&STANDARD, CONFIG), GeneralPurpose::new(&URL_SAFE, CONFIG)]
};

/// Longer than any key with its newline; what is longer is not a key.
const LONGEST: usize = 128;

impl RootKey {
    /// Reads a key from text: 64 hexadecimal digits or base64 of 32 bytes, one trailing newline allowed.
    ///
    /// # Errors
    /// [`KeyError::Form`].
    pub fn parse(text: &Secret, origin: &str) -> Result<Self, KeyError> {
        // The key is what the text says.
        Self::from_text(text.expose().as_bytes()).ok_or_else(|| KeyError::Form { origin: origin.to_owned() })
    }

    /// Reads the key file; refuses one that others may read, and a symbolic link.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = read_private(path, LONGEST)?;
        Self::from_text(&text).ok_or_else(|| KeyError::Form { origin: path.display().to_string() })
    }

    /// Makes a key file, 0600 from birth (`O_CREAT|O_EXCL`, written to a temporary name, synced, linked); an existing
    /// file is never overwritten but loaded. Of two processes that do this at once both get the same key.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        match Self::load(path) {
            Err(KeyError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            loaded => return loaded,
        }
        let random = Zeroizing::new(random_bytes());
        match write_private_file(path, &Self::from_bytes(&random).to_text()) {
            // Whoever made it: the file is the truth.
            Ok(()) => Self::load(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Self::load(path),
            Err(source) => Err(KeyError::Io { path: path.display().to_string(), source }),
        }
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut key = Box::new(Zeroizing::new([0; 32]));
        key.copy_from_slice(bytes);
        Self(key)
    }

    fn from_text(text: &[u8]) -> Option<Self> {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let mut key = Box::new(Zeroizing::new([0; 32]));
        if text.len() == 64 {
            for (byte, digits) in key.iter_mut().zip(text.chunks_exact(2)) {
                *byte = hex_digit(digits[0])? << 4 | hex_digit(digits[1])?;
            }
            return Some(Self(key));
        }
        // 33 bytes: room to tell a longer text from a right one.
        let mut decoded = Zeroizing::new([0; 33]);
        for engine in &BASE64 {
            if engine.decode_slice(text, &mut decoded[..]) == Ok(32) {
                key.copy_from_slice(&decoded[..32]);
                return Some(Self(key));
            }
        }
        None
    }

    /// 64 hexadecimal digits and a newline.
    fn to_text(&self) -> Zeroizing<Vec<u8>> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = Zeroizing::new(Vec::with_capacity(65));
        for byte in self.0.iter() {
            text.push(DIGITS[usize::from(byte >> 4)]);
            text.push(DIGITS[usize::from(byte & 15)]);
        }
        text.push(b'\n');
        text
    }
}

/// Reads a file that only its owner may read, `limit` bytes of it at most; refuses one that others may read, and a
/// symbolic link.
pub(super) fn read_private(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let failed = |source| KeyError::Io { path: path.display().to_string(), source };
    // Without NONBLOCK a pipe under this name would hold the start up for ever.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(rustix::io::Errno::LOOP) => {
            return Err(failed(io::Error::other("it is a symbolic link; name the file itself")));
        }
        Err(error) => return Err(failed(error.into())),
    };
    // The open file is asked, not the name, which may mean another file by now.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode { path: path.display().to_string(), mode });
    }
    // The whole size at once: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(vec![0; limit]);
    let mut length = 0;
    loop {
        match (&file).read(&mut text[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    text.truncate(length);
    Ok(text)
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

impl std::fmt::Debug for RootKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RootKey(..)")
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";
    const BASE64_TEXT: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8=";

    fn parse(text: &str) -> Result<RootKey, KeyError> {
        RootKey::parse(&Secret::new(text.to_owned()), "NEXUS_ROOT_KEY")
    }

    #[test]
    fn keys_are_hexadecimal_or_base64() {
        let url_safe = BASE64_TEXT.replace('+', "-").replace('/', "_");
        let rows = [
            ("hex", HEX.to_owned()),
            ("upper-case hex", HEX.to_uppercase()),
            ("hex and newline", format!("{HEX}\n")),
            ("base64", BASE64_TEXT.to_owned()),
            ("base64 and newline", format!("{BASE64_TEXT}\n")),
            ("base64 without padding", BASE64_TEXT.trim_end_matches('=').to_owned()),
            ("base64url", url_safe),
        ];
        for (name, text) in rows {
            let key = parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(key.bytes()[31], 0xff, "{name}");
            assert_eq!(key.bytes()[..31], *(0..31).collect::<Vec<u8>>(), "{name}");
        }
    }

    #[test]
    fn other_texts_are_refused_without_being_shown() {
        let rows = [
            ("empty", String::new()),
            ("newline", "\n".to_owned()),
            ("63 digits", HEX[1..].to_owned()),
            ("65 digits", format!("{HEX}0")),
            ("not a digit", format!("{}g", &HEX[1..])),
            ("two newlines", format!("{HEX}\n\n")),
            ("carriage return", format!("{HEX}\r\n")),
            ("space before", format!(" {HEX}")),
            ("0x", format!("0x{}", &HEX[2..])),
            ("31 bytes of base64", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==".to_owned()),
            ("33 bytes of base64", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g".to_owned()),
            ("loose bits", BASE64_TEXT.replace("v8=", "v9=")),
            ("two-byte characters", "é".repeat(32)),
            ("long", "A".repeat(10_000)),
        ];
        for (name, text) in rows {
            let error = parse(&text).err().unwrap_or_else(|| panic!("{name}"));
            assert_eq!(
                error.to_string(),
                "root key NEXUS_ROOT_KEY is not 64 hexadecimal digits or base64 of 32 bytes",
                "{name}"
            );
        }
    }

    #[test]
    fn the_file_is_made_once_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        let made = RootKey::load_or_create(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.len(), 65);
        assert!(text.ends_with('\n'));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(RootKey::load_or_create(&path).unwrap().bytes(), made.bytes());
        assert_eq!(RootKey::load(&path).unwrap().bytes(), made.bytes());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert_eq!(format!("{made:?}"), "RootKey(..)");
    }

    #[test]
    fn all_who_make_it_at_once_get_one_key() {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let path = directory.path().join(format!("key-{round}"));
            let keys: Vec<_> = std::thread::scope(|scope| {
                let makers: Vec<_> =
                    (0..6).map(|_| scope.spawn(|| *RootKey::load_or_create(&path).unwrap().bytes())).collect();
                makers.into_iter().map(|m| m.join().unwrap()).collect()
            });
            assert!(keys.iter().all(|k| *k == keys[0]));
        }
    }

    #[test]
    fn files_that_others_may_read_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        std::fs::write(&path, HEX).unwrap();
        for mode in [0o640, 0o604, 0o644, 0o620, 0o602, 0o610, 0o777] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let error = RootKey::load_or_create(&path).unwrap_err();
            assert!(matches!(&error, KeyError::Mode { mode: found, .. } if *found == mode), "{error}");
            assert!(error.to_string().ends_with(&format!("run: chmod 600 {}", path.display())), "{error}");
        }
        for mode in [0o600, 0o400] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            RootKey::load(&path).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), HEX, "left as it was");
    }

    #[test]
    fn links_pipes_directories_and_other_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("root.key");
        RootKey::load_or_create(&file).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let dangling = directory.path().join("dangling");
        std::os::unix::fs::symlink(directory.path().join("nowhere"), &dangling).unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::from_bits_truncate(0o600), 0)
            .unwrap();
        for path in [&link, &dangling, &pipe, &directory.path().to_path_buf()] {
            let error = RootKey::load_or_create(path).unwrap_err();
            assert!(matches!(error, KeyError::Io { .. }), "{}: {error}", path.display());
        }
        assert!(!directory.path().join("nowhere").exists());
        let empty = directory.path().join("empty");
        write_private_file(&empty, b"").unwrap();
        let large = directory.path().join("large");
        write_private_file(&large, &[b'a'; 100_000]).unwrap();
        for path in [&empty, &large] {
            assert!(matches!(RootKey::load_or_create(path), Err(KeyError::Form { .. })), "{}", path.display());
        }
        let absent = directory.path().join("absent");
        assert!(matches!(RootKey::load(&absent), Err(KeyError::Io { .. })));
        assert!(!absent.exists(), "load makes nothing");
    }
}
