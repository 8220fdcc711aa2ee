"""Wrong tokens and connections without one: what they cost, and that agents go on meanwhile."""

import base64
import json
import re
import resource
import secrets
import socket
import time

import httpx
import pytest
from nexustest.home import Home, canary, wait_for
from nexustest.hosts import API
from nexustest.wire import Wire, basic, tunnel

_, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)


@pytest.fixture
def stage(tmp_path, authority, upstream):
    def make(extra=""):
        home = Home(tmp_path / "home", authority.path, [API], extra=extra)
        home.register("api", f"https://{API}:{upstream.port}", secret=canary("api"))
        home.up()
        made.append(home)
        return home

    made = []
    yield make
    for home in made:
        home.close()


def guess() -> str:
    """Of the right form, with a checksum that is wrong almost always."""
    return "nxt_" + secrets.token_urlsafe(36)[:43] + "AAAAAA"


def metric(home, name) -> int:
    text = httpx.get(f"http://127.0.0.1:{home.servers[-1].admin_port}/metrics", trust_env=False).text
    return int(re.search(rf"^{name} (\d+)$", text, re.M)[1])


def connects(port, *tokens):
    """The answers to a CONNECT with each of the tokens, over one connection."""
    answers = []
    with Wire(port) as wire:
        for token in tokens:
            answers.append(wire.connect(f"{API}:443", token))
    return answers


def test_a_budget_of_wrong_tokens(stage, upstream):
    home = stage("[limits]\nwrong_tokens_per_minute = 20")
    port = home.servers[0].port
    _, token = home.token("api")
    ca = home.nexus("ca", "path").stdout.strip()
    # Those without a token are not counted, however many.
    assert {answer.status for answer in connects(port, *[None] * 60)} == {407}
    statuses = [answer.status for answer in connects(port, *[guess() for _ in range(60)])]
    assert statuses[:20] == [407] * 20
    # The budget refills by one in 3 s.
    assert statuses.count(429) >= 35
    # Over it, in every place where a token may stand, in token form or not.
    limited = connects(port, guess(), "not-a-token", "nxt_short")
    with Wire(port) as wire:
        for field in (f"Authorization: Bearer {guess()}", f"X-Nexus-Token: {guess()}"):
            wire.send(f"GET /c/api/status/200 HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n")
            limited.append(wire.answer())
        body = json.dumps({"connection_id": "api", "url": "/status/200"})
        wire.send(f"POST /v1/call HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {guess()}\r\n"
                  f"Content-Length: {len(body)}\r\n\r\n{body}")
        limited.append(wire.answer())
    assert [(answer.status, answer.code) for answer in limited].count((429, "rate_limited")) >= len(limited) - 1, limited
    refused = next(answer for answer in limited if answer.status == 429)
    assert 1 <= int(refused.get("retry-after")) <= 60
    # A valid one passes at any time, from the same address.
    for _ in range(30):
        with tunnel(port, ca, API, upstream.port, token) as wire:
            wire.send(f"GET /status/200 HTTP/1.1\r\nHost: {API}:{upstream.port}\r\n\r\n")
            assert wire.answer().status == 200
        with Wire(port) as wire:
            wire.send(f"GET /c/api/status/200 HTTP/1.1\r\nHost: x\r\nX-Nexus-Token: {token}\r\n\r\n")
            assert wire.answer().status == 200
    assert connects(port, None)[0].status == 407
    assert metric(home, "nexus_proxy_auth_limited_total") >= 35
    assert metric(home, "nexus_proxy_auth_failures_total") >= 60
    # One budget for both addresses of loopback there is not: each has its own.


def test_every_wrong_token_looks_the_same(stage):
    home = stage()
    port = home.servers[0].port
    revoked_id, revoked = home.token("api")
    _, expired = home.token("api", "tester", "--expires", "1s")
    _, valid = home.token("api")
    home.nexus("token", "revoke", revoked_id)
    time.sleep(1.1)
    mistyped = valid[:-1] + ("A" if valid[-1] != "A" else "B")
    wrong = {"unknown": guess(), "mistyped": mistyped, "revoked": revoked, "expired": expired, "malformed": "hunter2"}

    def shape(answer):
        headers = sorted((name, value) for name, value in answer.headers if name not in ("date", "x-nexus-request-id"))
        return answer.status, headers, re.sub(r'"request_id":"[^"]*"', "", answer.body.decode())

    shapes = {name: shape(connects(port, token)[0]) for name, token in wrong.items()}
    assert len({json.dumps(one) for one in shapes.values()}) == 1, shapes
    shapes = {}
    for name, token in wrong.items():
        with Wire(port) as wire:
            wire.send(f"GET /c/api/ HTTP/1.1\r\nHost: x\r\nX-Nexus-Token: {token}\r\n\r\n")
            shapes[name] = shape(wire.answer())
    assert len({json.dumps(one) for one in shapes.values()}) == 1, shapes


def test_ten_thousand_idle_connections(stage, upstream):
    """An agent gets in and stays in, whoever else holds connections open; memory is bounded by their number."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (HARD, HARD))
    count = min(10_000, HARD - 2_000)
    home = stage()
    server = home.servers[0]
    _, token = home.token("api")
    ca = home.nexus("ca", "path").stdout.strip()
    before = server.rss()
    request = f"GET /status/200 HTTP/1.1\r\nHost: {API}:{upstream.port}\r\n\r\n"
    early = tunnel(server.port, ca, API, upstream.port, token)
    early.send(request)
    assert early.answer().status == 200
    kept = Wire(server.port)
    again = f"GET /c/api/status/200 HTTP/1.1\r\nHost: x\r\nX-Nexus-Token: {token}\r\n\r\n"
    kept.send(again)
    assert kept.answer().status == 200

    idle, slowest = [], 0.0
    try:
        for number in range(count):
            idle.append(socket.create_connection(("127.0.0.1", server.port), 10))
            if number % 3 == 0:
                idle[-1].sendall(b"GET / HTTP/1.1\r\nHo")
            if number % 250 == 249:
                # A new tunnel, an open one, and a connection that is kept.
                began = time.monotonic()
                with tunnel(server.port, ca, API, upstream.port, token) as wire:
                    wire.send(request)
                    assert wire.answer().status == 200
                for wire, text in ((early, request), (kept, again)):
                    wire.send(text)
                    assert wire.answer().status == 200
                slowest = max(slowest, time.monotonic() - began)
        closed = wait_for(lambda: metric(home, "nexus_connections_closed_unauthenticated_total"), 5, "closed ones")
        assert count - 1024 <= closed <= count
        assert metric(home, "nexus_connections_active") <= 1024 + 10
        grown = server.rss() - before
        print(f"\n{count} idle connections: {closed} closed, an agent's three requests took {slowest * 1000:.0f} ms at "
              f"most, {grown >> 20} MiB more")
        # The oldest went first: the newest is open still.
        idle[-1].settimeout(0.2)
        with pytest.raises(TimeoutError):
            idle[-1].recv(1)
        idle[0].settimeout(5)
        try:
            assert idle[0].recv(1) == b""
        except ConnectionResetError:
            pass
    finally:
        for one in idle:
            one.close()
        early.close()
        kept.close()
    wait_for(lambda: metric(home, "nexus_connections_active") <= 2, 10, "the end of all of them")
