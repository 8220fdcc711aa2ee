#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::config::{ListenAddress, ListenerConfig, TlsFiles};
use crate::identity::BoundAgent;
use crate::types::{AgentName, Scope};
use proptest::prelude::*;

const REFERENCE: &str = include_str!("../../../config/reference.toml");
const MINIMAL: &str = include_str!("../../../config/minimal.toml");
const PRODUCTION: &str = include_str!("../../../config/production.toml");

fn check(text: &str) -> Result<Config, Vec<FileProblem>> {
    check_text("nexus.toml", text, Path::new(""))
}

/// `line:column key: message` of every problem.
fn problems(text: &str) -> Vec<String> {
    let problems = check(text).err().unwrap_or_default();
    problems.iter().map(|p| p.to_string().strip_prefix("nexus.toml:").unwrap().to_owned()).collect()
}

#[test]
fn the_reference_is_the_default() {
    assert_eq!(check(REFERENCE), Ok(Config::default()));
    assert_eq!(check(""), Ok(Config::default()));
    assert_eq!(check("\u{feff}# with a byte order mark\n"), Ok(Config::default()));
}

#[test]
fn the_reference_lists_every_key() {
    let mut document = Document::new("", "");
    let table = DeTable::parse("").unwrap();
    read(&mut document, Section::root(table.get_ref()));
    for key in document.known() {
        let name = key.rsplit('.').next().unwrap();
        assert!(REFERENCE.contains(&format!("{name} =")) || REFERENCE.contains(&format!("{name}]")), "{key}");
    }
}

#[test]
fn the_examples_have_no_problems() {
    assert!(check(MINIMAL).unwrap().warnings.is_empty());
    let config = check(PRODUCTION).unwrap();
    assert!(config.warnings.is_empty());
    assert_eq!(config.listeners[0], plain("127.0.0.1:8470"));
    assert!(config.listeners[1].tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()));
    assert_eq!(config.store, Path::new("/var/lib/nexus/nexus.db"));
    assert_eq!(config.limits.stream_idle, Some(Duration::from_secs(3600)));
    assert_eq!(config.audit.durability, Durability::Disk);
}

#[test]
fn every_value_is_read() {
    let text = r#"
[server]
listen = ["[::1]:0", "127.0.0.1:1"]
admin = "127.0.0.2:9000"
shutdown_grace = "0s"
[[server.listener]]
address = "10.0.0.1:1"
allow_clear = true
[[server.listener]]
address = "127.0.0.1:2"
[store]
url = "sqlite://sub/own.db"
root_key = { command = ["pass", "show", "nexus"], passphrase = true }
next_root_key = { file = "next" }
[dns]
hosts = { "API.example.test" = "127.0.0.1", "b.test" = "::1" }
[egress]
unmatched = "tunnel"
allow_hosts = ["*.example.com"]
connect_ports = [443, 0x20fb]
allow_cidrs = ["10.0.0.0/8", "fd00::/8"]
[upstream]
ca_files = ["ca.pem"]
[limits]
header_bytes = 16384
header_time = "250ms"
connect = "1m"
first_byte = "none"
stream_idle = "1h"
tunnels_per_agent = 1
wrong_tokens_per_minute = 5
unauthenticated_connections = 16
replay_body = 0
replay_budget = "1GiB"
call_body = "1MiB"
[audit]
on_full = "drop_with_gap_record"
durability = "disk"
[[audit.sink]]
type = "file"
[tokens]
default_expires = "12h"
max_expires = "7d"
"#;
    let config = check_text("nexus.toml", text, Path::new("/home")).unwrap();
    let path = PathBuf::from;
    let expected = Config {
        listeners: ["[::1]:0", "127.0.0.1:1", "10.0.0.1:1", "127.0.0.1:2"].map(plain).into(),
        admin: "127.0.0.2:9000".parse().unwrap(),
        shutdown_grace: Duration::ZERO,
        store: path("/home/sub/own.db"),
        root_key: RootKeySource::Command(["pass", "show", "nexus"].map(str::to_owned).into()),
        root_key_form: RootKeyForm::Passphrase,
        next_root_key: Some(RootKeySource::File(path("/home/next"))),
        next_root_key_form: RootKeyForm::Key,
        dns_hosts: [("api.example.test", "127.0.0.1"), ("b.test", "::1")]
            .map(|(host, ip)| (Host::parse(host.as_bytes()).unwrap(), ip.parse().unwrap()))
            .into(),
        egress: crate::config::Egress {
            unmatched: Unmatched::Tunnel,
            allow_hosts: vec![HostPattern::parse("*.example.com").unwrap()],
            connect_ports: vec![443, 8443],
            allow_cidrs: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        },
        ca_files: vec![path("/home/ca.pem")],
        limits: crate::config::Limits {
            header_bytes: 16_384,
            header_time: Duration::from_millis(250),
            connect: Duration::from_secs(60),
            first_byte: None,
            stream_idle: Some(Duration::from_secs(3600)),
            tunnels_per_agent: 1,
            replay_body: 0,
            replay_budget: 1 << 30,
            call_body: 1 << 20,
            wrong_tokens_per_minute: 5,
            unauthenticated_connections: 16,
        },
        issuers: Vec::new(),
        audit: crate::audit::AuditSettings { on_full: OnFull::DropWithGapRecord, durability: Durability::Disk },
        tokens: crate::config::TokenLimits {
            default_expires: Duration::from_secs(43_200),
            max_expires: Some(Duration::from_secs(7 * 86_400)),
        },
        certificates: Vec::new(),
        warnings: config.warnings.clone(),
    };
    assert_eq!(config, expected);
}

