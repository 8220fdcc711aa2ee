//! `nexus agent enroll` and `renew`: on the agent's own host, where its private key stays. No install is needed there.

use super::environment::write_file;
use super::secret_input::{Given, prompt};
use super::{CliError, Context, SecretInput, output};
use crate::net::{ClientIdentity, ClientResponse, Egress, EgressSettings, HttpsClient};
use crate::secret::{EnrolmentCode, Secret, write_private_file};
use crate::types::{Scheme, UnixSeconds, Url, parse_duration};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The largest answer that is read.
const LARGEST: usize = 256 * 1024;

/// How long `--watch` waits after the first failure, and after many.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// Get a certificate, on the agent's host; the private key never leaves it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nexus agent enroll --server https://proxy.internal:8472 --code-stdin --out /etc/agent < code\n  nexus agent enroll --server https://proxy.internal:8472 --from-env CODE --out agent --ca ca.pem\n\nWrites to DIR: agent.key (0600), agent.pem, ca.pem (the interception CA, for the agent's programs), agent.json.\n  curl --proxy https://proxy.internal:8472 --proxy-cert agent.pem --proxy-key agent.key --cacert ca.pem ..."
)]
pub struct Enroll {
    /// A TLS listener of the install
    #[arg(long, value_name = "https://HOST:PORT", value_parser = parse_server)]
    server: String,
    /// Read the one-time code from standard input
    #[arg(long, group = "code")]
    code_stdin: bool,
    /// Read the one-time code from this environment variable
    #[arg(long, value_name = "VAR", group = "code")]
    from_env: Option<String>,
    /// The directory to write to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The CA of the listener's certificate [default: the system's roots]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// How long the certificate lives; the end of the invitation's grant is the latest
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    ttl: Duration,
}

/// Get a new certificate before the old one ends, on the agent's host
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nexus agent renew --dir /etc/agent\n  nexus agent renew --dir /etc/agent --watch\n\nagent.pem is replaced in one step; the key stays. A certificate that has ended cannot be renewed: invite anew."
)]
pub struct Renew {
    /// The directory that `enroll` wrote
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// A TLS listener of the install [default: the one that it was enrolled at]
    #[arg(long, value_name = "https://HOST:PORT", value_parser = parse_server)]
    server: Option<String>,
    /// The CA of the listener's certificate [default: as it was enrolled]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// How long the certificate lives
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    ttl: Duration,
    /// Go on renewing, each time two thirds of the life are over
    #[arg(long)]
    watch: bool,
}

/// The directory of an enrolled agent.
struct Directory(PathBuf);

impl Directory {
    fn key(&self) -> PathBuf {
        self.0.join("agent.key")
    }

    fn certificate(&self) -> PathBuf {
        self.0.join("agent.pem")
    }

    fn interception_ca(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    fn settings(&self) -> PathBuf {
        self.0.join("agent.json")
    }

    /// Takes what the server answered.
    fn keep(&self, answer: &Value) -> Result<(), CliError> {
        let text = |field: &str| {
            let text = answer[field].as_str().filter(|text| text.contains("BEGIN CERTIFICATE"));
            text.ok_or_else(|| CliError::Failed(format!("the server's answer has no {field}; is it a nexus?")))
        };
        write_file(&self.interception_ca(), text("ca")?, 0o644)?;
        write_file(&self.certificate(), text("certificate")?, 0o644)
    }
}

impl Enroll {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let ca = self.ca.as_deref().map(absolute).transpose()?;
        let directory = Directory(self.out);
        if directory.key().exists() {
            return Err(CliError::Conflict(format!(
                "{} exists already; renew with nexus agent renew, or choose another --out",
                directory.key().display()
            )));
        }
        let given = SecretInput { stdin: self.code_stdin, stdin_json: false, from_env: self.from_env }.read()?;
        let code = match given {
            Given::One(code) => code,
            _ => prompt("one-time code")?,
        };
        // Looked at for its form: a wrong paste is told here, before it is counted against this address.
        if !EnrolmentCode::checksum_is_right(code.expose()) {
            return Err(CliError::Usage("that is not a one-time code (nxe_...), or it is mistyped".to_owned()));
        }
        let client = client(ca.as_deref(), None)?;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory.0)
            .map_err(CliError::io(&directory.0))?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed("a key pair"))?;
        let text = Secret::new(key.serialize_pem());
        // Exposed to be written to its private file, before the code is used up.
        write_private_file(&directory.key(), text.expose().as_bytes()).map_err(CliError::io(directory.key()))?;
        let settings = json!({ "server": self.server, "ca": ca });
        // Exposed to be sent to the server that made it.
        let asked = json!({ "code": code.expose(), "csr": request(&key)?, "ttl_seconds": self.ttl.as_secs() });
        let answer = match ask(&client, &self.server, "/v1/enroll", &asked).await {
            Ok(answer) => answer,
            Err(error) => {
                // Nothing was issued for it, and it would be in the way of the next try.
                let _ = std::fs::remove_file(directory.key());
                return Err(error);
            }
        };
        directory.keep(&answer)?;
        write_file(&directory.settings(), &format!("{settings}\n"), 0o644)?;
        show(context, &directory, &answer)
    }
}

