import json
import os
import re
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from nexustest.ca import Authority
from nexustest.home import Home, canary, installed
from nexustest.wire import tunnel

LOGIN = "login.example.test"
REDIRECT = "https://app.example.test/callback"


class Provider:
    """The OAuth server and the API, a Node process."""

    def __init__(self, authority: Authority, directory: Path):
        certificate, key = authority.issue(LOGIN)
        self.authority = authority
        self.secret = canary("client")
        self.log = open(directory / "provider.log", "w+b")
        self.process = subprocess.Popen(
            ["node", str(Path(__file__).with_name("provider.mjs")), str(certificate), str(key), str(installed("node"))],
            env={"PATH": os.environ["PATH"], "CLIENT_SECRET": self.secret, "HOME": str(directory)},
            stdout=subprocess.PIPE, stderr=self.log, stdin=subprocess.DEVNULL,
        )
        line = self.process.stdout.readline()
        while line and not line.startswith(b'{"port"'):
            line = self.process.stdout.readline()
        assert line, Path(self.log.name).read_text()
        told = json.loads(line)
        self.port, self.control_port = told["port"], told["control"]
        self.origin = f"https://{LOGIN}:{self.port}"

    def close(self) -> None:
        self.process.kill()
        self.process.wait(5)
        self.process.stdout.close()
        self.log.close()

    def control(self, path: str, body: dict | None = None) -> dict:
        data = json.dumps(body or {}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.control_port}/{path}", data=data, timeout=10) as answer:
            return json.load(answer)

    @property
    def seen(self) -> dict:
        return self.control("stats")

    def expire(self) -> None:
        """Every access token so far is void from now on."""
        self.control("expire")

    def mode(self, **values) -> None:
        self.control("mode", values)

    def authorize(self) -> dict:
        """The code flow, as a browser would go through it; gives the token endpoint's answer."""
        session = requests.Session()
        session.trust_env = False
        session.verify = str(self.authority.path)
        session.mount("https://", Local(self.port))
        answer = session.get(
            f"{self.origin}/auth",
            params={
                "client_id": "nexus-post", "response_type": "code", "redirect_uri": REDIRECT, "prompt": "consent",
                "scope": "openid offline_access", "state": "s",
            },
            allow_redirects=False,
        )
        for _ in range(10):
            assert answer.status_code in (302, 303), answer.text
            location = answer.headers["location"]
            if location.startswith(REDIRECT):
                break
            answer = session.get(requests.compat.urljoin(self.origin, location), allow_redirects=False)
        code = re.search(r"[?&]code=([^&]+)", location)[1]
        answer = session.post(
            f"{self.origin}/token",
            data={
                "grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT,
                "client_id": "nexus-post",
                "client_secret": self.secret,
            },
        )
        assert answer.status_code == 200, answer.text
        return answer.json()


class Local(requests.adapters.HTTPAdapter):
    """Sends to loopback what is meant for the provider's name."""

    def __init__(self, port: int):
        self.port = port
        super().__init__()

    def init_poolmanager(self, *arguments, **more):
        super().init_poolmanager(*arguments, server_hostname=LOGIN, assert_hostname=LOGIN, **more)

    def send(self, request, **more):
        request.headers["Host"] = f"{LOGIN}:{self.port}"
        request.url = request.url.replace(f"//{LOGIN}:", "//127.0.0.1:")
        answer = super().send(request, **more)
        return answer


@pytest.fixture(scope="session")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def running_provider(authority, tmp_path_factory):
    provider = Provider(authority, tmp_path_factory.mktemp("provider"))
    yield provider
    provider.close()


@pytest.fixture
def provider(running_provider):
    running_provider.mode(rotate=True, ttl=3600, fail=None, delay=0)
    running_provider.control("reset")
    return running_provider


@dataclass
class Install:
    home: Home
    token: str
    ca: str
    provider: Provider

    def wire(self, server, alpn=None, timeout=30):
        return tunnel(server.port, self.ca, LOGIN, self.provider.port, self.token, alpn, timeout)

    def ask(self, server, path="/api/x", method="GET", body=b""):
        """One request by a tunnel of its own."""
        with self.wire(server) as wire:
            length = f"Content-Length: {len(body)}\r\n" if body or method != "GET" else ""
            wire.send(f"{method} {path} HTTP/1.1\r\nHost: {LOGIN}:{self.provider.port}\r\n{length}\r\n".encode() + body)
            return wire.answer(method)

    def register(self, grant: str, fields: dict, auth: str = "post") -> None:
        self.home.json(
            "register", "custom", "--name", "api", "--base-url", f"{self.provider.origin}/api", "--oauth", grant,
            "--token-url", f"{self.provider.origin}/token", "--token-auth", auth, "--stdin-json",
            stdin=json.dumps({"client_id": f"nexus-{auth}", "client_secret": self.provider.secret} | fields),
        )


@pytest.fixture
def bare(tmp_path, authority, provider):
    """A home without a connection."""
    home = Home(tmp_path / "home", authority.path, [LOGIN])
    install = Install(home, "", home.nexus("ca", "path").stdout.strip(), provider)
    yield install
    home.close()


@pytest.fixture
def install(bare, provider):
    """A home with a connection by a refresh token that the provider has just given."""
    given = provider.authorize()
    bare.register("refresh_token", {name: given[name] for name in ("refresh_token", "access_token", "expires_in")})
    bare.given = given
    bare.token = bare.home.token("api")[1]
    provider.control("reset")
    return bare
