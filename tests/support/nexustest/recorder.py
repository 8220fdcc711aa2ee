"""An API that keeps every byte it gets, and reads requests as strictly as can be."""

import re
import socket
import ssl
import threading


class Malformed(AssertionError):
    """What arrived has no single meaning."""


class Request:
    def __init__(self, head: bytes, body: bytes, complete: bool):
        self.head = head
        self.body = body
        self.complete = complete
        lines = head.split(b"\r\n")
        self.method, self.target, self.version = (part.decode("latin-1") for part in lines[0].split(b" "))
        self.fields = []
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            self.fields.append((name.decode().lower(), value.decode("latin-1").strip()))

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    def __repr__(self) -> str:
        return f"<{self.method} {self.target} complete={self.complete} body={self.body[:60]!r}>"


TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"


class Recorder:
    def __init__(self, context: ssl.SSLContext | None = None):
        self.context = context
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.connections = 0
        self.raw: list[bytearray] = []
        self.requests: list[Request] = []
        self.problems: list[str] = []
        self.lock = threading.Lock()
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self) -> None:
        self.listener.close()

    def mark(self) -> int:
        with self.lock:
            return len(self.requests)

    def since(self, mark: int) -> list[Request]:
        with self.lock:
            return self.requests[mark:]

    def take_problems(self) -> list[str]:
        """What was malformed since the last time; the next test starts anew."""
        with self.lock:
            problems, self.problems = self.problems, []
        return problems

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        kept = bytearray()
        with self.lock:
            self.raw.append(kept)
        try:
            stream = self.context.wrap_socket(connection, server_side=True) if self.context else connection
        except (OSError, ssl.SSLError):
            connection.close()
            return
        with stream:
            reader = Reader(stream, kept)
            try:
                while self.one(reader, stream):
                    pass
            except Malformed as problem:
                with self.lock:
                    self.problems.append(f"{problem}: {bytes(kept)[-300:]!r}")
            except OSError:
                pass

    def one(self, reader: "Reader", stream) -> bool:
        head = reader.head()
        if head is None:
            return False
        method, size, chunked = check(head)
        complete, body = True, b""
        try:
            if chunked:
                body = reader.chunks()
            elif size:
                body = reader.exactly(size)
        except EOFError:
            complete = False
        request = Request(head, body, complete)
        with self.lock:
            self.requests.append(request)
        if not complete:
            return False
        content = b"%d" % len(body)
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content)
        stream.sendall(answer + (b"" if method == b"HEAD" else content))
        return True


class Reader:
    def __init__(self, stream, kept: bytearray):
        self.stream = stream
        self.kept = kept
        self.buffer = b""

    def fill(self) -> None:
        more = self.stream.recv(65536)
        if not more:
            raise EOFError
        self.kept += more
        self.buffer += more

    def head(self) -> bytes | None:
        while b"\r\n\r\n" not in self.buffer:
            try:
                self.fill()
            except EOFError:
                if self.buffer:
                    raise Malformed("half a head")
                return None
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        return head

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self.fill()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            self.fill()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def chunks(self) -> bytes:
        body = b""
        while True:
            line = self.line()
            if not re.fullmatch(rb"[0-9a-fA-F]{1,16}", line):
                raise Malformed(f"chunk size {line!r}")
            size = int(line, 16)
            if size == 0:
                if self.line():
                    raise Malformed("a trailer")
                return body
            body += self.exactly(size)
            if self.exactly(2) != b"\r\n":
                raise Malformed("a chunk without its end")


def check(head: bytes) -> tuple[bytes, int, bool]:
    """Method, length and whether chunked; everything that another server could read differently is a problem."""
    if re.search(rb"[^\r]\n|\r[^\n]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", head):
        raise Malformed("a control byte or a bare line end")
    lines = head.split(b"\r\n")
    found = re.fullmatch(rb"(" + TOKEN + rb") (/[\x21-\x7e]*) HTTP/1\.1", lines[0])
    if not found:
        raise Malformed(f"request line {lines[0]!r}")
    names = []
    lengths, codings = [], []
    for line in lines[1:]:
        field = re.fullmatch(rb"(" + TOKEN + rb"):[ \t]*(.*?)[ \t]*", line)
        if not field:
            raise Malformed(f"field {line!r}")
        name = field[1].lower()
        names.append(name)
        if name == b"content-length":
            lengths.append(field[2])
        if name == b"transfer-encoding":
            codings.append(field[2])
        if name.replace(b"_", b"-") in (b"content-length", b"transfer-encoding") and b"_" in name:
            raise Malformed(f"twin {name!r}")
    if names.count(b"host") != 1:
        raise Malformed("not one Host")
    if len(lengths) + len(codings) > 1:
        raise Malformed(f"lengths {lengths} and codings {codings}")
    if lengths and not re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
        raise Malformed(f"length {lengths}")
    if codings and codings[0] != b"chunked":
        raise Malformed(f"coding {codings}")
    for name in names:
        if name in (b"proxy-authorization", b"proxy-connection") or name.startswith(b"x-nexus-"):
            raise Malformed(f"{name!r} was passed on")
    return found[1], int(lengths[0]) if lengths else 0, bool(codings)
