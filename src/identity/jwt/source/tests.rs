#![expect(clippy::unwrap_used, reason = "tests")]
use super::super::Algorithm;
use super::super::testing::{Endpoint, SigningKey, key_set};
use super::*;
use std::net::{IpAddr, Ipv4Addr};

const NOW: UnixSeconds = 1_700_000_000;
const HOUR: i64 = 3600;

struct Setting {
    endpoint: Endpoint,
    fetcher: Fetcher,
    source: Arc<KeySource>,
    key: SigningKey,
}

impl Setting {
    async fn new() -> Self {
        let endpoint = Endpoint::start().await;
        let key = SigningKey::new("a", Algorithm::ES256);
        endpoint.publish(&[&key]);
        let fetcher =
            Fetcher { egress: endpoint.egress(), metrics: Arc::new(Metrics::new()), clock: Clock::fixed(NOW) };
        let source = Arc::new(KeySource::new(KeyLocation::Url(endpoint.url("/jwks"))));
        Self { endpoint, fetcher, source, key }
    }

    fn now(&self) -> UnixSeconds {
        self.fetcher.clock.now()
    }

    async fn keys(&self) -> Option<Arc<KeySet>> {
        self.source.keys(&self.fetcher, self.now()).await
    }

    async fn newer(&self, known: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        self.source.newer_keys(&self.fetcher, known, self.now()).await
    }

    /// Lets the background do what is due, and waits for it.
    async fn keep_fresh(&self) {
        self.source.keep_fresh(&self.fetcher, self.now());
        let running = self.source.attempts.lock().running.clone();
        if let Some(running) = running {
            wait(running).await;
        }
    }

