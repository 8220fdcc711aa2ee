"""A nexus home of its own, its server and the command line."""

import json
import os
import secrets
import signal
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def binary() -> Path:
    given = os.environ.get("NEXUS_BIN")
    if given:
        return Path(given)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "debug" / "nexus"


def installed(path: str) -> Path:
    """What `tests/run` has installed or built."""
    cache = Path(os.environ.get("NEXUS_TEST_CACHE") or Path.home() / ".cache" / "nexus-tests")
    found = cache / path
    assert found.exists(), f"{found} is missing: tests/run makes it"
    return found


def clean_environment(home: Path) -> dict[str, str]:
    """Only what programs need to start: no proxy, CA or key variable of this machine gets through."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "RUSTUP_HOME") if name in os.environ}
    kept.setdefault("RUSTUP_HOME", str(Path.home() / ".rustup"))
    return kept | {"HOME": str(home), "LC_ALL": "C.UTF-8"}


def canary(label: str) -> str:
    """A secret that cannot be anywhere by accident."""
    return f"canary-{label}-{secrets.token_urlsafe(24)}"


class Failed(AssertionError):
    pass


class Server:
    """One `nexus up` process."""

    def __init__(self, home: "Home", arguments: list[str], listen: bool = True):
        read, write = os.pipe()
        command = [str(binary()), "-o", "json", "up", "--admin", "127.0.0.1:0"]
        if listen:
            command += ["--listen", "127.0.0.1:0"]
        self.log = open(home.directory / f"server-{secrets.token_hex(3)}.log", "w+b")
        self.process = subprocess.Popen(
            command + ["--ready-fd", str(write)] + arguments,
            env=home.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            pass_fds=(write,),
        )
        os.close(write)
        line = self.process.stdout.readline()
        ready = os.read(read, 16)
        os.close(read)
        if not line or not ready:
            self.process.wait(10)
            raise Failed(f"nexus up did not start: {self.messages()}")
        told = json.loads(line)
        self.urls = told["proxy"]
        # A Unix socket has none.
        self.port = int(self.urls[0].rsplit(":", 1)[1]) if self.urls[0].startswith("http") else 0
        self.admin_port = int(told["admin"].rsplit(":", 1)[1])
        self.pid = self.process.pid

    def messages(self) -> str:
        self.log.flush()
        return Path(self.log.name).read_text(errors="replace")

    def rss(self) -> int:
        """Resident memory in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise Failed("no VmRSS")

    def stop(self, number: int = signal.SIGTERM, timeout: float = 15) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
            raise Failed(f"nexus did not stop within {timeout} s")
        finally:
            self.process.stdout.close()
        return code


