"""Revocation reaches what is open: streams, uploads, WebSockets, tunnels and waiting requests, and nobody else's."""

import base64
import json
import re
import socket
import threading
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest
from nexustest.home import Home, canary, wait_for
from nexustest.hosts import API, LLM, PINNED
from nexustest.upstream import Upstream
from nexustest.wire import Wire, basic, tunnel

PLAIN = "plain.example.test"

# The promise; what is measured is printed (pytest -rP).
LIMIT = 5.0


class Endless:
    """An API in clear text: whatever is asked, its answer begins and does not end."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.gone = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                more = connection.recv(65536)
                if not more:
                    return
                head += more
            chunk = b"5\r\ntick\n\r\n" if b"/flood" not in head else b"10000\r\n" + b"x" * 65536 + b"\r\n"
            pause = 0 if b"/flood" in head else 0.2
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
                while True:
                    connection.sendall(chunk)
                    time.sleep(pause)
            except OSError:
                self.gone += 1


@pytest.fixture(scope="module")
def slow(authority, git_root):
    upstream = Upstream(authority, "*.example.test", git_root=git_root)
    yield upstream
    upstream.gate("silent").set()
    upstream.gate("slow").set()
    upstream.close()


@pytest.fixture(scope="module")
def endless():
    server = Endless()
    yield server
    server.listener.close()


@pytest.fixture
def stage(tmp_path, authority, slow, endless):
    """A home of its own: two connections, a host without one, and a server."""
    egress = f'unmatched = "tunnel"\nallow_hosts = ["{PINNED}"]\nconnect_ports = [443, {slow.port}]'
    home = Home(tmp_path / "home", authority.path, [API, LLM, PINNED, PLAIN], egress=egress)
    home.register("api", f"https://{API}:{slow.port}", secret=canary("api"))
    home.register("llm", f"https://{LLM}:{slow.port}", secret=canary("llm"))
    home.register("plain", f"http://{PLAIN}:{endless.port}", secret=canary("plain"))
    home.up()
    yield Stage(home, slow, endless, authority.path)
    home.close()


class Stage:
    def __init__(self, home, slow, endless, upstream_ca):
        self.home, self.slow, self.endless, self.upstream_ca = home, slow, endless, upstream_ca
        self.port = home.servers[0].port
        self.ca = home.nexus("ca", "path").stdout.strip()

    def tunnel(self, token, host=API, alpn=None):
        return tunnel(self.port, self.ca, host, self.slow.port, token, alpn)

    def ask(self, path, host=API, *fields, method="GET"):
        return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}:{self.slow.port}", *fields]) + "\r\n\r\n"


class Open:
    """Something that is open, and what became of it."""

    def __init__(self, stage, token, host=API):
        self.stage, self.token, self.host = stage, token, host
        self.ended_at = None
        self.outcome = None
        self.start()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        try:
            self.outcome = self.wait()
        except (OSError, EOFError, ValueError) as error:
            self.outcome = repr(error)
        self.ended_at = time.monotonic()

    def drain(self):
        """Reads until the end of the stream."""
        self.wire.socket.settimeout(60)
        while self.wire.fill():
            self.wire.buffer = b""
        return "closed"

    wait = drain


class Silent(Open):
    """An answer inside a tunnel that has begun."""

    def start(self):
        self.wire = self.stage.tunnel(self.token, self.host)
        self.wire.send(self.stage.ask("/silent", self.host))
        assert self.wire.head().status == 200
        self.wire.line(), self.wire.line()


class H2(Open):
    """A stream of an h2 tunnel."""

    def start(self):
        self.wire = self.stage.tunnel(self.token, self.host, ["h2"])
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.h2.send_headers(1, [(":method", "GET"), (":path", "/silent"), (":scheme", "https"),
                                 (":authority", f"{self.host}:{self.stage.slow.port}")], end_stream=True)
        self.wire.send(self.h2.data_to_send())
        seen = set()
        while h2.events.DataReceived not in seen:
            seen |= {type(event) for event in self.events()}

    def events(self):
        if not self.wire.fill():
            return None
        data, self.wire.buffer = self.wire.buffer, b""
        events = self.h2.receive_data(data)
        self.wire.send(self.h2.data_to_send())
        return events

    def wait(self):
        self.wire.socket.settimeout(60)
        while (events := self.events()) is not None:
            for event in events:
                if isinstance(event, h2.events.StreamReset):
                    return "reset"
                if isinstance(event, h2.events.StreamEnded):
                    return "ended"
        return "closed"


class Socket(Open):
    """A WebSocket."""

    def start(self):
        self.wire = self.stage.tunnel(self.token, self.host)
        key = base64.b64encode(b"0123456789abcdef").decode()
        self.wire.send(self.stage.ask("/ws", self.host, "Connection: Upgrade", "Upgrade: websocket",
                                      "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"))
        assert self.wire.head().status == 101
        # A masked text frame, and its echo.
        self.wire.send(b"\x81\x82\0\0\0\0hi")
        assert self.wire.exactly(9) == b"\x81\x07echo hi"


class Blind(Open):
    """A blind tunnel with an answer that has begun."""

    def start(self):
        self.wire = Wire(self.stage.port)
        assert self.wire.connect(f"{PINNED}:{self.stage.slow.port}", self.token).status == 200
        self.wire.secure(PINNED, self.stage.upstream_ca)
        self.wire.send(self.stage.ask("/silent", PINNED))
        assert self.wire.head().status == 200


class Forward(Open):
    """An answer to a request in absolute form."""

    path = "/ticks"

    def start(self):
        self.wire = Wire(self.stage.port)
        host = f"{PLAIN}:{self.stage.endless.port}"
        self.wire.send(f"GET http://{host}{self.path} HTTP/1.1\r\nHost: {host}\r\n"
                       f"Proxy-Authorization: {basic(self.token)}\r\n\r\n")
        assert self.wire.head().status == 200


class Base(Open):
    """An answer by base URL."""

    def start(self):
        name = "api" if self.host == API else "llm"
        self.wire = Wire(self.stage.port)
        self.wire.send(f"GET /c/{name}/silent HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.token}\r\n\r\n")
        assert self.wire.head().status == 200


class Idle(Open):
    """A tunnel with nothing under way."""

    def start(self):
        self.wire = self.stage.tunnel(self.token, self.host)
        self.wire.send(self.stage.ask("/status/200", self.host))
        assert self.wire.answer().status == 200


class IdleH2(H2):
    """The same, of h2: it ends by GOAWAY, or the end of the stream."""

    def start(self):
        self.wire = self.stage.tunnel(self.token, self.host, ["h2"])
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.wire.send(self.h2.data_to_send())
        self.events()

    def wait(self):
        self.wire.socket.settimeout(60)
        try:
            while (events := self.events()) is not None:
                if any(isinstance(event, h2.events.ConnectionTerminated) for event in events):
                    return "goaway"
        except h2.exceptions.ProtocolError:
            # This client takes nothing behind a GOAWAY.
            return "goaway"
        return "closed"


class Waiting(Open):
    """A request that waits for the first byte of its answer."""

    def start(self):
        before = len(self.stage.slow.to("/slow"))
        self.wire = self.stage.tunnel(self.token, self.host)
        self.wire.send(self.stage.ask("/slow", self.host))
        wait_for(lambda: len(self.stage.slow.to("/slow")) > before, 10, "the request at the API")

    def wait(self):
        self.wire.socket.settimeout(60)
        answer = self.wire.answer()
        return answer and (answer.status, answer.code)


class Upload(Waiting):
    """A request body that has not come whole."""

    def start(self):
        before = len(self.stage.slow.to("/echo"))
        self.wire = self.stage.tunnel(self.token, self.host)
        self.wire.send(self.stage.ask("/echo", self.host, "Transfer-Encoding: chunked", method="POST"))
        self.wire.send("5\r\nhello\r\n")
        wait_for(lambda: len(self.stage.slow.to("/echo")) > before, 10, "the request at the API")


class Call(Waiting):
    """A call whose answer has not come."""

    def start(self):
        before = len(self.stage.slow.to("/slow"))
        name = "api" if self.host == API else "llm"
        body = json.dumps({"connection_id": name, "url": "/slow"})
        self.wire = Wire(self.stage.port)
        self.wire.send(f"POST /v1/call HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.token}\r\n"
                       f"Content-Length: {len(body)}\r\n\r\n{body}")
        wait_for(lambda: len(self.stage.slow.to("/slow")) > before, 10, "the request at the API")


STREAMS = [Silent, H2, Socket, Base, Forward, Blind]
WAITING = [Waiting, Upload, Call]
IDLE = [Idle, IdleH2]
WITH_CONNECTION = [Silent, H2, Socket, Base, Waiting, Upload, Call]


def aborted(stage, kinds, reason):
    """Each request that was cut has one line of its own, with the reason."""
    def found():
        lines = [line for line in stage.home.audit() if line["event"] == "aborted" and line["agent"] == "cut-me"]
        return lines if len(lines) >= len(kinds) else None

    lines = wait_for(found, 5, f"{len(kinds)} aborted lines, not {stage.home.audit()}")
    assert [line["reason"] for line in lines] == [reason] * len(kinds), lines
    assert len({line["request_id"] for line in lines}) == len(kinds)
    # What went out before is told.
    assert all(line["response_bytes"] > 0 for line in lines if line.get("way") == "tunnel" or line.get("status") == 101)


def check_witnesses(witnesses):
    assert all(witness.ended_at is None for witness in witnesses), [type(w).__name__ for w in witnesses if w.ended_at]


def measure(kinds, opened, act):
    """Acts, waits for every end, and prints the times from the command's return."""
    began = time.monotonic()
    act()
    returned = time.monotonic()
    for one in opened:
        one.thread.join(LIMIT + 1)
    print(f"\nthe command took {(returned - began) * 1000:.0f} ms; cut after its start / return in ms:")
    for kind, one in zip(kinds, opened):
        assert one.ended_at is not None, f"{kind.__name__} was not cut within {LIMIT} s"
        print(f"  {kind.__name__:8} {(one.ended_at - began) * 1000:6.0f} / {(one.ended_at - returned) * 1000:6.0f}"
              f"  {one.outcome}")
        assert one.ended_at - returned < LIMIT
    return returned


