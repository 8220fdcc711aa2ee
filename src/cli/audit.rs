//! `nexus audit tail` and `nexus audit query`.

use super::{CliError, Context, Format, output};
use crate::audit::{Event, Filter, Kind, Reader};
use crate::types::{Scope, parse_duration};
use std::time::Duration;

/// The audit record
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Show the last events
    #[command(after_help = "Examples:\n  nexus audit tail -f\n  nexus audit tail -n 1000 -o json | jq .host")]
    Tail {
        /// How many
        #[arg(short = 'n', value_name = "COUNT", default_value_t = 100)]
        count: usize,
        /// Go on with what comes, until interrupted
        #[arg(short, long)]
        follow: bool,
    },
    /// Show the events that match
    #[command(
        after_help = "Examples:\n  nexus audit query --since 1h --status 4xx\n  nexus audit query --agent ci --host api.github.com -o json"
    )]
    Query(Query),
}

/// What to show.
#[derive(Debug, clap::Args)]
pub struct Query {
    /// Not older than this, such as 1h or 7d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    since: Option<Duration>,
    /// Of this agent
    #[arg(long, value_name = "A")]
    agent: Option<String>,
    /// Of this connection, by name or id
    #[arg(long, value_name = "C")]
    connection: Option<String>,
    /// To this host
    #[arg(long, value_name = "H")]
    host: Option<String>,
    /// With this status: 404, or 4xx for all of a class
    #[arg(long, value_name = "S", value_parser = parse_status)]
    status: Option<String>,
}

/// How often `-f` looks for new lines.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

impl AuditCommand {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let directory = context.home.audit();
        if !directory.exists() {
            let shown = directory.display();
            return Err(CliError::NotFound(format!("there is no audit record in {shown}; nothing was served yet")));
        }
        let mut reader = Reader::new(&directory);
        let scope = &context.scope;
        match self {
            Self::Query(query) => {
                let filter = Filter {
                    since: query.since.map(|since| context.clock.now().saturating_sub_unsigned(since.as_secs())),
                    agent: query.agent,
                    connection: query.connection,
                    host: query.host,
                    status: query.status,
                    tenant: None,
                };
                let events = reader.query(&filter).map_err(CliError::io(&directory))?;
                print_events(context.format, &of_scope(events, scope))
            }
            Self::Tail { count, follow } => {
                let events = last_of_scope(&mut reader, count, scope).map_err(CliError::io(&directory))?;
                print_events(context.format, &events)?;
                if !follow {
                    return Ok(());
                }
                loop {
                    tokio::time::sleep(FOLLOW_EVERY).await;
                    let events = reader.follow().map_err(CliError::io(&directory))?;
                    print_events(context.format, &of_scope(events, scope))?;
                }
            }
        }
    }
}

/// The events of a scope. What belongs to nobody (a caller without a token, missing lines) is the default scope's.
fn of_scope(mut events: Vec<Event>, scope: &Scope) -> Vec<Event> {
    let nobodys = *scope == Scope::default();
    events.retain(|event| match (&event.tenant, &event.namespace) {
        (None, _) => nobodys,
        (Some(tenant), namespace) => {
            *tenant == scope.tenant.as_str() && namespace.as_deref() == Some(scope.namespace.as_str())
        }
    });
    events
}

/// The last `count` events of a scope: looks further back until there are as many, or no more.
fn last_of_scope(reader: &mut Reader, count: usize, scope: &Scope) -> std::io::Result<Vec<Event>> {
    let mut window = count;
    loop {
        let all = reader.tail(window)?;
        let is_all = all.len() < window;
        let mut events = of_scope(all, scope);
        if is_all || events.len() >= count {
            events.drain(..events.len().saturating_sub(count));
            return Ok(events);
        }
        window = window.saturating_mul(8);
    }
}

fn parse_status(text: &str) -> Result<String, String> {
    let bytes = text.as_bytes();
    let class = bytes.len() == 3 && (b'1'..=b'5').contains(&bytes[0]);
    let rest_fits = class && (bytes[1..].iter().all(u8::is_ascii_digit) || text[1..].eq_ignore_ascii_case("xx"));
    if rest_fits {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("use a status such as 404, or a class such as 4xx".to_owned())
    }
}

