//! Where one request ends and the next begins: a state machine over bytes, without I/O.

use super::head::{Follows, HeadLimits, Violation, judge};

/// Longest chunk extension of one chunk, and longest trailer section, in bytes.
const CHUNK_EXTRAS: usize = 4 * 1024;

/// What a stretch of bytes was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// How many of the bytes may pass.
    pub passed: usize,
    /// What the bytes after those are.
    pub verdict: Verdict,
}

/// What the bytes that did not pass are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The beginning of a head; more is needed. Give them again with what follows.
    Incomplete,
    /// Bytes behind a request whose answer decides what they are ([`Scanner::decide`]).
    Undecided,
    /// A head that is refused.
    Refused(Violation),
    /// A body that is refused.
    BadBody(Violation),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a head, of which so many bytes have been looked at.
    Head {
        looked: usize,
    },
    Length(u64),
    Chunk(Chunk),
    Undecided,
    Opaque,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size { digits: u8, size: u64 },
    Extension { size: u64, length: usize },
    SizeEnd { size: u64 },
    Data(u64),
    DataEnd,
    DataEndLine,
    Trailer { length: usize, at_start: bool },
    TrailerEnd { length: usize, last: bool },
}

/// The scanner of one connection's downstream bytes.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    limits: HeadLimits,
}

impl Scanner {
    /// At the start of a connection.
    #[must_use]
    pub fn new(limits: HeadLimits) -> Self {
        Self { state: State::Head { looked: 0 }, limits }
    }

