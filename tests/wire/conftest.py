from pathlib import Path

import pytest
from nexustest.ca import Authority
from nexustest.home import Home, canary
from nexustest.modes import Forward, Reverse, Tunnelled
from nexustest.recorder import Recorder

GOOD, PLAIN, EVIL = "good.test", "plain.test", "evil.test"


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("wire")


@pytest.fixture(scope="session")
def authority(root) -> Authority:
    directory = root / "authority"
    directory.mkdir()
    return Authority(directory)


@pytest.fixture(scope="session")
def good(authority):
    """The API of the connection: TLS."""
    recorder = Recorder(authority.server_context(GOOD, alpn=["http/1.1"]))
    yield recorder
    recorder.close()


@pytest.fixture(scope="session")
def plain():
    """The API of the connection in clear."""
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture(scope="session")
def evil():
    """An attacker's: nothing may ever arrive here."""
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture(scope="session")
def secret() -> str:
    return canary("wire")


@pytest.fixture(scope="session")
def nexus(root, authority, good, plain, secret):
    # These tests show more wrong tokens in a minute than an address may.
    limits = "[limits]\nwrong_tokens_per_minute = 1000000"
    home = Home(root / "home", authority.path, [GOOD, PLAIN, EVIL], extra=limits)
    home.register("good", f"https://{GOOD}:{good.port}", secret=secret)
    home.register("plain", f"http://{PLAIN}:{plain.port}", secret=secret)
    home.up()
    yield home
    home.close()


@pytest.fixture(scope="session")
def server(nexus):
    return nexus.servers[0]


@pytest.fixture(scope="session")
def token(nexus) -> str:
    return nexus.token("good,plain")[1]


@pytest.fixture(scope="session")
def modes(nexus, server, token, good, plain, evil):
    ca = nexus.nexus("ca", "path").stdout.strip()
    return {
        "forward": Forward(server.port, token, plain, PLAIN, evil),
        "tunnel": Tunnelled(server.port, token, good, GOOD, evil, ca),
        "reverse": Reverse(server.port, token, good, GOOD, evil),
    }


@pytest.fixture(params=["forward", "tunnel", "reverse"])
def mode(request, modes):
    """Each way in: absolute form on the plain listener, inside an intercepted tunnel, by base URL."""
    return modes[request.param]
