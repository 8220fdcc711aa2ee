"""Who writes at the same time, what `store verify` says, and stores and keys that do not belong together."""

import json
import os
import shutil
import sqlite3
import subprocess
import time

import pytest
from nexustest.home import Home, binary, canary, in_threads


def edit(home, *statements: str) -> None:
    with sqlite3.connect(home.path / "nexus.db") as database:
        for statement in statements:
            database.execute(statement)
    database.close()


def test_a_server_and_many_commands_write_at_once(install):
    """F9: each of them succeeds, and nothing is lost."""
    home = install.home
    server = home.up()

    def work(number: int) -> list:
        made = []
        for round_ in range(4):
            name = f"w{number}-{round_}"
            made.append(home.token("c0", name)[0])
            secret = canary(name)
            home.register(name, f"http://api.test:{install.api.port}", secret=secret)
            install.secrets[name] = secret
            # The server notes the last use of what is asked for.
            assert install.ask(server.port, "c1") == 200
        return made

    made = [token for tokens in in_threads(5, work) for token in tokens]
    assert len(set(made)) == 20
    assert {row["token_id"] for row in home.json("token", "list")} >= set(made)
    assert {row["name"] for row in home.json("list")} >= set(install.secrets)
    for name in install.secrets:
        assert home.json("connection", "show", name)["name"] == name
    assert home.json("store", "verify")["ok"]
    assert "locked" not in server.messages()


def test_commands_on_one_record_do_not_undo_each_other(install):
    home = install.home
    secrets = [canary(f"s{number}") for number in range(6)]

    def work(number: int) -> int:
        done = home.nexus("connection", "set", "c0", "--stdin", stdin=secrets[number] + "\n", code=None)
        assert done.returncode in (0, 6), done.stderr
        assert "locked" not in done.stderr
        return done.returncode

    codes = in_threads(len(secrets), work)
    # Each that succeeded is a version of its own.
    with sqlite3.connect(home.path / "nexus.db") as database:
        version = database.execute("SELECT version FROM connections WHERE name = 'c0'").fetchone()[0]
    database.close()
    assert version == 1 + codes.count(0) and codes.count(0) >= 1


def test_verify_names_what_fails_and_accept_takes_it(install):
    home = install.home
    server = home.up()
    assert home.json("store", "verify")["ok"]
    token = home.token("c0", "narrow")[0]
    edit(home, f"UPDATE tokens SET agent = 'wide' WHERE id = '{token}'", "DELETE FROM connections WHERE name = 'c3'")
    done = home.nexus("store", "verify", "-o", "json", code=8)
    report = json.loads(done.stdout)
    assert not report["ok"]
    assert (token, "edited") in {(row["id"], "edited") for row in report["failed"] if "edited" in row["reason"]}
    assert [row for row in report["failed"] if "removed" in row["reason"]], report
    text = home.nexus("store", "verify", code=8)
    assert token in text.stdout and "--accept" in text.stderr
    # Looking changes nothing.
    assert json.loads(home.nexus("store", "verify", "-o", "json", code=8).stdout) == report
    accepted = home.json("store", "verify", "--accept")
    assert token in {row["id"] for row in accepted["accepted"]} and accepted["unreadable"] == []
    assert home.json("store", "verify")["ok"]
    for name in ("c0", "c1", "c2"):
        assert install.ask(server.port, name) == 200
    assert install.ask(server.port, "c3") != 200
    # A row that makes no sense is named, and goes only when that is asked for.
    edit(home, "UPDATE tokens SET connections = 'x' WHERE agent = 'wide'")
    accepted = home.json("store", "verify", "--accept")
    assert [row["id"] for row in accepted["unreadable"]] == [token]
    assert not json.loads(home.nexus("store", "verify", "-o", "json", code=8).stdout)["ok"]
    removed = home.json("store", "verify", "--accept", "--remove-unreadable")
    assert [row["id"] for row in removed["removed"]] == [token]
    assert home.json("store", "verify")["ok"]


def test_a_destination_that_was_edited_stays_closed_after_accept(install):
    home = install.home
    server = home.up()
    edit(home, "UPDATE connections SET definition = replace(definition, 'api.test', 'evil.test') WHERE name = 'c0'")
    home.nexus("store", "verify", "--accept")
    report = json.loads(home.nexus("store", "verify", "-o", "json", code=8).stdout)
    assert [row["name"] for row in report["failed"]] == ["c0"]
    assert install.ask(server.port, "c0") != 200 and install.ask(server.port, "c1") == 200


def test_a_disabled_agent_stays_disabled_when_its_record_goes(install):
    home = install.home
    identity, install.token = home.token(",".join(install.secrets), "outcast")
    server = home.up()
    assert install.ask(server.port, "c0") == 200
    home.nexus("agent", "disable", "outcast")
    assert install.ask(server.port, "c0") != 200
    edit(home, "DELETE FROM disabled_agents")
    home.token("c0", "another")
    time.sleep(1)
    assert install.ask(server.port, "c0") != 200
    server.stop()
    server = home.up()
    assert install.ask(server.port, "c0") != 200
    home.token("c0", "one-more")
    assert install.ask(server.port, "c0") != 200


