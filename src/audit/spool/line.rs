//! An event as one line of bytes.

use super::super::{Event, layout};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use std::cell::Cell;
use std::io::{self, Write};

/// Longest text in a line, bytes: an agent chooses many of them.
const TEXT_BYTES: usize = 2048;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Sets the event's time, cuts its texts and hands its line to `write`. The line has a newline at both ends; the first
/// one is for a segment whose last line was cut off.
pub(super) fn with_line<R>(event: &mut Event, write: impl FnOnce(&Event, &[u8]) -> R) -> R {
    event.time = layout::format_time(Timestamp::now());
    cut(event);
    // Taken and put back, so that a line can be made while another one is written.
    let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
    buffer.clear();
    encode(event, &mut buffer);
    let result = write(event, &buffer);
    // At the end of a thread there is no place for it any more.
    let _ = BUFFER.try_with(|place| place.set(buffer));
    result
}

fn encode(event: &Event, buffer: &mut Vec<u8>) {
    buffer.push(b'\n');
    event
        .serialize(&mut Serializer::with_formatter(&mut *buffer, TerminalSafe))
        .expect("an event is texts and numbers, and a vector takes every write");
    buffer.push(b'\n');
}

fn cut(event: &mut Event) {
    let texts = [
        &mut event.tenant,
        &mut event.namespace,
        &mut event.agent,
        &mut event.run,
        &mut event.token_id,
        &mut event.client,
        &mut event.method,
        &mut event.scheme,
        &mut event.host,
        &mut event.path,
        &mut event.sni,
        &mut event.connection,
        &mut event.connection_id,
        &mut event.address,
        &mut event.reason,
    ];
    for text in texts.into_iter().flatten() {
        cut_text(text, TEXT_BYTES);
    }
    // The names of one query share what one text may have.
    let mut room = TEXT_BYTES;
    let mut kept = 0;
    for key in &mut event.query_keys {
        if room == 0 {
            break;
        }
        cut_text(key, room);
        // An empty name counts too, or a query of ampersands would make a long line.
        room = room.saturating_sub(key.len().max(1));
        kept += 1;
    }
    event.query_keys.truncate(kept);
}

fn cut_text(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
    }
}

/// serde_json's compact form, which escapes controls below U+0020. This also escapes what a terminal could act on or
/// show in another order: DEL, the C1 controls, line separators and bidirectional marks.
struct TerminalSafe;

impl Formatter for TerminalSafe {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if fragment.bytes().all(|byte| byte < 0x7f) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut plain = 0;
        for (at, character) in fragment.char_indices().filter(|&(_, character)| is_unsafe(character)) {
            writer.write_all(&fragment.as_bytes()[plain..at])?;
            write!(writer, "\\u{:04x}", u32::from(character))?;
            plain = at + character.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[plain..])
    }
}

/// All of these have four hexadecimal digits at most, so one escape says them.
const fn is_unsafe(character: char) -> bool {
    matches!(character,
        '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
