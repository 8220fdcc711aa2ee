"""Every kind of proof by every way in at every kind of listener, and what must not differ between the kinds."""

import base64
import json
import socket
import ssl
import subprocess
import time
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import CertificateSigningRequestBuilder, Name
from nexustest.ca import Authority
from nexustest.home import Home, binary, canary, clean_environment, wait_for
from nexustest.hosts import API
from nexustest.wire import Wire, basic

ISSUER = "https://idp.example.test"
SPIFFE = "spiffe://example.org/agent/mesh-agent"
WRONG = "nxt_" + "A" * 43 + "2cNllg"

CONFIG = """
[limits]
wrong_tokens_per_minute = WRONG
unauthenticated_connections = STRANGERS
[[identity.issuer]]
name = "idp"
issuer = "https://idp.example.test"
audience = "nexus"
algorithm = "RS256"
jwks = { file = "jwks.json" }
agent = "{sub}"
rule = [{ use = ["api"] }]
[[identity.certificate]]
name = "mesh"
agent = "{/path/1}"
rule = [{ when = { uri = "spiffe://example.org/agent/*" }, use = ["api"] }]
[[server.listener]]
address = "127.0.0.1:0"
[[server.listener]]
address = "127.0.0.1:0"
tls = { cert = "tls/server.pem", key = "tls/server.key", client_ca = "both.pem" }
[[server.listener]]
address = "127.0.0.1:0"
tls = { cert = "tls/server.pem", key = "tls/server.key" }
agent = "java"
[[server.listener]]
address = "127.0.0.1:0"
agent = "java"
[[server.listener]]
address = "unix:plain.sock"
[[server.listener]]
address = "unix:bound.sock"
agent = "java"
[server]
listen = []
"""
LISTENERS = ["plain", "tls", "bound tls", "bound", "unix", "bound unix"]


def encoded(data: bytes | dict) -> str:
    if isinstance(data, dict):
        data = json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Place(Home):
    def prepare(self, mesh: Authority, upstream, wrong=1_000_000, strangers=1024) -> "Place":
        self.upstream = upstream
        self.register("api", f"https://{API}:{upstream.port}", secret=canary("proofs"))
        self.nexus("ca", "issue", "127.0.0.1", "--out", str(self.path / "tls"))
        (self.path / "both.pem").write_bytes((self.path / "ca/agents.pem").read_bytes() + mesh.path.read_bytes())
        self.key = rsa.generate_private_key(65537, 2048)
        numbers = self.key.public_key().public_numbers()
        jwk = {"kty": "RSA", "kid": "k", "n": encoded(numbers.n.to_bytes(256, "big")), "e": "AQAB"}
        (self.path / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
        self.text = self.config(CONFIG.replace("WRONG", str(wrong)).replace("STRANGERS", str(strangers)))
        self.write_config(self.text)
        self.up(listen=False)
        self.interception = str(self.path / "ca" / "ca.pem")
        return self

    def jwt(self, **edits) -> str:
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": "nexus", "sub": "bot", "iat": now, "exp": now + 600} | edits
        signed = f"{encoded({'alg': 'RS256', 'kid': 'k'})}.{encoded(claims)}"
        return f"{signed}.{encoded(self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def port(self, listener: str) -> int:
        return int(self.servers[-1].urls[LISTENERS.index(listener)].rsplit(":", 1)[1])

    @contextmanager
    def wire(self, listener: str, certificate=None, alpn="http/1.1"):
        wire = Wire.__new__(Wire)
        wire.buffer = b""
        if listener.endswith("unix"):
            wire.socket = socket.socket(socket.AF_UNIX)
            wire.socket.settimeout(20)
            wire.socket.connect(str(self.path / ("plain.sock" if listener == "unix" else "bound.sock")))
        else:
            wire.socket = socket.create_connection(("127.0.0.1", self.port(listener)), 20)
        if listener.endswith("tls"):
            context = ssl.create_default_context(cafile=self.interception)
            context.set_alpn_protocols([alpn])
            if certificate:
                context.load_cert_chain(*certificate)
            wire.socket = context.wrap_socket(wire.socket, server_hostname="127.0.0.1")
        with wire:
            yield wire

    def ask(self, listener, certificate, method, target, host, fields=(), body="", wire=None):
        head = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields]
        if body:
            head.append(f"Content-Length: {len(body)}")

        def go(wire):
            wire.send("\r\n".join(head) + "\r\n\r\n" + body)
            return wire.answer(method)

        if wire:
            return go(wire)
        with self.wire(listener, certificate) as wire:
            return go(wire)

    def routes(self, listener, certificate, token):
        """What each way in says: status and code."""
        api = f"{API}:{self.upstream.port}"
        proxy = [f"Proxy-Authorization: {basic(token)}"] if token else []
        own = [f"X-Nexus-Token: {token}"] if token else []
        csr = request()
        posts = [
            ("/v1/call", {"connection_id": "api", "url": "/echo"}),
            ("/v1/tokens", {"use": ["api"]}),
            ("/v1/enroll", {"csr": csr}),
            ("/v1/enroll/renew", {"csr": csr}),
        ]
        answers = [
            self.ask(listener, certificate, "CONNECT", api, api, proxy),
            self.ask(listener, certificate, "GET", f"https://{api}/echo", api, proxy),
            self.ask(listener, certificate, "GET", "/c/api/echo", "127.0.0.1", own),
            *(self.ask(listener, certificate, "POST", path, "127.0.0.1", own, json.dumps(body)) for path, body in posts),
        ]
        told = [(answer.status, answer.code) for answer in answers]
        if listener == "tls":
            told.append(self.connect_by_h2(certificate, api, token))
        return told

    def connect_by_h2(self, certificate, api, token):
        import h2.config
        import h2.connection
        import h2.events

        fields = [(":method", "CONNECT"), (":authority", api)]
        if token:
            fields.append(("proxy-authorization", basic(token)))
        with self.wire("tls", certificate, "h2") as wire:
            assert wire.socket.selected_alpn_protocol() == "h2"
            client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
            client.initiate_connection()
            client.send_headers(client.get_next_available_stream_id(), fields)
            wire.send(client.data_to_send())
            while True:
                received = wire.socket.recv(65536)
                assert received, "the connection ended"
                for event in client.receive_data(received):
                    if isinstance(event, h2.events.ResponseReceived):
                        head = dict(event.headers)
                        return int(head[":status"]), head.get("x-nexus-error")
                wire.send(client.data_to_send())


