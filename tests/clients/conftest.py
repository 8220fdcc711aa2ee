import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from nexustest.ca import Authority
from nexustest.grpcapi import GrpcUpstream
from nexustest.home import Home, canary, installed
from nexustest.hosts import API, BULK, CLAUDE, CRATES, GIT, GRPC, HOSTS, LLM, NPM, PYPI, S3
from nexustest.upstream import Upstream


# A thousand tunnels are open on both sides at once.
_, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (HARD, HARD))


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="session")
def authority(root) -> Authority:
    directory = root / "authority"
    directory.mkdir()
    return Authority(directory)


@pytest.fixture(scope="session")
def git_root(root) -> Path:
    """A bare repository with one commit."""
    repositories = root / "repositories"
    work = root / "work"
    environment = {"PATH": os.environ["PATH"], "HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1"}
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.test", "-c", "init.defaultBranch=main"]

    def git(*arguments, cwd=None):
        subprocess.run(["git", *identity, *arguments], cwd=cwd, env=environment, check=True, capture_output=True)

    work.mkdir()
    git("init", "-q", cwd=work)
    (work / "README").write_text("hello\n")
    git("add", ".", cwd=work)
    git("commit", "-qm", "first", cwd=work)
    repositories.mkdir()
    git("clone", "-q", "--bare", str(work), str(repositories / "probe.git"))
    git("config", "http.receivepack", "true", cwd=repositories / "probe.git")
    return repositories


@pytest.fixture(scope="session")
def upstream(authority, git_root):
    upstream = Upstream(authority, "*.example.test", git_root=git_root)
    yield upstream
    upstream.close()


@pytest.fixture(scope="session")
def grpc_upstream(authority):
    upstream = GrpcUpstream(authority, GRPC)
    yield upstream
    upstream.close()


@pytest.fixture(scope="session")
def bulk(authority):
    """The port of the server for very large bodies."""
    certificate, key = authority.issue(BULK)
    script = Path(__file__).parents[1] / "support" / "nexustest" / "bulk.py"
    process = subprocess.Popen([sys.executable, str(script), str(certificate), str(key)], stdout=subprocess.PIPE)
    yield int(process.stdout.readline())
    process.kill()
    process.wait(5)
    process.stdout.close()


@pytest.fixture(scope="session")
def secrets_of() -> dict[str, str]:
    """The true credential of each connection."""
    names = ["api", "keyed", "query", "s3", "git", "pypi", "crates", "npm", "llm", "claude", "grpc", "bulk"]
    return {name: canary(name) for name in names}


@pytest.fixture(scope="session")
def nexus(root, authority, upstream, grpc_upstream, bulk, secrets_of):
    """A home with a connection to each host, and its server."""
    home = Home(root / "home", authority.path, HOSTS)
    port = upstream.port

    def register(name, url, *inject, **fields):
        if fields:
            home.register(name, url, *inject, fields=fields)
        else:
            home.register(name, url, *inject, secret=secrets_of[name])

    register("api", f"https://{API}:{port}")
    register("s3", f"https://{S3}:{port}")
    register("git", f"https://{GIT}:{port}", "basic {user}:{password}", user="x-access-token", password=secrets_of["git"])
    register("pypi", f"https://{PYPI}:{port}", "basic {user}:{password}", user="__token__", password=secrets_of["pypi"])
    register("crates", f"https://{CRATES}:{port}", "header Authorization: {token}")
    register("npm", f"https://{NPM}:{port}")
    register("llm", f"https://{LLM}:{port}/v1")
    register("claude", f"https://{CLAUDE}:{port}", "header x-api-key: {token}")
    register("grpc", f"https://{GRPC}:{grpc_upstream.port}")
    register("bulk", f"https://{BULK}:{bulk}")
    home.up()
    yield home
    home.close()


@pytest.fixture(scope="session")
def server(nexus):
    return nexus.servers[0]


@pytest.fixture(scope="session")
def agent(nexus) -> tuple[str, str]:
    """Id and value of a token for everything."""
    return nexus.token("api,s3,git,pypi,crates,npm,llm,claude,grpc,bulk")


@pytest.fixture(scope="session")
def python() -> str:
    return sys.executable


@pytest.fixture(autouse=True)
def no_leak(request):
    """After each test: no client's process or output had a true credential."""
    yield
    ran = getattr(request.node, "ran", [])
    for one in ran:
        text = one.everything()
        for name, value in request.getfixturevalue("secrets_of").items():
            assert value not in text, f"the client saw the credential of {name}"


@pytest.fixture
def client(request, nexus):
    """Runs a client by `nexus run`, with only environment variables, and has it checked for leaks."""
    request.node.ran = []

    def run(use, *command, ok=True, **more):
        ran = nexus.run(use, [str(part) for part in command], **more)
        request.node.ran.append(ran)
        return ran.ok() if ok else ran

    return run


@pytest.fixture(scope="session")
def node_modules() -> Path:
    return installed("node/node_modules")


@pytest.fixture(scope="session")
def reqwest() -> Path:
    return installed("bin/rust-reqwest")


@pytest.fixture(scope="session")
def go_probe() -> Path:
    return installed("bin/go-probe")
