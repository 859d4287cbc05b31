"""The programs of bench/ against each other: what they say must be true before it is worth comparing. Nothing here asserts a time."""

import contextlib
import hashlib
import json
import os
import re
import subprocess
import urllib.error
import urllib.request

import pytest

from lib.images import Image
from lib.larder import binary, wait_until
from lib.ports import free_port

MIB = 1 << 20


def tool(name):
    path = os.path.join(os.path.dirname(binary()), "bench", name)
    if not os.access(path, os.X_OK):
        pytest.skip("%s is not built: LARDER_BENCH is off" % path)
    return path


class Origin:
    def __init__(self, *options):
        self.child = subprocess.Popen([tool("larder-origin"), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                      text=True)
        lines = []
        for line in self.child.stdout:
            if line == "ready\n":
                break
            lines.append(line)
        text = "".join(lines)
        self.url = "http://127.0.0.1:%s" % re.search(r"^listening (\d+)$", text, re.M)[1]
        self.blobs = [(m[1], int(m[2])) for m in re.finditer(r"^blob (\S+) (\d+)$", text, re.M)]
        self.images = dict(re.findall(r"^image (\S+) (\S+)$", text, re.M))

    def blob(self, i=0):
        return "%s/v2/any/blobs/%s" % (self.url, self.blobs[i][0])

    def stats(self, reset=False):
        with urllib.request.urlopen(self.url + "/stats" + ("?reset" if reset else ""), timeout=30) as answer:
            return json.load(answer)

    def close(self):
        self.child.terminate()
        _, errors = self.child.communicate(timeout=30)
        assert (self.child.returncode, errors) == (0, "")


@contextlib.contextmanager
def origin(*options):
    o = Origin(*options)
    try:
        yield o
    finally:
        o.close()


def load(mode, *arguments, status=0, stdin=""):
    done = subprocess.run([tool("larder-load"), mode, "--json", "--quiet", *map(str, arguments)], input=stdin, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (status, "")
    return json.loads(done.stdout.removeprefix("ready\n"))


def errors(report):
    return {name: n for name, n in report["errors"].items() if n}


def fetch(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return answer.status, answer.headers, answer.read()


def test_generated_blobs_have_their_digests_and_ranges():
    with origin("--blob", "1MiB", "--blob", "0", "--blob", "100001") as o:
        assert [size for _, size in o.blobs] == [MIB, 0, 100001]
        bodies = [fetch(o.blob(i))[2] for i in range(3)]
        for (digest, size), body in zip(o.blobs, bodies):
            assert len(body) == size and digest == "sha256:" + hashlib.sha256(body).hexdigest()
        for asked, first, end in (("5-9", 5, 10), ("100000-", 100000, 100001), ("-7", 99994, 100001), ("0-999999", 0, 100001)):
            status, headers, body = fetch(o.blob(2), Range="bytes=" + asked)
            assert (status, body) == (206, bodies[2][first:end])
            assert headers["Content-Range"] == "bytes %d-%d/100001" % (first, end - 1)
        with pytest.raises(urllib.error.HTTPError) as e:
            fetch(o.blob(2), Range="bytes=100001-")
        assert e.value.code == 416
    with origin("--blob", "1MiB") as again:
        assert fetch(again.blob())[2] == bodies[0]


def test_herd_counts_clients_and_bytes_and_verifies():
    with origin("--blob", "3MiB") as o:
        report = load("herd", "-c", 20, "-t", 2, "--size", "3MiB", "--verify", o.blob())
        assert (report["requests"], report["bytes"], errors(report)) == (20, 20 * 3 * MIB, {})
        plain = load("herd", "-c", 5, "--stagger", "50ms", o.blob())
        assert (plain["requests"], plain["bytes"]) == (5, 5 * 3 * MIB)
        stats = o.stats()
        assert (stats["requests"]["blob_get"], stats["bytes"]["blob_get"]) == (25, 25 * 3 * MIB)
        assert report["start_ns"] <= stats["first_blob_byte_ns"] <= report["first_byte_ns"] <= report["end_ns"]


def test_what_is_wrong_is_counted():
    with origin("--blob", "1MiB") as o:
        assert errors(load("herd", "-c", 3, "--size", "2MiB", o.blob(), status=2)) == {"short": 3}
        assert errors(load("herd", "-c", 3, o.blob() + "0", status=2)) == {"status": 3}
        assert o.stats()["not_found"] == 3
        url = o.url
    assert errors(load("herd", "-c", 3, url + "/v2/", status=2)) == {"connect": 3}


def test_another_digest_is_found(tmp_path):
    blob = b"not what its name says"
    name = hashlib.sha256(b"something else").hexdigest()
    (tmp_path / "blobs/sha256").mkdir(parents=True)
    (tmp_path / "blobs/sha256" / name).write_bytes(blob)
    (tmp_path / "index.json").write_text('{"manifests": []}')
    with origin("--dir", str(tmp_path)) as o:
        url = "%s/v2/any/blobs/sha256:%s" % (o.url, name)
        assert errors(load("herd", "-c", 2, url)) == {}
        assert errors(load("herd", "-c", 2, "--verify", url, status=2)) == {"digest": 2}


def test_leavers_and_slow_readers():
    with origin("--blob", "4MiB", "--rate", "40MB") as o:
        gone = load("herd", "-c", 10, "--leave", 1, "--size", "4MiB", o.blob())
        assert gone["left"] + gone["requests"] == 10 and gone["left"] > 0 and errors(gone) == {}
        slow = load("herd", "-c", 2, "--read-rate", "20MB", o.blob())
        assert slow["bytes"] == 8 * MIB and errors(slow) == {}


@pytest.mark.parametrize("kind, requests, length", [("lazy", 1 + 4, 65536 + 4 * MIB), ("parallel", 4, 3 * MIB + 1)])
def test_ranges(kind, requests, length):
    size = 3 * MIB + 1
    with origin("--blob", str(size)) as o:
        report = load("herd", "-c", 3, "--size", size, "--ranges", kind, "--range-count", 4, o.blob())
        assert (report["requests"], report["bytes"], errors(report)) == (3, 3 * length, {})
        assert o.stats()["ranges"] == 3 * requests


def test_closed_and_open_loop():
    with origin("--blob", "100", "--images", "1", "--layer-size", "1000") as o:
        path = "/v2/img-0/manifests/latest"
        hits = load("hits", "-c", 4, "-d", "300ms", "--verify", o.blob(), path)
        assert errors(hits) == {} and hits["requests"] > 0
        stats = o.stats(reset=True)
        assert stats["requests"]["blob_get"] > 0 and stats["requests"]["manifest_get"] > 0
        rate = load("rate", "-c", 4, "-t", 2, "-d", "500ms", "--rate", 200, o.blob())
        assert (rate["requests"], rate["bytes"], errors(rate)) == (100, 10000, {})
        assert o.stats()["requests"]["blob_get"] == 100


def test_an_open_loop_ends_when_told():
    with origin("--blob", "100") as o:
        command = [tool("larder-load"), "rate", "--told", "--json", "-c", "4", "--rate", "500", "--warmup", "20ms", "-d", "600s", o.blob()]
        with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout.readline() == "ready\n"
            o.stats(reset=True)
            wait_until(lambda: o.stats()["requests"]["blob_get"] >= 20, "requests go on")
            assert child.poll() is None
            report = json.loads(child.communicate("", timeout=30)[0])
        assert child.returncode == 0 and errors(report) == {} and report["requests"] > 10 and report["seconds"] < 600
        with subprocess.Popen([*command, "-d", "100ms"], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            child.wait(timeout=30)  # with stdin open
            assert json.loads(child.stdout.read().removeprefix("ready\n"))["seconds"] == 0.1


def test_idle_connections_stay_until_told():
    with origin("--blob", "1") as o:
        child = subprocess.Popen([tool("larder-load"), "idle", "--json", "-c", "50", "--sources", "3", o.blob()], text=True,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout.readline() == "ready\n"
        assert o.stats()["requests"]["blob_get"] == 50 and child.poll() is None
        report = json.loads(child.communicate("", timeout=30)[0])
        assert (report["requests"], errors(report)) == (50, {})


@pytest.mark.parametrize("index", [[], ["--index"]])
def test_pulls_of_whole_images(index):
    with origin("--images", "4", "--layers", "5", "--shared", "2", "--layer-size", "10KiB", "--delay", "1ms", *index) as o:
        assert sorted(o.images) == ["img-%d:latest" % i for i in range(4)]
        report = load("pull", "-c", 3, "--pulls", 4, "--zipf", 1, "--verify", o.url, *sorted(o.images))
        assert (report["requests"], errors(report)) == (12, {})
        asked = o.stats()["requests"]
        assert (asked["manifest_head"], asked["manifest_get"], asked["blob_get"]) == (12, 12 * (1 + len(index)), 12 * 6)
        assert errors(load("pull", "-c", 2, o.url, "nothing:here", status=2)) == {"status": 2}


def test_an_image_from_a_directory(tmp_path):
    def put(text):
        name = hashlib.sha256(text).hexdigest()
        (tmp_path / "blobs/sha256" / name).write_bytes(text)
        return {"digest": "sha256:" + name, "size": len(text)}

    (tmp_path / "blobs/sha256").mkdir(parents=True)
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = put(json.dumps({"schemaVersion": 2, "mediaType": kind, "config": put(b"{}"), "layers": [put(b"layer")]}).encode())
    entry = {**manifest, "mediaType": kind, "annotations": {"org.opencontainers.image.ref.name": "v1"}}
    (tmp_path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    with origin("--dir", str(tmp_path)) as o:
        assert o.images == {"*:v1": manifest["digest"]}
        report = load("pull", "-c", 1, "--verify", o.url, "some/where:v1")
        assert (report["requests"], errors(report)) == (1, {})
        assert fetch(o.url + "/v2/some/where/manifests/v1")[1]["Content-Type"] == kind


@pytest.mark.parametrize("arguments, says", [
    (["dance"], "the first argument is the mode"),
    (["herd"], "a URL is missing"),
    (["herd", "ftp://x/y"], "not a URL of the form"),
    (["herd", "-c", "many", "http://127.0.0.1:1/"], "--clients"),
    (["rate", "http://127.0.0.1:1/x"], "--rate"),
    (["hits", "--told", "http://127.0.0.1:1/x"], "--told is for rate"),
    (["idle", "--reconnect", "http://127.0.0.1:1/x"], "--reconnect"),
    (["hits", "https://127.0.0.1:1/x"], "--insecure to take any"),
    (["hits", "--insecure", "--ca", "x.pem", "https://127.0.0.1:1/x"], "exclude each other"),
    (["hits", "--insecure", "http://127.0.0.1:1/x"], "for an https:// URL"),
    (["hits", "--ca", "/nowhere/x.pem", "https://127.0.0.1:1/x"], "/nowhere/x.pem"),
    (["hits", "--insecure", "--ciphers", "ROT13", "https://127.0.0.1:1/x"], "ROT13"),
    (["herd", "--ranges", "lazy", "http://127.0.0.1:1/x"], "--size"),
])
def test_wrong_arguments_are_explained(arguments, says):
    done = subprocess.run([tool("larder-load"), *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30,
                          check=False)
    assert done.returncode == 1 and says in done.stderr and done.stdout == ""


# --- TLS ------------------------------------------------------------------------------------------------------------


class Secure:
    """larder with one loop, which serves one image by TLS as t/app:v1. `trust` is what larder-load is told."""

    def __init__(self, upstream, start_larder, root, leaf):
        self.image = Image("bench", layer_sizes=(1, 16384, MIB + 1))
        upstream.add("app", self.image, tag="v1")
        port = free_port()
        larder = start_larder(upstream, run=False, workers=1)
        larder.config["listen"].append({"address": "127.0.0.1:%d" % port, "tls": {"certificate": leaf.chain_file, "key": leaf.key_file}})
        larder.start()
        self.url, self.trust = "https://127.0.0.1:%d" % port, ["--ca", root.file]
        self.digest = self.image.layers[2]
        self.size = len(self.image.blobs[self.digest])
        self.path = "/v2/t/app/blobs/" + self.digest

    def load(self, mode, *arguments):
        return load(mode, *self.trust, *arguments)


@pytest.fixture
def secure(upstream, start_larder, root, leaf):
    return Secure(upstream, start_larder, root, leaf)


def test_every_mode_by_tls(secure):
    url = secure.url + secure.path
    herd = secure.load("herd", "-c", 20, "-t", 2, "--size", secure.size, "--verify", url)
    assert (herd["requests"], herd["bytes"], errors(herd)) == (20, 20 * secure.size, {})
    assert sum(herd["handshakes"].values()) == 20
    unread = secure.load("herd", "-c", 5, "--size", secure.size, url)
    assert (unread["requests"], unread["bytes"]) == (5, 5 * secure.size)
    hits = secure.load("hits", "-c", 4, "-d", "300ms", "--verify", url, "/v2/t/app/manifests/v1")
    assert errors(hits) == {} and hits["requests"] > 0 and sum(hits["handshakes"].values()) == 4
    rate = secure.load("rate", "-c", 4, "-d", "500ms", "--rate", 100, secure.url + "/v2/t/app/blobs/" + secure.image.layers[0])
    assert (rate["requests"], errors(rate)) == (50, {})
    idle = secure.load("idle", "-c", 30, "--no-resume", url)
    assert (idle["requests"], errors(idle), idle["handshakes"]) == (30, {}, {"full": 30, "resumed": 0})
    pull = secure.load("pull", "-c", 2, "--pulls", 2, "--verify", secure.url, "t/app:v1")
    assert (pull["requests"], errors(pull)) == (4, {})


def test_what_is_left_of_a_record_is_read(secure):
    """A slow reader takes records of TLS in pieces."""
    for name, rate in ((secure.digest, "10MB"), (secure.image.layers[1], "100KB")):
        size = len(secure.image.blobs[name])
        slow = secure.load("herd", "-c", 2, "--read-rate", rate, "--size", size, "--verify", secure.url + "/v2/t/app/blobs/" + name)
        assert (slow["requests"], slow["bytes"], errors(slow)) == (2, 2 * size, {})


@pytest.mark.parametrize("options, full", [([], 1), (["--no-resume"], 18)])
def test_sessions_are_resumed_unless_told_otherwise(secure, options, full):
    """HEAD, manifest, config and three layers, three times, one after the other or three at a time, each on a new connection."""
    report = secure.load("pull", "-c", 1, "--pulls", 3, "--reconnect", *options, secure.url, "t/app:v1")
    assert (report["requests"], errors(report), report["handshakes"]) == (3, {}, {"full": full, "resumed": 18 - full})


def test_a_server_that_is_not_trusted(secure, pki):
    def refused(*options):
        done = subprocess.run([tool("larder-load"), "herd", "--json", "-c", "3", *options, secure.url + secure.path], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30, check=False)
        report = json.loads(done.stdout)
        assert (done.returncode, errors(report), report["requests"]) == (2, {"tls": 3}, 0)
        return done.stderr

    stranger = pki.root("Stranger")
    assert "the certificate is not trusted" in refused("--ca", stranger.file)
    assert "failed" in refused(*secure.trust, "--ciphers", "AES256-SHA256")
    assert secure.load("herd", "-c", 3, "--ciphers", "ECDHE-ECDSA-CHACHA20-POLY1305", secure.url + secure.path)["requests"] == 3
    insecure = load("herd", "-c", 3, "--insecure", secure.url + secure.path)
    assert (insecure["requests"], errors(insecure)) == (3, {})


def test_a_certificate_for_another_name_is_not_trusted(upstream, start_larder, root):
    secure = Secure(upstream, start_larder, root, root.issue("other.test", names=["other.test"]))
    done = subprocess.run([tool("larder-load"), "herd", *secure.trust, "-c", "1", secure.url + secure.path], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30, check=False)
    assert done.returncode == 2 and "not trusted: IP address mismatch" in done.stderr and "failed    1, tls 1" in done.stdout


# --- the harness ----------------------------------------------------------------------------------------------------

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench")


def run_bench(out, *arguments):
    tool("larder-fill")
    command = [os.path.join(BENCH, "run.sh"), "--quick", "--out", str(out), *arguments]
    if "--larder" not in arguments:
        command += ["--larder", binary()]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300, check=False)
    path = out / "quick.json"
    return done, json.loads(path.read_text()) if path.exists() else None


def test_a_cold_pull_by_tls_is_measured(tmp_path):
    done = subprocess.run([os.path.join(BENCH, "tls.sh"), "--larder", binary(), "--rounds", "1", "--size", "2"], text=True,
                          env=dict(os.environ, TMPDIR=str(tmp_path)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, check=False)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert re.search(r"^2 MiB by TLS 1.2, cold: direct [0-9.]+ s, larder [0-9.]+ s, ratio [0-9.]+, target 1.30: (not )?met$", done.stdout, re.M)
    assert os.listdir(tmp_path) == []


def test_the_harness_runs_every_scenario(tmp_path):
    done, result = run_bench(tmp_path, "--peers", "direct,nginx,nginx-cache,docker-registry")
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {f["figure"]: f for f in result["figures"]}
    assert {f["scenario"] for f in figures.values()} == {
        "manifests", "small", "large", "tls", "latency", "herd", "cold", "mix", "memory", "idle", "many", "start", "evict", "verify", "logging"}
    for name, f in figures.items():
        assert name in done.stdout and ("larder" in f["medians"]) == (f["impossible"] is None), f
    for name in ("manifest by digest", "16 KiB blob", "1 MiB blob"):
        assert set(figures[name]["medians"]) == {"larder", "nginx", "nginx-cache", "docker-registry"}, figures[name]
    for name in ("1 MiB blob by TLS", "4 MiB blob by TLS", "manifest by digest by TLS", "full handshakes, a manifest each",
                 "resumed handshakes, a manifest each", "300 idle connections by TLS: each"):
        assert set(figures[name]["medians"]) == {"larder", "nginx"}, figures[name]
    gets = figures["herd of 30 on 4 MiB: upstream GETs"]
    assert gets["medians"]["larder"] == 1 and gets["met"] is True and gets["medians"]["direct"] == 30 and "no" not in gets["measured"]
    assert list(gets["no"]) == ["nginx"] and "fetches nothing" in gets["no"]["nginx"]
    assert figures["cold mix, 5 images, 8 clients: bytes from upstream, of the unique"]["medians"]["larder"] == 1
    assert figures["16 KiB hits while 300 objects go: evicted"]["medians"]["larder"] >= 300
    for name in ("verify of 32 objects, 10 MiB, in the page cache", "verify --deep of 32 objects, 10 MiB, in the page cache"):
        assert set(figures[name]["medians"]) == {"larder", "cat"}, figures[name]
    judged = {f["unit"] for f in figures.values() if f["met"] is not None}
    assert judged == {"count", "ratio of bytes"}
    assert (tmp_path / "quick.txt").read_text() == done.stdout


def test_a_larder_that_does_not_run_is_a_result(tmp_path):
    broken = tmp_path / "larder"
    broken.write_text("#!/bin/sh\necho it cannot >&2\nexit 1\n")
    broken.chmod(0o755)
    done, result = run_bench(tmp_path, "--larder", str(broken), "--tools", os.path.dirname(tool("larder-load")), "--peers", "nginx", "small")
    assert done.returncode == 3
    [f] = result["figures"]
    assert "ended with status 1: it cannot" in f["no"]["larder"] and f["met"] is False and list(f["medians"]) == ["nginx"]


@pytest.mark.parametrize("arguments, says", [(["dance"], "no scenario 'dance'"), (["--peers", "apache"], "no peer 'apache'"),
                                             (["--larder", "/nowhere/larder"], "/nowhere/larder is not a program")])
def test_wrong_arguments_of_the_harness(tmp_path, arguments, says):
    done, _ = run_bench(tmp_path, *arguments)
    assert done.returncode == 2 and says in done.stderr


def test_targets_are_judged(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    import harness  # pylint: disable=import-error,import-outside-toplevel

    def verdict(target, unit="requests", sharp_only=False, **rounds):
        f = harness.Figure("s", "f", unit, target)
        for server, values in rounds.items():
            for value in values:
                f.add(server, value)
        return f.verdict(sharp_only)

    best = harness.at_least_of(1.2, "nginx", "h2o")
    assert verdict(best, larder=[120, 999, 1], nginx=[100], h2o=[90]) == ("1.20 x", True)
    assert verdict(best, larder=[120], nginx=[90], h2o=[101]) == ("1.19 x", False)
    assert verdict(best, larder=[120]) == ("no peer", None)
    assert verdict(best, nginx=[100]) == ("", None)
    assert verdict(best, sharp_only=True, larder=[1], nginx=[100]) == ("", None)
    least = harness.at_most_of(1.0, "nginx", "h2o")
    assert verdict(least, "ms", larder=[2], nginx=[2], h2o=[3])[1] is True
    assert verdict(least, "ms", larder=[2.5], nginx=[2], h2o=[3])[1] is False
    assert verdict(harness.at_most(1, "count"), "count", True, larder=[1, 1, 2]) == ("2", False)
    assert verdict(harness.at_least(0.98), "ratio", larder=[0.979]) == ("0.979", False)
    refused = harness.Figure("s", "f", "ms", harness.at_most(1, "ms"))
    refused.add("larder", 1)
    refused.refuse("larder", "why")
    assert refused.verdict() == ("no", False)


def test_a_filled_store_has_the_objects_it_says(tmp_path):
    subprocess.run([tool("larder-fill"), "--objects", "300", "--size", "5KiB", "--seed", "7", "origin.test/x", str(tmp_path / "store")], check=True)
    blobs = tmp_path / "store/blobs/sha256"
    assert sorted(os.listdir(blobs)) == sorted(hashlib.sha256(b"7 %d" % i).hexdigest() for i in range(300))
    assert {((blobs / name).stat().st_size, (blobs / name).stat().st_blocks) for name in os.listdir(blobs)} == {(5120, 0)}


def test_a_filled_store_may_have_files_that_take_space(tmp_path):
    subprocess.run([tool("larder-fill"), "--objects", "20", "--size", "70KiB", "--written", "origin.test/x", str(tmp_path / "store")], check=True)
    for file in (tmp_path / "store/blobs/sha256").iterdir():
        assert file.read_bytes() == bytes(70 << 10) and file.stat().st_blocks * 512 >= 70 << 10
