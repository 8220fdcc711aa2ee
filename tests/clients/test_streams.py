"""WebSocket, server-sent events, gRPC and the SDKs that stream."""

import textwrap

import pytest
from nexustest.hosts import API, CLAUDE, GRPC, LLM


def test_websockets(client, python, upstream, secrets_of):
    code = """
        import asyncio, sys
        from websockets.asyncio.client import connect
        async def main():
            async with connect(sys.argv[1]) as socket:
                await socket.send("one")
                print(await socket.recv())
                await socket.send(b"\\x00" * 100000)
                assert await socket.recv() == b"\\x00" * 100000
                # Idle, and then a message.
                await asyncio.sleep(2)
                await socket.send("two")
                print(await socket.recv())
        asyncio.run(main())
    """
    ran = client("api", python, "-c", textwrap.dedent(code), f"wss://{API}:{upstream.port}/ws")
    assert ran.text == "echo one\necho two\n"
    [seen] = upstream.to("/ws")
    assert seen.one("authorization") == f"Bearer {secrets_of['api']}"


@pytest.mark.xfail(strict=True, reason="messages of a WebSocket are passed on as they are")
def test_reflected_in_a_websocket(nexus, python, upstream, secrets_of):
    code = (
        "import sys\n"
        "from websockets.sync.client import connect\n"
        "with connect(sys.argv[1]) as s:\n"
        "    s.send('credential?'); print(s.recv())\n"
    )
    ran = nexus.run("api", [python, "-c", code, f"wss://{API}:{upstream.port}/ws-reflect"]).ok()
    assert ran.text.startswith("it is Bearer ")
    assert secrets_of["api"] not in ran.text


def test_events_arrive_as_they_are_sent(client, python, upstream, secrets_of, tmp_path):
    # The upstream sends the next event when the client has written down the last one.
    code = """
        import httpx, pathlib, sys
        with httpx.Client(http2=sys.argv[3] == "h2", timeout=30).stream("GET", sys.argv[1]) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    pathlib.Path(sys.argv[2], line[6:].strip("[]")).touch()
    """
    import threading

    from nexustest.home import wait_for

    for version in ("h1", "h2"):
        for number in range(5):
            upstream.gate(f"sse-{number}").clear()
        notes = tmp_path / version
        notes.mkdir()

        def step() -> None:
            for number in range(5):
                wait_for((notes / str(number)).exists, 20, f"event {number}")
                upstream.gate(f"sse-{number}").set()

        stepper = threading.Thread(target=step, daemon=True)
        stepper.start()
        url = f"https://{API}:{upstream.port}/sse"
        client("api", python, "-c", textwrap.dedent(code), url, notes, version)
        stepper.join(5)
        assert sorted(path.name for path in notes.iterdir()) == ["0", "1", "2", "3", "4", "DONE"]


OPENAI = """
    import openai, sys
    proxied = {"base_url": sys.argv[1], "api_key": "placeholder"} if len(sys.argv) > 1 else {}
    client = openai.OpenAI(max_retries=0, **proxied)
    ask = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    print(client.chat.completions.create(**ask).choices[0].message.content)
    chunks = [chunk.choices[0].delta.content for chunk in client.chat.completions.create(stream=True, **ask)]
    assert len(chunks) == 5, chunks
    print("".join(chunks).strip())
"""

ANTHROPIC = """
    import anthropic, sys
    proxied = {"base_url": sys.argv[1], "api_key": "placeholder"} if len(sys.argv) > 1 else {}
    client = anthropic.Anthropic(max_retries=0, **proxied)
    ask = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}
    print(client.messages.create(**ask).content[0].text)
    with client.messages.stream(**ask) as stream:
        print("".join(stream.text_stream).strip())
"""

SAID = "the agent never held it\nthe agent never held it\n"


