"""Listeners by TLS, Unix socket and bound to an agent, client certificates and enrolment, with real clients (B11 to B13)."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
import requests
from cryptography.x509.oid import ExtendedKeyUsageOID
from nexustest.ca import Authority
from nexustest.home import Home, binary, canary, clean_environment, wait_for
from nexustest.hosts import API
from nexustest.wire import Wire, basic

JAVA = Path(__file__).parent / "java" / "Probe.java"


@pytest.fixture(scope="module")
def mesh(root) -> Authority:
    """The CA of an operator's own certificates."""
    directory = root / "mesh"
    directory.mkdir()
    return Authority(directory, "mesh")


@pytest.fixture(scope="module")
def secret() -> str:
    return canary("listeners")


CONFIG = """
[[identity.certificate]]
name = "mesh"
agent = "{/path/1}"
rule = [{ when = { uri = "spiffe://example.org/agent/*" }, use = ["api"] }]
[[server.listener]]
address = "127.0.0.1:0"
[[server.listener]]
address = "127.0.0.1:0"
tls = { cert = "tls/server.pem", key = "tls/server.key", client_ca = "ca/agents.pem" }
[[server.listener]]
address = "127.0.0.1:0"
tls = { cert = "tls/server.pem", key = "tls/server.key", client_ca = "MESH" }
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


class Place(Home):
    """A home with every kind of listener."""

    def url(self, index: int) -> str:
        return self.servers[-1].urls[index]

    def port(self, index: int) -> int:
        return int(self.url(index).rsplit(":", 1)[1])

    @property
    def interception(self) -> str:
        return str(self.path / "ca" / "ca.pem")


PLAIN, TLS, MESH, BOUND = range(4)


@pytest.fixture(scope="module")
def place(root, authority, upstream, mesh, secret):
    home = Place(root / "listeners", authority.path, [API])
    home.register("api", f"https://{API}:{upstream.port}", secret=secret)
    home.nexus("ca", "issue", "127.0.0.1", "proxy.test", "--out", str(home.path / "tls"))
    home.configure(CONFIG.replace("MESH", str(mesh.path)))
    assert home.nexus("config", "check").returncode == 0
    home.up(listen=False)
    yield home
    home.close()


@pytest.fixture(scope="module")
def token(place) -> str:
    return place.token("api", "tokened")[1]


@pytest.fixture(scope="module")
def java_token(place) -> tuple[str, str]:
    return place.token("api", "java")


@pytest.fixture
def url(upstream, request) -> str:
    return f"https://{API}:{upstream.port}/echo?case={case(request)}"


def case(request) -> str:
    return request.node.name.translate(str.maketrans("[]", "()"))


def arrived(upstream, request, secret):
    [seen] = [seen for seen in upstream.requests if unquote(seen.query) == f"case={case(request)}"]
    assert seen.one("authorization") == f"Bearer {secret}"
    return seen


def base(place, index, request) -> str:
    return f"{place.url(index)}/c/api/echo?case={case(request)}"


def run(*command, code: int | None = 0, env: dict | None = None) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True, text=True, timeout=120, env=clean_environment(Path("/nonexistent")) | (env or {}),
    )
    if code is not None:
        assert done.returncode == code, f"exit {done.returncode}: {done.stdout}{done.stderr}"
    return done


def curl(place, *arguments, code: int | None = 0) -> subprocess.CompletedProcess:
    return run("curl", "-sS", "-m", "20", "--cacert", place.interception, "--proxy-cacert", place.interception, *arguments,
               code=code)


def enrolled(place, directory: Path, name: str = "enrolled", *arguments: str) -> dict:
    """Invites and enrolls an agent; gives what was printed, its invitation and the directory."""
    invited = place.json("agent", "invite", "--name", name, "--use", "api", *arguments)
    done = enroll(place, directory, invited["code"])
    return json.loads(done.stdout) | {"invited": invited, "pem": directory / "agent.pem", "key": directory / "agent.key"}


def enroll(place, directory: Path, code: str, *arguments: str, exit: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [str(binary()), "agent", "enroll", "--server", place.url(TLS), "--code-stdin", "--out", str(directory),
         "--ca", place.interception, "-o", "json", *arguments],
        input=code + "\n", capture_output=True, text=True, timeout=60, env=clean_environment(directory.parent),
    )
    assert done.returncode == exit, f"{done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="module")
def member(place, root) -> dict:
    return enrolled(place, root / "member", "member")


# TLS listeners


@pytest.mark.parametrize("flag", ["--http1.1", "--http2"])
@pytest.mark.parametrize("host", ["127.0.0.1", "proxy.test"])
def test_base_url_over_tls(place, token, upstream, secret, flag, host, request):
    target = base(place, TLS, request).replace("127.0.0.1", host)
    done = curl(place, flag, "--resolve", f"proxy.test:{place.port(TLS)}:127.0.0.1", "-H", f"Authorization: Bearer {token}",
                "-w", "\n%{http_version}", target)
    body, version = done.stdout.rsplit("\n", 1)
    assert version == ("2" if flag == "--http2" else "1.1")
    assert secret not in done.stdout
    arrived(upstream, request, secret)
    assert json.loads(body)["method"] == "GET"


@pytest.mark.parametrize("flag", ["--http1.1", "--http2"])
def test_call_over_tls(place, token, flag):
    done = curl(place, flag, "-H", f"X-Nexus-Token: {token}", "-d", json.dumps({"connection_id": "api", "url": "/echo"}),
                f"{place.url(TLS)}/v1/call")
    assert json.loads(done.stdout)["status_code"] == 200


@pytest.mark.parametrize("flag", ["--http1.1", "--http2"])
def test_connect_through_a_tls_proxy(place, token, upstream, secret, flag, url, request):
    done = curl(place, flag, "--proxy", place.url(TLS).replace("https://", f"https://x:{token}@"), url)
    assert secret not in done.stdout + done.stderr
    arrived(upstream, request, secret)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_1_1_is_refused(place):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", place.port(TLS)), 10) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain)


def handshake(place, index, certificate=None, key=None, alpn=("http/1.1",)) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=place.interception)
    context.set_alpn_protocols(list(alpn))
    if certificate:
        context.load_cert_chain(certificate, key)
    plain = socket.create_connection(("127.0.0.1", place.port(index)), 10)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_absolute_form_https_over_tls(place, token, upstream, secret, url, request):
    with handshake(place, TLS) as stream:
        stream.sendall(
            f"GET {url} HTTP/1.1\r\nHost: {API}:{upstream.port}\r\nProxy-Authorization: {basic(token)}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: stream.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200"), answer
    arrived(upstream, request, secret)


class H2:
    """An h2 connection to a TLS listener."""

    def __init__(self, stream: ssl.SSLSocket):
        assert stream.selected_alpn_protocol() == "h2"
        self.stream = stream
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.connection.initiate_connection()
        self.data: dict[int, bytes] = {}
        self.heads: dict[int, dict] = {}
        self.ended: set[int] = set()

    def send(self, headers, end=True) -> int:
        number = self.connection.get_next_available_stream_id()
        self.connection.send_headers(number, headers, end_stream=end)
        self.flush()
        return number

    def flush(self):
        self.stream.sendall(self.connection.data_to_send())

    def until(self, done):
        while not done():
            received = self.stream.recv(65536)
            assert received, "the connection ended"
            for event in self.connection.receive_data(received):
                number = getattr(event, "stream_id", None)
                if isinstance(event, h2.events.ResponseReceived):
                    self.heads[number] = dict(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    self.data[number] = self.data.get(number, b"") + event.data
                    self.connection.acknowledge_received_data(event.flow_controlled_length, number)
                elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                    self.ended.add(number)
            self.flush()


def tunnelled(h2c: H2, number: int, context: ssl.SSLContext, request: bytes) -> bytes:
    """TLS and one HTTP/1.1 request inside an h2 stream."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    inner = context.wrap_bio(incoming, outgoing, server_hostname=API)

    def pump():
        if outgoing.pending:
            h2c.connection.send_data(number, outgoing.read())
            h2c.flush()

    def feed():
        h2c.until(lambda: h2c.data.get(number) or number in h2c.ended)
        incoming.write(h2c.data.pop(number, b""))
        if number in h2c.ended:
            incoming.write_eof()

    def step(action):
        while True:
            try:
                result = action()
                pump()
                return result
            except ssl.SSLWantReadError:
                pump()
                feed()

    step(inner.do_handshake)
    step(lambda: inner.write(request))
    answer = b""
    while not answer.endswith(b"}") or b"\r\n\r\n" not in answer:
        answer += step(lambda: inner.read(65536))
    return answer


