"""larder as clients see it over TLS: real clients, sessions, ranges, the herd, a certificate that is renewed, and peers that speak nonsense."""

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import threading

import pytest

from lib import client, paths
from lib.images import KIB, MIB, Image
from lib.memory import drop_pages
from lib.larder import run, wait_until, yaml_text
from lib.ports import free_port

NAME = "cache.test"


@pytest.fixture
def leaf(root):
    return root.issue(NAME, names=[NAME, "localhost"], ips=["127.0.0.1"])


@pytest.fixture
def trusting(root):
    context = ssl.create_default_context(cafile=root.file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.fixture
def secure(upstream, start_larder, leaf):
    """larder with a plain and a TLS address; .tls_port is the second."""
    port = free_port()
    larder = start_larder(upstream, run=False)
    larder.tls_port = port
    larder.config["listen"].append({"address": "127.0.0.1:%d" % port, "tls": {"certificate": leaf.chain_file, "key": leaf.key_file}})
    return larder.start()


def connect(larder, context, **more):
    return client.Conn(("127.0.0.1", larder.tls_port), tls=context, name=NAME, **more)


def image_on(upstream, *sizes):
    image = Image("tls", layer_sizes=sizes or (20 * KIB,))
    upstream.add("app", image, tag="v1")
    return image


def test_content_of_every_size(upstream, secure, trusting):
    image = image_on(upstream, 1, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1, 300 * KIB, 5 * MIB)
    for _ in range(2):  # cold, and from the store
        with connect(secure, trusting) as c:
            r = c.exchange("GET", "/v2/t/app/manifests/v1")
            assert (r.status, r.body) == (200, image.manifest)
            for name, data in image.blobs.items():
                r = c.exchange("GET", "/v2/t/app/blobs/" + name)
                assert (r.status, r.clean, r.body) == (200, True, data)
        secure.wait_stored(*image.blobs)


def test_clients_that_break_off_while_their_blob_is_read_from_the_disk(upstream, secure, trusting):
    """The reason for which a connection ended is still told in the log when the connection itself is no more."""
    image = image_on(upstream, 16 * MIB)
    name = image.layers[0]
    with connect(secure, trusting) as c:
        assert c.exchange("GET", "/v2/t/app/blobs/" + name).good
    secure.wait_stored(name)
    for i in range(30):
        drop_pages(secure.blob_path(name))
        c = connect(secure, trusting)
        c.send_request("GET", "/v2/t/app/blobs/" + name)
        if i % 3 == 0:
            c.sock.recv(1)
        if i % 2 == 0:
            c.reset()
        else:  # a record that is none, and no key for it
            raw = socket.socket(fileno=os.dup(c.sock.fileno()))
            raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            raw.close()
            c.close()
    wait_until(lambda: secure.connections() == 0, "all have gone")
    with connect(secure, trusting) as c:
        assert c.exchange("GET", "/v2/t/app/blobs/" + name).body == image.blobs[name]


def test_ranges_heads_and_errors(upstream, secure, trusting):
    image = image_on(upstream, 300 * KIB)
    name, data = image.layers[0], image.blobs[image.layers[0]]
    with connect(secure, trusting) as c:
        assert c.exchange("GET", "/v2/t/app/blobs/" + name).body == data
        r = c.exchange("GET", "/v2/t/app/blobs/" + name, {"Range": "bytes=1000-99999"})
        assert (r.status, r.body) == (206, data[1000:100000])
        r = c.exchange("HEAD", "/v2/t/app/blobs/" + name)
        assert (r.status, r.header("Content-Length"), r.body) == (200, str(len(data)), b"")
        r = c.exchange("GET", "/v2/none/app/blobs/" + name)
        assert r.status == 404 and r.error_code == "NAME_UNKNOWN"


def test_pipelined_requests(upstream, secure, trusting):
    image = image_on(upstream)
    with connect(secure, trusting) as c:
        asked = client.request_bytes("GET", "/v2/t/app/manifests/v1") * 5
        for piece in (asked[:7], asked[7:100], asked[100:]):
            c.send(piece)
        for _ in range(5):
            assert c.read_response("GET").body == image.manifest


def test_answers_that_go_out_again(upstream, secure, trusting):
    image = upstream.add("app", Image("again", (9000,)), tag="v1")
    with connect(secure, trusting) as conn:
        for target, content in ((paths.manifest("t/app", "v1"), image.manifest),
                                (paths.blob("t/app", image.layers[0]), image.blobs[image.layers[0]])):
            before = secure.metric("client_answers_again_total")

            def given_again(target=target, content=content, before=before):
                for _ in range(20):
                    conn.send_request("GET", target)
                    assert conn.read_response("GET").body == content
                return secure.metric("client_answers_again_total") > before

            wait_until(given_again, "an answer that goes out again")


def test_sessions_are_resumed(secure, trusting):
    """One address is served by several cores, and each has its own sessions: some of many connections meet theirs."""
    with connect(secure, trusting) as c:
        assert c.exchange("GET", "/v2/").status == 200
        session = c.sock.session
    resumed = 0
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", secure.tls_port)) as plain:
            with trusting.wrap_socket(plain, server_hostname=NAME, session=session) as again:
                resumed += again.session_reused
    assert resumed > 0


def test_herd(upstream, secure, trusting):
    image = image_on(upstream, 2 * MIB)
    name, data = image.layers[0], image.blobs[image.layers[0]]
    gate = upstream.hold("/v2/app/blobs/" + name, at=MIB)
    bodies, threads = [], []

    def fetch():
        with connect(secure, trusting) as c:
            bodies.append(c.exchange("GET", "/v2/t/app/blobs/" + name).body)

    for _ in range(10):
        threads.append(threading.Thread(target=fetch))
        threads[-1].start()
    gate.wait_reached()
    wait_until(lambda: secure.metric("fetch_readers") == 10, "all have joined")
    gate.release()
    for t in threads:
        t.join()
    assert bodies == [data] * 10
    assert upstream.count("GET", "/v2/app/blobs/" + name) == 1


def test_a_slow_client_disturbs_nobody(upstream, secure, trusting):
    image = image_on(upstream, 8 * MIB)
    name, data = image.layers[0], image.blobs[image.layers[0]]
    with connect(secure, trusting, receive_buffer=4096) as slow:
        slow.send_request("GET", "/v2/t/app/blobs/" + name)
        head = slow.read_head("GET")
        assert head.status == 200
        with connect(secure, trusting) as c:
            assert c.exchange("GET", "/v2/t/app/blobs/" + name).body == data


def test_a_renewed_certificate_is_shown(root, secure, leaf, trusting):
    def serial():
        with connect(secure, trusting) as c:
            return c.sock.getpeercert()["serialNumber"]

    first = serial()
    renewed = root.issue(NAME, names=[NAME], ips=["127.0.0.1"])
    with connect(secure, trusting) as kept:
        for new, old in ((renewed.chain_file, leaf.chain_file), (renewed.key_file, leaf.key_file)):
            with open(new) as source, open(old + ".new", "w") as out:
                out.write(source.read())
            os.replace(old + ".new", old)
        wait_until(lambda: serial() != first, "the new certificate is shown")
        assert kept.exchange("GET", "/v2/").status == 200, "who is connected stays"
    # A key that does not belong to it changes nothing.
    with open(leaf.key_file, "w") as out:
        out.write(root.issue("other.test", names=["other.test"]).key)
    wait_until(lambda: secure.metrics()["larder_config_last_reload_successful"] == 0, "the wrong key is refused")
    wait_until(lambda: secure.logged(level="error", text="key"), "the log says so")
    assert serial() != first


def test_plain_and_tls_change_places(secure, leaf, trusting):
    """The same address with and without a certificate, by reload."""
    plain, tls = secure.config["listen"]
    secure.config["listen"] = [dict(plain, tls=tls["tls"]), tls]
    with open(secure.file, "w") as out:
        out.write(yaml_text(secure.config))
    wait_until(lambda: secure.metric("config_reloads_total") == 1, "taken")

    def speaks_tls():
        try:
            with client.Conn(secure.address, tls=trusting, name=NAME) as c:
                return c.exchange("GET", "/v2/").status == 200
        except OSError:
            return False

    wait_until(speaks_tls, "the first address speaks TLS")


@pytest.mark.parametrize("nonsense", [b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x80\x2e\x01\x03\x01" + b"x" * 40,
                                      b"\x16\x03\x01\xff\xff" + b"\x01" * 200],
                         ids=["plain HTTP", "hello", "SSL 2", "too long a record"])
def test_nonsense_is_closed(secure, trusting, nonsense):
    with client.Conn(("127.0.0.1", secure.tls_port)) as c:
        with contextlib.suppress(OSError):  # it may be closed by the first bytes already
            c.send(nonsense)
            c.finish_sending()
        assert c.closed_by_peer()
    assert_failure_is_said(secure, "TLS" if nonsense[0] != 0x16 else "")
    with connect(secure, trusting) as c:
        assert c.exchange("GET", "/v2/").status == 200
    assert secure.metric("client_tls_failures_total") == 1


def failures(larder):
    return larder.logged(msg="a client's TLS handshake failed")


def assert_failure_is_said(larder, why):
    wait_until(lambda: larder.metric("client_tls_failures_total") == 1 and failures(larder), "it is counted and said")
    record, = failures(larder)
    assert record["level"] == "warn" and record["client"].startswith("127.0.0.1:") and why in record["why"]


def test_tls_13_only_clients_are_turned_away(secure, root):
    context = ssl.create_default_context(cafile=root.file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with pytest.raises(OSError):
        connect(secure, context)
    assert_failure_is_said(secure, "1.3")


def test_clients_that_do_not_trust_the_certificate(upstream, start_larder, leaf):
    """Each is counted; the log has one of them each ten seconds, and all at level debug."""
    larder = start_larder(upstream, run=False, workers=1)
    larder.tls_port = free_port()
    larder.config["listen"].append({"address": "127.0.0.1:%d" % larder.tls_port,
                                    "tls": {"certificate": leaf.chain_file, "key": leaf.key_file}})
    larder.start()
    context = ssl.create_default_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    for _ in range(5):
        with pytest.raises(ssl.SSLError):
            connect(larder, context)
    client.Conn(("127.0.0.1", larder.tls_port)).close()  # who looks whether the port is open is no failure
    wait_until(lambda: larder.metric("client_tls_failures_total") == 5, "all are counted")
    wait_until(lambda: len(failures(larder)) == 5, "all are said")
    assert sum(r["level"] == "warn" for r in failures(larder)) == 1
    wait_until(lambda: larder.metric("client_connections_open") == 0, "nothing is left")
    assert larder.metric("client_tls_failures_total") == 5


def test_a_client_that_never_shakes_hands_is_dropped(upstream, start_larder, leaf):
    port = free_port()
    larder = start_larder(upstream, run=False, client_limits={"header_timeout": "300ms", "idle_timeout": "500ms"})
    larder.config["listen"].append({"address": "127.0.0.1:%d" % port, "tls": {"certificate": leaf.chain_file, "key": leaf.key_file}})
    larder.start()
    with client.Conn(("127.0.0.1", port)) as silent, client.Conn(("127.0.0.1", port)) as half:
        half.send(b"\x16\x03\x01\x02\x00\x01")
        assert silent.closed_by_peer() and half.closed_by_peer()
    wait_until(lambda: larder.metric("client_connections_open") == 0, "nothing is left")
    assert_failure_is_said(larder, "in time")


EMPTY = b"\x15\x03\x03\x00\x00" * 50000
WARNINGS = (b"\x15\x03\x03\x40\x00" + b"\x01\x5a" * 8192) * 16


@pytest.mark.parametrize("records", [EMPTY, WARNINGS], ids=["empty records", "warnings"])
def test_a_peer_that_never_stops_stops_nobody_else(upstream, start_larder, leaf, records):
    """What TLS may ignore without end before a handshake. The one core has time for others, and the sender is closed."""
    larder = start_larder(upstream, run=False, workers=1)
    larder.tls_port = free_port()
    larder.config["listen"].append({"address": "127.0.0.1:%d" % larder.tls_port,
                                    "tls": {"certificate": leaf.chain_file, "key": leaf.key_file}})
    larder.start()
    over, closed = threading.Event(), []

    def blast():
        while not over.is_set():
            with client.Conn(("127.0.0.1", larder.tls_port)) as c, contextlib.suppress(OSError):
                for _ in range(10000):
                    c.send(records)
                    if over.is_set():
                        return
            closed.append(True)

    threads = [threading.Thread(target=blast) for _ in range(3)]
    for t in threads:
        t.start()
    try:
        for _ in range(5):
            assert client.request(larder.address, "GET", "/v2/", timeout=3).status == 200
        wait_until(lambda: len(closed) >= 3, "who sends without end is closed")
    finally:
        over.set()
        for t in threads:
            t.join()
    wait_until(lambda: failures(larder), "it is said")
    assert "more than a TLS handshake" in failures(larder)[0]["why"]


def test_clients_may_leave_at_any_moment(upstream, secure, trusting):
    image = image_on(upstream, MIB)
    for leave in range(0, MIB, MIB // 12):
        with connect(secure, trusting) as c:
            c.send_request("GET", "/v2/t/app/blobs/" + image.layers[0])
            while leave > 0:
                leave -= len(c.sock.recv(min(leave, 65536)))
            c.reset()
    wait_until(lambda: secure.metric("client_connections_open") == 0, "nothing is left")


def test_the_end_is_said(secure, trusting):
    """SIGTERM: who is idle gets a close_notify, not a broken connection."""
    with connect(secure, trusting) as c:
        assert c.exchange("GET", "/v2/").status == 200
        secure.process.send_signal(signal.SIGTERM)
        assert c.sock.recv(1) == b"", "an end that was not announced would raise"
    secure.wait_exit(0)


def test_skopeo(upstream, secure, root, tmp_path):
    image = image_on(upstream, 2 * MIB, 300)
    certs = tmp_path / "certs"
    certs.mkdir()
    (certs / "ca.crt").write_text(root.pem)
    done = subprocess.run(["skopeo", "copy", "--src-cert-dir", str(certs), "docker://127.0.0.1:%d/t/app:v1" % secure.tls_port,
                           "dir:%s" % (tmp_path / "copy")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "copy" / "manifest.json").read_bytes() == image.manifest


def test_curl(upstream, secure, root):
    image = image_on(upstream, 3 * MIB)
    done = subprocess.run(["curl", "-sS", "--cacert", root.file, "--resolve", "%s:%d:127.0.0.1" % (NAME, secure.tls_port),
                           "https://%s:%d/v2/t/app/blobs/%s" % (NAME, secure.tls_port, image.layers[0])],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == image.blobs[image.layers[0]]


BAD = {
    "no such file": lambda leaf: {"certificate": "/nowhere/x.pem", "key": leaf.key_file},
    "the key of another": lambda leaf: {"certificate": leaf.chain_file, "key": leaf.other},
    "a key as certificate": lambda leaf: {"certificate": leaf.key_file, "key": leaf.key_file},
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_bad_certificate_stops_the_start(start_larder, upstream, root, leaf, kind, command):
    leaf.other = root.issue("other.test", names=["other.test"]).key_file
    larder = start_larder(upstream, run=False)
    larder.config["listen"][0]["tls"] = BAD[kind](leaf)
    larder.write_config()
    done = run(command, "-f", larder.file)
    assert (done.returncode, done.stdout) == (1, "")
    assert larder.file + ":" in done.stderr and "listen[].tls" in done.stderr, done.stderr


def test_check_takes_what_serving_takes(start_larder, upstream, root, leaf, tmp_path):
    larder = start_larder(upstream, run=False)
    larder.config["listen"][0]["tls"] = {"certificate": leaf.chain_file, "key": leaf.key_file}
    larder.write_config()
    assert run("check", "-f", larder.file).returncode == 0
    wrong = run("check", "-f", larder.file, env=dict(os.environ, HTTPS_PROXY="ftp://me:hunter2@proxy.test"))
    assert (wrong.returncode, wrong.stdout) == (1, "") and "HTTPS_PROXY" in wrong.stderr and "hunter2" not in wrong.stderr
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for ca, word in ((garbage, "block 1"), (tmp_path / "missing.pem", "No such file")):
        larder.config["upstreams"][0]["ca"] = str(ca)
        larder.write_config()
        wrong = run("check", "-f", larder.file)
        assert wrong.returncode == 1 and re.match(r"%s:\d+:\d+: upstreams\[\]\.ca: .*%s" % (re.escape(larder.file), word), wrong.stderr), wrong
