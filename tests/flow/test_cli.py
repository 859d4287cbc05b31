"""The commands that look at the configuration and change it: options, outputs, exit codes, and what happens to the file."""

import errno
import fcntl
import http.client
import json
import os
import re
import shutil
import struct
import subprocess
import threading

import pytest

from lib import secrets
from lib.images import Image
from lib.larder import binary, environment, run
from lib.ports import free_port

CONFIG = """\
# The head

store:
  path: /var/lib/larder   # not here
credential_sets:
  # The team's
  - name: hub
    login_server: docker.io
    username: env:HUB_USER
    password: env:HUB_PASSWORD
rules:
  # All of .NET
  - name: dotnet
    source: mcr.microsoft.com/dotnet/*   # \u00e9\u20ac
    target: dotnet/*

  - {name: hello, source: docker.io/library/hello-world, target: hello-world, credential_set: hub}
log: {level: info}
"""


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    return file


def on(config, *arguments, **more):
    return run(*arguments, "-f", str(config), **more)


def done(config, *arguments):
    """A command that has to succeed, and to say nothing on standard error."""
    r = on(config, *arguments)
    assert (r.returncode, r.stderr) == (0, ""), r
    return r.stdout


def refused(config, *arguments, code=1, env=None):
    """A command that has to be refused and to leave everything as it is: what it says."""
    before, files = config.read_bytes(), sorted(os.listdir(config.parent))
    r = on(config, *arguments, env=env)
    assert r.returncode == code and r.stdout == "" and r.stderr, r
    assert config.read_bytes() == before
    assert sorted(os.listdir(config.parent)) == files
    return r.stderr


def read(config):
    return json.loads(done(config, "cache", "list", "-o", "json"))


# ---- looking ----

def test_rules_in_four_formats(config):
    assert done(config, "cache", "list") == (
        "NAME    SOURCE                         TARGET       CREDENTIAL_SET\n"
        "dotnet  mcr.microsoft.com/dotnet/*     dotnet/*     -\n"
        "hello   docker.io/library/hello-world  hello-world  hub\n")
    assert done(config, "cache", "list", "-o", "tsv") == (
        "dotnet\tmcr.microsoft.com/dotnet/*\tdotnet/*\t\nhello\tdocker.io/library/hello-world\thello-world\thub\n")
    assert read(config) == [
        {"name": "dotnet", "source": "mcr.microsoft.com/dotnet/*", "target": "dotnet/*", "credential_set": None},
        {"name": "hello", "source": "docker.io/library/hello-world", "target": "hello-world", "credential_set": "hub"}]
    assert done(config, "cache", "list", "-o", "yaml") == (
        "- name: dotnet\n  source: mcr.microsoft.com/dotnet/*\n  target: dotnet/*\n  credential_set: null\n"
        "- name: hello\n  source: docker.io/library/hello-world\n  target: hello-world\n  credential_set: hub\n")


def test_one_rule_in_four_formats(config):
    show = ("cache", "show", "--name", "hello", "--output")
    assert done(config, *show, "table").splitlines()[1].split() == ["hello", "docker.io/library/hello-world", "hello-world", "hub"]
    assert done(config, *show, "tsv") == "hello\tdocker.io/library/hello-world\thello-world\thub\n"
    assert json.loads(done(config, *show, "json")) == read(config)[1]
    assert done(config, *show, "yaml") == "name: hello\nsource: docker.io/library/hello-world\ntarget: hello-world\ncredential_set: hub\n"


def test_credential_sets_show_references_and_no_secret(config, monkeypatch):
    monkeypatch.setenv("HUB_PASSWORD", secrets.secret("hub"))
    whole = {"name": "hub", "login_server": "docker.io", "username": "env:HUB_USER", "password": "env:HUB_PASSWORD",
             "health": None, "health_reason": None}  # no server runs
    assert json.loads(done(config, "credential-set", "list", "-o", "json")) == [whole]
    assert json.loads(done(config, "credential-set", "show", "-n", "hub", "-o", "json")) == whole
    assert done(config, "credential-set", "list", "-o", "tsv") == "hub\tdocker.io\tenv:HUB_USER\tenv:HUB_PASSWORD\t\t\n"


