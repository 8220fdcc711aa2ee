"""The hosts of the client suite; nexus resolves them all to loopback."""

API = "api.example.test"
S3 = "s3.example.test"
GIT = "git.example.test"
PYPI = "pypi.example.test"
CRATES = "crates.example.test"
NPM = "npm.example.test"
LLM = "llm.example.test"
CLAUDE = "claude.example.test"
GRPC = "grpc.example.test"
BULK = "bulk.example.test"
PINNED = "pinned.example.test"
HOSTS = [API, S3, GIT, PYPI, CRATES, NPM, LLM, CLAUDE, GRPC, BULK, PINNED]