def request(key=None) -> str:
    key = key or ec.generate_private_key(ec.SECP256R1())
    asked = CertificateSigningRequestBuilder().subject_name(Name([])).sign(key, hashes.SHA256())
    return asked.public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture(scope="module")
def mesh(root) -> Authority:
    (root / "proofs-mesh").mkdir()
    return Authority(root / "proofs-mesh", "mesh")


@pytest.fixture(scope="module")
def place(root, authority, upstream, mesh):
    home = Place(root / "proofs", authority.path, [API])
    try:
        yield home.prepare(mesh, upstream)
    finally:
        home.close()


def enroll(place, directory, *arguments, name="member"):
    invited = place.json("agent", "invite", "--name", name, "--use", "api", *arguments)
    done = subprocess.run(
        [str(binary()), "agent", "enroll", "--server", f"https://127.0.0.1:{place.port('tls')}", "--code-stdin", "--out",
         str(directory), "--ca", place.interception, "-o", "json"],
        input=invited["code"] + "\n", capture_output=True, text=True, timeout=60, env=clean_environment(directory.parent),
    )
    assert done.returncode == 0, done.stderr
    return invited, (directory / "agent.pem", directory / "agent.key")


@pytest.fixture(scope="module")
def proofs(place, mesh, root):
    """Each kind: a token, or a certificate."""
    opaque = place.token("api", "java")
    minter = place.token("api", "boss", "--scopes", "use,mint")[1]
    child = place.ask("plain", None, "POST", "/v1/tokens", "x", [f"X-Nexus-Token: {minter}"], json.dumps({"use": ["api"]}))
    revoked = place.json("token", "mint", "--run", "r-2", "--use", "api")
    place.nexus("token", "revoke", revoked["token_id"])
    return {
        "nothing": (None, None),
        "opaque": (None, opaque[1]),
        "opaque that mints": (None, minter),
        "made by another": (None, json.loads(child.body)["token_value"]),
        "run": (None, place.json("token", "mint", "--run", "r-1", "--use", "api")["token_value"]),
        "run, revoked": (None, revoked["token_value"]),
        "issuer": (None, place.jwt()),
        "issuer, wrong audience": (None, place.jwt(aud="other")),
        "wrong": (None, WRONG),
        "enrolled": (enroll(place, root / "proofs-member")[1], None),
        "operator's": (mesh.issue_client("good", SPIFFE), None),
        "operator's, no rule": (mesh.issue_client("other", "spiffe://example.org/service/x"), None),
    }