def test_a_revoked_token(stage):
    kinds = STREAMS + WAITING + IDLE
    token_id, token = stage.home.token("api,llm,plain", "cut-me")
    _, other = stage.home.token("api,llm,plain", "witness")
    opened = [kind(stage, token) for kind in kinds]
    witnesses = [kind(stage, other) for kind in kinds]
    kept = Wire(stage.port)
    kept.send(f"GET /c/api/status/200 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n")
    assert kept.answer().status == 200

    def act():
        stage.home.nexus("token", "revoke", token_id)
        assert Wire(stage.port).connect(f"{API}:{stage.slow.port}", token).status == 407

    measure(kinds, opened, act)

    # New ones, by whatever way.
    kept.send(f"GET /c/api/status/200 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n")
    assert kept.answer().status == 401
    assert Wire(stage.port).connect(f"{API}:{stage.slow.port}", token).status == 407
    outcomes = {kind.__name__: one.outcome for kind, one in zip(kinds, opened)}
    assert {outcomes[name] for name in ("Waiting", "Upload", "Call")} == {(403, "token_invalid")}
    assert outcomes["H2"] == "reset" and outcomes["Blind"] != "ended"
    aborted(stage, STREAMS + WAITING, "token_revoked")
    check_witnesses(witnesses)
    cuts = re.search(r'nexus_cuts_total\{reason="token_revoked"} (\d+)', httpx_get(stage, "/metrics"))
    # Tunnels are counted beside the requests in them.
    assert int(cuts[1]) >= len(kinds)


