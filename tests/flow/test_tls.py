"""Upstreams by TLS: whose certificate is taken and whose is not, handshakes that fail, hang or are cut, bodies without a proper end, and a server
that others wrote. What is wrong stands in the log, with the certificate; clients are told nothing about upstream."""

import contextlib
import json
import re
import socket
import subprocess
import threading

import pytest

from lib import paths
from lib.client import Fetch, fetch_many, request
from lib.images import KIB, MIB, Image, blob
from lib.larder import REGISTRY, cache_status, wait_until
from lib.nginx import Nginx
from lib.secrets import secret
from lib.tls import Hello, Tls
from lib.upstream import Fault, Upstream

APP = "t/app"
SHORT = {"connect": "2s", "first_byte": "3s", "idle": "3s"}
LONG = {"connect": "5s", "first_byte": "10s", "idle": "10s"}


def settings(upstream, root, timeouts=None, **more):
    """REGISTRY by its real name and port, which `resolve` leads to `upstream`."""
    return {"resolve": {REGISTRY: "127.0.0.1:%d" % upstream.port},
            "upstreams": [dict({"registry": REGISTRY, "ca": root.file, "timeouts": timeouts or LONG}, **more)]}


@pytest.fixture
def secure(leaf):
    """A scripted registry by TLS."""
    with Upstream(tls=Tls(leaf)) as up:
        yield up


class Thing:
    def __init__(self, upstream, size=300 * KIB, name="tls"):
        self.data = blob(name, size)
        self.digest = upstream.add_blob("app", self.data)
        self.theirs, self.ours = paths.blob("app", self.digest), paths.blob(APP, self.digest)


def assert_unavailable(r, *statuses):
    assert r.status in (statuses or (502, 503)) and r.clean, r
    assert r.error_code == "UNAVAILABLE"


# ---- certificates ----

def good_chains(pki, root):
    """name -> (what the server shows, what larder is told to trust)"""
    middle, second = root.issue("Middle", authority=True), None
    deeper = middle.issue("Deeper", authority=True)
    second = pki.root("Second Root")
    crossed = root.cross_sign(second)
    stranger = pki.root("Stranger")

    def server(issuer, name, **how):
        return issuer.issue(name, names=[name], **how)

    with_root = server(middle, "root-appended.test")
    junk = server(root, "junk-behind.test")
    old = server(middle, "cross-signed.test")
    new = server(middle, "cross-signed-new.test")
    alone = server(middle, "middle-as-anchor.test")
    order = server(deeper, "wrong-order.test")
    own = stranger.issue("itself-as-anchor.test", names=["itself-as-anchor.test"])
    return {
        "direct.test": (server(root, "direct.test"), root.file),
        "one-between.test": (server(middle, "one-between.test"), root.file),
        "two-between.test": (server(deeper, "two-between.test"), root.file),
        "root-appended.test": (with_root.with_chain(with_root, middle, root), root.file),
        "junk-behind.test": (junk.with_chain(junk, stranger), root.file),
        "cross-signed.test": (old.with_chain(old, middle, crossed), root.file),
        "cross-signed-new.test": (new.with_chain(new, middle, crossed), second.file),
        "middle-as-anchor.test": (alone.with_chain(alone), middle.file),
        "itself-as-anchor.test": (own, own.file),
        "wrong-order.test": (order.with_chain(order, root, middle, stranger, deeper), root.file),
        "many-names.test": (root.issue("many", names=["many-names.test"] + ["%040d.many-names.test" % n for n in range(400)]), root.file),
        "p384.test": (server(root, "p384.test", key="P-384"), root.file),
        "rsa.test": (server(root, "rsa.test", key="rsa:2048"), root.file),
        "several-in-the-file.test": (server(second, "several-in-the-file.test"), pki.bundle(stranger, second, root)),
        "one.wildcard.test": (root.issue("wildcard", names=["*.wildcard.test"]), root.file),
        "expired-root.test": (server(pki.root("Old Root", start=-20, end=-10), "expired-root.test"), None),
    }