def test_nothing_to_list(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("rules:\n")
    for what, keys in (("cache", "NAME  SOURCE  TARGET  CREDENTIAL_SET"), ("credential-set", "NAME  LOGIN_SERVER  USERNAME  PASSWORD  HEALTH  HEALTH_REASON")):
        assert done(file, what, "list") == keys + "\n"
        assert done(file, what, "list", "-o", "json") == "[]\n"
        assert done(file, what, "list", "-o", "yaml") == "[]\n"
        assert done(file, what, "list", "-o", "tsv") == ""


EXPLAIN = [  # image, and rule, how it is matched, registry, repository, reference, endpoints, credential set
    ("dotnet/sdk:8.0", "dotnet", "target", "mcr.microsoft.com", "dotnet/sdk", "8.0", ["https://mcr.microsoft.com"], None),
    ("cache.example:5000/dotnet/sdk/x", "dotnet", "target", "mcr.microsoft.com", "dotnet/sdk/x", "latest", ["https://mcr.microsoft.com"], None),
    ("docker://localhost/dotnet/sdk:8.0@sha256:" + 64 * "0", "dotnet", "target", "mcr.microsoft.com", "dotnet/sdk", "sha256:" + 64 * "0", ["https://mcr.microsoft.com"], None),
    ("mcr.microsoft.com/dotnet/sdk:8.0", "dotnet", "source", "mcr.microsoft.com", "dotnet/sdk", "8.0", ["https://mcr.microsoft.com"], None),
    ("127.0.0.1:5000/hello-world", "hello", "target", "docker.io", "library/hello-world", "latest", ["https://registry-1.docker.io"], "hub"),
    ("docker.io/hello-world:a", "hello", "source", "docker.io", "library/hello-world", "a", ["https://registry-1.docker.io"], "hub"),
    ("library/hello-world", "hello", "source", "docker.io", "library/hello-world", "latest", ["https://registry-1.docker.io"], "hub"),
]


@pytest.mark.parametrize("case", EXPLAIN, ids=[c[0] for c in EXPLAIN])
def test_explain(config, case):
    config.write_text(CONFIG + 'admin: {address: "127.0.0.1:%d"}\n' % free_port())  # whatever else runs on this machine
    keys = ("image", "rule", "matched_by", "registry", "repository", "reference", "endpoints", "credential_set")
    live = {key: None for key in ("digest", "stored", "checked", "next")}  # no server runs
    assert json.loads(done(config, "explain", case[0], "-o", "json")) == dict(zip(keys, case), **live)


def test_explain_with_several_endpoints_and_without_mirror(config):
    config.write_text(CONFIG + "upstreams:\n- registry: mcr.microsoft.com\n  endpoints: ['https://m1.test/x', 'http://m2.test:81']\n"
                      "mirror: {enabled: false}\n")
    assert done(config, "explain", "dotnet/a", "-o", "tsv") == (
        "dotnet/a\tdotnet\ttarget\tmcr.microsoft.com\tdotnet/a\tlatest\thttps://m1.test/x,http://m2.test:81\t\t\t\t\t\n")
    assert "endpoints:\n  - https://m1.test/x\n  - http://m2.test:81\n" in done(config, "explain", "dotnet/a", "-o", "yaml")
    assert "no rule is for 'library/hello-world'" in refused(config, "explain", "docker.io/library/hello-world")


@pytest.mark.parametrize("image", ["unknown", "dotnet", "quay.io/unknown:1"])
def test_explain_an_image_without_rule(config, image):
    assert "no rule is for" in refused(config, "explain", image)


@pytest.mark.parametrize("image", ["", "UPPER", "a b", "a:", "a@", ":x", "a//b", "a:-b", "a@sha256:00", "a..b/c"])
def test_explain_what_is_no_image(config, image):
    assert "is no image" in refused(config, "explain", image, code=2)


# ---- changing ----

def test_a_rule_from_its_making_to_its_end(config):
    assert json.loads(done(config, "cache", "create", "-n", "new", "-s", "quay.io/*", "-t", "quay/*", "-o", "json")) == {
        "name": "new", "source": "quay.io/*", "target": "quay/*", "credential_set": None}
    text = CONFIG.replace("log:", "\n  - {name: new, source: quay.io/*, target: quay/*}\nlog:")
    assert config.read_text() == text
    assert done(config, "cache", "update", "-n", "hello", "--remove-cred-set", "-o", "tsv").endswith("\thello-world\t\n")
    text = text.replace(", credential_set: hub", "")
    assert config.read_text() == text
    assert done(config, "cache", "update", "--name=hello", "--cred-set", "hub", "-o", "tsv").endswith("\thello-world\thub\n")
    assert config.read_text() == text.replace("target: hello-world", "target: hello-world, credential_set: hub")
    assert done(config, "cache", "delete", "-n", "new", "--yes") == ""
    assert config.read_text() == CONFIG


def test_a_credential_set_from_its_making_to_its_end(config):
    created = done(config, "credential-set", "create", "-n", "gh", "-l", "ghcr.io", "-u", "env:GH", "-p", "file:/run/secrets/gh", "-o", "yaml")
    assert created == "name: gh\nlogin_server: ghcr.io\nusername: env:GH\npassword: file:/run/secrets/gh\nhealth: null\nhealth_reason: null\n"
    done(config, "cache", "create", "-nx", "-sghcr.io/x", "-tx", "-cgh")
    assert "rule 'x' uses the credential set 'gh'" in refused(config, "credential-set", "delete", "-n", "gh")
    assert json.loads(done(config, "credential-set", "update", "-n", "gh", "-p", "env:P", "-u", "env:U", "-o", "json")) == {
        "name": "gh", "login_server": "ghcr.io", "username": "env:U", "password": "env:P", "health": None, "health_reason": None}
    done(config, "cache", "update", "-n", "x", "--remove-cred-set")
    done(config, "cache", "delete", "-n", "x")
    done(config, "credential-set", "delete", "-y", "-n", "gh")
    assert config.read_text() == CONFIG


def test_a_star_alone_is_quoted_in_the_file(config):
    done(config, "cache", "delete", "-n", "dotnet")
    done(config, "cache", "delete", "-n", "hello")
    done(config, "cache", "create", "-n", "all", "-s", "docker.io/*", "-t", "*", "-c", "hub")
    assert 'target: "*"' in config.read_text()
    assert json.loads(done(config, "explain", "nginx", "-o", "json"))["repository"] == "library/nginx"


def test_a_change_that_changes_nothing_leaves_the_file_alone(config):
    before = os.stat(config)
    done(config, "cache", "update", "-n", "hello", "-c", "hub")
    done(config, "cache", "update", "-n", "dotnet", "--remove-cred-set")
    after = os.stat(config)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


REFUSED = {
    "an overlapping wildcard": (("cache", "create", "-n", "x", "-s", "quay.io/*", "-t", "dotnet/x/*"), "overlaps"),
    "a target that is taken": (("cache", "create", "-n", "x", "-s", "quay.io/x", "-t", "hello-world"), "'hello'"),
    "a name that is taken": (("cache", "create", "-n", "hello", "-s", "quay.io/x", "-t", "x"), "there is a rule 'hello' already"),
    "a source without registry": (("cache", "create", "-n", "x", "-s", "nginx", "-t", "x"), "docker.io/library/nginx"),
    "a bad name": (("cache", "create", "-n", "a b", "-s", "quay.io/x", "-t", "x"), "a b"),
    "a name with a line break": (("cache", "create", "-n", "a\nb: c", "-s", "quay.io/x", "-t", "x"), "line break"),
    "an unknown credential set": (("cache", "update", "-n", "dotnet", "-c", "nope"), "nope"),
    "an unknown rule": (("cache", "delete", "-n", "hallo"), "did you mean 'hello'?"),
    "an unknown rule to show": (("cache", "show", "-n", "nope"), "no rule has the name 'nope'"),
    "an unknown set": (("credential-set", "update", "-n", "nope", "-u", "env:X"), "no credential set has the name 'nope'"),
    "an unknown set to show": (("credential-set", "show", "-n", "nope"), "no credential set has the name 'nope'"),
    "bytes that are no text": (("cache", "create", "-n", "x", "-s", "quay.io/x", "-t", os.fsdecode(b"\xff")), "cannot be edited"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(config, case):
    told = refused(config, *case[0])
    assert case[1] in told and str(config) in told


@pytest.mark.parametrize("command", [("create", "-l", "ghcr.io", "-u", "env:U"), ("update",)])
def test_a_password_itself_is_refused_and_told_nowhere(config, command):
    name = "hub" if command[0] == "update" else "new"
    told = refused(config, "credential-set", *command, "-n", name, "-p", secrets.secret("plain"))
    assert "env:" in told and "file:" in told, "it says what to write instead"


def test_a_place_in_what_was_not_written_is_told_as_such(config):
    said = refused(config, "cache", "create", "-n", "again", "-s", "quay.io/*", "-t", "dotnet/x/*")
    assert re.search(r":\d+:\d+: .*overlaps 'dotnet/\*'", said) and "counted with the change in it" in said


def test_a_file_that_is_wrong_can_be_made_right(config):
    config.write_text(CONFIG.replace("source: docker.io/library/hello-world", "source: nginx"))
    assert "docker.io/library/nginx" in refused(config, "cache", "update", "-n", "dotnet", "-c", "hub")
    done(config, "cache", "delete", "-n", "hello")
    assert run("check", "-f", str(config)).returncode == 0


@pytest.mark.parametrize("text,word", [("rules: [", "not valid YAML"), ("- a\n", "mapping"), ("a: &x b\n", "anchors"), ("---\na: 1\n---\n", "second document")])
def test_a_file_that_is_no_configuration_is_refused(config, text, word):
    config.write_text(text)
    told = refused(config, "cache", "create", "-n", "x", "-s", "quay.io/x", "-t", "x")
    assert word in told and re.match(re.escape(str(config)) + r":\d+:\d+: ", told)


def test_the_example_is_as_before_when_a_change_is_taken_back(config):
    example = os.path.join(os.path.dirname(__file__), "..", "..", "examples", "config.yaml")
    shutil.copyfile(example, config)
    before = config.read_text()
    done(config, "cache", "create", "-n", "new", "-s", "registry.test/new", "-t", "new")
    assert config.read_text() != before and len(read(config)) > 2
    done(config, "cache", "delete", "-n", "new")
    assert config.read_text() == before


def test_a_file_of_ten_thousand_rules(config):
    config.write_text("rules:\n" + "".join("- name: r%d\n  source: quay.io/r%d # %d\n  target: t%d\n" % (i, i, i, i) for i in range(10000)))
    before = config.read_text()
    done(config, "cache", "create", "-n", "new", "-s", "ghcr.io/*", "-t", "new/*")
    done(config, "cache", "delete", "-n", "r5000")
    done(config, "cache", "delete", "-n", "new")
    assert config.read_text() == before.replace("- name: r5000\n  source: quay.io/r5000 # 5000\n  target: t5000\n", "")


# ---- the command line ----

WRONG = [
    ((), "a command is missing"), (("cache",), "what to do is missing behind cache"), (("cache", "make"), "unknown command cache make"),
    (("bake",), "unknown command bake"), (("cache", "list", "extra"), "unexpected argument extra"), (("a", "b", "c", "d", "e"), "unknown command a"),
    (("cache", "create", "-n", "x", "-s", "y"), "needs -t TARGET"), (("cache", "create", "-n"), "NAME is missing"),
    (("cache", "update", "-n", "x"), "needs -c CREDENTIAL_SET or --remove-cred-set"),
    (("cache", "update", "-n", "x", "-c", "y", "--remove-cred-set"), "not both"),
    (("credential-set", "update", "-n", "x"), "needs -u SECRET_REF or -p SECRET_REF"),
    (("cache", "list", "-s", "x"), "--source does not belong to cache list"), (("cache", "list", "-x"), "unknown option -x"),
    (("cache", "list", "--outptu", "json"), "unknown option --outptu"), (("cache", "list", "-o", "xml"), "table|json|yaml|tsv"),
    (("cache", "show", "-n", "a", "-n", "b"), "--name is given twice"), (("cache", "delete", "-n", "a", "--yes=1"), "has no value"),
    (("serve", "--schema"), "--schema does not belong to serve"), (("completion",), "needs bash|zsh"), (("completion", "fish"), "bash|zsh"),
    (("man", "five"), "config"), (("explain",), "needs IMAGE"), (("cache", "--version=3"), "has no value"), (("help", "bake"), "unknown command bake"),
]


@pytest.mark.parametrize("arguments,word", WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_wrong_usage_is_two(arguments, word):
    r = run(*arguments)
    assert r.returncode == 2 and r.stdout == "", r
    assert word in r.stderr and re.search(r"^try: larder .*--help$", r.stderr, re.M)


def commands():
    """From the help: every command with its argument."""
    text = run("--help").stdout
    return re.findall(r"^  ((?:cache|credential-set) \w+|[a-z]+)(?: \S+)?  +\S", text, re.M)


def test_every_command_has_help():
    assert len(commands()) >= 15
    for command in commands():
        for line in ((*command.split(), "--help"), ("help", *command.split()), ("-h", *command.split())):
            r = run(*line)
            assert r.returncode == 0 and r.stderr == "" and r.stdout.startswith("larder %s: " % command), r
    for group in ("cache", "credential-set"):
        assert run(group, "--help").stdout.count("  %s " % group) >= 5


def test_several_arguments_are_told():
    assert run("warm", "--help").stdout.splitlines()[2].startswith("usage: larder warm IMAGE... [-f FILE]")
    assert re.search(r"^  warm IMAGE\.\.\. ", run("--help").stdout, re.M)
    assert "\n\\fBwarm\\fR \\fIIMAGE\\fR... [" in run("man").stdout


def test_options_stand_anywhere(config):
    expected = done(config, "cache", "show", "-n", "hello", "-o", "json")
    for line in (("-f", str(config), "cache", "-ojson", "show", "--name=hello"), ("--config=" + str(config), "-n", "hello", "cache", "show", "--output", "json"),
                 ("cache", "show", "-f" + str(config), "-n", "hello", "-ojson")):
        assert run(*line).stdout == expected
    assert run("cache", "list", env={"LARDER_CONFIG": str(config)}).stdout == done(config, "cache", "list")
    assert json.loads(run("explain", "-ojson", "-f", str(config), "--", "hello-world").stdout)["rule"] == "hello"


def test_output_that_cannot_be_written_is_a_failure(config):
    with open("/dev/full", "w") as full:
        r = subprocess.run([binary(), "cache", "list", "-f", str(config)], stdout=full, stderr=subprocess.PIPE, text=True, env=environment())
    assert r.returncode == 1 and "cannot write" in r.stderr


# ---- --dry-run ----

def lines_of(text):
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def patched(text, diff):
    """`text` with a unified diff applied. Every line of context has to be there."""
    lines, out, at = lines_of(text), [], 0
    for hunk in re.split(r"^(?=@@ )", diff, flags=re.M)[1:]:
        head, *body = lines_of(hunk)
        start, count = re.match(r"@@ -(\d+)(?:,(\d+))? ", head).groups()
        start = int(start) - (count != "0")
        out += lines[at:start]
        at = start
        for i, line in enumerate(body):
            if line[0] == "\\":
                continue
            content = line[1:-1] if i + 1 < len(body) and body[i + 1][0] == "\\" else line[1:]
            if line[0] in " -":
                assert lines[at] == content, (lines[at], content)
                at += 1
            if line[0] in " +":
                out.append(content)
    return "".join(out + lines[at:])


@pytest.mark.parametrize("text", ids=["plain", "no newline", "crlf", "brackets"], argvalues=[CONFIG, CONFIG[:-1], CONFIG.replace("\n", "\r\n"), "rules: [{name: hello, source: quay.io/a, target: b},\n {name: x, source: quay.io/x, target: x}]"])
@pytest.mark.parametrize("change", ids=lambda c: " ".join(c[:2]), argvalues=[("cache", "create", "-n", "new", "-s", "quay.io/*", "-t", "quay/*"), ("cache", "delete", "-n", "hello"),
                                    ("credential-set", "create", "-n", "gh", "-l", "ghcr.io", "-u", "env:U", "-p", "env:P")])
def test_a_dry_run_prints_what_would_change_and_changes_nothing(tmp_path, text, change):
    file = tmp_path / "c.yaml"
    file.write_bytes(text.encode())
    os.chmod(tmp_path, 0o555)
    r = subprocess.run([binary(), *change, "--dry-run", "-f", str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    os.chmod(tmp_path, 0o755)
    diff = r.stdout.decode()
    assert (r.returncode, r.stderr) == (0, b"")
    assert diff.startswith("--- %s\n+++ %s\n@@ " % (file, file))
    assert file.read_bytes() == text.encode() and os.listdir(tmp_path) == ["c.yaml"]
    done(file, *change)
    assert patched(text, diff) == file.read_bytes().decode()


def test_a_dry_run_without_a_change_prints_nothing(config):
    assert done(config, "cache", "update", "-n", "hello", "-c", "hub", "--dry-run") == ""


def test_a_dry_run_of_what_is_refused_is_refused(config):
    refused(config, "cache", "create", "-n", "x", "-s", "quay.io/*", "-t", "dotnet/x/*", "--dry-run")


# ---- the file ----

def test_a_symbolic_link_stays_and_its_target_is_changed(config, tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "one").symlink_to("../config.yaml")
    link = tmp_path / "link.yaml"
    link.symlink_to("etc/one")
    done(link, "cache", "delete", "-n", "dotnet")
    assert link.is_symlink() and (tmp_path / "etc" / "one").is_symlink() and not config.is_symlink()
    assert [r["name"] for r in read(config)] == ["hello"]
    assert sorted(os.listdir(tmp_path)) == ["config.yaml", "etc", "link.yaml"] and os.listdir(tmp_path / "etc") == ["one"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444])
def test_owner_and_mode_stay(config, mode):
    if os.geteuid() == 0:
        os.chown(config, 1234, 2345)
    os.chmod(config, mode)
    before = os.stat(config)
    done(config, "cache", "delete", "-n", "dotnet")
    after = os.stat(config)
    assert after.st_ino != before.st_ino, "it is a new file"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def access_list(*named):
    """As the kernel has it: a version, then kind, permissions and id. Owner rw, group r, others nothing, and who is named."""
    entries = [(1, 6, -1), *((2, permissions, uid) for uid, permissions in named), (4, 4, -1), (16, 6, -1), (32, 0, -1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


def test_access_list_and_attributes_stay(config):
    try:
        os.setxattr(config, "system.posix_acl_access", access_list((4321, 4)))
        os.setxattr(config, "user.note", b"mine")
    except OSError as e:
        pytest.skip("this file system: %s" % e)
    before = os.stat(config).st_mode
    done(config, "cache", "delete", "-n", "dotnet")
    assert os.getxattr(config, "system.posix_acl_access") == access_list((4321, 4)) and os.stat(config).st_mode == before
    assert os.getxattr(config, "user.note") == b"mine"


def test_what_a_folder_grants_to_new_files_is_not_added(config):
    os.chmod(config, 0o640)
    try:
        os.setxattr(config.parent, "system.posix_acl_default", access_list((4321, 6)))
    except OSError as e:
        pytest.skip("this file system: %s" % e)
    done(config, "cache", "delete", "-n", "dotnet")
    assert "system.posix_acl_access" not in os.listxattr(config) and os.stat(config).st_mode & 0o777 == 0o640


def test_a_file_that_is_not_there(tmp_path):
    r = run("cache", "create", "-n", "x", "-s", "quay.io/x", "-t", "x", "-f", str(tmp_path / "none.yaml"))
    assert r.returncode == 1 and "No such file" in r.stderr and "make an empty one first" in r.stderr and os.listdir(tmp_path) == []


def test_an_empty_file_gets_its_first_rule(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("")
    assert "it is empty" in refused(file, "cache", "list")
    done(file, "cache", "create", "-n", "x", "-s", "quay.io/x", "-t", "x")
    assert done(file, "cache", "list", "-o", "tsv") == "x\tquay.io/x\tx\t\n"


def test_a_folder_is_no_file(tmp_path):
    r = run("cache", "create", "-n", "x", "-s", "quay.io/x", "-t", "x", "-f", str(tmp_path))
    assert r.returncode == 1 and "not a regular file" in r.stderr
    assert os.listdir(tmp_path.parent).count(tmp_path.name + ".lock") == 0


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    r = run("cache", "create", "-n", "x", "-s", "quay.io/x", "-t", "x", "-f", str(tmp_path / "pipe"))
    assert r.returncode == 1 and "not a regular file" in r.stderr


def test_a_volume_of_kubernetes_is_changed_elsewhere(tmp_path):
    """A ConfigMap in a pod: config.yaml -> ..data/config.yaml, ..data -> ..2026_01_01_00_00_00.123."""
    folder = tmp_path / "..2026_01_01_00_00_00.123"
    folder.mkdir()
    (folder / "config.yaml").write_text(CONFIG)
    (tmp_path / "..data").symlink_to(folder.name)
    file = tmp_path / "config.yaml"
    file.symlink_to("..data/config.yaml")
    assert "kubectl edit configmap" in refused(file, "cache", "delete", "-n", "hello")
    assert len(read(file)) == 2, "looking is allowed"


@pytest.mark.parametrize("error,word", [(errno.EROFS, "ConfigMap"), (errno.EACCES, "as the owner"), (errno.ENOSPC, "No space left")])
def test_a_place_that_cannot_be_written(config, faults, error, word):
    faults.cannot_create(error)
    assert word in refused(config, "cache", "delete", "-n", "hello")


def test_a_change_by_somebody_else_in_between_is_not_lost(config, faults):
    faults.hold("fsync")
    larder = subprocess.Popen([binary(), "cache", "delete", "-n", "hello", "-f", str(config)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, env=environment())
    faults.wait_held("fsync")
    theirs = CONFIG.replace("level: info", "level: warn")
    config.write_text(theirs)
    faults.release("fsync")
    out, told = larder.communicate(timeout=60)
    assert larder.returncode == 1 and out == "" and "somebody else has changed the file" in told
    assert config.read_text() == theirs and [f for f in os.listdir(config.parent) if "larder-" in f or "lock" in f] == []
    done(config, "cache", "delete", "-n", "hello")
    assert "level: warn" in config.read_text() and len(read(config)) == 1


# ---- the lock ----

def test_two_at_once_lose_nothing(config):
    failures = []

    def create(who):
        for i in range(200):
            r = on(config, "cache", "create", "-n", "%s-%d" % (who, i), "-s", "quay.io/%s/r%d" % (who, i), "-t", "%s/r%d" % (who, i))
            if r.returncode != 0:
                failures.append(r.stderr)

    threads = [threading.Thread(target=create, args=(who,)) for who in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {r["name"] for r in read(config)} == {"dotnet", "hello"} | {"%s-%d" % (who, i) for who in "ab" for i in range(200)}
    assert os.listdir(config.parent) == ["config.yaml"], "nothing is left behind"
    assert "# The head" in config.read_text() and config.read_text().count("All of .NET") == 1


def test_a_lock_that_is_held_names_its_holder(config):
    with open(str(config) + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711\n")
        lock.flush()
        told = refused(config, "cache", "delete", "-n", "hello")
    assert "process 4711" in told and str(config) + ".lock" in told
    done(config, "cache", "delete", "-n", "hello")


def test_a_lock_file_that_was_left_behind_is_no_lock(config):
    with open(str(config) + ".lock", "w") as lock:
        lock.write("4711\n")
    done(config, "cache", "delete", "-n", "hello")
    assert os.listdir(config.parent) == ["config.yaml"]


def killed_while_it_changes(config, faults):
    faults.hold("fsync")
    larder = subprocess.Popen([binary(), "cache", "delete", "-n", "hello", "-f", str(config)], env=environment())
    faults.wait_held("fsync")
    larder.kill()
    larder.wait()
    faults.release("fsync")
    return str(config) + ".lock"


def test_a_lock_that_root_leaves_is_that_of_the_file_s_owner(config, faults):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    os.chown(config, 1234, 2345)
    st = os.stat(killed_while_it_changes(config, faults))
    assert (st.st_uid, st.st_gid, st.st_mode & 0o777) == (1234, 2345, 0o600)
    done(config, "cache", "delete", "-n", "hello")


def test_a_lock_of_somebody_else_is_named(config, faults):
    lock = killed_while_it_changes(config, faults)
    faults.cannot_create(errno.EACCES)
    told = refused(config, "cache", "delete", "-n", "hello")
    assert lock + ": cannot open it: " in told and "remove this file" in told


# ---- completion and manual ----

def complete(config, *words):
    """What bash offers for the last word."""
    script = 'eval "$(%s completion bash)"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _larder; printf "%%s\\n" "${COMPREPLY[@]}"' % binary()
    r = subprocess.run(["bash", "--norc", "-c", script, "bash", binary(), *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, text=True, env=environment({"LARDER_CONFIG": str(config)}))
    assert r.returncode == 0 and r.stderr == "", r
    return r.stdout.split()


def test_bash_completes(config, tmp_path):
    assert set(complete(config, "")) == {c.split()[0] for c in commands()}
    assert complete(config, "cache", "") == ["create", "show", "list", "update", "delete"]
    assert complete(config, "cre") == ["credential-set"]
    assert complete(config, "cache", "show", "-n", "") == ["dotnet", "hello"]
    assert complete(config, "-o", "json", "cache", "delete", "--name", "h") == ["hello"]
    assert complete(config, "cache", "create", "-n", "") == [], "a new name"
    assert complete(config, "cache", "update", "-n", "hello", "--cred-set", "") == ["hub"]
    assert complete(config, "credential-set", "update", "-n", "") == ["hub"]
    assert complete(config, "cache", "list", "-o", "") == ["table", "json", "yaml", "tsv"]
    assert complete(config, "completion", "") == ["bash", "zsh"]
    assert complete(config, "purge", "--rule", "") == ["dotnet", "hello"]
    assert complete(config, "du", "--by", "r") == ["rule", "repository"]
    assert complete(config, "warm", "t/a:b", "t/c:d", "--pl") == complete(config, "warm", "--pl") == ["--platform"], "behind several arguments, too"
    other = tmp_path / "other.yaml"
    other.write_text("rules: [{name: only, source: quay.io/x, target: x}]\n")
    assert complete(config, "-f", str(other), "cache", "show", "-n", "") == ["only"]
    for command in commands():
        offered = set(complete(config, *command.split(), "-"))
        told = set(re.findall(r"^  (?:(-\w), )?(--[\w-]+)", run(*command.split(), "--help").stdout, re.M))
        assert offered == {option for both in told for option in both if option}, command


def test_zsh_has_the_same_table():
    text = run("completion", "zsh").stdout
    assert text.startswith("#compdef larder\n")
    for command in commands():
        options = re.search(r"^ +'%s'\*\) options=\((.*)\); _describe" % re.escape(command), text, re.M)[1]
        told = re.findall(r"^  (?:-\w, )?(--[\w-]+)", run(*command.split(), "--help").stdout, re.M)
        assert re.findall(r"(?:^| )'(--[\w-]+):", options) == told
    assert re.search(r"'cache'\) next=\( 'create:[^)]*'delete:", text)


ROFF = re.compile(r"\.(TH|SH|SS|TP|PP|B|BR|br|nf|fi)( .*)?$")


@pytest.mark.parametrize("arguments,title", [((), ".TH LARDER 1 "), (("config",), ".TH LARDER\\-CONFIG 5 ")])
def test_the_manual_is_good_roff(tmp_path, arguments, title):
    text = run("man", *arguments).stdout
    assert text.startswith(title)
    sections = re.findall(r"^\.SH \"?(.*?)\"?$", text, re.M)
    assert sections[:1] == ["NAME"] and sections[-1] == "SEE ALSO" and "DESCRIPTION" in sections
    for line in text.splitlines():
        assert line and (line[0] not in ".'" or ROFF.match(line)), line
        assert not re.search(r"\\(?![-e&]|\(aq|\(dq|f[BIR])", line), line
        assert line.count("\\fB") + line.count("\\fI") == line.count("\\fR"), line
    if shutil.which("groff"):
        file = tmp_path / "page"
        file.write_text(text)
        r = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", str(file)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert r.returncode == 0 and r.stdout == "", r.stdout


def test_the_manual_has_everything():
    text = run("man").stdout.replace("\\-", "-").replace("\\fB", "").replace("\\fI", "").replace("\\fR", "")
    for command in commands():
        assert re.search(r"^\.TP\n%s( |$)" % re.escape(command), text, re.M), command
        for option in re.findall(r"--[\w-]+", run(*command.split(), "--help").stdout):
            assert re.search(r"^(-\w, )?(--[\w-]+, )?%s\b" % option, text, re.M), option
    keys = run("check", "--schema").stdout.splitlines()
    page = run("man", "config").stdout
    assert len(keys) > 30 and len(re.findall(r"^\.TP\n\\fB", page, re.M)) == len(keys)
    for key in keys:
        section, _, name = key.split()[0].rpartition(".")
        assert re.search(r"^\.SH \"%s\"\n(?:(?!\.SH).*\n)*?\.TP\n\\fB%s\\fR: " % (re.escape(section or "top level"), name), page, re.M), key


# ---- beside a running server ----

def test_explain_says_what_is_cached(upstream, larder):
    image = Image("explained")
    upstream.add("app", image, tag="v1")

    def explain(name):
        return json.loads(done(larder.file, "explain", name, "-o", "json"))

    before = explain("t/app:v1")
    assert (before["digest"], before["stored"], before["checked"]) == (None, "no", None)
    assert "the registry is asked for the manifest" in before["next"]
    larder.get("/v2/t/app/manifests/v1")
    after = explain("t/app:v1")
    assert (after["digest"], after["stored"]) == (image.digest, "yes")
    assert after["checked"].endswith("Z") and "the registry is not asked" in after["next"]
    by_digest = explain("t/app@" + image.digest)
    assert (by_digest["digest"], by_digest["stored"], by_digest["checked"]) == (image.digest, "yes", None)
    assert explain("t/other:v1")["digest"] is None


def test_health_of_credential_sets(upstream, start_larder):
    larder = start_larder(upstream, env={"CLI_USER": "u", "CLI_PASSWORD": secrets.secret("cli")},
                          credential_sets=[{"name": "good", "login_server": "up.test", "username": "env:CLI_USER", "password": "env:CLI_PASSWORD"},
                                           {"name": "bad", "login_server": "up.test", "username": "env:CLI_USER", "password": "env:CLI_NOT_SET"}],
                          rules=[{"name": "g", "source": "up.test/*", "target": "g/*", "credential_set": "good"},
                                 {"name": "b", "source": "up.test/x", "target": "b", "credential_set": "bad"}])
    listed = {s["name"]: s for s in json.loads(done(larder.file, "credential-set", "list", "-o", "json"))}
    assert (listed["good"]["health"], listed["good"]["health_reason"]) == ("healthy", None)
    assert listed["bad"]["health"] == "unhealthy" and "CLI_NOT_SET" in listed["bad"]["health_reason"]
    assert json.loads(done(larder.file, "credential-set", "show", "-n", "bad", "-o", "json")) == listed["bad"]


def test_the_admin_api_is_for_commands(larder):
    def ask(method, path, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", larder.admin_port, timeout=60)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    status, told = ask("GET", "/api/v1/status")
    assert status == 200 and told["workers"] == 2 and told["objects"] == 0
    for method, path, expected in (("GET", "/api/v1/nope", 404), ("POST", "/api/v1/status", 405), ("GET", "/api/v1/image", 400),
                                   ("GET", "/api/v1/image?repository=t/x", 400), ("GET", "/api/v1/image?repository=../x&reference=a", 400),
                                   ("GET", "/api/v1/image?repository=t/x&reference=%zz", 400),
                                   ("GET", "/api/v1/image?repository=nope/x&reference=a", 404),
                                   ("GET", "/api/v1/image?" + "x" * 5000, 414)):
        status, told = ask(method, path)
        assert status == expected and list(told) == ["error"], (method, path, status, told)
    for host, expected in (("page.test:%d" % larder.admin_port, 403), ("localhost:%d" % larder.admin_port, 200)):
        status, told = ask("GET", "/api/v1/status", Host=host)
        assert status == expected and ("error" in told) == (expected != 200), "a page's name may have been made to lead here"


def test_the_example_has_every_key():
    """Each key of the schema stands in examples/config.yaml, in force or in a comment."""
    example = os.path.join(os.path.dirname(__file__), "..", "..", "examples", "config.yaml")
    with open(example) as file:
        text = file.read()
    schema = run("check", "--schema").stdout
    keys = [line.split()[0].rpartition(".")[2] for line in schema.splitlines() if line.strip()]
    assert len(keys) > 40
    assert [key for key in keys if not re.search(r"(^|[ #{,])%s:" % re.escape(key), text, re.M)] == []
