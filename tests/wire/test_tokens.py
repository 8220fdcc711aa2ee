"""Who may do what by which token: scopes, narrowing, tokens made by tokens, tenants, revocation."""

import json
import random
import re
import threading
import time

import pytest
from nexustest.home import wait_for
from nexustest.wire import Answer, Wire, basic, tunnel

GOOD, PLAIN, EVIL = "good.test", "plain.test", "evil.test"

UNKNOWN = "nxt_" + "A" * 49


class Agent:
    """Requests with one token, each way in."""

    def __init__(self, nexus, token, good, plain):
        self.port, self.token, self.good, self.plain = nexus.servers[0].port, token, good, plain
        self.ca = nexus.nexus("ca", "path").stdout.strip()

    def send(self, head: list[str], body: str = "") -> Answer:
        with Wire(self.port) as wire:
            wire.send("\r\n".join(head) + "\r\n\r\n" + body)
            return wire.answer(head[0].split(" ")[0])

    def proof(self, name="X-Nexus-Token") -> list[str]:
        if self.token is None:
            return []
        return [f"{name}: {basic(self.token) if name == 'Proxy-Authorization' else self.token}"]

    def connect(self, host=None, *fields) -> Answer:
        authority = f"{host or GOOD}:{self.good.port}"
        head = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", *self.proof("Proxy-Authorization"), *fields]
        with Wire(self.port) as wire:
            wire.send("\r\n".join(head) + "\r\n\r\n")
            return wire.answer("CONNECT")

    def tunnelled(self, method="GET", path="/x", *fields) -> Answer:
        refused = self.connect()
        if refused.status != 200:
            return refused
        with tunnel(self.port, self.ca, GOOD, self.good.port, self.token) as wire:
            wire.send("\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {GOOD}:{self.good.port}", *fields]) + "\r\n\r\n")
            return wire.answer(method)

    def forward(self, method="GET", path="/x", *fields) -> Answer:
        authority = f"{PLAIN}:{self.plain.port}"
        return self.send([f"{method} http://{authority}{path} HTTP/1.1", f"Host: {authority}",
                          *self.proof("Proxy-Authorization"), *fields])

    def base_url(self, method="GET", path="/x", connection="good", *fields) -> Answer:
        return self.send([f"{method} /c/{connection}{path} HTTP/1.1", "Host: nexus", *self.proof(), *fields])

    def post(self, path: str, value) -> Answer:
        text = value if isinstance(value, str) else json.dumps(value)
        return self.send([f"POST {path} HTTP/1.1", "Host: nexus", *self.proof(), f"Content-Length: {len(text)}"], text)

    def call(self, connection="good", url="/x", method="GET") -> Answer:
        return self.post("/v1/call", {"connection_id": connection, "url": url, "method": method})

    def mint(self, use=("good",), **more) -> Answer:
        return self.post("/v1/tokens", {"use": list(use)} | more)

    def child(self, use=("good",), **more) -> "Agent":
        answer = self.mint(use, **more)
        assert answer.status == 201, answer
        child = object.__new__(Agent)
        child.__dict__ = self.__dict__ | {"token": json.loads(answer.body)["token_value"]}
        child.made = json.loads(answer.body)
        return child


@pytest.fixture
def agent(nexus, good, plain):
    """Makes an agent with a token of these grants."""

    def make(use="good,plain", *arguments, name="boss"):
        token_id, value = nexus.token(use, name, *arguments)
        made = Agent(nexus, value, good, plain)
        made.id = token_id
        return made

    return make


def told(answer: Answer) -> tuple[int, str | None]:
    return answer.status, answer.code