def twice(issuer, name):
    """With the same extension in two places."""
    cert = issuer.issue(name, names=[name], extra=["1.2.3.4 = DER:0500", "1.2.3.5 = DER:0500"])
    return cert.with_bytes(b"\x06\x03\x2a\x03\x05", b"\x06\x03\x2a\x03\x04")


def bad_chains(pki, root):
    """name -> (what the server shows, what the log says)"""
    middle = root.issue("Middle of bad ones", authority=True)
    past = root.issue("Past Middle", authority=True, start=-20, end=-10)
    no_authority = root.issue("No Authority", names=["no-authority.test"])
    stranger = pki.root("Somebody Else")

    def server(issuer, name, **how):
        return issuer.issue(name, names=[name], **how)

    alone = server(middle, "missing-between.test")
    return {
        "unknown-authority.test": (server(stranger, "unknown-authority.test"), "trust"),
        "own-authority.test": (pki.root("own-authority.test", names=["own-authority.test"]), "trust"),
        "missing-between.test": (alone.with_chain(alone), "trust"),
        "expired.test": (server(root, "expired.test", start=-20, end=-10), "expired"),
        "not-yet.test": (server(root, "not-yet.test", start=10, end=20), "valid"),
        "expired-between.test": (server(past, "expired-between.test"), "expired"),
        "other-name.test": (server(root, "another-name.test"), "is for"),
        "a.b.deep.test": (root.issue("deep", names=["*.deep.test"]), "is for"),
        "deep.test": (root.issue("deep", names=["*.deep.test"]), "is for"),
        "signed-by-a-server.test": (server(no_authority, "signed-by-a-server.test"), ""),
        "sha1.test": (server(root, "sha1.test", md="sha1"), ""),
        "short-key.test": (server(root, "short-key.test", key="rsa:1024"), ""),
        "critical.test": (server(root, "critical.test", extra=["1.2.3.4 = critical,ASN1:NULL"]), ""),
        "twice.test": (twice(root, "twice.test"), "an extension twice"),
    }


def logged(larder, text):
    return [json.dumps(record) for record in larder.logged(text=text)]


def start_with(start_larder, upstreams, cases, timeouts=LONG):
    """A registry for each name. cases: name -> file of roots."""
    return start_larder(
        None, resolve={name: "127.0.0.1:%d" % upstreams[name].port for name in cases},
        upstreams=[{"registry": name, "ca": ca, "timeouts": timeouts} for name, ca in cases.items()],
        rules=[{"name": name.replace(".", "-"), "source": name + "/*", "target": name.replace(".", "-") + "/*"} for name in cases])


def test_chains_that_lead_to_a_root(pki, root, leaf, start_larder):
    chains = good_chains(pki, root)
    chains["expired-root.test"] = (chains["expired-root.test"][0], chains["expired-root.test"][0].issuer.file)
    with Upstream(tls=Tls(leaf, by_name={name: cert for name, (cert, _) in chains.items()})) as up:
        image = up.add("app", Image("chains", (10,)), tag="v1")
        larder = start_with(start_larder, dict.fromkeys(chains, up), {name: ca for name, (_, ca) in chains.items()})
        got = {name: larder.get(paths.manifest(name.replace(".", "-") + "/app", "v1")) for name in chains}
        assert {name: r.status for name, r in got.items()} == {name: 200 for name in chains}
        assert all(r.body == image.manifest for r in got.values())
        assert [h for h in up.tls.handshakes if h.error] == []
        assert {h.version for h in up.tls.handshakes} == {"TLSv1.2"} and {h.alpn for h in up.tls.handshakes} == {"http/1.1"}


