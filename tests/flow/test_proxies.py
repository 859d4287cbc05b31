"""Registries that are reached through a forward proxy: tinyproxy, which others wrote, and a scripted one for what goes wrong. The
proxy's password goes to the proxy only, the registry's token to the registry only, and neither into a log."""

import pytest

from lib import paths
from lib.client import fetch_many
from lib.images import KIB, Image, blob
from lib.larder import REGISTRY, wait_until
from lib.profiles import DockerHub
from lib.proxy import Proxy, TinyProxy, is_connect
from lib.secrets import secret
from lib.tls import Hello, Tls
from lib.upstream import Fault, Upstream

APP = "t/app"
SHORT = {"connect": "2s", "first_byte": "3s", "idle": "3s"}


@pytest.fixture
def account():
    return ("us.er", secret("proxy@/:%"))


@pytest.fixture
def secure(leaf):
    with Upstream(tls=Tls(leaf)) as up:
        up.image = up.add("app", Image("proxies", (100 * KIB,)), tag="v1")
        yield up


@pytest.fixture
def proxy(secure, account):
    with Proxy({REGISTRY: secure.port}, account=account) as p:
        yield p
        assert not any("authorization" in s.headers for s in p.seen), "that is the registry's"


def start(start_larder, root, env=None, **upstream):
    return start_larder(None, env=env, upstreams=[dict({"registry": REGISTRY, "ca": root.file,
                                                        "timeouts": {"connect": "5s", "first_byte": "10s", "idle": "10s"}}, **upstream)])


def assert_pulled(larder, image):
    assert larder.get(paths.manifest(APP, "v1")).body == image.manifest
    for name, data in image.blobs.items():
        assert larder.get(paths.blob(APP, name)).body == data


def assert_unavailable(r, *statuses):
    assert r.status in (statuses or (502, 503)) and r.clean and r.error_code == "UNAVAILABLE", r


def test_tinyproxy(secure, root, start_larder, tmp_path):
    account = ("user", secret("tiny"))
    with TinyProxy(tmp_path / "tinyproxy", account=account) as proxy:
        endpoint = "https://localhost:%d" % secure.port
        larder = start(start_larder, root, endpoints=[endpoint], proxy=proxy.url_for(account))
        assert_pulled(larder, secure.image)
        assert set(proxy.connects()) == {"localhost:%d" % secure.port}
        stranger = start(start_larder, root, endpoints=[endpoint], proxy=proxy.url_for(("user", secret("wrong"))))
        assert_unavailable(stranger.get(paths.manifest(APP, "v1")))
        wait_until(lambda: stranger.logged(text="status 401"), "the log says what tinyproxy said")
        assert secure.connections == len(secure.tls.handshakes)


def test_a_tunnel_to_the_name_that_the_rule_has(secure, proxy, account, root, start_larder):
    """The proxy is told a name, not an address; nothing is looked up here."""
    larder = start(start_larder, root, proxy=proxy.url_for(account))
    assert_pulled(larder, secure.image)
    assert set(proxy.connects()) == {REGISTRY + ":443"} and {h.name for h in secure.tls.handshakes} == {REGISTRY}
    assert {s.headers["host"] for s in proxy.requests("CONNECT")} == {REGISTRY + ":443"}
    assert not any("proxy-authorization" in s.headers for s in secure.seen)
    assert len(proxy.connects()) <= 2 + 1, "tunnels are kept like connections"


def test_a_proxy_that_is_spoken_to_by_tls(secure, account, root, leaf, pki, start_larder):
    with Proxy({REGISTRY: secure.port}, account=account, tls=Tls(leaf)) as proxy:
        larder = start(start_larder, root, proxy=proxy.url_for(account, host="localhost"))
        assert_pulled(larder, secure.image)
        assert {h.name for h in proxy.tls.handshakes} == {"localhost"} and set(proxy.connects()) == {REGISTRY + ":443"}
    with Proxy({REGISTRY: secure.port}, tls=Tls(pki.root("Stranger").issue("localhost", names=["localhost"]))) as proxy:
        asked = secure.count()
        stranger = start(start_larder, root, proxy=proxy.url_for(host="localhost"))
        assert_unavailable(stranger.get(paths.manifest(APP, "v1")))
        assert proxy.seen == [] and secure.count() == asked


