"""The program as an operator meets it: commands, messages, exit codes, start and end, health and metrics."""

import json
import os
import re
import signal
import socket
import subprocess

import pytest

from lib import paths
from lib.client import Conn, Fetch
from lib.images import KIB, MIB, Image, blob
from lib.larder import binary, run, wait_until
from lib.ports import free_port
from lib.upstream import Fault

APP = "t/app"

GOOD = """\
# A comment
listen:
  - address: 127.0.0.1:%d
admin:
  address: 127.0.0.1:%d
store:
  path: %s
upstreams:
  - registry: up.test
    endpoints: [http://127.0.0.1:1]
rules:
  - name: t
    source: up.test/*
    target: t/*
"""


@pytest.fixture
def good(tmp_path):
    """A config file's text with free ports."""
    return GOOD % (free_port(), free_port(), tmp_path / "store")


def check(tmp_path, text):
    file = tmp_path / "c.yaml"
    file.write_text(text) if isinstance(text, str) else file.write_bytes(text)
    return file, run("check", "-f", str(file))


# ---- commands ----

def test_version_and_help():
    r = run("--version")
    assert r.returncode == 0 and re.match(r"larder \d+\.\d+", r.stdout) and r.stderr == ""
    r = run("--help")
    assert r.returncode == 0 and "serve" in r.stdout and "check" in r.stdout and r.stderr == ""
    assert run("serve", "--help").returncode == 0


@pytest.mark.parametrize("arguments", [[], ["bake"], ["serve", "--frobnicate"], ["serve", "extra"], ["check", "-f"], ["-x"]])
def test_wrong_usage_says_what_is_right(arguments):
    r = run(*arguments)
    assert r.returncode not in (0, -signal.SIGSEGV, -signal.SIGABRT) and r.stdout == ""
    assert "larder" in r.stderr and ("--help" in r.stderr or "usage" in r.stderr.lower())


def test_a_good_file_is_good(tmp_path, good):
    _, r = check(tmp_path, good)
    assert r.returncode == 0, r.stderr
    assert not (tmp_path / "store").exists(), "a check changes nothing"


def test_the_file_from_the_environment(tmp_path, good):
    file, _ = check(tmp_path, good)
    assert run("check", env=dict(os.environ, LARDER_CONFIG=str(file))).returncode == 0
    r = run("check", env=dict(os.environ, LARDER_CONFIG=str(tmp_path / "none.yaml")))
    assert r.returncode == 1 and str(tmp_path / "none.yaml") in r.stderr