def test_chains_that_do_not(pki, root, leaf, start_larder):
    chains = bad_chains(pki, root)
    with Upstream(tls=Tls(leaf, by_name={name: cert for name, (cert, _) in chains.items()}, ciphers="ALL:@SECLEVEL=0")) as up:
        up.add("app", Image("chains", (10,)), tag="v1")
        larder = start_with(start_larder, dict.fromkeys(chains, up), {name: root.file for name in chains})
        for name, (cert, word) in chains.items():
            r = larder.get(paths.manifest(name.replace(".", "-") + "/app", "v1"))
            assert_unavailable(r)
            said = wait_until(lambda n=name: logged(larder, n), "the log has a word about %s" % name)
            assert any(word in line and "ertificate" in line for line in said), (name, word, said)
        assert up.seen == [], "no request goes to whom it is not meant for"
        larder.wait_idle()


def test_an_address_is_compared_with_the_addresses_in_the_certificate(root, leaf, start_larder):
    nowhere = root.issue("127.0.0.1", names=["127.0.0.1"])
    with Upstream(tls=Tls(leaf)) as good, Upstream(tls=Tls(nowhere)) as bad:
        image = good.add("app", Image("address", (10,)), tag="v1")
        larder = start_larder(None, upstreams=[{"registry": "good.test", "endpoints": [good.url], "ca": root.file},
                                               {"registry": "bad.test", "endpoints": [bad.url], "ca": root.file}],
                              rules=[{"name": n, "source": n + ".test/*", "target": n + "/*"} for n in ("good", "bad")])
        assert larder.get(paths.manifest("good/app", "v1")).body == image.manifest
        assert_unavailable(larder.get(paths.manifest("bad/app", "v1")))
        assert bad.seen == [] and good.tls.handshakes[0].name is None, "an address is no name: RFC 6066"


def test_without_ca_the_roots_of_the_system_count(secure, start_larder):
    larder = start_larder(None, resolve={REGISTRY: "127.0.0.1:%d" % secure.port}, upstreams=[{"registry": REGISTRY, "timeouts": LONG}])
    assert_unavailable(larder.get(paths.manifest(APP, "v1")))
    assert secure.seen == []


def test_a_renewed_certificate_is_looked_at_again(root, pki, leaf, secure, start_larder):
    larder = start_larder(secure, defaults={"tag_ttl": "0s"}, **settings(secure, root))
    secure.add("app", Image("renewed", (10,)), tag="v1")
    secure.on(re.compile("."), Fault(framing="close"))
    assert larder.get(paths.manifest(APP, "v1")).good
    secure.tls.replace(root.issue("up.test", names=["elsewhere.test"]))
    secure.stop()
    secure.tls = Tls(root.issue("elsewhere.test", names=["elsewhere.test"]))
    secure.start()
    assert_unavailable(larder.get(paths.manifest(APP, "v2")))
    stale = larder.get(paths.manifest(APP, "v1"))
    assert stale.good and cache_status(stale)[1]["detail"] == "stale-upstream-untrusted"
    secure.stop()
    secure.tls = Tls(leaf)
    secure.start()
    wait_until(lambda: larder.get(paths.manifest(APP, "v3")).status == 404, "and again")


def start_and_fail(larder):
    """What it prints."""
    larder.start(wait=False)
    code = larder.process.wait(60)
    larder._reader.join(60)
    larder.process = None
    printed = "\n".join(larder.printed)
    assert code == 1, printed
    return printed


@pytest.mark.parametrize("what", ["nothing", "a broken block", "an unusable key", "no file", "a key"])
def test_a_file_of_roots_that_is_no_use_stops_the_start(what, pki, root, secure, start_larder, tmp_path):
    file = tmp_path / "corp-ca.pem"
    if what == "nothing":
        file.write_text("# to be filled\n")
    elif what == "a broken block":
        file.write_text(root.pem + pki.root("Another").pem[:200].replace("\n", "\n!") + "\n-----END CERTIFICATE-----\n")
    elif what == "an unusable key":
        file.write_text(root.pem + root.pem + pki.root("Curve", key="ed25519").pem)
    elif what == "a key":
        file.write_text(root.pem + root.key)
    larder = start_larder(secure, run=False, **settings(secure, root))
    larder.config["upstreams"][0]["ca"] = str(file)
    printed = start_and_fail(larder)
    assert str(file) in printed, printed
    block = {"a broken block": "block 2", "an unusable key": "block 3", "a key": "block 2"}.get(what, "")
    assert block in printed, printed


