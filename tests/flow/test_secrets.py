"""Credential sets from end to end: every kind of reference gives the user and the password that the registry's token server wants, what changes
is used, and a set that is refused says so and heals. What no server needs is in tests/unit/proxy."""

import base64
import json
import os
import re
import signal
import stat

import pytest

from lib.images import KIB, Image
from lib.larder import run, wait_until, yaml_text
from lib.profiles import Profile
from lib.secrets import secret
from lib.tls import Tls
from lib.tokens import TokenRegistry, rule
from lib.upstream import Fault, Upstream, oci_error

USER = "someone"
HEALTHY = 'larder_credential_set_healthy{credential_set="account"}'
REFUSED = 'larder_credential_set_refused_total{credential_set="account"}'


class Corp(Profile):
    """Nothing without an account."""

    registry = "corp.test"
    account_only = True

    def set_up(self):
        self.bearer("https://corp.test/token", "corp.test", anonymous=False)

    @property
    def password(self):
        return self.account[1]

    def change_password(self):
        """A new one; the old one and its tokens are good for nothing."""
        self.account = (USER, secret("password"))
        self.token_server.accounts[USER] = self.password
        self.token_server.expire()


class Azure(Upstream):
    """A key vault and the token server of workload identities (by TLS), or the metadata service of a machine (plain)."""

    VAULT, LOGIN = "v.vault.azure.net", "login.microsoftonline.com"

    def __init__(self, root=None, values=None):
        self.values = values or {}
        self.assertion, self.token = secret("workload"), secret("vault-token")
        super().__init__(tls=Tls(root.issue(self.VAULT, names=[self.VAULT, self.LOGIN])) if root else None)

    def _content(self, seen):
        if seen.path == "/metadata/identity/oauth2/token":
            good = seen.headers.get("metadata") == "true" and "resource=https%3A%2F%2Fvault.azure.net" in seen.query
            return self._json({"access_token": self.token, "expires_in": "3599"}) if good else oci_error(400, "UNKNOWN")
        if seen.host == self.LOGIN:
            good = seen.path == "/the-tenant/oauth2/v2.0/token" and ("client_assertion=" + self.assertion).encode() in seen.body
            return self._json({"access_token": self.token, "expires_in": 3599}) if good else oci_error(401, "UNKNOWN")
        if seen.headers.get("authorization") != "Bearer " + self.token:
            return oci_error(401, "UNAUTHORIZED")
        name = re.fullmatch(r"/secrets/([a-z]+)", seen.path)
        return self._json({"value": self.values[name[1]]}) if name else oci_error(404, "UNKNOWN")

    @staticmethod
    def _json(document):
        return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()


@pytest.fixture
def corp(root):
    with Corp(root) as registry:
        registry.account = (USER, registry.password)
        registry.token_server.accounts = {USER: registry.password}
        for repo in ("app", "team/app"):
            registry.add(repo, Image(repo, layer_sizes=(20 * KIB,)), tag="v1")
        yield registry
        registry.check()


def config_of(corp, tmp_path, username, password):
    config = corp.config(folder=tmp_path)
    config["credential_sets"] = [{"name": "account", "login_server": "corp.test"}]
    if username:
        config["credential_sets"][0]["username"] = username
    config["credential_sets"][0]["password"] = password
    return config


def pulls(larder, repo="app"):
    return larder.get("/v2/r/%s/manifests/v1" % repo).status == 200


def helper(folder, name, text):
    path = folder / ("docker-credential-" + name)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


# ---- each kind ----

def test_environment(corp, start_larder, tmp_path):
    larder = start_larder(corp, env={"CORP_USER": USER, "CORP_PASSWORD": corp.password},
                          **config_of(corp, tmp_path, "env:CORP_USER", "env:CORP_PASSWORD"))
    assert pulls(larder)
    assert larder.metrics()[HEALTHY] == 1 and larder.metrics()[REFUSED] == 0


def test_file(corp, start_larder, tmp_path):
    (tmp_path / "pw").write_text(corp.password + "\r\n")
    larder = start_larder(corp, **config_of(corp, tmp_path, USER, "file:%s/pw" % tmp_path))
    assert pulls(larder)


