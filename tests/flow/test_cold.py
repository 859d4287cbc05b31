"""What is stored but not in memory: it is read ahead of the client, also where memory is so scarce that it is dropped again."""

import contextlib
import threading

import pytest

from lib import paths
from lib.client import Fetch
from lib.images import KIB, MIB, blob
from lib.larder import wait_until
from lib.memory import drop_pages, in_memory

APP = "t/app"
SIZE = 24 * MIB
READS = "disk_reads_ahead_total"


class Stored:
    def __init__(self, upstream, larder):
        self.data = blob("cold", SIZE)
        digest = upstream.add_blob("app", self.data)
        self.ours, self.larder = paths.blob(APP, digest), larder
        assert larder.get(self.ours).good
        larder.wait_stored(digest)
        self.path = larder.blob_path(digest)

    def drop(self):
        drop_pages(self.path)

    @contextlib.contextmanager
    def dropped_again_and_again(self):
        stop = threading.Event()

        def run():
            while not stop.wait(0.005):
                self.drop()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@pytest.fixture
def stored(upstream, larder):
    stored = Stored(upstream, larder)
    stored.drop()
    if in_memory(stored.path, SIZE - 1):
        pytest.skip("this file system keeps what it is told to drop")
    return stored


def test_is_read_ahead(larder, stored):
    before = larder.metric(READS)
    assert larder.get(stored.ours).body == stored.data
    cold = larder.metric(READS)
    assert cold >= before + SIZE // MIB / 2
    assert larder.get(stored.ours).body == stored.data
    assert larder.metric(READS) == cold  # it is in memory now


def test_a_small_range_reads_no_more_than_itself(larder, stored):
    before = larder.metric(READS)
    r = larder.get(stored.ours, {"Range": "bytes=%d-%d" % (5 * MIB + 3, 5 * MIB + 70 * KIB)})
    assert r.status == 206 and r.body == stored.data[5 * MIB + 3:5 * MIB + 70 * KIB + 1]
    assert larder.metric(READS) == before + 1


def test_several_clients_and_one_that_leaves(larder, stored):
    slow = Fetch(larder.address, stored.ours, rate=40 * MIB)
    leaver = Fetch(larder.address, stored.ours, leave_at=2 * MIB)
    parts = [Fetch(larder.address, stored.ours, {"Range": "bytes=%d-%d" % (i * 6 * MIB, (i + 1) * 6 * MIB - 1)}) for i in range(4)]
    quick = Fetch(larder.address, stored.ours)
    assert b"".join(p.result().body for p in parts) == stored.data
    assert quick.result().body == slow.result().body == stored.data
    assert leaver.result().end == "left"
    wait_until(lambda: larder.connections() == 0, "all have gone")


def test_what_is_dropped_before_it_is_sent_is_read_again(larder, stored):
    before = larder.metric(READS)
    with stored.dropped_again_and_again():
        several = [Fetch(larder.address, stored.ours, rate=60 * MIB), Fetch(larder.address, stored.ours, receive_buffer=16 * KIB),
                   Fetch(larder.address, stored.ours)]
        assert all(f.result().body == stored.data for f in several)
    assert larder.metric(READS) > before + SIZE // MIB