def test_a_disabled_connection(stage):
    _, token = stage.home.token("api,llm,plain", "cut-me")
    opened = [kind(stage, token) for kind in WITH_CONNECTION]
    idle = Idle(stage, token)
    # The same agent's streams by another connection go on, and blind tunnels, which have none.
    witnesses = [kind(stage, token, LLM) for kind in WITH_CONNECTION] + [Blind(stage, token)]
    measure(WITH_CONNECTION, opened, lambda: stage.home.nexus("connection", "disable", "api"))
    outcomes = {kind.__name__: one.outcome for kind, one in zip(WITH_CONNECTION, opened)}
    assert {outcomes[name] for name in ("Waiting", "Upload", "Call")} == {(403, "no_connection")}
    assert outcomes["H2"] == "reset"
    # The tunnel stays open, and its next request is refused.
    idle.wire.send(stage.ask("/status/200"))
    idle.thread.join(0.5)
    aborted(stage, WITH_CONNECTION, "connection_disabled")
    check_witnesses(witnesses)


def test_a_deleted_connection(stage):
    _, token = stage.home.token("api,llm", "cut-me")
    opened = [Silent(stage, token), Socket(stage, token)]
    witness = Silent(stage, token, LLM)
    measure([Silent, Socket], opened, lambda: stage.home.nexus("connection", "delete", "api"))
    aborted(stage, opened, "connection_deleted")
    check_witnesses([witness])


