//! Secrets in memory and at rest: the [`Secret`] type, the sealed envelope, the key hierarchy, the agent token's form.
//!
//! Not here: who may open what (policy) and when (credential).

mod agent_token;
mod fields;
mod keyring;
mod passphrase;
mod private_file;
mod root_key;
mod sealed;
mod value;
#[cfg(test)]
mod vectors;

pub use agent_token::{AgentToken, EnrolmentCode, TokenDigest};
pub use fields::SecretFields;
pub use keyring::{KeyId, Keyring};
pub use private_file::write_private_file;
pub use root_key::{KeyError, RootKey};
pub use sealed::{Digest, SealContext, SealError, Sealed};
pub use value::{Fingerprint, Secret, random_bytes};