@pytest.mark.parametrize("key", ["corp.test", "https://corp.test", "https://corp.test/v2/"])
def test_dockerconfig(corp, start_larder, tmp_path, key):
    auth = base64.b64encode(("%s:%s" % (USER, corp.password)).encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {key: {"auth": auth}}}))
    larder = start_larder(corp, **config_of(corp, tmp_path, None, "dockerconfig:%s/config.json" % tmp_path))
    assert pulls(larder)


def test_identity_token(corp, start_larder, tmp_path):
    token = secret("identity")
    corp.token_server.refresh[token] = USER
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"corp.test": {"identitytoken": token}}}))
    larder = start_larder(corp, **config_of(corp, tmp_path, None, "dockerconfig:%s/config.json" % tmp_path))
    assert pulls(larder)


def test_helper(corp, start_larder, tmp_path):
    answer = json.dumps({"ServerURL": "corp.test", "Username": USER, "Secret": corp.password})
    helper(tmp_path, "corp", "read server\n[ \"$server\" = corp.test ] && echo '%s'\n" % answer)
    larder = start_larder(corp, env={"PATH": "%s:%s" % (tmp_path, os.environ["PATH"])},
                          **config_of(corp, tmp_path, None, "exec:corp"))
    assert pulls(larder)


def test_helper_where_ends_of_children_are_ignored(corp, start_larder, tmp_path):
    """Whoever starts larder may hand down that nobody waits for children."""
    helper(tmp_path, "corp", "echo '%s'\n" % json.dumps({"Username": USER, "Secret": corp.password}))
    larder = start_larder(corp, run=False, env={"PATH": "%s:%s" % (tmp_path, os.environ["PATH"])},
                          **config_of(corp, tmp_path, None, "exec:corp"))
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        larder.start()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert pulls(larder)


def test_vault_by_workload_identity(corp, start_larder, tmp_path, root):
    with Azure(root, {"user": USER, "pw": corp.password}) as azure:
        (tmp_path / "token").write_text(azure.assertion)
        config = config_of(corp, tmp_path, "https://v.vault.azure.net/secrets/user", "https://v.vault.azure.net/secrets/pw")
        config["resolve"].update({azure.VAULT: "127.0.0.1:%d" % azure.port, azure.LOGIN: "127.0.0.1:%d" % azure.port})
        larder = start_larder(corp, env={"SSL_CERT_FILE": root.file, "AZURE_CLIENT_ID": "the-client", "AZURE_TENANT_ID": "the-tenant",
                                         "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token")}, **config)
        assert pulls(larder) and pulls(larder, "team/app")
        assert len(azure.requests("POST")) == 1 and len(azure.requests("GET")) == 2


def test_vault_by_managed_identity(corp, start_larder, tmp_path, root):
    with Azure(root, {"pw": corp.password}) as azure, Azure() as machine:
        machine.token = azure.token
        config = config_of(corp, tmp_path, USER, "https://v.vault.azure.net/secrets/pw")
        config["resolve"][azure.VAULT] = "127.0.0.1:%d" % azure.port
        larder = start_larder(corp, env={"SSL_CERT_FILE": root.file, "AZURE_POD_IDENTITY_AUTHORITY_HOST": machine.url}, **config)
        assert pulls(larder)


# ---- changes ----

def test_a_new_password_in_the_file_is_used(corp, start_larder, tmp_path):
    file = tmp_path / "pw"
    file.write_text(corp.password)
    larder = start_larder(corp, **config_of(corp, tmp_path, USER, "file:%s" % file))
    assert pulls(larder)
    corp.change_password()
    file.write_text(corp.password)
    wait_until(lambda: pulls(larder, "team/app"), "the new password is used")
    assert larder.metrics()[HEALTHY] == 1


