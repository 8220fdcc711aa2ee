//! The named secret fields of a credential, such as `access_token` or `user` and `password`.

use super::Secret;
use zeroize::Zeroizing;

/// Named secret values; opened for one request and wiped after it. Order is kept.
#[derive(Debug, Default)]
pub struct SecretFields(Vec<(String, Secret)>);

impl SecretFields {
    /// Adds a field or replaces it.
    pub fn insert(&mut self, name: &str, value: Secret) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// One field's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// All fields.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v))
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The plaintext that is sealed: for each field, u16 name length, name, u32 value length, value (big endian).
    ///
    /// # Panics
    /// When a name is longer than 64 KiB or a value longer than 4 GiB, which no reader of fields lets through.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Full size at once: a buffer that grows leaves a copy behind.
        let size = self.0.iter().map(|(name, value)| 2 + name.len() + 4 + value.len()).sum();
        let mut bytes = Zeroizing::new(Vec::with_capacity(size));
        for (name, value) in &self.0 {
            let name_length = u16::try_from(name.len()).expect("field names are short");
            let value_length = u32::try_from(value.len()).expect("field values are far below 4 GiB");
            bytes.extend_from_slice(&name_length.to_be_bytes());
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(&value_length.to_be_bytes());
            // Sealing is the one thing that happens to this buffer.
            bytes.extend_from_slice(value.expose().as_bytes());
        }
        bytes
    }

    /// Reads what [`SecretFields::encode`] wrote; `None` when the bytes have another form.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (name, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            let (length, after) = after.split_first_chunk::<4>()?;
            let (value, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
            let name = std::str::from_utf8(name).ok()?;
            if fields.get(name).is_some() {
                return None;
            }
            fields.0.push((name.to_owned(), Secret::new(std::str::from_utf8(value).ok()?.to_owned())));
            rest = after;
        }
        Some(fields)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn fields(pairs: &[(String, String)]) -> SecretFields {
        let mut fields = SecretFields::default();
        for (name, value) in pairs {
            fields.insert(name, Secret::new(value.clone()));
        }
        fields
    }

    fn pairs(fields: &SecretFields) -> Vec<(String, String)> {
        // Test: values are compared.
        fields.iter().map(|(name, value)| (name.to_owned(), value.expose().to_owned())).collect()
    }

    #[test]
    fn the_plaintext_is_name_and_value_with_lengths() {
        let encoded = fields(&[("user".to_owned(), "é".to_owned())]).encode();
        assert_eq!(&encoded[..], b"\x00\x04user\x00\x00\x00\x02\xc3\xa9");
        assert!(SecretFields::default().encode().is_empty());
    }

    #[test]
    fn other_bytes_do_not_decode() {
        let rows: [(&str, &[u8]); 7] = [
            ("half a name length", b"\x00"),
            ("name cut", b"\x00\x04us"),
            ("no value length", b"\x00\x01u"),
            ("value cut", b"\x00\x01u\x00\x00\x00\x02x"),
            ("value length near the top", b"\x00\x01u\xff\xff\xff\xffx"),
            ("name not UTF-8", b"\x00\x01\xff\x00\x00\x00\x00"),
            ("same name twice", b"\x00\x01u\x00\x00\x00\x00\x00\x01u\x00\x00\x00\x00"),
        ];
        for (name, bytes) in rows {
            assert!(SecretFields::decode(bytes).is_none(), "{name}");
        }
    }

    #[test]
    fn insert_replaces_and_keeps_the_order() {
        let mut fields = fields(&[("a".into(), "1".into()), ("b".into(), "2".into())]);
        fields.insert("a", Secret::new("3".to_owned()));
        assert_eq!(pairs(&fields), [("a".to_owned(), "3".to_owned()), ("b".to_owned(), "2".to_owned())]);
        assert_eq!(format!("{fields:?}"), r#"SecretFields([("a", Secret(..)), ("b", Secret(..))])"#);
    }

    proptest! {
        #[test]
        fn decode_reads_what_encode_wrote(map in prop::collection::btree_map(".{0,12}", ".{0,40}", 0..5)) {
            let written: Vec<_> = map.into_iter().collect();
            let read = SecretFields::decode(&fields(&written).encode()).unwrap();
            prop_assert_eq!(pairs(&read), written);
        }

        #[test]
        fn decode_accepts_only_what_encode_writes(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(read) = SecretFields::decode(&bytes) {
                prop_assert_eq!(&read.encode()[..], &bytes[..]);
            }
        }
    }
}