fn print_events(format: Format, events: &[Event]) -> Result<(), CliError> {
    let mut text = String::new();
    for event in events {
        match format {
            Format::Json => text.push_str(&serde_json::to_string(event).expect("an event is plain data")),
            Format::Table => text.push_str(&output::printable(&line(event))),
        }
        text.push('\n');
    }
    if text.is_empty() { Ok(()) } else { output::print(&text) }
}

/// One event for people: columns that line up for usual lengths, so that it works for a stream too.
pub(super) fn line(event: &Event) -> String {
    let kind = match event.event {
        Kind::Start => "start",
        Kind::End => "end",
        Kind::Denied => "denied",
        Kind::Aborted => "aborted",
        Kind::Gap => "gap",
        Kind::IntegrityFailure => "integrity_failure",
    };
    if event.event == Kind::Gap {
        return format!("{}  gap      {} lines are missing", event.time, event.count.unwrap_or_default());
    }
    let status = event.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    let agent = event.agent.as_deref().unwrap_or("-");
    let connection = event.connection.as_deref().unwrap_or("-");
    let method = event.method.as_deref().unwrap_or("-");
    let host = event.host.as_deref().unwrap_or("-");
    let path = event.path.as_deref().unwrap_or("");
    let mut line =
        format!("{}  {kind:<7}  {status:>3}  {agent:<16}  {connection:<16}  {method:<6}  {host}{path}", event.time);
    if event.replayed {
        line.push_str("  refreshed");
    }
    if let Some(reason) = &event.reason {
        line.push_str("  ");
        line.push_str(reason);
    }
    if let Some(duration) = event.duration_ms {
        line.push_str(&format!("  {duration} ms"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RequestId;

    #[test]
    fn status_filters_are_codes_or_classes() {
        for (text, fits) in
            [("404", true), ("4xx", true), ("5XX", true), ("4x4", false), ("44", false), ("900", false), ("", false)]
        {
            assert_eq!(parse_status(text).is_ok(), fits, "{text}");
        }
    }

    #[test]
    fn a_scope_sees_its_own_events() {
        let event = |tenant: Option<&str>, namespace: Option<&str>| {
            let mut event = Event::new(Kind::End, RequestId::generate());
            event.tenant = tenant.map(str::to_owned);
            event.namespace = namespace.map(str::to_owned);
            event
        };
        let events = || {
            vec![
                event(None, None),
                event(Some("default"), Some("default")),
                event(Some("default"), Some("prod")),
                event(Some("t2"), Some("default")),
            ]
        };
        for (tenant, namespace, seen) in [
            ("default", "default", vec![0, 1]),
            ("default", "prod", vec![2]),
            ("t2", "default", vec![3]),
            ("t2", "prod", vec![]),
        ] {
            let scope = Scope {
                tenant: crate::types::TenantName::parse(tenant).expect("a name"),
                namespace: crate::types::NamespaceName::parse(namespace).expect("a name"),
            };
            let all = events();
            let seen: Vec<_> = seen.into_iter().map(|index: usize| all[index].clone()).collect();
            assert_eq!(of_scope(all, &scope), seen, "{tenant}/{namespace}");
        }
    }

    #[test]
    fn a_line_tells_what_was_refused_and_why() {
        let mut event = Event::new(Kind::Denied, RequestId::generate());
        event.time = "2026-01-02T03:04:05.000006Z".to_owned();
        event.status = Some(403);
        event.agent = Some("ci".to_owned());
        event.method = Some("GET".to_owned());
        event.host = Some("api.example.test".to_owned());
        event.path = Some("/x".to_owned());
        event.reason = Some("no_connection".to_owned());
        let line = line(&event);
        for part in ["2026-01-02T03:04:05.000006Z", "denied", "403", "ci", "api.example.test/x", "no_connection"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }
}
