"""A scripted registry by plain HTTP that wants tokens, or a user and a password.

    up = TokenRegistry()                              # anonymous tokens from its own /token
    up = TokenRegistry(accounts={"user": password})   # these as well
    up = TokenRegistry(basic=("user", password))      # no tokens: Basic
    up = TokenRegistry(realm=other.url + "/token", server=other)     # tokens come from another one

`up.server` is the TokenServer (lib/profiles.py); what it was asked is in up.server.asked. Requests for content are looked at by
up.contents(), those for tokens by up.token_requests()."""

import base64
import re

from .ports import free_port
from .profiles import PATH, TokenServer
from .upstream import Upstream, oci_error


class TokenRegistry(Upstream):
    def __init__(self, realm=None, service="registry.test", server=None, basic=None, accounts=None, port=None, **how):
        port = port or free_port()
        own = "http://127.0.0.1:%d/token" % port
        self.server = server.server if isinstance(server, TokenRegistry) else TokenServer(realm or own, service, **how)
        self.server.accounts.update(accounts or {})
        self.realm, self.service, self.basic = realm or own, service, basic
        self.challenges = None      # function of (seen, scope): values of WWW-Authenticate instead of the usual one
        self.scopes = lambda match: "repository:%s:pull" % match[1]
        self.allowed = None         # function of (seen, scope): instead of a look at the token
        super().__init__(port=port)

    def contents(self, method=None, path=None):
        return [s for s in self.requests(method, path) if s.path != "/token"]

    def token_requests(self):
        return self.requests(path="/token")

    def refused(self):
        return [s for s in self.contents() if s.status == 401]

    def _content(self, seen):
        if seen.path == "/token":
            return self.server.answer(seen)
        match = PATH.fullmatch(seen.path)
        scope = self.scopes(match) if match else None
        if self._may(seen, scope):
            return super()._content(seen)
        _, headers, body = oci_error(401, "UNAUTHORIZED")
        said = self.challenges(seen, scope) if self.challenges else self._usual(scope)
        return 401, dict(headers, **({"WWW-Authenticate": said} if said else {})), body

    def _may(self, seen, scope):
        if self.allowed:
            return self.allowed(seen, scope)
        if self.basic:
            return seen.headers.get("authorization") == "Basic " + base64.b64encode(":".join(self.basic).encode()).decode()
        return self.server.good(seen, scope)

    def _usual(self, scope):
        if self.basic:
            return 'Basic realm="%s"' % self.service
        said = {"realm": self.realm, "service": self.service, "scope": scope}
        return "Bearer " + ",".join('%s="%s"' % (k, v) for k, v in said.items() if v is not None)


def credentials(folder, password, name="account", login_server="up.test", username="someone"):
    """A credential set with the password in a file; the file is (folder)/(name)."""
    file = folder / name
    file.write_text(password + "\n")
    return {"name": name, "login_server": login_server, "username": username, "password": "file:%s" % file}


def rule(name="rule-t", source="up.test/*", target="t/*", credential_set=None):
    said = {"name": name, "source": source, "target": target}
    return dict(said, credential_set=credential_set) if credential_set else said


def scopes(requests):
    return [re.search(r"scope=([^&]*)", s.query or s.body.decode())[1].replace("%3A", ":").replace("%2F", "/") for s in requests]
