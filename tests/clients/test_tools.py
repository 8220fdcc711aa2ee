"""git and the package managers, against registries of our own."""

from base64 import b64encode
from pathlib import Path

from nexustest.hosts import CRATES, GIT, NPM, PYPI


def basic(user, password):
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def test_git_clone_and_push(client, upstream, secrets_of, tmp_path, git_root):
    url = f"https://{GIT}:{upstream.port}/git/probe.git"
    client("git", "git", "clone", "-q", url, tmp_path / "clone", env={"GIT_TERMINAL_PROMPT": "0"})
    assert (tmp_path / "clone" / "README").read_text() == "hello\n"
    # Larger than http.postBuffer, so that the push is chunked.
    import os

    (tmp_path / "clone" / "large").write_bytes(os.urandom(3_000_000))
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.test"]
    script = "git add . && git {0} commit -qm second && git push -q origin HEAD:main".format(" ".join(identity))
    client("git", "sh", "-c", script, cwd=tmp_path / "clone", env={"GIT_TERMINAL_PROMPT": "0"})
    seen = upstream.under("/git/")
    assert {one.one("authorization") for one in seen} == {basic("x-access-token", secrets_of["git"])}
    assert any(one.path.endswith("git-receive-pack") and one.body > 3_000_000 for one in seen)
    import subprocess

    log = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", git_root / "probe.git", "log", "--format=%s", "main"],
        capture_output=True, text=True,
    )
    assert log.stdout == "second\nfirst\n"


def test_pip(client, python, upstream, secrets_of, tmp_path):
    client(
        "pypi", python, "-m", "pip", "install", "-q", "--no-input", "--disable-pip-version-check", "--no-cache-dir",
        "--target", tmp_path / "site", "--index-url", f"https://{PYPI}:{upstream.port}/simple/", "nexusprobe",
        env={"PIP_CONFIG_FILE": "/dev/null"},
    )
    assert (tmp_path / "site" / "nexusprobe" / "__init__.py").read_text() == "VALUE = 42\n"
    seen = upstream.under("/simple/") + upstream.under("/files/")
    assert {one.one("authorization") for one in seen} == {basic("__token__", secrets_of["pypi"])}


def test_npm(client, upstream, secrets_of, tmp_path):
    (tmp_path / "package.json").write_text('{"name":"a","version":"1.0.0","dependencies":{"nexus-probe":"1.0.0"}}')
    (tmp_path / "npmrc").write_text(f"registry=https://{NPM}:{upstream.port}/npm/\naudit=false\nfund=false\n")
    client(
        "npm", "npm", "install", "--cache", tmp_path / "cache", cwd=tmp_path,
        env={"npm_config_userconfig": str(tmp_path / "npmrc"), "npm_config_update_notifier": "false"},
    )
    assert (tmp_path / "node_modules" / "nexus-probe" / "index.js").read_text() == "module.exports = 42;\n"
    seen = upstream.under("/npm/")
    assert len(seen) >= 2
    assert {one.one("authorization") for one in seen} == {f"Bearer {secrets_of['npm']}"}


def test_cargo(client, upstream, secrets_of, tmp_path):
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True)
    (project / "src" / "lib.rs").write_text("")
    (project / "Cargo.toml").write_text(
        '[package]\nname = "a"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n'
        '[dependencies]\nprobe = { version = "1", registry = "own" }\n'
    )
    (project / ".cargo").mkdir()
    index = f"sparse+https://{CRATES}:{upstream.port}/crates/index/"
    (project / ".cargo" / "config.toml").write_text(f'[registries.own]\nindex = "{index}"\n')
    client("crates", "cargo", "fetch", cwd=project, env={"CARGO_HOME": str(tmp_path / "cargo")})
    assert list(Path(tmp_path / "cargo" / "registry" / "cache").glob("*/probe-1.0.0.crate"))
    seen = upstream.under("/crates/")
    assert len(seen) >= 3
    assert {one.one("authorization") for one in seen} == {secrets_of["crates"]}