    fn fetched(&self, result: &str) -> usize {
        let line = format!("nexus_jwks_fetch_total{{result=\"{result}\"}} ");
        let text = self.fetcher.metrics.render();
        text.lines().find_map(|had| had.strip_prefix(&line)).unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn many_who_ask_at_once_share_one_fetch() {
    let setting = Arc::new(Setting::new().await);
    setting.endpoint.open(false);
    let askers: Vec<_> = (0..50)
        .map(|_| {
            let setting = Arc::clone(&setting);
            tokio::spawn(async move { setting.keys().await })
        })
        .collect();
    while setting.endpoint.hits() == 0 {
        tokio::task::yield_now().await;
    }
    setting.endpoint.open(true);
    for asker in askers {
        assert_eq!(asker.await.unwrap().unwrap().len(), 1);
    }
    assert_eq!((setting.endpoint.hits(), setting.fetched("fetched")), (1, 1));
}

#[tokio::test]
async fn a_fetch_goes_on_when_the_request_that_began_it_is_given_up() {
    let setting = Setting::new().await;
    setting.endpoint.open(false);
    let mut asking = Box::pin(setting.keys());
    while setting.endpoint.hits() == 0 {
        assert!(futures_util::poll!(asking.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    drop(asking);
    setting.endpoint.open(true);
    assert!(setting.keys().await.is_some());
    assert_eq!(setting.endpoint.hits(), 1);
}

#[tokio::test]
async fn an_unknown_key_asks_again_at_most_every_30_seconds() {
    let setting = Setting::new().await;
    let known = setting.keys().await.unwrap();
    for _ in 0..100 {
        assert!(setting.newer(&known).await.is_none());
    }
    assert_eq!(setting.endpoint.hits(), 1, "the set was fetched a moment ago");
    setting.fetcher.clock.advance(30);
    for _ in 0..100 {
        assert!(setting.newer(&known).await.is_none(), "the same keys are no newer ones");
    }
    assert_eq!(setting.endpoint.hits(), 2);
    let rotated = SigningKey::new("b", Algorithm::ES256);
    setting.endpoint.publish(&[&setting.key, &rotated]);
    setting.fetcher.clock.advance(29);
    assert!(setting.newer(&known).await.is_none());
    setting.fetcher.clock.advance(1);
    assert_eq!(setting.newer(&known).await.unwrap().len(), 2);
    assert_eq!(setting.endpoint.hits(), 3);
    assert_eq!(setting.newer(&known).await.unwrap().len(), 2, "who comes later finds the newer set");
    assert_eq!(setting.endpoint.hits(), 3);
}

#[tokio::test]
async fn a_set_is_kept_as_long_as_its_answer_says_within_bounds() {
    let rows = [
        ("no header", "", HOUR),
        ("max-age", "Cache-Control: public, max-age=7200\r\n", 2 * HOUR),
        ("in quotes and capitals", "cache-control: MAX-AGE=\"7200\"\r\n", 2 * HOUR),
        ("short", "Cache-Control: max-age=5\r\n", 300),
        ("zero", "Cache-Control: max-age=0\r\n", 300),
        ("not to be stored", "Cache-Control: no-store, max-age=7200\r\n", 300),
        ("not to be used", "Cache-Control: no-cache\r\n", 300),
        ("long", "Cache-Control: max-age=31536000\r\n", 24 * HOUR),
        ("nonsense", "Cache-Control: max-age=soon\r\n", HOUR),
    ];
    for (name, header, seconds) in rows {
        let setting = Setting::new().await;
        setting.endpoint.answer("200 OK", header, &key_set(&[&setting.key]));
        setting.keep_fresh().await;
        setting.fetcher.clock.advance(seconds * 9 / 10 - 1);
        setting.keep_fresh().await;
        assert_eq!(setting.endpoint.hits(), 1, "{name}: too early");
        setting.fetcher.clock.advance(1);
        setting.keep_fresh().await;
        assert_eq!(setting.endpoint.hits(), 2, "{name}: before its end");
        assert!(setting.keys().await.is_some(), "{name}");
    }
}

#[tokio::test]
async fn while_the_endpoint_fails_the_last_good_set_is_used_for_a_day() {
    let setting = Setting::new().await;
    assert!(setting.keys().await.is_some());
    setting.endpoint.answer("503 Service Unavailable", "", "");
    for minutes in 1..24 * 60 {
        setting.fetcher.clock.advance(60);
        if minutes % 60 == 0 {
            setting.keep_fresh().await;
        }
        assert!(setting.source.current(setting.now()).is_some(), "{minutes}");
    }
    assert!(setting.fetched("failed") > 20, "it was tried all the time");
    setting.fetcher.clock.advance(60);
    assert!(setting.source.current(setting.now()).is_none());
    assert!(setting.keys().await.is_none());
    let hits = setting.endpoint.hits();
    for _ in 0..100 {
        assert!(setting.keys().await.is_none());
    }
    assert_eq!(setting.endpoint.hits(), hits, "without keys it is tried every 5 s");
    setting.fetcher.clock.advance(5);
    setting.endpoint.publish(&[&setting.key]);
    assert!(setting.keys().await.is_some());
}

#[tokio::test]
async fn what_is_no_key_set_changes_nothing() {
    let rows: [(&str, &str, &str, String); 8] = [
        ("a redirect", "302 Found", "Location: /other\r\n", String::new()),
        ("a redirect with keys", "301 Moved", "Location: /other\r\n", key_set(&[])),
        ("an error with keys", "500 Oops", "", key_set(&[])),
        ("HTML", "200 OK", "", "<html>".to_owned()),
        ("another object", "200 OK", "", "{}".to_owned()),
        ("nothing", "200 OK", "", String::new()),
        ("too large", "200 OK", "", format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(MAX_BYTES))),
        ("not HTTP", "", "", String::new()),
    ];
    let setting = Setting::new().await;
    let known = setting.keys().await.unwrap();
    for (at, (name, status, headers, body)) in rows.into_iter().enumerate() {
        setting.endpoint.answer(status, headers, &body);
        setting.fetcher.clock.advance(PAUSE);
        assert!(setting.newer(&known).await.is_none(), "{name}");
        assert!(Arc::ptr_eq(&setting.source.current(setting.now()).unwrap(), &known), "{name}");
        assert_eq!(setting.fetched("failed"), at + 1, "{name}");
        assert_eq!(setting.endpoint.hits(), at + 2, "{name}: nothing is followed");
    }
    // An issuer may publish that it has no key any more.
    setting.endpoint.publish(&[]);
    setting.fetcher.clock.advance(PAUSE);
    assert!(setting.newer(&known).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_slow_endpoint_is_given_up() {
    let setting = Setting::new().await;
    setting.endpoint.open(false);
    let mut asking = Box::pin(setting.keys());
    while setting.endpoint.hits() == 0 {
        assert!(futures_util::poll!(asking.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    // The endpoint answers nothing, so that time is all that can pass.
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    assert!(asking.await.is_none());
    assert!(before.elapsed() <= FETCH_TIME + Duration::from_millis(10));
    assert_eq!(setting.fetched("failed"), 1);
}

#[tokio::test]
async fn an_endpoint_at_a_refused_address_is_not_dialled() {
    let mut setting = Setting::new().await;
    for address in [Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::new(10, 0, 0, 1)] {
        setting.fetcher.egress = setting.endpoint.egress_to(IpAddr::V4(address));
        assert!(setting.keys().await.is_none(), "{address}");
        setting.fetcher.clock.advance(PAUSE);
    }
    assert_eq!((setting.endpoint.hits(), setting.fetched("failed")), (0, 2));
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_stop_fetches() {
    let setting = Setting::new().await;
    let known = setting.keys().await.unwrap();
    setting.fetcher.clock.advance(-10 * 24 * HOUR);
    assert!(setting.newer(&known).await.is_none());
    assert_eq!(setting.endpoint.hits(), 2);
}

#[tokio::test]
async fn a_file_is_never_fetched() {
    let setting = Setting::new().await;
    let keys = KeySet::parse(key_set(&[&setting.key]).as_bytes()).unwrap();
    let source = Arc::new(KeySource::fixed(KeyLocation::File(PathBuf::from("keys.json")), keys));
    let known = source.keys(&setting.fetcher, NOW).await.unwrap();
    source.keep_fresh(&setting.fetcher, NOW + 1000 * HOUR);
    assert!(source.newer_keys(&setting.fetcher, &known, NOW + 1000 * HOUR).await.is_none());
    assert!(source.current(NOW + 1000 * HOUR).is_some());
    assert_eq!(setting.endpoint.hits(), 0);
}
