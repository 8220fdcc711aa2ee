"""Every file of a home is its owner's alone from birth, and no name that was planted is written through."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from nexustest.home import Home, binary

API = "api.example.test"

# Calls that make something or change who may do what with it.
CALLS = "openat,open,creat,mkdir,mkdirat,mknod,mknodat,bind,chmod,fchmod,fchmodat,umask,link,linkat,symlink,symlinkat"

LISTENERS = """
[[server.listener]]
address = "127.0.0.1:0"
tls = { cert = "tls/server.pem", key = "tls/server.key", client_ca = "ca/agents.pem" }
[[server.listener]]
address = "unix:agents.sock"
[server]
listen = []
"""

strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def everything(directory: Path) -> list[Path]:
    return [directory, *directory.rglob("*")]


def open_to_others(directory: Path) -> list[str]:
    found = []
    for path in everything(directory):
        mode = path.lstat().st_mode
        if mode & 0o077 and not path.is_symlink():
            found.append(f"{path.relative_to(directory)} {mode & 0o777:o}")
    return sorted(found)


@strace
def test_under_umask_000_all_of_a_home_is_private_from_birth(tmp_path, authority):
    os.umask(0o022)
    trace = tmp_path / "trace"
    trace.mkdir()
    shown = trace / "program"
    shown.write_text(f'#!/bin/sh\numask 000\nexec strace -D -f -qq -A -o {trace}/calls -e trace={CALLS} {binary()} "$@"\n')
    shown.chmod(0o755)
    outside = tmp_path / "outside"
    outside.mkdir()
    before = os.environ.get("NEXUS_BIN")
    os.environ["NEXUS_BIN"] = str(shown)
    try:
        home = Home(tmp_path / "home", authority.path, [API])
        home.register("api", f"https://{API}:9", secret="s")
        home.token("api")
        home.nexus("ca", "issue", "127.0.0.1", "--out", str(home.path / "tls"))
        home.configure(LISTENERS)
        (home.path / "nexus.toml").chmod(0o600)
        server = home.up(listen=False)
        home.nexus("token", "mint", "--run", "r", "--name", "m", "--use", "api", "--ttl", "15m")
        home.nexus("env", "--use", "api")
        code = home.json("agent", "invite", "--name", "member", "--use", "api")["code"]
        member = home.path / "member"
        home.nexus("agent", "enroll", "--server", server.urls[0], "--code-stdin", "--out", str(member),
                   "--ca", str(home.path / "ca" / "ca.pem"), stdin=code + "\n")
        assert {"agent.key", "agent.pem"} <= {path.name for path in member.iterdir()}
        assert (home.path / "agents.sock").is_socket() and (home.path / "nexus.sock").is_socket()
        home.nexus("key", "rotate")
        home.nexus("lockdown")
        home.nexus("lockdown", "--lift")
        assert server.process.poll() is None
        living = open_to_others(home.path)
        home.nexus("store", "backup", str(outside / "copy.db"))
        for one in home.servers:
            one.process.terminate()
            one.process.wait(15)
        home.nexus("store", "restore", str(outside / "copy.db"))
        home.close()
    finally:
        os.environ["NEXUS_BIN"] = before or ""
        if before is None:
            del os.environ["NEXUS_BIN"]
    # What programs of other users may have to read, and may not write: certificates and where they came from.
    public = r"(ca/((bundle|extra)\.pem|truststore\.p12|(certs|php)(/[\w.-]+)?)|member/(agent\.(pem|json)|ca\.pem)|tls/server\.pem)"
    ours = lambda found: [line for line in found if not re.fullmatch(f"{public} (644|755)", line)]  # noqa: E731
    assert ours(living) == []
    assert ours(open_to_others(home.path)) == []
    assert (outside / "copy.db").stat().st_mode & 0o777 == 0o600
    # From birth: nothing is made with a mode that is then taken back.
    made = []
    for line in (trace / "calls").read_text().splitlines():
        if (" = -1" in line) or not ("O_CREAT" in line or "mkdir" in line):
            continue
        mode = re.search(r", (0[0-7]+)\) = ", line)
        if mode and int(mode.group(1), 8) & 0o077 and str(tmp_path) in line:
            made.append(line)
    # keytool works in a private directory of nexus' own. SQLite opens a temporary file that was made before it.
    allowed = rf"/{public}(\.\d+)?\", .*0?(644|755)\)|/ca/truststore\.\d+/"
    made = [line for line in made if not re.search(allowed, line)]
    assert [line for line in made if "O_EXCL" in line or ".tmp" not in line] == []


@pytest.mark.parametrize("kind", ["symlink", "hard link"])
def test_nothing_is_written_through_a_planted_name(tmp_path, authority, kind):
    """A link of the name that a file is to get is refused or replaced: the file behind it stays as it is."""
    victim = tmp_path / "victim"
    victim.write_text("keep me")
    victim.chmod(0o644)
    plant = (lambda path: path.symlink_to(victim)) if kind == "symlink" else (lambda path: os.link(victim, path))
    names = ["root.key", "root.key.next", "nexus.db", "nexus.db-wal", "nexus.db-shm", "nexus.toml", "ca/ca.key", "ca/ca.pem",
             "ca/agents.key", "ca/agents.pem", "ca/bundle.pem", "ca/extra.pem", "ca/truststore.p12", "ca/wgetrc"]
    for number, name in enumerate(names):
        directory = tmp_path / f"home-{number}"
        directory.mkdir(mode=0o700)
        (directory / name).parent.mkdir(mode=0o700, exist_ok=True)
        plant(directory / name)
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "NEXUS_HOME": str(directory)}

        def nexus(*arguments):
            return subprocess.run([binary(), *arguments], env=environment, capture_output=True, text=True, timeout=60, input="")

        done = nexus("init")
        rotated = nexus("key", "rotate") if done.returncode == 0 else done
        variables = nexus("env") if done.returncode == 0 else done
        assert victim.read_text() == "keep me", (name, done, rotated, variables)
        assert victim.stat().st_mode & 0o777 == 0o644, name
