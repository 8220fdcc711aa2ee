"""`nexus key rotate` while a server is asked and others write, and after a kill at any step."""

import json
import os
import shutil
import subprocess
import threading
import time

import pytest
from nexustest.home import binary, canary

# How many kills; the long form is a thousand.
KILLS = int(os.environ.get("NEXUS_TEST_KILLS", "24"))

# What the store, the key files and the way to the server are made with.
CALLS = ["pwrite64", "fdatasync", "fsync", "rename", "linkat", "link", "unlink", "connect", "openat", "write"]

strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


class Busy:
    """Asks the server all the time, and keeps what did not go well."""

    def __init__(self, install, port: int):
        self.install, self.port = install, port
        self.done, self.problems, self.stopping = 0, [], threading.Event()
        self.threads = [threading.Thread(target=self.work, args=(name,), daemon=True) for name in ("c0", "c1")]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)

    def work(self, name: str) -> None:
        while not self.stopping.is_set():
            try:
                status = self.install.ask(self.port, name)
                if status != 200:
                    self.problems.append((name, status))
            except (AssertionError, OSError, EOFError) as error:
                self.problems.append((name, repr(error)))
            self.done += 1


def keys(home) -> list[str]:
    return sorted(path.name for path in home.path.iterdir() if path.name.startswith("root.key"))


def check(install, port: int) -> None:
    """Everything opens, and nothing fails the integrity check."""
    for name in install.secrets:
        assert install.ask(port, name) == 200, name
    listed = install.home.nexus("connection", "list", "-o", "json")
    assert "integrity" not in listed.stderr, listed.stderr
    assert {row["name"] for row in json.loads(listed.stdout)} >= set(install.secrets)
    assert "integrity" not in install.home.nexus("token", "list").stderr
    assert [line for line in install.home.audit() if line["event"] == "integrity_failure"] == []


def test_a_server_under_load_notices_nothing(install):
    home = install.home
    server = home.up()
    with Busy(install, server.port) as busy:
        first = (home.path / "root.key").read_text()
        rotations = []
        for _ in range(2):
            before = busy.done
            rotations.append(home.json("key", "rotate"))
            # A write between: with the new key.
            secret = canary("new")
            home.nexus("connection", "set", "c2", "--stdin", stdin=secret + "\n")
            install.secrets["c2"] = secret
            while busy.done < before + 20 and not busy.problems:
                time.sleep(0.01)
        assert busy.problems == []
    assert rotations[0]["new_key"] == rotations[1]["old_key"] != rotations[1]["new_key"]
    assert [rotation["sealed_again"] for rotation in rotations] == [4, 4]
    old = [f"root.key.old-{rotation['old_key']}" for rotation in rotations]
    assert keys(home) == sorted(["root.key", *old])
    assert (home.path / old[0]).read_text() == first != (home.path / "root.key").read_text()
    assert {(home.path / name).stat().st_mode & 0o777 for name in keys(home)} == {0o600}
    check(install, server.port)
    server.stop()
    for name in old:
        (home.path / name).unlink()
    check(install, home.up().port)


def test_a_key_that_is_no_file_needs_the_next_one_named(install):
    home = install.home
    file = home.path / "root.key"
    shown = f'root_key = {{ command = ["cat", "{file}"] }}'
    home.configure(f"[store]\n{shown}\n")
    refused = home.nexus("key", "rotate", code=2).stderr
    assert "the root key comes from command cat" in refused and "next_root_key" in refused
    (home.path / "next.key").write_text("7f" * 32)
    (home.path / "next.key").chmod(0o600)
    home.configure(f'[store]\n{shown}\nnext_root_key = {{ file = "next.key" }}\n')
    server = home.up()
    rotated = home.json("key", "rotate")
    assert rotated["sealed_again"] == 4 and rotated["old_key_file"] is None
    check(install, server.port)
    server.stop()
    home.configure('[store]\nroot_key = { file = "next.key" }\n')
    file.unlink()
    check(install, home.up().port)


def test_what_does_not_open_stops_the_rotation_with_its_name(install):
    home = install.home
    home.nexus("key", "rotate")
    name = home.path / "root.key.next"
    # As it is when a step was the last one: the next key is there, and nothing more.
    name.write_text("8f" * 32)
    name.chmod(0o644)
    refused = home.nexus("key", "rotate", code=1).stderr
    assert "may be read by others" in refused and "chmod 600" in refused
    name.chmod(0o600)
    assert home.json("key", "rotate")["sealed_again"] == 4
    assert (home.path / "root.key").read_text().strip() == "8f" * 32


@strace
def test_killed_at_any_step_it_goes_on_from_there(install):
    """Each kill leaves a home that serves, reads and writes; the next run goes on."""
    home = install.home
    server = home.up()
    finished = killed = 0
    with Busy(install, server.port) as busy:
        number = {call: 1 for call in CALLS}
        turn = 0
        while killed < KILLS:
            call = CALLS[turn % len(CALLS)]
            turn += 1
            done = subprocess.run(
                ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}",
                 "-e", f"inject={call}:signal=KILL:when={number[call]}", str(binary()), "-o", "json", "key", "rotate"],
                env=home.environment, capture_output=True, text=True, timeout=60,
            )
            if done.returncode == 0:
                # It has no such call so late: from the start again.
                finished += 1
                number[call] = 1
            else:
                assert done.returncode in (-9, 137), (call, number[call], done.stderr)
                killed += 1
                number[call] += 1 + turn % 3
            if killed % 6 == 0:
                secret = canary("between")
                home.nexus("connection", "set", "c3", "--stdin", stdin=secret + "\n")
                install.secrets["c3"] = secret
                assert install.ask(server.port, "c3") == 200, (call, number[call])
        home.nexus("key", "rotate")
        assert busy.problems == []
        assert busy.done > KILLS
    assert "root.key.next" not in keys(home)
    check(install, server.port)
    server.stop()
    # With the present key alone everything opens.
    for name in keys(home):
        if name != "root.key":
            (home.path / name).unlink()
    check(install, home.up().port)


@strace
def test_no_acknowledged_write_is_lost_by_a_kill_at_any_call(install):
    """A command that was killed has done all or nothing; one that said it was done has done it."""
    home = install.home
    server = home.up()
    calls = ["pwrite64", "fdatasync", "openat", "write"]
    known = {row["id"] for row in home.json("token", "list")}
    acknowledged = set(known)
    for number in range(KILLS):
        call = calls[number % len(calls)]
        done = subprocess.run(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}",
             "-e", f"inject={call}:signal=KILL:when={1 + number // len(calls)}",
             str(binary()), "-o", "json", "token", "create", "--name", "killed", "--use", "c0"],
            env=home.environment, capture_output=True, text=True, timeout=60,
        )
        if done.returncode == 0:
            acknowledged.add(json.loads(done.stdout)["token_id"])
        else:
            assert done.returncode in (-9, 137), (call, done.stderr)
        if number % 8 == 7:
            found = {row["id"] for row in home.json("token", "list")}
            assert acknowledged <= found
    found = {row["id"] for row in home.json("token", "list")}
    assert acknowledged <= found
    check(install, server.port)
