"""Records that were edited behind nexus' back, and stores that were put back to an earlier state."""

import sqlite3
from pathlib import Path

from nexustest.home import wait_for


def edit(home, *statements: str) -> None:
    with sqlite3.connect(home.path / "nexus.db") as database:
        for statement in statements:
            database.execute(statement)
    database.close()


def copy(source: Path, target: Path) -> None:
    """The store as it is, its log folded in, in the place of another."""
    for leftover in (target, target.with_name(target.name + "-wal"), target.with_name(target.name + "-shm")):
        leftover.unlink(missing_ok=True)
    with sqlite3.connect(source) as database, sqlite3.connect(target) as into:
        database.backup(into)
    database.close()
    into.close()
    target.chmod(0o600)


def failures(home) -> list[dict]:
    return [line for line in home.audit() if line["event"] == "integrity_failure"]


def test_an_edited_record_is_not_used_and_the_others_are(install):
    home = install.home
    edit(home, "UPDATE connections SET definition = replace(definition, 'api.test', 'evil.test') WHERE name = 'c0'")
    server = home.up()
    assert install.ask(server.port, "c0") != 200
    assert all(install.ask(server.port, name) == 200 for name in ("c1", "c2", "c3"))
    told = failures(home)
    assert [(line["connection"], line["reason"]) for line in told] == [("c0", "record_edited")]
    assert "fails the integrity check" in server.messages()
    home.nexus("connection", "disable", "c1")
    assert len(failures(home)) == 1, "once for each record"
    listed = home.nexus("connection", "list", "-o", "json")
    assert '"c0"' not in listed.stdout and "c0" in listed.stderr and "nexus store verify" in listed.stderr
    for command in (["connection", "delete", "c0"], ["connection", "show", "c0"], ["connection", "disable", "c0"]):
        refused = home.nexus(*command, code=8).stderr
        assert "connection c0 fails the integrity check" in refused and "nexus store verify" in refused, refused


def test_a_grant_that_was_widened_is_not_believed(install):
    home = install.home
    narrow = home.token("c0", "narrow")[0]
    server = home.up()
    assert install.ask(server.port, "c1") == 200
    others = "SELECT connections FROM tokens WHERE id <> '{0}' LIMIT 1"
    edit(home, f"UPDATE tokens SET connections = ({others.format(narrow)}), paths = '[]' WHERE id = '{narrow}'")
    server.stop()
    server = home.up()
    assert [(line["token_id"], line["reason"]) for line in failures(home)] == [(narrow, "record_edited")]
    assert install.ask(server.port, "c1") == 200


def test_a_store_that_was_put_back_is_told(install):
    home = install.home
    server = home.up()
    server.stop()
    old = home.directory / "old.db"
    copy(home.path / "nexus.db", old)
    server = home.up()
    identity = home.json("token", "list")[0]["token_id"]
    home.nexus("token", "revoke", identity)
    server.stop()
    assert failures(home) == []
    copy(old, home.path / "nexus.db")
    server = home.up()
    assert [line["reason"] for line in failures(home)] == ["store_went_back"]
    assert "earlier state" in server.messages()
    server.stop()
    server = home.up()
    assert len(failures(home)) == 1, "told once"


def test_a_store_without_its_manifest_serves_nothing(install):
    home = install.home
    server = home.up()
    assert install.ask(server.port, "c0") == 200
    edit(home, "UPDATE meta SET manifest_root = zeroblob(32)")
    wait_for(lambda: failures(home), 5, "an integrity failure")
    assert install.ask(server.port, "c0") != 200
    refused = home.nexus("token", "create", "--name", "x", "--use", "c0", code=8).stderr
    assert "fails the integrity check" in refused and "nexus store verify" in refused
