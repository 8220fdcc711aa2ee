import os
import pwd
import shutil
import tempfile
from pathlib import Path

import pytest
from nexustest.ca import Authority
from nexustest.home import binary


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def authority(root) -> Authority:
    directory = root / "authority"
    directory.mkdir()
    return Authority(directory)


@pytest.fixture
def nobody():
    """A directory of the user nobody's own, with a copy of the program, and how to run as that user."""
    user = pwd.getpwnam("nobody")
    directory = Path(tempfile.mkdtemp(prefix="nexus-nobody-"))
    directory.chmod(0o755)
    shutil.copy(binary(), directory / "nexus-program")
    (directory / "nexus-program").chmod(0o755)
    own = directory / "own"
    own.mkdir(mode=0o700)
    os.chown(own, user.pw_uid, user.pw_gid)
    more = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    yield own, directory / "nexus-program", more
    shutil.rmtree(directory)
