"""Two small file systems: one for the store, one for the audit record. Full, and then with room again, without a restart."""

import json
import subprocess
from pathlib import Path

import pytest
from nexustest.home import Home, canary, wait_for
from nexustest.process import needs_root
from nexustest.recorder import Recorder
from nexustest.wire import tunnel

API = "api.example.test"
pytestmark = needs_root


@pytest.fixture
def disks(tmp_path):
    """Mounted small file systems; unmounted in the end, also after a failure."""
    mounted = []

    def mount(where: Path, size: str) -> Path:
        where.mkdir(exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", where], capture_output=True)
        if done.returncode != 0:
            pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")
        mounted.append(where)
        return where

    yield mount
    for where in reversed(mounted):
        subprocess.run(["umount", "-l", where], check=True)


@pytest.fixture
def upstream(authority):
    recorder = Recorder(authority.server_context(API, alpn=["http/1.1"]))
    yield recorder
    recorder.close()


def fill(disk: Path) -> Path:
    """A file that takes all that is left."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        for size in (1 << 16, 4096, 1):
            try:
                while True:
                    file.write(b"\xff" * size)
            except OSError:
                pass
    return filler


class Agent:
    def __init__(self, home, server, port: int, token: str):
        self.ca = home.nexus("ca", "path").stdout.strip()
        self.server, self.port, self.token = server, port, token

    def ask(self, path: str = "/x"):
        with tunnel(self.server.port, self.ca, API, self.port, self.token, timeout=40) as wire:
            wire.send(f"GET {path} HTTP/1.1\r\nHost: {API}:{self.port}\r\n\r\n")
            return wire.answer("GET")


def store_on(disk: Path) -> str:
    return f'[store]\nurl = "sqlite://{disk}/nexus.db"\n'


def test_a_full_store(tmp_path, disks, authority, upstream):
    """Writes are refused with a clear error, requests go on, and with room again everything works."""
    disk = disks(tmp_path / "small", "2m")
    home = Home(tmp_path / "home", authority.path, [API], extra=store_on(disk))
    try:
        home.register("api", f"https://{API}:{upstream.port}", secret=canary("full"))
        token = home.token("api")[1]
        server = home.up()
        agent = Agent(home, server, upstream.port, token)
        assert agent.ask().status == 200
        filler = fill(disk)
        refused = 0
        for number in range(40):
            # Pages that are free inside the file may take a few more.
            done = home.nexus("token", "create", "--name", f"t{number}", "--use", "api", code=None)
            if done.returncode != 0:
                refused += 1
                assert done.returncode == 1 and "full" in done.stderr, done.stderr
                assert done.stdout == ""
                break
        assert refused, "the disk was full"
        before = home.json("token", "list")
        done = home.nexus("connection", "disable", "api", code=None)
        assert done.returncode in (0, 1)
        if done.returncode == 1:
            assert "full" in done.stderr
        else:
            filler.unlink()
            home.nexus("connection", "enable", "api")
            filler = fill(disk)
        for number in range(30):
            assert agent.ask(f"/{number}").status == 200
        assert server.process.poll() is None
        filler.unlink()
        # Without a restart: the same server applies what is written now.
        other = home.token("api", "after")[1]
        assert Agent(home, server, upstream.port, other).ask().status == 200
        home.nexus("connection", "disable", "api")
        assert ask(agent).status == 403
        home.nexus("connection", "enable", "api")
        assert agent.ask().status == 200
        assert {one["token_id"] for one in before} < {one["token_id"] for one in home.json("token", "list")}
        assert server.stop() == 0
        home.nexus("doctor", code=None)
        assert home.json("connection", "show", "api")["state"] == "active"
    finally:
        home.close()


@pytest.fixture
def provider(authority):
    provider = Provider(authority)
    yield provider
    provider.close()


def test_a_full_store_starts_no_refresh(tmp_path, disks, authority, provider):
    """An attempt that cannot be recorded is not made: the 401 is the agent's, and the grant stays good."""
    disk = disks(tmp_path / "small", "2m")
    home = Home(tmp_path / "home", authority.path, [API], extra=store_on(disk))
    origin = f"https://{API}:{provider.port}"
    try:
        home.json(
            "register", "custom", "--name", "api", "--base-url", f"{origin}/api", "--oauth", "refresh_token",
            "--token-url", f"{origin}/token", "--token-auth", "post", "--stdin-json",
            stdin=json.dumps({
                "client_id": "client", "client_secret": "secret", "access_token": provider.access,
                "refresh_token": provider.refresh, "expires_in": 3600,
            }),
        )
        token = home.token("api")[1]
        server = home.up()
        agent = Agent(home, server, provider.port, token)
        assert agent.ask("/api/x").status == 200
        filler = fill(disk)
        leases_are_refused(home)
        provider.access = "another, which makes the proxy refresh"
        for _ in range(5):
            answer = agent.ask("/api/x")
            assert answer.status == 401 and answer.code == "refresh_failed", answer
        assert provider.calls == 0, "no refresh was started"
        assert server.process.poll() is None
        filler.unlink()
        wait_for(lambda: agent.ask("/api/x").status == 200, 40, "a refresh, with room on the disk again")
        assert provider.calls == 1
        shown = home.json("connection", "show", "api")
        assert shown["state"] == "active" and shown["version"] == 2
        assert server.stop() == 0
    finally:
        home.close()


def leases_are_refused(home) -> None:
    """Uses up what is free inside the file."""
    for number in range(60):
        if home.nexus("token", "create", "--name", f"t{number}", "--use", "api", code=None).returncode != 0:
            return
    raise AssertionError("the disk was not full")


class Provider:
    """A token endpoint whose refresh tokens can be used once, and an API that takes the last access token."""

    def __init__(self, authority):
        import threading
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
        from urllib.parse import parse_qs

        self.access, self.refresh, self.calls = canary("access"), canary("refresh"), 0
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                provider.calls += 1
                fields = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                if fields["refresh_token"][0] != provider.refresh:
                    return self.answer(400, {"error": "invalid_grant"})
                provider.access, provider.refresh = canary("access"), canary("refresh")
                self.answer(200, {
                    "access_token": provider.access, "refresh_token": provider.refresh, "token_type": "Bearer",
                    "expires_in": 3600,
                })

            def do_GET(self):
                good = self.headers.get("authorization") == f"Bearer {provider.access}"
                self.answer(200 if good else 401, {})

            def answer(self, status: int, body: dict) -> None:
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        context = authority.server_context(API, alpn=["http/1.1"])
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.mark.parametrize("on_full", ["block", "drop_with_gap_record"])
def test_a_full_audit_record(tmp_path, disks, authority, upstream, on_full):
    home = Home(tmp_path / "home", authority.path, [API], extra=f'[audit]\non_full = "{on_full}"\n')
    disk = disks(home.path / "audit", "512k")
    try:
        home.register("api", f"https://{API}:{upstream.port}", secret=canary("audit"))
        token = home.token("api")[1]
        server = home.up()
        agent = Agent(home, server, upstream.port, token)
        assert agent.ask("/before").status == 200
        filler = fill(disk)
        mark = upstream.mark()
        if on_full == "block":
            answer = wait_for(lambda: next((a for a in [ask(agent)] if a.status == 503), None), 30, "a refusal")
            assert answer.code == "audit_unavailable", answer
            mark = upstream.mark()
            for _ in range(5):
                answer = ask(agent)
                assert (answer.status, answer.code) == (503, "audit_unavailable"), answer
            assert upstream.since(mark) == [], "nothing is sent unrecorded"
        else:
            for _ in range(60):
                answer = ask(agent)
                assert answer.status == 200, answer
            assert len(upstream.since(mark)) == 60
        filler.unlink()
        wait_for(lambda: ask(agent, "/after").status == 200, 30, "a request, with room on the disk again")
        assert server.process.poll() is None
        wait_for(lambda: any(line.get("path") == "/after" for line in home.audit()), 10, "a line again")
        if on_full == "drop_with_gap_record":
            wait_for(lambda: any(line["event"] == "gap" for line in home.audit()), 10, "the gap's record")
        assert server.stop() == 0
    finally:
        home.close()


def ask(agent, path: str = "/full"):
    """A tunnel's CONNECT is recorded too, and may be what is refused."""
    from nexustest.wire import Wire

    wire = Wire(agent.server.port, 40)
    with wire:
        answer = wire.connect(f"{API}:{agent.port}", agent.token)
        if answer.status != 200:
            return answer
        wire.secure(API, agent.ca, None)
        wire.send(f"GET {path} HTTP/1.1\r\nHost: {API}:{agent.port}\r\n\r\n")
        return wire.answer("GET")
