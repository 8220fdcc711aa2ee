"""Agents that prove themselves with JWTs: of an issuer of their platform, of a real OAuth server, of this install."""

import base64
import http.server
import json
import ssl
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from nexustest.home import Home, canary, wait_for
from nexustest.recorder import Recorder
from nexustest.wire import Wire, tunnel

API = "api.example.test"
ISSUER = "idp.example.test"
LOGIN = "login.example.test"


def encoded(data: bytes | dict) -> str:
    if isinstance(data, dict):
        data = json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    def __init__(self, kid: str):
        self.kid = kid
        self.private = rsa.generate_private_key(65537, 2048)

    def jwk(self) -> dict:
        numbers = self.private.public_key().public_numbers()
        parts = {"n": numbers.n.to_bytes(256, "big"), "e": numbers.e.to_bytes(3, "big")}
        return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid} | {k: encoded(v) for k, v in parts.items()}

    def sign(self, **edits) -> str:
        """A token for ten minutes, with claims set."""
        now = int(time.time())
        claims = {"iss": f"https://{ISSUER}", "aud": "nexus", "sub": "bot", "run": "r-1", "iat": now, "exp": now + 600}
        signed = f"{encoded({'alg': 'RS256', 'kid': self.kid})}.{encoded(claims | edits)}"
        return f"{signed}.{encoded(self.private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


class Endpoint:
    """Serves a key set over TLS."""

    def __init__(self, context: ssl.SSLContext, *keys: Key):
        self.keys, self.hits = keys, 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.hits += 1
                body = key_set(*outer.keys).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def key_set(*keys: Key) -> str:
    return json.dumps({"keys": [key.jwk() for key in keys]})


RULE = 'run = "{run}"\nrule = [{ when = { sub = "bot*" }, use = ["api"] }]\n'


def issuer(jwks: str, more: str = RULE) -> str:
    return (
        f'[[identity.issuer]]\nname = "idp"\nissuer = "https://{ISSUER}"\naudience = "nexus"\nalgorithm = "RS256"\n'
        f"leeway = \"0s\"\njwks = {{ {jwks} }}\n{more}"
    )


class Setting:
    def __init__(self, home: Home, api: Recorder, secret: str):
        self.home, self.api, self.secret = home, api, secret
        self.ca = home.nexus("ca", "path").stdout.strip()
        self.server = None

    def configure(self, *identity: str) -> None:
        self.home.configure(extra="\n".join(identity))

    def curl(self, token: str, *arguments: str) -> str:
        """The status of a request by a tunnel of its own; the token is the proxy URL's password."""
        return self.curl_by(f"http://x:{token}@127.0.0.1:{self.server.port}", *arguments)

    def curl_by(self, proxy: str, *arguments: str) -> str:
        done = subprocess.run(
            ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_connect} %{http_code}", "--cacert", self.ca,
             *arguments, f"https://{API}:{self.api.port}/v1/x"],
            env=self.home.environment | {"HTTPS_PROXY": proxy}, capture_output=True, text=True, timeout=60,
        )
        return done.stdout

    def ask(self, *fields: str, path: str = "/c/api/x", method: str = "GET", body: str = ""):
        """A request outside a tunnel."""
        with Wire(self.server.port) as wire:
            lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.server.port}", *fields]
            if body:
                lines.append(f"Content-Length: {len(body)}")
            wire.send("\r\n".join(lines) + "\r\n\r\n" + body)
            return wire.answer(method)

    def nowhere(self, token: str) -> None:
        """No part of the token is in what the API, the log, the audit record or the metrics have."""
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{self.server.admin_port}/metrics", timeout=10).read()
        told = self.server.messages() + json.dumps(self.home.audit()) + metrics.decode()
        api = b"".join(bytes(raw) for raw in self.api.raw).decode("latin-1")
        store = b"".join(path.read_bytes() for path in self.home.path.glob("nexus.db*")).decode("latin-1")
        for part in token.split(".")[1:]:
            assert part not in told and part not in api and part not in store


@pytest.fixture
def setting(tmp_path, authority):
    api = Recorder(authority.server_context(API))
    home = Home(tmp_path / "home", authority.path, [API, ISSUER, LOGIN])
    secret = canary("api")
    home.register("api", f"https://{API}:{api.port}/v1", secret=secret)
    yield Setting(home, api, secret)
    home.close()
    api.close()


@pytest.fixture(scope="module")
def key() -> Key:
    return Key("k1")


@pytest.fixture
def endpoint(authority, key):
    endpoint = Endpoint(authority.server_context(ISSUER), key)
    yield endpoint
    endpoint.close()


@pytest.fixture
def ready(setting, endpoint):
    """A server that takes the endpoint's tokens."""
    setting.configure(issuer(f'url = "https://{ISSUER}:{endpoint.port}/jwks"'))
    setting.server = setting.home.up()
    return setting


