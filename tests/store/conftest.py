import os
import pwd
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from nexustest.home import Home, binary, canary
from nexustest.recorder import Recorder
from nexustest.ca import Authority
from nexustest.wire import Wire

HOST = "api.test"


@pytest.fixture(scope="session")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def api():
    """Any API, in clear."""
    recorder = Recorder()
    yield recorder
    recorder.close()


@dataclass
class Install:
    home: Home
    api: Recorder
    secrets: dict[str, str] = field(default_factory=dict)
    token: str = ""

    def register(self, name: str) -> None:
        self.secrets[name] = canary(name)
        self.home.register(name, f"http://{HOST}:{self.api.port}", secret=self.secrets[name])

    def ask(self, port: int, name: str) -> int:
        """One request with a connection; the API has to see that connection's credential."""
        mark = self.api.mark()
        with Wire(port) as wire:
            wire.send(f"GET /c/{name}/{name} HTTP/1.1\r\nHost: nexus\r\nX-Nexus-Token: {self.token}\r\n\r\n".encode())
            status = wire.answer("GET").status
        if status == 200:
            seen = [r for r in self.api.since(mark) if r.target == f"/{name}"]
            assert seen, f"{name}: nothing arrived"
            assert any(r.all("authorization") == [f"Bearer {self.secrets[name]}"] for r in seen), seen[0].fields
        return status


@pytest.fixture
def make_install(tmp_path, authority, api):
    """An install with four connections and a token for them; `extra` goes into its config file."""
    homes = []

    def make(extra: str = "", environment: dict[str, str] | None = None) -> Install:
        home = Home(tmp_path / "home", authority.path, [HOST], extra=extra)
        homes.append(home)
        home.environment.update(environment or {})
        install = Install(home, api)
        for number in range(4):
            install.register(f"c{number}")
        install.token = home.token(",".join(install.secrets))[1]
        return install

    yield make
    for home in homes:
        home.close()


@pytest.fixture
def install(make_install):
    return make_install()


@pytest.fixture
def nobody():
    """A directory of the user nobody's own, with a copy of the program, and how to run as that user."""
    user = pwd.getpwnam("nobody")
    directory = Path(tempfile.mkdtemp(prefix="nexus-nobody-"))
    directory.chmod(0o755)
    shutil.copy(binary(), directory / "nexus-program")
    (directory / "nexus-program").chmod(0o755)
    own = directory / "own"
    own.mkdir(mode=0o700)
    os.chown(own, user.pw_uid, user.pw_gid)
    more = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    yield own, directory / "nexus-program", more
    shutil.rmtree(directory)
