"""Where the root key comes from, and that it is in nobody's environment or arguments."""

import os
import secrets
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest
from nexustest.home import Home, binary, wait_for
from nexustest.process import needs_root, shown

API = "api.example.test"

FROM_VARIABLE = '[store]\nroot_key = { env = "NEXUS_ROOT_KEY" }\n'


@pytest.fixture
def key() -> str:
    return secrets.token_hex(32)


@pytest.fixture
def home(tmp_path, authority, key):
    home = Home(tmp_path / "home", authority.path, [API], extra=FROM_VARIABLE)
    home.environment["NEXUS_ROOT_KEY"] = key
    home.register("api", f"https://{API}:9", secret="the credential")
    yield home
    home.close()


def descriptors(server) -> int:
    return len([entry for entry in Path(f"/proc/{server.pid}/fd").iterdir() if os.readlink(entry).startswith("pipe:")])


@needs_root
def test_a_server_does_not_have_the_variable(home, key, tmp_path, authority):
    server = home.up()
    text = shown(server.pid)
    assert "NEXUS_HOME=" in text, "the environment was read"
    assert key not in text and "NEXUS_ROOT_KEY=" not in text
    assert "a file or a command is safer" in server.messages()
    assert key not in server.messages()
    # Names and arguments are those that it was started with.
    assert Path(f"/proc/{server.pid}/comm").read_text().strip() == binary().name
    arguments = Path(f"/proc/{server.pid}/cmdline").read_bytes().split(b"\0")
    assert arguments[0].decode() == str(binary()) and b"up" in arguments
    # The pipe of the key is closed: no descriptor more than a server with a key file has.
    plain = Home(tmp_path / "plain", authority.path, [API])
    try:
        other = plain.up()
        wait_for(lambda: descriptors(server) == descriptors(other), 10, "the same number of pipes")
    finally:
        plain.close()
    assert server.stop() == 0


def test_a_command_of_run_does_not_have_it(home, key):
    script = "tr '\\0' '\\n' < /proc/self/environ; ls /proc/self/fd; tr '\\0' ' ' < /proc/$PPID/cmdline"
    ran = home.run("api", ["sh", "-c", script]).ok()
    assert "HTTPS_PROXY=" in ran.text
    assert key not in ran.everything()
    assert "NEXUS_ROOT_KEY" not in ran.text, "nor the variable of the descriptor"
    with_file = subprocess.run(["sh", "-c", "ls /proc/self/fd"], capture_output=True, text=True, check=True)
    numbers = [line for line in ran.text.splitlines() if line.isdigit()]
    assert len(numbers) <= len(with_file.stdout.split()), "no descriptor more than usual"


def test_streams_and_exit_codes_pass_through(home):
    for code in (0, 3, 77):
        ran = home.run("api", ["sh", "-c", f"cat; echo to-stderr >&2; exit {code}"], stdin=b"some\0bytes")
        assert (ran.code, ran.stdout) == (code, b"some\0bytes")
        assert b"to-stderr" in ran.stderr
    assert home.run("api", ["sh", "-c", "kill -9 $$"]).code == 137
    assert home.nexus("connection", "show", "absent", code=3).stdout == ""
    assert home.nexus("--nonsense", code=2).stdout == ""
    # A closed standard output stays closed.
    done = subprocess.run(["sh", "-c", '"$0" list >&-', str(binary())], env=home.environment, capture_output=True)
    assert b"the credential" not in done.stderr


def test_signals_reach_the_one_process(home, key):
    server = home.up()
    # The process that was started is the one that serves.
    with urllib.request.urlopen(f"http://127.0.0.1:{server.admin_port}/healthz", timeout=10) as answer:
        assert answer.status == 200
    server.process.send_signal(signal.SIGTERM)
    assert server.stop() == 0


def test_without_the_variable_it_is_said(home):
    del home.environment["NEXUS_ROOT_KEY"]
    done = home.nexus("list", code=1)
    assert "NEXUS_ROOT_KEY for the root key is not set" in done.stderr
    # A descriptor that is no pipe gives no key either.
    for number in ("0", "2", "x", "-1", "999"):
        home.environment["NEXUS_ROOT_KEY_FD"] = number
        done = home.nexus("list", code=1)
        assert "NEXUS_ROOT_KEY for the root key is not set" in done.stderr


def test_another_value_is_refused(home, key):
    for value, message in [
        (secrets.token_hex(32), "not the one that"),
        ("hunter2", "is not 64 hexadecimal digits or base64"),
        ("x" * 100_000, "is not 64 hexadecimal digits or base64"),
        ("", "is not 64 hexadecimal digits or base64"),
    ]:
        home.environment["NEXUS_ROOT_KEY"] = value
        done = home.nexus("connection", "show", "api", code=None)
        assert done.returncode != 0 and message in done.stderr, done.stderr
        assert "hunter2" not in done.stderr


