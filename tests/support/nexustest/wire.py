"""HTTP/1.1 by raw sockets: what was sent is exactly what the test wrote."""

import base64
import re
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def code(self) -> str | None:
        return self.get("x-nexus-error")

    @property
    def request_id(self) -> str | None:
        return self.get("x-nexus-request-id")


class Wire:
    """One connection to the proxy."""

    def __init__(self, port: int, timeout: float = 10):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        try:
            self.socket.close()
        except OSError:
            pass

    def send(self, data: bytes | str) -> None:
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def fill(self) -> bool:
        """Reads more; False at the end of the stream."""
        try:
            more = self.socket.recv(65536)
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError) as error:
            if isinstance(error, ssl.SSLError) and isinstance(error, TimeoutError):
                raise
            more = b""
        self.buffer += more
        return bool(more)

    def line(self) -> bytes | None:
        while b"\r\n" not in self.buffer:
            if not self.fill():
                return None
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            if not self.fill():
                raise EOFError(f"the stream ended {count - len(self.buffer)} bytes early")
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def head(self) -> Answer | None:
        """Status line and fields of the next answer; None at the end of the stream."""
        line = self.line()
        if line is None:
            return None
        found = re.fullmatch(rb"HTTP/1\.[01] (\d{3})(?: .*)?", line)
        assert found, f"not a status line: {line!r}"
        answer = Answer(int(found[1]))
        while line := self.line():
            name, _, value = line.partition(b":")
            answer.headers.append((name.decode().lower(), value.strip().decode("latin-1")))
        return answer

    def answer(self, method: str = "GET", interim: bool = False) -> Answer | None:
        """The next answer with its body."""
        answer = self.head()
        while answer and 100 <= answer.status < 200 and answer.status != 101 and not interim:
            answer = self.head()
        if answer is None or method == "HEAD" or answer.status in (101, 204, 304) or answer.status < 200:
            return answer
        if method == "CONNECT" and 200 <= answer.status < 300:
            return answer
        if answer.get("transfer-encoding") == "chunked":
            while size := int(self.line().split(b";")[0], 16):
                answer.body += self.exactly(size)
                self.exactly(2)
            while self.line():
                pass
        elif answer.get("content-length") is not None:
            answer.body = self.exactly(int(answer.get("content-length")))
        else:
            while self.fill():
                pass
            answer.body, self.buffer = self.buffer, b""
        return answer

    def answers(self) -> list[Answer]:
        """Every answer until the end of the stream."""
        answers = []
        while (answer := self.answer()) is not None:
            answers.append(answer)
        return answers

    def is_closed(self, within: float = 5) -> bool:
        """Whether the proxy ends the stream in that time, without another byte."""
        self.socket.settimeout(within)
        try:
            return not self.fill() and not self.buffer
        except TimeoutError:
            return False

    def connect(self, authority: str, token: str | None, version: str = "1.1") -> Answer:
        lines = [f"CONNECT {authority} HTTP/{version}"]
        if version == "1.1":
            lines.append(f"Host: {authority}")
        if token:
            lines.append(f"Proxy-Authorization: {basic(token)}")
        self.send("\r\n".join(lines) + "\r\n\r\n")
        answer = self.answer("CONNECT")
        assert answer is not None, "the proxy closed the connection at CONNECT"
        return answer

    def secure(self, host: str, ca: Path, alpn: list[str] | None = None) -> None:
        """TLS over this connection."""
        context = ssl.create_default_context(cafile=str(ca))
        if alpn:
            context.set_alpn_protocols(alpn)
        assert not self.buffer
        self.socket = context.wrap_socket(self.socket, server_hostname=host)


def basic(token: str, user: str = "x") -> str:
    return "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()


def tunnel(port: int, ca: Path, host: str, host_port: int, token: str, alpn: list[str] | None = None,
           timeout: float = 10) -> Wire:
    """An intercepted tunnel."""
    wire = Wire(port, timeout)
    answer = wire.connect(f"{host}:{host_port}", token)
    assert answer.status == 200, f"CONNECT: {answer}"
    wire.secure(host, ca, alpn)
    return wire