# ---- client certificates ----

@pytest.mark.parametrize("key", ["P-256", "rsa:2048"])
def test_a_client_certificate(key, pki, root, leaf, start_larder, tmp_path):
    office = pki.root("Office")
    own = office.issue("Branch", authority=True).issue("larder-7", key=key)
    with Upstream(tls=Tls(leaf, client_ca=office)) as up:
        image = up.add("app", Image("client", (10,)), tag="v1")
        larder = start_larder(up, **settings(up, root, client_certificate={"certificate": own.chain_file, "key": own.key_file}))
        assert larder.get(paths.manifest(APP, "v1")).body == image.manifest
        assert up.tls.handshakes[0].client == "larder-7"
        without = start_larder(up, **settings(up, root))
        assert_unavailable(without.get(paths.manifest(APP, "v1")))


def test_a_client_certificate_is_for_the_registry_only(pki, root, leaf, start_larder):
    """Not for where it redirects, nor for a token server on another host, although these ask for one."""
    office = pki.root("Office")
    own = office.issue("larder-7")
    others = root.issue("others", names=["cdn.test", "auth.test"])
    with Upstream(tls=Tls(leaf, client_ca=office)) as up, Upstream(tls=Tls(others, client_ca=office, client_optional=True)) as cdn:
        thing = Thing(up)
        cdn.on("/token", Fault(status=200, body=json.dumps({"token": secret("token")}).encode()))
        cdn.on("/signed", Fault(status=200, body=thing.data))
        up.on(lambda s: "authorization" not in s.headers,
              Fault(status=401, headers={"WWW-Authenticate": 'Bearer realm="https://auth.test/token",service="%s"' % REGISTRY}))
        up.on(thing.theirs, Fault(redirect="https://cdn.test/signed"))
        config = settings(up, root, client_certificate={"certificate": own.chain_file, "key": own.key_file},
                          token_realms=["https://auth.test"], redirect_hosts=["cdn.test"])
        config["resolve"].update({host: "127.0.0.1:%d" % cdn.port for host in ("cdn.test", "auth.test")})
        larder = start_larder(up, **config)
        assert larder.get(thing.ours).body == thing.data
        assert {s.path for s in cdn.requests()} == {"/token", "/signed"}
        assert {h.client for h in cdn.tls.handshakes} == {None}
        assert {h.client for h in up.tls.handshakes} == {"larder-7"}


@pytest.mark.parametrize("what", ["another's key", "an encrypted key", "a certificate as key", "no key"])
def test_a_client_certificate_that_is_no_use_stops_the_start(what, pki, root, secure, start_larder, tmp_path):
    own = root.issue("larder-7")
    key = tmp_path / "client-key.pem"
    if what == "another's key":
        key.write_text(root.key)
    elif what == "an encrypted key":
        subprocess.run(["openssl", "pkcs8", "-topk8", "-in", own.key_file, "-out", str(key), "-passout", "pass:word"], check=True)
    elif what == "a certificate as key":
        key.write_text(own.pem)
    larder = start_larder(secure, run=False, **settings(secure, root, client_certificate={"certificate": own.chain_file, "key": str(key)}))
    printed = start_and_fail(larder)
    assert "upstreams[].client_certificate" in printed and re.search(re.escape(larder.file) + r":\d+:\d+: ", printed), printed
    assert not any(line in printed for line in own.key.splitlines() if "KEY" not in line), "no key is printed"


# ---- handshakes ----