@pytest.mark.parametrize("form", ["file", "env", "command"])
def test_a_passphrase_from_each_source(tmp_path, authority, form):
    passphrase = "correct horse " + secrets.token_hex(8)
    given = tmp_path / "passphrase"
    given.write_text(passphrase + "\n")
    given.chmod(0o600)
    source = {
        "file": f'file = "{given}"',
        "env": 'env = "NEXUS_PASSPHRASE"',
        "command": f'command = ["cat", "{given}"]',
    }[form]
    home = Home(tmp_path / "home", authority.path, [API], extra=f"[store]\nroot_key = {{ {source}, passphrase = true }}\n")
    if form == "env":
        home.environment["NEXUS_PASSPHRASE"] = passphrase
    try:
        home.register("api", f"https://{API}:9", secret="the credential")
        assert home.json("connection", "show", "api")["name"] == "api"
        assert not (home.path / "root.key").exists()
        server = home.up()
        if os.geteuid() == 0:
            assert passphrase not in shown(server.pid)
        assert server.stop() == 0
        given.write_text("another " + passphrase)
        if form == "env":
            home.environment["NEXUS_PASSPHRASE"] = "another " + passphrase
        done = home.nexus("list", code=None)
        assert done.returncode != 0 and "not the one that" in done.stderr
        given.write_text("too short")
        if form == "env":
            home.environment["NEXUS_PASSPHRASE"] = "too short"
        done = home.nexus("list", code=None)
        assert done.returncode != 0 and "12 characters or more" in done.stderr, done.stderr
        assert "too short" not in done.stderr
    finally:
        home.close()


def test_a_passphrase_file_is_not_made_up(tmp_path, authority):
    home = Home(tmp_path / "home", authority.path, [API])
    path = home.path / "absent"
    other = tmp_path / "other"
    home.configure(extra='[store]\nurl = "sqlite://other.db"\nroot_key = { file = "absent", passphrase = true }\n')
    for command in (["init"], ["up"]):
        done = home.nexus(*command, code=1)
        assert f"{path} does not exist; write a passphrase" in done.stderr
    assert not path.exists() and not other.exists()


@needs_root
def test_another_process_of_the_same_user_cannot_look_in(nobody):
    """F12: neither memory, nor environment, nor descriptors; and no core file."""
    own, program, user = nobody
    config = '[server]\nlisten = ["127.0.0.1:0"]\nadmin = "127.0.0.1:0"\n' + FROM_VARIABLE
    (own / "nexus.toml").write_text(config)
    environment = {"PATH": os.environ["PATH"], "HOME": str(own), "NEXUS_HOME": str(own), "NEXUS_ROOT_KEY": "ab" * 32}
    # The shell opens the file for the descriptor as the program's own user.
    server = subprocess.Popen(
        ["sh", "-c", 'exec "$0" -o json up --ready-fd 3 3>ready', program], env=environment, cwd=own,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **user,
    )
    try:
        assert server.stdout.readline(), server.stderr.read()
        wait_for(lambda: (own / "ready").read_text() == "ready\n", 10, "the line at the descriptor")
        looks = """
import ctypes, os, sys
pid = sys.argv[1]
for name in ("mem", "environ", "maps", "auxv"):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            print(name, "open")
    except PermissionError:
        print(name, "refused")
try:
    print("fd", len(os.listdir(f"/proc/{pid}/fd")))
except PermissionError:
    print("fd refused")
libc = ctypes.CDLL(None, use_errno=True)
print("ptrace", libc.ptrace(16, int(pid), 0, 0), ctypes.get_errno())
"""
        looking = subprocess.run(["/usr/bin/python3", "-c", looks, str(server.pid)], capture_output=True, text=True, **user)
        assert looking.stdout.split("\n")[:-1] == [
            "mem refused", "environ refused", "maps refused", "auxv refused", "fd refused", "ptrace -1 1",
        ], looking.stdout + looking.stderr
        # The test can fail: another program of that user is open to it.
        sleeping = subprocess.Popen(["sleep", "60"], **user)
        try:
            wait_for(lambda: b"sleep" in Path(f"/proc/{sleeping.pid}/cmdline").read_bytes(), 5, "the exec")
            looking = subprocess.run(
                ["/usr/bin/python3", "-c", looks, str(sleeping.pid)], capture_output=True, text=True, **user
            )
            assert "environ open" in looking.stdout and "maps open" in looking.stdout
        finally:
            sleeping.kill()
            sleeping.wait(5)
        limits = Path(f"/proc/{server.pid}/limits").read_text()
        core = next(line.split() for line in limits.splitlines() if line.startswith("Max core file size"))
        assert core[4] == "0", core
        # What it needs of itself still works: a second process of the home finds it.
        listed = subprocess.run([program, "doctor"], env=environment, capture_output=True, text=True, **user)
        assert "server" in listed.stdout + listed.stderr
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(15) == 0
        server.stdout.close()
        server.stderr.close()


def test_a_command_of_run_keeps_its_core_limit(home):
    """The limit that nexus sets for itself is not its children's."""
    script = 'for i in $(seq 200); do v=$(ulimit -c); [ "$v" != 0 ] && break; sleep 0.02; done; echo "core $v"'
    done = subprocess.run(
        ["sh", "-c", 'ulimit -c 8 2>/dev/null || exit 9; exec "$@"', "sh", str(binary()), "run", "--use", "api", "--",
         "sh", "-c", script],
        env=home.environment, capture_output=True, text=True, timeout=60,
    )
    if done.returncode == 9:
        pytest.skip("core files are limited here already")
    assert "core 8" in done.stdout, done.stdout + done.stderr


