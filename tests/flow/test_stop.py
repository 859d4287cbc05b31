"""SIGTERM while blobs are on their way: who still reads gets everything, and what was there stays there."""

import json
import os
import re
import signal
import time

import pytest

from lib import paths
from lib.client import Fetch
from lib.images import MIB, blob
from lib.larder import REGISTRY, run, wait_until

APP = "t/app"
TICKS = 0.3  # seconds in which a larder that stops has looked several times for what it may end


class Thing:
    def __init__(self, upstream, size, name="stop"):
        self.data = blob(name, size)
        self.digest = upstream.add_blob("app", self.data)
        self.theirs, self.ours = paths.blob("app", self.digest), paths.blob(APP, self.digest)


@pytest.mark.parametrize("attempt", range(4))
def test_the_last_reader_gets_everything_whatever_core_it_is_on(start_larder, upstream, attempt):
    """With four cores it is most probably another one than that of the client that came first, whose core fetches and has no client
    any more. Which one it is cannot be chosen, hence several attempts."""
    larder = start_larder(upstream, workers=4)
    thing = Thing(upstream, 3 * MIB, "stop-%d" % attempt)
    gate = upstream.hold(thing.theirs, at=MIB)
    first = Fetch(larder.address, thing.ours)
    first.wait_got(MIB)
    others = [Fetch(larder.address, thing.ours) for _ in range(4)]
    for f in others:
        f.wait_got(MIB)
    larder.process.send_signal(signal.SIGTERM)
    first.leave()
    for f in others[:-1]:
        f.leave()
    wait_until(lambda: larder.connections() == 1, "larder has noticed")
    time.sleep(TICKS)
    gate.release()
    r = others[-1].result()
    assert r.good and r.body == thing.data
    larder.wait_exit(0)
    larder.check_store()
    assert larder.stored(thing.digest)
    assert upstream.count() == 1


def test_status_while_it_stops(start_larder, upstream):
    larder = start_larder(upstream)
    thing = Thing(upstream, 3 * MIB)
    gate = upstream.hold(thing.theirs, at=MIB)
    f = Fetch(larder.address, thing.ours)
    f.wait_got(MIB)
    before = json.loads(run("status", "-o", "json", "-f", larder.file).stdout)
    larder.process.send_signal(signal.SIGTERM)
    wait_until(lambda: larder.admin("/readyz")[0] == 503, "it stops")
    told = json.loads(run("status", "-o", "json", "-f", larder.file).stdout)
    assert (before["stopping"], told["stopping"]) == (False, True)
    assert told["config_good"] and told["config_taken"] == before["config_taken"]
    lines = run("status", "-f", larder.file).stdout
    assert re.search(r"^stopping +answers", lines, re.M) and re.search(r"^configuration +taken \d+ \w+ ago$", lines, re.M), lines
    assert larder.metrics()["larder_config_last_reload_successful"] == 1
    larder.process.send_signal(signal.SIGHUP)
    time.sleep(TICKS)
    assert larder.metrics()['larder_config_reloads_total{result="taken"}'] == 0, "nothing is begun any more"
    gate.release()
    assert f.result().good
    larder.wait_exit(0)


@pytest.mark.parametrize("policy", ["finish", "keep"])
def test_a_stop_while_a_partial_file_is_read_keeps_all_of_it(start_larder, upstream, faults, policy):
    """The part that has not been read yet is no worse than before."""
    larder = start_larder(upstream, defaults={"on_abandoned": policy})
    thing = Thing(upstream, 4 * MIB)
    larder.stop()
    with open(larder.partial_path(thing.digest), "wb") as file:
        file.write(thing.data[:MIB])
    larder.start()
    faults.hold("pread")
    f = Fetch(larder.address, thing.ours)
    faults.wait_held("pread")
    f.leave()
    larder.process.send_signal(signal.SIGTERM)
    wait_until(lambda: larder.connections() == 0, "larder has noticed")
    time.sleep(TICKS)
    faults.release("pread")
    larder.wait_exit(0)
    f.result()
    assert os.path.getsize(larder.partial_path(thing.digest)) == MIB
    larder.start()
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data
    assert upstream.requests()[-1].range == "bytes=%d-" % MIB


def test_a_stop_does_not_wait_until_a_suspect_is_read(start_larder, upstream, faults):
    """After an unclean end an object is read before it is given out. Its end is wrong, which only who reads on finds out."""
    larder = start_larder(upstream)
    thing = Thing(upstream, 4 * MIB)
    assert larder.get(thing.ours).good
    larder.wait_stored(thing.digest)
    larder.kill()
    with open(larder.blob_path(thing.digest), "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(bytes([thing.data[-1] ^ 1]))
    faults.hold("preadv2")
    larder.start()
    f = Fetch(larder.address, thing.ours)
    faults.wait_held("preadv2")
    time.sleep(TICKS)
    larder.process.send_signal(signal.SIGTERM)
    f.leave()
    wait_until(lambda: larder.connections() == 0, "larder has noticed")
    time.sleep(TICKS)
    faults.release("preadv2")
    larder.wait_exit(0)
    assert not larder.logged(text="an object is not what the index says")
    assert larder.stored(thing.digest)


def test_a_stop_does_not_wait_for_a_name_to_be_found(start_larder, upstream, faults):
    faults.names({"slow.test": ["wait", "127.0.0.1"]})
    faults.hold("names")
    larder = start_larder(upstream, upstreams=[{"registry": REGISTRY, "endpoints": ["http://slow.test:%d" % upstream.port]}])
    f = Fetch(larder.address, paths.manifest(APP, "v1"))
    faults.wait_held("names")
    f.leave()
    larder.process.send_signal(signal.SIGTERM)
    larder.wait_exit(0)
    assert larder.logged(msg="stopped")
    assert os.path.getsize(os.path.join(larder.store, "lock")) == 0, "the next start has nothing to look for"


def test_who_has_connected_is_answered(larder, upstream):
    """Clients whom the system has let in while larder did not get to accept them, and then it is stopped."""
    thing = Thing(upstream, 100000)
    assert larder.get(thing.ours).good
    larder.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: larder.stands_still(), "all threads stand still")
    fetches = [Fetch(larder.address, thing.ours) for _ in range(20)]
    wait_until(lambda: larder.connections() >= len(fetches) and larder.unread_requests() == len(fetches), "all have asked")
    larder.process.send_signal(signal.SIGTERM)
    larder.process.send_signal(signal.SIGCONT)
    for f in fetches:
        r = f.result()
        assert r.good and r.body == thing.data
    larder.wait_exit(0)
