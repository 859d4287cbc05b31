"""Authorisation at upstreams: tokens, Basic, who may see credentials, and what a refusal leads to."""

import base64
import contextlib
import json
import re
import time

import pytest

from lib import paths
from lib.client import fetch_many
from lib.images import Image
from lib.larder import REGISTRY, wait_until, yaml_text
from lib.ports import free_port
from lib.secrets import secret
from lib.tokens import TokenRegistry, credentials, rule, scopes
from lib.upstream import Fault, Upstream

OURS = paths.manifest("t/app", "v1")


@pytest.fixture
def image():
    return Image("app", (30_000, 10))


@pytest.fixture
def registry(image):
    with TokenRegistry() as up:
        up.add("app", image, tag="v1")
        yield up


@pytest.fixture
def password():
    return secret("password")


@pytest.fixture
def private(image, password):
    """Nothing without an account."""
    with TokenRegistry(accounts={"someone": password}, anonymous=False) as up:
        up.add("app", image, tag="v1")
        yield up


@pytest.fixture
def with_account(start_larder, tmp_path, password):
    """A function that starts a larder whose rule has the credential set `account`."""
    def start(up, text=None, upstream=None, **more):
        sets = more.pop("credential_sets", None) or [credentials(tmp_path, text or password)]
        more.setdefault("rules", [rule(credential_set=sets[0]["name"])])
        if upstream is not None:
            more["upstreams"] = [dict({"registry": REGISTRY, "endpoints": [up.url]}, **upstream)]
        return start_larder(up, credential_sets=sets, **more)
    return start


def pull(larder, image, repo="t/app"):
    assert larder.get(paths.manifest(repo, image.digest)).good
    for name, data in image.blobs.items():
        r = larder.get(paths.blob(repo, name))
        assert r.good and r.body == data
    larder.wait_stored(*image.blobs)


# ---- what is left of them ----