def test_connect_over_h2(place, token, upstream, secret, request):
    """RFC 9113 section 8.5; two tunnels and an ordinary request share a connection."""
    with handshake(place, TLS, alpn=("h2",)) as stream:
        client = H2(stream)
        target = f"{API}:{upstream.port}"
        numbers = [
            client.send([(":method", "CONNECT"), (":authority", target), ("proxy-authorization", basic(token))], end=False)
            for _ in range(2)
        ]
        client.until(lambda: all(number in client.heads for number in numbers))
        assert [client.heads[number][":status"] for number in numbers] == ["200", "200"]
        context = ssl.create_default_context(cafile=place.interception)
        for number in numbers:
            head = f"GET /echo?case={case(request)}{number} HTTP/1.1\r\nHost: {target}\r\n\r\n"
            answer = tunnelled(client, number, context, head.encode())
            assert answer.startswith(b"HTTP/1.1 200"), answer
        other = client.send([
            (":method", "GET"), (":scheme", "https"), (":authority", f"127.0.0.1:{place.port(TLS)}"),
            (":path", f"/c/api/echo?case={case(request)}"), ("x-nexus-token", token),
        ])
        client.until(lambda: other in client.ended)
        assert client.heads[other][":status"] == "200"
        assert secret.encode() not in client.data[other]
    arrived(upstream, request, secret)
    tunnelled_requests = [seen for seen in upstream.requests if unquote(seen.query).startswith(f"case={case(request)}")]
    assert len(tunnelled_requests) == 3
    assert {seen.one("authorization") for seen in tunnelled_requests} == {f"Bearer {secret}"}