fn plain(text: &str) -> ListenerConfig {
    ListenerConfig::plain(text.parse().unwrap())
}

#[test]
fn listeners_take_every_form() {
    let text = r#"
[server]
listen = ["127.0.0.1:1", "unix:run/short.sock"]
[[server.listener]]
address = "0.0.0.0:2"
tls = { cert = "tls/cert.pem", key = "/abs/key.pem", client_ca = "ca/agents.pem" }
[[server.listener]]
address = "unix:run/java.sock"
agent = "java"
tenant = "acme"
[[server.listener]]
address = "127.0.0.1:3"
agent = "java"
namespace = "prod"
"#;
    let config = check_text("nexus.toml", text, Path::new("/home")).unwrap();
    let path = PathBuf::from;
    let unix = |name: &str| ListenAddress::Unix(PathBuf::from(name));
    let bound = |tenant: &str, namespace: &str| BoundAgent {
        scope: Scope { tenant: tenant.parse().unwrap(), namespace: namespace.parse().unwrap() },
        agent: AgentName::parse("java").unwrap(),
    };
    let tls = TlsFiles {
        cert: path("/home/tls/cert.pem"),
        key: path("/abs/key.pem"),
        client_ca: Some(path("/home/ca/agents.pem")),
    };
    let expected = [
        plain("127.0.0.1:1"),
        ListenerConfig { address: unix("/home/run/short.sock"), tls: None, agent: None },
        ListenerConfig { tls: Some(tls), ..plain("0.0.0.0:2") },
        ListenerConfig { address: unix("/home/run/java.sock"), tls: None, agent: Some(bound("acme", "default")) },
        ListenerConfig { agent: Some(bound("default", "prod")), ..plain("127.0.0.1:3") },
    ];
    assert_eq!(config.listeners, expected);
    assert!(config.warnings.is_empty(), "TLS is no clear text");
}

#[test]
fn a_lower_maximum_lowers_the_default() {
    let day = |days: u64| Duration::from_secs(days * 86_400);
    for (text, default, max) in [
        ("", day(90), None),
        ("max_expires = \"7d\"", day(7), Some(day(7))),
        ("max_expires = \"365d\"", day(90), Some(day(365))),
        ("max_expires = \"none\"\ndefault_expires = \"1d\"", day(1), None),
        ("max_expires = \"7d\"\ndefault_expires = \"7d\"", day(7), Some(day(7))),
    ] {
        let config = check_text("nexus.toml", &format!("[tokens]\n{text}"), Path::new("/home")).unwrap();
        assert_eq!((config.tokens.default_expires, config.tokens.max_expires), (default, max), "{text}");
    }
}

#[test]
fn a_file_with_problems_still_limits_tokens() {
    let day = |days: u64| Some(Duration::from_secs(days * 86_400));
    for (text, max) in [
        ("[tokens]\nmax_expires = \"7d\"\n[serverr]", day(7)),
        ("[tokens]\nmax_expires = \"7d\"\n[server]\nlisten = [", day(7)),
        ("[tokens]\nmax_expires = \"soon\"", day(90)),
        ("[serverr]", None),
    ] {
        let config = check_store(text, Path::new("/home")).unwrap();
        assert_eq!(config.tokens.max_expires, max, "{text}");
    }
}