OK, MADE, DENIED = (200, None), (201, None), (403, "denied")
NO_PROXY, NO_KEY = (407, "auth_required"), (401, "auth_required")
# What each token may do on each route, and nothing else: CONNECT, tunnel, forward, base URL, call, /v1/tokens.
MATRIX = {
    "use": (OK, OK, OK, OK, OK, DENIED),
    "mint": (DENIED, DENIED, DENIED, DENIED, DENIED, MADE),
    "use,mint": (OK, OK, OK, OK, OK, MADE),
    "no token": (NO_PROXY, NO_PROXY, NO_PROXY, NO_KEY, NO_KEY, NO_KEY),
    "unknown": (NO_PROXY, NO_PROXY, NO_PROXY, NO_KEY, NO_KEY, NO_KEY),
    "revoked": (NO_PROXY, NO_PROXY, NO_PROXY, NO_KEY, NO_KEY, NO_KEY),
    "expired": (NO_PROXY, NO_PROXY, NO_PROXY, NO_KEY, NO_KEY, NO_KEY),
    "made: use": (OK, OK, OK, OK, OK, DENIED),
    "made: use,mint": (OK, OK, OK, OK, OK, MADE),
    "made: mint": (DENIED, DENIED, DENIED, DENIED, DENIED, MADE),
    "made, its maker revoked": (NO_PROXY, NO_PROXY, NO_PROXY, NO_KEY, NO_KEY, NO_KEY),
    "made, expired": (NO_PROXY, NO_PROXY, NO_PROXY, NO_KEY, NO_KEY, NO_KEY),
}


@pytest.mark.parametrize("kind", MATRIX)
def test_b15_token_scope_by_route(nexus, agent, good, plain, kind):
    if kind in ("no token", "unknown"):
        one = Agent(nexus, None if kind == "no token" else UNKNOWN, good, plain)
    elif kind.startswith("made"):
        boss = agent("good,plain", "--scopes", "use,mint")
        scopes = kind.partition(": ")[2].split(",") if ": " in kind else ["use", "mint"]
        one = boss.child(("good", "plain"), scopes=scopes, expires_in=1 if kind.endswith("expired") else "5m")
        if kind.endswith("revoked"):
            nexus.nexus("token", "revoke", boss.id)
    elif kind in ("revoked", "expired"):
        one = agent("good,plain", "--scopes", "use,mint", *(["--expires", "1s"] if kind == "expired" else []))
        if kind == "revoked":
            nexus.nexus("token", "revoke", one.id)
    else:
        one = agent("good,plain", "--scopes", kind)
    if kind.endswith("expired"):
        wait_for(lambda: one.base_url().status == 401, 5, "the end of the token")
    mark = good.mark(), plain.mark()
    answers = (one.connect(), one.tunnelled(), one.forward(), one.base_url(), one.call(), one.mint())
    assert tuple(map(told, answers)) == MATRIX[kind]
    reached = len(good.since(mark[0])) + len(plain.since(mark[1]))
    assert reached == (4 if OK in MATRIX[kind] else 0)


def test_b15_agent_tokens_are_nothing_to_the_admin_address(nexus, server, agent):
    one = agent("good", "--scopes", "use,mint")

    def admin(line, *fields):
        with Wire(server.admin_port) as wire:
            wire.send("\r\n".join([line, f"Host: 127.0.0.1:{server.admin_port}", "Connection: close", *fields]) + "\r\n\r\n")
            answer = wire.answer()
            return answer.status, re.sub(rb" [0-9.e+-]+\n", b"\n", answer.body)

    for line in ("GET /healthz HTTP/1.1", "GET /metrics HTTP/1.1", "POST /v1/tokens HTTP/1.1", "POST /v1/call HTTP/1.1",
                 "GET /c/good/x HTTP/1.1"):
        with_token = admin(line, f"Authorization: Bearer {one.token}", f"X-Nexus-Token: {one.token}")
        assert with_token == admin(line), line
        assert (with_token[0] == 200) == line.startswith(("GET /healthz", "GET /metrics")), line