def test_a_server_that_speaks_1_3_only(root, leaf, start_larder):
    with Upstream(tls=Tls(leaf, only="1.3")) as up:
        up.add("app", Image("newer"), tag="v1")
        larder = start_larder(up, **settings(up, root))
        assert_unavailable(larder.get(paths.manifest(APP, "v1")))
        wait_until(lambda: larder.logged(text="version"), "the log says what is the matter")
        assert up.tls.handshakes[0].error


HANGS = ["silent", Hello(5, "silent"), Hello(600, "silent")]
BREAKS = ["fin", "rst", Hello(0, "fin"), Hello(600, "fin"), Hello(600, "rst")]


@pytest.mark.parametrize("faults,status", [(HANGS, 504), (BREAKS, 502)], ids=["hang", "break"])
def test_handshakes_that(faults, status, root, leaf, start_larder):
    """Each fault has a registry of its own; all are asked at once."""
    with contextlib.ExitStack() as stack:
        ups = {"%d.up.test" % n: stack.enter_context(Upstream(tls=Tls(leaf))) for n in range(len(faults))}
        for up, fault in zip(ups.values(), faults):
            image = up.add("app", Image("handshakes", (10,)), tag="v1")
            up.accept_fault = lambda n, fault=fault: fault
        larder = start_with(start_larder, ups, {name: root.file for name in ups}, SHORT)
        manifests = [paths.manifest(name.replace(".", "-") + "/app", "v1") for name in ups]
        blobs = [paths.blob(name.replace(".", "-") + "/app", image.config) for name in ups]
        for r in fetch_many(larder.address, manifests + blobs):
            larder.check_answer(r)
            assert_unavailable(r, status)
        for name, up in ups.items():
            wait_until(lambda name=name: any("TLS handshake" in line for line in logged(larder, name)), "the log says what was waited for")
            assert up.connections <= 12, "tries are bounded"
            up.accept_fault = None
        larder.wait_idle()
        for target in manifests + blobs:
            wait_until(lambda target=target: larder.get(target).status == 200, "it heals")


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\0" * 5000,
                                  b"\x16\x03\x03\xff\xff" + b"x" * 70000, b"\x15\x03\x03\0\x02\x02\x28"],
                         ids=["HTTP", "SSH", "zeros", "an endless record", "an alert"])
def test_servers_that_do_not_speak_tls(said, root, secure, start_larder):
    larder = start_larder(secure, **settings(secure, root))
    secure.accept_fault = lambda n: said
    assert_unavailable(larder.get(paths.manifest(APP, "v1")))
    assert secure.seen == []
    larder.wait_idle()


def blast_all(listener, over):
    """Sends empty records to whoever comes, as long as he stays."""
    def blast(sock):
        with contextlib.closing(sock), contextlib.suppress(OSError):
            while not over.is_set():
                sock.sendall(b"\x15\x03\x03\x00\x00" * 50000)

    while not over.is_set():
        with contextlib.suppress(OSError):
            threading.Thread(target=blast, args=(listener.accept()[0],)).start()


def test_a_server_that_never_stops_stops_nobody_else(upstream, root, start_larder):
    """Records with nothing in them instead of a handshake: what is cached is served meanwhile, and the answer is an error in time."""
    data = blob("cached", 1000)
    digest = upstream.add_blob("app", data)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        larder = start_larder(upstream, workers=1, resolve={"blasts.test": "127.0.0.1:%d" % listener.getsockname()[1]},
                              upstreams=[{"registry": REGISTRY, "endpoints": [upstream.url]},
                                         {"registry": "blasts.test", "ca": root.file, "timeouts": SHORT}],
                              rules=[{"name": "t", "source": REGISTRY + "/*", "target": "t/*"},
                                     {"name": "b", "source": "blasts.test/*", "target": "b/*"}])
        assert larder.get(paths.blob(APP, digest)).body == data
        larder.wait_stored(digest)
        server = threading.Thread(target=blast_all, args=(listener, over))
        server.start()
        try:
            refused = Fetch(larder.address, paths.manifest("b/app", "v1"))
            for _ in range(20):
                assert request(larder.address, "GET", paths.blob(APP, digest), timeout=3).body == data
            assert_unavailable(refused.result())
        finally:
            over.set()
            server.join()
    assert logged(larder, "more than a TLS handshake")


