"""`nexus store backup` and `restore`, and files that are no store: refused by name, and left as they are."""

import hashlib
import os
import secrets
import shutil
import sqlite3
import subprocess
import threading
from pathlib import Path

import pytest
from nexustest.home import Home, binary, canary

API = "api.example.test"
NEWER = "was made by a newer version of nexus"
UNUSABLE = "is not a usable store"


@pytest.fixture
def secret() -> str:
    return canary("backup")


@pytest.fixture
def home(tmp_path, authority, secret):
    home = Home(tmp_path / "home", authority.path, [API])
    home.register("api", f"https://{API}:9", secret=secret)
    yield home
    home.close()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(home) -> dict[str, str]:
    """Every file of the store's directory, with its content."""
    return {path.name: digest(path) for path in home.path.iterdir() if path.is_file()}


def names(home) -> list[str]:
    return sorted(record["name"] for record in home.json("list"))


def add_migration(path: Path) -> None:
    """What a newer version would have left."""
    with sqlite3.connect(path) as database:
        database.execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) "
            "VALUES (999999, 'of the future', 1, x'00', 0)"
        )
    database.close()


def test_a_backup_comes_back(home, secret, tmp_path):
    copy = tmp_path / "copy.db"
    told = home.json("store", "backup", str(copy))
    assert told["backup"] == str(copy) and told["bytes"] == copy.stat().st_size
    assert copy.stat().st_mode & 0o7777 == 0o600
    assert secret.encode() not in copy.read_bytes()
    before = digest(copy)
    home.register("later", f"https://{API}:9", secret="later")
    token = home.token("api")[0]
    assert names(home) == ["api", "later"]
    restored = home.json("store", "restore", str(copy))
    assert names(home) == ["api"]
    assert home.json("token", "list") == []
    # The old one is kept, and comes back the same way.
    kept = Path(restored["kept"])
    assert kept.name.startswith("nexus.db.before-restore-") and kept.stat().st_mode & 0o077 == 0
    home.nexus("store", "restore", str(kept))
    assert names(home) == ["api", "later"]
    assert [one["token_id"] for one in home.json("token", "list")] == [token]
    assert digest(copy) == before
    # It works: the credential opens.
    assert home.json("connection", "show", "api")["state"] == "active"
    assert not [path.name for path in home.path.iterdir() if path.name.endswith(".tmp")]


def test_a_backup_under_a_server_that_writes(home, tmp_path):
    """Consistent while others write: whatever is in it had been acknowledged, and it opens."""
    server = home.up()
    stop = threading.Event()
    made: list[str] = []

    def write() -> None:
        while not stop.is_set():
            made.append(home.token("api", f"t{len(made)}")[0])

    writer = threading.Thread(target=write)
    writer.start()
    counts = []
    try:
        for number in range(5):
            at_least = len(made)
            copy = tmp_path / f"copy-{number}.db"
            home.nexus("store", "backup", str(copy))
            counts.append((at_least, copy))
    finally:
        stop.set()
        writer.join(60)
    assert server.stop() == 0
    for at_least, copy in counts:
        home.nexus("store", "restore", str(copy))
        ids = [one["token_id"] for one in home.json("token", "list")]
        assert len(ids) >= at_least and set(ids) <= set(made)
    assert made


def test_nothing_is_overwritten(home, tmp_path):
    there = tmp_path / "there"
    there.write_text("keep me")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    hard = tmp_path / "hard"
    os.link(there, hard)
    for target in (there, link, hard, tmp_path, home.path / "nexus.db"):
        done = home.nexus("store", "backup", str(target), code=6)
        assert "exists already" in done.stderr
    assert there.read_text() == "keep me" and not (tmp_path / "nowhere").exists()
    assert names(home) == ["api"]
    home.nexus("store", "backup", str(tmp_path / "absent" / "x.db"), code=None).returncode != 0


def test_backup_needs_no_key_and_restore_does(home, tmp_path):
    copy = tmp_path / "copy.db"
    key = home.path / "root.key"
    key.rename(tmp_path / "root.key")
    home.nexus("store", "backup", str(copy))
    before = files(home)
    done = home.nexus("store", "restore", str(copy), code=None)
    assert done.returncode != 0 and "root.key" in done.stderr
    assert files(home) == before


def test_a_running_server_is_in_the_way(home, tmp_path):
    copy = tmp_path / "copy.db"
    home.nexus("store", "backup", str(copy))
    server = home.up()
    done = home.nexus("store", "restore", str(copy), code=6)
    assert f"process {server.pid}" in done.stderr and "stop it" in done.stderr
    assert names(home) == ["api"]
    # One that a killed server leaves behind is not.
    server.process.kill()
    server.process.wait(10)
    home.nexus("store", "restore", str(copy))