WRONG = {  # what is put in place of what, line, column or None, and a word of the message
    "unknown key": ("store:\n", "stor:\n", 6, 1, "stor"),
    "a hint": ("    source:", "    sorce:", 13, 5, "source"),
    "a wrong type": ("  path: ", "  path: [a, b] #", 7, 9, "path"),
    "a map for a list": ("rules:\n  - name", "rules:\n    name", None, None, "rules"),
    "a missing key": ("    target: t/*\n", "", 12, None, "target"),
    "a key twice": ("admin:\n", "store: {path: /x}\nadmin:\n", 7, None, "store"),
    "no port": ("127.0.0.1:1]", "127.0.0.1:x]", 10, None, "http://127.0.0.1:x"),
    "no scheme": ("http://127.0.0.1:1]", "127.0.0.1:1]", 10, None, "127.0.0.1:1"),
    "another scheme": ("http://127.0.0.1:1]", "ftp://127.0.0.1:1]", 10, None, "ftp"),
    "an unclosed list": ("127.0.0.1:1]", "127.0.0.1:1", None, None, ""),
    "a tab": ("  path:", "\tpath:", 7, None, ""),
    "a duration of no unit": ("rules:\n", "defaults: {tag_ttl: 5}\nrules:\n", 11, 21, "tag_ttl"),
    "a duration of another unit": ("rules:\n", "defaults: {tag_ttl: 5y}\nrules:\n", 11, 21, "5y"),
    "a negative duration": ("rules:\n", "defaults: {tag_ttl: -5s}\nrules:\n", 11, 21, "-5s"),
    "a size of no sense": ("  path:", "  max_size: many\n  path:", 7, 13, "max_size"),
    "a value of a list of words": ("rules:\n", "log: {level: loud}\nrules:\n", 11, 14, "debug"),
    "no boolean": ("rules:\n", "mirror: {enabled: perhaps}\nrules:\n", 11, 19, "enabled"),
    "workers out of range": ("rules:\n", "workers: 0\nrules:\n", 11, 10, "workers"),
    "not an address": ("  - address: 127.0.0.1:", "  - address: example.com:", 3, 14, "address"),
    "an alias": ("rules:\n", "log: &a {level: info}\nclient: *a\nrules:\n", None, None, ""),
    "two documents": ("rules:\n", "---\nrules:\n", None, None, ""),
    "not UTF-8": ("# A comment", "# A \xff comment", None, None, ""),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_wrong_file_gets_file_line_and_column(tmp_path, good, what, command):
    old, new, line, column, word = WRONG[what]
    assert old in good
    file = tmp_path / "c.yaml"
    file.write_bytes(good.replace(old, new, 1).encode("latin-1"))
    r = run(command, "-f", str(file))
    assert r.returncode == 1
    told = re.findall(r"^%s:(\d+):(\d+): (.+)$" % re.escape(str(file)), r.stderr, re.M)
    assert told, r.stderr
    assert [1 for at_line, at_column, text in told if line in (None, int(at_line)) and column in (None, int(at_column)) and
            word in text], r.stderr
    assert not (tmp_path / "store").exists(), "nothing was started"


def test_all_mistakes_are_told_at_once(tmp_path, good):
    file, r = check(tmp_path, good.replace("store:", "stor:").replace("target:", "tarket:") + "foo: bar\n")
    lines = [int(n) for n in re.findall(r"^%s:(\d+):" % re.escape(str(file)), r.stderr, re.M)]
    assert lines == sorted(lines) and len(set(lines)) >= 3


def test_what_is_left_out_is_counted(tmp_path, good):
    file, r = check(tmp_path, good + "".join("foo%d: bar\n" % i for i in range(60)))
    lines = r.stderr.splitlines()
    assert r.returncode == 1 and len(lines) == 51 and lines[-1] == "%s: and 10 more" % file
    sets = "".join("  - {name: s%d, login_server: up.test, username: u, password: 'file:%s'}\n" % (i, file) for i in range(25))
    file, r = check(tmp_path, good + "credential_sets:\n" + sets)
    lines = r.stderr.splitlines()
    assert r.returncode == 0 and len(lines) == 21 and lines[-1] == "warning: %s: and 5 more" % file, lines


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "- a\n", "just text\n", "{", "\0", "a: b: c", "[" * 10000, "rules: " + "[" * 1000])
def test_files_that_are_no_configuration(tmp_path, text):
    """Without a byte it is refused, as with a mistake in it; without a word it is all defaults, and no rules."""
    _, r = check(tmp_path, text)
    assert r.returncode == (0 if text in ("\n", "# nothing\n") else 1), r
    assert "Sanitizer" not in r.stderr


@pytest.mark.parametrize("text,place", [("\n", "1:1"), ("# nothing\n", "1:1"), ("store: {path: /x}\nrules:\n", "1:1"), ("store: {path: /x}\nrules: []\n", "2:8")])
def test_no_rules_are_warned_of(tmp_path, text, place):
    file, r = check(tmp_path, text)
    assert r.returncode == 0 and r.stderr.startswith("warning: %s:%s: there are no rules: every pull is answered with 404" % (file, place))


def test_an_empty_file_is_refused(start_larder, upstream, tmp_path):
    file, r = check(tmp_path, "")
    assert (r.returncode, r.stderr) == (1, "%s: cannot read the configuration: it is empty\n" % file)
    assert run("serve", "-f", str(file)).stderr == r.stderr


def test_a_warning_refuses_nothing(tmp_path, good):
    _, r = check(tmp_path, good)
    assert r.returncode == 0 and r.stderr == ""
    file, r = check(tmp_path, good + "  - {name: hub, source: docker.io/*, target: hub/*}\n")
    assert r.returncode == 0 and "2 rules" in r.stdout
    assert re.fullmatch(r"warning: %s:15:5: rule 'hub' .*Docker Hub.* 100 pulls in 6 hours .*\n" % re.escape(str(file)), r.stderr)


