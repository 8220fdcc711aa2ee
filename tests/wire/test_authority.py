"""A request has one destination, however it is written (A1, A4, A11)."""

import pytest
from nexustest.wire import Wire, basic


def denied(nexus, answer, reason):
    lines = nexus.audit_of(answer.request_id)
    assert [line["event"] for line in lines] == ["denied"]
    assert lines[0]["reason"] == reason, lines


USERINFO = [
    "good.test:{good}@evil.test:{evil}",
    "good.test@evil.test:{evil}",
    "good.test:x@evil.test:{evil}",
    "evil.test:{evil}@good.test:{good}",
    "@good.test:{good}",
    ":@good.test:{good}",
    "good.test:{good}%40evil.test:{evil}",
    "good.test:{good}#@evil.test:{evil}",
    "good.test:{good}\\@evil.test:{evil}",
]


@pytest.mark.parametrize("userinfo", USERINFO)
def test_a1_userinfo_in_connect(nexus, server, token, good, evil, userinfo):
    text = userinfo.format(good=good.port, evil=evil.port)
    before = good.connections, evil.connections
    with Wire(server.port) as wire:
        wire.send(f"CONNECT {text} HTTP/1.1\r\nHost: {text}\r\nProxy-Authorization: {basic(token)}\r\n\r\n")
        answer = wire.answer("CONNECT")
    assert answer.status == 400
    denied(nexus, answer, answer.code if set("#\\") & set(userinfo) else "bad_authority")
    assert (good.connections, evil.connections) == before


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("userinfo", USERINFO)
def test_a1_userinfo_in_a_target(nexus, mode, userinfo, scheme):
    text = userinfo.format(good=mode.recorder.port, evil=mode.evil.port).replace("good.test", mode.host)
    before = mode.recorder.mark()
    outcome = mode.attack(mode.head("GET", target=f"{scheme}://{text}/", path=""))
    outcome.refused(400)
    # A fragment or a backslash makes it no authority at all.
    denied(nexus, outcome.first, outcome.first.code if set("#\\") & set(userinfo) else "bad_authority")
    assert not any(one.target == "/" for one in mode.recorder.since(before))


def test_a1_userinfo_in_host(mode):
    for value in (f"{mode.authority}@evil.test:{mode.evil.port}", f"evil.test:{mode.evil.port}@{mode.authority}"):
        data = mode.head("GET", "/", f"Host: {value}", host=False)
        mode.attack(data).refused(400)


@pytest.mark.parametrize(
    "fields",
    [
        ["Host: {good}", "Host: evil.test:{evil}"],
        ["Host: evil.test:{evil}", "Host: {good}"],
        ["Host: {good}", "Host: {good}"],
        ["Host: {good}", "hOST: {good}"],
        ["Host: {good}, evil.test:{evil}"],
        ["Host: {good} evil.test:{evil}"],
        ["Host: {good}/"],
        [],
        ["Host:"],
        ["Host : {good}"],
        ["Host\t: {good}"],
        ["Host\x0b: {good}"],
        ["\tHost: {good}"],
        ["Host\x00: {good}"],
        ["X: y", " Host: {good}"],
    ],
    ids=repr,
)
def test_a4_not_one_host(mode, fields):
    lines = [line.format(good=mode.host_value(), evil=mode.evil.port) for line in fields]
    mode.attack(mode.head("GET", "/a4", *lines, host=False)).refused(400)


def test_a2_another_host_in_the_tunnel(modes):
    mode = modes["tunnel"]
    for value in (f"evil.test:{mode.evil.port}", "evil.test", f"{mode.host}:{mode.evil.port}"):
        outcome = mode.attack(mode.head("GET", "/", f"Host: {value}", host=False), finish=False)
        assert outcome.first.status in (400, 421) and outcome.requests == []


BAD_PORTS = ["443abc", "65536", "0", "-1", "+443", "4 43", "0x1bb", "99999999999999999999"]


@pytest.mark.parametrize("port", BAD_PORTS)
def test_a11_bad_port_in_connect(nexus, server, token, port, good):
    before = good.connections
    with Wire(server.port) as wire:
        wire.send(f"CONNECT good.test:{port} HTTP/1.1\r\nHost: good.test\r\nProxy-Authorization: {basic(token)}\r\n\r\n")
        answer = wire.answer("CONNECT")
    assert answer.status == 400, answer
    assert good.connections == before


@pytest.mark.parametrize("port", BAD_PORTS)
def test_a11_bad_port_in_a_target(mode, port):
    for scheme in ("http", "https"):
        mode.attack(mode.head("GET", target=f"{scheme}://{mode.host}:{port}/", path="")).refused(400)


@pytest.mark.parametrize("port", BAD_PORTS)
def test_a11_bad_port_in_host(mode, port):
    outcome = mode.attack(mode.head("GET", "/", f"Host: {mode.host}:{port}", host=False))
    if mode.name == "reverse" and port.isdigit():
        # Well formed (RFC 3986 section 3.2.3), and Host names the proxy itself here: it decides nothing.
        assert outcome.first.status in (200, 400)
    else:
        outcome.refused(400)


def test_a11_another_port(nexus, server, token, modes, evil):
    for port in (443, 80, 8443, evil.port, f"00{evil.port}"):
        with Wire(server.port) as wire:
            answer = wire.connect(f"good.test:{port}", token)
            assert answer.status in (400, 403)
            assert answer.code in ("no_connection", "bad_authority")
    forward = modes["forward"]
    for port in (80, evil.port):
        outcome = forward.attack(forward.head("GET", target=f"http://plain.test:{port}/", path="", host=False)
                                 .replace(b"\r\n\r\n", f"\r\nHost: plain.test:{port}\r\n\r\n".encode()))
        assert outcome.first.status == 403 and outcome.first.code == "no_connection"
        denied(nexus, outcome.first, "no_connection")


def test_a11_another_scheme(modes, good):
    """No credential goes in clear to the host of an https connection (A12)."""
    forward = modes["forward"]
    before = good.connections
    data = forward.head("GET", target=f"http://good.test:{good.port}/", path="", host=False)
    outcome = forward.attack(data.replace(b"\r\n\r\n", f"\r\nHost: good.test:{good.port}\r\n\r\n".encode()))
    assert outcome.first.status == 403 and good.connections == before


def test_a11_leading_zeros_are_no_other_port(server, token, good):
    with Wire(server.port) as wire:
        answer = wire.connect(f"good.test:00{good.port}", token)
    # Refused, or the same port; the audit line then names it in one way.
    assert answer.status in (200, 400)


def test_a3_the_target_decides(modes):
    """In absolute form Host is ignored or refused (RFC 9112 section 3.2.2)."""
    mode = modes["forward"]
    outcome = mode.attack(mode.head("GET", "/a3", f"Host: evil.test:{mode.evil.port}", host=False), finish=False)
    if outcome.first.status == 200:
        assert [one.all("host") for one in outcome.requests] == [[mode.authority]]
    else:
        assert outcome.first.status in (400, 421) and outcome.requests == []