def test_plain_registries_are_asked_with_the_whole_url(upstream, account, start_larder):
    image = upstream.add("app", Image("plain", (100 * KIB,)), tag="v1")
    with Proxy({REGISTRY: upstream.port}, account=account) as proxy:
        larder = start_larder(None, upstreams=[{"registry": REGISTRY, "endpoints": ["http://%s:80" % REGISTRY], "proxy": proxy.url_for(account)}])
        assert_pulled(larder, image)
        assert proxy.connects() == [] and all(s.target.startswith("http://%s" % REGISTRY) for s in proxy.seen)
        assert {s.headers["host"] for s in upstream.seen} <= {REGISTRY, REGISTRY + ":80"}
        assert not any("proxy-authorization" in s.headers for s in upstream.seen)


def test_everything_of_a_registry_goes_through_its_proxy(root, account, start_larder):
    """The token server and the host of the blobs, too, each with a tunnel of its own."""
    with DockerHub(root) as hub, Proxy({host: hub.port for host in hub.answers}, account=account) as proxy:
        image = hub.add("library/app", Image("hub", (100 * KIB,)), tag="v1")
        config = hub.config(target="t/*", proxy=proxy.url_for(account))
        del config["resolve"]
        larder = start_larder(None, **config)
        assert_pulled(larder, image)
        assert {target for target in proxy.connects()} == {host + ":443" for host in hub.answers}
        hub.check()


# ---- the environment ----

@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_a_proxy_from_the_environment(name, secure, proxy, account, root, start_larder):
    larder = start(start_larder, root, env={name: proxy.url_for(account)})
    assert_pulled(larder, secure.image)
    assert set(proxy.connects()) == {REGISTRY + ":443"}


def test_no_proxy_and_direct_and_which_of_two(secure, proxy, account, root, leaf, start_larder):
    """Five registries, one environment: what each of them is reached by."""
    wrong = "http://127.0.0.1:1"
    names = {"plain.test": {}, "listed.no-proxy.test": {}, "direct.test": {"proxy": "direct"}, "own.test": {"proxy": proxy.url_for(account)},
             "port.test:%d" % secure.port: {}}
    cert = root.issue("many", names=[n.split(":")[0] for n in names])
    with Upstream(tls=Tls(cert)) as up:
        up.add("app", Image("many", (10,)), tag="v1")
        proxy.names = {n.split(":")[0]: up.port for n in names}
        with Proxy(proxy.names) as other:
            larder = start_larder(
                None, env={"HTTPS_PROXY": other.url, "HTTP_PROXY": wrong, "NO_PROXY": "other.test, .no-proxy.test ,port.test:%d" % secure.port},
                resolve={n.split(":")[0]: "127.0.0.1:%d" % up.port for n in names},
                upstreams=[dict({"registry": n, "ca": root.file}, **more) for n, more in names.items()],
                rules=[{"name": n.split(".")[0], "source": n + "/*", "target": n.split(".")[0] + "/*"} for n in names])
            for n in names:
                assert larder.get(paths.manifest(n.split(".")[0] + "/app", "v1")).good, n
            assert set(other.connects()) == {"plain.test:443"} and set(proxy.connects()) == {"own.test:443"}
            assert len({s.host for s in up.seen}) == len(names)


