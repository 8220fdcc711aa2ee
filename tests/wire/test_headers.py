"""What is injected arrives once and whatever the agent sends beside it (A25, A27, A28, D8, D11, D13, D14)."""

import pytest


def only(mode, outcome, secret):
    """One request went upstream, with the one credential."""
    assert outcome.first.status == 200, outcome
    request = outcome.requests[0]
    assert request.all("authorization") == [f"Bearer {secret}"], request.head
    return request


@pytest.mark.parametrize(
    "fields",
    [
        ["Authorization: Bearer mine"],
        ["Authorization: Bearer mine", "Authorization: Basic bWluZQ=="],
        ["AUTHORIZATION: Bearer mine", "authorization: Bearer mine", "aUTHORIZATION:Bearer mine"],
        ["Authorization:"],
        ["Connection: authorization", "Authorization: Bearer mine"],
        ["Connection: close, Authorization, host, content-length"],
        ["Connection: keep-alive", "Connection: authorization"],
    ],
    ids=repr,
)
def test_a25_a27_the_agents_own(mode, secret, fields):
    if mode.name == "reverse":
        # There the token may be in Authorization too, so what stands in it must not look like another one.
        fields = [field for field in fields if field != "Authorization:"]
    finish = not any("close" in field for field in fields)
    request = only(mode, mode.attack(mode.head("GET", "/a25", *fields), finish=finish), secret)
    assert request.all("host") == [mode.authority]
    assert "mine" not in request.head.decode("latin-1").lower().replace("mime", "")


def test_a27_named_headers_are_dropped(mode, secret):
    fields = ["Connection: x-private, keep-alive", "X-Private: a", "Keep-Alive: timeout=5"]
    outcome = mode.attack(mode.head("GET", "/a27", *fields))
    request = only(mode, outcome, secret)
    for name in ("x-private", "keep-alive", "connection", "te", "upgrade"):
        assert request.all(name) in ([], ["keep-alive"]), request.head


def test_a28_our_own_headers_stay_here(mode, secret):
    fields = ["Proxy-Connection: keep-alive", "X-Nexus-Request-Id: 1", "X-Nexus-Anything: 1"]
    # The recorder takes any of these for a problem.
    only(mode, mode.attack(mode.head("GET", "/a28", *fields)), secret)


def test_b13_claims_of_identity_stay_here(mode, secret):
    fields = [
        "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Client-Cert: URI=spiffe://x/a", "X_Forwarded_For: 127.0.0.1",
        "Forwarded: for=127.0.0.1", "X-Agent-Id: root", "X-Real-IP: 127.0.0.1", "Client-Cert: :AAAA:",
        "X-SSL-Client-Verify: SUCCESS",
    ]
    request = only(mode, mode.attack(mode.head("GET", "/b13", *fields)), secret)
    for field in fields:
        assert request.all(field.split(":")[0].lower()) == [], request.head


def test_d14_twins_of_framing_and_credential(mode, secret):
    fields = ["Content_Length: 5", "Transfer_Encoding: chunked", "Authorization_: x", "X_Nexus_Connection: no-such"]
    outcome = mode.attack(mode.head("GET", "/d14", *fields))
    if outcome.first.status != 400:
        only(mode, outcome, secret)


def test_d11_trailers_are_dropped(mode, secret):
    trailers = b"Authorization: Bearer mine\r\nContent-Length: 9\r\nHost: evil.test\r\nX-A: b\r\n\r\n"
    head = mode.head("POST", "/d11", "Transfer-Encoding: chunked", "Trailer: X-A")
    outcome = mode.attack(head + b"2\r\nab\r\n0\r\n" + trailers)
    assert [answer.status for answer in outcome.answers] in ([200, 200], [400]), outcome
    if outcome.first.status == 200:
        assert only(mode, outcome, secret).body == b"ab"


@pytest.mark.parametrize("protocol", ["h2c", "TLS/1.0", "connect-udp", "h2c, websocket", "foo"])
def test_d13_other_upgrades(mode, secret, protocol):
    fields = ["Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: AAMAAABk"]
    outcome = mode.attack(mode.head("GET", "/d13", *fields))
    assert outcome.first.status in (200, 400), outcome
    for request in outcome.requests:
        # What is left is a websocket, or nothing.
        assert request.all("upgrade") in ([], ["websocket"][: protocol.count("websocket")]), request.head
        assert request.all("http2-settings") == []


@pytest.mark.parametrize("value", ["100-continue, x", "x", "200-ok", "100-continue;q=1"])
def test_d8_unknown_expectations(mode, value):
    outcome = mode.attack(mode.head("POST", "/d8", f"Expect: {value}", "Content-Length: 5") + b"hello")
    assert outcome.first.status in (400, 417), outcome
    assert not any(one.target.endswith("/d8") for one in outcome.requests)


def test_d8_a_body_that_is_never_sent(mode):
    """The agent waits for 100 and goes away: nothing arrives that looks whole."""
    mark = mode.recorder.mark()
    with mode.open() as wire:
        wire.send(mode.head("POST", "/never", "Expect: 100-continue", "Content-Length: 5"))
        interim = wire.answer(interim=True)
        assert interim.status == 100
    mode.settle()
    assert not any(one.complete for one in mode.recorder.since(mark) if one.target.endswith("/never"))
    assert mode.recorder.take_problems() == []


def test_a23_trace_and_connect_are_not_passed_on(mode):
    for method in ("TRACE", "CONNECT"):
        outcome = mode.attack(mode.head(method, "/a23"))
        assert outcome.first.status >= 400, outcome
        assert not any(one.method == method for one in outcome.requests)