def test_connect_over_h2_is_refused_without_a_token(place, upstream):
    with handshake(place, TLS, alpn=("h2",)) as stream:
        client = H2(stream)
        number = client.send([(":method", "CONNECT"), (":authority", f"{API}:{upstream.port}")], end=False)
        client.until(lambda: number in client.heads)
        assert client.heads[number][":status"] == "407"
        assert client.heads[number]["x-nexus-error"] == "auth_required"


def test_forwarding_over_h2(place, token, upstream, secret, request):
    """Another host than the server's own is one to go to, as in absolute form."""
    with handshake(place, TLS, alpn=("h2",)) as stream:
        client = H2(stream)
        number = client.send([
            (":method", "GET"), (":scheme", "https"), (":authority", f"{API}:{upstream.port}"),
            (":path", f"/echo?case={case(request)}"), ("proxy-authorization", basic(token)),
        ])
        client.until(lambda: number in client.ended)
        assert client.heads[number][":status"] == "200", client.heads
    arrived(upstream, request, secret)


def test_h2c_stays_refused(place, token):
    with Wire(place.port(PLAIN)) as wire:
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        answer = wire.answer()
        assert answer is None or answer.status == 400


def test_certificates_are_reloaded_under_open_connections(place, token, root, request, upstream):
    """A new certificate is shown within two seconds; a connection of before goes on."""
    tls = place.path / "tls"
    old = {name: (tls / name).read_bytes() for name in ("server.pem", "server.key")}

    def shown() -> bytes:
        with handshake(place, TLS) as stream:
            return stream.getpeercert(binary_form=True)

    before = shown()
    head = f"GET /c/api/echo HTTP/1.1\r\nHost: x\r\nX-Nexus-Token: {token}\r\n\r\n".encode()
    with handshake(place, TLS) as kept:
        kept.sendall(head)
        assert kept.recv(65536).startswith(b"HTTP/1.1 200")
        place.nexus("ca", "issue", "127.0.0.1", "proxy.test", "--out", str(root / "new-tls"))
        for name in old:
            (tls / name).write_bytes((root / "new-tls" / name).read_bytes())
        wait_for(lambda: shown() != before, 10, "the new certificate")
        # Half a change is none: the key alone does not fit.
        after = shown()
        (tls / "server.key").write_bytes(old["server.key"])
        wait_for(lambda: "is not the key of" in place.servers[-1].messages(), 10, "a word about the key")
        assert shown() == after
        (tls / "server.key").write_bytes((root / "new-tls" / "server.key").read_bytes())
        kept.sendall(head)
        received = kept.recv(65536)
        while b"HTTP/1.1 200" not in received:
            more = kept.recv(65536)
            assert more
            received += more


def test_config_check_tells_every_problem_of_files(place, tmp_path, mesh):
    good = place.path / "tls"
    other = mesh.issue("127.0.0.1")
    (tmp_path / "empty.pem").write_text("")
    text = "".join(
        f'[[server.listener]]\naddress = "127.0.0.1:{9000 + number}"\ntls = {{ {tls} }}\n'
        for number, tls in enumerate([
            f'cert = "{tmp_path}/none.pem", key = "{tmp_path}/none.key"',
            f'cert = "{good}/server.pem", key = "{other[1]}"',
            f'cert = "{good}/server.pem", key = "{good}/server.key", client_ca = "{tmp_path}/empty.pem"',
            f'cert = "{good}/server.pem", key = "{good}/server.key", client_ca = "{place.interception}"',
        ])
    )
    (tmp_path / "new.toml").write_text(text)
    done = place.nexus("config", "check", str(tmp_path / "new.toml"), "-o", "json", code=8)
    found = [(one["line"], one["key"], one["message"]) for one in json.loads(done.stdout)["problems"]]
    assert [(line, key) for line, key, _ in found] == [
        (3, "server.listener[0].tls.cert"), (3, "server.listener[0].tls.key"), (6, "server.listener[1].tls.key"),
        (9, "server.listener[2].tls.client_ca"), (12, "server.listener[3].tls.client_ca"),
    ]
    assert "is not the key of the first certificate" in found[2][2]
    assert "interception CA" in found[4][2]


# Unix sockets


def test_unix_socket(place, token, upstream, secret, request):
    path = place.path / "plain.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    done = curl(place, "--unix-socket", path, "-H", f"Authorization: Bearer {token}",
                f"http://localhost/c/api/echo?case={case(request)}")
    assert json.loads(done.stdout)["method"] == "GET"
    arrived(upstream, request, secret)
    done = curl(place, "--unix-socket", path, "-o", "/dev/null", "-w", "%{http_code}", "http://localhost/c/api/echo")
    assert done.stdout == "401"