# ---- bodies ----

def drip_first(listener, port, over):
    """Passes connections on to `port`; of what comes back by the first one, one byte at a time when 20,000 have."""
    def pass_on(source, to, fast):
        with contextlib.suppress(OSError):
            while fast > 0 and (data := source.recv(min(fast, 65536))):
                to.sendall(data)
                fast -= len(data)
            while fast == 0 and not over.wait(0.1):
                to.sendall(source.recv(1))
            to.shutdown(socket.SHUT_WR)

    for fast in [20000] + [1 << 40] * 100:
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=pass_on, args=(client, server, 1 << 40), daemon=True).start()
            threading.Thread(target=pass_on, args=(server, client, fast), daemon=True).start()
        if over.is_set():
            return


def test_bytes_of_a_record_are_no_body_yet(root, secure, start_larder):
    """A record that comes byte by byte has nothing for the client until its last: the wait for the body goes on, and ends in time."""
    thing = Thing(secure)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        how = settings(secure, root, SHORT)
        how["resolve"] = {REGISTRY: "127.0.0.1:%d" % listener.getsockname()[1]}
        larder = start_larder(secure, **how)
        relay = threading.Thread(target=drip_first, args=(listener, secure.port, over))
        relay.start()
        try:
            r = Fetch(larder.address, thing.ours).result(timeout=20)
            assert r.good and r.body == thing.data
            assert secure.connections == 2
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            relay.join()


@pytest.mark.parametrize("how", ["fin", "rst", "notify"])
@pytest.mark.parametrize("at", [0, 1, 100 * KIB, 300 * KIB - 1])
def test_a_cut_is_resumed(how, at, root, secure, start_larder):
    thing = Thing(secure)
    secure.on(thing.theirs, Fault(cut_at=at, cut=how), nth=1)
    larder = start_larder(secure, **settings(secure, root))
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data, r
    first, second = secure.requests()
    assert second.range is not None or at <= 1


def test_bodies_that_end_with_the_connection(root, secure, start_larder):
    """close_notify says that nothing is missing; the digest knows better."""
    whole, short, cut = (Thing(secure, name=name) for name in ("whole", "short", "cut"))
    secure.on(whole.theirs, Fault(framing="close"))
    secure.on(short.theirs, Fault(framing="close", body=lambda data: data[:100000]))
    secure.on(cut.theirs, Fault(framing="close", body=lambda data: data[:100000], close_notify=False))
    larder = start_larder(secure, **settings(secure, root, timeouts=SHORT))
    got = fetch_many(larder.address, [thing.ours for thing in (whole, short, cut)])
    for r in got:
        larder.check_answer(r)
    assert got[0].good and got[0].body == whole.data
    assert not got[1].good and not got[2].good
    larder.wait_stored(whole.digest)
    assert not larder.stored(short.digest) and not larder.stored(cut.digest)


def test_a_list_that_ends_with_the_connection_needs_close_notify(root, secure, start_larder):
    """Nothing else says that it is whole."""
    secure.add("app", Image("list"), tag="v1")
    secure.on(paths.tags("app"), Fault(framing="close", close_notify=False, body=b'{"name": "app", "tags": []}'))
    larder = start_larder(secure, **settings(secure, root))
    assert_unavailable(larder.get(paths.tags(APP)))
    secure.clear()
    secure.on(paths.tags("app"), Fault(framing="close"))
    assert larder.get(paths.tags(APP)).json()["tags"] == ["v1"]