def test_a_new_secret_in_the_vault_is_used_when_the_old_one_is_refused(corp, start_larder, tmp_path, root):
    with Azure(root, {"pw": corp.password}) as azure, Azure() as machine:
        machine.token = azure.token
        config = config_of(corp, tmp_path, USER, "https://v.vault.azure.net/secrets/pw")
        config["resolve"][azure.VAULT] = "127.0.0.1:%d" % azure.port
        larder = start_larder(corp, env={"SSL_CERT_FILE": root.file, "AZURE_POD_IDENTITY_AUTHORITY_HOST": machine.url}, **config)
        assert pulls(larder)
        corp.change_password()
        azure.values["pw"] = corp.password
        wait_until(lambda: pulls(larder, "team/app"), "the vault is asked again")


@pytest.mark.parametrize("how", ["emptied", "removed"])
def test_a_file_that_is_being_written(corp, start_larder, tmp_path, how):
    """What is read in between is no password, and the one before is still good."""
    file = tmp_path / "pw"
    file.write_text(corp.password)
    larder = start_larder(corp, **config_of(corp, tmp_path, USER, "file:%s" % file))
    assert pulls(larder)
    if how == "emptied":
        file.write_text("")
    else:
        file.unlink()
    names = ("/v2/r/app/manifests/none-%d" % n for n in range(10 ** 6))

    def noticed():
        assert larder.get(next(names)).status == 404
        return larder.logged(group="secrets", credential_set="account", msg="credential set not read again, going on with what it was")
    wait_until(noticed, "the log says it")
    assert pulls(larder, "team/app") and larder.metrics()[HEALTHY] == 1
    corp.change_password()
    file.write_text(corp.password)
    wait_until(lambda: larder.get(next(names)).status == 404, "the new password is used")


class Ecr:
    """Amazon ECR and its helper: whoever has a password that has ended is told so with a 403."""

    def __init__(self, folder):
        self.answer, self.runs = folder / "answer", folder / "runs"
        helper(folder, "ecr", "echo run >>'%s'\ncat '%s'\n" % (self.runs, self.answer))
        self.env = {"PATH": "%s:%s" % (folder, os.environ["PATH"])}
        self.up = TokenRegistry(basic=("AWS", secret("ecr")))
        self.up.on(self._ended, Fault(status=403, body=b'{"errors":[{"code":"DENIED","message":"Your Authorization Token has expired."}]}'))
        self.say(self.up.basic[1])

    def _ended(self, seen):
        said = "Basic " + base64.b64encode(("AWS:" + self.up.basic[1]).encode()).decode()
        return seen.headers.get("authorization", said) != said

    def say(self, password):
        """What the helper prints from now on."""
        self.answer.write_text(json.dumps({"ServerURL": "up.test", "Username": "AWS", "Secret": password}))

    def start(self, start_larder):
        sets = [{"name": "account", "login_server": "up.test", "password": "exec:ecr"}]
        return start_larder(self.up, env=self.env, credential_sets=sets, rules=[rule(target="r/*", credential_set="account")])

    def helper_runs(self):
        return len(self.runs.read_text().split())


def test_a_password_that_has_ended_by_403(start_larder, tmp_path):
    ecr = Ecr(tmp_path)
    with ecr.up as up:
        for repo in ("app", "other"):
            up.add(repo, Image(repo, (10,)), tag="v1")
        larder = ecr.start(start_larder)
        assert pulls(larder)
        up.basic = ("AWS", secret("ecr"))
        ecr.say(up.basic[1])
        assert pulls(larder, "other"), "the helper is asked again, and what it says now is tried"
        assert larder.metrics()[HEALTHY] == 1 and larder.metrics()[REFUSED] == 0


def test_what_is_forbidden_does_not_run_the_helper_each_time(start_larder, tmp_path):
    ecr = Ecr(tmp_path)
    with ecr.up as up:
        up.add("app", Image("app", (10,)), tag="v1")
        up.on(re.compile("/v2/forbidden/"), Fault(status=403), method="GET")
        larder = ecr.start(start_larder)
        assert pulls(larder)
        for n in range(20):
            assert larder.get("/v2/r/forbidden/manifests/v%d" % n).status == 403
        assert ecr.helper_runs() <= 4
        assert larder.metrics()[HEALTHY] == 1 and pulls(larder)