def token_answer(token, marker):
    """Head and body at one go, so that larder reads a part of the body with the head. The marker is far behind the token: what is read
    later into the same memory would not cover it."""
    body = json.dumps({"token": token, "padding": "x" * 9000, "marker": marker}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("end", ["whole", "damaged"])
def test_of_a_tokens_answer_the_token_is_all_that_stays(registry, start_larder, image, end):
    token, marker = secret("token"), secret("marker")
    answer = token_answer(token, marker)
    registry.on("/token", Fault(raw=answer if end == "whole" else answer[:-1] + b"!"))
    registry.allowed = lambda seen, scope: seen.headers.get("authorization") == "Bearer " + token
    larder = start_larder(registry)
    assert larder.get(OURS).good == (end == "whole")
    larder.wait_idle()
    assert larder.memory_has(token.encode()) == (end == "whole"), "it is kept, where this test can see it"
    assert not larder.memory_has(marker.encode())


# ---- anonymous tokens ----


def test_one_token_for_all_of_a_repository(registry, start_larder, image):
    larder = start_larder(registry)
    assert larder.get(OURS).body == image.manifest
    pull(larder, image)
    assert registry.server.asked == [("GET", None, "repository:app:pull")]
    assert len(registry.refused()) == 1, "the first request was refused, no other"
    assert larder.metrics()['larder_token_requests_total{registry="up.test",result="ok"}'] == 1


def test_the_next_repository_needs_no_refused_request(registry, start_larder, image):
    registry.add("team/other", image, tag="v1")
    larder = start_larder(registry)
    assert larder.get(OURS).good
    assert larder.get(paths.manifest("t/team/other", "v1")).good
    assert registry.server.scopes_asked() == ["repository:app:pull", "repository:team/other:pull"]
    assert len(registry.refused()) == 1


def test_many_pulls_are_one_token(registry, start_larder):
    images = [Image("many-%d" % n, (5_000,) * 4) for n in range(25)]
    for n, one in enumerate(images):
        registry.add("app", one, tag="m%d" % n)
    larder = start_larder(registry)
    targets = [paths.blob("t/app", name) for one in images for name in one.blobs]
    targets += [paths.manifest("t/app", "m%d" % n) for n in range(25)]
    assert all(r.good for r in fetch_many(larder.address, targets))
    assert len(registry.token_requests()) == 1
    larder.wait_idle()


def test_the_scope_has_the_name_that_upstream_knows(start_larder, image):
    with TokenRegistry() as up:
        up.add("library/app", image, tag="v1")
        larder = start_larder(up, upstreams=[{"registry": "docker.io", "endpoints": [up.url]}],
                              rules=[rule("hub", "docker.io/*", "hub/*"), rule("one", "docker.io/app", "alone")])
        for name in ("hub/app", "hub/library/app", "alone"):
            assert larder.get(paths.manifest(name, "v1")).good
        assert larder.get(paths.blob("hub/app", image.config)).good
        assert larder.get(paths.tags("hub/app")).good
        assert set(up.server.scopes_asked()) == {"repository:library/app:pull"}


def test_a_placeholder_scope_and_no_service(start_larder, image):
    with TokenRegistry(service=None) as up:
        up.add("app", image, tag="v1")
        up.challenges = lambda seen, scope: 'Bearer realm="%s",scope="repository:user/image:pull"' % up.realm
        larder = start_larder(up)
        assert larder.get(OURS).good
        assert scopes(up.token_requests()) == ["repository:app:pull"]
        assert "service" not in up.token_requests()[0].query


@pytest.mark.parametrize("how", ["two fields", "one field", "lower case", "commas", "Basic first"])
def test_ways_to_write_a_challenge(start_larder, image, how):
    with TokenRegistry() as up:
        up.add("app", image, tag="v1")
        bearer = 'realm="%s",service="registry.test"' % up.realm
        up.challenges = lambda seen, scope: {
            "two fields": ['Negotiate', 'Bearer ' + bearer],
            "one field": 'Basic realm="x", Bearer %s, Digest realm="y", nonce="z"' % bearer,
            "lower case": "bearer " + bearer.replace("realm", "Realm").replace("service", "SERVICE"),
            "commas": 'Bearer scope="repository:app:pull,push repository:x:pull",error="a \\"b\\", c",' + bearer,
            "Basic first": ['Basic realm="x"', "Bearer " + bearer],
        }[how]
        larder = start_larder(up)
        assert larder.get(OURS).good
        assert up.server.asked == [("GET", None, "repository:app:pull")]


@pytest.mark.parametrize("said", [None, "Negotiate", 'Bearer service="x"', "Bearer", 'Digest realm="x"'])
def test_challenges_that_nobody_can_answer(start_larder, image, said):
    with TokenRegistry() as up:
        up.add("app", image, tag="v1")
        up.challenges = lambda seen, scope: said
        larder = start_larder(up)
        r = larder.get(OURS)
        assert r.status == 403 and r.error_code == "DENIED"
        assert up.count() <= 2


def test_a_challenge_only_at_v2(start_larder, image):
    with TokenRegistry() as up:
        up.add("app", image, tag="v1")
        up.challenges = lambda seen, scope: up._usual(scope) if seen.path == "/v2/" else None
        larder = start_larder(up)
        assert larder.get(OURS).good
        pull(larder, image)
        assert up.count(path="/v2/") == 1 and up.server.scopes_asked() == ["repository:app:pull"]
        up.server.expire()
        assert larder.get(paths.tags("t/app")).good


PING_FAULTS = {
    "closed": (Fault(drop=True), 502), "reset": (Fault(cut_at=-1, cut="rst"), 502), "garbage": (Fault(raw=b"garbage\r\n\r\n"), 502),
    "silent": (Fault(silent="request"), 504), "500": (Fault(status=500), 502), "503": (Fault(status=503), 503), "504": (Fault(status=504), 504),
    "429": (Fault(status=429, headers={"Retry-After": "7"}), 429), "200": (Fault(status=200, body=b"{}"), 403),
    "403": (Fault(status=403), 403), "404": (Fault(status=404), 403),
}


@pytest.mark.parametrize("what", PING_FAULTS)
def test_v2_fails_where_a_challenge_is_looked_for(start_larder, image, what):
    fault, status = PING_FAULTS[what]
    with TokenRegistry() as up:
        up.add("app", image, tag="v1")
        up.challenges = lambda seen, scope: up._usual(scope) if seen.path == "/v2/" else None
        up.on("/v2/", fault)
        larder = start_larder(up, timeouts={"connect": "1s", "first_byte": "1s", "idle": "1s"})
        for target in (OURS, paths.blob("t/app", image.config)):
            r = larder.get(target)
            assert r.status == status and r.error_code == {403: "DENIED", 429: "TOOMANYREQUESTS"}.get(status, "UNAVAILABLE"), r
            assert r.header("Retry-After") == ("7" if status == 429 else None)
        assert up.count(path="/v2/") < 20, "tries are bounded"
        assert status != 429 or up.count(path="/v2/") == 1, "a limit is remembered"
        up.clear()
        assert larder.get_when_up(OURS).body == image.manifest


def test_a_realm_with_a_query_of_its_own(start_larder, image):
    with TokenRegistry() as up:
        up.add("app", image, tag="v1")
        up.realm += "?tenant=a%2Fb"
        larder = start_larder(up)
        assert larder.get(OURS).good
        assert up.token_requests()[0].query.startswith("tenant=a%2Fb&")


# ---- tokens that end ----


def test_a_revoked_token_is_renewed_once(registry, start_larder, image):
    larder = start_larder(registry)
    assert larder.get(OURS).good
    registry.server.expire()
    targets = [paths.blob("t/app", name) for name in image.blobs] + [paths.manifest("t/app", image.digest)]
    assert all(r.good for r in fetch_many(larder.address, targets))
    assert len(registry.token_requests()) == 2


def test_a_token_is_renewed_ahead_of_its_end(start_larder, image):
    """A minute is the shortest that a token lives; when three quarters of it are over, a new one is fetched while the old one is used."""
    with TokenRegistry(life=60) as up:
        up.add("app", image, tag="v1")
        larder = start_larder(up)
        assert larder.get(OURS).good
        gate = up.hold("/token", at="request")
        missing = (paths.manifest("t/app", "none-%d" % n) for n in range(10 ** 6))

        def pull():
            time.sleep(0.1)
            assert larder.get(next(missing)).status == 404
            return gate.reached
        wait_until(pull, "a new token is asked for")
        used = up.contents()[-1].headers["authorization"]
        pull()
        assert up.contents()[-1].headers["authorization"] == used, "nobody waits for it"
        gate.release()
        wait_until(lambda: pull() and up.contents()[-1].headers["authorization"] != used, "the new token is used")
        assert len(up.refused()) == 1 and len(up.token_requests()) == 2


def test_another_challenge_for_an_ended_token_is_not_believed(start_larder, image):
    """As at nvcr.io: only a request without a token is told where tokens come from."""
    with TokenRegistry() as up, Upstream() as other:
        up.add("app", image, tag="v1")
        up.challenges = lambda seen, scope: \
            'Bearer realm="%s/token",service="other"' % other.url if "authorization" in seen.headers else up._usual(scope)
        larder = start_larder(up)
        assert larder.get(OURS).good
        up.server.expire()
        pull(larder, image)
        assert len(up.token_requests()) == 2 and other.count() == 0


@pytest.mark.parametrize("thing", ["manifest", "blob"])
def test_a_token_that_is_never_good_enough(registry, start_larder, image, thing):
    registry.allowed = lambda seen, scope: False
    larder = start_larder(registry)
    for _ in range(3):
        r = larder.get(OURS if thing == "manifest" else paths.blob("t/app", image.config))
        assert r.status == 403 and r.error_code == "DENIED"
    assert len(registry.token_requests()) <= 3 and len(registry.contents()) <= 9
    assert larder.stored_objects() == []


def test_a_blob_whose_head_is_refused(start_larder, image):
    """As at ECR Public, of a registry that nobody knows: GET alone decides, and the token is not blamed."""
    with TokenRegistry() as up:
        up.add("app", image, tag="v1")
        up.allowed = lambda seen, scope: up.server.good(seen, scope) and not (seen.method == "HEAD" and "/blobs/" in seen.path)
        larder = start_larder(up)
        assert larder.get(OURS).good
        r = larder.head(paths.blob("t/app", image.config))
        assert r.status == 200 and r.header("Content-Length") == str(len(image.config_bytes))
        assert len(up.token_requests()) == 1


def test_a_token_server_that_moves(registry, start_larder, image):
    larder = start_larder(registry)
    assert larder.get(OURS).good
    registry.add("other", image, tag="v1")
    with TokenRegistry() as second:
        registry.on("/token", Fault(status=404))
        registry.server, registry.realm = second.server, second.realm
        assert larder.get(paths.manifest("t/other", "v1")).good, "what was remembered is only a guess"
        assert scopes(second.token_requests()) == ["repository:other:pull"]


def test_each_repository_has_a_token_server_of_its_own(registry, start_larder, image):
    """As at Artifactory. Both give tokens for whatever they are asked for, and the registry takes only the right one's."""
    second_image = Image("second", (1_000,))
    registry.add("other", image, tag="v1")
    registry.add("app", second_image, tag="v2")
    with TokenRegistry() as second:
        server_of = lambda scope: second if "other" in (scope or "") else registry  # noqa: E731
        registry.allowed = lambda seen, scope: server_of(scope).server.good(seen, scope)
        registry.challenges = lambda seen, scope: server_of(scope)._usual(scope)
        larder = start_larder(registry)
        assert larder.get(OURS).good
        assert larder.get(paths.manifest("t/other", "v1")).good
        assert larder.get(paths.manifest("t/app", "v2")).body == second_image.manifest
        assert second.server.scopes_asked().count("repository:other:pull") == 1


def test_a_token_server_that_moves_while_the_old_one_refuses_all(private, with_account, image, password):
    """What is remembered is given up, although nobody else is asked in the place of one who says no."""
    private.add("other", image, tag="v1")
    with TokenRegistry(accounts={"someone": password}, anonymous=False) as second:
        larder = with_account(private, upstream={"token_realms": [second.url]})
        assert larder.get(OURS).good
        private.on("/token", Fault(status=401))
        private.server, private.realm = second.server, second.realm
        assert larder.get_when_up(paths.manifest("t/other", "v1")).good
        assert len(private.token_requests()) == 2


def test_two_registries_on_one_host(start_larder, image):
    """Each remembers its own: not even the first request of a further repository is refused."""
    class Two(TokenRegistry):
        def _content(self, seen):
            for name in ("/one", "/two"):
                if seen.path.startswith(name + "/v2/"):
                    seen.path, self.service = seen.path.removeprefix(name), "service-" + name[1:]
                    self.realm = "%s/token?of=%s" % (self.url, name[1:])
            return super()._content(seen)
    with Two() as up:
        up.server.answer = lambda seen: up.server._grant([scopes([seen])[0]])
        for name in ("app", "more"):
            up.add(name, image, tag="v1")
        larder = start_larder(up, upstreams=[{"registry": "%s.test" % name, "endpoints": [up.url + "/" + name]} for name in ("one", "two")],
                              rules=[rule(name, name + ".test/*", name + "/*") for name in ("one", "two")])
        for repo in ("app", "more"):
            for name in ("one", "two"):
                assert larder.get(paths.manifest("%s/%s" % (name, repo), "v1")).good
        assert len(up.refused()) == 2 and [s.query[:6] for s in up.token_requests()] == ["of=one", "of=two"] * 2


def test_basic_becomes_bearer(with_account, image, password):
    with TokenRegistry(basic=("someone", password), accounts={"someone": password}) as up:
        for name in ("app", "other"):
            up.add(name, image, tag="v1")
        larder = with_account(up)
        assert larder.get(OURS).good
        up.basic = None
        assert larder.get(paths.manifest("t/other", "v1")).good
        assert larder.metrics()['larder_credential_set_refused_total{credential_set="account"}'] == 0


def test_a_repository_for_all_at_a_registry_with_tokens(registry, start_larder, image):
    """The token server gives none to strangers, and this repository wants none."""
    registry.add("open", image, tag="v1")
    registry.server.anonymous = False
    registry.allowed = lambda seen, scope: "/v2/open/" in seen.path
    larder = start_larder(registry)
    assert larder.get(OURS).status == 403
    assert larder.get(paths.manifest("t/open", "v1")).good


# ---- what token servers do wrong ----


TOKEN_FAULTS = {
    "500": (Fault(status=500), 502), "503": (Fault(status=503), 503), "504": (Fault(status=504), 504), "404": (Fault(status=404), 502),
    "400": (Fault(status=400), 502), "401": (Fault(status=401), 403), "403": (Fault(status=403), 403), "no JSON": (Fault(status=200, body=b"<html>"), 502),
    "no token": (Fault(status=200, body=b"{}"), 502), "empty": (Fault(status=200, body=b""), 502), "garbage": (Fault(raw=b"garbage\r\n\r\n"), 502),
    "a line break": (Fault(status=200, body=b'{"token":"a\\r\\nX-Evil: b"}'), 502), "closed": (Fault(drop=True), 502),
    "too long": (Fault(status=200, body=b'{"token":"%s"}' % (b"x" * 300_000)), 502), "cut": (Fault(cut_at=10), 502),
    "endless": (Fault(status=200, body=b" " * 600_000, framing="chunked"), 502), "a redirect": (Fault(redirect="/token?else"), 502),
    "silent": (Fault(silent="request"), 504), "dripping": (Fault(status=200, body=b" " * 100_000, drip=(1, 0.2)), 504),
}


@pytest.mark.parametrize("what", TOKEN_FAULTS)
def test_what_token_servers_do_wrong(registry, start_larder, image, what):
    fault, status = TOKEN_FAULTS[what]
    registry.on("/token", fault)
    larder = start_larder(registry, timeouts={"connect": "1s", "first_byte": "1s", "idle": "1s"})
    for target in (OURS, paths.blob("t/app", image.config)):
        r = larder.get(target)
        assert r.status == status, r
    assert larder.stored_objects() == []
    assert len(registry.token_requests()) < 20, "tries are bounded"
    larder.wait_idle()
    registry.clear()
    assert larder.get_when_up(OURS).body == image.manifest


def test_a_token_server_that_is_gone(start_larder, image):
    with TokenRegistry(realm="http://127.0.0.1:%d/token" % free_port()) as up:
        up.add("app", image, tag="v1")
        larder = start_larder(up)
        r = larder.get(OURS)
        assert r.status == 502 and r.error_code == "UNAVAILABLE"


def test_what_is_cached_needs_no_token(registry, start_larder, image):
    larder = start_larder(registry, defaults={"tag_ttl": "1s", "stale_if_error": "1h"})
    assert larder.get(OURS).good
    pull(larder, image)
    registry.server.expire()
    registry.on("/token", Fault(status=500))
    pull(larder, image)
    r = wait_until(lambda: [r for r in [larder.get(OURS)] if "stale" in r.header("Cache-Status")], "the tag is stale")[0]
    assert r.good and r.body == image.manifest


@pytest.mark.parametrize("status", [429, 503])
def test_a_limit_of_the_token_server(registry, start_larder, image, status):
    larder = start_larder(registry)
    assert larder.get(OURS).good
    registry.add("other", image, tag="v1")
    registry.on("/token", Fault(status=status, headers={"Retry-After": "600"}))
    for _ in range(3):
        r = larder.get(paths.manifest("t/other", "v1"))
        assert r.status == status and 590 <= int(r.header("Retry-After")) <= 600
    assert len(registry.token_requests()) == 2, "not asked again before the time is over"
    pull(larder, image)  # with the token that is there


# ---- accounts ----


def test_tokens_with_a_password(private, with_account, image):
    larder = with_account(private)
    assert larder.get(OURS).body == image.manifest
    pull(larder, image)
    assert private.server.asked == [("GET", "someone", "repository:app:pull")]
    assert all("Basic" not in s.headers.get("authorization", "") for s in private.contents())


def test_basic(with_account, image, password):
    with TokenRegistry(basic=("someone", password)) as up:
        up.add("app", image, tag="v1")
        larder = with_account(up)
        assert larder.get(OURS).good
        pull(larder, image)
        assert len(up.refused()) == 1


def test_basic_without_an_account(start_larder, image, password):
    with TokenRegistry(basic=("someone", password)) as up:
        up.add("app", image, tag="v1")
        r = start_larder(up).get(OURS)
        assert r.status == 403 and r.error_code == "DENIED" and up.count() == 1


@pytest.mark.parametrize("kind", ["token", "basic"])
def test_a_wrong_password(with_account, tmp_path, image, password, kind):
    how = {"accounts": {"someone": password}, "anonymous": False} if kind == "token" else {"basic": ("someone", password)}
    with TokenRegistry(**how) as up:
        up.add("app", image, tag="v1")
        larder = with_account(up, text=secret("wrong"))
        for _ in range(30):
            r = larder.get(OURS)
            assert r.status == 403 and r.error_code == "DENIED"
            assert "credential set account" in r.json()["errors"][0]["message"]
        logins = [s for s in up.requests() if s.headers.get("authorization", "").startswith("Basic")]
        assert 1 <= len(logins) < 10, "logins are not hammered"
        wait_until(lambda: larder.logged(level="warn", credential_set="account"), "the credential set is in the log")
        (tmp_path / "account").write_text(password)
        assert larder.get_when_up(OURS).body == image.manifest


HEALTHY = 'larder_credential_set_healthy{credential_set="account"}'


def ask_often(larder, repo, n=8):
    """As a kubelet that has a name that is wrong."""
    for _ in range(n):
        r = larder.get(paths.manifest(repo, "v1"))
        assert r.status == 403 and r.error_code == "DENIED"


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_the_account_does_not_get(private, with_account, image, status):
    """As at ghcr.io and gitlab.com, where a password is good and a name is not: all else of the set goes on."""
    for name in ("other", "third"):
        private.add(name, image, tag="v1")
    private.on(lambda s: s.path == "/token" and "typo" in s.query, Fault(status=status))
    larder = with_account(private)
    assert larder.get(OURS).good
    ask_often(larder, "t/typo")
    assert len([s for s in private.token_requests() if "typo" in s.query]) <= 2
    assert larder.get(paths.manifest("t/other", "v1")).good
    ask_often(larder, "t/typo")
    assert larder.get(paths.manifest("t/third", "v1")).good
    assert larder.metrics()[HEALTHY] == 1


def test_a_repository_that_the_account_does_not_see_by_basic(with_account, image, password):
    with TokenRegistry(basic=("someone", password)) as up:
        for name in ("app", "other"):
            up.add(name, image, tag="v1")
        up.on(re.compile("/typo/"), Fault(status=401, headers={"WWW-Authenticate": 'Basic realm="registry.test"'}))
        larder = with_account(up)
        assert larder.get(OURS).good
        ask_often(larder, "t/typo")
        assert len([s for s in up.contents(path=re.compile("/typo/")) if "authorization" in s.headers]) == 1
        assert larder.get(paths.manifest("t/other", "v1")).good
        assert larder.metrics()[HEALTHY] == 1


@pytest.mark.parametrize("way", ["token", "basic"])
def test_repositories_that_the_account_does_not_see_asked_for_in_turn(way, private, with_account, image, password):
    """They make nothing of a good password, also while nothing else is asked for."""
    with contextlib.ExitStack() as stack:
        up = private if way == "token" else stack.enter_context(TokenRegistry(basic=("someone", password)))
        for name in ("app", "other"):
            up.add(name, image, tag="v1")
        up.on(lambda s: "typo" in s.path + s.query, Fault(status=401, headers={"WWW-Authenticate": None if way == "token" else 'Basic realm="registry.test"'}))
        larder = with_account(up)
        assert larder.get(OURS).good
        for n in range(24):
            assert larder.get(paths.manifest("t/typo-%d" % (n % 6), "v1")).status == 403
        assert larder.metrics()[HEALTHY] == 1
        assert larder.get(paths.manifest("t/other", "v1")).good


def test_tokens_outlive_the_password_that_they_were_got_with(private, with_account, image):
    later, names = Image("later", (1_000,)), ["n%d" % n for n in range(3)]
    private.add("app", later, tag="v2")
    larder = with_account(private)
    for name in names:
        private.add(name, image, tag="v1")
        assert larder.get(paths.manifest("t/" + name, "v1")).good
    private.server.expire()
    assert larder.get(OURS).good
    private.server.accounts.clear()
    for name in names:
        assert larder.get(paths.manifest("t/" + name, "v2")).status == 403
    assert larder.metrics()[HEALTHY] == 0, "the set is refused"
    assert larder.get(paths.manifest("t/app", "v2")).body == later.manifest


def test_a_server_that_is_out_of_order_accepts_no_password(with_account, image, password):
    """A refused set is not healthy again because its probe meets an error page."""
    with TokenRegistry(basic=("someone", password)) as up:
        up.add("app", image, tag="v1")
        larder = with_account(up, text=secret("wrong"))
        names = ("v%d" % n for n in range(2, 10 ** 6))
        wait_until(lambda: larder.get(paths.manifest("t/app", next(names))).status == 403 and larder.metrics()[HEALTHY] == 0, "the set is refused")
        up.on(lambda s: "authorization" in s.headers, Fault(status=500))
        probed = lambda: larder.get(paths.manifest("t/app", next(names))).status and 500 in [s.status for s in up.requests()]  # noqa: E731
        wait_until(probed, "it is probed")
        assert larder.metrics()[HEALTHY] == 0


def test_a_changed_password_is_used_at_once(private, with_account, tmp_path, image):
    larder = with_account(private)
    assert larder.get(OURS).good
    private.add("other", image, tag="v1")
    new = secret("new")
    private.server.accounts["someone"] = new
    (tmp_path / "account").write_text(new)
    assert larder.get_when_up(paths.manifest("t/other", "v1")).good


def test_credentials_that_cannot_be_read(private, with_account, start_larder, tmp_path, image):
    larder = with_account(private)
    assert larder.get(OURS).good
    pull(larder, image)
    larder.stop()
    private.add("other", image, tag="v1")
    (tmp_path / "account").unlink()
    larder.start()
    assert larder.get(OURS).good
    pull(larder, image)
    before = private.count()
    r = larder.get(paths.manifest("t/other", "v1"))
    assert r.status == 403 and r.error_code == "DENIED"
    assert "credential set account" in r.json()["errors"][0]["message"]
    assert private.count() <= before + 1 and private.token_requests()[1:] == []


def test_two_accounts_at_one_registry(start_larder, tmp_path, image):
    one, two = secret("one"), secret("two")
    with TokenRegistry(accounts={"a": one, "b": two}, anonymous=False) as up:
        up.add("a/app", image, tag="v1")
        up.add("b/app", image, tag="v1")
        larder = start_larder(up, credential_sets=[credentials(tmp_path, one, "set-a", username="a"),
                                                   credentials(tmp_path, two, "set-b", username="b")],
                              rules=[rule("a", "up.test/a/*", "a/*", "set-a"), rule("b", "up.test/b/*", "b/*", "set-b")])
        for name in ("a/app", "b/app", "a/app"):
            assert larder.get(paths.manifest(name, image.digest)).good
        assert up.server.asked == [("GET", "a", "repository:a/app:pull"), ("GET", "b", "repository:b/app:pull")]


def limited_unless_known(up, place):
    """The registry, or its token server, has enough of whoever has no account."""
    limit = Fault(status=429, headers={"Retry-After": "600"})
    if place == "registry":
        up.on(re.compile("/v2/pub/"), limit)
    else:
        up.on(lambda s: s.path == "/token" and "authorization" not in s.headers, limit)


@pytest.mark.parametrize("place", ["registry", "token server"])
def test_a_limit_is_an_accounts_own(start_larder, tmp_path, image, password, place):
    with TokenRegistry(accounts={"someone": password}) as up:
        for name in ("pub/app", "paid/app", "paid/other"):
            up.add(name, image, tag="v1")
        limited_unless_known(up, place)
        larder = start_larder(up, credential_sets=[credentials(tmp_path, password)],
                              rules=[rule("pub", "up.test/pub/*", "pub/*"), rule("paid", "up.test/paid/*", "paid/*", "account")])
        assert larder.get(paths.manifest("paid/app", "v1")).good
        for _ in range(3):
            r = larder.get(paths.manifest("pub/app", "v1"))
            assert r.status == 429 and 590 <= int(r.header("Retry-After")) <= 600
        assert larder.get(paths.manifest("paid/other", "v1")).good
        assert len([s for s in up.requests() if s.status == 429]) == 1, "and the limit is kept"


def test_an_account_ends_the_limit_of_those_without(start_larder, tmp_path, image, password):
    """What one does who has come to the limit."""
    with TokenRegistry(accounts={"someone": password}) as up:
        up.add("app", image, tag="v1")
        limited_unless_known(up, "token server")
        larder = start_larder(up)
        assert larder.get(OURS).status == 429
        larder.config["credential_sets"] = [credentials(tmp_path, password)]
        larder.config["rules"] = [rule(credential_set="account")]
        with open(larder.file, "w") as out:
            out.write(yaml_text(larder.config))
        wait_until(lambda: larder.metric("config_reloads_total") == 1, "the file is read again")
        assert larder.get(OURS).good


@pytest.mark.parametrize("answer", [None, 400, 401, 404, 405])
def test_identity_tokens_go_by_post(with_account, tmp_path, image, answer):
    """... and by GET where POST is not known."""
    refresh = secret("refresh")
    with TokenRegistry(anonymous=False) as up:
        up.add("app", image, tag="v1")
        up.server.refresh[refresh] = "someone"
        up.server.accounts["someone"] = refresh
        if answer:
            up.on("/token", Fault(status=answer), method="POST")
        file = tmp_path / "config.json"
        file.write_text(json.dumps({"auths": {REGISTRY: {"auth": base64.b64encode(b"someone:").decode(), "identitytoken": refresh}}}))
        larder = with_account(up, credential_sets=[{"name": "docker", "login_server": REGISTRY, "password": "dockerconfig:%s" % file}])
        assert larder.get(OURS).good
        methods = [s.method for s in up.token_requests()]
        assert methods == (["POST", "GET"] if answer else ["POST"])
        assert scopes(up.token_requests()) == ["repository:app:pull"] * len(methods)


# ---- who may see credentials ----


@pytest.mark.parametrize("named", [False, True])
def test_a_realm_elsewhere(with_account, image, password, named):
    with TokenRegistry(accounts={"someone": password}) as other, \
            TokenRegistry(realm=other.realm, server=other) as up:
        up.add("app", image, tag="v1")
        larder = with_account(up, upstream={"token_realms": [other.url]} if named else {})
        assert larder.get(OURS).good
        assert other.server.asked == [("GET", "someone" if named else None, "repository:app:pull")]
        assert ("authorization" in other.requests()[0].headers) == named


def test_a_realm_that_is_not_trusted_is_named(with_account, image, password):
    with TokenRegistry(accounts={"someone": password}, anonymous=False) as other, \
            TokenRegistry(realm=other.realm, server=other) as up:
        up.add("app", image, tag="v1")
        larder = with_account(up)
        r = larder.get(OURS)
        assert r.status == 403 and r.error_code == "DENIED"
        message = r.json()["errors"][0]["message"]
        assert "token server is not trusted" in message and "credential set account" in message and other.url not in message
        wait_until(lambda: larder.logged(level="warn", text="the realm %s is not trusted" % other.url), "the realm is in the log")
        assert all("authorization" not in s.headers for s in other.requests())


@pytest.mark.parametrize("realm", ["http://169.254.169.254/token", "http://user:pw@127.0.0.1/token", "ftp://127.0.0.1/token", "x", "http://[fe80::1]/"])
def test_realms_that_are_not_asked(with_account, image, realm):
    with TokenRegistry(realm=realm) as up:
        up.add("app", image, tag="v1")
        larder = with_account(up)
        r = larder.get(OURS)
        assert r.status == 403 and r.error_code == "DENIED"
        wait_until(lambda: larder.logged(level="warn", text="the realm "), "the realm is in the log")
        assert up.token_requests() == []


def test_a_token_server_that_redirects_is_not_followed(private, with_account):
    with Upstream() as other:
        private.on("/token", Fault(redirect=other.url + "/token"))
        larder = with_account(private)
        assert larder.get(OURS).status == 502
        assert other.count() == 0


def test_what_clients_bring_is_not_passed_on(registry, start_larder, image):
    larder = start_larder(registry)
    theirs = secret("client")
    r = larder.get(OURS, {"Authorization": "Bearer " + theirs})
    assert r.good
    assert larder.get(OURS, {"Authorization": "Basic " + base64.b64encode(theirs.encode()).decode()}).good
    assert all(theirs not in s.headers.get("authorization", "") for s in registry.requests())
    assert len(registry.contents()) == 2, "and no part of what is cached"


# ---- limits that are told ----


def test_rate_limits_are_shown(start_larder, upstream, image):
    upstream.add("app", image, tag="v1")
    upstream.on(re.compile("/manifests/"), Fault(headers={"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600",
                                                          "docker-ratelimit-source": "192.0.2.1"}))
    larder = start_larder(upstream)
    assert not [name for name in larder.metrics() if name.startswith("larder_upstream_ratelimit")]
    assert larder.get(OURS).good
    values = larder.metrics()
    assert values['larder_upstream_ratelimit_limit{registry="up.test"}'] == 100
    assert values['larder_upstream_ratelimit_remaining{registry="up.test"}'] == 76


def test_rate_limits_are_shown_for_each_account(start_larder, tmp_path, upstream, image, password):
    left = {"pub": 5, "paid": 4000}
    for name, n in left.items():
        upstream.add(name + "/app", image, tag="v1")
        upstream.on(re.compile("/%s/" % name), Fault(headers={"ratelimit-remaining": "%d;w=21600" % n}))
    larder = start_larder(upstream, credential_sets=[credentials(tmp_path, password)],
                          rules=[rule("pub", "up.test/pub/*", "pub/*"), rule("paid", "up.test/paid/*", "paid/*", "account")])
    for name in left:
        assert larder.get(paths.manifest(name + "/app", "v1")).good
    shown = {name: value for name, value in larder.metrics().items() if name.startswith("larder_upstream_ratelimit")}
    assert shown == {'larder_upstream_ratelimit_remaining{registry="up.test"}': 5,
                     'larder_upstream_ratelimit_remaining{registry="up.test",credential_set="account"}': 4000}