def test_unix_sockets_come_and_go(root, authority):
    """A dead one is replaced, a file or a live one never; it goes with the server."""
    home = Place(root / "sockets", authority.path, [API], '[server]\nlisten = ["unix:run/a.sock"]')
    (home.path / "run").mkdir()
    path = home.path / "run" / "a.sock"
    try:
        server = home.up(listen=False)
        assert server.urls == [f"unix:{path}"]
        server.process.kill()
        server.process.wait(10)
        assert path.is_socket(), "it was killed and left it"
        server = home.up(listen=False)
        done = run(binary(), "up", "--admin", "127.0.0.1:0", env=home.environment, code=6)
        assert "a.sock" in done.stderr
        assert server.stop() == 0
        assert not path.exists()
        path.write_text("mine")
        done = run(binary(), "up", "--admin", "127.0.0.1:0", env=home.environment, code=1)
        assert "no socket" in done.stderr and path.read_text() == "mine"
    finally:
        home.close()


# Listeners bound to an agent


def test_bound_listener_without_a_token(place, java_token, upstream, secret, url, request):
    curl(place, "--proxy", place.url(BOUND), url)
    arrived(upstream, request, secret)


def test_bound_listener_base_url_and_call(place, java_token, upstream, secret, request):
    curl(place, "-f", base(place, BOUND, request))
    arrived(upstream, request, secret)
    done = curl(place, "-d", json.dumps({"connection_id": "api", "url": "/echo"}), f"{place.url(BOUND)}/v1/call")
    assert json.loads(done.stdout)["ok"]
    done = curl(place, "--unix-socket", place.path / "bound.sock", "http://any.name/c/api/echo")
    assert json.loads(done.stdout)["method"] == "GET"


def status(place, *arguments) -> str:
    return curl(place, "-o", "/dev/null", "-w", "%{http_code} %header{x-nexus-error}", *arguments).stdout


def test_a_token_that_is_given_has_to_be_valid(place, java_token, url):
    wrong = "nxt_" + "A" * 43 + "2cNllg"
    done = curl(place, "--proxy", place.url(BOUND).replace("http://", f"http://x:{wrong}@"), url, code=None)
    assert "407" in done.stderr
    assert status(place, "-H", f"X-Nexus-Token: {wrong}", f"{place.url(BOUND)}/c/api/echo").startswith("401")


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("Host: attacker.test", "421 misdirected"),
        ("Origin: https://attacker.test", "403 denied"),
        ("Sec-Fetch-Site: cross-site", "403 denied"),
        ("Host: localhost", "200 "),
    ],
)
def test_a_web_page_cannot_use_a_bound_listener(place, java_token, field, expected):
    assert status(place, "-H", field, f"{place.url(BOUND)}/c/api/echo") == expected


def test_java(place, java_token, upstream, secret, url, request):
    """Java's client cannot authenticate to a proxy by variables: it gets a listener of its own."""
    told = json.loads(place.nexus("env", "--shell", "json", "--use", "api").stdout)
    trust = re.findall(r"-Djavax\.net\.ssl\.trustStore\S+", told["JAVA_TOOL_OPTIONS"])
    assert trust, "keytool made a trust store"
    done = run("java", *trust, "-Dhttps.proxyHost=127.0.0.1", f"-Dhttps.proxyPort={place.port(BOUND)}", JAVA, url)
    assert done.stdout.startswith("200 "), done.stdout + done.stderr
    assert secret not in done.stdout + done.stderr
    seen = arrived(upstream, request, secret)
    assert seen.method == "POST" and seen.body == 8


def test_a_bound_agent_ends_with_its_tokens_in_open_tunnels_too(place, java_token, upstream):
    context = ssl.create_default_context(cafile=place.interception)
    head = f"GET /echo HTTP/1.1\r\nHost: {API}:{upstream.port}\r\n\r\n".encode()
    with Wire(place.port(BOUND)) as wire:
        wire.send(f"CONNECT {API}:{upstream.port} HTTP/1.1\r\nHost: {API}:{upstream.port}\r\n\r\n")
        assert wire.answer("CONNECT").status == 200
        wire.socket = context.wrap_socket(wire.socket, server_hostname=API)
        wire.send(head)
        assert wire.answer().status == 200
        place.nexus("agent", "disable", "java")
        try:
            wire.send(head)
            answer = wire.answer()
            assert (answer.status, answer.code) == (403, "token_invalid")
            assert status(place, f"{place.url(BOUND)}/c/api/echo") == "401 auth_required"
            assert status(place, "-H", f"X-Nexus-Token: {java_token[1]}", f"{place.url(PLAIN)}/c/api/echo").startswith("401")
            [listed] = [one for one in place.json("agent", "list") if one["agent"] == "java"]
            assert listed["state"] == "disabled"
        finally:
            place.nexus("agent", "enable", "java")
    assert status(place, f"{place.url(BOUND)}/c/api/echo").startswith("200")
    assert status(place, "-H", f"X-Nexus-Token: {java_token[1]}", f"{place.url(PLAIN)}/c/api/echo").startswith("200")


# Enrolment and client certificates


def test_an_enrolled_agent_by_proxy(place, member, upstream, secret, url, request):
    done = curl(place, "--proxy", place.url(TLS), "--proxy-cert", member["pem"], "--proxy-key", member["key"], url)
    assert secret not in done.stdout
    arrived(upstream, request, secret)
    line = [line for line in place.audit() if line.get("host") == API and line.get("agent") == "member"][-1]
    assert line["token_id"] == member["token_id"]


