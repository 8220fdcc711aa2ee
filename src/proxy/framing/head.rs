//! One request head, judged byte by byte (RFC 9112 sections 2 to 6, without its permissions to be lenient).

use http::Uri;

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// All of it, bytes.
    pub bytes: usize,
    /// Number of fields.
    pub fields: usize,
    /// The request target, bytes.
    pub target: usize,
}

/// What is wrong with a head or a body's framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// The request line: method, spaces, version.
    RequestLine,
    /// The authority in the request target.
    Authority,
    /// The path in the request target.
    Path,
    /// A field name or value.
    Field,
    /// A folded field line (RFC 9112 section 5.2).
    Fold,
    /// A line that does not end in CR LF.
    LineEnd,
    /// No Host, more than one, or one that is not a host.
    Host,
    /// Content-Length or Transfer-Encoding that is repeated, malformed, or both at once.
    Length,
    /// A chunk that is malformed.
    Chunk,
    /// An expectation other than `100-continue`.
    Expectation,
    /// More or longer than the limits allow.
    TooLarge,
}

impl Violation {
    const ALL: [Self; 11] = [
        Self::RequestLine,
        Self::Authority,
        Self::Path,
        Self::Field,
        Self::Fold,
        Self::LineEnd,
        Self::Host,
        Self::Length,
        Self::Chunk,
        Self::Expectation,
        Self::TooLarge,
    ];

    /// A number for the stand-in request.
    pub(super) fn number(self) -> usize {
        Self::ALL.iter().position(|each| *each == self).unwrap_or(0)
    }

    /// Back from the number.
    pub(super) fn from_number(number: usize) -> Option<Self> {
        Self::ALL.get(number).copied()
    }

    /// What to tell the agent.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::RequestLine => "the request line is malformed",
            Self::Authority => "the authority in the request target is malformed",
            Self::Path => "the path in the request target is malformed",
            Self::Field => "a header field is malformed",
            Self::Fold => "a header field is folded over two lines",
            Self::LineEnd => "a line does not end in CR LF",
            Self::Host => "Host is missing, repeated or malformed",
            Self::Length => "Content-Length or Transfer-Encoding is repeated, malformed or contradictory",
            Self::Chunk => "a chunk of the body is malformed",
            Self::Expectation => "the expectation is not 100-continue",
            Self::TooLarge => "the request head is too large",
        }
    }
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follows {
    /// The next head.
    Nothing,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunks,
    /// Another protocol, if the answer says so.
    Decision,
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

fn trim(value: &[u8]) -> &[u8] {
    let start = value.iter().position(|b| !matches!(b, b' ' | b'\t')).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !matches!(b, b' ' | b'\t')).map_or(start, |at| at + 1);
    &value[start..end]
}

/// The value of a framing field: one space before it at most, nothing after it.
fn bare(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}

/// Judges a whole head, from the request line to the empty line, every line ending in CR LF.
pub(super) fn judge(head: &[u8], limits: &HeadLimits) -> Result<Follows, Violation> {
    let mut lines = head.strip_suffix(b"\r\n\r\n").unwrap_or(head).split(|byte| *byte == b'\n');
    let line = lines.next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (method, http10) = request_line(line, limits)?;

    let (mut hosts, mut lengths, mut codings, mut expectations) = (0, 0, 0, 0);
    let (mut length, mut upgrade, mut fields) = (None, false, 0);
    for line in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        fields += 1;
        if fields > limits.fields {
            return Err(Violation::TooLarge);
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Violation::Fold);
        }
        let colon = memchr::memchr(b':', line).ok_or(Violation::Field)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || !name.iter().copied().all(is_token) || !value.iter().copied().all(is_value) {
            return Err(Violation::Field);
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                hosts += 1;
                host(trim(value))?;
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                expectations += 1;
                if !trim(value).eq_ignore_ascii_case(b"100-continue") {
                    return Err(Violation::Expectation);
                }
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => upgrade = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                lengths += 1;
                length = Some(content_length(bare(value))?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                codings += 1;
                if !bare(value).eq_ignore_ascii_case(b"chunked") {
                    return Err(Violation::Length);
                }
            }
            14 if name.eq_ignore_ascii_case(b"content_length") => return Err(Violation::Length),
            17 if name.eq_ignore_ascii_case(b"transfer_encoding") => return Err(Violation::Length),
            _ => {}
        }
    }
    if hosts > 1 || (hosts == 0 && !http10) {
        return Err(Violation::Host);
    }
    if lengths > 1 || codings > 1 || (lengths == 1 && codings == 1) || (codings == 1 && http10) {
        return Err(Violation::Length);
    }
    if expectations > 1 {
        return Err(Violation::Expectation);
    }
    Ok(match length {
        _ if method == b"CONNECT" => {
            if codings == 1 || length.is_some_and(|length| length > 0) {
                return Err(Violation::Length);
            }
            Follows::Decision
        }
        _ if codings == 1 => Follows::Chunks,
        Some(length) if length > 0 => Follows::Length(length),
        _ if upgrade && !http10 => Follows::Decision,
        _ => Follows::Nothing,
    })
}

/// Gives the method, and whether the version is 1.0.
fn request_line<'a>(line: &'a [u8], limits: &HeadLimits) -> Result<(&'a [u8], bool), Violation> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Violation::RequestLine);
    };
    if method.is_empty() || method.len() > 32 || !method.iter().copied().all(is_token) {
        return Err(Violation::RequestLine);
    }
    let http10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err(Violation::RequestLine),
    };
    if target.len() > limits.target {
        return Err(Violation::TooLarge);
    }
    let fault = if method == b"CONNECT" || !matches!(target.first(), Some(b'/' | b'*')) {
        Violation::Authority
    } else {
        Violation::Path
    };
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(fault);
    }
    if fault == Violation::Authority && authority(target).contains(&b'@') {
        return Err(Violation::Authority);
    }
    if target.contains(&b'#') {
        return Err(Violation::Path);
    }
    if Uri::try_from(target).is_err() {
        return Err(fault);
    }
    Ok((method, http10))
}

/// The authority of a target in authority or absolute form.
fn authority(target: &[u8]) -> &[u8] {
    let start = memchr::memmem::find(target, b"://").map_or(0, |at| at + 3);
    let rest = &target[start..];
    &rest[..rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len())]
}

/// A rough look: what a host cannot have. The meaning is judged with the target.
fn host(value: &[u8]) -> Result<(), Violation> {
    let odd = |byte: &u8| !byte.is_ascii_graphic() || b",/@\\?#%".contains(byte);
    if value.is_empty() || value.iter().any(odd) { Err(Violation::Host) } else { Ok(()) }
}

/// Plain digits only.
fn content_length(value: &[u8]) -> Result<u64, Violation> {
    let plain = !value.is_empty()
        && value.len() <= 18
        && value.iter().all(u8::is_ascii_digit)
        && (value.len() == 1 || value[0] != b'0');
    if !plain {
        return Err(Violation::Length);
    }
    Ok(value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}