def test_a_made_token_works_at_once_and_is_recorded(nexus, agent, good, secret):
    boss = agent("good,plain", "--scopes", "use,mint", "--methods", "GET,POST", "--paths", "/a/**,/b",
                 "--hosts", f"{GOOD},*.other.test")
    answer = boss.mint(name="sub", methods=["get"], paths=["/a/x/*"], hosts=[GOOD], scopes=["use"], expires_in="15m")
    made = json.loads(answer.body)
    assert answer.status == 201 and answer.get("cache-control") == "no-store"
    assert made | {"token_id": "", "token_value": "", "expires_at": ""} == {
        "token_id": "", "token_value": "", "expires_at": "", "agent": "boss/sub", "connections": ["good"],
        "methods": ["GET"], "paths": ["/a/x/*"], "hosts": [GOOD], "scopes": ["use"], "parent": boss.id,
    }
    assert re.fullmatch(r"nxt_[A-Za-z0-9_-]{49}", made["token_value"])
    sub = object.__new__(Agent)
    sub.__dict__ = boss.__dict__ | {"token": made["token_value"]}
    mark = good.mark()
    assert sub.base_url(path="/a/x/1").status == 200
    assert sub.base_url("HEAD", path="/a/x/1").status == 200
    for refused in (sub.base_url(path="/a/y"), sub.base_url("POST", path="/a/x/1"), sub.base_url(path="/b")):
        assert told(refused) == DENIED
    assert told(sub.base_url(connection="plain")) == (404, "not_found")
    assert [one.all("authorization") for one in good.since(mark)] == [[f"Bearer {secret}"]] * 2

    lines = wait_for(lambda: [line for line in nexus.audit() if line.get("minted_token_id") == made["token_id"]
                              and line["event"] == "end"], 3, "the line")
    assert (lines[0]["way"], lines[0]["status"], lines[0]["token_id"], lines[0]["agent"]) == ("mint", 201, boss.id, "boss")
    used = wait_for(lambda: [line for line in nexus.audit() if line.get("token_id") == made["token_id"]
                             and line["event"] == "end"], 3, "the child's line")
    assert used[0]["agent"] == "boss/sub"
    text = json.dumps(nexus.audit()) + nexus.servers[0].messages()
    assert made["token_value"] not in text and boss.token not in text

    [row] = [row for row in nexus.json("token", "list") if row["token_id"] == made["token_id"]]
    assert row["parent"] == boss.id and row["scopes"] == ["use"] and row["hosts"] == [GOOD]
    assert row["kind"] == "opaque" and row["state"] == "active"

    def last_use():
        [row] = [row for row in nexus.json("token", "list") if row["token_id"] == made["token_id"]]
        return row["last_used_at"] and row["last_used_from"] == "127.0.0.1"

    wait_for(last_use, 15, "the last use to be written")
    ended = nexus.nexus("token", "revoke", boss.id).stderr
    assert "with it 1 token" in ended
    [row] = [row for row in nexus.json("token", "list") if row["token_id"] == made["token_id"]]
    assert row["state"] == "revoked"


def test_b14_nothing_wider_is_made(nexus, agent):
    boss = agent("good", "--scopes", "use,mint", "--methods", "GET", "--paths", "/a/**", "--hosts", GOOD,
                 "--expires", "1h")
    # Another agent's connection, and another tenant's.
    for name, wanted, expected in [
        ("another's connection", {"use": ["plain"]}, (404, "not_found")),
        ("no such connection", {"use": ["nothing"]}, (404, "not_found")),
        ("one of two", {"use": ["good", "plain"]}, (404, "not_found")),
        ("no connection", {"use": []}, (400, "bad_request")),
        ("more methods", {"methods": ["GET", "POST"]}, DENIED),
        ("all methods", {"methods": []}, (400, "bad_request")),
        ("null is absent", {"methods": None}, (201, None)),
        ("wider paths", {"paths": ["/**"]}, DENIED),
        ("other paths", {"paths": ["/b"]}, DENIED),
        ("all paths", {"paths": []}, (400, "bad_request")),
        ("a wildcard host", {"hosts": ["*.test"]}, DENIED),
        ("another host", {"hosts": [GOOD, PLAIN]}, DENIED),
        ("all hosts", {"hosts": []}, (400, "bad_request")),
        ("a longer life", {"expires_in": "2h"}, DENIED),
        ("a very long life", {"expires_in": 2**63}, DENIED),
        ("no life", {"expires_in": 0}, (400, "bad_request")),
        ("a negative life", {"expires_in": -1}, (400, "bad_request")),
        ("never", {"expires_in": "never"}, (400, "bad_request")),
        ("another scope", {"scopes": ["admin"]}, (400, "bad_request")),
        ("a name above", {"name": "../root"}, (400, "bad_request")),
        ("a name of another depth", {"name": "a/b"}, (400, "bad_request")),
        ("an empty name", {"name": ""}, (400, "bad_request")),
        ("a name with a line break", {"name": "a\nb"}, (400, "bad_request")),
        ("a long name", {"name": "a" * 125}, (400, "bad_request")),
        ("an agent", {"agent": "root"}, (400, "bad_request")),
        ("a tenant", {"tenant": "other"}, (400, "bad_request")),
        ("a role", {"role": "admin"}, (400, "bad_request")),
        ("a parent", {"parent": None}, (400, "bad_request")),
        ("a kind", {"kind": "certificate"}, (400, "bad_request")),
        ("a field twice", '{"use": ["good"], "scopes": ["use"], "scopes": ["mint"]}', (400, "bad_request")),
        ("not an object", '["good"]', (400, "bad_request")),
        ("nothing", "", (400, "bad_request")),
        ("much", '{"use": ["good"], "name": "' + "a" * 300_000 + '"}', (413, "too_large")),
        ("what it has", {"methods": ["HEAD"], "paths": ["/a/b"], "hosts": [GOOD.upper()], "expires_in": 60}, (201, None)),
    ]:
        body = wanted if isinstance(wanted, str) else {"use": ["good"]} | wanted
        answer = boss.post("/v1/tokens", body)
        assert told(answer) == expected, name
        if expected == DENIED:
            assert next(iter(wanted)) in json.loads(answer.body)["error"]["message"], name
    listed = {row["agent"] for row in nexus.json("token", "list")}
    assert "root" not in listed and not any(name.startswith("..") for name in listed)