@pytest.mark.parametrize("client", ["requests", "httpx", "httpx-h2"])
def test_an_enrolled_agent_by_base_url(place, member, upstream, secret, client, request):
    pair = (str(member["pem"]), str(member["key"]))
    target = base(place, TLS, request)
    if client == "requests":
        answer = requests.post(target, json={"a": 1}, cert=pair, verify=place.interception, timeout=20)
    else:
        context = ssl.create_default_context(cafile=place.interception)
        context.load_cert_chain(*pair)
        with httpx.Client(verify=context, http2=client == "httpx-h2", trust_env=False) as session:
            answer = session.post(target, json={"a": 1})
            assert answer.http_version == ("HTTP/2" if client == "httpx-h2" else "HTTP/1.1")
    assert answer.status_code == 200, answer.text
    assert secret not in answer.text
    arrived(upstream, request, secret)


def test_what_is_written_and_what_is_not(place, member, tmp_path):
    directory = member["pem"].parent
    assert (directory / "agent.key").stat().st_mode & 0o777 == 0o600
    assert (directory / "ca.pem").read_text() == Path(place.interception).read_text()
    text = subprocess.run(["openssl", "x509", "-noout", "-text", "-in", member["pem"]], capture_output=True, text=True).stdout
    assert f":{member['token_id']}" in text and "URI:urn:nexus:" in text
    assert "TLS Web Client Authentication" in text and "TLS Web Server Authentication" not in text
    begin, end = re.findall(r"Not (?:Before|After) ?: (.*)", text)
    assert 23.9 * 3600 < ssl.cert_time_to_seconds(end) - ssl.cert_time_to_seconds(begin) < 24.2 * 3600
    code = member["invited"]["code"].encode()
    key = (directory / "agent.key").read_bytes().splitlines()[1]
    for path in place.path.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert code not in path.read_bytes() and key not in path.read_bytes(), path


def test_enrolment_is_on_record(place, member):
    lines = [line for line in place.audit() if line.get("way") == "enroll" and line.get("token_id") == member["token_id"]]
    assert [line["event"] for line in lines] == ["start", "end"]
    assert lines[1]["agent"] == "member" and lines[1]["status"] == 200
    assert member["invited"]["code"] not in json.dumps(place.audit())


def test_a_code_works_once_and_for_its_time(place, tmp_path, member):
    done = enroll(place, tmp_path / "again", member["invited"]["code"], exit=4)
    assert "401" in done.stderr and not (tmp_path / "again" / "agent.key").exists()
    assert not (tmp_path / "again" / "agent.pem").exists()
    brief = place.json("agent", "invite", "--name", "late", "--use", "api", "--code-ttl", "1s")
    time.sleep(1.1)
    enroll(place, tmp_path / "late", brief["code"], exit=4)
    enroll(place, tmp_path / "typo", member["invited"]["code"][:-1] + "_", exit=2)


def test_an_existing_key_is_kept_and_the_code_too(place, tmp_path):
    invited = place.json("agent", "invite", "--name", "kept", "--use", "api")
    directory = tmp_path / "agent"
    directory.mkdir()
    (directory / "agent.key").write_text("mine")
    enroll(place, directory, invited["code"], exit=6)
    assert (directory / "agent.key").read_text() == "mine"
    enroll(place, tmp_path / "other", invited["code"])


def test_without_the_right_ca_nothing_is_sent(place, tmp_path, mesh):
    invited = place.json("agent", "invite", "--name", "careful", "--use", "api")
    for ca in ([], ["--ca", str(mesh.path)]):
        done = subprocess.run(
            [str(binary()), "agent", "enroll", "--server", place.url(TLS), "--code-stdin", "--out", str(tmp_path / "a"), *ca],
            input=invited["code"], capture_output=True, text=True, env=clean_environment(tmp_path),
        )
        assert done.returncode == 7, done.stderr
    enroll(place, tmp_path / "b", invited["code"])


def post(place, path, body, **more):
    return requests.post(f"{place.url(TLS)}{path}", json=body, verify=place.interception, timeout=20, **more)


