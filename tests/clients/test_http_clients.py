"""Real clients that get environment variables and nothing else: the upstream sees the true credential, they do not."""

import json
import textwrap
from urllib.parse import unquote

import pytest
from nexustest.hosts import API, S3


@pytest.fixture
def echo_url(upstream, request):
    return f"https://{API}:{upstream.port}/echo?case={case(request)}"


def case(request) -> str:
    """The test's name, as it can stand in a URL."""
    return request.node.name.translate(str.maketrans("[]", "()"))


def arrived(upstream, request, secret):
    [seen] = [seen for seen in upstream.requests if unquote(seen.query) == f"case={case(request)}"]
    assert seen.one("authorization") == f"Bearer {secret}"
    for name, _ in seen.headers:
        assert not name.startswith("proxy-") and not name.startswith("x-nexus-"), name
    return seen


def echoed(ran) -> dict:
    return json.loads(ran.text.strip().splitlines()[-1])


@pytest.mark.parametrize("flag", ["--http1.1", "--http2"])
def test_curl(client, upstream, secrets_of, flag, echo_url, request):
    ran = client("api", "curl", "-sS", flag, "-w", "\n%{http_version}", echo_url)
    body, version = ran.text.rsplit("\n", 1)
    assert version == ("2" if flag == "--http2" else "1.1")
    assert arrived(upstream, request, secrets_of["api"])
    assert dict(json.loads(body)["headers"])["authorization"].startswith("Bearer *")


def test_the_agents_own_header_is_replaced(client, upstream, secrets_of, echo_url, request):
    client("api", "curl", "-sS", "-H", "Authorization: Bearer mine", "-H", "authorization: other", echo_url)
    arrived(upstream, request, secrets_of["api"])


def test_wget(client, upstream, secrets_of, echo_url, request):
    ran = client("api", "wget", "-nv", "-O", "-", echo_url)
    arrived(upstream, request, secrets_of["api"])
    assert echoed(ran)["method"] == "GET"


PYTHON = {
    "requests": """
        import requests, sys
        session = requests.Session()
        answer = session.post(sys.argv[1], json={"a": 1})
        assert answer.status_code == 200, answer.status_code
        print(answer.text)
    """,
    "httpx-h1": """
        import httpx, sys
        answer = httpx.Client().post(sys.argv[1], json={"a": 1})
        assert answer.http_version == "HTTP/1.1" and answer.status_code == 200
        print(answer.text)
    """,
    "httpx-h2": """
        import httpx, sys
        answer = httpx.Client(http2=True).post(sys.argv[1], json={"a": 1})
        assert answer.http_version == "HTTP/2" and answer.status_code == 200, answer.http_version
        print(answer.text)
    """,
    "aiohttp": """
        import aiohttp, asyncio, sys
        async def main():
            async with aiohttp.ClientSession(trust_env=True) as session:
                async with session.post(sys.argv[1], json={"a": 1}) as answer:
                    assert answer.status == 200, answer.status
                    print(await answer.text())
        asyncio.run(main())
    """,
    "urllib": """
        import sys, urllib.request
        asked = urllib.request.Request(sys.argv[1], data=b'{"a": 1}')
        with urllib.request.urlopen(asked) as answer:
            print(answer.read().decode())
    """,
}


@pytest.mark.parametrize("library", PYTHON)
def test_python(client, python, upstream, secrets_of, library, echo_url, request):
    ran = client("api", python, "-c", textwrap.dedent(PYTHON[library]), echo_url)
    seen = arrived(upstream, request, secrets_of["api"])
    assert seen.method == "POST" and seen.body > 0
    assert "authorization" in dict(echoed(ran)["headers"])


def test_boto3(client, python, upstream, secrets_of, tmp_path):
    code = """
        import boto3, sys
        from botocore.config import Config
        s3 = boto3.client(
            "s3", endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="none",
            aws_secret_access_key="none", config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )
        print([item["Key"] for item in s3.list_objects_v2(Bucket="bucket")["Contents"]])
        print(s3.get_object(Bucket="bucket", Key="a b.txt")["Body"].read())
        s3.put_object(Bucket="bucket", Key="up", Body=b"x" * 300000)
    """
    ran = client("s3", python, "-c", textwrap.dedent(code), f"https://{S3}:{upstream.port}")
    assert ran.text == "['a b.txt']\nb'hello'\n"
    seen = upstream.under("/bucket")
    assert len(seen) == 3
    # boto3's own signature has given way to the connection's credential.
    assert {one.one("authorization") for one in seen} == {f"Bearer {secrets_of['s3']}"}
    assert seen[2].body >= 300000


def test_reqwest(client, upstream, secrets_of, echo_url, request, reqwest):
    ran = client("api", reqwest, echo_url)
    arrived(upstream, request, secrets_of["api"])
    assert ran.text.startswith("HTTP/2.0 200")


def test_go(client, upstream, secrets_of, echo_url, request, go_probe):
    ran = client("api", go_probe, echo_url)
    arrived(upstream, request, secrets_of["api"])
    assert ran.text.startswith("HTTP/2.0 200")


def test_node_fetch(client, upstream, secrets_of, echo_url, request, node_modules, tmp_path):
    # Node 20 does not read proxy variables by itself.
    script = tmp_path / "probe.mjs"
    script.write_text(
        f"""
        import {{ EnvHttpProxyAgent, setGlobalDispatcher }} from '{node_modules}/undici/index.js';
        setGlobalDispatcher(new EnvHttpProxyAgent());
        const answer = await fetch(process.argv[2], {{ method: 'POST', body: 'x'.repeat(100000) }});
        if (answer.status !== 200) throw new Error(answer.status);
        console.log(await answer.text());
        """
    )
    ran = client("api", "node", script, echo_url)
    assert arrived(upstream, request, secrets_of["api"]).body == 100000
    assert echoed(ran)["bytes"] == 100000


def test_nexus_env(nexus, upstream, secrets_of, echo_url, request):
    """`nexus env` gives what `nexus run` sets, for a process that nexus does not start."""
    import subprocess

    variables = json.loads(nexus.nexus("env", "--shell", "json", "--use", "api").stdout)
    environment = {"PATH": nexus.environment["PATH"], "HOME": str(nexus.user)} | variables
    done = subprocess.run(["curl", "-sS", echo_url], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    arrived(upstream, request, secrets_of["api"])
    assert secrets_of["api"] not in done.stdout + str(variables)
    shell = nexus.nexus("env", "--use", "api").stdout
    done = subprocess.run(
        ["bash", "-c", f'{shell}\nexec curl -sS -o /dev/null -w "%{{http_code}}" {echo_url.replace("?case=", "?bash=")}'],
        env={"PATH": nexus.environment["PATH"], "HOME": str(nexus.user)},
        capture_output=True, text=True, timeout=30,
    )
    assert done.stdout == "200", done.stderr


def test_the_exit_code_is_the_clients(client):
    assert client("api", "sh", "-c", "exit 37", ok=False).code == 37


def test_what_is_not_connected_is_refused_at_once(client, upstream):
    ran = client("api", "curl", "-sS", f"https://{S3}:{upstream.port}/echo", ok=False)
    assert ran.code == 56 and b"403" in ran.stderr