impl Renew {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let directory = Directory(self.dir.clone());
        if !self.watch {
            let answer = self.renew(&directory).await?;
            return show(context, &directory, &answer);
        }
        let mut pause = RETRY.0;
        loop {
            let (begin, end) = validity(&directory.certificate())?;
            let due = begin.saturating_add(end.saturating_sub(begin) / 3 * 2);
            let wait = u64::try_from(due.saturating_sub(context.clock.now())).unwrap_or(0);
            if wait > 0 {
                // Looked at again in between: clocks are set, and machines sleep.
                tokio::time::sleep(Duration::from_secs(wait.min(60))).await;
                continue;
            }
            match self.renew(&directory).await {
                Ok(answer) => {
                    pause = RETRY.0;
                    show(context, &directory, &answer)?;
                    // A grant near its end gives ever shorter certificates.
                    tokio::time::sleep(RETRY.0).await;
                }
                Err(error @ CliError::NotAuthorised(_)) => return Err(error),
                Err(error) => {
                    output::warn(&format!("not renewed, trying again: {}", super::describe(&error)));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
    }

    async fn renew(&self, directory: &Directory) -> Result<Value, CliError> {
        let settings = match std::fs::read_to_string(directory.settings()) {
            Err(error) if self.server.is_none() => {
                let path = directory.settings();
                let hint = "give the --out of agent enroll as --dir, or a --server";
                return Err(match error.kind() {
                    std::io::ErrorKind::NotFound => {
                        CliError::NotFound(format!("{} does not exist; {hint}", path.display()))
                    }
                    _ => CliError::io(path)(error),
                });
            }
            settings => settings.unwrap_or_default(),
        };
        let settings: Value = serde_json::from_str(&settings).unwrap_or(Value::Null);
        let server = match &self.server {
            Some(server) => server.clone(),
            None => settings["server"].as_str().map(str::to_owned).ok_or_else(|| {
                CliError::Usage(format!("{} names no server; give --server", directory.settings().display()))
            })?,
        };
        let ca = self.ca.clone().or_else(|| settings["ca"].as_str().map(PathBuf::from));
        let identity = ClientIdentity::read(&directory.certificate(), &directory.key())?;
        let client = client(ca.as_deref(), Some(identity))?;
        let path = directory.key();
        let text = Secret::new(std::fs::read_to_string(&path).map_err(CliError::io(&path))?);
        // Exposed to be parsed.
        let key = KeyPair::from_pem(text.expose()).map_err(failed("agent.key"))?;
        let asked = json!({ "csr": request(&key)?, "ttl_seconds": self.ttl.as_secs() });
        let answer = ask(&client, &server, "/v1/enroll/renew", &asked).await?;
        directory.keep(&answer)?;
        Ok(answer)
    }
}

fn show(context: &Context, directory: &Directory, answer: &Value) -> Result<(), CliError> {
    let shown = json!({
        "agent": answer["agent"],
        "token_id": answer["token_id"],
        "not_after": answer["not_after"],
        "certificate": directory.certificate(),
        "key": directory.key(),
        "ca": directory.interception_ca(),
    });
    output::print_object(context.format, &shown)
}

/// A certificate request with the key alone: what else the certificate says is the install's to decide.
fn request(key: &KeyPair) -> Result<String, CliError> {
    let request = CertificateParams::default().serialize_request(key).map_err(failed("a certificate request"))?;
    request.pem().map_err(failed("a certificate request"))
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> CliError {
    move |error| CliError::Failed(format!("{what} could not be made: {error}"))
}

/// A client that goes to the install wherever it is, private addresses included, and trusts one CA if it is named.
fn client(ca: Option<&Path>, identity: Option<ClientIdentity>) -> Result<HttpsClient, CliError> {
    let everywhere = ["0.0.0.0/0", "::/0"].map(|range| range.parse().expect("a range"));
    let settings = EgressSettings {
        allow_cidrs: everywhere.into(),
        ca_files: ca.map(Path::to_owned).into_iter().collect(),
        only_ca_files: ca.is_some(),
        identity,
        ..EgressSettings::default()
    };
    Ok(HttpsClient::new(Arc::new(Egress::new(settings, None)?)))
}

async fn ask(client: &HttpsClient, server: &str, path: &str, asked: &Value) -> Result<Value, CliError> {
    let url = Url::parse(format!("{server}{path}").as_bytes()).map_err(|error| CliError::Usage(error.to_string()))?;
    let ClientResponse { status, body, .. } =
        client.post_json(&url, &Secret::new(asked.to_string()), LARGEST, PATIENCE).await?;
    // Exposed to be read: certificates, or why there are none.
    let answer: Value = body.and_then(|body| serde_json::from_str(body.expose()).ok()).unwrap_or(Value::Null);
    let told = || {
        let message = answer["error"]["message"].as_str().unwrap_or("no reason given");
        format!("{server} answered {status}: {}", output::printable(message))
    };
    match status {
        200 => Ok(answer),
        401 | 403 | 407 => Err(CliError::NotAuthorised(format!(
            "{}; codes work once and for a short time, and certificates until they end or are revoked; ask for a new code",
            told()
        ))),
        404 => Err(CliError::Failed(format!("{}; is that a TLS listener of a nexus?", told()))),
        _ => Err(CliError::Failed(told())),
    }
}

/// When a certificate begins and ends.
fn validity(path: &Path) -> Result<(UnixSeconds, UnixSeconds), CliError> {
    let damaged = || CliError::Failed(format!("{} holds no certificate", path.display()));
    let pem = std::fs::read(path).map_err(CliError::io(path))?;
    let der = CertificateDer::from_pem_slice(&pem).map_err(|_| damaged())?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).map_err(|_| damaged())?;
    Ok((certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp()))
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(CliError::io(path))
}

fn parse_server(text: &str) -> Result<String, String> {
    let url = Url::parse(text.as_bytes()).map_err(|error| error.to_string())?;
    if url.target.scheme != Scheme::Https {
        return Err("the code and the certificate travel over TLS only; write https://HOST:PORT".to_owned());
    }
    if url.path.as_str() != "/" {
        return Err("write https://HOST:PORT without a path".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}