    /// Whether the next byte begins a head.
    #[must_use]
    pub fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Head { looked: 0 })
    }

    /// The answer was given: what follows is another protocol (`switched`), or the next head.
    pub fn decide(&mut self, switched: bool) {
        if self.state == State::Undecided {
            self.state = if switched { State::Opaque } else { State::Head { looked: 0 } };
        }
    }

    /// Looks at bytes. Those that did not pass are given again, with more behind them, at the next call.
    pub fn advance(&mut self, data: &[u8]) -> Step {
        let mut at = 0;
        loop {
            let rest = &data[at..];
            match self.state {
                State::Opaque => return Step { passed: data.len(), verdict: Verdict::Incomplete },
                State::Undecided => return Step { passed: at, verdict: Verdict::Undecided },
                State::Head { looked } => match self.head(rest, looked) {
                    Ok(Some(length)) => at += length,
                    Ok(None) => return Step { passed: at, verdict: Verdict::Incomplete },
                    Err(violation) => return Step { passed: at, verdict: Verdict::Refused(violation) },
                },
                State::Length(left) => {
                    let taken = left.min(rest.len() as u64);
                    at += usize::try_from(taken).expect("no more than a slice's length");
                    self.state = if taken == left { State::Head { looked: 0 } } else { State::Length(left - taken) };
                    if taken < left {
                        return Step { passed: at, verdict: Verdict::Incomplete };
                    }
                }
                State::Chunk(chunk) => match self.chunk(rest, chunk) {
                    Ok(taken) => {
                        at += taken;
                        if matches!(self.state, State::Chunk(_)) {
                            return Step { passed: at, verdict: Verdict::Incomplete };
                        }
                    }
                    Err((taken, violation)) => {
                        return Step { passed: at + taken, verdict: Verdict::BadBody(violation) };
                    }
                },
            }
            if at == data.len() && !matches!(self.state, State::Undecided) {
                return Step { passed: at, verdict: Verdict::Incomplete };
            }
        }
    }

    /// The length of a whole head at the start of `data`, or none when more is needed.
    fn head(&mut self, data: &[u8], looked: usize) -> Result<Option<usize>, Violation> {
        // RFC 9112 section 2.2: an empty line or two before a request line is ignored.
        let skip = if data.starts_with(b"\r\n\r\n") { 4 } else { 2 * usize::from(data.starts_with(b"\r\n")) };
        for newline in memchr::memchr_iter(b'\n', &data[looked..]).map(|found| looked + found) {
            if newline == 0 || data[newline - 1] != b'\r' {
                return Err(Violation::LineEnd);
            }
            if newline < skip {
                continue;
            }
            let empty_line = newline >= skip + 3 && data[newline - 3..newline] == *b"\r\n\r";
            if empty_line {
                let end = newline + 1;
                if end > self.limits.bytes {
                    return Err(Violation::TooLarge);
                }
                let head = &data[skip..end];
                if let Some(cr) = memchr::memchr_iter(b'\r', head).find(|cr| head.get(cr + 1) != Some(&b'\n')) {
                    let _ = cr;
                    return Err(Violation::LineEnd);
                }
                self.state = match judge(head, &self.limits)? {
                    Follows::Nothing => State::Head { looked: 0 },
                    Follows::Length(length) => State::Length(length),
                    Follows::Chunks => State::Chunk(Chunk::Size { digits: 0, size: 0 }),
                    Follows::Decision => State::Undecided,
                };
                return Ok(Some(end));
            }
            if newline == skip + 1 && skip >= 4 {
                return Err(Violation::RequestLine);
            }
        }
        if data.len() > self.limits.bytes {
            return Err(Violation::TooLarge);
        }
        self.state = State::Head { looked: data.len() };
        Ok(None)
    }

    /// Walks chunks; gives how many bytes were taken, all of them unless the body ended.
    fn chunk(&mut self, data: &[u8], mut chunk: Chunk) -> Result<usize, (usize, Violation)> {
        let mut at = 0;
        while at < data.len() {
            let byte = data[at];
            let refuse = (at, Violation::Chunk);
            chunk = match chunk {
                Chunk::Data(left) => {
                    let taken = left.min((data.len() - at) as u64);
                    at += usize::try_from(taken).expect("no more than a slice's length");
                    if taken < left {
                        chunk = Chunk::Data(left - taken);
                        break;
                    }
                    chunk = Chunk::DataEnd;
                    continue;
                }
                Chunk::Size { digits, size } => match (byte as char).to_digit(16) {
                    Some(digit) if digits < 15 => {
                        Chunk::Size { digits: digits + 1, size: size * 16 + u64::from(digit) }
                    }
                    None if digits > 0 && byte == b'\r' => Chunk::SizeEnd { size },
                    None if digits > 0 && byte == b';' => Chunk::Extension { size, length: 0 },
                    _ => return Err(refuse),
                },
                Chunk::Extension { size, length } => match byte {
                    b'\r' => Chunk::SizeEnd { size },
                    b'\t' | 0x20..=0x7e if length < CHUNK_EXTRAS => Chunk::Extension { size, length: length + 1 },
                    _ => return Err(refuse),
                },
                Chunk::SizeEnd { size } if byte == b'\n' => {
                    if size == 0 {
                        Chunk::Trailer { length: 0, at_start: true }
                    } else {
                        Chunk::Data(size)
                    }
                }
                Chunk::DataEnd if byte == b'\r' => Chunk::DataEndLine,
                Chunk::DataEndLine if byte == b'\n' => Chunk::Size { digits: 0, size: 0 },
                Chunk::Trailer { length, at_start } => match byte {
                    b'\r' => Chunk::TrailerEnd { length, last: at_start },
                    _ if length >= CHUNK_EXTRAS => return Err(refuse),
                    b' ' | b'\t' if at_start => return Err(refuse),
                    b'\t' | 0x20..=0x7e | 0x80..=0xff => Chunk::Trailer { length: length + 1, at_start: false },
                    _ => return Err(refuse),
                },
                Chunk::TrailerEnd { length, last } if byte == b'\n' => {
                    if last {
                        self.state = State::Head { looked: 0 };
                        return Ok(at + 1);
                    }
                    Chunk::Trailer { length, at_start: true }
                }
                _ => return Err(refuse),
            };
            at += 1;
        }
        self.state = State::Chunk(chunk);
        Ok(at)
    }
}

#[cfg(test)]
mod tests;
