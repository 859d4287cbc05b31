"""The registries that everybody uses, as scripted servers: what each of them says to whom, as far as it matters to a cache.

    with DockerHub(root) as hub:                      # root: an authority of lib/pki.py
        hub.add("library/app", image, tag="v1")
        larder = start_larder(hub, **hub.config())    # docker.io/* is under r/*
        ...
        hub.check()

A profile is a set of host names behind one TLS port; larder finds them by its `resolve` map, under their real names and at port 443. What must
never happen is noticed by the profile itself and told by check(): credentials at a host that has no business with them, a name in the handshake that
is not the one in the request, a host that nobody mentioned."""

import base64
import json
import random
import re
import threading
import time
import urllib.parse

from .secrets import remember, secret
from .tls import Tls
from .upstream import Upstream, oci_error

PATH = re.compile(r"/v2/(.+)/(manifests|blobs|tags|referrers)/([^/]+)")
HTML = b"<!doctype html><title>Redirecting...</title><h1>Redirecting...</h1>"


class TokenServer:
    """Hands out tokens and knows which are good for what.

    `life` None: the answer has no expires_in. `accounts`: user -> password. `post`: OAuth 2 by POST. `open_scope`: a token is good for
    everything, whatever was asked for."""

    def __init__(self, realm, service, life=300, anonymous=True, fields=("token", "access_token"), post=True, open_scope=None):
        self.realm, self.service, self.life, self.anonymous = realm, service, life, anonymous
        self.fields, self.post, self.open_scope = fields, post, open_scope
        self.accounts, self.refresh = {}, {}
        self.asked = []         # (method, user or None, scope)
        self.fault = None       # function of a request -> an answer, or None
        self._granted = {}
        self._lock = threading.Lock()

    def challenge(self, scope, error=None):
        said = {"realm": self.realm, "service": self.service, "scope": scope, "error": error}
        return "Bearer " + ",".join('%s="%s"' % (k, v) for k, v in said.items() if v is not None)

    def good(self, seen, scope):
        """Does the request carry a token for this scope?"""
        token = seen.headers.get("authorization", "").removeprefix("Bearer ")
        with self._lock:
            scopes, until = self._granted.get(token, ((), 0))
        return time.monotonic() < until and (self.open_scope is not None or scope in scopes)

    def knows(self, seen):
        """Has the request a token that this server once gave?"""
        return seen.headers.get("authorization", "").removeprefix("Bearer ") in self._granted

    def expire(self):
        """All tokens that are out are worth nothing from now on."""
        with self._lock:
            self._granted = {token: (scopes, 0) for token, (scopes, _) in self._granted.items()}

    def scopes_asked(self):
        return [scope for _, _, scope in self.asked]

    def answer(self, seen):
        faulty = self.fault(seen) if self.fault is not None else None
        if faulty is not None:
            return faulty
        form = urllib.parse.parse_qs(seen.body.decode() if seen.method == "POST" else seen.query, keep_blank_values=True)
        scopes = [one for scope in form.get("scope", []) for one in scope.split(" ")]
        if seen.method == "POST":
            if not self.post:
                return oci_error(405, "UNSUPPORTED")
            user = self._by_form(form)
        else:
            user = self._by_basic(seen)
        self.asked.append((seen.method, user or None, " ".join(scopes)))
        if form.get("service", [None])[0] != self.service:
            return oci_error(400, "DENIED")
        if user is False or (user is None and not self.anonymous):
            return 401, {"Content-Type": "application/json"}, b'{"details":"incorrect username or password"}'
        return self._grant(scopes)

    def _by_form(self, form):
        kind = form.get("grant_type", [""])[0]
        if kind == "refresh_token":
            return self.refresh.get(form.get("refresh_token", [""])[0], False)
        if kind == "password":
            user = form.get("username", [""])[0]
            return user if self.accounts.get(user) == form.get("password", [""])[0] else False
        return False

    def _by_basic(self, seen):
        """The user; None: nobody; False: a wrong one."""
        field = seen.headers.get("authorization")
        if field is None:
            return None
        if not field.startswith("Basic "):
            return False
        user, _, password = base64.b64decode(field.removeprefix("Basic ")).decode().partition(":")
        return user if self.accounts.get(user) == password else False

    def _grant(self, scopes):
        token = "ey" + secret("token", 40)
        with self._lock:
            self._granted[token] = (scopes, time.monotonic() + (60 if self.life is None else self.life))
        document = {name: token for name in self.fields}
        if self.life is not None:
            document["expires_in"] = self.life
            document["issued_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return 200, {"Content-Type": "application/json", "Cache-Control": "no-store"}, json.dumps(document).encode()


class Profile(Upstream):
    registry = None         # as rules name it
    api = None              # host of the registry's own answers; absent: the same
    cdn = None              # host that blobs are fetched from; absent: the registry itself
    names = ("app", "team/app")
    account_only = False
    elsewhere = False       # manifests are at another registry
    redirect_status = 307
    redirect_headers = {"Content-Type": "text/html"}
    redirect_body = b""

    def __init__(self, root, account=False):
        self.root = root
        self.api = self.api or self.registry
        self.tokens = {}            # host -> TokenServer
        self.credentials = {}       # host -> schemes that it may be shown
        self.violations = []
        self.account = ("someone", secret("password")) if account or self.account_only else None
        self._links, self._made, self._link_lock = {}, 0, threading.Lock()
        self.answers = {self.api: self._registry}
        if self.cdn:
            self.answers[self.cdn] = self._cdn
        self.set_up()
        for host, server in self.tokens.items():
            self.credentials.setdefault(host, set()).add("Basic")
            if self.account:
                server.accounts[self.account[0]] = self.account[1]
        leaf = root.issue(self.registry, names=sorted(self.answers))
        super().__init__(tls=Tls(leaf, alpn=("h2", "http/1.1")))

    def set_up(self):
        """Token servers and further hosts."""

    def bearer(self, realm, service, **how):
        """The registry's own answers need a token of this server."""
        url = urllib.parse.urlsplit(realm)
        server = TokenServer(realm, service, **how)
        self.tokens[url.netloc] = self.token_server = server
        self.token_path = url.path
        self.credentials.setdefault(self.api, set()).add("Bearer")
        if url.netloc != self.api:
            self.answers[url.netloc] = lambda seen: server.answer(seen) if seen.path == url.path else oci_error(404, "UNKNOWN")

    # ---- for tests ----

    def config(self, target="r/*", folder=None, **upstream):
        """larder's configuration; with an account, its password in a file in `folder`."""
        rule = {"name": "r", "source": self.registry + "/*", "target": target}
        config = {
            "resolve": {host: "127.0.0.1:%d" % self.port for host in self.answers},
            "upstreams": [dict({"registry": self.registry, "ca": self.root.file,
                                "timeouts": {"connect": "5s", "first_byte": "10s", "idle": "10s"}}, **upstream)],
            "rules": [rule],
        }
        if self.account:
            file = folder / "password"
            file.write_text(self.account[1] + "\n")
            config["credential_sets"] = [{"name": "account", "login_server": self.registry, "username": self.account[0],
                                          "password": "file:%s" % file}]
            rule["credential_set"] = "account"
        return config

    def at(self, host, method=None, path=None):
        return self.requests(method, path, host)

    def refused(self):
        """Requests at the registry that were told to bring a token."""
        return [s for s in self.at(self.api) if s.status == 401]

    def expire_links(self):
        with self._link_lock:
            self._links.clear()

    def check(self):
        assert not self.violations, self.violations

    # ---- answers ----

    def _content(self, seen):
        self._look(seen)
        answer = self.answers.get(seen.host)
        return answer(seen) if answer else oci_error(421, "UNKNOWN")

    def _look(self, seen):
        def wrong(what):
            self.violations.append("%s at %s: %s" % (what, seen.host, seen.line))
        if seen.host not in self.answers:
            wrong("an unknown host")
        if seen.handshake.name != seen.host:
            wrong("the handshake named %s" % seen.handshake.name)
        if seen.handshake.alpn == "h2":
            wrong("ALPN chose h2")
        if "proxy-authorization" in seen.headers:
            wrong("credentials for a proxy")
        field = seen.headers.get("authorization")
        if field is not None and field.split(" ")[0] not in self.credentials.get(seen.host, ()):
            wrong("an Authorization that has no business there (%s)" % field.split(" ")[0])
        if "cookie" in seen.headers:
            wrong("a cookie")

    def _registry(self, seen):
        if self.tokens and seen.path == self.token_path and self.api in self.tokens:
            return self.tokens[self.api].answer(seen)
        match = PATH.fullmatch(seen.path)
        if self.tokens and not self._allowed(seen, match):
            _, headers, body = oci_error(401, "UNAUTHORIZED")
            return 401, dict(headers, **{"WWW-Authenticate": self._challenge(seen, match),
                                         "Docker-Distribution-Api-Version": "registry/2.0"}), body
        status, headers, body = super()._content(seen)
        if match and match[2] == "blobs" and status == 200 and self.cdn:
            location = "https://%s%s" % (self.cdn, self.link(match[3], body))
            return self.redirect_status, dict(self.redirect_headers, Location=location), self.redirect_body
        headers.pop("Accept-Ranges", None)
        return status, headers, body

    def scope(self, match):
        return "repository:%s:pull" % match[1] if match else None

    def _allowed(self, seen, match):
        return self.token_server.good(seen, self.scope(match)) or (match is None and self.token_server.knows(seen))

    def _challenge(self, seen, match):
        error = "invalid_token" if "authorization" in seen.headers else None
        return self.token_server.challenge(self.scope(match), error)

    def link(self, name, body):
        """The signed target of a blob, made anew for each request and good for exactly what it says."""
        signature = urllib.parse.quote(base64.b64encode(random.SystemRandom().randbytes(33) + b"\xfb\xff\xbf").decode(), safe="~")
        remember(signature, "the signature of a link")
        with self._link_lock:
            self._made += 1
            target = self.signed(name.replace(":", "/").split("/")[1], self._made, signature)
            self._links[target] = body
        return target

    def signed(self, hexes, n, signature):
        return "/blobs/%s/%s?n=%d&sig=%s" % (hexes[:2], hexes, n, signature)

    def _cdn(self, seen):
        """As S3 and its like: two ways to sign are too many, and a link is good for GET only."""
        if "authorization" in seen.headers:
            return 400, {"Content-Type": "application/xml"}, b"<Error><Code>InvalidArgument</Code></Error>"
        with self._link_lock:
            body = self._links.get(seen.target)
        if body is None or seen.method != "GET":
            return 403, {"Content-Type": "application/xml"}, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"
        return 200, {"Content-Type": "binary/octet-stream", "ETag": '"0123456789abcdef"', "Accept-Ranges": None}, body


class DockerHub(Profile):
    """Tokens come from another host and live five minutes; manifests that are fetched are counted, looks at them are not."""

    registry, api, cdn = "docker.io", "registry-1.docker.io", "production.cloudflare.docker.com"
    names = ("library/app", "team/app")
    redirect_headers = {"Content-Type": "application/octet-stream", "Docker-Distribution-Api-Version": "registry/2.0"}

    def set_up(self):
        self.bearer("https://auth.docker.io/token", "registry.docker.io")
        self.limit, self.left = 100, 100

    def signed(self, hexes, n, signature):
        return ("/registry-v2/docker/registry/v2/blobs/sha256/%s/%s/data?expires=17%08d&signature=%s&version=2"
                % (hexes[:2], hexes, n, signature))

    def _registry(self, seen):
        status, headers, body = super()._registry(seen)
        match = PATH.fullmatch(seen.path)
        if match is None or match[2] != "manifests" or status == 401:
            return status, headers, body
        if seen.method == "GET":
            self.left -= 1
        limits = {"ratelimit-limit": "%d;w=21600" % self.limit, "docker-ratelimit-source": "192.0.2.7",
                  "ratelimit-remaining": "%d;w=21600" % max(self.left, 0)}
        if self.left < 0:
            _, headers, _ = oci_error(429, "TOOMANYREQUESTS")
            return 429, dict(headers, **limits), (b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your '
                                                  b'unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"}]}')
        return status, dict(headers, **limits), body


class Mcr(Profile):
    """No tokens at all; blobs are in the region's data host."""

    registry, cdn = "mcr.microsoft.com", "westeurope.data.mcr.microsoft.com"
    names = ("dotnet/runtime", "hello-world")

    def signed(self, hexes, n, signature):
        return ("/01031d61e1024861afee5d512651eb9f-%d//docker/registry/v2/blobs/sha256/%s/%s/data?sv=2018-03-28&sr=b&sig=%s"
                "&se=2026-01-01T00%%3A00%%3A00Z&sp=r&regid=0103" % (n, hexes[:2], hexes, signature))


class EcrPublic(Profile):
    """HEAD of a blob is refused whatever it carries; one scope is good for everything."""

    registry, cdn = "public.ecr.aws", "d5l0dvt14r5h8.cloudfront.net"
    names = ("docker/library/app", "eks/pause")

    def set_up(self):
        self.bearer("https://public.ecr.aws/token/", "public.ecr.aws", life=43200, fields=("token",), open_scope="aws")

    def scope(self, match):
        return "aws"

    def signed(self, hexes, n, signature):
        return "/%s/%s?Expires=17%08d&Signature=%s&Key-Pair-Id=KQ6~1" % (hexes[:8], hexes, n, signature)

    def _allowed(self, seen, match):
        return super()._allowed(seen, match) and not (seen.method == "HEAD" and match and match[2] == "blobs")


class Ghcr(Profile):
    """The token's answer does not say how long it lives."""

    registry, cdn = "ghcr.io", "pkg-containers.githubusercontent.com"
    names = ("owner/app", "owner/team/app")

    def set_up(self):
        self.bearer("https://ghcr.io/token", "ghcr.io", life=None, fields=("token",))

    def scope(self, match):
        return super().scope(match) or "repository:user/image:pull"

    def signed(self, hexes, n, signature):
        return ("/ghcr1/blobs/sha256:%s?se=2026-01-01T00%%3A05%%3A00Z&sig=%s&ske=&skoid=%d&sp=r&spr=https&sr=b&sv=2019-12-12"
                % (hexes, signature, n))


class Quay(Profile):
    """A redirect with a page, to be kept for a year by its own words, to a link that lives ten minutes."""

    registry, cdn = "quay.io", "cdn01.quay.io"
    names = ("prometheus/busybox", "team/app")
    redirect_status = 302
    redirect_headers = {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "max-age=31536000", "Accept-Ranges": "bytes"}
    redirect_body = HTML

    def set_up(self):
        self.bearer("https://quay.io/v2/auth", "quay.io", life=3600, fields=("token",))

    def signed(self, hexes, n, signature):
        return ("/quayio-production-s3/sha256/%s/%s?X-Amz-Algorithm=AWS4-HMAC-SHA256"
                "&X-Amz-Credential=AKIA%d%%2F20260101%%2Fus-east-1%%2Fs3%%2Faws4_request&X-Amz-Expires=600&X-Amz-SignedHeaders=host"
                "&X-Amz-Signature=%s&region=us-east-1&namespace=a&username=" % (hexes[:2], hexes, n, signature))

    def _registry(self, seen):
        status, headers, body = super()._registry(seen)
        if status == 302:
            headers["Docker-Content-Digest"] = PATH.fullmatch(seen.path)[3]
        return status, headers, body


class Kubernetes(Profile):
    """A registry that has nothing itself: manifests are at another registry, which with `wants_token` wants a token of its own, blobs in a bucket."""

    registry, cdn = "registry.k8s.io", "prod-registry-k8s-io-eu-central-1.s3.dualstack.eu-central-1.amazonaws.com"
    backend = "europe-west4-docker.pkg.dev"
    prefix = "k8s-artifacts-prod/images/"
    names = ("pause", "coredns/coredns")
    elsewhere = True
    wants_token = False

    def set_up(self):
        self.answers[self.backend] = self._backend
        if self.wants_token:
            self.tokens[self.backend] = TokenServer("https://%s/v2/token" % self.backend, self.backend, life=3600, fields=("token",))
            self.credentials[self.backend] = {"Bearer"}

    def _registry(self, seen):
        match = PATH.fullmatch(seen.path)
        if seen.method not in ("GET", "HEAD"):
            return oci_error(405, "UNSUPPORTED")
        if match is None:
            return (200, {"Content-Type": "application/json"}, b"{}") if seen.path == "/v2/" else oci_error(404, "UNKNOWN")
        if match[2] == "blobs":
            target = "https://%s/containers/images/%s" % (self.cdn, match[3])
        else:
            target = "https://%s/v2/%s%s/%s/%s" % (self.backend, self.prefix, match[1], match[2], match[3])
        return 307, {"Content-Type": "text/html; charset=utf-8", "Location": target}, b'<a href="x">Temporary Redirect</a>.\n\n'

    def _cdn(self, seen):
        name = seen.path.removeprefix("/containers/images/")
        body = next((repo["blobs"][name] for repo in self.repos.values() if name in repo["blobs"]), None)
        if body is None:
            return 403, {"Content-Type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>"
        return 200, {"Content-Type": "binary/octet-stream", "Accept-Ranges": "bytes"}, body

    def _backend(self, seen):
        server = self.tokens.get(self.backend)
        if server and seen.path == "/v2/token":
            return server.answer(seen)
        match = PATH.fullmatch(seen.path)
        if server and (match is None or not server.good(seen, "repository:%s:pull" % match[1])):
            _, headers, body = oci_error(401, "UNAUTHORIZED")
            return 401, dict(headers, **{"WWW-Authenticate": server.challenge("repository:%s:pull" % match[1] if match else None)}), body
        seen.path = seen.path.replace("/v2/" + self.prefix, "/v2/", 1)
        return Upstream._content(self, seen)


class KubernetesWithTokens(Kubernetes):
    wants_token = True


class GoogleArtifactRegistry(Profile):
    """Blobs by a relative redirect, where no token is needed."""

    registry = "us-docker.pkg.dev"
    names = ("project/images/app", "google-samples/containers/gke/app")

    def set_up(self):
        self.bearer("https://us-docker.pkg.dev/v2/token", "us-docker.pkg.dev", life=3600, fields=("token",))

    def _registry(self, seen):
        if seen.path.startswith("/artifacts-downloads/"):
            with self._link_lock:
                body = self._links.get(seen.target)
            if body is None:
                return oci_error(403, "DENIED")
            return 200, {"Content-Type": "application/octet-stream", "Accept-Ranges": None}, body
        status, headers, body = super()._registry(seen)
        match = PATH.fullmatch(seen.path)
        if status == 200 and match and match[2] == "blobs":
            return 302, {"Content-Type": "text/html", "Location": self.link(match[3], body)}, HTML
        return status, headers, body

    def signed(self, hexes, n, signature):
        return "/artifacts-downloads/namespaces/project/repositories/images/downloads/%s%d?sig=%s" % (signature, n, hexes[:8])


class AzureContainerRegistry(Profile):
    """An account is needed. Tokens by GET with a password, or by POST with a refresh token; not by POST with a password."""

    registry, cdn = "larder.azurecr.io", "weu1mrg1.blob.core.windows.net"
    account_only = True

    def set_up(self):
        self.bearer("https://larder.azurecr.io/oauth2/token", "larder.azurecr.io", life=None, anonymous=False, fields=("access_token",))
        self.refresh_token = secret("refresh")
        self.tokens["larder.azurecr.io"].refresh[self.refresh_token] = "someone"
        self.tokens["larder.azurecr.io"].fault = self._no_password_by_post

    @staticmethod
    def _no_password_by_post(seen):
        if seen.method == "POST" and b"grant_type=refresh_token" not in seen.body:
            return oci_error(400, "UNSUPPORTED")
        return None

    def signed(self, hexes, n, signature):
        return ("/%d//docker/registry/v2/blobs/sha256/%s/%s/data?se=2026-01-01T00%%3A20%%3A00Z&sig=%s&sp=r&spr=https&sr=b&sv=2018-03-28"
                % (n, hexes[:2], hexes, signature))


class GitLab(Profile):
    registry, cdn = "registry.gitlab.com", "cdn.registry.gitlab-static.net"
    names = ("group/project", "group/sub/project/app")

    def set_up(self):
        self.bearer("https://gitlab.com/jwt/auth", "container_registry", life=None, fields=("token",))


class Nvcr(Profile):
    """The challenge has no service, and with a token that has ended it is quite another one, whose server knows no anonymous users."""

    registry, cdn = "nvcr.io", "xfiles.ngc.nvidia.com"
    names = ("nvidia/cuda", "nvidia/k8s/dcgm-exporter")

    def set_up(self):
        self.bearer("https://nvcr.io/proxy_auth", None, life=600, fields=("token",))
        self.other = TokenServer("https://authn.nvidia.com/token", "registry", anonymous=False, fields=("token",))
        self.tokens["authn.nvidia.com"] = self.other
        self.answers["authn.nvidia.com"] = self.other.answer

    def _challenge(self, seen, match):
        if "authorization" in seen.headers:
            return self.other.challenge(self.scope(match))
        return super()._challenge(seen, match)


class RedHat(Profile):
    """Nothing without an account."""

    registry, cdn = "registry.redhat.io", "cdn01.quay.io"
    names = ("ubi9/ubi", "rhel9/toolbox")
    account_only = True

    def set_up(self):
        self.bearer("https://registry.redhat.io/auth/realms/rhcc/protocol/redhat-docker-v2/auth", "docker-registry", anonymous=False,
                    fields=("token", "access_token"))


class EcrPrivate(Profile):
    """Basic, at the registry itself, and a bucket that takes nothing of it."""

    registry, cdn = "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "prod-eu-west-1-starport-layer-bucket.s3.eu-west-1.amazonaws.com"
    account_only = True

    def set_up(self):
        self.credentials[self.api] = {"Basic"}

    def _registry(self, seen):
        wanted = "Basic " + base64.b64encode(":".join(self.account).encode()).decode()
        if seen.headers.get("authorization") != wanted:
            _, headers, body = oci_error(401, "UNAUTHORIZED")
            return 401, dict(headers, **{"WWW-Authenticate": 'Basic realm="https://%s/",service="ecr.amazonaws.com"' % self.registry}), body
        return super()._registry(seen)


class LinuxServer(Profile):
    """A name in front of another registry, which wants its own token."""

    registry, cdn = "lscr.io", "pkg-containers.githubusercontent.com"
    names = ("linuxserver/app", "linuxserver/other")
    elsewhere = True

    def set_up(self):
        self.api = "ghcr.io"
        self.answers["ghcr.io"] = self._registry
        self.answers["lscr.io"] = self._front
        self.bearer("https://ghcr.io/token", "ghcr.io", life=None, fields=("token",))

    @staticmethod
    def _front(seen):
        return 307, {"Content-Type": "text/html", "Location": "https://ghcr.io" + seen.target}, b""


PROFILES = (DockerHub, Mcr, EcrPublic, Ghcr, Quay, Kubernetes, KubernetesWithTokens, GoogleArtifactRegistry, AzureContainerRegistry, GitLab,
            Nvcr, RedHat, EcrPrivate, LinuxServer)