def test_another_program_is_in_the_way(home, tmp_path):
    copy = tmp_path / "copy.db"
    home.nexus("store", "backup", str(copy))
    other = sqlite3.connect(home.path / "nexus.db", isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM meta").fetchall()
    done = home.nexus("store", "restore", str(copy), code=6)
    assert "another program has" in done.stderr
    other.execute("COMMIT")
    other.close()
    assert names(home) == ["api"]
    home.nexus("store", "restore", str(copy))


def test_a_wrong_key_changes_nothing(home, tmp_path):
    """F7."""
    copy = tmp_path / "copy.db"
    home.nexus("store", "backup", str(copy))
    key = home.path / "root.key"
    right = key.read_text()
    key.write_text(secrets.token_hex(32) + "\n")
    before, backup = files(home), digest(copy)
    for command in (["list"], ["up"], ["connection", "show", "api"], ["token", "list"]):
        done = home.nexus(*command, code=1)
        assert f"the root key is not the one that {home.path / 'nexus.db'} was sealed with" in done.stderr
    done = home.nexus("store", "restore", str(copy), code=1)
    assert f"the root key is not the one that {copy} was sealed with" in done.stderr
    assert files(home) == before and digest(copy) == backup
    key.write_text(right)
    assert names(home) == ["api"]


def test_a_store_of_a_newer_version_changes_nothing(home, tmp_path):
    """F18."""
    copy = tmp_path / "copy.db"
    home.nexus("store", "backup", str(copy))
    add_migration(copy)
    before, backup = files(home), digest(copy)
    done = home.nexus("store", "restore", str(copy), code=1)
    assert f"{copy} {NEWER}" in done.stderr
    assert files(home) == before and digest(copy) == backup
    shutil.copy(copy, home.path / "nexus.db")
    before = files(home)
    for command in (["list"], ["up"], ["init"], ["store", "backup", str(tmp_path / "second.db")]):
        done = home.nexus(*command, code=None)
        if command == ["init"]:
            continue
        assert done.returncode == 1 and NEWER in done.stderr, (command, done.stderr)
        assert files(home) == before
    assert not (tmp_path / "second.db").exists()


def broken(path: Path) -> list[tuple[str, bytes, str]]:
    whole = path.read_bytes()
    size = len(whole)
    rows = [
        ("empty", b"", "it is cut short"),
        ("garbage", secrets.token_bytes(8192), "it is not an SQLite file"),
        ("text", b"[server]\nlisten = []\n" * 100, "it is not an SQLite file"),
        ("wrong magic", b"SQLite format 4\0" + whole[16:], "it is not an SQLite file"),
        ("zeroes", b"\0" * size, "it is not an SQLite file"),
        ("header alone", whole[:100], ""),
        ("damaged inside", whole[:4096] + secrets.token_bytes(size - 4096), ""),
    ]
    for length in [1, 15, 16, 99, 512, 4095, 4096, size // 2, size - 4096, size - 1]:
        rows.append((f"cut at {length}", whole[:length], "it is cut short" if length < 16 else ""))
    return rows


def test_damaged_files_change_nothing(home, tmp_path):
    """F6: as the store and as a backup."""
    copy = tmp_path / "copy.db"
    home.nexus("store", "backup", str(copy))
    store = home.path / "nexus.db"
    good = store.read_bytes()
    for name, content, reason in broken(copy):
        bad = tmp_path / "bad.db"
        bad.write_bytes(content)
        before = files(home)
        done = home.nexus("store", "restore", str(bad), code=1)
        assert f"{bad} {UNUSABLE}" in done.stderr and reason in done.stderr, (name, done.stderr)
        assert files(home) == before and bad.read_bytes() == content, name
        store.write_bytes(content)
        for command in (["list"], ["up"], ["store", "backup", str(tmp_path / "second.db")]):
            done = home.nexus(*command, code=1)
            assert f"{store} {UNUSABLE}" in done.stderr and reason in done.stderr, (name, command, done.stderr)
        assert store.read_bytes() == content and not (tmp_path / "second.db").exists(), name
        # This is what a backup is for: it takes a damaged file's place.
        home.nexus("store", "restore", str(copy))
        assert names(home) == ["api"], name
        kept = list(home.path.glob("nexus.db.before-restore-*"))
        assert [one.read_bytes() for one in kept if not one.name.endswith("-wal")] == [content], name
        for one in kept:
            one.unlink()
        assert not [path.name for path in home.path.iterdir() if path.name.endswith(".tmp")]
    store.write_bytes(good)


def test_what_is_no_backup_is_refused(home, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    used = tmp_path / "used.db"
    home.nexus("store", "backup", str(used))
    (tmp_path / "used.db-wal").write_bytes(b"x" * 100)
    before = files(home)
    for target, reason in [
        (tmp_path / "absent", "No such file"),
        (tmp_path, "it is not a file"),
        (pipe, "it is not a file"),
        (other, "it is an SQLite file of another program"),
        (used, "it has a log (-wal) beside it"),
    ]:
        done = home.nexus("store", "restore", str(target), code=1)
        assert reason in done.stderr, done.stderr
        assert files(home) == before


def test_an_old_log_is_not_played_into_the_new_file(home, tmp_path):
    """The store was left with a log by a kill, and is then damaged: the log goes with it."""
    copy = tmp_path / "copy.db"
    home.nexus("store", "backup", str(copy))
    server = home.up()
    home.register("later", f"https://{API}:9", secret="later")
    server.process.kill()
    server.process.wait(10)
    store, log = home.path / "nexus.db", home.path / "nexus.db-wal"
    assert log.exists() and log.stat().st_size > 0, "the kill left a log"
    store.write_bytes(b"no store any more")
    home.nexus("store", "restore", str(copy))
    assert names(home) == ["api"]
    kept = next(path for path in home.path.glob("nexus.db.before-restore-*Z"))
    assert kept.with_name(kept.name + "-wal").stat().st_size > 0


def test_restore_into_an_empty_home(home, tmp_path, authority):
    """A new machine: key and CA from where they are kept, the store from its backup."""
    copy = tmp_path / "copy.db"
    home.nexus("store", "backup", str(copy))
    new = tmp_path / "new"
    new.mkdir(mode=0o700)
    shutil.copy(home.path / "root.key", new / "root.key")
    environment = home.environment | {"NEXUS_HOME": str(new)}
    done = subprocess.run([binary(), "store", "restore", str(copy)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([binary(), "list"], env=environment, capture_output=True, text=True)
    assert "api" in done.stdout, done.stderr
