#![expect(clippy::unwrap_used, reason = "tests")]

use crate::net::testing::{NameServer, resolver_at};
use hickory_resolver::proto::rr::RecordType;
use std::net::IpAddr;
use tokio::net::UdpSocket;

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn both_families_are_asked_for_once_and_kept() {
    let server = NameServer::start(&[("good.test.", &["2001:db8::1", "192.0.2.1"])]).await;
    let resolver = server.resolver();
    for _ in 0..3 {
        assert_eq!(resolver.lookup("good.test").await, Ok(ips(&["192.0.2.1", "2001:db8::1"])));
    }
    let mut questions = server.questions.lock().clone();
    questions.sort_by_key(|(_, kind)| u16::from(*kind));
    assert_eq!(questions, [("good.test.".to_owned(), RecordType::A), ("good.test.".to_owned(), RecordType::AAAA)]);
}

#[tokio::test]
async fn names_are_never_completed() {
    let server = NameServer::start(&[("good.search.test.", &["192.0.2.1"]), ("good.corp.test.", &["192.0.2.2"])]).await;
    assert_eq!(server.resolver().lookup("good").await, Err("no such host".to_owned()));
    assert!(server.questions.lock().iter().all(|(name, _)| name == "good."));
}

#[tokio::test]
async fn a_name_without_addresses_is_told_apart() {
    let server = NameServer::start(&[("empty.test.", &[])]).await;
    assert_eq!(server.resolver().lookup("empty.test").await, Err("the name has no address".to_owned()));
}

#[tokio::test]
async fn localhost_is_never_asked_for() {
    let server = NameServer::start(&[]).await;
    let resolver = server.resolver();
    for name in ["localhost", "foo.localhost", "a.b.localhost"] {
        assert_eq!(resolver.lookup(name).await, Ok(ips(&["127.0.0.1", "::1"])), "{name}");
    }
    assert!(server.questions.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_silent_name_server_is_given_up() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let resolver = resolver_at(silent.local_addr().unwrap());
    assert!(resolver.lookup("good.test").await.is_err());
}

#[tokio::test]
async fn the_system_resolver_is_built_without_failing() {
    let resolver = super::Resolver::system();
    assert_eq!(resolver.lookup("localhost").await, Ok(ips(&["127.0.0.1", "::1"])));
}
