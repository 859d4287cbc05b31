"""Fixtures of the flow tests. Nothing is skipped because the program is missing: without LARDER_BIN tests fail."""

import contextlib

import pytest

from lib.faults import Faults
from lib.larder import Larder
from lib.pki import Pki
from lib.upstream import Upstream


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def root(pki):
    """The authority that everything good is signed by."""
    return pki.root("Larder Test Root")


@pytest.fixture(scope="session")
def leaf(root):
    """A server's certificate for a few names, and for this machine."""
    return root.issue("up.test", names=["up.test", "localhost", "*.up.test"], ips=["127.0.0.1"])


@pytest.fixture
def upstream():
    """A scripted registry, honest until told otherwise."""
    with Upstream() as up:
        yield up


@pytest.fixture
def start_larder(tmp_path):
    """A function that starts a larder; each is stopped at the end and has to end well."""
    with contextlib.ExitStack() as stack:
        count = [0]

        def start(upstream=None, run=True, **config):
            count[0] += 1
            larder = Larder(tmp_path / ("larder-%d" % count[0]), upstream, **config)
            stack.callback(larder.clean_up)
            return larder.start() if run else larder

        yield start


@pytest.fixture
def larder(upstream, start_larder):
    """larder in front of `upstream`: its repositories are under t/."""
    return start_larder(upstream)


@pytest.fixture
def faults(tmp_path, monkeypatch, start_larder):
    """Faults of the system under every larder that is started from here on. What is held is let go before they are stopped."""
    faults = Faults(tmp_path / "faults", monkeypatch)
    yield faults
    faults.release_all()