OK, MADE, DENIED, NONE = (200, None), (201, None), (403, "denied"), (404, "not_found")
NO_PROXY, NO_KEY = (407, "auth_required"), (401, "auth_required")
USES = [OK, OK, OK, OK]
REFUSED = [NO_PROXY, NO_PROXY, NO_KEY, NO_KEY]
# CONNECT, forward, base URL, call; then /v1/tokens; then renewal.
PROOFS = {
    "nothing": (REFUSED, NO_KEY, NO_KEY),
    "opaque": (USES, DENIED, NO_KEY),
    "opaque that mints": (USES, MADE, NO_KEY),
    "made by another": (USES, MADE, NO_KEY),
    "run": (USES, DENIED, NO_KEY),
    "run, revoked": (REFUSED, NO_KEY, NO_KEY),
    "issuer": (USES, DENIED, NO_KEY),
    "issuer, wrong audience": (REFUSED, NO_KEY, NO_KEY),
    "wrong": (REFUSED, NO_KEY, NO_KEY),
    "enrolled": (USES, NO_KEY, OK),
    "operator's": (USES, NO_KEY, NO_KEY),
    "operator's, no rule": (REFUSED, NO_KEY, NO_KEY),
}


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("kind", PROOFS)
def test_b15_proof_by_route_by_listener(place, proofs, kind, listener):
    certificate, token = proofs[kind]
    if certificate and listener != "tls":
        pytest.skip("only a listener with client_ca asks for certificates")
    uses, makes, renews = PROOFS[kind]
    if kind == "nothing" and listener.startswith("bound"):
        # Whoever reaches it is the agent, for requests alone.
        uses = USES
    # Certificates are for TLS; the code of an invitation is all that enrolls.
    enrolls = (NO_KEY, renews) if listener.endswith("tls") else (NONE, NONE)
    expected = [*uses, makes, *enrolls]
    if listener == "tls":
        expected.append(uses[0])
    assert place.routes(listener, certificate, token) == expected


@pytest.mark.parametrize("kind", ["run", "issuer", "child", "bound", "enrolled", "operator's"])
@pytest.mark.parametrize("end", ["its own", "lockdown"])
def test_b8_the_end_of_each_kind_reaches_what_is_open(root, authority, upstream, mesh, tmp_path, kind, end):
    """In a tunnel, on a kept connection and on a stream: by its own revocation, and by a lockdown."""
    home = Place(tmp_path / "home", authority.path, [API])
    try:
        place = home.prepare(mesh, upstream)
        certificate, token, listener = None, None, "plain"
        config = home.text
        java = place.token("api", "java")
        if kind == "run":
            run = place.json("token", "mint", "--run", "r", "--use", "api")
            token, finish = run["token_value"], lambda: home.nexus("token", "revoke", run["token_id"])
        elif kind == "child":
            boss_id, boss = place.token("api", "boss", "--scopes", "use,mint")
            made = home.ask("plain", None, "POST", "/v1/tokens", "x", [f"X-Nexus-Token: {boss}"], '{"use": ["api"]}')
            token, finish = json.loads(made.body)["token_value"], lambda: home.nexus("token", "revoke", boss_id)
        elif kind == "bound":
            listener, finish = "bound", lambda: home.nexus("token", "revoke", java[0])
        elif kind == "enrolled":
            invited, certificate = enroll(home, tmp_path / "member")
            listener, finish = "tls", lambda: home.nexus("token", "revoke", invited["token_id"])
        elif kind == "issuer":
            without = config.replace(config[config.index("[[identity.issuer]]"):config.index("[[identity.certificate]]")], "")
            token, finish = place.jwt(), lambda: home.write_config(without)
        else:
            certificate = mesh.issue_client(f"ending-{end}", SPIFFE)
            listener, finish = "tls", lambda: home.write_config(config.replace("org/agent/*", "org/nobody/*"))
        if end == "lockdown":
            finish = lambda: home.nexus("lockdown")

        api = f"{API}:{upstream.port}"
        proxy = [f"Proxy-Authorization: {basic(token)}"] if token else []
        own = [f"X-Nexus-Token: {token}"] if token else []
        with home.wire(listener, certificate) as tunnel, home.wire(listener, certificate) as kept, \
                home.wire(listener, certificate) as stream:
            assert home.ask(None, None, "CONNECT", api, api, proxy, wire=tunnel).status == 200
            inner = secure(tunnel, home.interception)
            inner.send(f"GET /echo HTTP/1.1\r\nHost: {api}\r\n\r\n")
            assert inner.answer().status == 200
            assert home.ask(None, None, "GET", "/c/api/echo", "127.0.0.1", own, wire=kept).status == 200
            stream.send("\r\n".join(["GET /c/api/silent HTTP/1.1", "Host: 127.0.0.1", *own]) + "\r\n\r\n")
            assert stream.head().status == 200
            finish()
            began = time.monotonic()
            stream.socket.settimeout(10)
            try:
                while stream.fill():
                    pass
            except (OSError, ssl.SSLError) as error:
                assert not isinstance(error, TimeoutError), "the stream goes on"
            assert time.monotonic() - began < 7
            again = home.ask(None, None, "GET", "/c/api/echo", "127.0.0.1", own, wire=kept)
            assert again is None or (again.status, again.code) == (401, "auth_required")
            try:
                inner.send(f"GET /echo HTTP/1.1\r\nHost: {api}\r\n\r\n")
                answer = inner.answer()
            except OSError:
                answer = None
            assert answer is None or (answer.status, answer.code) == (403, "token_invalid")
    finally:
        upstream.gate("silent").set()
        upstream.gate("silent").clear()
        home.close()