def test_this_machine_is_reached_directly(upstream, start_larder):
    """Whatever the environment says; a configured proxy is another matter (tinyproxy, above)."""
    image = upstream.add("app", Image("loopback", (10,)), tag="v1")
    larder = start_larder(upstream, env={"http_proxy": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1"})
    assert_pulled(larder, image)


# ---- what goes wrong ----

FAULTS = {
    "407": Fault(status=407, headers={"Proxy-Authenticate": 'Basic realm="proxy"'}), "403": Fault(status=403), "502": Fault(status=502),
    "garbage": Fault(raw=b"SSH-2.0-OpenSSH_9.2\r\n"), "closes": Fault(drop=True), "resets": Fault(cut_at=-1, cut="rst"),
    "half a head": Fault(raw=b"HTTP/1.1 200 Conn"), "an endless head": Fault(raw=b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100000),
    "200 and nothing": Fault(raw=b"HTTP/1.1 200 OK\r\n\r\n"), "200 and garbage": Fault(raw=b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
    "a redirect": Fault(status=302, headers={"Location": "https://elsewhere.test/"}), "1.0": Fault(raw=b"HTTP/1.0 404 Not Found\r\n\r\n"),
}


def start_many(start_larder, root, proxies, timeouts=SHORT):
    """A registry for each proxy: n.up.test, whose repositories are under n/."""
    names = ["%d.up.test" % n for n in range(len(proxies))]
    return start_larder(None, upstreams=[{"registry": name, "ca": root.file, "timeouts": timeouts, "proxy": url}
                                         for name, url in zip(names, proxies)],
                        rules=[{"name": "rule-%d" % n, "source": name + "/*", "target": "%d/*" % n} for n, name in enumerate(names)])


def get_all(larder, n, tag="v1"):
    got = fetch_many(larder.address, [paths.manifest("%d/app" % i, tag) for i in range(n)])
    for r in got:
        larder.check_answer(r)
    return got


def test_proxies_that_fail(secure, proxy, account, root, start_larder):
    proxy.names = {"%d.up.test" % n: secure.port for n in range(len(FAULTS))}
    larder = start_many(start_larder, root, [proxy.url_for(account)] * len(FAULTS))
    for n, fault in enumerate(FAULTS.values()):
        proxy.on(lambda seen, n=n: seen.target == "%d.up.test:443" % n, fault)
    for name, r in zip(FAULTS, get_all(larder, len(FAULTS))):
        assert r.status in (502, 503) and r.clean and r.error_code == "UNAVAILABLE", (name, r)
    assert secure.seen == []
    wait_until(lambda: larder.logged(text="407") and larder.logged(text="proxy"), "the log says that it is the proxy")
    proxy.clear()
    wait_until(lambda: {r.status for r in get_all(larder, len(FAULTS))} == {200}, "it works again")
    larder.wait_idle()


def test_proxies_that_hang(secure, proxy, account, root, leaf, start_larder):
    """At the CONNECT; before a byte was read; and, where it is spoken to by TLS, in the handshake with it."""
    proxy.names = {"0.up.test": secure.port}
    with Proxy({"1.up.test": secure.port}) as deaf, Proxy({"2.up.test": secure.port}, tls=Tls(leaf)) as slow:
        larder = start_many(start_larder, root, [proxy.url_for(account), deaf.url_for(), slow.url_for(host="localhost")])
        proxy.on(is_connect, Fault(silent="request"))
        deaf.accept_fault = lambda n: "silent"
        slow.accept_fault = lambda n: Hello(300, "silent")
        for r in get_all(larder, 3):
            assert_unavailable(r, 504)
        proxy.clear()
        deaf.accept_fault = slow.accept_fault = None
        wait_until(lambda: {r.status for r in get_all(larder, 3)} == {200}, "it heals")
        larder.wait_idle()


def test_a_tunnel_that_breaks_in_the_middle_of_a_body(secure, proxy, account, root, start_larder):
    data = blob("tunnel", 600 * KIB)
    target = paths.blob("app", secure.add_blob("app", data))
    secure.on(target, Fault(cut_at=200 * KIB, cut="rst"), nth=1)
    larder = start(start_larder, root, proxy=proxy.url_for(account))
    assert larder.get("/v2/t" + target[3:]).body == data
    assert len(proxy.connects()) >= 2


def test_many_tunnels_at_once(secure, proxy, account, root, start_larder):
    data = [blob("tunnel-%d" % n, 200 * KIB) for n in range(12)]
    larder = start(start_larder, root, proxy=proxy.url_for(account))
    targets = [paths.blob(APP, secure.add_blob("app", d)) for d in data]
    for r, d in zip(fetch_many(larder.address, targets), data):
        assert r.good and r.body == d


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:21", "http://", "http://user:%s@:3128", "socks5://127.0.0.1:1080"])
def test_a_proxy_that_makes_no_sense_stops_the_start(url, secure, root, start_larder):
    password = secret("nonsense")
    url = url % password if "%s" in url else url
    for how in ({"proxy": url}, {"env": {"HTTPS_PROXY": url}}):
        larder = start_larder(secure, run=False, env=how.get("env"), upstreams=[
            dict({"registry": REGISTRY, "ca": root.file}, **({"proxy": url} if "proxy" in how else {}))])
        larder.start(wait=False)
        code = larder.process.wait(60)
        larder._reader.join(60)
        larder.process = None
        printed = "\n".join(larder.printed)
        assert code == 1 and ("proxy" in printed or "PROXY" in printed) and password not in printed, printed
