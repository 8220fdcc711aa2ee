//! Reflected credentials are taken out of answers: headers, identity bodies and gzip bodies, across chunk borders.
//!
//! A match is overwritten with `*` of the same length, so lengths stay true. Only bytes that may begin a match are held
//! back, and when the upstream pauses the first few of those are let go too.

use crate::secret::Secret;
use bytes::{Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};
use http::header::{HeaderMap, HeaderValue};

/// Most plain bytes that one step of decoding makes.
const DECODED: usize = 64 * 1024;

/// Overwrites the secrets of one request.
pub struct Scrubber {
    patterns: Vec<Secret>,
    /// The end of the stream so far, with which a match may begin.
    held: BytesMut,
    /// How many bytes of that the agent has already.
    shown: usize,
    found: u64,
}

/// So many bytes with which a match may begin are let go when the upstream pauses, once: a message that ends in a byte
/// of the credential must not wait for the next one.
const LET_GO: usize = 4;

impl Scrubber {
    /// For these values, none of them empty.
    #[must_use]
    pub fn new(patterns: Vec<Secret>) -> Self {
        Self { patterns, held: BytesMut::new(), shown: 0, found: 0 }
    }

    /// How many were found so far.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.found
    }

    /// Whether bytes are held back.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.held.len() > self.shown
    }

    /// Whether a pause lets go of what is held back.
    #[must_use]
    pub fn may_let_go(&self) -> bool {
        self.is_holding() && self.held.len() <= LET_GO
    }

    /// The upstream pauses: gives what is held back. The match that may have begun is still looked for.
    pub fn let_go(&mut self) -> Bytes {
        let bytes = Bytes::copy_from_slice(&self.held[self.shown..]);
        self.shown = self.held.len();
        bytes
    }

    /// Header values, in place.
    pub fn scrub_headers(&mut self, headers: &mut HeaderMap) {
        for (_, value) in headers.iter_mut() {
            if let Some(clean) = self.scrub_whole(value.as_bytes()) {
                *value = HeaderValue::from_bytes(&clean).unwrap_or_else(|_| HeaderValue::from_static("*"));
            }
        }
    }

    /// A whole text; `None` when nothing was found in it.
    fn scrub_whole(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        let mut clean: Option<Vec<u8>> = None;
        for pattern in &self.patterns {
            // Exposed to be looked for; the copy in `clean` is overwritten where it matches.
            let needle = pattern.expose().as_bytes();
            let finder = memchr::memmem::Finder::new(needle);
            while let Some(at) = finder.find(clean.as_deref().unwrap_or(text)) {
                clean.get_or_insert_with(|| text.to_vec())[at..at + needle.len()].fill(b'*');
                self.found += 1;
            }
        }
        clean
    }

    /// The next piece of a stream; gives what may be passed on.
    pub fn push(&mut self, piece: Bytes) -> Bytes {
        let data = if self.held.is_empty() {
            piece
        } else {
            let mut joined = self.held.split();
            joined.extend_from_slice(&piece);
            joined.freeze()
        };
        let mut data = match self.scrub_whole(&data) {
            Some(clean) => Bytes::from(clean),
            None => data,
        };
        let passed = data.len() - self.possible_beginning(&data);
        if passed < data.len() {
            self.held.extend_from_slice(&data.split_off(passed));
        }
        let shown = self.shown;
        self.shown = shown.saturating_sub(passed);
        data.split_off(shown.min(passed))
    }

    /// The end of a stream; gives what was held back.
    pub fn finish(&mut self) -> Bytes {
        let shown = std::mem::take(&mut self.shown);
        self.held.split().freeze().split_off(shown)
    }

    /// The length of the longest end of `data` with which a match could begin.
    fn possible_beginning(&self, data: &[u8]) -> usize {
        let beginning = |pattern: &Secret| {
            // Exposed to be compared with the end of the data.
            let needle = pattern.expose().as_bytes();
            let longest = data.len().min(needle.len() - 1);
            let tail = &data[data.len() - longest..];
            memchr::memchr_iter(needle[0], tail)
                .map(|at| &tail[at..])
                .find(|end| needle.starts_with(end))
                .map_or(0, <[u8]>::len)
        };
        self.patterns.iter().map(beginning).max().unwrap_or(0)
    }
}

/// Decodes gzip in bounded steps.
pub struct Gunzip {
    decoder: Decompress,
    input: Bytes,
    ended: bool,
    begun: bool,
}

/// The body is not gzip, or is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not valid gzip")]
pub struct GunzipError;

impl Default for Gunzip {
    fn default() -> Self {
        Self { decoder: Decompress::new_gzip(15), input: Bytes::new(), ended: false, begun: false }
    }
}

impl Gunzip {
    /// The next coded bytes. Call [`Gunzip::decode`] until it gives nothing before the next push.
    pub fn push(&mut self, piece: Bytes) {
        self.begun |= !piece.is_empty();
        self.input = piece;
    }

    /// Some plain bytes; `None` when more input is needed.
    ///
    /// # Errors
    /// [`GunzipError`].
    pub fn decode(&mut self) -> Result<Option<Bytes>, GunzipError> {
        loop {
            if self.ended {
                // Some writers pad with zeros.
                if self.input.iter().all(|byte| *byte == 0) {
                    self.input.clear();
                    return Ok(None);
                }
                // RFC 1952 section 2.2: members follow each other.
                self.decoder = Decompress::new_gzip(15);
                self.ended = false;
            }
            let mut plain = Vec::with_capacity(DECODED.min(self.input.len().saturating_mul(8).max(4096)));
            let before = self.decoder.total_in();
            let status =
                self.decoder.decompress_vec(&self.input, &mut plain, FlushDecompress::None).map_err(|_| GunzipError)?;
            let taken = usize::try_from(self.decoder.total_in() - before).map_err(|_| GunzipError)?;
            let _ = self.input.split_to(taken);
            self.ended = status == Status::StreamEnd;
            if !plain.is_empty() {
                return Ok(Some(Bytes::from(plain)));
            }
            if !self.ended && taken == 0 {
                return Ok(None);
            }
        }
    }

    /// Whether the input ended where a member ends.
    ///
    /// # Errors
    /// [`GunzipError`] when it did not.
    pub fn finish(&self) -> Result<(), GunzipError> {
        if self.ended || !self.begun { Ok(()) } else { Err(GunzipError) }
    }
}

#[cfg(test)]
mod tests;