class Inner(Wire):
    """TLS inside whatever the outer connection is."""

    def __init__(self, outer, ca):
        self.outer, self.buffer = outer.socket, b""
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=ca)
        self.inner = context.wrap_bio(self.incoming, self.outgoing, server_hostname=API)
        self.step(self.inner.do_handshake)

    def step(self, action):
        while True:
            try:
                result = action()
                self.outer.sendall(self.outgoing.read())
                return result
            except ssl.SSLWantReadError:
                self.outer.sendall(self.outgoing.read())
                received = self.outer.recv(65536)
                if not received:
                    return b""
                self.incoming.write(received)

    def send(self, data):
        self.step(lambda: self.inner.write(data.encode()))

    def fill(self):
        try:
            more = self.step(lambda: self.inner.read(65536))
        except (OSError, ssl.SSLError):
            more = b""
        self.buffer += more
        return bool(more)


def secure(wire, ca):
    return Inner(wire, ca)


def test_a_stalled_handshake_makes_room(tmp_path, authority, upstream, mesh):
    """Connections that never get through the handshake count, and are closed when there are too many."""
    home = Place(tmp_path / "home", authority.path, [API])
    stalled = []
    try:
        home.prepare(mesh, upstream, strangers=16)
        for _ in range(40):
            stalled.append(socket.create_connection(("127.0.0.1", home.port("tls")), 10))

        def closed():
            count = 0
            for one in stalled:
                one.settimeout(0.01)
                try:
                    count += not one.recv(1)
                except TimeoutError:
                    pass
                except ConnectionResetError:
                    count += 1
            return count

        # Long before the 10 s that a handshake may take.
        wait_for(lambda: closed() >= 24, 4, "room")
        assert closed() == 24
    finally:
        for one in stalled:
            one.close()
        home.close()


def test_nothing_shown_is_nothing_wrong(tmp_path, authority, upstream, mesh):
    """A bound listener whose agent has no token refuses, and counts no wrong token for it."""
    home = Place(tmp_path / "home", authority.path, [API])
    try:
        home.prepare(mesh, upstream, wrong=3)
        for _ in range(8):
            answer = home.ask("bound", None, "GET", "/c/api/echo", "127.0.0.1")
            assert (answer.status, answer.code) == (401, "auth_required")
        wrong = [home.ask("plain", None, "GET", "/c/api/echo", "x", [f"X-Nexus-Token: {WRONG}"]).status for _ in range(5)]
        assert wrong == [401, 401, 401, 429, 429]
    finally:
        home.close()


