"""What clients see of content that upstream serves well: statuses, headers, bytes; and what upstream is asked for it."""

import re
import socket

import pytest

from lib import images, paths
from lib.client import Conn
from lib.images import KIB, Image, Index, blob
from lib.larder import cache_status, wait_until
from lib.ports import free_port
from lib.secrets import secret
from lib.upstream import Fault

APP = "t/app"
UPSTREAM_BLOB = "/v2/app/blobs/"


@pytest.fixture
def image(upstream):
    return upstream.add("app", Image("app", (100 * KIB, 10)), tag="v1")


def assert_content(r, data, name, media_type=None):
    assert r.good and r.status == 200
    assert r.body == data
    assert r.framing == "length"
    assert r.header("Docker-Content-Digest") == name
    assert r.header("ETag") == '"%s"' % name
    assert r.header("Content-Length") == str(len(data))
    assert r.header("Accept-Ranges") == "bytes"
    if media_type:
        assert r.header("Content-Type") == media_type


@pytest.mark.parametrize("target", ["/v2/", "/v2"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ping(larder, upstream, target, method):
    r = larder.request(method, target)
    assert r.status == 200 and r.clean and r.header("Content-Type") == "application/json"
    assert r.body == (b"{}" if method == "GET" else b"")
    assert upstream.count() == 0


def test_manifest_by_tag_is_fetched_once_and_then_a_hit(larder, upstream, image):
    first = larder.get(paths.manifest(APP, "v1"))
    assert_content(first, image.manifest, image.digest, image.media_type)
    assert cache_status(first) == ("miss", {"fwd": "miss", "stored": True})
    for _ in range(3):
        again = larder.get(paths.manifest(APP, "v1"))
        assert_content(again, image.manifest, image.digest, image.media_type)
        assert again.header("Cache-Status").startswith("larder; hit") and cache_status(again)[0] == "hit"
    assert upstream.count("GET", paths.manifest("app", "v1")) + \
        upstream.count("GET", paths.manifest("app", image.digest)) == 1
    assert upstream.count("HEAD") <= 1


def test_manifest_fetched_by_tag_is_a_hit_by_digest(larder, upstream, image):
    larder.get(paths.manifest(APP, "v1"))
    upstream.forget()
    r = larder.get(paths.manifest(APP, image.digest))
    assert_content(r, image.manifest, image.digest, image.media_type)
    assert cache_status(r) == ("hit", {"hit": True})
    assert upstream.count() == 0


def test_manifest_by_digest_needs_one_get_and_no_head(larder, upstream, image):
    r = larder.get(paths.manifest(APP, image.digest))
    assert_content(r, image.manifest, image.digest, image.media_type)
    assert cache_status(r) == ("miss", {"fwd": "miss", "stored": True})
    assert [(s.method, s.path) for s in upstream.requests()] == [("GET", paths.manifest("app", image.digest))]


def test_blob_needs_one_get_and_no_head(larder, upstream, image):
    name = image.layers[0]
    r = larder.get(paths.blob(APP, name))
    assert_content(r, image.blobs[name], name, "application/octet-stream")
    assert cache_status(r) == ("miss", {"fwd": "miss", "stored": True})
    assert [(s.method, s.path) for s in upstream.requests()] == [("GET", paths.blob("app", name))]
    larder.wait_stored(name)
    r = larder.get(paths.blob(APP, name))
    assert_content(r, image.blobs[name], name, "application/octet-stream")
    assert cache_status(r) == ("hit", {"hit": True})
    assert upstream.count() == 1


def test_head_has_the_headers_of_get_and_no_body(larder, image):
    for target in [paths.manifest(APP, "v1"), paths.manifest(APP, image.digest), paths.blob(APP, image.layers[0]),
                   paths.blob(APP, image.config)]:
        got = larder.get(target)
        with Conn(larder.address) as conn:
            head = conn.exchange("HEAD", target)
            assert head.status == 200
            for name in ("Content-Length", "Content-Type", "Docker-Content-Digest", "ETag", "Accept-Ranges"):
                assert head.header(name) == got.header(name), name
            # Nothing lies between this answer and the next one.
            assert conn.exchange("GET", "/v2/").body == b"{}"


@pytest.mark.parametrize("reference", ["tag", "digest"])
def test_head_of_an_uncached_manifest_is_whole(larder, upstream, image, reference):
    """containerd begins with it, and needs digest, length and type."""
    target = paths.manifest(APP, "v1" if reference == "tag" else image.digest)
    r = larder.head(target)
    assert r.status == 200 and r.header("Content-Length") == str(len(image.manifest))
    assert r.header("Docker-Content-Digest") == image.digest and r.header("Content-Type") == image.media_type
    assert larder.get(target).body == image.manifest
    assert sum(s.method == "GET" for s in upstream.requests()) == 1, "the manifest is transferred once"
    assert upstream.count() <= 2


def test_head_of_an_uncached_blob_transfers_nothing(larder, upstream, image):
    name = image.layers[0]
    r = larder.head(paths.blob(APP, name))
    assert r.status == 200 and r.header("Content-Length") == str(len(image.blobs[name]))
    assert r.header("Docker-Content-Digest") == name
    assert upstream.sent() <= 1


@pytest.mark.parametrize("media_type", [
    images.OCI_INDEX, images.DOCKER_LIST, images.OCI_MANIFEST, images.DOCKER_MANIFEST, images.DOCKER_SCHEMA1,
    "application/vnd.oci.artifact.manifest.v1+json", "application/vnd.example.unheard-of.v7+json"])
def test_manifest_types_pass_byte_for_byte(larder, upstream, media_type):
    """Whatever the document says, its bytes and its type are upstream's."""
    data = b'{ "schemaVersion": 2,\t"odd":  [1,2,  3],\r\n"type": "%s" }\n\n' % media_type.encode()
    name = upstream.add_manifest("app", data, media_type, tag="odd")
    for reference in ("odd", name):
        assert_content(larder.get(paths.manifest(APP, reference)), data, name, media_type)


def test_parameters_of_a_content_type_do_not_make_two_types(larder, upstream, image):
    upstream.on(paths.manifest("app", "v1"), Fault(headers={"Content-Type": image.media_type + "; charset=utf-8"}))
    r = larder.get(paths.manifest(APP, "v1"))
    assert r.body == image.manifest and r.header("Content-Type").split(";")[0] == image.media_type


@pytest.mark.parametrize("said", [None, "application/json", "application/octet-stream", "text/plain"])
def test_a_type_that_says_nothing_is_taken_from_the_document(larder, upstream, image, said):
    upstream.on(paths.manifest("app", "v1"), Fault(headers={"Content-Type": said}))
    r = larder.get(paths.manifest(APP, "v1"))
    assert_content(r, image.manifest, image.digest, image.media_type)


def test_an_index_and_everything_below_it(larder, upstream):
    index = upstream.add("app", Index([Image("amd", arch="amd64"), Image("arm", arch="arm64")]), tag="multi")
    assert_content(larder.get(paths.manifest(APP, "multi")), index.manifest, index.digest, index.media_type)
    for name, (media_type, data) in index.manifests().items():
        assert_content(larder.get(paths.manifest(APP, name)), data, name, media_type)
    for name, data in index.blobs.items():
        assert_content(larder.get(paths.blob(APP, name)), data, name)
    assert len(upstream.requests("GET")) == 3 + len(index.blobs)


@pytest.mark.parametrize("accept", [
    [], [("Accept", "*/*")], [("Accept", images.DOCKER_MANIFEST)], [("Accept", "text/html")],
    [("Accept", t) for t in (images.OCI_MANIFEST, images.DOCKER_MANIFEST, images.DOCKER_SCHEMA1, images.DOCKER_LIST,
                             images.OCI_INDEX, "application/json")],
    [("Accept", ", ".join((images.OCI_INDEX, images.OCI_MANIFEST, "*/*;q=0.1")))]],
    ids=["absent", "anything", "narrow", "foreign", "six lines", "one line"])
def test_whatever_the_client_accepts_upstream_is_asked_for_everything(larder, upstream, accept):
    index = upstream.add("app", Index([Image("amd")]), tag="multi")
    r = larder.get(paths.manifest(APP, "multi"), accept)
    assert_content(r, index.manifest, index.digest, index.media_type)
    for seen in upstream.requests():
        for media_type in (images.OCI_INDEX, images.OCI_MANIFEST, images.DOCKER_LIST, images.DOCKER_MANIFEST, "*/*"):
            assert media_type in [part.strip().split(";")[0] for part in seen.headers["accept"].split(",")]
    upstream.forget()
    assert larder.get(paths.manifest(APP, "multi"), {"Accept": images.DOCKER_MANIFEST}).body == index.manifest
    assert upstream.count() == 0, "one stored answer serves every Accept"


def test_nothing_of_the_client_reaches_upstream(larder, upstream, image):
    private = {"Authorization": "Bearer client-secret", "Cookie": "client=secret", "X-Forwarded-For": "10.1.2.3",
               "User-Agent": "client-agent/1", "Accept-Encoding": "gzip, zstd", "X-Client": "client-header"}
    for target in (paths.manifest(APP, "v1"), paths.blob(APP, image.layers[0]), paths.tags(APP)):
        assert larder.get(target, private).good
    for seen in upstream.requests():
        assert "client" not in str(seen.header_list) and "10.1.2.3" not in str(seen.header_list)
        assert "authorization" not in seen.headers and "cookie" not in seen.headers
        assert seen.headers.get("accept-encoding", "identity") == "identity", "blobs are wanted as they are"
        assert seen.headers["host"] == "127.0.0.1:%d" % upstream.port
        assert "user-agent" in seen.headers
    larder.stop()
    assert "client-secret" not in str(larder.log)


@pytest.mark.parametrize("size", [0, 1, 32 * KIB - 1, 32 * KIB, 32 * KIB + 1, 64 * KIB, 256 * KIB, 1000003])
def test_blob_sizes(larder, upstream, size):
    """Around the tail that is withheld and around chunks."""
    data = blob("size", size)
    name = upstream.add_blob("app", data)
    for _ in range(2):
        assert_content(larder.get(paths.blob(APP, name)), data, name)
    larder.wait_stored(name)
    assert upstream.count() == 1


def test_sha512(larder, upstream):
    image = upstream.add("app", Image("sha512", (50 * KIB,), algorithm="sha512"), tag="v512")
    assert_content(larder.get(paths.manifest(APP, image.digest)), image.manifest, image.digest, image.media_type)
    for name, data in image.blobs.items():
        assert_content(larder.get(paths.blob(APP, name)), data, name)
        larder.wait_stored(name)
    upstream.forget()
    for name, data in image.blobs.items():
        assert larder.get(paths.blob(APP, name)).body == data
    assert upstream.count() == 0


def test_an_image_of_500_layers(larder, upstream):
    image = Image("many", [10] * 500)
    upstream.add("app", image, tag="many")
    assert_content(larder.get(paths.manifest(APP, "many")), image.manifest, image.digest)
    with Conn(larder.address) as conn:
        for name in image.layers:
            assert conn.exchange("GET", paths.blob(APP, name)).body == image.blobs[name]
    larder.wait_stored(*image.layers)
    assert upstream.count() == 501
    assert upstream.connections < 50, "connections to upstream are kept and used again"


@pytest.mark.parametrize("value", ['"{0}"', '"other", "{0}"', 'W/"{0}"', "*", '"a,b" , "{0}"'])
@pytest.mark.parametrize("kind", ["manifest by tag", "manifest by digest", "blob"])
def test_if_none_match(larder, upstream, image, value, kind):
    name = image.layers[0] if kind == "blob" else image.digest
    target = paths.blob(APP, name) if kind == "blob" else paths.manifest(APP, "v1" if "tag" in kind else name)
    larder.get(target)
    upstream.forget()
    with Conn(larder.address) as conn:
        for method in ("GET", "HEAD"):
            r = conn.exchange(method, target, {"If-None-Match": value.format(name)})
            assert r.status == 304 and r.body == b"", r
            assert r.header("ETag") == '"%s"' % name
        assert conn.exchange("GET", "/v2/").body == b"{}"
    assert larder.get(target, {"If-None-Match": '"sha256:%s"' % ("0" * 64)}).status == 200
    assert upstream.count() == 0


@pytest.mark.parametrize("method,target", [
    ("POST", "/v2/t/app/blobs/uploads/"), ("POST", "/v2/t/app/blobs/uploads/?mount=sha256:" + "a" * 64 + "&from=t/x"),
    ("PATCH", "/v2/t/app/blobs/uploads/some-id"), ("PUT", "/v2/t/app/blobs/uploads/some-id?digest=sha256:" + "a" * 64),
    ("GET", "/v2/t/app/blobs/uploads/some-id"), ("DELETE", "/v2/t/app/blobs/uploads/some-id"),
    ("PUT", "/v2/t/app/manifests/v1"), ("DELETE", "/v2/t/app/manifests/v1"),
    ("DELETE", "/v2/t/app/blobs/sha256:" + "a" * 64), ("POST", "/v2/"), ("OPTIONS", "/v2/")])
def test_pushes_are_refused(larder, upstream, method, target):
    r = larder.request(method, target, body=b"{}" if method in ("POST", "PUT", "PATCH") else None)
    assert r.status == 405 and r.error_code == "UNSUPPORTED"
    assert sorted(part.strip() for part in r.header("Allow").split(",")) == ["GET", "HEAD"]
    assert upstream.count() == 0


@pytest.mark.parametrize("target,status,code", [
    ("/v2/nowhere/app/manifests/v1", 404, "NAME_UNKNOWN"),
    ("/v2/nowhere/blobs/sha256:" + "a" * 64, 404, "NAME_UNKNOWN"),
    ("/v2/nowhere/tags/list", 404, "NAME_UNKNOWN"),
    ("/v2/t/manifests/v1", 404, "NAME_UNKNOWN"),
    ("/v2/t/App/manifests/v1", 400, "NAME_INVALID"),
    ("/v2/t/app/manifests/.v1", 404, "MANIFEST_UNKNOWN"),
    ("/v2/t/app/manifests/.INVALID_MANIFEST_NAME", 404, "MANIFEST_UNKNOWN"),  # the OCI conformance suite's
    ("/v2/t/app/manifests/" + "v" * 129, 404, "MANIFEST_UNKNOWN"),
    ("/v2/t/app/manifests/v1@v2", 404, "MANIFEST_UNKNOWN"),
    ("/v2/t/app/manifests/", 404, "MANIFEST_UNKNOWN"),
    ("/v2/_catalog", 404, None),
    ("/v2/t/app/unknown/v1", 404, None),
    ("/", 404, None), ("/v1/", 404, None), ("/metrics", 404, None), ("/healthz", 404, None)])
def test_refusals_that_need_no_upstream(larder, upstream, target, status, code):
    for method in ("GET", "HEAD"):
        r = larder.request(method, target)
        assert r.status == status
        if method == "GET" and code:
            assert r.error_code == code
    assert upstream.count() == 0 and larder.stored_objects() == []


@pytest.mark.parametrize("target", ["http://bob:%s@cache:5000/v2/t/app/manifests/v1", "http://%s@cache/v2/", "HTTPS://bob:%s@cache/v2/",
                                    "ftp://bob:%s@cache/v2/", "http://bob:%s@cache", "bob:%s@cache:5000"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "CONNECT"])
def test_a_password_in_a_target_is_refused_and_not_logged(larder, upstream, image, method, target):
    """The log is searched for it at the end."""
    r = larder.request(method, target % secret("userinfo"))
    assert r.status in (400, 405)
    wait_until(lambda: larder.logged(msg="request", status=r.status), "it is logged all the same")
    assert upstream.count() == 0


@pytest.mark.parametrize("name,code", [
    ("sha256:" + "A" * 64, "DIGEST_INVALID"), ("sha256:" + "a" * 63, "DIGEST_INVALID"),
    ("sha256:" + "a" * 65, "DIGEST_INVALID"), ("sha256:" + "g" * 64, "DIGEST_INVALID"),
    ("sha256:", "DIGEST_INVALID"), ("SHA256:" + "a" * 64, "DIGEST_INVALID"), ("sha512:" + "a" * 64, "DIGEST_INVALID"),
    ("sha256:../../../../etc/passwd", "DIGEST_INVALID"), ("sha256:..%2f..%2fpasswd", None),
    ("blake3:" + "a" * 64, "DIGEST_INVALID"), ("md5:" + "a" * 32, "DIGEST_INVALID"),
    ("sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564", "DIGEST_INVALID"), ("latest", "DIGEST_INVALID")])
def test_digests_that_are_not_ours_touch_nothing(larder, upstream, name, code):
    for target in [paths.blob(APP, name)] + ([paths.manifest(APP, name)] if ":" in name else []):
        r = larder.get(target)
        assert r.status == 400, target
        if code:
            assert r.error_code == code
    assert upstream.count() == 0 and larder.stored_objects() == [] and larder.partials() == []


@pytest.mark.parametrize("kind,code", [("manifest", "MANIFEST_UNKNOWN"), ("tag", "MANIFEST_UNKNOWN"),
                                       ("blob", "BLOB_UNKNOWN"), ("tags", "NAME_UNKNOWN")])
def test_not_found_upstream(larder, upstream, image, kind, code):
    name = "sha256:" + "a" * 64
    target = {"manifest": paths.manifest(APP, name), "tag": paths.manifest(APP, "none"), "blob": paths.blob(APP, name),
              "tags": paths.tags("t/none")}[kind]
    r = larder.get(target)
    assert r.status == 404 and r.error_code == code
    assert larder.stored_objects() == []
    # The rule is named, so that an operator knows which line of the file this came through.
    assert "rule-t" in r.json()["errors"][0]["message"]


def test_every_kind_of_answer_is_counted_by_rule(larder, image):
    larder.get(paths.manifest(APP, "v1"))
    larder.get(paths.manifest(APP, "v1"))
    larder.get(paths.blob(APP, image.layers[0]))
    text = larder.admin("/metrics")[1]
    assert 'rule="rule-t"' in text
    sent = 2 * len(image.manifest) + len(image.blobs[image.layers[0]])
    # Counted when the last piece has gone out, which the client may see first.
    wait_until(lambda: larder.metric("client_sent_bytes_total") >= sent, "the bytes of three answers are counted")
    assert larder.metric("upstream_received_bytes_total") == len(image.manifest) + len(image.blobs[image.layers[0]])
    larder.wait_stored(image.layers[0])
    assert larder.metric("store_objects_added_total") == 2


def test_access_log_has_a_line_for_each_request(larder, image):
    larder.get(paths.manifest(APP, "v1"))
    larder.get(paths.blob(APP, image.layers[0]))
    larder.get("/v2/nowhere/app/manifests/v1")
    larder.stop()
    access = larder.logged(group="access")
    # Written when the last byte is sent, by the loop that sent it: in no order among connections.
    assert sorted((r["status"], r["method"]) for r in access) == [(200, "GET"), (200, "GET"), (404, "GET")]
    assert {r["target"] for r in access} == {paths.manifest(APP, "v1"), paths.blob(APP, image.layers[0]), "/v2/nowhere/app/manifests/v1"}
    assert all(re.fullmatch(r"127\.0\.0\.1:[0-9]+", r["client"]) for r in access)


def test_access_log_has_the_address_of_an_ipv6_client(upstream, start_larder):
    port = free_port()
    larder = start_larder(upstream, listen=[{"address": "[::1]:%d" % port}])
    with socket.create_connection(("::1", port)) as conn:
        conn.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while conn.recv(4096):
            pass
    larder.stop()
    assert re.fullmatch(r"\[::1\]:[0-9]+", larder.logged(group="access")[-1]["client"])

