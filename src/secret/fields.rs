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
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        todo!()
    }

    /// Reads what [`SecretFields::encode`] wrote; `None` when the bytes have another form.
    #[must_use]
    pub fn decode(_bytes: &[u8]) -> Option<Self> {
        todo!()
    }
}