@pytest.mark.parametrize("form", ["env", "passphrase"])
def test_keys_of_other_sources_rotate_under_a_server(tmp_path, authority, api, make_install, form):
    values = ("ab" * 32, "cd" * 32) if form == "env" else ("correct horse one", "battery staple two")
    say = ", passphrase = true" if form == "passphrase" else ""
    one, two = (f'{{ env = "{name}"{say} }}' for name in ("N_ONE", "N_TWO"))
    install = make_install(f"[store]\nroot_key = {one}\n", {"N_ONE": values[0]})
    home = install.home
    # A server that cannot have the next key is told of, and nothing is sealed.
    server = home.up()
    home.configure(f"[store]\nroot_key = {one}\nnext_root_key = {two}\n")
    home.environment["N_TWO"] = values[1]
    refused = home.nexus("key", "rotate", code=1).stderr
    assert "a running server has not taken the next root key" in refused and "N_TWO" in refused
    assert install.ask(server.port, "c0") == 200 and home.json("store", "verify")["ok"]
    server.stop()

    server = home.up()
    assert home.json("key", "rotate")["sealed_again"] == 4
    assert all(install.ask(server.port, name) == 200 for name in install.secrets)
    home.token("c0", "between")
    # Again: there is nothing left to do, and nothing is made.
    assert home.json("key", "rotate")["sealed_again"] == 0
    server.stop()
    home.configure(f"[store]\nroot_key = {two}\n")
    del home.environment["N_ONE"]
    server = home.up()
    assert all(install.ask(server.port, name) == 200 for name in install.secrets)
    assert home.json("store", "verify")["ok"]
    assert not list(home.path.glob("root.key*"))
    server.stop()
    # The old key alone opens nothing, and says so.
    home.configure(f"[store]\nroot_key = {one}\n")
    home.environment["N_ONE"] = values[0]
    refused = home.nexus("list", code=1).stderr
    assert "the root key is not the one that" in refused


def test_doctor_tells_of_a_rotation_that_broke_off(install):
    home = install.home
    findings = lambda: {row["check"] for row in json.loads(home.nexus("doctor", "-o", "json", code=None).stdout)}  # noqa: E731
    assert "key rotation" not in findings()
    next_key = home.path / "root.key.next"
    next_key.write_text("8f" * 32)
    next_key.chmod(0o600)
    assert "key rotation" in findings()
    home.nexus("key", "rotate")
    assert "key rotation" not in findings()


def test_keys_and_stores_of_different_times(install, tmp_path):
    """An old key with a new store, a new key with an old store, and another install's backup."""
    home = install.home
    backup = tmp_path / "old.db"
    home.nexus("store", "backup", str(backup))
    old = (home.path / "root.key").read_text()
    kept = home.json("key", "rotate")["old_key_file"]
    new = (home.path / "root.key").read_text()
    key = home.path / "root.key"
    before = (home.path / "nexus.db").read_bytes()
    key.write_text(old)
    refused = home.nexus("list", code=1).stderr
    assert f"the root key is not the one that {home.path / 'nexus.db'} was sealed with" in refused
    key.write_text(new)
    refused = home.nexus("store", "restore", str(backup), code=1).stderr
    assert f"the root key is not the one that {backup} was sealed with" in refused
    assert (home.path / "nexus.db").read_bytes() == before
    assert home.json("store", "verify")["ok"]
    # With the key of that time it comes back.
    shutil.copy(kept, key)
    home.nexus("store", "restore", str(backup))
    assert home.json("store", "verify")["ok"]
    # Another install has another key.
    other = Home(tmp_path / "other", home.ca, ["api.test"])
    foreign = tmp_path / "foreign.db"
    other.register("mine", "http://api.test:9", secret="s")
    other.nexus("store", "backup", str(foreign))
    refused = home.nexus("store", "restore", str(foreign), code=1).stderr
    assert f"the root key is not the one that {foreign} was sealed with" in refused
    assert home.json("store", "verify")["ok"]


def test_a_backup_of_a_store_with_a_failing_record_has_it_too(install, tmp_path):
    home = install.home
    edit(home, "UPDATE connections SET provider = 'x' WHERE name = 'c0'")
    backup = tmp_path / "copy.db"
    home.nexus("store", "backup", str(backup))
    home.nexus("store", "restore", str(backup))
    report = json.loads(home.nexus("store", "verify", "-o", "json", code=8).stdout)
    assert [row["name"] for row in report["failed"]] == ["c0"]


def test_a_restore_and_a_server_that_starts_do_not_meet(install, tmp_path):
    """Whichever is first, a server that runs serves the file that is there."""
    home = install.home
    backup = tmp_path / "copy.db"
    home.nexus("store", "backup", str(backup))
    command = [str(binary()), "-o", "json", "up", "--admin", "127.0.0.1:0", "--listen", "127.0.0.1:0"]
    for _ in range(8):
        server = subprocess.Popen(command, env=home.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
        restored = home.nexus("store", "restore", str(backup), code=None)
        assert restored.returncode in (0, 6), restored.stderr
        line = server.stdout.readline()
        if line:
            path = home.path / "nexus.db"
            descriptors = f"/proc/{server.pid}/fd"
            opened = {os.readlink(f"{descriptors}/{number}") for number in os.listdir(descriptors)}
            stores = {name for name in opened if "nexus.db" in name and not name.endswith(("-wal", "-shm"))}
            assert stores == {str(path)}, stores
        server.terminate()
        _, errors = server.communicate(timeout=20)
        if not line:
            assert b"was replaced while" in errors or b"nexus.db" in errors, errors
    assert home.json("store", "verify")["ok"]
