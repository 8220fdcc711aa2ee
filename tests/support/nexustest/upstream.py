"""An API as agents meet them: HTTPS with HTTP/1.1 and h2, WebSocket, server-sent events, git, package registries.

Runs in a thread of the test process, so that tests read what it recorded.
"""

import asyncio
import gzip
import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
import threading
import zipfile
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path

from hypercorn.asyncio import serve
from hypercorn.config import Config


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    host: str
    path: str
    query: str
    version: str
    headers: list[tuple[str, str]]
    body: int = 0
    digest: str = ""
    kept: bytes = b""
    done: bool = False

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def one(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1, f"{name} arrived {len(values)} times: {values}"
        return values[0] if values else None


@dataclass
class State:
    requests: list[Seen] = field(default_factory=list)
    git_root: Path | None = None
    released: dict[str, threading.Event] = field(default_factory=dict)
    refuse: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Upstream:
    def __init__(self, authority, *names: str, git_root: Path | None = None):
        self.state = State(git_root=git_root)
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = listener.getsockname()[1]
        certificate, key = authority.issue(*names)
        config = Config()
        # The server closes what it is given.
        config.bind = [f"fd://{listener.detach()}"]
        config.certfile, config.keyfile = str(certificate), str(key)
        config.alpn_protocols = ["h2", "http/1.1"]
        config.keep_alive_timeout = 600
        # Past this number it says GOAWAY and leaves the open streams without an answer.
        config.keep_alive_max_requests = 1_000_000_000
        config.graceful_timeout = 0.2
        config.loglevel = "CRITICAL"
        config.h2_max_concurrent_streams = 1000
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()

        def body() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(serve(self.app, config, shutdown_trigger=self._stop.wait))

        self._thread = threading.Thread(target=body, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)

    @property
    def requests(self) -> list[Seen]:
        with self.state.lock:
            return list(self.state.requests)

    def to(self, path: str) -> list[Seen]:
        return [seen for seen in self.requests if seen.path == path]

    def under(self, prefix: str) -> list[Seen]:
        return [seen for seen in self.requests if seen.path.startswith(prefix)]

    def gate(self, name: str) -> threading.Event:
        """What a stream waits for before its next step."""
        return self.state.released.setdefault(name, threading.Event())

    async def app(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        host = next((value for name, value in headers if name in ("host", ":authority")), "")
        seen = Seen(
            method=scope.get("method", "GET"),
            host=host,
            path=scope["path"],
            query=scope["query_string"].decode(),
            version=scope["http_version"],
            headers=headers,
        )
        with self.state.lock:
            self.state.requests.append(seen)
        try:
            if scope["type"] == "websocket":
                await self.websocket(seen, receive, send)
            else:
                await self.http(seen, receive, send)
        except (ConnectionError, asyncio.CancelledError):
            pass

    async def websocket(self, seen: Seen, receive, send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") == "credential?":
                await send({"type": "websocket.send", "text": f"it is {seen.one('authorization')}"})
            elif message.get("text") is not None:
                await send({"type": "websocket.send", "text": "echo " + message["text"]})
            else:
                await send({"type": "websocket.send", "bytes": message["bytes"]})

    async def http(self, seen: Seen, receive, send) -> None:
        path = seen.path
        if path.startswith("/git/"):
            return await self.git(seen, receive, send)
        if path == "/early":
            return await answer(send, 403, b"no", "text/plain")
        body = await drain(seen, receive)
        if path in ("/echo", "/"):
            return await answer_json(send, echo(seen))
        if path.startswith("/status/"):
            return await answer(send, int(path.rsplit("/", 1)[1]), b"{}", "application/json")
        if path == "/reflect":
            return await self.reflect(seen, send)
        if path == "/sse":
            return await self.events(seen, send)
        if path == "/silent":
            await start(send, 200, "text/plain")
            await send({"type": "http.response.body", "body": b"begin\n", "more_body": True})
            await self.wait("silent")
            return await send({"type": "http.response.body", "body": b"end\n"})
        if path == "/slow":
            await self.wait("slow")
            return await answer(send, 200, b"at last", "text/plain")
        if path.endswith("/chat/completions"):
            return await openai(body, send)
        if path.endswith("/v1/messages"):
            return await anthropic(body, send)
        if path.startswith("/bucket"):
            return await s3(seen, send)
        if path.startswith("/simple/") or path.startswith("/files/"):
            return await python_index(path, send)
        if path.startswith("/crates/"):
            return await crates(seen, send)
        if path.startswith("/npm/"):
            return await npm(seen, send)
        return await answer(send, 404, b"not here", "text/plain")

    async def wait(self, name: str) -> None:
        gate = self.gate(name)
        while not gate.is_set():
            await asyncio.sleep(0.02)

    async def events(self, seen: Seen, send) -> None:
        await start(send, 200, "text/event-stream")
        for number in range(5):
            # The next event is sent when the client has told of the last one.
            await send({"type": "http.response.body", "body": f"data: {number}\n\n".encode(), "more_body": True})
            await self.wait(f"sse-{number}")
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def reflect(self, seen: Seen, send) -> None:
        """Gives the credential back in every way that an API could."""
        value = seen.one("authorization") or seen.one("x-api-key") or ""
        raw = value.removeprefix("Bearer ")
        text = json.dumps(
            {"authorization": value, "raw": raw, "base64": b64encode(raw.encode()).decode(), "hex": raw.encode().hex()}
        ).encode()
        headers = [(b"x-reflected", raw.encode()), (b"location", f"/next?key={raw}".encode())]
        if "gzip" in seen.query:
            if "gzip" not in (seen.one("accept-encoding") or ""):
                headers.append((b"x-note", b"gzip was not asked for"))
            text = gzip.compress(text * 50)
            headers.append((b"content-encoding", b"gzip"))
        await answer(send, 200, text, "application/json", headers)

    async def git(self, seen: Seen, receive, send) -> None:
        data = bytearray()
        while True:
            message = await receive()
            data += message.get("body", b"")
            if not message.get("more_body"):
                break
        seen.body, seen.done = len(data), True
        if "authorization" not in dict(seen.headers):
            return await answer(send, 401, b"", "text/plain", [(b"www-authenticate", b'Basic realm="git"')])
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.state.git_root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": "tester",
            "REMOTE_ADDR": "127.0.0.1",
            "REQUEST_METHOD": seen.method,
            "PATH_INFO": seen.path.removeprefix("/git"),
            "QUERY_STRING": seen.query,
            "CONTENT_TYPE": seen.one("content-type") or "",
            "HTTP_CONTENT_ENCODING": seen.one("content-encoding") or "",
            "GIT_PROTOCOL": seen.one("git-protocol") or "",
        }
        ran = await asyncio.to_thread(
            subprocess.run, ["git", "http-backend"], env=environment, input=bytes(data), capture_output=True
        )
        head, _, body = ran.stdout.partition(b"\r\n\r\n")
        status, headers = 200, []
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b": ")
            if name.lower() == b"status":
                status = int(value.split()[0])
            elif name:
                headers.append((name.lower(), value))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def drain(seen: Seen, receive) -> bytes:
    digest = hashlib.sha256()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return seen.kept
        chunk = message.get("body", b"")
        digest.update(chunk)
        seen.body += len(chunk)
        if len(seen.kept) < 65536:
            seen.kept += chunk
        if not message.get("more_body"):
            break
    seen.digest, seen.done = digest.hexdigest(), True
    return seen.kept


async def start(send, status: int, kind: str, headers=()) -> None:
    all_headers = [(b"content-type", kind.encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})


async def answer(send, status: int, body: bytes, kind: str, headers=()) -> None:
    await start(send, status, kind, [(b"content-length", str(len(body)).encode()), *headers])
    await send({"type": "http.response.body", "body": body})


async def answer_json(send, value, status: int = 200) -> None:
    await answer(send, status, json.dumps(value).encode(), "application/json")


def echo(seen: Seen) -> dict:
    return {
        "method": seen.method,
        "host": seen.host,
        "path": seen.path,
        "query": seen.query,
        "version": seen.version,
        "headers": seen.headers,
        "bytes": seen.body,
        "sha256": seen.digest,
    }


WORDS = ["the", "agent", "never", "held", "it"]


async def openai(body: bytes, send) -> None:
    asked = json.loads(body)
    common = {"id": "chatcmpl-1", "created": 1, "model": asked["model"]}
    if not asked.get("stream"):
        message = {"role": "assistant", "content": " ".join(WORDS)}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return await answer_json(send, common | {"object": "chat.completion", "choices": [choice]})
    await start(send, 200, "text/event-stream")
    for word in WORDS:
        choice = {"index": 0, "delta": {"content": word + " "}, "finish_reason": None}
        event = common | {"object": "chat.completion.chunk", "choices": [choice]}
        await send({"type": "http.response.body", "body": f"data: {json.dumps(event)}\n\n".encode(), "more_body": True})
        await asyncio.sleep(0.01)
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def anthropic(body: bytes, send) -> None:
    asked = json.loads(body)
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"], "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    if not asked.get("stream"):
        content = [{"type": "text", "text": " ".join(WORDS)}]
        return await answer_json(send, message | {"content": content, "stop_reason": "end_turn"})
    events = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *[
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word + " "}}
            for word in WORDS
        ],
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
         "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
    await start(send, 200, "text/event-stream")
    for event in events:
        line = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        await send({"type": "http.response.body", "body": line, "more_body": True})
        await asyncio.sleep(0.01)
    await send({"type": "http.response.body", "body": b""})


