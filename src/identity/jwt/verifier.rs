//! From what a caller presents to a proof. Signatures are verified once for each token and then remembered.

use super::source::Fetcher;
use super::token::{Jwt, VerifiedJwt};
use super::{Issuer, JwtError, run};
use crate::identity::{Directory, Presented, Proof};
use crate::net::Egress;
use crate::secret::{KeyId, Keyring, TokenDigest};
use crate::telemetry::Metrics;
use crate::types::{Clock, UnixSeconds};
use quick_cache::sync::Cache;
use std::sync::Arc;

/// Verifies presented tokens. Share by `Arc`; one for a process, since what it remembers holds for every snapshot.
pub struct Verifier {
    keyring: Arc<Keyring>,
    metrics: Arc<Metrics>,
    clock: Clock,
    verified: Cache<TokenDigest, Verified>,
}

/// Tokens that are remembered, at most; each is smaller than 8 KiB.
const REMEMBERED: usize = 4096;

#[derive(Clone)]
enum Verified {
    Jwt(Arc<VerifiedJwt>),
    /// A run token, signed with the key of this root key.
    Run(KeyId),
}

impl Verifier {
    /// A verifier with nothing remembered.
    #[must_use]
    pub fn new(keyring: Arc<Keyring>, metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self { keyring, metrics, clock, verified: Cache::new(REMEMBERED) }
    }

    /// The proof that a caller presents. For opaque tokens that is all; a JWT is verified. What the proof is worth
    /// now, [`Directory::recognise`] says.
    ///
    /// # Errors
    /// See [`JwtError`].
    pub async fn prove(
        &self,
        directory: &Directory,
        egress: &Arc<Egress>,
        presented: &Presented,
    ) -> Result<Proof, JwtError> {
        let (digest, text) = match presented {
            Presented::Token(digest) => return Ok(Proof::Token(*digest)),
            // Exposed to be verified.
            Presented::Jwt { digest, text } => (*digest, text.expose()),
        };
        let now = self.clock.now();
        if let Some(proof) = self.remembered(directory, digest, now) {
            return Ok(proof);
        }
        let token = Jwt::parse(text)?;
        let verified = if directory.issuers.is_own(&token.registered.issuer) {
            let key_id = run::verify(&self.keyring, &token, now)?;
            let principal = directory.tokens.authenticate(&digest, now).map_err(|_| JwtError::Record)?;
            if !run::agrees(&token, &principal) {
                return Err(JwtError::Record);
            }
            Verified::Run(key_id)
        } else {
            let issuer = directory.issuers.meant_by(&token.registered).ok_or(JwtError::Audience)?;
            Verified::Jwt(Arc::new(self.verify(issuer, egress, token, digest, now).await?))
        };
        self.verified.insert(digest, verified.clone());
        Ok(match verified {
            Verified::Jwt(token) => Proof::Jwt(token),
            Verified::Run(_) => Proof::Token(digest),
        })
    }

    /// What was verified before and would be now.
    fn remembered(&self, directory: &Directory, digest: TokenDigest, now: UnixSeconds) -> Option<Proof> {
        let proof = match self.verified.get(&digest)? {
            Verified::Run(key_id) => self.keyring.has(key_id).then_some(Proof::Token(digest)),
            Verified::Jwt(token) => {
                let issuer = directory.issuers.by_name(&token.issuer);
                let is_good = issuer.is_some_and(|issuer| issuer.check_again(&token, now).is_ok());
                is_good.then_some(Proof::Jwt(token))
            }
        };
        if proof.is_none() {
            self.verified.remove(&digest);
        }
        proof
    }

    async fn verify(
        &self,
        issuer: &Issuer,
        egress: &Arc<Egress>,
        token: Jwt<'_>,
        digest: TokenDigest,
        now: UnixSeconds,
    ) -> Result<VerifiedJwt, JwtError> {
        let algorithm = issuer.settings.algorithm;
        if token.algorithm != algorithm.name() {
            let found = token.algorithm.chars().take(40).collect();
            return Err(JwtError::Algorithm { found, pinned: algorithm });
        }
        issuer.check_times(&token.registered, now)?;
        let fetcher = self.fetcher(egress);
        let keys = issuer.keys.keys(&fetcher, now).await.ok_or(JwtError::NoKeys)?;
        let key = match keys.verify(&token, algorithm) {
            Err(JwtError::UnknownKey) => {
                let newer = issuer.keys.newer_keys(&fetcher, &keys, now).await.ok_or(JwtError::UnknownKey)?;
                newer.verify(&token, algorithm)?
            }
            verified => verified?,
        };
        Ok(VerifiedJwt {
            digest,
            issuer: Arc::clone(&issuer.settings.name),
            algorithm,
            key,
            registered: token.registered,
            claims: token.claims,
        })
    }

    /// Fetches key sets that are due, in the background.
    pub fn keep_keys_fresh(&self, directory: &Directory, egress: &Arc<Egress>) {
        let now = self.clock.now();
        for issuer in directory.issuers.iter() {
            issuer.keys.keep_fresh(&self.fetcher(egress), now);
        }
    }

    fn fetcher(&self, egress: &Arc<Egress>) -> Fetcher {
        Fetcher { egress: Arc::clone(egress), metrics: Arc::clone(&self.metrics), clock: self.clock.clone() }
    }
}

#[cfg(test)]
mod tests;