class Home:
    def __init__(self, directory: Path, ca: Path, hosts: list[str], extra: str = "", egress: str = ""):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "nexus"
        self.path.mkdir(mode=0o700)
        self.user = directory / "user"
        self.user.mkdir()
        self.ca = ca
        self.hosts = hosts
        self.environment = clean_environment(self.user) | {"NEXUS_HOME": str(self.path)}
        self.servers: list[Server] = []
        self.configure(extra, egress)
        self.nexus("init")

    def config(self, extra: str = "", egress: str = "") -> str:
        hosts = ", ".join(f'"{host}" = "127.0.0.1"' for host in self.hosts)
        return (
            f"[dns]\nhosts = {{ {hosts} }}\n"
            f'[egress]\nallow_cidrs = ["127.0.0.0/8"]\n{egress}\n'
            f'[upstream]\nca_files = ["{self.ca}"]\n{extra}\n'
        )

    def configure(self, extra: str = "", egress: str = "") -> None:
        self.write_config(self.config(extra, egress))

    def write_config(self, text: str) -> None:
        temporary = self.path / "nexus.toml.new"
        temporary.write_text(text)
        temporary.rename(self.path / "nexus.toml")

    def up(self, *arguments: str, listen: bool = True) -> Server:
        """Starts a server on a free port, or without `listen` where the config says."""
        server = Server(self, list(arguments), listen)
        self.servers.append(server)
        return server

    def close(self) -> None:
        for server in self.servers:
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait(10)
            server.log.close()

    def nexus(self, *arguments: str, stdin: str | None = None, code: int | None = 0, timeout: float = 60):
        """Runs a command; its exit code has to be `code`, any for None."""
        done = subprocess.run(
            [str(binary()), *arguments],
            env=self.environment,
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if code is not None and done.returncode != code:
            raise Failed(f"nexus {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def json(self, *arguments: str, stdin: str | None = None):
        return json.loads(self.nexus(*arguments, "-o", "json", stdin=stdin).stdout)

    def register(self, name: str, base_url: str, *inject: str, secret: str | None = None, fields: dict | None = None):
        arguments = ["register", "custom", "--name", name, "--base-url", base_url]
        for spec in inject or ("header Authorization: Bearer {token}",):
            arguments += ["--inject", spec]
        if base_url.startswith("http://"):
            arguments.append("--allow-http")
        if fields is not None:
            return self.json(*arguments, "--stdin-json", stdin=json.dumps(fields))
        return self.json(*arguments, "--stdin", stdin=secret + "\n")

    def token(self, use: str, name: str = "tester", *arguments: str) -> tuple[str, str]:
        """Id and value of a new token."""
        made = self.json("token", "create", "--name", name, "--use", use, *arguments)
        return made["token_id"], made["token_value"]

    def audit(self) -> list[dict]:
        """Every line of every node, in the order of the files."""
        lines = []
        for segment in sorted(self.path.glob("audit/node-*/segment-*.jsonl")):
            for line in segment.read_text().splitlines():
                try:
                    lines.append(json.loads(line))
                except json.JSONDecodeError:
                    # The last line may be in the middle of being written.
                    pass
        return lines

    def audit_of(self, request_id: str, timeout: float = 3) -> list[dict]:
        """The lines of one request, once its terminal line is there."""
        return wait_for(
            lambda: [
                lines
                for lines in [[line for line in self.audit() if line.get("request_id") == request_id]]
                if any(line["event"] != "start" for line in lines)
            ],
            timeout,
            f"a terminal audit line of {request_id}",
        )[0]

    def run(self, use: str, command: list[str], env: dict | None = None, cwd: Path | None = None, timeout: float = 120,
            stdin: bytes | None = None) -> "Ran":
        """`nexus run --use … -- command`: the command gets environment variables and nothing else."""
        seen = self.directory / f"env-{secrets.token_hex(4)}"
        # What the client's process is started with is kept, to prove what it did not have.
        probe = ["sh", "-c", 'tr "\\000" "\\n" < /proc/self/environ > "$0"; exec "$@"', str(seen)]
        done = subprocess.run(
            [str(binary()), "run", "--use", use, "--", *probe, *command],
            env=self.environment | (env or {}),
            cwd=cwd or self.user,
            input=stdin if stdin is not None else b"",
            capture_output=True,
            timeout=timeout,
        )
        environment = seen.read_text() if seen.exists() else ""
        return Ran(done.returncode, done.stdout, done.stderr, environment)


class Ran:
    def __init__(self, code: int, stdout: bytes, stderr: bytes, environment: str):
        self.code = code
        self.stdout = stdout
        self.stderr = stderr
        self.environment = environment

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")

    def ok(self) -> "Ran":
        assert self.code == 0, f"exit {self.code}\n{self.text}\n{self.stderr.decode(errors='replace')}"
        return self

    def everything(self) -> str:
        return self.text + self.stderr.decode(errors="replace") + self.environment


def wait_for(condition, timeout: float, what: str):
    """Waits until the condition gives something true, and gives that."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"waited {timeout} s for {what}")
        time.sleep(0.02)


def in_threads(count: int, work) -> list:
    """Runs `work(index)` in that many threads at once; gives the results or raises the first error."""
    results: list = [None] * count
    errors: list[BaseException] = []
    gate = threading.Barrier(count)

    def one(index: int) -> None:
        try:
            gate.wait(30)
            results[index] = work(index)
        except BaseException as error:  # noqa: BLE001 - told to the caller
            errors.append(error)

    threads = [threading.Thread(target=one, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if errors:
        raise errors[0]
    return results