def openssl_request(directory: Path, *arguments: str) -> str:
    """A certificate request that asks for everything."""
    config = directory / "openssl.cnf"
    config.write_text(
        "[req]\ndistinguished_name = dn\nreq_extensions = ext\nprompt = no\n[dn]\nCN = root\nO = urn:nexus:x:tok_1\n"
        "[ext]\nbasicConstraints = critical, CA:true\nkeyUsage = keyCertSign\nextendedKeyUsage = serverAuth\n"
        "subjectAltName = URI:urn:nexus:x:tok_1, DNS:api.example.test\n1.2.3.4 = ASN1:UTF8String:x\n"
    )
    subprocess.run(
        ["openssl", "req", "-new", "-nodes", "-keyout", directory / "k", "-out", directory / "r", "-config", config,
         *(arguments or ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"))],
        check=True, capture_output=True,
    )
    return (directory / "r").read_text()


def test_only_the_key_of_a_request_counts(place, tmp_path):
    invited = place.json("agent", "invite", "--name", "asker", "--use", "api")
    answer = post(place, "/v1/enroll", {"code": invited["code"], "csr": openssl_request(tmp_path)})
    assert answer.status_code == 200, answer.text
    (tmp_path / "c").write_text(answer.json()["certificate"])
    text = subprocess.run(["openssl", "x509", "-noout", "-text", "-in", tmp_path / "c"], capture_output=True, text=True).stdout
    assert "CA:TRUE" not in text and "api.example.test" not in text and "tok_1" not in text
    assert "Subject: CN = asker" in text and "TLS Web Server" not in text
    curl(place, "-f", "--cert", tmp_path / "c", "--key", tmp_path / "k", f"{place.url(TLS)}/c/api/echo")


def test_bad_requests_do_not_use_up_the_code(place, tmp_path):
    invited = place.json("agent", "invite", "--name", "clumsy", "--use", "api")
    code, csr = invited["code"], openssl_request(tmp_path)
    lines = csr.splitlines()
    middle = lines[3]
    lines[3] = ("B" if middle[0] != "B" else "C") + middle[1:]
    weak = openssl_request(tmp_path, "-newkey", "rsa:1024")
    for name, body, expected in [
        ("no csr", {"code": code}, 400),
        ("nonsense", {"code": code, "csr": "x"}, 400),
        ("forged", {"code": code, "csr": "\n".join(lines)}, 400),
        ("weak", {"code": code, "csr": weak}, 400),
        ("too long", {"code": code, "csr": csr, "ttl_seconds": 366 * 86_400}, 400),
        ("negative", {"code": code, "csr": csr, "ttl_seconds": -1}, 400),
        ("other fields", {"code": code, "csr": csr, "agent": "root"}, 400),
        ("no code", {"csr": csr}, 401),
        ("a token", {"code": place.token("api")[1], "csr": csr}, 401),
        ("wrong code", {"code": "nxe_" + "A" * 49, "csr": csr}, 401),
        ("renewal without a certificate", None, 401),
    ]:
        path = "/v1/enroll" if body else "/v1/enroll/renew"
        answer = post(place, path, body or {"csr": csr})
        assert answer.status_code == expected, (name, answer.text)
        assert code not in answer.text
    assert post(place, "/v1/enroll", {"code": code, "csr": csr}).status_code == 200


def test_no_enrolment_in_clear(place, token, tmp_path):
    invited = place.json("agent", "invite", "--name", "clear", "--use", "api")
    body = {"code": invited["code"], "csr": openssl_request(tmp_path)}
    assert requests.post(f"{place.url(PLAIN)}/v1/enroll", json=body, timeout=10).status_code == 404
    enroll(place, tmp_path / "a", invited["code"])


def test_a_code_is_no_token(place):
    invited = place.json("agent", "invite", "--name", "early", "--use", "api")
    for field in (f"X-Nexus-Token: {invited['code']}", f"Authorization: Bearer {invited['code']}"):
        assert status(place, "-H", field, f"{place.url(PLAIN)}/c/api/echo").startswith("401")


def renew(directory: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess:
    return run(binary(), "agent", "renew", "--dir", directory, "-o", "json", *arguments, code=code,
               env={"HOME": str(directory)})


def test_renewal(place, tmp_path):
    agent = enrolled(place, tmp_path / "agent", "renewing", "--expires", "2h")
    assert agent["not_after"] == agent["invited"]["expires_at"], "no certificate outlives its record"
    before = agent["pem"].read_text()
    key = agent["key"].read_text()
    renew(tmp_path / "agent", "--ttl", "10m")
    after = agent["pem"].read_text()
    assert after != before and agent["key"].read_text() == key
    for pem in (before, after):
        (tmp_path / "c").write_text(pem)
        curl(place, "-f", "--cert", tmp_path / "c", "--key", agent["key"], f"{place.url(TLS)}/c/api/echo")
    place.nexus("token", "revoke", agent["token_id"])
    renew(tmp_path / "agent", code=4)
    assert status(place, "--cert", agent["pem"], "--key", agent["key"], f"{place.url(TLS)}/c/api/echo").startswith("401")


def test_renewal_by_watching(place, tmp_path):
    directory = tmp_path / "agent"
    invited = place.json("agent", "invite", "--name", "watching", "--use", "api")
    enroll(place, directory, invited["code"], "--ttl", "60s")
    # Five minutes before it was made it began, so two thirds are over.
    before = (directory / "agent.pem").read_text()
    process = subprocess.Popen(
        [str(binary()), "agent", "renew", "--dir", str(directory), "--watch"], env=clean_environment(tmp_path),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )
    try:
        wait_for(lambda: (directory / "agent.pem").read_text() != before, 20, "a renewal")
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        process.stderr.close()


def resumed(place, context, session, request_bytes: bytes):
    with socket.create_connection(("127.0.0.1", place.port(TLS)), 10) as plain:
        with context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as stream:
            stream.sendall(request_bytes)
            answer = stream.recv(65536)
            return answer, stream.session, stream.session_reused


def test_b11_a_resumed_session_is_checked_again(place, tmp_path):
    """Once revoked: in the open tunnel, on the kept connection, and by resumption."""
    agent = enrolled(place, tmp_path / "agent", "resuming")
    context = ssl.create_default_context(cafile=place.interception)
    context.load_cert_chain(agent["pem"], agent["key"])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    head = b"GET /c/api/echo HTTP/1.1\r\nHost: x\r\n\r\n"
    answer, session, _ = resumed(place, context, None, head)
    assert answer.startswith(b"HTTP/1.1 200")
    with handshake(place, TLS, agent["pem"], agent["key"]) as kept:
        kept.sendall(head)
        assert kept.recv(65536).startswith(b"HTTP/1.1 200")
        place.nexus("token", "revoke", agent["token_id"])
        kept.settimeout(5)
        received = b""
        kept.sendall(head)
        while b"HTTP/1.1 401" not in received:
            more = kept.recv(65536)
            assert more, received
            received += more
    answer, _, reused = resumed(place, context, session, head)
    assert reused, "the session was resumed"
    assert answer.startswith(b"HTTP/1.1 401"), answer


def test_disabling_an_agent_reaches_its_certificate(place, tmp_path):
    agent = enrolled(place, tmp_path / "agent", "disabled one")
    target = f"{place.url(TLS)}/c/api/echo"
    pair = ("--cert", agent["pem"], "--key", agent["key"])
    assert status(place, *pair, target).startswith("200")
    place.nexus("agent", "disable", "disabled one")
    assert status(place, *pair, target).startswith("401")
    renew(tmp_path / "agent", code=4)
    place.nexus("agent", "enable", "disabled one")
    assert status(place, *pair, target).startswith("200")


def outcome(place, index, certificate: Path, key: Path) -> str:
    """`refused` in the handshake, or the status of a request."""
    try:
        with handshake(place, index, certificate, key) as stream:
            stream.sendall(b"GET /c/api/echo HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = stream.recv(65536)
            return answer.split(b" ")[1].decode() if answer else "refused"
    except (ssl.SSLError, ConnectionError):
        return "refused"


SPIFFE = "spiffe://example.org/agent/mesh-agent"


def test_an_operators_certificate(place, mesh, upstream, secret, request, url):
    certificate, key = mesh.issue_client("good", SPIFFE)
    done = curl(place, "--cert", certificate, "--key", key, base(place, MESH, request))
    assert json.loads(done.stdout)["method"] == "GET"
    arrived(upstream, request, secret)
    curl(place, "--proxy", place.url(MESH), "--proxy-cert", certificate, "--proxy-key", key, f"{url}-proxy")
    line = [line for line in place.audit() if line.get("issuer") == "mesh"][-1]
    assert line["agent"] == "mesh-agent" and "token_id" not in line
    place.nexus("agent", "disable", "mesh-agent")
    assert outcome(place, MESH, certificate, key) == "401"
    place.nexus("agent", "enable", "mesh-agent")
    assert outcome(place, MESH, certificate, key) == "200"


@pytest.mark.parametrize(
    ("name", "expected", "more"),
    [
        ("expired", "refused", {"days": (-10, -1)}),
        ("not-yet", "refused", {"days": (1, 10)}),
        ("no-usage", "refused", {"usage": None}),
        ("server-usage", "refused", {"usage": [ExtendedKeyUsageOID.SERVER_AUTH]}),
        ("a-ca", "refused", {"ca": True}),
        ("other-name", "401", {"uris": ["spiffe://example.org/service/x"]}),
        ("other-domain", "401", {"uris": ["spiffe://evil.example/agent/mesh-agent"]}),
        ("name-in-subject", "401", {"uris": [], "common_name": SPIFFE[:64]}),
        ("two-names", "401", {"uris": [SPIFFE, "spiffe://example.org/agent/other"]}),
    ],
)
def test_b11_what_an_operators_ca_may_sign(place, mesh, name, expected, more):
    uris = more.pop("uris", [SPIFFE]) if "uris" in more else [SPIFFE]
    certificate, key = mesh.issue_client(name, *uris, **more)
    assert outcome(place, MESH, certificate, key) == expected


def test_b11_a_ca_that_is_taken_out(root, authority, upstream, secret):
    """On a connection that it vouched for too; the other CA's agents go on."""
    home = Place(root / "two-cas", authority.path, [API])
    home.register("api", f"https://{API}:{upstream.port}", secret=secret)
    home.nexus("ca", "issue", "127.0.0.1", "--out", str(home.path / "tls"))
    cas = []
    for name in ("one", "two"):
        (root / f"two-cas-{name}").mkdir()
        cas.append(Authority(root / f"two-cas-{name}", name))
    both = home.path / "both.pem"
    both.write_bytes(cas[0].path.read_bytes() + cas[1].path.read_bytes())
    home.configure(
        '[[identity.certificate]]\nname = "mesh"\nagent = "a"\nrule = [{ use = ["api"] }]\n[[server.listener]]\n'
        'address = "127.0.0.1:0"\ntls = { cert = "tls/server.pem", key = "tls/server.key", client_ca = "both.pem" }\n'
        "[server]\nlisten = []\n"
    )
    try:
        home.up(listen=False)
        pairs = [ca.issue_client("client", SPIFFE) for ca in cas]
        head = b"GET /c/api/echo HTTP/1.1\r\nHost: x\r\n\r\n"

        def ask(stream) -> int:
            wire = Wire.__new__(Wire)
            wire.socket, wire.buffer = stream, b""
            wire.send(head)
            return wire.answer().status

        with handshake(home, 0, *pairs[0]) as first, handshake(home, 0, *pairs[1]) as second:
            assert (ask(first), ask(second)) == (200, 200)
            both.write_bytes(cas[1].path.read_bytes())
            wait_for(lambda: ask(first) == 401, 10, "the first CA to be gone")
            assert ask(second) == 200
            # The rules are watched too.
            config = home.path / "nexus.toml"
            text = config.read_text()
            home.write_config(text.replace('rule = [{ use', 'rule = [{ when = { uri = "spiffe://x/*" }, use'))
            wait_for(lambda: ask(second) == 401, 10, "the rule to hold")
            home.write_config(text)
            wait_for(lambda: ask(second) == 200, 10, "the old rule")
        assert outcome(home, 0, *pairs[0]) == "refused"
        assert outcome(home, 0, *pairs[1]) == "200"
    finally:
        home.close()


def test_b11_other_cas(place, mesh, member, tmp_path_factory):
    """Another CA, one of the same name, the agents' CA at the operator's listener, and the other way round."""
    twin = Authority(tmp_path_factory.mktemp("twin"), "mesh")
    assert outcome(place, MESH, *twin.issue_client("twin", SPIFFE)) == "refused"
    assert outcome(place, MESH, member["pem"], member["key"]) == "refused"
    assert outcome(place, TLS, *mesh.issue_client("good2", SPIFFE)) == "refused"
    server = place.path / "tls"
    assert outcome(place, TLS, server / "server.pem", server / "server.key") == "refused"
    self_signed = tmp_path_factory.mktemp("self")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", self_signed / "k", "-out", self_signed / "c", "-subj", "/CN=mesh", "-addext", f"subjectAltName=URI:{SPIFFE}",
         "-addext", "extendedKeyUsage=clientAuth"],
        check=True, capture_output=True,
    )
    assert outcome(place, MESH, self_signed / "c", self_signed / "k") == "refused"
    assert outcome(place, MESH, *mesh.issue_client("good3", SPIFFE)) == "200"


def test_b11_an_operators_ca_names_no_record(place, mesh, member):
    """Only the install's own CA speaks of its records."""
    text = subprocess.run(["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", member["pem"]],
                          capture_output=True, text=True).stdout
    name = re.search(r"URI:(\S+)", text)[1]
    assert outcome(place, MESH, *mesh.issue_client("forged", name)) == "401"


def test_a_token_counts_before_a_certificate(place, mesh, token, url):
    certificate, key = mesh.issue_client("both", SPIFFE)
    wrong = "nxt_" + "A" * 43 + "2cNllg"
    pair = ("--cert", certificate, "--key", key)
    assert status(place, *pair, "-H", f"X-Nexus-Token: {wrong}", f"{place.url(MESH)}/c/api/echo").startswith("401")
    assert status(place, *pair, "-H", f"X-Nexus-Token: {token}", f"{place.url(MESH)}/c/api/echo").startswith("200")
    assert [line for line in place.audit() if line.get("way") == "base-url"][-1]["agent"] == "tokened"


# B13


@pytest.mark.parametrize("version", [1, 2])
def test_b13_the_proxy_protocol_is_not_spoken(place, token, version):
    line = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
    binary_form = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\1\xc0\0\2\2\0\1\0\2"
    head = f"GET /c/api/echo HTTP/1.1\r\nHost: x\r\nX-Nexus-Token: {token}\r\n\r\n".encode()
    with Wire(place.port(PLAIN)) as wire:
        wire.send((line if version == 1 else binary_form) + head)
        answer = wire.answer()
        assert answer is None or answer.status == 400
    assert not any("192.0.2.1" in json.dumps(line) for line in place.audit())


def test_b13_spoofed_identity(place, mesh, member, upstream, secret, request):
    """No header says who calls, whatever proxies write; none of them goes on to the API."""
    claims = {
        "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Client-Cert": f"By=x;URI={SPIFFE}", "X-Agent-Id": "member",
        "Forwarded": "for=127.0.0.1", "Client-Cert": ":AAAA:", "Client-Cert-Chain": ":AAAA:", "X-SSL-Client-Cert": "x",
        "X-SSL-Client-Verify": "SUCCESS", "X-Real-IP": "127.0.0.1", "X_Forwarded_For": "127.0.0.1",
    }
    fields = [part for name, value in claims.items() for part in ("-H", f"{name}: {value}")]
    for index in (PLAIN, TLS, MESH):
        assert status(place, *fields, f"{place.url(index)}/c/api/echo").startswith("401")
    curl(place, "-f", *fields, "--cert", member["pem"], "--key", member["key"], base(place, TLS, request))
    seen = arrived(upstream, request, secret)
    names = {name.replace("_", "-") for name, _ in seen.headers}
    assert not names & {name.lower().replace("_", "-") for name in claims}, seen.headers
