"""Answers that go out again in the same bytes: nobody may be able to tell, but for the counter."""

import threading

import pytest

from lib import paths
from lib.client import Conn
from lib.images import KIB, Image, blob
from lib.larder import cache_status, run, wait_until

APP = "t/app"
TAG = paths.manifest(APP, "v1")


@pytest.fixture
def image(upstream):
    return upstream.add("app", Image("again", (10 * KIB,)), tag="v1")


@pytest.fixture
def warm(larder, image):
    """All of the image is here."""
    for target in [TAG, paths.manifest(APP, image.digest)] + [paths.blob(APP, d) for d in image.blobs]:
        assert larder.get(target).good
    larder.wait_stored(image.digest, *image.blobs)
    return larder


def again(larder):
    return larder.metric("client_answers_again_total")


def ask(conn, target, method="GET", headers=None):
    conn.send_request(method, target, headers)
    return conn.read_response(method)


def asked_until_again(larder, target, method="GET", headers=None):
    """On one connection, one after the other, until one of the answers was the one before. All of them."""
    before, answers = again(larder), []
    with Conn(larder.address) as conn:
        def repeated():
            answers.extend(ask(conn, target, method, headers) for _ in range(50))
            return again(larder) > before
        wait_until(repeated, "an answer that is given again")
        answers.extend(ask(conn, target, method, headers) for _ in range(50))
    return answers


def test_they_are_the_same_answers(warm, image):
    layer = image.layers[0]
    for target, content in ((TAG, image.manifest), (paths.manifest(APP, image.digest), image.manifest),
                            (paths.blob(APP, layer), image.blobs[layer])):
        for method in ("GET", "HEAD"):
            first = warm.request(method, target)
            for r in asked_until_again(warm, target, method):
                assert r.status == 200 and r.clean and r.body == (content if method == "GET" else b"")
                changing = {"Date", "Cache-Status"}
                assert [h for h in r.headers if h[0] not in changing] == [h for h in first.headers if h[0] not in changing]
                assert cache_status(r)[0] == "hit"


def test_each_is_counted_and_logged(warm, image):
    def requests():
        return sum(n for name, n in warm.metrics().items()
                   if name.startswith("larder_requests_total") and 'kind="manifest"' in name and '="hit"' in name)

    def logged():
        return len([r for r in warm.log if r.get("msg") == "request" and r.get("target") == TAG and r.get("method") == "HEAD"])

    before = requests()
    answers = asked_until_again(warm, TAG, "HEAD")
    wait_until(lambda: logged() == len(answers), "a line of the log for each")
    assert requests() == before + len(answers)
    last = [r for r in warm.log if r.get("target") == TAG and r.get("method") == "HEAD"][-1]
    assert last["status"] == 200 and last["cache"] == "hit" and last["digest"] == image.digest and last["client"].startswith("127.0.0.1:")


def test_bytes_are_counted_as_ever(warm, image):
    before = warm.metric("client_sent_bytes_total")
    answers = asked_until_again(warm, TAG)
    wait_until(lambda: warm.metric("client_sent_bytes_total") == before + len(answers) * len(image.manifest), "the bytes of the bodies")


def test_a_cut_answer_is_logged_as_cut(warm, image):
    """Clients that ask on and on, take nothing, and leave: whole records are of answers that the connection could hold."""
    layer = image.layers[0]
    target, size = paths.blob(APP, layer), len(image.blobs[layer])

    def records(client):
        return [r for r in warm.log if r.get("msg") == "request" and r.get("client") == client]

    def behind(client, n):
        """Has one filled the connection, and others wait behind it? The log itself may be some records late."""
        try:
            wait_until(lambda: len(records(client)) >= n - 5, "records", timeout=1)
        except AssertionError:
            return True
        return False

    with Conn(warm.address) as keeper:
        for _ in range(10):
            conn = Conn(warm.address, receive_buffer=2048)
            client = "127.0.0.1:%d" % conn.sock.getsockname()[1]
            before = warm.metric("client_sent_bytes_total")
            for n in range(1000):
                for _ in range(3):
                    ask(keeper, target)
                conn.send_request("GET", target)
                if behind(client, n):
                    break
            conn.reset()
            wait_until(lambda: any(r.get("cut") for r in records(client)), "a record of an answer that was cut")
            cut = [r for r in records(client) if r.get("cut")]
            assert len(cut) == 1 and cut[0]["bytes"] < size
            assert all(r["bytes"] == size for r in records(client) if not r.get("cut"))
            assert warm.metric("client_sent_bytes_total") > before
    assert again(warm) > 0


def test_http_1_0(warm, image):
    with Conn(warm.address) as conn:
        for _ in range(30):
            conn.send_request("GET", TAG, {"Connection": "keep-alive"}, "HTTP/1.0")
            r = conn.read_response("GET")
            assert r.body == image.manifest and r.header("Connection").lower() == "keep-alive"
    assert again(warm) > 0
    seen = again(warm)
    for _ in range(30):
        with Conn(warm.address) as conn:
            conn.send_request("GET", TAG, None, "HTTP/1.0")
            assert conn.read_response("GET").body == image.manifest
    assert again(warm) == seen


