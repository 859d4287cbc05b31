"""larder warm: images that are fetched before a client asks for them. First the command, against a scripted admin address; then the whole."""

import http.client
import http.server
import json
import os
import re
import signal
import threading
import urllib.parse

import pytest

from lib import paths
from lib.client import Fetch
from lib.images import KIB, MIB, Image, Index
from lib.larder import REGISTRY, cache_status, run, wait_until, yaml_text
from lib.ports import free_port
from lib.terminal import Command

OWN = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]  # what larder runs on
OTHER = {"amd64": "arm64", "arm64": "amd64"}[OWN]
DIGEST = "sha256:" + 64 * "a"


def done(file, *arguments):
    """A command that has to succeed, and to say nothing on standard error."""
    r = run("warm", *arguments, "-f", file)
    assert (r.returncode, r.stderr) == (0, ""), r
    return r.stdout


def told(file, *arguments):
    return json.loads(done(file, *arguments, "-o", "json"))


def failed(file, *arguments):
    """A command that has to fail for some images: its rows, and what it says."""
    r = run("warm", *arguments, "-f", file, "-o", "json")
    assert r.returncode == 1 and r.stderr.startswith("larder: "), r
    return json.loads(r.stdout), r.stderr


def ask(larder, method, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", larder.admin_port, timeout=60)
    connection.request(method, "/api/v1/" + path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


# ---- the command ----

class Server:
    """An admin address that answers what the test says: `answers` by the name of the call; a list is gone through, and its last one stays.
    An answer is (status, JSON), or a function of the query that gives one; None closes the connection without one."""

    def __init__(self, folder):
        self.port, self.asked, self.answers = free_port(), [], {}
        self.file = str(folder / "config.yaml")
        with open(self.file, "w") as out:
            out.write(yaml_text({"admin": {"address": "127.0.0.1:%d" % self.port}, "store": {"path": str(folder / "store")}, "rules": [
                {"name": "t", "source": REGISTRY + "/*", "target": "t/*"}, {"name": "hub", "source": "docker.io/library/hello", "target": "hi"}]}))
        scripted = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                method, (path, _, query) = self.command, self.path.partition("?")
                scripted.asked.append((method, path.removeprefix("/api/v1/"), dict(urllib.parse.parse_qsl(query, strict_parsing=True))))
                assert (self.headers["Larder-Admin"] == "1") == (method == "POST")
                answer = scripted.answers[path.removeprefix("/api/v1/")]
                if isinstance(answer, list):
                    answer = answer.pop(0) if len(answer) > 1 else answer[0]
                if callable(answer):
                    answer = answer(scripted.asked[-1][2])
                if answer is None:
                    return
                body = json.dumps(answer[1], separators=(",", ":")).encode()
                self.send_response(answer[0])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def calls(self):
        return [name for _, name, _ in self.asked]

    def stop(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.stop()


def state(what, **more):
    return 200, dict({"id": 7, "state": what, "manifests": 1, "blobs": 2, "blobs_all": 2, "bytes": 3 * MIB, "bytes_all": 3 * MIB, "fetched": 3,
                      "fetched_bytes": 2048, "digest": DIGEST}, **more)


def no(status, why):
    return status, {"error": why}


ROW = {"image": "t/app:v1", "digest": DIGEST, "state": "done", "manifests": 1, "blobs": 2, "blobs_all": 2, "bytes": 3 * MIB, "bytes_all": 3 * MIB,
       "fetched": 3, "fetched_bytes": 2048}


def test_an_image_in_four_formats(server):
    server.answers = {"warm-start": (200, {"id": 7}), "warm": state("done")}
    assert told(server.file, "t/app:v1") == [ROW]
    assert server.asked == [("POST", "warm-start", {"repository": "t/app", "reference": "v1"}), ("GET", "warm", {"id": "7"})]
    assert done(server.file, "t/app:v1", "-o", "tsv") == "t/app:v1\t%s\tdone\t1\t2\t2\t%d\t%d\t3\t2048\n" % (DIGEST, 3 * MIB, 3 * MIB)
    assert done(server.file, "t/app:v1", "-o", "yaml").startswith("- image: t/app:v1\n  digest: %s\n  state: done\n  manifests: 1\n" % DIGEST)
    lines = done(server.file, "t/app:v1").splitlines()
    assert [re.split("  +", line) for line in lines] == [["IMAGE", "DIGEST", "STATE", "MANIFESTS", "BLOBS", "SIZE", "FETCHED"],
                                                         ["t/app:v1", "sha256:" + 12 * "a", "done", "1", "2", "3.0 MiB", "2.0 KiB"]]


@pytest.mark.parametrize("image,query", [
    ("t/app", {"repository": "t/app", "reference": "latest"}), ("cache.example:5000/t/a/b:x", {"repository": "t/a/b", "reference": "x"}),
    ("t/app:v1@" + DIGEST, {"repository": "t/app", "reference": DIGEST}), (REGISTRY + "/app:v1", {"ns": REGISTRY, "repository": "app", "reference": "v1"}),
    ("docker.io/hello", {"ns": "docker.io", "repository": "hello", "reference": "latest"}), ("hi:1", {"repository": "hi", "reference": "1"})])
@pytest.mark.parametrize("platform", [None, "linux/amd64", "linux/amd64,linux/arm/v7", "all"])
def test_what_is_asked(server, image, query, platform):
    server.answers = {"warm-start": (200, {"id": 7}), "warm": state("done")}
    done(server.file, image, *(["--platform", platform] if platform else []))
    assert server.asked[0] == ("POST", "warm-start", dict(query, **({"platforms": platform} if platform else {})))


def test_one_after_the_other(server):
    ids = iter(range(1, 10))
    server.answers = {"warm-start": lambda q: (200, {"id": next(ids)}), "warm": lambda q: state("done" if server.calls().count("warm") % 3 == 0 else "running")}
    rows = told(server.file, "t/c:1", "t/a:1", "t/b:1")
    assert [row["image"] for row in rows] == ["t/c:1", "t/a:1", "t/b:1"]
    assert [q.get("repository") or q["id"] for _, _, q in server.asked] == ["t/c", "1", "1", "1", "t/a", "2", "2", "2", "t/b", "3", "3", "3"]


def test_one_that_fails_and_the_others(server):
    server.answers = {
        "warm-start": lambda q: no(503, "larder is full") if q["repository"] == "t/full" else (200, {"id": {"t/a": 1, "t/gone": 2, "t/bad": 3, "t/z": 4}[q["repository"]]}),
        "warm": lambda q: {"1": state("done"), "2": no(404, "no such id"), "4": state("done"),
                           "3": state("failed", error='the registry has "nothing"', blobs=1, blobs_all=3)}[q["id"]]}
    images = ("t/a:1", "t/full:1", "t/gone:1", "t/bad:1", "quay.io/x/y:1", "t/z:1")
    rows, said = failed(server.file, *images)
    assert [(row["image"], row["state"]) for row in rows] == list(zip(images, ["done", "failed", "failed", "failed", "failed", "done"]))
    assert said.splitlines() == [
        "larder: t/full:1: larder is full", "larder: t/gone:1: no such id", 'larder: t/bad:1: the registry has "nothing"',
        "larder: quay.io/x/y:1: no rule is for 'x/y'; 'larder cache list' shows the rules, 'larder cache create' adds one"]
    assert rows[1] == dict.fromkeys(ROW, None) | {"image": "t/full:1", "state": "failed"}
    assert (rows[3]["blobs"], rows[3]["blobs_all"]) == (1, 3)
    lines = [re.split("  +", line) for line in run("warm", "t/bad:1", "t/full:1", "-f", server.file).stdout.splitlines()]
    assert lines[1] == ["t/bad:1", "sha256:" + 12 * "a", "failed", "1", "1 of 3", "3.0 MiB", "2.0 KiB"]
    assert lines[2] == ["t/full:1", "-", "failed", "-", "-", "-", "-"]


@pytest.mark.parametrize("answer,said", [
    ((200, {"id": 7, "state": "failed"}), "t/a:1: it is not whole, and the server does not say why"), (state("cancelled"), "t/a:1: cancelled; what has arrived stays"),
    ((200, {}), "it is not whole"), ((200, "text"), "is it of another version?"), (no(404, "no such call"), "t/a:1: no such call")])
def test_odd_answers(server, answer, said):
    server.answers = {"warm-start": (200, {"id": 7}), "warm": answer}
    rows, text = failed(server.file, "t/a:1")
    assert said in text and rows[0]["state"] == ("cancelled" if "cancelled" in said else "failed")


def test_a_server_that_goes_away(server):
    server.answers = {"warm-start": (200, {"id": 7}), "warm": [state("done"), state("running"), None]}
    rows, said = failed(server.file, "t/a:1", "t/b:1", "t/c:1")
    assert [(row["image"], row["state"]) for row in rows] == [("t/a:1", "done"), ("t/b:1", "failed")]
    assert "no server answers on the admin address" in said and said.endswith("larder: 1 of 3 images were not begun, from t/c:1 on\n")
    server.answers["warm-start"] = None
    r = run("warm", "t/a:1", "t/b:1", "-f", server.file)
    assert (r.returncode, r.stdout, r.stderr.count("\n")) == (1, "", 1) and "no server answers" in r.stderr


def test_no_progress_without_a_terminal(server):
    server.answers = {"warm-start": (200, {"id": 7}), "warm": [state("running"), state("running"), state("done")]}
    assert "\r" not in done(server.file, "t/app:v1")


def test_progress(server):
    server.answers = {"warm-start": (200, {"id": 7}), "warm": [state("running", bytes=0, bytes_all=0), state("running", bytes=MIB), state("done")]}
    command = Command("warm", "t/app:v1", "-o", "json", "-f", server.file)
    code, out = command.end()
    assert code == 0 and json.loads(out) == [ROW]
    assert command.shown == ("\r\033[Kt/app:v1 [                    ]   0%  0 B of 0 B\r\033[Kt/app:v1 [######              ]  33%  1.0 MiB of 3.0 MiB\r\033[K")


def test_an_interrupt_cancels_and_begins_nothing_more(server):
    server.answers = {"warm-start": (200, {"id": 7}), "warm-cancel": (200, {"id": 7}),
                      "warm": lambda q: state("done" if server.calls().count("warm-start") == 1 else "cancelled" if "warm-cancel" in server.calls() else "running")}
    command = Command("warm", "t/a:1", "t/b:1", "t/c:1", "t/d:1", "-o", "json", "-f", server.file)
    command.wait_shown("t/b:1 [")
    command.interrupt()
    code, out = command.end()
    assert code == 1 and [(row["image"], row["state"]) for row in json.loads(out)] == [("t/a:1", "done"), ("t/b:1", "cancelled")]
    assert "larder: t/b:1: cancelled" in command.shown and "larder: 2 of 4 images were not begun, from t/c:1 on" in command.shown
    assert ("POST", "warm-cancel", {"id": "7"}) in server.asked and server.calls().count("warm-cancel") == 1


def test_a_second_interrupt_ends_it_at_once(server):
    server.answers = {"warm-start": (200, {"id": 7}), "warm-cancel": (200, {"id": 7}), "warm": state("running")}
    command = Command("warm", "t/a:1", "-f", server.file)
    command.wait_shown("t/a:1 [")
    command.interrupt()
    wait_until(lambda: "warm-cancel" in server.calls(), "it is cancelled, and the server does not care")
    command.interrupt()
    assert command.end() == (-signal.SIGINT, "")


# ---- the whole ----

def size_of(*things):
    """Of manifests and their blobs, each once."""
    blobs = {digest: data for thing in things for digest, data in getattr(thing, "blobs", {}).items() if not isinstance(thing, Index)}
    return sum(map(len, blobs.values())) + sum(len(thing.manifest) for thing in things)


def pulled(larder, repository, tag, image, query="", index=None):
    """All of it is served from the store, by tag and by digest."""
    top = index or image
    targets = [paths.manifest(repository, tag), paths.manifest(repository, top.digest), paths.manifest(repository, image.digest)]
    for target in targets + [paths.blob(repository, digest) for digest in image.blobs]:
        r = larder.get(target + query)
        assert r.good and cache_status(r)[0] == "hit", (target, r)


class Multi:
    """up.test/app:v1 for two platforms."""

    def __init__(self, upstream):
        self.own, self.other = Image("own", (300 * KIB, 2000), arch=OWN), Image("other", (5000,), arch=OTHER)
        self.index = upstream.add("app", Index([self.own, self.other]), tag="v1")


@pytest.fixture
def multi(upstream):
    return Multi(upstream)


def test_an_index_for_the_platform_larder_runs_on(upstream, larder, multi):
    size = size_of(multi.index, multi.own)
    assert told(larder.file, "t/app:v1") == [{
        "image": "t/app:v1", "digest": multi.index.digest, "state": "done", "manifests": 2, "blobs": 3, "blobs_all": 3, "bytes": size, "bytes_all": size,
        "fetched": 5, "fetched_bytes": size}]
    assert all(upstream.count("GET", paths.blob("app", digest)) == 1 for digest in multi.own.blobs)
    assert not larder.stored(multi.other.digest) and not any(map(larder.stored, multi.other.blobs))
    upstream.stop()
    pulled(larder, "t/app", "v1", multi.own, index=multi.index)
    assert larder.get(paths.manifest("t/app", multi.other.digest)).status >= 500


def test_a_second_time_fetches_nothing(upstream, larder, multi):
    first, = told(larder.file, "t/app:v1")
    upstream.forget()
    again, = told(larder.file, "t/app:v1")
    assert again == dict(first, fetched=0, fetched_bytes=0) and upstream.seen == []
    upstream.stop()
    assert told(larder.file, "t/app:v1") == [again]
    assert re.split("  +", done(larder.file, "t/app:v1").splitlines()[1])[-1] == "0 B"


@pytest.mark.parametrize("platforms", ["all", "linux/amd64,linux/arm64"])
def test_several_platforms(upstream, larder, multi, platforms):
    third = Image("third", arch="riscv64")
    upstream.add("app", Index([multi.own, multi.other, third]), tag="v2")
    row, = told(larder.file, "t/app:v2", "--platform", platforms)
    images = [multi.own, multi.other] + ([third] if platforms == "all" else [])
    assert (row["manifests"], row["blobs"]) == (1 + len(images), sum(len(i.blobs) for i in images))
    assert larder.stored(third.digest) == (platforms == "all")
    upstream.stop()
    for image in images:
        assert larder.get(paths.manifest("t/app", image.digest)).good and all(larder.get(paths.blob("t/app", digest)).good for digest in image.blobs)


def test_one_more_platform_later(upstream, larder, multi):
    told(larder.file, "t/app:v1")
    upstream.forget()
    row, = told(larder.file, "t/app:v1", "--platform", "linux/" + OTHER)
    assert (row["fetched"], row["fetched_bytes"]) == (3, size_of(multi.other))
    assert sorted(seen.path for seen in upstream.requests("GET")) == sorted(
        [paths.manifest("app", multi.other.digest), *(paths.blob("app", digest) for digest in multi.other.blobs)])


def test_a_platform_that_the_image_has_not(upstream, larder, multi):
    rows, said = failed(larder.file, "t/app:v1", "--platform", "linux/%s,linux/s390x" % OWN)
    assert (rows[0]["state"], rows[0]["digest"], rows[0]["blobs"]) == ("failed", multi.index.digest, 0)
    line, = said.splitlines()
    assert line.startswith("larder: t/app:v1: ") and "linux/s390x" in line and "linux/%s, linux/%s" % (OWN, OTHER) in line
    assert not any(map(larder.stored, multi.own.blobs)), "nothing is fetched for nothing"


def test_an_image_without_an_index_is_for_any_platform(upstream, larder):
    image = upstream.add("app", Image("plain", arch=OTHER), tag="v1")
    assert told(larder.file, "t/app:v1", "--platform", "linux/s390x")[0]["manifests"] == 1
    upstream.stop()
    pulled(larder, "t/app", "v1", image)


def test_one_that_does_not_exist_and_the_others(upstream, larder):
    a, b = upstream.add("a", Image("a"), tag="v1"), upstream.add("b", Image("b"), tag="v1")
    rows, said = failed(larder.file, "t/a:v1", "t/a:nope", "t/nope:v1", "nope/x:1", "t/b:v1")
    assert [row["state"] for row in rows] == ["done", "failed", "failed", "failed", "done"]
    assert [line.split(": ")[1] for line in said.splitlines()] == ["t/a:nope", "t/nope:v1", "nope/x:1"]
    upstream.stop()
    pulled(larder, "t/a", "v1", a)
    pulled(larder, "t/b", "v1", b)


def test_a_blob_that_upstream_has_not(upstream, larder):
    image = upstream.add("app", Image("lacks", (5000, 7000)), tag="v1")
    lost = image.layers[1]
    del upstream.repo("app")["blobs"][lost]
    rows, said = failed(larder.file, "t/app:v1")
    assert rows[0]["state"] == "failed" and rows[0]["blobs"] < rows[0]["blobs_all"] == 3
    assert "larder: t/app:v1: %s: " % lost in said


def test_by_digest(upstream, larder, multi):
    row, = told(larder.file, "t/app@" + multi.other.digest)
    assert (row["digest"], row["manifests"], row["bytes"]) == (multi.other.digest, 1, size_of(multi.other)), "what is named is fetched, whatever its platform"
    row, = told(larder.file, "t/app:v1@" + multi.index.digest)
    assert (row["digest"], row["manifests"]) == (multi.index.digest, 2)
    upstream.stop()
    for image in (multi.own, multi.other):
        pulled(larder, "t/app", image.digest, image)
    assert larder.get(paths.manifest("t/app", multi.index.digest)).good


@pytest.mark.parametrize("name", ["t/team/deep/app:v1", REGISTRY + "/team/deep/app:v1", "cache.example:5000/t/team/deep/app:v1"], ids=["target", "source", "host"])
def test_by_either_name(upstream, larder, name):
    image = upstream.add("team/deep/app", Image("deep"), tag="v1")
    assert told(larder.file, name)[0]["state"] == "done"
    upstream.stop()
    pulled(larder, "t/team/deep/app", "v1", image)
    pulled(larder, "team/deep/app", "v1", image, query="?ns=" + REGISTRY)
    assert told(larder.file, "t/team/deep/app:v1", REGISTRY + "/team/deep/app:v1")[1]["fetched"] == 0


def test_a_file_that_is_not_the_servers(upstream, larder, tmp_path):
    file = tmp_path / "other.yaml"
    file.write_text(yaml_text({"admin": larder.config["admin"], "rules": [{"name": "x", "source": "quay.io/*", "target": "x/*"}]}))
    rows, said = failed(str(file), "x/app:v1")
    assert rows[0]["state"] == "failed" and said.startswith("larder: x/app:v1: ") and "rule" in said


def hold_layer(upstream, size=4 * MIB, at=2 * MIB):
    """An image of one layer that upstream stops in the middle of, the first time."""
    image = upstream.add("app", Image("slow", (size,)), tag="v1")
    path = paths.blob("app", image.layers[0])
    return image, path, upstream.hold(path, at=at, nth=1)


def arrived(larder, image, at):
    """The first image that this larder warms has its config, and its layer up to there."""
    row = ask(larder, "GET", "warm?id=1")[1]
    return row["blobs"] == 1 and row["bytes"] == len(image.manifest) + len(image.config_bytes) + at


def test_an_interrupt_leaves_what_the_next_time_goes_on_from(upstream, start_larder):
    larder = start_larder(upstream, defaults={"on_abandoned": "keep"})
    image, path, gate = hold_layer(upstream)
    upstream.add("b", Image("b"), tag="v1")
    command = Command("warm", "t/app:v1", "t/b:v1", "-o", "json", "-f", larder.file)
    wait_until(lambda: gate.reached and arrived(larder, image, 2 * MIB), "half of it is here")
    command.wait_shown("t/app:v1 [")
    command.interrupt()
    code, out = command.end()
    row, = json.loads(out)
    assert (code, row["state"], row["blobs"], row["blobs_all"]) == (1, "cancelled", 1, 2)
    assert "larder: t/app:v1: cancelled" in command.shown and "1 of 2 images were not begun, from t/b:v1 on" in command.shown
    first = upstream.requests("GET", path)[0]
    assert first.done.wait(60) and first.aborted, "upstream is let go"
    larder.wait_idle()
    assert larder.partials() == [image.layers[0].replace(":", "-")] and larder.admin("/healthz")[0] == 200
    assert upstream.count(path=re.compile("/v2/b/")) == 0
    upstream.forget()
    row, = told(larder.file, "t/app:v1")
    assert (row["state"], row["fetched"], row["bytes"]) == ("done", 1, size_of(image))
    assert [(seen.path, seen.range) for seen in upstream.requests("GET")] == [(path, "bytes=%d-" % (2 * MIB))], "no byte is asked for twice"
    upstream.stop()
    pulled(larder, "t/app", "v1", image)


def test_without_the_command_it_goes_on(upstream, larder):
    image, _, gate = hold_layer(upstream)
    command = Command("warm", "t/app:v1", "-f", larder.file)
    command.wait_shown("t/app:v1 [")
    gate.wait_reached()
    command.kill()
    gate.release()
    wait_until(lambda: ask(larder, "GET", "warm?id=1")[1]["state"] == "done", "it is whole")
    upstream.stop()
    pulled(larder, "t/app", "v1", image)


def test_cancelled_by_somebody_else(upstream, larder):
    _, _, gate = hold_layer(upstream)
    command = Command("warm", "t/app:v1", "-o", "json", "-f", larder.file)
    gate.wait_reached()
    assert ask(larder, "POST", "warm-cancel?id=1", larder_admin="1") == (200, {"id": 1})
    code, out = command.end()
    assert code == 1 and json.loads(out)[0]["state"] == "cancelled" and "larder: t/app:v1: cancelled" in command.shown
    gate.release()
    larder.wait_idle()


def test_a_client_that_pulls_the_same_meanwhile(upstream, larder):
    image = upstream.add("app", Image("both", (300 * KIB, 200 * KIB, 100 * KIB, 50 * KIB, 2000)), tag="v1")
    gate = upstream.hold(re.compile("^/v2/app/blobs/"), at=1000)
    command = Command("warm", "t/app:v1", "-o", "json", "-f", larder.file)
    gate.wait_reached()
    fetches = [Fetch(larder.address, paths.blob("t/app", digest)) for digest in image.blobs]
    fetches.append(Fetch(larder.address, paths.manifest("t/app", "v1")))
    larder.wait_all_read(len(image.layers))
    gate.release()
    for fetch in fetches:
        r = fetch.result()
        assert r.good
        larder.check_answer(r)
    code, out = command.end()
    assert code == 0 and json.loads(out)[0]["bytes"] == size_of(image)
    assert {digest: upstream.count("GET", paths.blob("app", digest)) for digest in image.blobs} == dict.fromkeys(image.blobs, 1)
    assert upstream.count("GET", paths.manifest("app", "v1")) == 1


@pytest.mark.parametrize("place", ["manifest", "blob"])
def test_larder_stops_while_it_warms(upstream, larder, place):
    image = upstream.add("app", Image("stop", (MIB,)), tag="v1")
    gate = upstream.hold(paths.manifest("app", "v1") if place == "manifest" else paths.blob("app", image.layers[0]), at=100)
    command = Command("warm", "t/app:v1", "t/b:v1", "-f", larder.file)
    gate.wait_reached()
    larder.stop()
    code, _ = command.end()
    assert code == 1 and "larder: " in command.shown
    gate.release()


def test_thirty_two_at_once(upstream, larder):
    gate = upstream.hold(re.compile("/manifests/"), at="request", method=None)
    for n in range(32):
        assert ask(larder, "POST", "warm-start?repository=t/app%d&reference=v1" % n, larder_admin="1") == (200, {"id": n + 1})
    rows, said = failed(larder.file, "t/one-more:v1")
    assert rows[0]["state"] == "failed" and re.match("larder: t/one-more:v1: .*32", said)
    for n in range(32):
        assert ask(larder, "POST", "warm-cancel?id=%d" % (n + 1), larder_admin="1")[0] == 200
    wait_until(lambda: all(ask(larder, "GET", "warm?id=%d" % (n + 1))[1]["state"] == "cancelled" for n in range(32)), "all are cancelled")
    gate.release()
    upstream.clear()
    upstream.add("one-more", Image("one-more"), tag="v1")
    assert told(larder.file, "t/one-more:v1")[0]["state"] == "done"


def test_the_calls(upstream, larder):
    upstream.add("app", Image("a"), tag="v1")
    good = "warm-start?repository=t/app&reference=v1"
    assert ask(larder, "GET", good)[0] == 405 and ask(larder, "POST", good)[0] == 403 and ask(larder, "POST", "warm?id=1", larder_admin="1")[0] == 405
    for query, status in (("", 400), ("repository=t/app", 400), ("repository=T&reference=v1", 400), ("repository=t/app&reference=a%20b", 400),
                          ("repository=t/app&reference=sha256:12", 400), ("repository=nope&reference=v1", 404), ("repository=t/app&reference=v1&ns=quay.io", 404),
                          ("repository=t/app&reference=v1&platforms=linux", 400), ("repository=t/app&reference=v1&platforms=linux/amd64,", 400),
                          ("repository=t/app&reference=v1&platforms=" + ",".join(17 * ["a/b"]), 400),
                          ("repository=t/app&reference=v1&platforms=" + ",".join(16 * [30 * "a" + "/b"]), 400)):
        code, answer = ask(larder, "POST", "warm-start?" + query, larder_admin="1")
        assert code == status and list(answer) == ["error"], (query, code, answer)
    for bad in ("ns=" + "a" * 262, "ns=%00", "ns=%4", "platforms=%4"):
        code, answer = ask(larder, "POST", good + "&" + bad, larder_admin="1")
        assert code == 400 and bad.partition("=")[0] in answer["error"], "what is wrong is not taken for what is missing"
    for bad in ("ns=" + "a" * 262, "ns=%zz"):
        code, answer = ask(larder, "GET", "image?repository=t/app&reference=v1&" + bad)
        assert code == 400 and "ns" in answer["error"]
    assert ask(larder, "GET", "image?repository=t/app&reference=v1&ns=" + "a" * 261)[0] == 404
    assert upstream.seen == []
    for name in ("warm", "warm?id=x", "warm?id="):
        assert ask(larder, "GET", name)[0] == 400
    assert ask(larder, "GET", "warm?id=1")[0] == 404 and ask(larder, "POST", "warm-cancel?id=1", larder_admin="1")[0] == 404
    assert ask(larder, "POST", good, larder_admin="1") == (200, {"id": 1})
    wait_until(lambda: ask(larder, "GET", "warm?id=1")[1]["state"] == "done", "it is whole")
    assert ask(larder, "POST", "warm-cancel?id=1", larder_admin="1")[0] == 404, "it has ended"
