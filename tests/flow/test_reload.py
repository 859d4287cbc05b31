"""Changes of the configuration while larder runs: no request notices, a good file takes effect, a bad one changes nothing."""

import errno
import os
import resource
import signal
import socket
import threading
import time

import pytest

from lib import client
from lib.images import KIB, Image
from lib.larder import run, wait_until, yaml_text
from lib.ports import free_port

RULE = {"name": "rule-t", "source": "up.test/*", "target": "t/*"}
OTHER = {"name": "other", "source": "up.test/*", "target": "o/*"}


def image_on(upstream):
    image = Image("reload", layer_sizes=(20 * KIB,))
    upstream.add("app", image, tag="v1")
    return image


def said(larder, **fields):
    """The log comes a moment later."""
    return wait_until(lambda: larder.logged(**fields), "the log says %s" % fields)


def write(larder, text=None):
    """The file in place, as an editor without a backup does it."""
    with open(larder.file, "w") as out:
        out.write(yaml_text(larder.config) if text is None else text)


def taken(larder, n):
    """At least n files were taken: a signal beside a change may lead to one more reading of the same file."""
    wait_until(lambda: larder.metrics()['larder_config_reloads_total{result="taken"}'] >= n, "%d reloads" % n)
    wait_until(lambda: larder.metrics()["larder_config_last_reload_successful"] == 1, "the file is in force")


def refused(larder, n=1):
    wait_until(lambda: larder.metrics()['larder_config_reloads_total{result="refused"}'] == n, "%d refused files" % n)
    assert larder.metrics()["larder_config_last_reload_successful"] == 0


def test_nothing_happens_without_a_change(upstream, larder):
    image_on(upstream)
    assert larder.get("/v2/t/app/manifests/v1").status == 200
    write(larder)  # the same text again
    larder.config["rules"] = [RULE, OTHER]
    write(larder)
    taken(larder, 1)
    assert not larder.logged(msg="configuration changed", name="rule-t")


def test_fewer_connections(upstream, start_larder):
    """Those that are too many end when they have nothing more to do, and none before its answer."""
    larder = start_larder(upstream, client_limits={"max_connections": 6})
    conns = [client.Conn(larder.address) for _ in range(6)]
    for conn in conns:
        assert conn.exchange("GET", "/v2/").status == 200
    larder.config["client"]["max_connections"] = 2
    write(larder)
    taken(larder, 1)
    for conn in conns:
        assert conn.exchange("GET", "/v2/").status == 200
    wait_until(lambda: larder.metric("client_connections_open") == 2, "four have ended")
    for conn in conns:
        conn.close()


def test_more_connections_than_descriptors(upstream, larder):
    resource.prlimit(larder.pid, resource.RLIMIT_NOFILE, (2000, 2000))
    larder.config["client"] = {"max_connections": 10001}
    write(larder)
    taken(larder, 1)
    (told,) = said(larder, level="warn", text="fewer descriptors than client.max_connections needs")
    assert (told["descriptors"], told["max_connections"]) == (2000, 10001)
    larder.config["client"]["max_connections"] = 1000
    write(larder)
    taken(larder, 2)
    assert len(larder.logged(level="warn", text="fewer descriptors")) == 1


def test_a_rule_comes_and_goes(upstream, larder):
    image = image_on(upstream)
    assert larder.get("/v2/o/app/manifests/v1").status == 404
    larder.config["rules"] = [RULE, OTHER]
    write(larder)
    taken(larder, 1)
    assert larder.get("/v2/o/app/manifests/v1").status == 200
    assert larder.get("/v2/o/app/blobs/" + image.layers[0]).status == 200
    assert said(larder, msg="configuration changed", what="rule", name="other", how="added")

    larder.config["rules"] = [OTHER]
    write(larder)
    taken(larder, 2)
    assert larder.get("/v2/t/app/manifests/v1").status == 404, "what a removed rule led to is out of reach at once"
    assert larder.get("/v2/o/app/manifests/v1").status == 200
    assert said(larder, msg="configuration changed", what="rule", name="rule-t", how="removed")


def by_rename(larder):
    with open(larder.file + ".new", "w") as out:
        out.write(yaml_text(larder.config))
    os.replace(larder.file + ".new", larder.file)


