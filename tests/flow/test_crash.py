"""Killed at any moment, again and again: what is served afterwards is right, and what is left is in order.

LARDER_CRASHES: how often."""

import os
import random
import re
import time

from lib import paths
from lib.client import Fetch
from lib.images import KIB, MIB, Image, blob, digest
from lib.larder import cache_status, wait_until
from lib.upstream import Fault

APP = "t/app"
CRASHES = int(os.environ.get("LARDER_CRASHES", "300"))
LIMIT = 6 * MIB


class Pool:
    """What upstream has; it grows by some blobs and an image each round."""

    def __init__(self, upstream, dice):
        self.upstream, self.dice, self.round = upstream, dice, 0
        self.wanted = {}  # our path -> the bytes

    def grow(self):
        self.round += 1
        new = {}
        for n in range(3):
            data = blob("crash-%d-%d" % (self.round, n), self.dice.choice([1, 5 * KIB, 40 * KIB, 300 * KIB]))
            new[paths.blob(APP, self.upstream.add_blob("app", data))] = data
        image = self.upstream.add("app", Image("crash-%d" % self.round, (self.dice.randrange(1, 60) * KIB,)), tag="r%d" % self.round)
        new[paths.manifest(APP, "r%d" % self.round)] = new[paths.manifest(APP, image.digest)] = image.manifest
        new.update((paths.blob(APP, d), data) for d, data in image.blobs.items())
        self.wanted.update(new)
        return new


def assert_right(response, wanted, target):
    """Whole answers have the right bytes; others are cut short or never came."""
    if response.good:
        assert response.body == wanted, "%s was served wrong" % target
    elif response.status == 200:
        assert wanted.startswith(response.body) and len(response.body) < max(1, len(wanted)), target


def assert_tidy(larder, pool):
    """At most one partial file for each digest, nothing half written, and no file that is none of ours."""
    known = {digest(data).replace(":", "-") for data in pool.wanted.values()}
    assert set(larder.partials()) <= known
    assert os.listdir(os.path.join(larder.store, "tmp")) == []
    assert {name.replace(":", "-") for name in larder.stored_objects()} <= known
    assert os.listdir(os.path.join(larder.store, "quarantine")) == [], "a crash of the process damages nothing"


def test_killed_at_random_moments_again_and_again(start_larder, upstream):
    dice = random.Random(CRASHES)
    upstream.on(re.compile("/blobs/"), Fault(rate=20 * MIB))
    larder = start_larder(upstream, run=False)
    larder.config["store"]["max_size"] = "%dMiB" % (LIMIT // MIB)
    larder.config["log"]["level"] = "info"
    pool = Pool(upstream, dice)
    before, hits = {}, 0
    larder.start()
    for crash in range(CRASHES):
        new = pool.grow()
        # What was asked for when it was killed, and some of what was there before.
        old = dict(before, **dict(dice.sample(sorted(pool.wanted.items()), 5)))
        for target, wanted in old.items():
            r = larder.get(target)
            assert r.good and r.body == wanted, target
            hits += cache_status(r)[0] == "hit"
        fetches = [(target, Fetch(larder.address, target)) for target in new for _ in range(dice.randrange(1, 3))]
        time.sleep(dice.random() ** 2 * 0.06)
        if dice.random() < 0.1:
            larder.stop()
        else:
            larder.kill()
        for target, f in fetches:
            assert_right(f.result(), pool.wanted[target], target)
        before = new
        larder.start()
        assert_tidy(larder, pool)
    for target, wanted in dict(sorted(pool.wanted.items())[-60:], **before).items():
        assert larder.get(target).body == wanted
    larder.wait_idle()
    assert hits > CRASHES, "most of what was asked for had been kept"
    wait_until(lambda: larder.metric("store_used_bytes") <= LIMIT, "the store is within its limit")
    wait_until(lambda: len(larder.stored_objects()) == larder.metric("store_objects"), "every file is known, every object is there")
    assert larder.metric("store_damaged_records_total") == 0