async def s3(seen: Seen, send) -> None:
    tag = b'"d41d8cd98f00b204e9800998ecf8427e"'
    if seen.method == "PUT":
        return await answer(send, 200, b"", "application/xml", [(b"etag", tag)])
    if seen.path.rstrip("/") == "/bucket":
        listing = (
            b'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            b"<Name>bucket</Name><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>"
            b"<Contents><Key>a b.txt</Key><Size>5</Size></Contents></ListBucketResult>"
        )
        return await answer(send, 200, listing, "application/xml")
    await answer(send, 200, b"hello", "application/octet-stream", [(b"etag", tag)])


def wheel() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("nexusprobe/__init__.py", "VALUE = 42\n")
        info = "nexusprobe-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: nexusprobe\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return out.getvalue()


async def python_index(path: str, send) -> None:
    name = "nexusprobe-1.0-py3-none-any.whl"
    if path.rstrip("/") == "/simple/nexusprobe":
        page = f'<!DOCTYPE html><html><body><a href="/files/{name}">{name}</a></body></html>'
        return await answer(send, 200, page.encode(), "text/html")
    if path == f"/files/{name}":
        return await answer(send, 200, wheel(), "application/octet-stream")
    await answer(send, 404, b"", "text/plain")


def tarball(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


CRATE = tarball(
    {
        "probe-1.0.0/Cargo.toml": '[package]\nname = "probe"\nversion = "1.0.0"\nedition = "2021"\n',
        "probe-1.0.0/src/lib.rs": "pub const VALUE: u32 = 42;\n",
    }
)


async def crates(seen: Seen, send) -> None:
    if seen.path == "/crates/index/config.json":
        return await answer_json(send, {"dl": f"https://{seen.host}/crates/dl"})
    if seen.path == "/crates/index/pr/ob/probe":
        line = {
            "name": "probe", "vers": "1.0.0", "deps": [], "features": {}, "yanked": False,
            "cksum": hashlib.sha256(CRATE).hexdigest(),
        }
        return await answer(send, 200, json.dumps(line).encode() + b"\n", "text/plain")
    if seen.path == "/crates/dl/probe/1.0.0/download":
        return await answer(send, 200, CRATE, "application/gzip")
    await answer(send, 404, b"", "text/plain")


PACKAGE = tarball(
    {
        "package/package.json": '{"name":"nexus-probe","version":"1.0.0","main":"index.js"}',
        "package/index.js": "module.exports = 42;\n",
    }
)


async def npm(seen: Seen, send) -> None:
    if seen.path == "/npm/nexus-probe":
        integrity = "sha512-" + b64encode(hashlib.sha512(PACKAGE).digest()).decode()
        dist = {"tarball": f"https://{seen.host}/npm/nexus-probe.tgz", "integrity": integrity}
        version = {"name": "nexus-probe", "version": "1.0.0", "main": "index.js", "dist": dist}
        return await answer_json(
            send, {"name": "nexus-probe", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
        )
    if seen.path == "/npm/nexus-probe.tgz":
        return await answer(send, 200, PACKAGE, "application/octet-stream")
    await answer_json(send, {}, 404)
