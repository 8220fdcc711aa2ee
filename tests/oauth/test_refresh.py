"""Refreshes against a real OAuth server with single-use refresh tokens."""

import hashlib
import json
import os

import pytest
from nexustest.home import in_threads, wait_for


def test_the_flow_works(install, provider):
    server = install.home.up()
    answer = install.ask(server)
    assert answer.status == 200, answer
    # What the API reflects is scrubbed.
    assert install.given["access_token"] not in answer.body.decode()
    assert provider.seen["refreshes"] == 0


def test_a_stampede_of_two_processes_is_one_refresh(install, provider):
    """200 requests at once in two servers of one home: the provider sees one refresh, and nobody a failure."""
    servers = [install.home.up(), install.home.up()]
    assert servers[0].port != servers[1].port
    for server in servers:
        assert install.ask(server).status == 200
    for round_number in range(1, 4):
        provider.mode(delay=150)
        provider.expire()
        answers = in_threads(200, lambda index: install.ask(servers[index % 2], f"/api/r{round_number}/{index}"))
        failed = [(answer.status, answer.code, answer.body) for answer in answers if answer.status != 200]
        assert failed == [], failed[:3]
        seen = provider.seen
        assert seen["refreshes"] == seen["tokens"] == round_number, seen["grants"]
        assert seen["revoked"] == 0 and seen["grants"] == []
        good = [one for one in seen["api"] if one["status"] == 200 and one["path"].startswith(f"/api/r{round_number}/")]
        assert len(good) == 200 and all(one["authorizations"] == 1 for one in seen["api"])
    shown = install.home.json("connection", "show", "api")
    assert shown["state"] == "active" and shown["version"] >= 4, shown


def test_kill_right_after_a_refresh_loses_nothing(install, provider):
    """The new refresh token is on disk before it is used, so the next process goes on with it."""
    server = install.home.up()
    assert install.ask(server).status == 200
    for round_number in range(1, 6):
        provider.expire()
        answer = install.ask(server)
        server.process.kill()
        server.process.wait(10)
        assert answer.status == 200
        assert provider.seen["refreshes"] == round_number
        server = install.home.up()
        assert install.ask(server).status == 200
        assert provider.seen["refreshes"] == round_number
    provider.expire()
    assert install.ask(server).status == 200
    seen = provider.seen
    assert seen["revoked"] == 0 and seen["grants"] == []


def test_kill_while_requests_wait_for_a_refresh(install, provider):
    """A process that dies as the answer comes may lose it, but never uses a refresh token twice without need."""
    server = install.home.up()
    assert install.ask(server).status == 200
    provider.mode(delay=600)
    provider.expire()

    def one(index):
        try:
            return install.ask(server)
        except (OSError, EOFError, AssertionError):
            return None

    import threading

    worker = threading.Thread(target=lambda: in_threads(20, one), daemon=True)
    worker.start()
    wait_for(lambda: provider.seen["tokens"] == 1, 10, "the refresh")
    server.process.kill()
    server.process.wait(10)
    worker.join(30)
    # The process died before the answer came; the provider may have rotated all the same.
    server = install.home.up()
    provider.mode(delay=0)
    answer = install.ask(server)
    state = install.home.json("connection", "show", "api")["state"]
    if provider.seen["revoked"] == 0:
        assert answer.status == 200, answer
    else:
        assert answer.status in (401, 502) and state == "attention"


