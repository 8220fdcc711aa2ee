//! Durations as people write them: `30s 15m 12h 90d`, also `250ms`.

use std::time::Duration;

/// Why a duration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration; write a number and one of ms, s, m, h, d, such as 30s or 90d")]
pub struct DurationError(pub String);

/// Parses `30s`, `15m`, `12h`, `90d`, `250ms`.
///
/// # Errors
/// When the text has another form or does not fit.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError(text.chars().take(40).collect());
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
    let number: u64 = text[..digits].parse().map_err(|_| error())?;
    let millis_per_unit: u64 = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(error()),
    };
    let millis = number.checked_mul(millis_per_unit).filter(|m| *m <= 86_400_000 * 36_500).ok_or_else(error)?;
    Ok(Duration::from_millis(millis))
}

/// The shortest exact form that [`parse_duration`] reads back.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis >= size && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read() {
        for (text, millis) in
            [("30s", 30_000), ("15m", 900_000), ("12h", 43_200_000), ("90d", 7_776_000_000), ("250ms", 250), ("0s", 0)]
        {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "+1s",
            "1 s",
            " 1s",
            "1s ",
            "1.5s",
            "1h30m",
            "1S",
            "1w",
            "99999999999999999999d",
            "36501d",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn formatting_reads_back(millis in 0u64..86_400_000 * 36_500, unit in prop::sample::select(vec![1, 1_000, 3_600_000])) {
            let duration = Duration::from_millis(millis / unit * unit);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }
}