def test_a_replaced_connection(stage):
    """Elsewhere now: what goes to the old place ends. A new secret for the same place cuts nothing."""
    _, token = stage.home.token("api,llm", "cut-me")
    opened = [Silent(stage, token), Socket(stage, token)]
    stage.home.nexus("connection", "set", "api", "--stdin", stdin=canary("new") + "\n")
    time.sleep(1.2)
    check_witnesses(opened)
    again = ["register", "custom", "--name", "api", "--base-url", f"https://{LLM}:{stage.slow.port}", "--replace",
             "--inject", "header Authorization: Bearer {token}", "--stdin"]
    measure([Silent, Socket], opened, lambda: stage.home.nexus(*again, stdin=canary("other") + "\n"))
    aborted(stage, opened, "connection_replaced")


def test_an_expired_token(stage):
    kinds = STREAMS + WAITING + IDLE
    _, other = stage.home.token("api,llm,plain", "witness")
    made = time.monotonic()
    _, token = stage.home.token("api,llm,plain", "cut-me", "--expires", "6s")
    opened = [kind(stage, token) for kind in kinds]
    witnesses = [kind(stage, other) for kind in STREAMS]
    for one in opened:
        one.thread.join(12)
    for kind, one in zip(kinds, opened):
        assert one.ended_at is not None, f"{kind.__name__} was not cut"
        print(f"  {kind.__name__:8} {one.ended_at - made:.2f} s after the token of 6 s was asked for  {one.outcome}")
    aborted(stage, STREAMS + WAITING, "token_expired")
    check_witnesses(witnesses)