def test_a_body_is_replayed(install, provider):
    server = install.home.up()
    provider.expire()
    body = os.urandom(2_000_000)
    answer = install.ask(server, "/api/post", "POST", body)
    assert answer.status == 200, answer
    told = json.loads(answer.body)
    assert (told["bytes"], told["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    posts = [(one["status"], one["bytes"]) for one in provider.seen["api"]]
    assert posts == [(401, len(body)), (200, len(body))]
    wait_for(lambda: [line for line in install.home.audit() if line.get("replayed")], 5, "an audit line")


def test_a_body_of_unknown_length(install, provider):
    server = install.home.up()

    for size, status in ((50_000, 200), (5_000_000, 401)):
        provider.expire()
        with install.wire(server) as wire:
            host = f"login.example.test:{provider.port}"
            wire.send(f"POST /api/chunked HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(size // 10_000):
                wire.send(b"2710\r\n" + b"c" * 10_000 + b"\r\n")
            wire.send(b"0\r\n\r\n")
            assert wire.answer("POST").status == status
        # Too large to be kept: the credential is refreshed for the next request.
        if status == 401:
            wait_for(lambda: install.ask(server).status == 200, 10, "a fresh credential")


def test_without_a_new_refresh_token_the_old_one_stays(install, provider):
    server = install.home.up()
    provider.mode(rotate=False)
    for round_number in range(1, 4):
        provider.expire()
        assert install.ask(server).status == 200
        assert provider.seen["refreshes"] == round_number
    server.stop()
    server = install.home.up()
    provider.mode(rotate=True)
    provider.expire()
    assert install.ask(server).status == 200
    assert provider.seen["revoked"] == 0


@pytest.mark.parametrize("how", ["invalid_grant", "server_error", "no_json"])
def test_a_failed_refresh_passes_the_401_on(install, provider, how):
    server = install.home.up()
    assert install.ask(server).status == 200
    fail = {
        "invalid_grant": {"status": 400, "body": {"error": "invalid_grant"}},
        "server_error": {"status": 500, "body": {"error": "server_error"}},
        "no_json": {"status": 200, "body": "<html>"},
    }[how]
    provider.mode(fail=fail)
    provider.expire()
    answer = install.ask(server)
    assert answer.status == 401, answer
    assert answer.code == "refresh_failed"
    assert json.loads(answer.body)["error"] == "invalid_token"
    assert install.given["access_token"] not in answer.body.decode()
    assert answer.get("www-authenticate") == 'Bearer error="invalid_token"'
    if how == "invalid_grant":
        assert install.home.json("connection", "show", "api")["state"] == "attention"
        before = len(provider.seen["api"])
        unsent = install.ask(server)
        assert (unsent.status, unsent.code) == (502, "credential_unavailable")
        assert len(provider.seen["api"]) == before
        # A new grant mends it.
        provider.mode(fail=None)
        given = provider.authorize()
        fields = {name: given[name] for name in ("refresh_token", "access_token", "expires_in")}
        install.home.nexus(
            "connection", "set", "api", "--stdin-json",
            stdin=json.dumps({"client_id": "nexus-post", "client_secret": provider.secret} | fields),
        )
        assert install.ask(server).status == 200


def test_a_second_401_reaches_the_agent(install, provider):
    """An API that refuses fresh tokens too is asked twice, and the provider is not asked again at once."""
    server = install.home.up()
    provider.mode(ttl=3600)
    assert install.ask(server).status == 200
    # Tokens that are void as soon as they are issued.
    provider.mode(ttl=0)
    provider.expire()
    assert install.ask(server).status == 401
    for _ in range(5):
        assert install.ask(server).status == 401
    assert provider.seen["tokens"] <= 2


def test_refresh_ahead_of_the_end(install, provider):
    """A token of a few seconds is renewed before it ends: the API never sees a dead one."""
    server = install.home.up()
    provider.mode(ttl=4)
    provider.expire()
    assert install.ask(server).status == 200
    provider.control("reset")
    import time

    end = time.monotonic() + 9
    while time.monotonic() < end:
        assert install.ask(server).status == 200
        time.sleep(0.2)
    seen = provider.seen
    assert seen["refused"] == 0 and 2 <= seen["refreshes"] <= 6, seen["refreshes"]


@pytest.mark.parametrize("auth", ["post", "basic"])
def test_client_credentials(bare, provider, auth):
    bare.register("client_credentials", {}, auth)
    bare.token = bare.home.token("api")[1]
    servers = [bare.home.up(), bare.home.up()]
    answers = in_threads(40, lambda index: bare.ask(servers[index % 2]))
    assert [answer.status for answer in answers] == [200] * 40
    assert provider.seen["tokens"] == 1
    provider.expire()
    answers = in_threads(40, lambda index: bare.ask(servers[index % 2]))
    assert [answer.status for answer in answers] == [200] * 40
    assert provider.seen["tokens"] == 2


def test_secrets_are_nowhere(install, provider):
    server = install.home.up()
    provider.expire()
    assert install.ask(server).status == 200
    server.stop()
    text = server.messages() + json.dumps(install.home.audit())
    text += install.home.nexus("connection", "show", "api", "-o", "json").stdout
    stored = b"".join(path.read_bytes() for path in install.home.path.rglob("*") if path.is_file())
    for value in (provider.secret, install.given["access_token"], install.given["refresh_token"], install.token):
        assert value not in text
        assert value.encode() not in stored


def test_connection_test_refreshes(install, provider):
    provider.expire()
    install.home.up()
    done = install.home.nexus("connection", "test", "api")
    assert provider.seen["refreshes"] == 1, done.stdout