#[test]
fn one_problem_each() {
    // name, text, the problem's start; `…` stands for any text.
    let cases: &[(&str, &str, &str)] = &[
        ("syntax", "[server]\nlisten = [", "2:11 not valid TOML: "),
        (
            "default above the maximum",
            "[tokens]\ndefault_expires = \"8d\"\nmax_expires = \"7d\"",
            "2:19 tokens.default_expires: must not be longer than max_expires, which is 7d",
        ),
        ("no time for tokens", "[tokens]\nmax_expires = \"0s\"", "2:15 tokens.max_expires: must be longer than zero"),
        (
            "default without an end",
            "[tokens]\ndefault_expires = \"none\"",
            "2:19 tokens.default_expires: cannot be without a limit",
        ),
        ("less than a second", "[tokens]\nmax_expires = \"10ms\"", "2:15 tokens.max_expires: must be 1s or longer"),
        ("duplicate key", "[dns]\nhosts = {}\nhosts = {}", "3:1 not valid TOML: "),
        ("unknown section", "[serverr]", "1:2 serverr: unknown key; did you mean server"),
        ("unknown key", "[limits]\nconect = \"1s\"", "2:1 limits.conect: unknown key; did you mean connect"),
        ("hyphens", "[egress]\nallow-hosts = []", "2:1 egress.allow-hosts: unknown key; did you mean allow_hosts"),
        ("misplaced", "connect_ports = [1]", "1:1 connect_ports: unknown key; did you mean egress.connect_ports"),
        ("unknown altogether", "[dns]\n  zzz = 1", "2:3 dns.zzz: unknown key; known here: hosts"),
        ("section's type", "server = 5", "1:10 server: expected a table, found an integer"),
        ("after é", "\"é\" = { x = 1 }", "1:1 \"é\": unknown key; known here: server, "),
        ("listen's type", "[server]\nlisten = \"127.0.0.1:1\"", "2:10 server.listen: expected an array of addresses"),
        (
            "listen's entry",
            "[server]\nlisten = [5]",
            "2:11 server.listen[0]: expected an address in quotes, found an i",
        ),
        ("no IP", "[server]\nlisten = [\"localhost:1\"]", "2:11 server.listen[0]: \"localhost:1\" is not IP:PORT"),
        (
            "exposed",
            "[server]\nlisten = [\"127.0.0.1:1\", \"0.0.0.0:2\"]",
            "2:26 server.listen[1]: other machines reach",
        ),
        ("exposed v6", "[server]\nlisten = [\"[::]:2\"]", "2:11 server.listen[0]: other machines reach"),
        (
            "twice",
            "[server]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:1\"]",
            "2:26 server.listen[1]: the address is taken",
        ),
        (
            "taken by admin",
            "[server]\nlisten = [\"127.0.0.1:8471\"]",
            "2:11 server.listen[0]: the address is taken by server.admin",
        ),
        (
            "admin takes",
            "[server]\nadmin = \"127.0.0.1:8470\"",
            "2:9 server.admin: the address is taken by server.listen",
        ),
        ("nothing listens", "[server]\nlisten = []", "1:1 server: nothing listens"),
        ("none at all", "[server]\nlisten = []\nlistener = []", "1:1 server: nothing listens"),
        ("admin", "[server]\nadmin = \"8471\"", "2:9 server.admin: \"8471\" is not IP:PORT"),
        ("grace", "[server]\nshutdown_grace = 5", "2:18 server.shutdown_grace: expected a duration such as \"10s\", f"),
        ("endless grace", "[server]\nshutdown_grace = \"none\"", "2:18 server.shutdown_grace: cannot be without a"),
        (
            "listener table",
            "[server.listener]\naddress = \"x\"",
            "1:1 server.listener: expected one [[server.listener]]",
        ),
        ("no address", "[[server.listener]]\nallow_clear = true", "1:1 server.listener[0]: address is missing"),
        ("unix", "[server]\nlisten = [\"unix:\"]", "2:11 server.listen[0]: the path after unix: is missing"),
        (
            "unix twice",
            "[server]\nlisten = [\"unix:x\"]\n[[server.listener]]\naddress = \"unix:x\"",
            "4:11 server.listener[0].address: the address is taken by server.listen[0]",
        ),
        (
            "unix with tls",
            "[[server.listener]]\naddress = \"unix:x\"\ntls = { cert = \"c\", key = \"k\" }",
            "3:7 server.listener[0].tls: a Unix socket stays within",
        ),
        (
            "listener in clear",
            "[[server.listener]]\naddress = \"127.0.0.1:1\"\n[[server.listener]]\naddress = \"10.0.0.1:1\"",
            "4:11 server.listener[1].address: other machines reach this address in clear text; add tls",
        ),
        (
            "tls without key",
            "[[server.listener]]\naddress = \"10.0.0.1:1\"\ntls = { cert = \"c\" }",
            "3:7 server.listener[0].tls: give cert and key",
        ),
        (
            "tls key",
            "[[server.listener]]\naddress = \"10.0.0.1:1\"\ntls = { cert = \"c\", key = \"k\", ca = \"x\" }",
            "3:32 server.listener[0].tls.ca: unknown key; known here: cert, key, client_ca",
        ),
        (
            "agent for others",
            "[[server.listener]]\naddress = \"10.0.0.1:1\"\nagent = \"a\"",
            "3:9 server.listener[0].agent: whoever reaches the address would be this agent",
        ),
        (
            "agent and client_ca",
            "[[server.listener]]\naddress = \"127.0.0.1:1\"\nagent = \"a\"\ntls = { cert = \"c\", key = \"k\", client_ca = \"a\" }",
            "3:9 server.listener[0].agent: callers are this agent",
        ),
        (
            "agent's name",
            "[[server.listener]]\naddress = \"127.0.0.1:1\"\nagent = \" a\"",
            "3:9 server.listener[0].agent: agent name \" a\" is not valid",
        ),
        (
            "namespace alone",
            "[[server.listener]]\naddress = \"127.0.0.1:1\"\nnamespace = \"a\"",
            "3:13 server.listener[0].namespace: says whose agent",
        ),
        (
            "certificate without a name",
            "[[identity.certificate]]\nrule = [{ use = [\"a\"] }]",
            "1:1 identity.certificate[0]: name is missing",
        ),
        (
            "certificate without a rule",
            "[[identity.certificate]]\nname = \"a\"",
            "1:1 identity.certificate[0]: nobody would be let in",
        ),
        (
            "certificate twice",
            "[[identity.certificate]]\nname = \"a\"\nrule = [{ use = [\"a\"] }]\n[[identity.certificate]]\nname = \"a\"\nrule = [{ use = [\"a\"] }]",
            "5:8 identity.certificate[1].name: the name is taken",
        ),
        (
            "allow_clear",
            "[[server.listener]]\naddress = \"127.0.0.1:1\"\nallow_clear = \"yes\"",
            "3:15 server.listener[0].allow_clear: expected true or false, found a string",
        ),
        (
            "postgres",
            "[store]\nurl = \"postgres://u:hunter2@h/d\"",
            "2:7 store.url: this version stores in SQLite only",
        ),
        ("no path", "[store]\nurl = \"sqlite://\"", "2:7 store.url: the path after sqlite:// is missing"),
        ("options", "[store]\nurl = \"sqlite://x?mode=ro\"", "2:7 store.url: sqlite:// takes a path alone"),
        ("root key text", "[store]\nroot_key = \"hunter2\"", "2:12 store.root_key: expected a table, found a string"),
        (
            "root key twice",
            "[store]\nroot_key = { file = \"a\", env = \"B\" }",
            "2:12 store.root_key: give exactly one",
        ),
        ("root key none", "[store]\nroot_key = {}", "2:12 store.root_key: give exactly one"),
        ("next root key none", "[store]\nnext_root_key = {}", "2:17 store.next_root_key: give exactly one"),
        ("root key env", "[store]\nroot_key = { env = \"hunter2=\" }", "2:20 store.root_key.env: not the name of an"),
        ("root key command", "[store]\nroot_key = { command = [] }", "2:24 store.root_key.command: the program is"),
        (
            "passphrase alone",
            "[store]\nroot_key = { passphrase = true }",
            "2:12 store.root_key: give exactly one of file, env and command",
        ),
        (
            "passphrase itself",
            "[store]\nroot_key = { file = \"a\", passphrase = \"hunter2\" }",
            "2:39 store.root_key.passphrase: expected true or false, found a string",
        ),
        (
            "root key word",
            "[store]\nroot_key = { command = [\"a\", 1] }",
            "2:30 store.root_key.command[1]: expected text",
        ),
        (
            "dns unquoted",
            "[dns.hosts]\na.b = \"1.1.1.1\"",
            "2:1 dns.hosts.a: expected an IP address in quotes (and the",
        ),
        ("dns host", "[dns.hosts]\n\"a b\" = \"1.1.1.1\"", "2:1 dns.hosts.\"a b\": the host has a character"),
        ("dns ip host", "[dns.hosts]\n\"1.1.1.1\" = \"1.1.1.1\"", "2:1 dns.hosts.\"1.1.1.1\": an IP address needs no"),
        ("dns address", "[dns.hosts]\na = \"b\"", "2:5 dns.hosts.a: \"b\" is not an IP address"),
        (
            "dns twice",
            "[dns.hosts]\na = \"1.1.1.1\"\nA = \"1.1.1.1\"",
            "…: another spelling of this host has an answer",
        ),
        (
            "unmatched",
            "[egress]\nunmatched = \"allow\"",
            "2:13 egress.unmatched: \"allow\" is not known; write \"deny\" o",
        ),
        ("allow host", "[egress]\nallow_hosts = [\"a\", \"*.*.b\"]", "2:21 egress.allow_hosts[1]: the host"),
        ("port", "[egress]\nconnect_ports = [443, 0]", "2:23 egress.connect_ports[1]: must be from 1 to 65535"),
        (
            "port's type",
            "[egress]\nconnect_ports = [\"443\"]",
            "2:18 egress.connect_ports[0]: expected an integer from 1",
        ),
        (
            "cidr",
            "[egress]\nallow_cidrs = [\"10.0.0.5\"]",
            "2:16 egress.allow_cidrs[0]: \"10.0.0.5\" is not an address range; write one such as 10.0.0.5/32",
        ),
        (
            "cidr bits",
            "[egress]\nallow_cidrs = [\"10.0.0.5/8\"]",
            "2:16 egress.allow_cidrs[0]: 10.0.0.5/8 has bits behind its prefix; write 10.0.0.0/8",
        ),
        ("ca file", "[upstream]\nca_files = [\"\"]", "2:13 upstream.ca_files[0]: the path is empty"),
        ("NUL", "[upstream]\nca_files = [\"a\\u0000\"]", "2:13 upstream.ca_files[0]: the text has a NUL"),
        ("size", "[limits]\nreplay_body = \"8MB\"", "2:15 limits.replay_body: \"8MB\" is not a size"),
        ("size's range", "[limits]\nheader_bytes = 100", "2:16 limits.header_bytes: must be from 8KiB to 16MiB"),
        ("negative size", "[limits]\nreplay_body = -1", "2:15 limits.replay_body: must be from 0B to 1GiB"),
        ("huge size", "[limits]\ncall_body = 99999999999999999999", "2:13 limits.call_body: must be from 1KiB to 1GiB"),
        ("zero", "[limits]\nconnect = \"0s\"", "2:11 limits.connect: must be longer than zero"),
        (
            "zero of an option",
            "[limits]\nfirst_byte = \"0s\"",
            "2:14 limits.first_byte: must be longer than zero; write",
        ),
        ("never", "[limits]\nheader_time = \"none\"", "2:15 limits.header_time: cannot be without a limit"),
        ("duration", "[limits]\nstream_idle = \"1 h\"", "2:15 limits.stream_idle: \"1 h\" is not a duration"),
        ("tunnels", "[limits]\ntunnels_per_agent = 0", "2:21 limits.tunnels_per_agent: must be from 1 to 1000000"),
        ("on_full", "[audit]\non_full = 1", "2:11 audit.on_full: expected \"block\" or \"drop_with_gap_record\", fo"),
        ("durability", "[audit]\ndurability = \"ram\"", "2:14 audit.durability: \"ram\" is not known"),
        (
            "sink",
            "[[audit.sink]]\ntype = \"kafka\"\nurl = \"x\"",
            "2:8 audit.sink[0].type: \"kafka\" is not a sink of this",
        ),
        ("sink's type", "[[audit.sink]]", "1:1 audit.sink[0]: type is missing"),
        (
            "sink's keys",
            "[[audit.sink]]\ntype = \"file\"\npath = \"x\"",
            "3:1 audit.sink[0].path: unknown key; known here: type",
        ),
    ];
    let mut wrong = Vec::new();
    for (name, text, expected) in cases {
        let found = problems(text);
        let matches = |problem: &String| match expected.strip_prefix('…') {
            Some(part) => problem.contains(part),
            None => problem.starts_with(expected),
        };
        if found.len() != 1 || !found.iter().all(matches) || found[0].contains("hunter2") {
            wrong.push(format!("{name}: expected {expected:?}, found {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file() {
    let text =
        "typo = 1\n[limits]\nconnect = 10\ncal_body = 1\n[egress]\nunmatched = \"x\"\nallow_cidrs = [\"a\", \"b\"]\n";
    let places: Vec<String> = problems(text).iter().map(|p| p.split(": ").next().unwrap().to_owned()).collect();
    let expected = [
        "1:1 typo",
        "3:11 limits.connect",
        "4:1 limits.cal_body",
        "6:13 egress.unmatched",
        "7:16 egress.allow_cidrs[0]",
        "7:21 egress.allow_cidrs[1]",
    ];
    assert_eq!(places, expected);
}

#[test]
fn dangerous_settings_are_warned_about() {
    let cases = [
        ("[server]\nadmin = \"0.0.0.0:9\"", "server.admin 0.0.0.0:9"),
        ("[[server.listener]]\naddress = \"0.0.0.0:9\"\nallow_clear = true", "server.listener[0].address 0.0.0.0:9"),
        ("[egress]\nallow_cidrs = [\"0.0.0.0/0\"]", "egress.allow_cidrs[0] 0.0.0.0/0"),
    ];
    for (text, expected) in cases {
        let warnings = check(text).unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].starts_with(expected), "{expected}: {warnings:?}");
    }
}

/// What a hand or a disk does to a line.
fn mutations(line: &str) -> Vec<String> {
    let mut mutated = vec![
        String::new(),
        format!("{line}{line}"),
        format!("{line}\n{line}"),
        format!("#{line}"),
        line.to_uppercase(),
        line.replace('"', ""),
        line.replace('=', ""),
        line.replace('=', "= ["),
        line.replace(['[', ']'], ""),
        line.replace('[', "[["),
        line.replace(|c: char| c.is_ascii_digit(), "9999999999"),
        line.replace(|c: char| c.is_ascii_digit(), "-1"),
        line.replace(" = ", " = 1 #"),
        line.replace(" = ", " = 1979-05-27 #"),
        line.replace(" = ", " = 1e400 #"),
        line.replace(" = ", " = true #"),
        line.replace(" = ", " = \"é\u{202e}\" #"),
        line.replace(" = ", " = [[[]]] #"),
        line.replace(" = ", " = { a.b.c = 1 } #"),
        line.replace(" = ", ".deeper = "),
    ];
    let cuts = line.char_indices().map(|(at, _)| line[..at].to_owned());
    mutated.extend(cuts);
    mutated
}

#[test]
fn a_mutated_line_is_read_or_reported() {
    let lines: Vec<&str> = PRODUCTION.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        for mutation in mutations(line) {
            let mut mutated = lines.clone();
            mutated[index] = &mutation;
            let text = mutated.join("\n");
            if let Err(problems) = check(&text) {
                assert!(!problems.is_empty(), "{mutation:?}");
                let count = text.lines().count().max(1);
                assert!(problems.iter().all(|p| (1..=count + 1).contains(&p.line)), "{mutation:?}: {problems:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_reported(text in "\\PC{0,200}") {
        if let Err(problems) = check(&text) {
            prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn edited_files_are_read_or_reported(
        at in 0..PRODUCTION.len(), length in 0..40_usize, insert in "[\\[\\]{}\"'=,.#\\n a-z0-9é\u{0}-]{0,8}"
    ) {
        let end = (at + length).min(PRODUCTION.len());
        let text = format!("{}{insert}{}", &PRODUCTION[..at], &PRODUCTION[end..]);
        if let Err(problems) = check(&text) {
            prop_assert!(!problems.is_empty());
        }
    }
}