def test_b14_scopes_go_down_only(agent):
    boss = agent("good", "--scopes", "use,mint")
    minter = boss.child(scopes=["mint"])
    assert told(minter.mint(scopes=["use"])) == DENIED
    assert told(minter.child().mint(scopes=["use", "mint"])) == DENIED
    assert minter.child().made["scopes"] == ["mint"]
    user = boss.child(scopes=["use"])
    assert told(user.mint()) == DENIED
    assert boss.child().made["scopes"] == ["use", "mint"]


def test_chains_of_tokens_end(agent):
    one = agent("good", "--scopes", "use,mint")
    for generation in range(5):
        one = one.child(name=f"g{generation}")
    assert one.made["agent"] == "boss/g0/g1/g2/g3/g4"
    assert one.base_url().status == 200
    assert told(one.mint()) == DENIED


def test_expiry_is_the_sooner(nexus, agent):
    from datetime import datetime

    def ends_in(agent):
        return datetime.fromisoformat(agent.made["expires_at"]).timestamp() - time.time()

    long, short = agent("good", "--scopes", "use,mint"), agent("good", "--scopes", "use,mint", "--expires", "10m")
    assert 3500 < ends_in(long.child()) <= 3600
    assert 500 < ends_in(short.child()) <= 600
    assert 500 < ends_in(short.child(expires_in="9m").child()) <= 540
    never = agent("good", "--scopes", "use,mint", "--expires", "never")
    assert 86_000 < ends_in(never.child(expires_in="1d")) <= 86_400


HOSTS = [GOOD, PLAIN, EVIL, "*.test", "*.good.test"]
METHODS = ["GET", "HEAD", "POST", "PUT"]
PATHS = ["/**", "/a/**", "/a/*", "/a/*/c", "/a/b*", "/a/b", "/b/**", "/**/c", "/x"]
REQUESTS = ["/", "/a", "/a/b", "/a/bc", "/a/b/c", "/b", "/b/c", "/x", "/a%2fb", "/a/b;c"]