@pytest.mark.parametrize("listen,reached", [("", "0.0.0.0:5000"), ("listen: [{address: '127.0.0.1:5000'}, {address: '[::1]:5000'}]\n", None),
                                            ("listen: [{address: '127.0.0.1:5000'}, {address: ':5002'}]\n", ":5002")])
def test_who_may_pull_with_an_account_is_noted(tmp_path, listen, reached):
    rules = "rules:\n  - {name: open, source: up.test/*, target: o/*}\n  - {name: t, source: corp.test/*, target: t/*%s}\n"
    secret = tmp_path / "secret"
    secret.write_text("x")
    sets = "credential_sets:\n  - {name: c, login_server: corp.test, username: u, password: 'file:%s'}\n" % secret
    file, r = check(tmp_path, sets + rules % ", credential_set: c" + listen)
    assert r.returncode == 0
    if reached is None:
        assert r.stderr == ""
    else:
        assert re.fullmatch(r"note: %s:5:5: larder does not ask .* whoever reaches %s may pull what the account of rule 't' may.*\n" % (file, re.escape(reached)), r.stderr)
    assert check(tmp_path, rules % "" + listen)[1].stderr == ""


def test_the_log_has_the_warnings(start_larder, upstream):
    larder = start_larder(upstream, rules=[{"name": "hub", "source": "docker.io/*", "target": "hub/*"}])
    larder.stop()
    told = [r for r in larder.log if r["level"] == "warn"]
    assert len(told) == 1 and re.match(r"%s:\d+:\d+: rule 'hub'" % re.escape(larder.file), told[0]["warning"])


@pytest.mark.parametrize("path", ["none.yaml", "."])
def test_a_file_that_cannot_be_read(tmp_path, path):
    for command in ("check", "serve"):
        r = run(command, "-f", str(tmp_path / path))
        assert r.returncode == 1 and str(tmp_path / path) in r.stderr


# ---- start ----

def refused(larder):
    """Starts it, expects exit 1; everything it said."""
    larder.write_config()
    r = run("serve", "-f", larder.file)
    assert r.returncode == 1, r.stderr
    records = [json.loads(line) for line in r.stderr.splitlines()]
    assert records[-1]["level"] == "error" and records[-1]["msg"] == "cannot start"
    return records[-1]["why"]


@pytest.mark.parametrize("which", ["listen", "admin"])
def test_a_port_in_use_is_said_with_the_address(start_larder, upstream, which):
    larder = start_larder(upstream, run=False)
    port = larder.port if which == "listen" else larder.admin_port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert "127.0.0.1:%d" % port in refused(larder)


def test_two_processes_on_one_port(start_larder, upstream, larder):
    """SO_REUSEPORT must not let a second process take half of the connections."""
    second = start_larder(upstream, run=False)
    second.config["listen"] = larder.config["listen"]
    assert "127.0.0.1:%d" % larder.port in refused(second)
    assert larder.get("/v2/").status == 200


def test_a_second_process_on_one_store_is_refused(start_larder, upstream, larder):
    second = start_larder(upstream, run=False)
    second.config["store"] = larder.config["store"]
    text = refused(second)
    assert larder.store in text and str(larder.pid) in text, text
    thing = upstream.add_blob("app", b"still works")
    assert larder.get(paths.blob(APP, thing)).good
    larder.stop()
    second.store = larder.store
    second.start()
    assert second.get(paths.blob(APP, thing)).good


def test_a_killed_process_does_not_lock_the_store(larder):
    larder.kill()
    larder.start()
    assert larder.get("/v2/").status == 200


@pytest.mark.parametrize("what", ["a file", "below a file", "/proc"])
def test_a_store_that_cannot_be_written(start_larder, upstream, tmp_path, what):
    (tmp_path / "file").write_text("x")
    path = {"a file": str(tmp_path / "file"), "below a file": str(tmp_path / "file" / "store"), "/proc": "/proc/larder"}[what]
    larder = start_larder(upstream, run=False, store={"path": path})
    assert path in refused(larder)