def test_records_of_one_byte_and_of_all_sizes(root, secure, start_larder):
    larder = start_larder(secure, **settings(secure, root))
    for step, size in ((1, 2000), (5, 5000), (16385, 200000)):
        thing = Thing(secure, size, "records-%d" % step)
        secure.on(thing.theirs, Fault(drip=(step, 0)))
        r = larder.get(thing.ours)
        assert r.good and r.body == thing.data, (step, r)


def test_chunks_lengths_and_nothing_at_all(root, secure, start_larder):
    larder = start_larder(secure, **settings(secure, root))
    for size in (0, 1, 16384, 16385, 3 * MIB):
        thing = Thing(secure, size, "size-%d" % size)
        secure.on(thing.theirs, Fault(framing="chunked"))
        r = larder.get(thing.ours)
        assert r.good and r.body == thing.data, (size, r)


# ---- connections ----

def test_connections_are_kept_and_sessions_resumed(root, secure, start_larder):
    things = [Thing(secure, 10 * KIB, "kept-%d" % n) for n in range(10)]
    larder = start_larder(secure, workers=1, **settings(secure, root))
    for thing in things[:5]:
        assert larder.get(thing.ours).good
        larder.wait_idle()
    assert len(secure.tls.handshakes) == 1
    secure.on(re.compile("."), Fault(headers={"Connection": "close"}))
    for thing in things[5:]:
        assert larder.get(thing.ours).good
        larder.wait_idle()
    assert len(secure.tls.handshakes) == 5 and [h.resumed for h in secure.tls.handshakes[1:]] == [True] * 4


def test_a_kept_connection_that_upstream_has_closed(root, secure, start_larder):
    """With close_notify, and at the moment of the next request."""
    things = [Thing(secure, 10 * KIB, "closed-%d" % n) for n in range(4)]
    larder = start_larder(secure, workers=1, **settings(secure, root))
    secure.on(things[0].theirs, Fault(close_after=True))
    secure.on(things[2].theirs, Fault(drop=True), nth=1, reused=True)
    secure.on(things[3].theirs, Fault(cut_at=-1, cut="rst"), nth=1, reused=True)
    for thing in things:
        r = larder.get(thing.ours)
        assert r.good and r.body == thing.data
        larder.wait_idle()
    assert secure.count("GET", things[2].theirs) == 2 and secure.count("GET", things[3].theirs) == 2


def test_many_at_once_and_slow_readers(root, secure, start_larder):
    things = [Thing(secure, MIB, "many-%d" % n) for n in range(8)]
    larder = start_larder(secure, **settings(secure, root))
    slow = Fetch(larder.address, things[0].ours, stop_at=1000)
    for r, thing in zip(fetch_many(larder.address, [t.ours for t in things] * 3), things * 3):
        larder.check_answer(r)
        assert r.good and r.body == thing.data
    slow.resume()
    assert slow.result().body == things[0].data
    assert secure.count("GET") == len(things)


# ---- a server that others wrote ----

@pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"])
def test_nginx(cipher, root, leaf, start_larder, tmp_path):
    nginx = Nginx(tmp_path / "nginx", leaf, "    ssl_ciphers %s;\n    keepalive_requests 3;\n" % cipher)
    image = nginx.add("app", Image("nginx", (8 * MIB, 100 * KIB, 10)), "v1")
    with nginx:
        larder = start_larder(None, upstreams=[{"registry": REGISTRY, "endpoints": [nginx.url], "ca": root.file, "timeouts": LONG}])
        assert larder.get(paths.manifest(APP, "v1")).body == image.manifest
        for name, data in image.blobs.items():
            r = larder.get(paths.blob(APP, name), {"Range": "bytes=5-9"})
            assert r.status == 206 and r.body == data[5:10]
        for r, data in zip(fetch_many(larder.address, [paths.blob(APP, name) for name in image.blobs]), image.blobs.values()):
            larder.check_answer(r)
            assert r.body == data
        assert larder.get(paths.manifest(APP, "v2")).status == 404
        larder.wait_stored(*image.blobs)
    assert larder.get(paths.manifest(APP, "v1")).body == image.manifest