def test_a_wrong_password_is_not_hammered_and_heals(corp, start_larder, tmp_path):
    file = tmp_path / "pw"
    file.write_text(secret("wrong"))
    larder = start_larder(corp, **config_of(corp, tmp_path, USER, "file:%s" % file))
    wait_until(lambda: pulls(larder) or larder.metrics()[HEALTHY] == 0, "the set is unhealthy")
    refused = larder.metrics()[REFUSED]
    assert refused >= 3
    for i in range(50):
        assert larder.get("/v2/r/app/manifests/other-%d" % i).status == 403
    assert larder.metrics()[REFUSED] <= refused + 20  # a probe now and then
    assert larder.logged(group="secrets", credential_set="account", msg="credential set is refused, pausing with it")
    file.write_text(corp.password)
    wait_until(lambda: pulls(larder), "the right password is used")
    assert larder.metrics()[HEALTHY] == 1


def test_the_same_password_heals_when_the_server_takes_it(corp, start_larder, tmp_path):
    """An account that was locked for a while: nothing changes here, and the probe finds out."""
    (tmp_path / "pw").write_text(corp.password)
    corp.token_server.accounts = {}
    larder = start_larder(corp, **config_of(corp, tmp_path, USER, "file:%s/pw" % tmp_path))
    wait_until(lambda: not pulls(larder) and larder.metrics()[HEALTHY] == 0, "the set is unhealthy")
    corp.token_server.accounts = {USER: corp.password}
    wait_until(lambda: pulls(larder), "a probe finds the password good")
    assert larder.metrics()[HEALTHY] == 1


# ---- what cannot be read ----

def test_what_cannot_be_read_is_said_at_start(corp, start_larder, tmp_path):
    larder = start_larder(corp, **config_of(corp, tmp_path, USER, "file:%s/missing" % tmp_path))
    said = wait_until(lambda: larder.logged(group="secrets", credential_set="account"), "the log says it")
    assert said[0]["level"] == "warn" and "missing: No such file" in said[0]["why"]
    assert larder.metrics()[HEALTHY] == 0
    (tmp_path / "missing").write_text(corp.password)
    wait_until(lambda: pulls(larder), "the file is read")
    assert larder.metrics()[HEALTHY] == 1


def test_health_and_counters_outlive_a_reload(corp, start_larder, tmp_path):
    larder = start_larder(corp, **config_of(corp, tmp_path, USER, "file:%s/missing" % tmp_path))
    assert larder.metrics()[HEALTHY] == 0
    larder.config["rules"].append({"name": "more", "source": "other.test/*", "target": "o/*"})
    with open(larder.file, "w") as out:
        out.write(yaml_text(larder.config))
    wait_until(lambda: larder.metric("config_reloads_total") == 1, "the file is read again")
    assert larder.metrics()[HEALTHY] == 0


def test_check_warns(corp, tmp_path):
    file = tmp_path / "config.yaml"
    config = config_of(corp, tmp_path, "env:NOT_SET_ANYWHERE", "file:missing")
    file.write_text(yaml_text(config))
    done = run("check", "-f", str(file))
    assert done.returncode == 0
    assert re.search(r"warning: .*config.yaml:\d+:\d+: credential_sets\[\].username: NOT_SET_ANYWHERE", done.stderr)
    assert re.search(r"warning: .*config.yaml:\d+:\d+: credential_sets\[\].password: %s/missing: No such file" % tmp_path, done.stderr)
    assert len(re.findall("^warning: ", done.stderr, re.M)) == 2 and "cannot be read" not in done.stderr, "each is said once"


def test_check_warns_of_what_is_in_a_file(corp, tmp_path):
    file = tmp_path / "config.yaml"
    config = config_of(corp, tmp_path, None, "dockerconfig:pull.json")
    (tmp_path / "pull.json").write_text('{"auths": {}}')
    file.write_text(yaml_text(config))
    done = run("check", "-f", str(file))
    assert done.returncode == 0
    assert re.match(r"warning: %s:\d+:\d+: credential_sets\[\].password: %s/pull.json: it has no entry for .*\n" % (file, tmp_path), done.stderr)