def test_a_jwt_is_a_proxy_password(ready, key, endpoint):
    token = key.sign()
    assert ready.curl(token) == "200 200"
    assert ready.curl_by(f"http://{token}:@127.0.0.1:{ready.server.port}") == "200 200"
    bare = f"http://127.0.0.1:{ready.server.port}"
    assert ready.curl_by(bare, "--proxy-header", f"Proxy-Authorization: Bearer {token}") == "200 200"
    assert ready.curl_by(bare).startswith("407")
    seen = ready.api.requests
    assert len(seen) == 3 and all(one.all("authorization") == [f"Bearer {ready.secret}"] for one in seen)
    ends = wait_for(lambda: [line for line in ready.home.audit() if line["event"] == "end"], 5, "audit lines")
    for line in ends:
        assert (line["issuer"], line["agent"], line["run"]) == ("idp", "bot", "r-1")
        assert "token_id" not in line
    assert endpoint.hits == 1
    ready.nowhere(token)


def test_a_jwt_stands_where_sdks_put_their_key(ready, key):
    token = key.sign()
    for field in (
        f"Authorization: Bearer {token}", f"X-Nexus-Token: {token}", f"x-api-key: {token}", f"api-key: {token}",
        f"x-goog-api-key: {token}",
    ):
        assert ready.ask(field).status == 200, field
    both = [f"Authorization: Bearer {token}", f"x-api-key: {token}"]
    assert ready.ask(*both).status == 200
    assert ready.ask(both[0], f"x-api-key: {key.sign(sub='bot-2')}").status == 400
    call = json.dumps({"connection_id": "api", "url": "/x"})
    for field in (f"Authorization: Bearer {token}", f"X-Nexus-Token: {token}"):
        answer = ready.ask(field, "Content-Type: application/json", path="/v1/call", method="POST", body=call)
        assert answer.status == 200 and json.loads(answer.body)["ok"], answer
    assert all(one.all("authorization") == [f"Bearer {ready.secret}"] for one in ready.api.requests)
    ready.nowhere(token)


def test_wrong_jwts_are_refused_alike(ready, key):
    thief = Key("k1")
    genuine = key.sign()
    front, claims, signature = genuine.split(".")
    wrong = {
        "expired": key.sign(exp=int(time.time()) - 1),
        "without an end": key.sign(exp=None),
        "another audience": key.sign(aud="other"),
        "another key": thief.sign(),
        "unsigned": f"{encoded({'alg': 'none'})}.{claims}.",
        "cut": f"{front}.{claims}.{signature[:-8]}",
        "no rule": key.sign(sub="eve"),
        "another issuer": key.sign(iss="https://evil.example.test"),
    }
    messages = set()
    for name, token in wrong.items():
        assert ready.curl(token).startswith("407"), name
        answer = ready.ask(f"Authorization: Bearer {token}")
        assert (answer.status, answer.code) == (401, "auth_required"), name
        assert token not in answer.body.decode()
        body = json.loads(answer.body)["error"]
        messages.add((body["message"], body["hint"]))
    assert len(messages) == 1, messages
    assert ready.api.requests == []
    assert ready.curl(genuine) == "200 200"


def test_an_open_tunnel_ends_with_its_token(ready, key):
    token = key.sign(exp=int(time.time()) + 4)
    head = f"GET /v1/x HTTP/1.1\r\nHost: {API}:{ready.api.port}\r\n\r\n"
    with tunnel(ready.server.port, ready.ca, API, ready.api.port, token) as wire:
        answers = []

        def refused():
            wire.send(head)
            answers.append(wire.answer())
            return answers[-1].status != 200

        assert not refused()
        wait_for(refused, 10, "the token's end")
        assert (answers[-1].status, answers[-1].code) == (403, "token_invalid")
        assert wire.is_closed()
    assert len(ready.api.requests) == len(answers) - 1
    assert ready.curl(token).startswith("407")


def test_keys_in_a_file_are_rotated_and_removed(setting, key):
    other = Key("k2")
    file = setting.home.path / "jwks.json"
    file.write_text(key_set(key))
    setting.configure(issuer('file = "jwks.json"'))
    setting.server = setting.home.up()
    old, new = key.sign(), other.sign()
    assert setting.curl(old) == "200 200"
    assert setting.curl(new).startswith("407")

    def replace(*keys):
        fresh = file.with_suffix(".new")
        fresh.write_text(key_set(*keys))
        fresh.rename(file)

    head = f"GET /v1/x HTTP/1.1\r\nHost: {API}:{setting.api.port}\r\n\r\n"
    with tunnel(setting.server.port, setting.ca, API, setting.api.port, old) as wire:
        replace(key, other)
        wait_for(lambda: setting.curl(new) == "200 200", 5, "the new key")
        wire.send(head)
        assert wire.answer().status == 200
        replace(other)
        wait_for(lambda: setting.curl(old).startswith("407"), 5, "the old key's end")
        wire.send(head)
        answer = wire.answer()
        assert (answer.status, answer.code) == (403, "token_invalid")
    assert setting.curl(new) == "200 200"