def test_what_a_bound_agent_acts_by(tmp_path, authority, upstream, mesh):
    """No run's token, no invitation, nothing that the agent made for a part of itself."""
    home = Place(tmp_path / "home", authority.path, [API])
    try:
        home.prepare(mesh, upstream)
        token_id, value = home.token("api", "java", "--scopes", "use,mint")
        time.sleep(1.1)
        narrow = ["--methods", "DELETE"]
        home.nexus("token", "mint", "--run", "r-1", "--name", "java", "--use", "api", *narrow)
        home.nexus("agent", "invite", "--name", "java", "--use", "api", *narrow)
        home.nexus("token", "create", "--name", "java", "--use", "api", "--scopes", "mint")
        made = home.ask("plain", None, "POST", "/v1/tokens", "x", [f"X-Nexus-Token: {value}"],
                        json.dumps({"use": ["api"], "methods": ["DELETE"]}))
        assert made.status == 201
        answer = home.ask("bound", None, "GET", "/c/api/echo", "127.0.0.1")
        assert answer.status == 200, answer
        [line] = wait_for(lambda: [line for line in home.audit() if line["event"] == "end" and line["agent"] == "java" and "/echo" in line.get("path", "")], 5,
                          "the line")
        assert line["token_id"] == token_id and "run" not in line
        home.nexus("token", "revoke", token_id)
        assert home.ask("bound", None, "GET", "/c/api/echo", "127.0.0.1").status == 401
    finally:
        home.close()


def test_limits_and_lockdown_hold_for_every_kind(tmp_path, authority, upstream, mesh):
    home = Place(tmp_path / "home", authority.path, [API])
    try:
        home.prepare(mesh, upstream)
        home.write_config(home.text + '[tokens]\nmax_expires = "10m"\n')
        for command in (["token", "create", "--expires", "1h"], ["agent", "invite", "--expires", "1h"],
                        ["agent", "invite", "--expires", "never"], ["token", "mint", "--run", "r", "--ttl", "15m"]):
            refused = home.nexus(*command, "--name", "a", "--use", "api", code=2)
            assert "10m at most" in refused.stderr, command
        invited = home.json("agent", "invite", "--name", "a", "--use", "api")
        [listed] = [one for one in home.json("token", "list") if one["token_id"] == invited["token_id"]]
        assert listed["kind"] == "certificate" and listed["expires_at"]
        home.nexus("token", "mint", "--run", "r", "--ttl", "10m", "--use", "api")
        home.nexus("lockdown")
        for command in (["token", "create"], ["agent", "invite"], ["token", "mint", "--run", "r", "--ttl", "1m"]):
            assert "locked down" in home.nexus(*command, "--name", "b", "--use", "api", code=4).stderr, command
        assert all(one["state"] == "revoked" for one in home.json("token", "list"))
    finally:
        home.close()


def test_explain_knows_certificates(place, tmp_path):
    url = f"https://{API}:{place.upstream.port}/echo"

    def explained(code=0):
        return json.loads(place.nexus("explain", "GET", url, "--agent", "told", "-o", "json", code=code).stdout)

    place.nexus("agent", "invite", "--name", "told", "--use", "api")
    assert "invitation" in explained(5)["reason"]
    invited, _ = enroll(place, tmp_path / "told", name="told")
    told = explained()
    assert told["decision"] == "allowed" and told["token_id"] == invited["token_id"]
    place.nexus("agent", "disable", "told")
    assert "disabled" in explained(5)["reason"]
    place.nexus("agent", "enable", "told")


@pytest.mark.parametrize(
    ("name", "make", "expected"),
    [
        ("P-256", lambda: ec.generate_private_key(ec.SECP256R1()), 200),
        ("P-384", lambda: ec.generate_private_key(ec.SECP384R1()), 200),
        ("P-521", lambda: ec.generate_private_key(ec.SECP521R1()), 400),
        ("secp256k1", lambda: ec.generate_private_key(ec.SECP256K1()), 400),
        ("RSA 2048", lambda: rsa.generate_private_key(65537, 2048), 200),
        ("RSA 1024", lambda: rsa.generate_private_key(65537, 1024), 400),
    ],
)
def test_keys_of_certificate_requests(place, name, make, expected, tmp_path):
    """What is issued works; what would not work is refused before the code is used up."""
    code = place.json("agent", "invite", "--name", "keys", "--use", "api")["code"]
    key = make()
    body = json.dumps({"code": code, "csr": request(key)})
    answer = place.ask("tls", None, "POST", "/v1/enroll", "127.0.0.1", body=body)
    assert answer.status == expected, answer
    if expected == 200:
        (tmp_path / "c").write_text(json.loads(answer.body)["certificate"])
        private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        (tmp_path / "k").write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
        assert place.ask("tls", (tmp_path / "c", tmp_path / "k"), "GET", "/c/api/echo", "127.0.0.1").status == 200
    else:
        again = place.ask("tls", None, "POST", "/v1/enroll", "127.0.0.1", body=json.dumps({"code": code, "csr": request()}))
        assert again.status == 200


