"""The three ways in, each with the same words for a request."""

from .home import wait_for
from .recorder import Recorder
from .wire import Answer, Wire, basic, tunnel


class Mode:
    name = ""

    def __init__(self, port: int, token: str, recorder: Recorder, host: str, evil: Recorder):
        self.port, self.token, self.recorder, self.host, self.evil = port, token, recorder, host, evil
        self.authority = f"{host}:{recorder.port}"
        self.count = 0

    def open(self) -> Wire:
        return Wire(self.port)

    def target(self, path: str) -> str:
        raise NotImplementedError

    def host_value(self) -> str:
        return self.authority

    def proof(self) -> list[str]:
        """The lines that say who asks."""
        raise NotImplementedError

    def head(self, method: str = "GET", path: str = "/", *fields: str, host: bool = True, version: str = "HTTP/1.1",
             target: str | None = None) -> bytes:
        """A request head up to and without the empty line's end; fields are sent as they are."""
        lines = [f"{method} {target if target is not None else self.target(path)} {version}"]
        if host:
            lines.append(f"Host: {self.host_value()}")
        lines += [*self.proof(), *fields]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def exchange(self, data: bytes, finish: bool = True) -> tuple[list[Answer], bool]:
        """Sends the bytes; gives every answer that comes and whether the proxy closed the connection.

        With `finish` a second, innocent request is sent on the connection, and what comes of it is among the answers.
        """
        with self.open() as wire:
            wire.socket.settimeout(5)
            try:
                wire.send(data)
                if finish:
                    wire.send(self.head("GET", "/follow-up", "Connection: close"))
            except OSError:
                pass
            answers, closed = [], False
            try:
                while (answer := wire.answer()) is not None:
                    answers.append(answer)
                closed = True
            except TimeoutError:
                pass
            except (EOFError, OSError):
                closed = True
            return answers, closed

    def settle(self) -> None:
        """Waits until the recorder has what was sent on the way so far: an own request goes through."""
        self.count += 1
        path = f"/settled-{self.name}-{self.count}"
        with self.open() as wire:
            wire.send(self.head("GET", path))
            answer = wire.answer()
            assert answer is not None and answer.status == 200, f"an innocent request failed: {answer}"
        wait_for(
            lambda: any(request.target.endswith(path) for request in self.recorder.since(0)), 5, "the innocent request"
        )

    def attack(self, data: bytes, finish: bool = True) -> "Outcome":
        """Sends the bytes and gives what came of them, after the checks that hold for every attack."""
        mark, evil = self.recorder.mark(), self.evil.connections
        answers, closed = self.exchange(data, finish)
        self.settle()
        requests = [one for one in self.recorder.since(mark) if "/settled-" not in one.target]
        problems = self.recorder.take_problems()
        assert problems == [], problems
        assert self.evil.connections == evil, "something reached the attacker's host"
        final = [answer for answer in answers if answer.status >= 200]
        accepted = [answer for answer in final if answer.code is None]
        whole = [one for one in requests if one.complete]
        assert len(whole) <= len(accepted) or not closed, f"{whole} for {answers}"
        for one in requests:
            assert one.all("host") == [self.authority], one.head
            assert len(one.all("authorization")) == 1
        return Outcome(final, closed, requests)


class Outcome:
    def __init__(self, answers: list[Answer], closed: bool, requests: list):
        self.answers, self.closed, self.requests = answers, closed, requests

    @property
    def first(self) -> Answer:
        assert self.answers, "no answer"
        return self.answers[0]

    def refused(self, *statuses: int, closes: bool = True) -> "Outcome":
        """Refused, and nothing of it went upstream; the bytes after it were not read as a request."""
        assert self.first.status in (statuses or (400,)), self.answers
        if closes:
            assert self.closed and len(self.answers) == 1, (self.closed, self.answers)
            assert self.requests == [], self.requests
        return self

    def __repr__(self) -> str:
        return f"answers={[a.status for a in self.answers]} closed={self.closed} requests={self.requests}"


class Forward(Mode):
    name = "forward"

    def target(self, path: str) -> str:
        return f"http://{self.authority}{path}"

    def proof(self) -> list[str]:
        return [f"Proxy-Authorization: {basic(self.token)}"]


class Tunnelled(Mode):
    name = "tunnel"

    def __init__(self, port, token, recorder, host, evil, ca):
        super().__init__(port, token, recorder, host, evil)
        self.ca = ca

    def open(self) -> Wire:
        return tunnel(self.port, self.ca, self.host, self.recorder.port, self.token)

    def target(self, path: str) -> str:
        return path

    def proof(self) -> list[str]:
        return []


class Reverse(Mode):
    name = "reverse"

    def target(self, path: str) -> str:
        return f"/c/good{path}"

    def host_value(self) -> str:
        return f"127.0.0.1:{self.port}"

    def proof(self) -> list[str]:
        return [f"X-Nexus-Token: {self.token}"]