def gone_for_a_moment(larder):
    os.unlink(larder.file)
    write(larder)


def by_signal(larder):
    write(larder)
    larder.process.send_signal(signal.SIGHUP)


@pytest.mark.parametrize("change", [write, by_rename, gone_for_a_moment, by_signal])
def test_every_way_of_writing(upstream, larder, change):
    image_on(upstream)
    for n, rules in enumerate(([RULE, OTHER], [OTHER]), 1):
        larder.config["rules"] = rules
        change(larder)
        taken(larder, n)
    assert larder.get("/v2/o/app/manifests/v1").status == 200
    assert larder.get("/v2/t/app/manifests/v1").status == 404


def test_config_map(upstream, start_larder, tmp_path):
    """The kubelet's way: the file is a link into ..data, which is a link to a folder; a new folder's link is renamed over it."""
    image_on(upstream)
    larder = start_larder(upstream, run=False)
    mount = tmp_path / "mount"

    def publish(name):
        (mount / name).mkdir(parents=True)
        (mount / name / "config.yaml").write_text(yaml_text(larder.config))
        (mount / "..data_tmp").symlink_to(name)
        os.replace(mount / "..data_tmp", mount / "..data")

    publish("..one")
    (mount / "config.yaml").symlink_to("..data/config.yaml")
    larder.file = str(mount / "config.yaml")
    larder.write_config = lambda: None
    larder.start()
    larder.config["rules"] = [RULE, OTHER]
    publish("..two")
    taken(larder, 1)
    assert larder.get("/v2/o/app/manifests/v1").status == 200


def test_signal_reads_again_without_a_change(larder):
    larder.process.send_signal(signal.SIGHUP)
    taken(larder, 1)
    larder.process.send_signal(signal.SIGHUP)
    taken(larder, 2)
    said(larder, msg="configuration reloaded", changes=0)