def test_enrolments_of_a_connection_come_one_by_one(place):
    """Before the code is known a body is a stranger's: h2 has many streams, and room for one such body."""
    import h2.config
    import h2.connection
    import h2.events

    with place.wire("tls", None, "h2") as wire:
        client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        client.initiate_connection()
        for _ in range(20):
            number = client.get_next_available_stream_id()
            client.send_headers(number, [
                (":method", "POST"), (":scheme", "https"), (":authority", f"127.0.0.1:{place.port('tls')}"),
                (":path", "/v1/enroll"),
            ])
            client.send_data(number, b'{"code":')
        wire.send(client.data_to_send())
        refused = 0
        while refused < 19:
            received = wire.socket.recv(65536)
            assert received
            for event in client.receive_data(received):
                if isinstance(event, h2.events.ResponseReceived):
                    assert dict(event.headers)[":status"] == "429"
                    refused += 1
            wire.send(client.data_to_send())


def test_run_beside_listeners_that_few_programs_can_use(tmp_path, authority, upstream, mesh):
    """TLS, a Unix socket and another agent's listener are no proxy for what `nexus run` starts: it brings its own."""
    home = Place(tmp_path / "home", authority.path, [API])
    try:
        home.prepare(mesh, upstream)
        home.servers[-1].stop()
        home.write_config(home.text.replace('[[server.listener]]\naddress = "127.0.0.1:0"\n[[', "[["))
        home.up(listen=False)
        url = f"https://{API}:{upstream.port}/echo"
        ran = home.run("api", ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", url])
        assert ran.ok().text == "200"
    finally:
        home.close()


@pytest.mark.parametrize("listener", ["plain", "tls", "unix"])
def test_b18_each_request_shows_its_proof(place, proofs, listener):
    """On a kept connection, one behind the other and sent at once: a token is good for its own request."""
    api = f"{API}:{place.upstream.port}"
    token = proofs["opaque"][1]
    with place.wire(listener) as wire:
        for method, target, host, field, refused in (
            ("GET", "/c/api/echo", "127.0.0.1", f"X-Nexus-Token: {token}", NO_KEY),
            ("GET", f"https://{api}/echo", api, f"Proxy-Authorization: {basic(token)}", NO_PROXY),
        ):
            head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n"
            both = f"{head}{field}\r\n\r\n{head}\r\n{head}{field}\r\n\r\n"
            wire.send(both)
            told = [(answer.status, answer.code) for answer in (wire.answer(), wire.answer(), wire.answer())]
            assert told == [OK, refused, OK], target
        smuggled = "GET /c/api/echo HTTP/1.1\r\nHost: x\r\n\r\n"
        wire.send(f"POST /c/api/echo HTTP/1.1\r\nHost: x\r\nX-Nexus-Token: {token}\r\nContent-Length: {len(smuggled)}\r\n\r\n{smuggled}")
        assert wire.answer("POST").status == 200
        wire.send("GET /c/api/echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert wire.answer().status == 401
        assert wire.is_closed()


def test_b9_a_jwt_stays_in_its_tenant(tmp_path, authority, upstream, mesh):
    """Names of a rule are those of the caller's tenant and namespace, now; ids of others are unknown there."""
    home = Place(tmp_path / "home", authority.path, [API])
    try:
        home.prepare(mesh, upstream)
        [ours] = [one["id"] for one in home.json("connection", "list")]
        rule = f'rule = [{{ use = ["api", "late", "{ours}"] }}]'
        mapped = home.text.replace('rule = [{ use = ["api"] }]', 'tenant = "{tenant}"\n' + rule, 1)
        home.write_config(mapped)

        def told(tenant, connection="api"):
            answer = home.ask("plain", None, "GET", f"/c/{connection}/echo", "x", [f"X-Nexus-Token: {home.jwt(tenant=tenant)}"])
            return answer.status, answer.code

        wait_for(lambda: told("default") == OK and told("other") == NONE, 5, "the rule")
        for tenant in ("other", "nosuch"):
            assert [told(tenant, name) for name in ("api", ours, "nosuch")] == [NONE] * 3
        for bad in ("", "a/b", "a\nb", 5, None, ["default"], "default "):
            assert told(bad) == NO_KEY, bad
        # A name that is made later, goes, and comes again.
        for _ in range(2):
            assert told("default", "late") == NONE
            home.register("late", f"https://{API}:{upstream.port}", secret=canary("late"))
            assert told("default", "late") == OK and told("other", "late") == NONE
            home.nexus("connection", "delete", "late")
        assert told("default", "late") == NONE
    finally:
        home.close()
