//! Blind tunnels: to allowed hosts, without a credential, after a look at the ClientHello.

use crate::audit::Way;
use crate::config::Snapshot;
use crate::proxy::Plane;
use crate::proxy::finish::Record;
use crate::proxy::reject::{Code, Rejection};
use crate::proxy::splice::splice;
use crate::types::{Host, Target};
use bytes::{Bytes, BytesMut};
use rustls::server::Acceptor;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// Longest ClientHello that is looked at.
const CLIENT_HELLO: usize = 32 * 1024;

/// What the first bytes of a tunnel were.
enum Hello {
    Named(String),
    Unnamed,
    NotTls,
    Gone,
}

/// Runs the tunnel until it ends or is cut.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    plane: &Plane,
    snapshot: &Snapshot,
    record: Record,
    stream: S,
    target: &Target,
    addresses: &[SocketAddr],
) {
    let progress = record.progress();
    tokio::select! {
        biased;
        // The record, dropped with the tunnel, says why.
        _ = progress.fuse().until_cut() => {}
        () = tunnel(plane, snapshot, record, stream, target, addresses) => {}
    }
}

/// Reads the ClientHello, compares its server name with the CONNECT host, dials the vetted address, and copies.
async fn tunnel<S: AsyncRead + AsyncWrite + Unpin>(
    plane: &Plane,
    snapshot: &Snapshot,
    mut record: Record,
    mut stream: S,
    target: &Target,
    addresses: &[SocketAddr],
) {
    record.set_way(Way::Tunnel);
    let limits = &snapshot.config.limits;
    let mut early = BytesMut::new();
    let hello = tokio::time::timeout(limits.header_time, client_hello(&mut stream, &mut early)).await;
    let misdirected = |message| Rejection::new(Code::Misdirected, message, "");
    match hello.unwrap_or(Hello::Gone) {
        Hello::Named(name) => {
            record.sni(&name);
            if Host::parse(name.as_bytes()).ok().as_ref() != Some(&target.host) {
                return record.refuse(&misdirected("the server name differs from the CONNECT host"));
            }
        }
        // Server names are never IP addresses (RFC 6066 section 3).
        Hello::Unnamed if matches!(target.host, Host::Ip(_)) => {}
        Hello::Unnamed => return record.refuse(&misdirected("the ClientHello names no server")),
        Hello::NotTls => return record.refuse(&misdirected("the first bytes are not a ClientHello")),
        Hello::Gone => return record.abort("client_gone"),
    }
    if record.start().await.is_err() {
        return record.refuse(&Rejection::new(Code::AuditUnavailable, "the audit record cannot be written", ""));
    }
    let upstream = match snapshot.egress.connect_tcp(target, addresses).await {
        Ok((upstream, address)) => {
            record.address(address);
            upstream
        }
        Err(error) => return record.refuse(&Rejection::from(&error)),
    };
    tokio::select! {
        copied = splice(&mut stream, upstream, Bytes::new(), early.freeze(), record.progress()) => match copied {
            Ok(()) => record.end_stream(),
            Err(_) => record.abort("broke_off"),
        },
        () = plane.ending.cancelled() => record.abort("shutting_down"),
    }
}

async fn client_hello<S: AsyncRead + Unpin>(stream: &mut S, early: &mut BytesMut) -> Hello {
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    while early.len() < CLIENT_HELLO {
        match stream.read_buf(early).await {
            Ok(0) | Err(_) => return Hello::Gone,
            Ok(_) => {}
        }
        while fed < early.len() {
            match acceptor.read_tls(&mut &early[fed..]) {
                Ok(0) | Err(_) => return Hello::NotTls,
                Ok(taken) => fed += taken,
            }
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                return accepted
                    .client_hello()
                    .server_name()
                    .map_or(Hello::Unnamed, |name| Hello::Named(name.to_owned()));
            }
            Err(_) => return Hello::NotTls,
        }
    }
    Hello::NotTls
}
