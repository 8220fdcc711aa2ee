"""One request in, at most one request out (D1 to D4, D6, D7, D10): the bytes that follow never change meaning."""

import pytest


def hidden(mode) -> bytes:
    """A request that must never be read as one."""
    return mode.head("GET", "/hidden")


def nothing_hidden(outcome):
    assert not any("hidden" in one.target for one in outcome.requests), outcome
    return outcome


def test_innocent_bodies_pass(mode):
    for fields, body in (
        (["Content-Length: 5"], b"hello"),
        (["Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n"),
        (["Transfer-Encoding: Chunked"], b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"),
        (["transfer-encoding:chunked"], b"05\r\nhello\r\n000\r\n\r\n"),
    ):
        outcome = mode.attack(mode.head("POST", "/innocent", *fields) + body)
        assert [answer.status for answer in outcome.answers] == [200, 200], (fields, outcome)
        [request, follow_up] = outcome.requests
        assert request.body == b"hello" and request.complete and follow_up.target.endswith("/follow-up")


def test_d1_length_and_coding(mode):
    inner = hidden(mode)
    for fields, body in (
        ([f"Content-Length: {len(inner) + 5}", "Transfer-Encoding: chunked"], b"0\r\n\r\n" + inner),
        (["Transfer-Encoding: chunked", "Content-Length: 4"], b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)),
        (["Content-Length: 0", "Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n"),
    ):
        nothing_hidden(mode.attack(mode.head("POST", "/d1", *fields) + body).refused(400))


CODINGS = [
    ["Transfer-Encoding: xchunked"],
    ["Transfer-Encoding: chunked, identity"],
    ["Transfer-Encoding: identity, chunked"],
    ["Transfer-Encoding: gzip, chunked"],
    ["Transfer-Encoding: identity"],
    ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    ["Transfer-Encoding: chunked, chunked"],
    ["Transfer-Encoding: chunked,"],
    ["Transfer-Encoding: ,chunked"],
    ["Transfer-Encoding:  chunked"],
    ["Transfer-Encoding: \tchunked"],
    ["Transfer-Encoding: chunked "],
    ["Transfer-Encoding: \x0bchunked"],
    ["Transfer-Encoding: \x00chunked"],
    ["Transfer-Encoding: chunked;q=1"],
    ['Transfer-Encoding: "chunked"'],
    ["Transfer-Encoding: chunk\xe9d"],
    ["Transfer-Encoding:"],
    ["Transfer-Encoding : chunked"],
    ["X: y", " Transfer-Encoding: chunked"],
    ["Transfer-Encoding:", " chunked"],
]


@pytest.mark.parametrize("fields", CODINGS, ids=repr)
def test_d2_obscured_coding(mode, fields):
    inner = hidden(mode)
    outcome = mode.attack(mode.head("POST", "/d2", *fields) + b"0\r\n\r\n" + inner)
    nothing_hidden(outcome).refused(400)


def test_d2_twin_of_the_coding(mode):
    """`Transfer_Encoding` frames nothing: dropped or refused, never passed on."""
    outcome = mode.attack(mode.head("POST", "/d2", "Transfer_Encoding: chunked", "Content-Length: 5") + b"hello")
    assert outcome.first.status in (200, 400)
    for request in outcome.requests:
        assert "transfer_encoding" not in [name for name, _ in request.fields]


def test_d2_coding_in_http_1_0(mode):
    data = mode.head("POST", "/d2", "Transfer-Encoding: chunked", version="HTTP/1.0") + b"0\r\n\r\n" + hidden(mode)
    nothing_hidden(mode.attack(data)).refused(400)


LENGTHS = [
    "+5", "-1", "5, 5", "5,5", "0x5", "5 5", " 5", "5 ", "5\t", "\t5", "", "18446744073709551616", "5.0", "5;", "٥", "1e1",
    "5\x00", "99999999999999999999999",
]


@pytest.mark.parametrize("value", LENGTHS, ids=repr)
def test_d3_length(mode, value):
    field = f"Content-Length: {value}".encode()
    data = mode.head("POST", "/d3")[:-2] + field + b"\r\n\r\nhello" + hidden(mode)
    nothing_hidden(mode.attack(data)).refused(400)


@pytest.mark.parametrize("values", [("5", "5"), ("5", "6"), ("6", "5"), ("0", "5")])
def test_d3_two_lengths(mode, values):
    data = mode.head("POST", "/d3", *[f"Content-Length: {value}" for value in values]) + b"hello" + hidden(mode)
    nothing_hidden(mode.attack(data)).refused(400)


def test_d3_leading_zero(mode):
    """`05` is plain digits; if it is taken, then as five."""
    outcome = mode.attack(mode.head("POST", "/d3", "Content-Length: 05") + b"hello")
    if outcome.first.status == 200:
        assert outcome.requests[0].body == b"hello"
    else:
        outcome.refused(400)


CHUNKS = {
    "0x": b"0x2\r\nab\r\n0\r\n\r\n",
    "space after": b"2 \r\nab\r\n0\r\n\r\n",
    "space before": b" 2\r\nab\r\n0\r\n\r\n",
    "tab after": b"2\t\r\nab\r\n0\r\n\r\n",
    "plus": b"+2\r\nab\r\n0\r\n\r\n",
    "minus": b"-1\r\nab\r\n0\r\n\r\n",
    "underscore": b"2_\r\nab\r\n0\r\n\r\n",
    "overflow": b"FFFFFFFFFFFFFFFFF\r\nab\r\n0\r\n\r\n",
    "overflow to two": b"10000000000000002\r\nab\r\n0\r\n\r\n",
    "empty size": b"\r\nab\r\n0\r\n\r\n",
    "no hex": b"g\r\nab\r\n0\r\n\r\n",
    "extension with LF": b"2;a=b\nc\r\nab\r\n0\r\n\r\n",
    "extension with CR": b"2;a=b\rc\r\nab\r\n0\r\n\r\n",
    "extension with NUL": b"2;a=\x00\r\nab\r\n0\r\n\r\n",
    "no CR LF after data": b"2\r\nab0\r\n\r\n",
    "spill": b"2\r\nabcd\r\n0\r\n\r\n",
    "LF after size": b"2\nab\r\n0\r\n\r\n",
    "LF after data": b"2\r\nab\n0\r\n\r\n",
    "LF at the end": b"2\r\nab\r\n0\r\n\n",
    "CR after size": b"2\rab\r\n0\r\n\r\n",
    "folded trailer": b"2\r\nab\r\n0\r\nX: y\r\n z\r\n\r\n",
    "trailer with NUL": b"2\r\nab\r\n0\r\nX: \x00\r\n\r\n",
}


@pytest.mark.parametrize("name", CHUNKS)
def test_d4_chunks(mode, name):
    """A body that is not whole never arrives as if it were."""
    data = mode.head("POST", "/d4", "Transfer-Encoding: chunked") + CHUNKS[name] + hidden(mode)
    outcome = nothing_hidden(mode.attack(data))
    assert outcome.closed and len(outcome.answers) <= 1, outcome
    assert all(answer.status == 400 for answer in outcome.answers), outcome
    assert not any(request.complete for request in outcome.requests), outcome


def test_d4_a_body_that_ends_early(mode):
    for fields, part in ((["Content-Length: 10"], b"hello"), (["Transfer-Encoding: chunked"], b"5\r\nhello\r\n")):
        mark = mode.recorder.mark()
        with mode.open() as wire:
            wire.send(mode.head("POST", "/early-end", *fields) + part)
        mode.settle()
        requests = [one for one in mode.recorder.since(mark) if "early-end" in one.target]
        assert not any(request.complete for request in requests), requests
        assert mode.recorder.take_problems() == []


LINES = {
    "folded": b"X-A: b\r\n c",
    "folded by tab": b"X-A: b\r\n\tc",
    "space before colon": b"X-A : b",
    "bare CR in value": b"X-A: b\rX-B: c",
    "bare LF": b"X-A: b\nX-B: c",
    "NUL in value": b"X-A: b\x00c",
    "control byte in value": b"X-A: b\x01c",
    "DEL in value": b"X-A: b\x7fc",
    "control byte in name": b"X\x01A: b",
    "non-ASCII name": b"X-\xc3\xa9: b",
    "space in name": b"X A: b",
    "no name": b": b",
    "no colon": b"X-A",
    "bracketed name": b"X[A]: b",
    "CR before colon": b"X-A\r: b",
    "LF in authorization": b"Authorization: a\nX-B: c",
}


@pytest.mark.parametrize("name", LINES)
def test_d6_lines(mode, name):
    data = mode.head("GET", "/d6")[:-2] + LINES[name] + b"\r\n\r\n"
    mode.attack(data).refused(400)


def test_d6_request_lines(mode):
    for target in ("/a b", "/a\x00", "/a\x01", "/a\x7f", "/a\r/b", "/a#b", "/%zz", "/%", "/a\\b", "/\xe9"):
        for method in ("GET", "G ET", "GET\x00", "", "G\xe9T"):
            if method != "GET" and target != "/a b":
                continue
            line = f"{method} {mode.target(target)} HTTP/1.1\r\n".encode("latin-1")
            data = line + b"\r\n".join(mode.head("GET", "/").split(b"\r\n")[1:])
            outcome = mode.attack(data).refused(400, closes=False)
            # A whole request with a bad path may leave the connection open for the next one.
            assert all(one.target.endswith("/follow-up") for one in outcome.requests), outcome
            assert len(outcome.requests) == len(outcome.answers) - 1
    for line_end in (b"\n", b"\r\r\n"):
        data = mode.head("GET", "/d6").replace(b"\r\n", line_end)
        mode.attack(data).refused(400)


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
def test_d7_a_body_that_looks_like_a_request(mode, method):
    """A method that usually has no body has one all the same, and it stays a body."""
    inner = hidden(mode)
    with mode.open() as wire:
        mark = mode.recorder.mark()
        wire.send(mode.head(method, "/d7", f"Content-Length: {len(inner)}") + inner)
        answer = wire.answer(method)
        assert answer.status == 200
        wire.send(mode.head("GET", "/after", "Connection: close"))
        after = wire.answer()
        assert after is None or after.status == 200
    mode.settle()
    [request, *rest] = [one for one in mode.recorder.since(mark) if "/settled-" not in one.target]
    assert request.body == inner
    assert all(one.target.endswith("/after") for one in rest), rest
    assert mode.recorder.take_problems() == []


@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_d7_the_body_of_a_refused_request(mode, coding):
    inner = hidden(mode)
    if coding == "length":
        fields, body = [f"Content-Length: {len(inner)}"], inner
    else:
        fields, body = ["Transfer-Encoding: chunked"], b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)
    for method in ("GET", "POST"):
        outcome = mode.attack(mode.head(method, "/d7", "X-Nexus-Connection: no-such", *fields) + body)
        nothing_hidden(outcome)
        assert outcome.first.status in (403, 404), outcome
        # Read to its end, or the connection is closed.
        assert [answer.status for answer in outcome.answers[1:]] in ([], [200]), outcome
        assert len(outcome.requests) == len(outcome.answers) - 1


def test_d7_a_large_body_of_a_refused_request(mode):
    inner = hidden(mode)
    body = inner * (4_000_000 // len(inner))
    data = mode.head("POST", "/d7", "X-Nexus-Connection: no-such", f"Content-Length: {len(body)}") + body
    outcome = nothing_hidden(mode.attack(data))
    assert [answer.status for answer in outcome.answers] in ([], [403], [404], [403, 200], [404, 200]), outcome


def test_d7_without_proof(mode):
    """The body of an unauthenticated request is no request either; each one proves itself (B18)."""
    inner = hidden(mode)
    data = mode.head("POST", "/d7", f"Content-Length: {len(inner)}") + inner
    if mode.name == "tunnel":
        return
    bare = data.replace(f"\r\n{mode.proof()[0]}".encode(), b"", 1)
    assert bare != data
    outcome = nothing_hidden(mode.attack(bare))
    assert outcome.first.status in (401, 407)
    with mode.open() as wire:
        wire.send(mode.head("GET", "/first"))
        assert wire.answer().status == 200
        wire.send(mode.head("GET", "/second").replace(f"\r\n{mode.proof()[0]}".encode(), b"", 1))
        assert wire.answer().status in (401, 407)


@pytest.mark.parametrize(
    "line",
    ["GET {target}", "GET {target} HTTP/0.9", "GET {target} HTTP/1.2", "GET {target} HTTP/2.0", "GET {target} HTTP/11",
     "GET {target} http/1.1", "GET {target} HTTP/1.1 ", "GET {target} HTTP/1", "GET  {target} HTTP/1.1",
     "GET\t{target} HTTP/1.1", " GET {target} HTTP/1.1", "GET {target} ICY/1.1", "GET {target} HTTP/1.10"],
)
def test_d10_versions(mode, line):
    rest = mode.head("GET", "/").split(b"\r\n", 1)[1]
    outcome = mode.attack(line.format(target=mode.target("/d10")).encode() + b"\r\n" + rest)
    outcome.refused(400, 505)


def test_d10_h2_preface(mode):
    mode.attack(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").refused(400, 505)


def test_d10_http_1_0_without_a_length(mode):
    """Without a length a request of HTTP/1.0 has no body: what follows is the next request, or the end."""
    data = mode.head("POST", "/d10", "Connection: keep-alive", version="HTTP/1.0")
    outcome = mode.attack(data)
    assert outcome.first.status in (200, 400), outcome
    assert all(one.body == b"" for one in outcome.requests)
    assert len(outcome.requests) <= len(outcome.answers)


def test_d9_pipelining(mode):
    """Answers come in the order of the requests, refused ones among them."""
    data, wanted = b"", []
    for number in range(200):
        if number % 5 == 3:
            data += mode.head("GET", f"/p{number}", "X-Nexus-Connection: no-such")
            wanted.append(404 if mode.name == "reverse" else 403)
        else:
            data += mode.head("POST", f"/p{number}", f"Content-Length: {number % 7}") + b"x" * (number % 7)
            wanted.append(200)
    mark = mode.recorder.mark()
    with mode.open() as wire:
        wire.send(data + mode.head("GET", "/last", "Connection: close"))
        answers = wire.answers()
    got = [answer.status for answer in answers]
    assert got[:-1] in (wanted, [403 if status == 404 else status for status in wanted]) and got[-1] == 200
    for number, answer in enumerate(answers[:-1]):
        if answer.status == 200:
            assert answer.body == str(number % 7).encode()
    targets = [one.target.rsplit("/", 1)[1] for one in mode.recorder.since(mark)]
    assert targets == [f"p{number}" for number in range(200) if number % 5 != 3] + ["last"]