def test_several_listen_addresses(start_larder, upstream):
    port = free_port()
    larder = start_larder(upstream, run=False)
    larder.config["listen"].append({"address": "127.0.0.1:%d" % port})
    larder.start()
    for address in (larder.address, ("127.0.0.1", port)):
        with Conn(address) as conn:
            assert conn.exchange("GET", "/v2/").status == 200


def test_connections_reach_every_loop(start_larder, upstream):
    larder = start_larder(upstream, workers=4)
    name = upstream.add_blob("app", blob("loops", 100 * KIB))
    for _ in range(40):
        assert larder.get(paths.blob(APP, name)).good
    assert upstream.count() == 1


def test_the_pool_grows_with_the_workers(start_larder, upstream):
    larder = start_larder(upstream, workers=40)
    assert larder.get(paths.blob(APP, upstream.add_blob("app", blob("pool", MIB)))).good
    assert len(os.listdir("/proc/%d/task" % larder.pid)) >= 40 + 4 + 4 * 40


# ---- end ----

@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(larder, sig):
    larder.get("/v2/")
    larder.process.send_signal(sig)
    larder.wait_exit(0)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_before_it_has_started(start_larder, upstream, faults, sig):
    faults.hold("listen")
    larder = start_larder(upstream, run=False).start(wait=False)
    faults.wait_held("listen")
    larder.process.send_signal(sig)
    faults.release("listen")
    if sig == signal.SIGHUP:
        wait_until(lambda: accepts(larder.address), "it answers")
    else:
        larder.wait_exit(0)


def test_sigterm_under_load_finishes_what_runs(larder, upstream):
    data = blob("drain", 3 * MIB)
    name = upstream.add_blob("app", data)
    cached = upstream.add_blob("app", blob("cached", 24 * MIB))
    assert larder.get(paths.blob(APP, cached)).good
    gate = upstream.hold(paths.blob("app", name), at=MIB)
    cold = [Fetch(larder.address, paths.blob(APP, name)) for _ in range(10)]
    for f in cold:
        f.wait_got(MIB)
    warm = [Fetch(larder.address, paths.blob(APP, cached), stop_at=100 * KIB, receive_buffer=16 * KIB) for _ in range(3)]
    for f in warm:
        f.wait_got(100 * KIB)
    idle = Conn(larder.address)
    assert idle.exchange("GET", "/v2/").status == 200
    larder.process.send_signal(signal.SIGTERM)
    assert idle.closed_by_peer(), "idle connections end at once"
    wait_until(lambda: not accepts(larder.address), "no new connections are accepted")
    gate.release()
    for f in warm:
        f.resume()
    for f in cold:
        assert f.result().good and f.response.body == data
    for f in warm:
        assert f.result().good
    larder.wait_exit(0)
    larder.check_store()
    assert larder.stored(name)


def accepts(address):
    try:
        with Conn(address, timeout=5) as conn:
            return conn.exchange("GET", "/v2/").status == 200
    except OSError:
        return False


def test_answers_during_the_drain_say_connection_close(larder, upstream):
    name = upstream.add_blob("app", blob("drain", 100 * KIB))
    gate = upstream.hold(paths.blob("app", name), at="head")
    f = Fetch(larder.address, paths.blob(APP, name))
    gate.wait_reached()
    larder.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not accepts(larder.address), "no new connections are accepted")
    gate.release()
    r = f.result()
    assert r.good and r.header("Connection") == "close"
    larder.wait_exit(0)


def test_the_drain_has_a_limit(start_larder, upstream):
    larder = start_larder(upstream, client_limits={"drain_timeout": "500ms"})
    name = upstream.add_blob("app", blob("drain", MIB))
    gate = upstream.hold(paths.blob("app", name), at=100 * KIB)
    f = Fetch(larder.address, paths.blob(APP, name))
    f.wait_got(100 * KIB)
    larder.stop()
    gate.release()
    assert f.result().end in ("short", "reset"), "cut, but visibly"


def test_a_second_sigterm_does_not_wait(start_larder, upstream):
    larder = start_larder(upstream, client_limits={"drain_timeout": "1h"})
    name = upstream.add_blob("app", blob("drain", MIB))
    gate = upstream.hold(paths.blob("app", name), at=100 * KIB)
    f = Fetch(larder.address, paths.blob(APP, name))
    f.wait_got(100 * KIB)
    larder.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not accepts(larder.address), "the drain has begun")
    larder.process.send_signal(signal.SIGTERM)
    larder.process.wait(60)
    gate.release()
    assert f.result().end in ("short", "reset")
    larder.wait_exit(larder.process.returncode)