def test_b14_a_child_may_only_what_its_parent_may(agent):
    """Whatever is asked for through the endpoint: what the child may, its parent may, and its parent's parent."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)

    def some(of):
        return chance.sample(of, chance.randint(1, 2))

    def asked():
        wanted = {}
        for field, of in (("methods", METHODS), ("paths", PATHS), ("hosts", HOSTS), ("scopes", ["use", "mint"])):
            if chance.random() < 0.25:
                wanted[field] = some(of)
        return wanted | ({"expires_in": chance.choice([60, 600, 3600])} if chance.random() < 0.3 else {})

    made, allowed = 0, 0
    for _ in range(40):
        flags = []
        for flag, of in (("--methods", METHODS), ("--paths", PATHS), ("--hosts", HOSTS)):
            if chance.random() < 0.5:
                flags += [flag, ",".join(some(of))]
        use = chance.choice(["good", "plain", "good,plain"])
        chain = [agent(use, "--scopes", "use,mint", "--expires", chance.choice(["30m", "2h"]), *flags)]
        for _ in range(6):
            answer = chain[-1].mint(chance.choice([["good"], ["plain"], ["good", "plain"]]), **asked())
            assert answer.status in (201, 403, 404), (seed, answer)
            if answer.status == 201:
                child = object.__new__(Agent)
                child.__dict__ = chain[-1].__dict__ | {"token": json.loads(answer.body)["token_value"]}
                child.made = json.loads(answer.body)
                if chain[1:]:
                    assert child.made["expires_at"] <= chain[-1].made["expires_at"], seed
                    assert set(child.made["scopes"]) <= set(chain[-1].made["scopes"]), seed
                chain.append(child)
                made += 1
        for _ in range(6):
            connection, method, path = chance.choice(["good", "plain"]), chance.choice(METHODS), chance.choice(REQUESTS)
            may = []
            for one in reversed(chain):
                answer = one.base_url(method, path, connection, "Content-Length: 0")
                
                assert answer.status in (200, 403, 404), (seed, answer)
                may.append(answer.status == 200)
            assert may == sorted(may), (seed, connection, method, path, may)
            allowed += may[0] and len(may) > 1
    assert made > 20 and allowed > 5, (seed, made, allowed)


def test_hosts_narrow_every_way_in(agent):
    one = agent("good,plain", "--hosts", PLAIN)
    for answer in (one.connect(), one.base_url(), one.call()):
        assert told(answer) == DENIED
    assert PLAIN in json.loads(one.base_url().body)["error"]["message"]
    assert one.forward().status == 200


def test_another_tenants_records_look_like_none(nexus, agent, good, secret):
    """B9: on every way in and in every command."""
    other = ["--tenant", "other"]
    arguments = ["register", "custom", "--name", "theirs", "--base-url", f"https://{GOOD}:{good.port}/theirs",
                 "--inject", "header Authorization: Bearer {token}", "--stdin"]
    theirs = nexus.json(*arguments, *other, stdin=secret + "\n")["id"]
    nexus.nexus("app", "set", "google", "--client-id", "x", *other)
    their_token = nexus.json("token", "create", "--name", "them", "--use", "theirs", *other)["token_id"]
    one = agent("good", "--scopes", "use,mint")
    authority = f"{GOOD}:{good.port}"

    def shown(answer, *names):
        """All of an answer but what differs from request to request, and the name that was asked for."""
        text = answer.body.decode()
        for name in names:
            text = text.replace(name, "NAME")
        text = re.sub(r'"request_id":"[^"]*"', "", text)
        fields = sorted((key, value) for key, value in answer.headers if key not in ("x-nexus-request-id", "date", "content-length"))
        return answer.status, fields, text

    ways = [
        lambda name: one.base_url(connection=name),
        lambda name: one.call(name),
        lambda name: one.mint([name]),
        lambda name: one.tunnelled("GET", "/x", f"X-Nexus-Connection: {name}"),
        lambda name: one.forward("GET", "/x", f"X-Nexus-Connection: {name}"),
        lambda name: one.base_url("GET", "/x", "good", f"X-Nexus-Connection: {name}"),
    ]
    mark = good.mark()
    for way in ways:
        nobody = shown(way("nobody"), "nobody")
        for name in ("theirs", theirs, "con_" + "0" * 32):
            assert shown(way(name), name) == nobody
    # Their base path, which no connection of this agent covers more specifically than its own.
    assert good.since(mark) == []
    nobody = one.connect(GOOD, "X-Nexus-Connection: nobody")
    assert told(one.connect(GOOD, "X-Nexus-Connection: theirs")) == told(nobody)

    def command(*line, name):
        done = nexus.nexus(*(name if word == "NAME" else word for word in line), code=None, stdin="x\n")
        return done.returncode, done.stdout.replace(name, "NAME"), done.stderr.replace(name, "NAME")

    for line in (
        ["connection", "show", "NAME"], ["connection", "set", "NAME", "--stdin"], ["connection", "test", "NAME"],
        ["connection", "disable", "NAME"], ["connection", "enable", "NAME"], ["connection", "delete", "NAME"],
        ["token", "create", "--name", "a", "--use", "NAME"], ["run", "--use", "NAME", "--", "true"],
        ["env", "--use", "NAME"],
    ):
        # The first time some of them make files, and say so.
        command(*line, name="nobody")
        nobody = command(*line, name="nobody")
        assert nobody[0] == 3, nobody
        for name in ("theirs", theirs):
            assert command(*line, name=name) == nobody, line
    for line in (["token", "revoke", "NAME"], ["token", "rotate", "NAME"]):
        nobody = command(*line, name="tok_" + "0" * 32)
        assert nobody[0] == 3 and command(*line, name=their_token) == nobody, line
    nobody = command("app", "delete", "NAME", name="slack")
    assert nobody[0] == 3 and command("app", "delete", "NAME", name="google") == nobody
    assert command("explain", "GET", f"https://{authority}/x", "--agent", "NAME", name="them") == command(
        "explain", "GET", f"https://{authority}/x", "--agent", "NAME", name="none")
    for line in (["list"], ["token", "list"], ["app", "list"]):
        assert "theirs" not in nexus.nexus(*line).stdout and "google" not in nexus.nexus(*line).stdout
    listed = {row["tenant"]: row for row in nexus.json("tenant", "list")}
    assert listed["other"]["connections"] == 1 and listed["other"]["apps"] == 1

    # The end of the tenant is felt on this node once the command has returned.
    value = nexus.json("token", "rotate", their_token, *other)["token_value"]
    them = object.__new__(Agent)
    them.__dict__ = one.__dict__ | {"token": value}
    assert them.base_url(connection="theirs").status == 200
    with tunnel(one.port, one.ca, GOOD, good.port, value) as wire:
        assert nexus.nexus("tenant", "delete", "other", code=2).stderr.count("--yes") == 1
        nexus.nexus("tenant", "delete", "other", "--yes")
        # The tunnel is closed; a request that comes before that is refused.
        try:
            wire.send(f"GET /theirs/x HTTP/1.1\r\nHost: {authority}\r\n\r\n")
            answer = wire.answer()
        except OSError:
            answer = None
        assert answer is None or told(answer) == (403, "token_invalid")
    assert them.base_url(connection="theirs").status == 401
    assert nexus.nexus("tenant", "delete", "other", "--yes", code=3).stderr.count("does not exist") == 1
    assert nexus.nexus("connection", "show", theirs, *other, code=3)
    assert nexus.json("connection", "purge")["purged"] == 0
    assert nexus.json("connection", "purge", *other)["purged"] == 0
    assert nexus.json("connection", "purge", "--all", *other)["purged"] == 1
    assert nexus.nexus("tenant", "delete", "default", "--yes", code=6)


def test_b17_after_revocation_nothing_succeeds(nexus, agent, good):
    """Many requests at once with a token, with one that it made and in tunnels of both, while it is revoked."""
    for _ in range(3):
        boss = agent("good", "--scopes", "use,mint")
        child = boss.child()
        stop = threading.Event()
        successes, refusals, made = [], [], []

        def hammer(ask):
            while not stop.is_set():
                began = time.monotonic()
                try:
                    status = ask()
                except (OSError, EOFError, AssertionError, AttributeError):
                    # Cut off, or closed before its answer was on the way.
                    status = 0
                (successes if status in (200, 201) else refusals).append((began, status))

        def in_tunnel(one):
            wire = tunnel(one.port, one.ca, GOOD, good.port, one.token)

            def ask():
                wire.send(f"GET /x HTTP/1.1\r\nHost: {GOOD}:{good.port}\r\n\r\n")
                answer = wire.answer()
                if answer is None:
                    time.sleep(0.01)
                    return 0
                return answer.status

            return ask

        asks = [lambda one=one: one.base_url().status for one in (boss, child)]
        asks += [in_tunnel(boss), in_tunnel(child), in_tunnel(child)]

        def mint():
            answer = boss.mint()
            if answer.status == 201:
                made.append(json.loads(answer.body)["token_value"])
            return answer.status

        threads = [threading.Thread(target=hammer, args=(ask,)) for ask in [*asks, mint]]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(successes) > 30, 10, "requests to succeed")
        nexus.nexus("token", "revoke", boss.id)
        revoked = time.monotonic()
        wait_for(lambda: sum(began > revoked for began, _ in refusals) > 20, 10, "requests to be refused")
        stop.set()
        for thread in threads:
            thread.join()
        assert [began for began, _ in successes if began > revoked] == []
        for value in made:
            one = object.__new__(Agent)
            one.__dict__ = boss.__dict__ | {"token": value}
            assert one.base_url().status == 401


def test_a_refused_request_in_a_tunnel_names_its_token(nexus, agent, good):
    one = agent("good", "--methods", "GET")
    authority = f"{GOOD}:{good.port}"
    with tunnel(one.port, one.ca, GOOD, good.port, one.token) as wire:
        wire.send(f"DELETE /x HTTP/1.1\r\nHost: {authority}\r\n\r\n")
        denied = wire.answer()
    with tunnel(one.port, one.ca, GOOD, good.port, agent("good").token) as wire:
        wire.send(f"GET /x HTTP/1.1\r\nHost: {authority}\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n")
        malformed = wire.answer()
    for answer, code in ((denied, "denied"), (malformed, "bad_request")):
        assert answer.code == code
        [line] = nexus.audit_of(answer.request_id)
        assert line["event"] == "denied" and line["token_id"].startswith("tok_") and line["agent"] == "boss", line
        assert line["tenant"] == "default" and line["host"] == GOOD


def test_rotation(nexus, agent):
    one = agent("good", "--scopes", "use,mint")
    child = one.child()
    new = nexus.json("token", "rotate", one.id, "--grace", "0s")["token_value"]
    assert one.base_url().status == 401
    one.token = new
    assert one.base_url().status == 200 and child.base_url().status == 200
    made = nexus.json("token", "rotate", child.made["token_id"])
    assert made["expires_at"] and child.base_url().status == 200, "the old value in its grace"
    nexus.nexus("token", "revoke", one.id)
    ended = nexus.nexus("token", "rotate", child.made["token_id"], code=6)
    assert "ended with the one that made it" in ended.stderr


def test_a_limit_of_time_holds_for_all_tokens(nexus, agent):
    before = (nexus.path / "nexus.toml").read_text()
    never = agent("good", "--scopes", "use,mint", "--expires", "never")
    try:
        nexus.write_config(before + '[tokens]\nmax_expires = "1h"\n')
        for flags in (["--expires", "2h"], ["--expires", "never"]):
            refused = nexus.nexus("token", "create", "--name", "a", "--use", "good", *flags, code=2)
            assert "1h at most" in refused.stderr
        assert nexus.json("token", "create", "--name", "a", "--use", "good")["expires_at"]
        assert nexus.json("token", "rotate", never.id, "--grace", "5m")["expires_at"]

        wait_for(lambda: told(never.mint(expires_in="2h")) == DENIED, 5, "the server to know")
        assert never.mint(expires_in="30m").status == 201
    finally:
        nexus.write_config(before)


def test_a_store_that_cannot_be_written_makes_nothing(nexus, agent):
    import sqlite3

    boss = agent("good", "--scopes", "use,mint")
    count = len(nexus.json("token", "list"))
    held = sqlite3.connect(nexus.path / "nexus.db", isolation_level=None)
    try:
        held.execute("BEGIN IMMEDIATE")
        refused = boss.mint()
        assert told(refused) == (503, "store_unavailable")
        # Requests go on with what is in memory.
        assert boss.base_url().status == 200
        [start, end] = nexus.audit_of(refused.request_id)
        assert (start["event"], end["event"], end["reason"]) == ("start", "aborted", "store_unavailable")
    finally:
        held.execute("ROLLBACK")
        held.close()
    assert len(nexus.json("token", "list")) == count
    assert boss.mint().status == 201


@pytest.mark.timeout(600)
def test_a_token_makes_so_many_that_work(nexus, agent):
    boss = agent("good", "--scopes", "use,mint", name="busy")
    other = agent("good", "--scopes", "use,mint", name="calm")
    text = json.dumps({"use": ["good"], "expires_in": "1h"})
    made, revoked = 0, None
    with Wire(boss.port) as wire:
        def ask():
            wire.send(f"POST /v1/tokens HTTP/1.1\r\nHost: x\r\nX-Nexus-Token: {boss.token}\r\n"
                      f"Content-Length: {len(text)}\r\n\r\n{text}")
            return wire.answer()

        while (answer := ask()).status == 201:
            made, revoked = made + 1, json.loads(answer.body)["token_id"]
        assert told(answer) == (429, "rate_limited") and made == 1000
        assert other.mint().status == 201
        nexus.nexus("token", "revoke", revoked)
        assert ask().status == 201 and ask().status == 429
    assert "with it 1000 tokens" in nexus.nexus("token", "revoke", boss.id).stderr