def test_a_lockdown_and_its_end(stage):
    kinds = STREAMS + WAITING + IDLE
    token_id, token = stage.home.token("api,llm,plain", "cut-me")
    opened = [kind(stage, token) for kind in kinds]
    # Neither the key nor a valid config is needed.
    key = stage.home.path / "root.key"
    held = key.read_bytes()
    key.unlink()
    config = (stage.home.path / "nexus.toml").read_text()
    stage.home.write_config("[limits\nbroken")

    def act():
        told = stage.home.nexus("lockdown")
        # At once, without the key: nothing waits for it.
        assert Wire(stage.port).connect(f"{API}:{stage.slow.port}", token).status == 407
        assert "not confirmed" not in told.stderr

    measure(kinds, opened, act)

    assert Wire(stage.port).connect(f"{API}:{stage.slow.port}", token).status == 407
    aborted(stage, STREAMS + WAITING, "locked_down")
    events = [line for line in stage.home.audit() if line["event"] == "lockdown"]
    assert len(events) == 1
    again = json.loads(stage.home.nexus("lockdown", "-o", "json").stdout)
    assert again["locked_down"] and again["servers"] == 1
    assert len([line for line in stage.home.audit() if line["event"] == "lockdown"]) == 1
    ready = httpx_get(stage, "/readyz", 503)
    assert "locked down" in ready
    # Lifting needs the key.
    assert stage.home.nexus("lockdown", "--lift", code=1).stdout == ""
    key.write_bytes(held)
    key.chmod(0o600)
    stage.home.write_config(config)
    # The server had the key all the time, and has revoked every token.
    wait_for(lambda: {one["state"] for one in stage.home.json("token", "list")} == {"revoked"}, 5, "revoked tokens")
    for refused in (["token", "create", "--name", "a", "--use", "api"], ["connection", "test", "api"],
                    ["run", "--use", "api", "--", "true"], ["token", "rotate", token_id]):
        assert "locked down" in stage.home.nexus(*refused, code=4).stderr
    assert "locked down" in stage.home.nexus("list").stderr
    doctor = {one["check"]: one["state"] for one in json.loads(stage.home.nexus("doctor", "-o", "json", code=8).stdout)}
    assert doctor["lockdown"] == "fail"

    stage.home.nexus("lockdown", "--lift")
    httpx_get(stage, "/readyz")
    assert Wire(stage.port).connect(f"{API}:{stage.slow.port}", token).status == 407, "the old token stays dead"
    _, fresh = stage.home.token("api", "fresh")
    Idle(stage, fresh)
    assert [line["event"] for line in stage.home.audit() if line["event"].startswith("lockdown")] == [
        "lockdown", "lockdown_lifted"]
    stage.home.nexus("lockdown", "--lift")


def test_a_lockdown_without_a_server(stage):
    """It holds over a restart, and who finds a token from before it cannot use it after."""
    _, token = stage.home.token("api", "cut-me")
    stage.home.servers[0].stop()
    told = json.loads(stage.home.nexus("lockdown", "-o", "json").stdout)
    assert (told["servers"], told["tokens_revoked"]) == (0, 1)
    stage.port = stage.home.up().port
    assert Wire(stage.port).connect(f"{API}:{stage.slow.port}", token).status == 407
    stage.home.nexus("lockdown", "--lift")
    assert Wire(stage.port).connect(f"{API}:{stage.slow.port}", token).status == 407
    assert [line["event"] for line in stage.home.audit() if line["event"].startswith("lockdown")] == [
        "lockdown", "lockdown_lifted"]


def test_a_narrowed_config(stage):
    """A host that is allowed no more: its blind tunnels are cut, and nothing else."""
    _, token = stage.home.token("api,plain", "cut-me")
    blind = Blind(stage, token)
    witnesses = [Silent(stage, token), Forward(stage, token)]
    began = time.monotonic()
    stage.home.configure(egress=f'unmatched = "tunnel"\nallow_hosts = []\nconnect_ports = [443, {stage.slow.port}]')
    blind.thread.join(LIMIT + 2)
    assert blind.ended_at is not None
    print(f"\ncut {(blind.ended_at - began) * 1000:.0f} ms after the file was written")
    aborted(stage, [blind], "denied")
    check_witnesses(witnesses)


def test_a_client_that_does_not_read(stage):
    """Its connection is closed under it: nothing is held open for it."""
    token_id, token = stage.home.token("plain,api", "cut-me")
    gone = stage.endless.gone
    wire = Wire(stage.port)
    host = f"{PLAIN}:{stage.endless.port}"
    wire.send(f"GET http://{host}/flood HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: {basic(token)}\r\n\r\n")
    assert wire.head().status == 200
    # Until every buffer on the way is full.
    time.sleep(1.5)
    began = time.monotonic()
    stage.home.nexus("token", "revoke", token_id)
    aborted(stage, [wire], "token_revoked")
    wait_for(lambda: stage.endless.gone > gone, LIMIT, "the end at the API")
    print(f"\ncut {(time.monotonic() - began) * 1000:.0f} ms after the command began")


def httpx_get(stage, path, status=200):
    import httpx

    answer = httpx.get(f"http://127.0.0.1:{stage.home.servers[-1].admin_port}{path}", trust_env=False)
    assert answer.status_code == status
    return answer.text