def test_openai_proxied(client, python, upstream, secrets_of):
    ran = client("llm", python, "-c", textwrap.dedent(OPENAI), f"https://{LLM}:{upstream.port}/v1")
    assert ran.text == SAID
    seen = [one for one in upstream.requests if one.path == "/v1/chat/completions"]
    assert {one.one("authorization") for one in seen} == {f"Bearer {secrets_of['llm']}"}


def test_anthropic_proxied(client, python, upstream, secrets_of):
    ran = client("claude", python, "-c", textwrap.dedent(ANTHROPIC), f"https://{CLAUDE}:{upstream.port}")
    assert ran.text == SAID
    seen = upstream.to("/v1/messages")
    assert {one.one("x-api-key") for one in seen} == {secrets_of["claude"]}


def plain(home, python, code, variables):
    """A client without any proxy variable."""
    import subprocess

    from nexustest.home import Ran, clean_environment

    done = subprocess.run(
        [python, "-c", textwrap.dedent(code)], env=clean_environment(home.user) | variables, capture_output=True,
        timeout=60,
    )
    return Ran(done.returncode, done.stdout, done.stderr, "").ok()


def test_openai_base_url(nexus, server, agent, python, upstream, secrets_of):
    before = len(upstream.requests)
    base = f"http://127.0.0.1:{server.port}/c/llm"
    ran = plain(nexus, python, OPENAI, {"OPENAI_BASE_URL": base, "OPENAI_API_KEY": agent[1]})
    assert ran.text == SAID
    seen = upstream.requests[before:]
    assert {(one.path, one.one("authorization")) for one in seen} == {
        ("/v1/chat/completions", f"Bearer {secrets_of['llm']}")
    }
    assert agent[1] not in str(seen)


def test_anthropic_base_url(nexus, server, agent, python, upstream, secrets_of):
    before = len(upstream.requests)
    base = f"http://127.0.0.1:{server.port}/c/claude"
    ran = plain(nexus, python, ANTHROPIC, {"ANTHROPIC_BASE_URL": base, "ANTHROPIC_API_KEY": agent[1]})
    assert ran.text == SAID
    seen = upstream.requests[before:]
    assert {one.one("x-api-key") for one in seen} == {secrets_of["claude"]}
    assert agent[1] not in str(seen)


def test_grpc(client, python, grpc_upstream, secrets_of):
    code = """
        import grpc, sys
        channel = grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials())
        answer, call = channel.unary_unary("/probe.Probe/Unary").with_call(b"hi", timeout=20)
        print(answer, dict(call.trailing_metadata()))
        print([bytes(part) for part in channel.unary_stream("/probe.Probe/Down")(b"", timeout=20)])
        import queue
        questions = queue.Queue()
        chat = channel.stream_stream("/probe.Probe/Chat")(iter(questions.get, None), timeout=20)
        for number in range(3):
            # Each answer comes before the next question is sent.
            questions.put(b"%d" % number)
            print(next(chat))
        questions.put(None)
        assert list(chat) == []
        print(dict(chat.trailing_metadata()), chat.code())
        try:
            channel.unary_unary("/probe.Probe/Fail")(b"", timeout=20)
        except grpc.RpcError as error:
            print(error.code(), error.details(), dict(error.trailing_metadata())["x-probe"])
    """
    ran = client("grpc", python, "-c", textwrap.dedent(code), f"{GRPC}:{grpc_upstream.port}")
    assert ran.text.splitlines() == [
        "b'echo hi' {'x-probe': 'trailer', 'x-probe-bin': b'\\x00\\x01'}",
        "[b'0', b'1', b'2', b'3', b'4']",
        "b'echo 0'",
        "b'echo 1'",
        "b'echo 2'",
        "{'x-probe': 'chatted'} StatusCode.OK",
        "StatusCode.FAILED_PRECONDITION not so failed",
    ]
    assert len(grpc_upstream.calls) == 4
    assert {metadata["authorization"] for _, metadata in grpc_upstream.calls} == {f"Bearer {secrets_of['grpc']}"}