BAD = {
    "syntax": ("listen: [\n", ":"),
    "unknown key": ("rulez: []\n", ":1:1:"),
    "two rules with one target": (yaml_text({"rules": [RULE, dict(OTHER, target="t/*")]}), ":"),
    "no text at all, but bytes": ("\x00\x01", ":"),
    "nothing": ("", ": "),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_changes_nothing(upstream, larder, kind):
    image_on(upstream)
    text, place = BAD[kind]
    before = larder.get("/v2/t/app/manifests/v1")
    write(larder, text)
    refused(larder)
    why = said(larder, level="error", msg="configuration not taken, the one before stays in force")
    assert all(larder.file + place in r["why"] for r in why), why
    write(larder, text)  # the same bad file again: it is not said again
    after = larder.get("/v2/t/app/manifests/v1")
    assert (after.status, after.body) == (200, before.body)
    write(larder)
    taken(larder, 1)
    assert len(larder.logged(level="error", msg=why[0]["msg"], why=why[0]["why"])) == 1
    assert larder.get("/v2/t/app/manifests/v1").status == 200


def test_a_file_that_comes_later_than_its_name(upstream, larder, root, tmp_path):
    """The configuration names what is not there yet: it is taken when it is."""
    image_on(upstream)
    late = tmp_path / "not-yet" / "ca.pem"
    larder.config["upstreams"][0]["ca"] = str(late)
    write(larder)
    refused(larder)
    late.parent.mkdir()
    late.write_text("")
    refused(larder, 2)
    with open(root.file) as good:
        late.write_text(good.read())
    taken(larder, 1)
    assert larder.get("/v2/t/app/manifests/v1").status == 200


def test_a_file_that_is_gone(upstream, larder):
    """It is told, once; larder goes on, and takes the file when it is back."""
    image_on(upstream)
    os.rename(larder.file, larder.file + ".away")
    refused(larder)
    assert said(larder, level="error", text="cannot read the configuration: No such file")
    assert larder.get("/v2/t/app/manifests/v1").status == 200
    os.rename(larder.file + ".away", larder.file)
    taken(larder, 1)


def test_a_pipe_in_its_place(upstream, larder):
    """It is refused and not waited for, a stop neither waits, and a file after it is taken."""
    image_on(upstream)
    os.rename(larder.file, larder.file + ".away")
    os.mkfifo(larder.file)
    refused(larder)
    assert said(larder, level="error", text="cannot read the configuration: it is not a regular file")
    os.kill(larder.pid, signal.SIGHUP)
    refused(larder, 2)
    assert larder.get("/v2/t/app/manifests/v1").status == 200
    larder.config["rules"] = [RULE, OTHER]
    os.unlink(larder.file)
    write(larder)
    taken(larder, 1)
    os.unlink(larder.file)
    os.mkfifo(larder.file)
    os.kill(larder.pid, signal.SIGHUP)
    larder.stop()


def test_a_start_with_a_pipe(upstream, start_larder, tmp_path):
    """As the shell's <(command): it is read once, and that it is empty afterwards is no change."""
    image_on(upstream)
    larder = start_larder(upstream, run=False)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = yaml_text(larder.config)
    threading.Thread(target=lambda: pipe.write_text(text), daemon=True).start()
    larder.file, larder.write_config = str(pipe), lambda: None
    larder.start()
    assert said(larder, level="info", text="not watched")
    assert larder.get("/v2/t/app/manifests/v1").status == 200
    os.kill(larder.pid, signal.SIGHUP)
    refused(larder)
    larder.stop()
    assert len(larder.logged(level="error")) == 1


def test_more_files_than_can_be_watched(upstream, start_larder, root, tmp_path):
    larder = start_larder(upstream, run=False)
    for i in range(513):
        ca = tmp_path / ("ca-%d.pem" % i)
        ca.symlink_to(root.file)
        larder.config["upstreams"].append({"registry": "up-%d.test" % i, "ca": str(ca)})
    larder.start()
    assert said(larder, level="warn", text="more files are named than can be watched")


def test_a_setting_that_needs_a_restart(larder):
    larder.config["workers"] = 1
    larder.config["store"] = {"path": larder.store + "-elsewhere"}
    write(larder)
    taken(larder, 1)
    for key in ("workers", "store.path"):
        said(larder, level="warn", key=key)
    assert not os.path.exists(larder.store + "-elsewhere")


def test_listeners_come_and_go(upstream, larder):
    image_on(upstream)
    first, second = larder.port, free_port()
    larder.config["listen"] = [{"address": "127.0.0.1:%d" % first}, {"address": "127.0.0.1:%d" % second}]
    write(larder)
    taken(larder, 1)
    with client.Conn(("127.0.0.1", second)) as kept:
        assert kept.exchange("GET", "/v2/").status == 200
        assert client.request(("127.0.0.1", second), "GET", "/v2/t/app/manifests/v1").status == 200
        larder.config["listen"] = [{"address": "127.0.0.1:%d" % first}]
        write(larder)
        taken(larder, 2)
        wait_until(lambda: not answers(second), "the second address is closed")
        assert kept.exchange("GET", "/v2/t/app/manifests/v1").status == 200, "a connection that stands goes on"
    assert larder.get("/v2/t/app/manifests/v1").status == 200
    larder.config["listen"] = [{"address": "127.0.0.1:%d" % second}]
    write(larder)
    taken(larder, 3)
    larder.port = second
    wait_until(lambda: answers(second), "the second address is open again")
    assert larder.get("/v2/t/app/manifests/v1").status == 200


def answers(port):
    try:
        return client.request(("127.0.0.1", port), "GET", "/v2/").status == 200
    except OSError:
        return False


def test_an_address_in_use_refuses_the_file(upstream, larder, start_larder):
    image_on(upstream)
    other = start_larder(upstream)
    free = free_port()
    larder.config["rules"] = [RULE, OTHER]
    larder.config["listen"] += [{"address": "127.0.0.1:%d" % free}, {"address": "127.0.0.1:%d" % other.port}]
    write(larder)
    refused(larder)
    said(larder, level="error", text="cannot listen on 127.0.0.1:%d" % other.port)
    assert larder.get("/v2/o/app/manifests/v1").status == 404
    assert not answers(free), "nothing of a refused file stays"


def test_another_process_on_the_same_port_of_another_address_is_not_shared(upstream, larder, start_larder):
    """Both are ours to bind, and the kernel would let two of a user share it."""
    other = start_larder(upstream, run=False)
    other.config["listen"] = [{"address": "127.0.0.2:%d" % larder.port}]
    other.start(wait=False)
    wait_until(lambda: "127.0.0.2" in bound(larder.port), "the other one listens")
    larder.config["listen"] += [{"address": "127.0.0.2:%d" % larder.port}]
    write(larder)
    refused(larder)
    said(larder, level="error", text="cannot listen on 127.0.0.2:%d" % larder.port)


def test_a_listener_moves_between_all_addresses_and_one(upstream, larder):
    """Its own socket, which goes away, is not another process."""
    for i, host in enumerate(("0.0.0.0", "127.0.0.1", "0.0.0.0"), 1):
        larder.config["listen"] = [{"address": "%s:%d" % (host, larder.port)}]
        write(larder)
        taken(larder, i)
        wait_until(lambda: len(bound(larder.port)) == 1, "the socket before is closed")
        assert bound(larder.port) == {host} and answers(larder.port)
    assert larder.logged(level="error") == []


def bound(port):
    """The addresses that something listens on."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in list(table)[1:]]
    return {socket.inet_ntoa(bytes.fromhex(row[1][:8])[::-1]) for row in rows if row[1].endswith(":%04X" % port) and row[3] == "0A"}


def test_an_admin_address_that_was_edited_takes_a_restart(upstream, larder):
    """Until then the commands say why nobody answers, and the old address is not taken for another process's."""
    old, new = larder.admin_port, free_port()
    larder.config["admin"]["address"] = "127.0.0.1:%d" % new
    larder.config["listen"] += [{"address": "127.0.0.1:%d" % old}]
    write(larder)
    larder.config["admin"]["address"] = "127.0.0.1:%d" % old  # where the tests ask
    refused(larder)
    why = said(larder, level="error", text="cannot listen on 127.0.0.1:%d" % old)[0]["why"]
    assert "larder itself has that port for admin.address" in why and "another process" not in why
    r = run("status", "-f", larder.file)
    assert r.returncode == 1 and "127.0.0.1:%d" % new in r.stderr and "restart it if admin.address was changed" in r.stderr


def test_an_address_in_use_is_tried_again(upstream, larder):
    image_on(upstream)
    free, one, two = free_port(), free_port(), free_port()
    held = [socket.create_server(("127.0.0.1", port)) for port in (one, two)]
    larder.config["rules"] = [RULE, OTHER]
    larder.config["listen"] += [{"address": "127.0.0.1:%d" % port} for port in (free, one, two)]
    by_rename(larder)  # read once
    refused(larder)
    why = said(larder, level="error", text="cannot listen on 127.0.0.1:%d" % one)
    assert "tried again every 3 s" in why[0]["why"]
    held[0].close()
    said(larder, level="error", text="cannot listen on 127.0.0.1:%d" % two)
    refused(larder)
    assert larder.get("/v2/o/app/manifests/v1").status == 404 and not answers(one)
    held[1].close()
    taken(larder, 1)
    for port in (free, one, two):
        wait_until(lambda port=port: answers(port), "it listens on all")
        assert len(said(larder, msg="listening", address="127.0.0.1:%d" % port)) == 1
    assert larder.get("/v2/o/app/manifests/v1").status == 200
    assert len(said(larder, msg="configuration reloaded")) == 1
    assert len(larder.logged(level="error")) == 2, "each address is said once, however often it was tried"
    assert larder.metrics()['larder_config_reloads_total{result="refused"}'] == 1


@pytest.mark.parametrize("then", ["another file", "the file before", "a bad file", "a signal", "it stops"])
def test_while_an_address_is_tried_again(upstream, larder, then):
    image_on(upstream)
    port, before = free_port(), yaml_text(larder.config)
    with socket.create_server(("127.0.0.1", port)):
        larder.config["listen"] += [{"address": "127.0.0.1:%d" % port}]
        write(larder)
        refused(larder)
        if then == "it stops":
            larder.stop()
            return
        if then == "a signal":
            larder.process.send_signal(signal.SIGHUP)
            refused(larder, 2)
        elif then == "a bad file":
            write(larder, "nonsense: 1\n")
            refused(larder, 2)
        else:
            larder.config["listen"].pop()
            larder.config["rules"] = [RULE, OTHER] if then == "another file" else larder.config["rules"]
            write(larder)
            taken(larder, 1)
            assert then == "another file" or yaml_text(larder.config) == before
    if then == "a signal":
        taken(larder, 1)
        wait_until(lambda: answers(port), "it listens there")
        return
    time.sleep(4)
    assert not answers(port), "what the file no longer says is not done"
    assert larder.metrics()["larder_config_last_reload_successful"] == (then != "a bad file")
    assert larder.get("/v2/o/app/manifests/v1").status == (200 if then == "another file" else 404)


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE], ids=lambda e: errno.errorcode[e])
@pytest.mark.parametrize("what", ["the configuration", "roots"])
def test_a_file_that_could_not_be_opened_is_tried_again(upstream, start_larder, faults, root, tmp_path, what, error):
    """As for want of descriptors: nothing changes any more that would tell, and it is taken all the same."""
    larder = start_larder(upstream)
    image_on(upstream)
    roots = tmp_path / "roots.pem"
    with open(root.file) as good:
        roots.write_text(good.read())
    faults.cannot_open(larder.file if what == "the configuration" else str(roots), error)
    larder.config["upstreams"][0]["ca"] = str(roots)
    larder.config["rules"] = [RULE, OTHER]
    by_rename(larder)
    refused(larder)
    why = said(larder, level="error", text=os.strerror(error))
    assert "tried again every 3 s" in why[0]["why"]
    time.sleep(4)
    refused(larder)
    assert len(larder.logged(level="error")) == 1, "it is said once, however often it is tried"
    faults.can_open()
    taken(larder, 1)
    assert larder.get("/v2/o/app/manifests/v1").status == 200
    time.sleep(4)
    assert len(said(larder, msg="configuration reloaded")) == 1 and len(larder.logged(level="error")) == 1


