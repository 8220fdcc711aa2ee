//! Logs on stderr. Libraries that print heads or headers at debug level are capped at `warn`, whatever is asked for.

use std::io::{self, IsTerminal};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// Chooses the level, in tracing's filter syntax.
const FILTER_VARIABLE: &str = "NEXUS_LOG";

/// `json` makes each line a JSON object.
const FORMAT_VARIABLE: &str = "NEXUS_LOG_FORMAT";

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Plain,
    Coloured,
    Json,
}

/// Sets up logging once; `NEXUS_LOG` (tracing's filter syntax) chooses the level, `info` by default. Targets of pingora,
/// hyper, h2, rustls, sqlx and hickory never go below `warn`.
pub fn init_logging(default_level: &str) {
    let asked = std::env::var(FILTER_VARIABLE).ok().filter(|text| !text.is_empty());
    let (filter, wrong) = filter(asked.as_deref(), default_level);
    let format = if std::env::var(FORMAT_VARIABLE).is_ok_and(|format| format.eq_ignore_ascii_case("json")) {
        Format::Json
    } else if io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) {
        Format::Coloured
    } else {
        Format::Plain
    };
    // The second call finds the first one's in place.
    let first = subscriber(filter, format, io::stderr).try_init().is_ok();
    if first && wrong {
        tracing::warn!("{FILTER_VARIABLE} is not a log filter; use one like info or nexus=debug");
    }
}

/// The filter to use, and whether what was asked for is wrong.
fn filter(asked: Option<&str>, default_level: &str) -> (EnvFilter, bool) {
    let parsed = asked.map(EnvFilter::try_new);
    let wrong = matches!(parsed, Some(Err(_)));
    let filter = parsed.and_then(Result::ok).or_else(|| EnvFilter::try_new(default_level).ok());
    (filter.unwrap_or_else(|| EnvFilter::default().add_directive(LevelFilter::INFO.into())), wrong)
}

fn subscriber<W>(filter: EnvFilter, format: Format, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(format == Format::Coloured);
    let lines: Box<dyn Layer<Registry> + Send + Sync> =
        if format == Format::Json { Box::new(lines.json().flatten_event(true)) } else { Box::new(lines) };
    tracing_subscriber::registry().with(lines).with(filter).with(tracing_subscriber::filter::filter_fn(is_safe))
}

/// Only our own code is known to keep secrets out of its lines.
fn is_safe(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    *metadata.level() <= Level::WARN || target == "nexus" || target.starts_with("nexus::")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(asked: Option<&str>, format: Format, log: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = subscriber(filter(asked, "info").0, format, move || writer.clone());
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(kept.0.lock().clone()).unwrap()
    }

    fn log_everywhere() {
        tracing::debug!("own debug");
        tracing::info!("own info");
        tracing::debug!(target: "nexus::net", "net debug");
        tracing::debug!(target: "hyper::proto", "hyper debug");
        tracing::info!(target: "pingora_core", "pingora info");
        tracing::info!(target: "nexusish", "lookalike info");
        tracing::warn!(target: "h2::frame", "h2 warn");
    }

    #[test]
    fn libraries_are_capped_at_warn_whatever_is_asked_for() {
        for asked in ["trace", "hyper=trace,pingora_core=trace,nexusish=trace,h2=trace,nexus=trace"] {
            let text = logged(Some(asked), Format::Plain, log_everywhere);
            for shown in ["own debug", "own info", "net debug", "h2 warn"] {
                assert!(text.contains(shown), "{asked}: {shown} in {text}");
            }
            for hidden in ["hyper debug", "pingora info", "lookalike"] {
                assert!(!text.contains(hidden), "{asked}: {hidden} in {text}");
            }
        }
    }

    #[test]
    fn the_default_level_holds_without_a_usable_filter() {
        for asked in [None, Some("nexus=nonsense,=,[")] {
            let text = logged(asked, Format::Plain, log_everywhere);
            assert!(text.contains("own info") && !text.contains("own debug"), "{asked:?}: {text}");
        }
        assert!(filter(Some("nexus=nonsense,=,["), "info").1);
        assert!(!filter(Some("debug"), "info").1);
    }

    #[test]
    fn json_lines_are_objects() {
        let text = logged(None, Format::Json, || tracing::info!(connection = "work", "refreshed"));
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!((&line["message"], &line["connection"]), (&"refreshed".into(), &"work".into()));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = logged(None, Format::Plain, || tracing::info!("a{}b", "\x1b[31m"));
        assert!(!text.contains('\x1b'), "{text:?}");
    }

    #[test]
    fn calling_it_twice_is_fine() {
        init_logging("warn");
        init_logging("info");
    }
}
