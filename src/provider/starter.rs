//! A provider file to start from.

/// A valid file with every key, most of them as remarks.
#[must_use]
pub fn starter_file() -> &'static str {
    include_str!("starter.toml")
}