def test_a_changed_rule_applies_to_open_tunnels(ready, key, endpoint):
    head = f"GET /v1/x HTTP/1.1\r\nHost: {API}:{ready.api.port}\r\n\r\n"
    with tunnel(ready.server.port, ready.ca, API, ready.api.port, key.sign()) as wire:
        wire.send(head)
        assert wire.answer().status == 200
        narrowed = 'rule = [{ use = ["api"], methods = ["POST"] }]\n'
        ready.configure(issuer(f'url = "https://{ISSUER}:{endpoint.port}/jwks"', narrowed))

        def denied():
            wire.send(head)
            return wire.answer().code == "denied"

        wait_for(denied, 5, "the narrower rule")
    assert endpoint.hits == 1, "a reload asks nobody again"


def test_a_run_token_is_listed_audited_and_revoked(setting):
    setting.server = setting.home.up()
    minted = setting.home.json("token", "mint", "--run", "build-7", "--ttl", "15m", "--name", "ci", "--use", "api")
    token = minted["token_value"]
    assert setting.curl(token) == "200 200"
    assert setting.ask(f"Authorization: Bearer {token}").status == 200
    lines = wait_for(lambda: [line for line in setting.home.audit() if line["event"] == "end"], 5, "audit lines")
    assert {(line["token_id"], line["agent"], line["run"]) for line in lines} == {(minted["token_id"], "ci", "build-7")}
    listed = {one["token_id"]: one for one in setting.home.json("token", "list")}
    assert listed[minted["token_id"]]["state"] == "active"
    assert setting.home.nexus("token", "rotate", minted["token_id"], code=6)
    head = f"GET /v1/x HTTP/1.1\r\nHost: {API}:{setting.api.port}\r\n\r\n"
    with tunnel(setting.server.port, setting.ca, API, setting.api.port, token) as wire:
        wire.send(head)
        assert wire.answer().status == 200
        setting.home.nexus("token", "revoke", minted["token_id"])
        wire.send(head)
        assert wire.answer().code == "token_invalid"
    assert setting.curl(token).startswith("407")
    setting.nowhere(token)


def test_run_tokens_end_by_themselves_and_are_narrow(setting):
    setting.server = setting.home.up()
    made = setting.home.json("token", "mint", "--run", "r", "--ttl", "3s", "--methods", "POST")
    assert setting.curl(made["token_value"]) == "200 403"
    assert setting.curl(made["token_value"], "-X", "POST") == "200 200"
    wait_for(lambda: setting.curl(made["token_value"], "-X", "POST").startswith("407"), 10, "its end")
    for ttl in ("13h", "0s", "never"):
        assert setting.home.nexus("token", "mint", "--run", "r", "--ttl", ttl, code=2)
    assert setting.home.nexus("token", "mint", code=2)


def test_a_real_oauth_server_vouches_for_agents(setting, provider):
    """oidc-provider gives a client a JWT for us (RFC 8707 resource, RFC 9068 form)."""
    identity = (
        f'[[identity.issuer]]\nname = "oidc"\nissuer = "{provider.origin}"\naudience = "urn:nexus"\n'
        f'algorithm = "RS256"\njwks = {{ url = "{provider.origin}/jwks" }}\nagent = "{{client_id}}"\nrun = "{{jti}}"\n'
        'rule = [{ when = { client_id = "nexus-post" }, use = ["api"] }]\n'
    )
    setting.configure(identity)
    setting.server = setting.home.up()

    def token(client: str) -> str:
        form = {"grant_type": "client_credentials", "resource": "urn:nexus"}
        headers = {}
        if client == "nexus-post":
            form |= {"client_id": client, "client_secret": provider.secret}
        else:
            pair = base64.b64encode(f"{client}:{urllib.parse.quote(provider.secret)}".encode()).decode()
            headers["Authorization"] = f"Basic {pair}"
        request = urllib.request.Request(
            f"https://127.0.0.1:{provider.port}/token", urllib.parse.urlencode(form).encode(),
            headers | {"Host": f"{LOGIN}:{provider.port}"},
        )
        context = ssl.create_default_context(cafile=str(provider.authority.path))
        context.check_hostname = False
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return json.load(answer)["access_token"]

    assert setting.curl(token("nexus-post")) == "200 200"
    assert setting.curl(token("nexus-basic")).startswith("407"), "no rule is for it"
