"""What is left of a credential in the server's memory once it is deleted, replaced, refreshed or turned off.

The server stays alive, its tunnels from agents too. Needs root, which reads the memory of a process that is closed to others.
"""

import json
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest
from nexustest.home import Failed, Home, canary, in_threads, wait_for
from nexustest.process import needs_root, search
from nexustest.recorder import Recorder
from nexustest.upstream import Upstream
from nexustest.wire import tunnel

API = "api.example.test"
pytestmark = needs_root

# From the moment that the command returned.
WITHIN = 5


@pytest.fixture(scope="module")
def h1(authority):
    recorder = Recorder(authority.server_context(API, alpn=["http/1.1"]))
    yield recorder
    recorder.close()


@pytest.fixture(scope="module")
def h2(authority):
    upstream = Upstream(authority, API)
    yield upstream
    upstream.close()


@pytest.fixture
def home(tmp_path, authority):
    home = Home(tmp_path / "home", authority.path, [API])
    yield home
    home.close()


class Agent:
    """Tunnels that stay open."""

    def __init__(self, home, server, port: int, token: str, alpn=None):
        ca = home.nexus("ca", "path").stdout.strip()
        self.host = f"{API}:{port}"
        self.wires = [tunnel(server.port, ca, API, port, token, alpn) for _ in range(4)]

    def ask(self, path: str, status: int = 200) -> None:
        def one(index: int) -> None:
            wire = self.wires[index]
            for number in range(10):
                wire.send(f"GET {path}?{number} HTTP/1.1\r\nHost: {self.host}\r\n\r\n")
                answer = wire.answer("GET")
                assert answer.status == status, answer

        in_threads(len(self.wires), one)

    def close(self) -> None:
        for wire in self.wires:
            wire.close()


def gone(server, *values: str) -> None:
    """No value, in no form in which it is sent, is anywhere in the process."""
    forms = {value.encode() for value in values}
    forms |= {b64encode(f"user:{value}".encode()) for value in values}

    def none_left() -> bool:
        return not any(search(server.pid, form) for form in forms)

    try:
        wait_for(none_left, WITHIN, "the credential to leave the memory")
    except Failed:
        left = [hit for form in forms for hit in search(server.pid, form)]
        assert left == []


def test_the_search_finds_what_is_there(home):
    server = home.up()
    assert search(server.pid, str(home.path).encode()), "the home's path is in the memory"
    assert search(server.pid, b"nexus-" + b"this-is-nowhere") == []


@pytest.mark.parametrize("protocol", ["h1", "h2"])
@pytest.mark.parametrize("place", ["header", "basic", "query", "path"])
@pytest.mark.parametrize("how", ["delete", "disable", "replace"])
def test_a_static_credential(home, h1, h2, protocol, place, how):
    secret = canary(f"{place}-{how}")
    port = h1.port if protocol == "h1" else h2.port
    url = f"https://{API}:{port}"
    if place == "basic":
        home.register("api", url, "basic {user}:{password}", fields={"user": "user", "password": secret})
    else:
        spec = {"header": "header Authorization: Bearer {token}", "query": "query key={token}", "path": "path /bot{token}"}
        home.register("api", url, spec[place], secret=secret)
    server = home.up()
    agent = Agent(home, server, port, home.token("api")[1])
    seen = h1.mark() if protocol == "h1" else len(h2.requests)
    # The h2 API gives back what it got, which the proxy searches for the credential.
    agent.ask("/echo", 404 if place == "path" and protocol == "h2" else 200)
    if protocol == "h1":
        assert sum(secret in repr(request.head) or b64encode(f"user:{secret}".encode()) in request.head
                   for request in h1.since(seen)) == 40
    else:
        assert {request.version for request in h2.requests[seen:]} == {"2"}
    if how == "replace":
        home.nexus(
            "register", "custom", "--name", "api", "--base-url", url, "--inject", "header Authorization: Bearer {token}",
            "--stdin", "--replace", stdin="another\n",
        )
    else:
        home.nexus("connection", how, "api", *(["--yes"] if how == "delete" and has_yes(home) else []))
    gone(server, secret)
    agent.close()


def has_yes(home) -> bool:
    return "--yes" in home.nexus("connection", "delete", "--help").stdout


class Tokens:
    """A token endpoint that gives new canaries, and an API that takes the last one."""

    def __init__(self, authority):
        self.given: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        tokens = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                fields = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                with tokens.lock:
                    good = fields["refresh_token"][0] == tokens.given[-1][1]
                    if good:
                        tokens.given.append((canary("access"), canary("refresh")))
                    access, refresh = tokens.given[-1]
                answer = {"access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": 3600}
                self.answer(200 if good else 400, json.dumps(answer if good else {"error": "invalid_grant"}).encode())

            def do_GET(self):
                with tokens.lock:
                    good = self.headers.get("authorization") == f"Bearer {tokens.given[-1][0]}"
                self.answer(200 if good else 401, b"{}")

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

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


@pytest.fixture
def tokens(authority):
    tokens = Tokens(authority)
    yield tokens
    tokens.close()


def test_an_oauth_credential(home, tokens):
    """The tokens that a refresh replaced are gone while the connection is used; all of them once it is deleted."""
    secret = canary("client")
    first = (canary("access"), canary("refresh"))
    tokens.given.append(first)
    origin = f"https://{API}:{tokens.port}"
    home.json(
        "register", "custom", "--name", "api", "--base-url", f"{origin}/api", "--oauth", "refresh_token",
        "--token-url", f"{origin}/token", "--token-auth", "post", "--stdin-json",
        stdin=json.dumps({
            "client_id": "client", "client_secret": secret, "access_token": first[0], "refresh_token": first[1],
            "expires_in": 3600,
        }),
    )
    server = home.up()
    agent = Agent(home, server, tokens.port, home.token("api")[1])
    agent.ask("/api/x")
    for _ in range(3):
        old = tokens.given[-1]
        # The API refuses the current one, which makes the proxy refresh.
        with tokens.lock:
            tokens.given.append((canary("nobody-has-it"), old[1]))
        agent.ask("/api/x")
        assert len(tokens.given) > 2 and tokens.given[-1][1] != old[1], "it was refreshed"
        gone(server, *old, secret)
        agent.ask("/api/x")
    home.nexus("connection", "delete", "api", *(["--yes"] if has_yes(home) else []))
    gone(server, secret, *[value for pair in tokens.given for value in pair])
    agent.close()