def test_sigterm_while_clients_come_and_go(larder, upstream):
    names = [upstream.add_blob("app", blob("busy-%d" % n, 300 * KIB)) for n in range(10)]
    upstream.on(re.compile("/blobs/"), Fault(rate=2 * MIB))
    fetches = [Fetch(larder.address, paths.blob(APP, names[n % 10]), leave_at=100 * KIB if n % 3 == 0 else None) for n in range(60)]
    fetches[1].wait_got(1)
    larder.stop()
    for f in fetches:
        f.result()
        assert f.response.end != "clean" or f.response.status == 503 or len(f.response.body) == 300 * KIB


def test_sigpipe_does_not_end_it(larder):
    os.kill(larder.pid, signal.SIGPIPE)
    assert larder.get("/v2/").status == 200
    assert larder.process.poll() is None


def test_a_reader_of_the_log_that_stalls_or_goes_does_not_stop_it(start_larder, upstream):
    larder = start_larder(upstream, run=False)
    larder.write_config()
    process = subprocess.Popen([binary(), "serve", "-f", larder.file], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE)
    try:
        wait_until(lambda: accepts(larder.address), "it answers")
        # Nobody reads the pipe; it is full after 64 KiB.
        with Conn(larder.address) as conn:
            for n in range(3000):
                assert conn.exchange("GET", "/v2/nowhere-%d/manifests/v1" % n).status == 404
        process.stderr.close()
        with Conn(larder.address) as conn:
            for n in range(100):
                assert conn.exchange("GET", "/v2/").status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


# ---- admin ----

def test_healthz(larder):
    status, text, headers = larder.admin("/healthz")
    assert status == 200 and text
    assert larder.admin("/nothing")[0] == 404


def test_metrics_are_well_formed(larder, upstream):
    image = upstream.add("app", Image("metrics", (10,)), tag="v1")
    larder.get(paths.manifest(APP, "v1"))
    larder.get(paths.blob(APP, image.config))
    larder.get("/v2/nowhere/manifests/v1")
    status, text, headers = larder.admin("/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
    typed = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in typed
            typed[name] = kind
        elif not line.startswith("#"):
            match = re.fullmatch(r'((?:larder|process)_[a-z0-9_]+)(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? (-?[0-9.e+-]+|\+Inf|NaN)', line)
            assert match, line
            base = re.sub(r"_(bucket|sum|count)$", "", match[1])
            assert match[1] in typed or typed.get(base) == "histogram", line
            if typed.get(match[1]) == "counter":
                assert match[1].endswith("_total"), line
    assert larder.metric("client_connections_accepted_total") >= 3
    assert larder.metric("upstream_connects_total") >= 1
    assert {'larder_loop_lag_seconds{core="0"}', 'larder_loop_lag_seconds{core="1"}'} <= set(larder.metrics())


def test_the_admin_address_is_not_the_registry(larder, upstream):
    upstream.add("app", Image("admin", (10,)), tag="v1")
    assert larder.admin(paths.manifest(APP, "v1"))[0] == 404
    assert larder.get("/metrics").status == 404 and larder.get("/healthz").status == 404
    assert upstream.count() == 0


def test_the_log_tells_of_start_and_end(larder):
    larder.stop()
    assert larder.logged(text="127.0.0.1:%d" % larder.port), "the address is in the log"
    assert [r["level"] for r in larder.log if r["level"] in ("error", "warn")] == []
    times = [r["time"] for r in larder.log]
    assert times == sorted(times) and re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", times[0])


def test_a_text_log_and_nothing_on_stdout(start_larder, upstream):
    larder = start_larder(upstream, run=False, log={"level": "info", "format": "text"})
    larder.write_config()
    process = subprocess.Popen([binary(), "serve", "-f", larder.file], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    wait_until(lambda: accepts(larder.address), "it answers")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and out == ""
    assert all(re.match(r"\d{4}-\S+ (error|warn|info|debug) \S+: ", line) for line in err.splitlines())