def test_a_hundred_reloads_under_load(upstream, larder):
    image = image_on(upstream)
    assert larder.get("/v2/t/app/manifests/v1").status == 200
    assert larder.get("/v2/t/app/blobs/" + image.layers[0]).status == 200
    over, bad, done = threading.Event(), [], [0]

    def ask():
        while not over.is_set():
            try:
                with client.Conn(larder.address) as c:
                    for _ in range(20):
                        r = c.exchange("GET", "/v2/t/app/blobs/" + image.layers[0])
                        if (r.status, r.body) != (200, image.blobs[image.layers[0]]):
                            bad.append(r.status)
                        done[0] += 1
            except (OSError, AssertionError) as e:
                bad.append(repr(e))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads:
        t.start()
    try:
        for i in range(50):
            larder.config["rules"] = [RULE] + [dict(OTHER, name="x%d" % k, target="x%d/*" % k) for k in range(i % 3)]
            larder.config["defaults"]["tag_ttl"] = "%dm" % (60 + i)
            write(larder)
            larder.process.send_signal(signal.SIGHUP)
            wait_until(lambda i=i: larder.metrics()['larder_config_reloads_total{result="taken"}'] > i, "good file %d" % i)
            write(larder, "nonsense: %d\n" % i)
            larder.process.send_signal(signal.SIGHUP)
            wait_until(lambda i=i: larder.metrics()['larder_config_reloads_total{result="refused"}'] > i, "bad file %d" % i)
    finally:
        over.set()
        for t in threads:
            t.join()
    assert not bad and done[0] > 0
    write(larder)


def test_a_transfer_keeps_what_it_began_with(upstream, larder):
    """The rule goes while its fetch is under way: the client that has begun gets it all."""
    image = Image("long", layer_sizes=(600 * KIB,))
    upstream.add("app", image, tag="v1")
    layer = image.layers[0]
    gate = upstream.hold("/v2/app/blobs/" + layer, at=100 * KIB)
    fetch = client.Fetch(larder.address, "/v2/t/app/blobs/" + layer)
    gate.wait_reached()
    larder.config["rules"] = [OTHER]
    write(larder)
    taken(larder, 1)
    assert larder.get("/v2/t/app/manifests/v1").status == 404
    gate.release()
    r = fetch.result()
    assert (r.status, r.body) == (200, image.blobs[layer])
    assert larder.get("/v2/o/app/blobs/" + layer).status == 200
