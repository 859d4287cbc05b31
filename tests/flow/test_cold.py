"""What is stored but not in memory: jobs read it into a few buffers, also where memory is so scarce that it is dropped again."""

import contextlib
import os
import re
import resource
import subprocess
import threading
import time

import pytest

from lib import paths
from lib.client import Fetch
from lib.images import KIB, MIB, blob
from lib.larder import wait_until
from lib.memory import drop_pages, in_memory

APP = "t/app"
SIZE = 24 * MIB
CAP_IPC_LOCK = 14
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

    def wait_read_from_memory(self):
        """No job reads what is in memory. Other programs may take some of it away meanwhile, so not only one try tells."""
        def none_read():
            time.sleep(1.5)  # nothing is believed to be in memory for a second
            before = self.larder.metric(READS)
            assert self.larder.get(self.ours).body == self.data
            return self.larder.metric(READS) == before
        wait_until(none_read, "no job reads what is in memory")

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
def larder(start_larder, upstream):
    larder = start_larder(upstream, run=False, workers=1)
    larder.config["store"]["scrub_rate"] = 0  # it reads, and drops what it has read
    return larder.start()


@pytest.fixture
def stored(upstream, larder):
    stored = Stored(upstream, larder)
    stored.drop()
    if in_memory(stored.path, SIZE - 1):
        pytest.skip("this file system keeps what it is told to drop")
    return stored


def test_is_read_by_jobs(larder, stored):
    before = larder.metric(READS)
    assert larder.get(stored.ours).body == stored.data
    cold = larder.metric(READS)
    assert cold >= before + SIZE // MIB / 2
    stored.wait_read_from_memory()


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


def test_more_clients_than_buffers(stored):
    """A core has 32; who takes little loses its own to others, and none gets another one's bytes."""
    starts = [i * 200_003 for i in range(100)]
    slow = [Fetch(stored.larder.address, stored.ours, {"Range": "bytes=%d-%d" % (at, at + MIB - 1)}, rate=MIB, receive_buffer=16 * KIB) for at in starts]
    quick = Fetch(stored.larder.address, stored.ours)
    assert quick.result().body == stored.data
    for at, f in zip(starts, slow):
        assert f.result().body == stored.data[at:at + MIB]


def test_clients_that_wait_for_a_buffer_may_leave(stored):
    with stored.dropped_again_and_again():
        several = [Fetch(stored.larder.address, stored.ours, leave_at=i * 10 * KIB) for i in range(120)]
        stays = Fetch(stored.larder.address, stored.ours)
        assert stays.result().body == stored.data
        assert all(f.result().end == "left" for f in several)
    wait_until(lambda: stored.larder.connections() == 0, "all have gone")


@pytest.fixture
def overlay(tmp_path):
    """A file system that has its files' pages elsewhere, as a container's own has: nothing can be learned of them."""
    upper, work, lower, path = (str(tmp_path / name) for name in ("upper", "work", "lower", "overlay"))
    for folder in (upper, work, lower, path):
        os.mkdir(folder)
    done = subprocess.run(["mount", "-t", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", "overlay", path],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("a file system of its own needs the right to mount: " + done.stdout.strip())
    yield path
    subprocess.run(["umount", "-l", path], check=False)


def test_it_is_warm_again_where_pages_cannot_be_counted(start_larder, upstream, overlay):
    larder = start_larder(upstream, run=False, workers=1)
    larder.config["store"] = {"path": overlay + "/store", "scrub_rate": 0}
    larder.store = overlay + "/store"
    larder.start()
    stored = Stored(upstream, larder)
    stored.drop()
    assert larder.get(stored.ours).body == stored.data
    stored.wait_read_from_memory()


def test_the_program_and_the_index_stay_in_memory(larder):
    with open("/proc/self/status") as f:
        may = int(re.search(r"^CapEff:\s*(\w+)$", f.read(), re.M)[1], 16) >> CAP_IPC_LOCK & 1
    if not may and resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] < 128 * MIB:
        pytest.skip("RLIMIT_MEMLOCK allows less")
    held = set()
    with open(f"/proc/{larder.pid}/smaps") as f:
        for line in f:
            if m := re.match(r"[0-9a-f]+-[0-9a-f]+ (r-xp|r--s) .* (/.*)", line):
                path = m[2]
            elif line[0].islower() or re.match(r"[0-9a-f]+-", line):
                path = None
            elif path and line.startswith("VmFlags:") and " lo " in line + " ":
                held.add(path.rsplit("/", 1)[-1])
    assert {"larder", "libc.so.6"} <= {re.sub(r"larder.*", "larder", name) for name in held}
    assert "data.mdb" in held


def test_what_is_dropped_before_it_is_sent_is_read_again(larder, stored):
    before = larder.metric(READS)
    with stored.dropped_again_and_again():
        several = [Fetch(larder.address, stored.ours, rate=60 * MIB), Fetch(larder.address, stored.ours, receive_buffer=16 * KIB),
                   Fetch(larder.address, stored.ours)]
        assert all(f.result().body == stored.data for f in several)
    assert larder.metric(READS) > before + SIZE // MIB