def test_other_headers_are_another_request(warm, image):
    tag = '"%s"' % image.digest
    assert all(r.status == 200 for r in asked_until_again(warm, TAG))
    with Conn(warm.address) as conn:
        for _ in range(20):
            assert ask(conn, TAG).body == image.manifest
            r = ask(conn, TAG, headers={"If-None-Match": tag})
            assert r.status == 304 and r.body == b""
            assert ask(conn, TAG, headers={"Range": "bytes=1-3"}).body == image.manifest[1:4]
            assert ask(conn, TAG, method="HEAD").body == b""


def test_what_is_purged_is_gone_at_once(warm, upstream, image):
    with Conn(warm.address) as conn:
        for _ in range(5):
            before = again(warm)
            wait_until(lambda: ask(conn, TAG).good and again(warm) > before, "it is given again")
            r = run("purge", "t/app:v1", "-f", warm.file)
            assert r.returncode == 0, r
            upstream.forget()
            r = ask(conn, TAG)
            assert cache_status(r)[0] != "hit" and r.body == image.manifest
            assert upstream.count(path=paths.manifest("app", "v1")) >= 1


def test_a_rule_that_is_removed_is_gone_at_once(warm, image):
    with Conn(warm.address) as conn:
        before = again(warm)
        wait_until(lambda: ask(conn, TAG).good and again(warm) > before, "it is given again")
        warm.config["rules"][0]["target"] = "elsewhere/*"
        warm.write_config()
        wait_until(lambda: warm.logged(msg="configuration reloaded"), "it is in force")
        assert ask(conn, TAG).status == 404


def test_the_time_that_is_left_goes_on(upstream, start_larder, image):
    larder = start_larder(upstream, defaults={"tag_ttl": "4s"})
    assert larder.get(TAG).good
    left, checked = [], upstream.count(path=paths.manifest("app", "v1"))
    with Conn(larder.address) as conn:
        def over():
            for _ in range(20):
                what, values = cache_status(ask(conn, TAG))
                if what == "hit":
                    left.append(int(values["ttl"]))
            return upstream.count(path=paths.manifest("app", "v1")) > checked
        wait_until(over, "its time is over, and it is checked")
    until = left[:left.index(0) + 1] if 0 in left else left
    assert until == sorted(until, reverse=True) and len(set(until)) >= 2
    assert again(larder) > 0


def test_clients_that_take_little_at_a_time_get_all(warm, image):
    """More answers than the connection holds: one of them goes out in parts."""
    layer = image.layers[0]
    target, n = paths.blob(APP, layer), 400
    asked_until_again(warm, target)
    with Conn(warm.address, receive_buffer=4096) as conn, Conn(warm.address) as other:
        def send():
            for _ in range(n):
                conn.send_request("GET", target)
        sender = threading.Thread(target=send)
        sender.start()
        for i in range(n):
            assert conn.read_response("GET").body == image.blobs[layer]
            if i % 10 == 0:
                assert ask(other, target).body == image.blobs[layer]
        sender.join()


def test_requests_in_pieces_and_in_a_row(warm, image):
    from lib.client import request_bytes
    asked_until_again(warm, TAG)
    whole = request_bytes("GET", TAG, None, "HTTP/1.1", None)
    with Conn(warm.address) as conn:
        for cut in (1, 10, len(whole) - 1):
            conn.send(whole[:cut])
            wait_until(lambda: warm.unread_requests() == 0, "the first piece is read")
            conn.send(whole[cut:])
            assert conn.read_response("GET").body == image.manifest
        conn.send(whole * 7)
        for _ in range(7):
            assert conn.read_response("GET").body == image.manifest
        conn.send(whole + whole[:20])
        assert conn.read_response("GET").body == image.manifest
        conn.send(whole[20:])
        assert conn.read_response("GET").body == image.manifest


def test_a_client_that_ends_its_side_gets_the_answer(warm, image):
    asked_until_again(warm, TAG)
    for _ in range(20):
        with Conn(warm.address) as conn:
            conn.send_request("GET", TAG)
            conn.finish_sending()
            assert conn.read_response("GET").body == image.manifest


def test_close_is_close(warm, image):
    for r in [warm.get(TAG, {"Connection": "close"}) for _ in range(20)]:
        assert r.good and r.header("Connection") == "close"


def test_requests_with_a_secret_are_not_kept(warm, image):
    with Conn(warm.address) as conn:
        for _ in range(50):
            assert ask(conn, TAG, headers={"Authorization": "Basic eDp5"}).body == image.manifest
    assert again(warm) == 0


def test_large_answers_go_the_usual_way(upstream, larder):
    data = blob("large", 100 * KIB)
    target = paths.blob(APP, upstream.add_blob("app", data))
    assert larder.get(target).good
    larder.wait_stored(target.rsplit("/", 1)[1])
    with Conn(larder.address) as conn:
        assert all(ask(conn, target).body == data for _ in range(50))
    assert again(larder) == 0


def test_stopping_while_they_are_asked_for(warm, image):
    stop = threading.Event()
    wrong = []

    def client():
        with Conn(warm.address) as conn:
            while not stop.is_set():
                try:
                    r = ask(conn, TAG)
                except Exception:
                    return
                if r.status is None:
                    return
                if not (r.good and r.body == image.manifest):
                    wrong.append(r)
                    return
                if r.header("Connection") == "close":
                    return

    threads = [threading.Thread(target=client) for _ in range(4)]
    for t in threads:
        t.start()
    wait_until(lambda: again(warm) > 100, "they are given again")
    warm.stop()
    stop.set()
    for t in threads:
        t.join()
    assert not wrong
