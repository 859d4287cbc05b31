"""Measures larder's figures on one machine in one run, next to the peers, and prints which targets are met.

A peer is a class with start() and stop(); a scenario is a function that takes a Bench and adds rows to its report. Everything runs on
loopback from a temporary folder and is stopped at the end, also on failure. See README.md beside this file."""
import argparse
import contextlib
import datetime
import json
import os
import platform
import random
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MIB = 1 << 20
KIB = 1 << 10
OPEN_FILES = 19000


class Failed(Exception):
    """A step of a scenario could not be done; the text says why."""


ports = iter(random.sample(range(20000, 32000), 2000))


def free_port():
    """Below the range that outgoing connections use: servers with SO_REUSEPORT would share a port without a word."""
    for port in ports:
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(("127.0.0.1", port))
            return port
    raise Failed("no free port between 20000 and 32000")


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.read(), answer.headers
    except OSError as e:
        raise Failed(f"{url}: {e}") from e


def say(text):
    print(text, file=sys.stderr, flush=True)


def raise_file_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (want, hard))
    return want


# --- processes ------------------------------------------------------------------------------------------------------


class Process:
    """A server: one process, perhaps with children. Its output goes to NAME.log in the temporary folder."""

    name = "process"

    def __init__(self, bench, name=None):
        self.bench = bench
        if name is not None:
            self.name = name
        self.folder = bench.tmp / self.name
        self.folder.mkdir(exist_ok=True)
        self.port = free_port()
        self.child = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def spawn(self, argv):
        log = open(self.folder / "log", "wb")
        self.child = subprocess.Popen([str(a) for a in argv], stdout=log, stderr=log, cwd=self.folder)
        log.close()
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if self.child.poll() is not None:
                raise Failed(f"{self.name} ended with status {self.child.returncode}: {self.last_words()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        raise Failed(f"{self.name} did not listen within 30 s: {self.last_words()}")

    def last_words(self):
        lines = (self.folder / "log").read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:]) or "it said nothing"

    def stop(self):
        if self.child is None:
            return
        self.child.terminate()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child = None

    def pids(self):
        """The process and its children, which the kernel lists per thread."""
        found = [self.child.pid]
        for pid in found:
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    found += [int(p) for p in (task / "children").read_text().split()]
        return found

    def cpu(self):
        """User and system seconds so far."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self, key="VmRSS"):
        """Bytes by /proc/PID/status: VmRSS now, VmHWM the most so far, RssAnon without mapped files."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                m = re.search(rf"^{key}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
                total += int(m.group(1)) * KIB if m else 0
        return total

    def forget_peak(self):
        for pid in self.pids():
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")


class Origin(Process):
    """larder-origin. `blobs` has the digests by size, in the order of --blob; `images` has NAME -> digest."""

    name = "origin"

    def start(self, *options):
        self.spawn([self.bench.tools / "larder-origin", "-l", f"127.0.0.1:{self.port}", *options])
        end = time.monotonic() + 60
        while "\nready\n" not in (text := (self.folder / "log").read_text()):
            if time.monotonic() > end:
                raise Failed(f"larder-origin is not ready after 60 s: {self.last_words()}")
            time.sleep(0.02)
        self.blobs = [(m[1], int(m[2])) for m in re.finditer(r"^blob (\S+) (\d+)$", text, re.M)]
        self.images = dict(re.findall(r"^image (\S+) (\S+)$", text, re.M))
        return self

    def stats(self, reset=False):
        return json.loads(get(self.url + "/stats" + ("?reset" if reset else ""))[0])


class Larder(Process):
    """larder with one rule: b/* from the origin. Each start has an empty store of its own."""

    name = "larder"

    def start(self, origin):
        store = Path(tempfile.mkdtemp(prefix="store-", dir=self.folder))
        config = self.folder / "config.yaml"
        config.write_text(
            f"listen:\n  - address: 127.0.0.1:{self.port}\n"
            f"admin:\n  address: 127.0.0.1:{free_port()}\n"
            "workers: 2\n"
            f"store:\n  path: {store}\n"
            "defaults:\n  tag_ttl: 1h\n"
            "client:\n  idle_timeout: 1h\n  max_connections: 20000\n"
            "upstreams:\n"
            f"  - registry: origin.test\n    endpoints: [http://127.0.0.1:{origin.port}]\n"
            "rules:\n  - name: b\n    source: origin.test/*\n    target: b/*\n"
            "log: {access: false, level: warn}\n")
        self.spawn([self.bench.larder, "serve", "-f", config])
        return self


class Nginx(Process):
    """nginx with static files, set up as its documentation recommends for many requests of few files."""

    name = "nginx"

    def start(self, www):
        paths = "".join(f"  {kind}_temp_path {self.folder}/{kind};\n"
                        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        types = "".join(f"    location = {path} {{ default_type {kind}; }}\n" for path, kind in self.bench.types.items())
        config = self.folder / "nginx.conf"
        config.write_text(
            f"daemon off;\nworker_processes 2;\npid {self.folder}/pid;\nerror_log stderr warn;\n"
            f"worker_rlimit_nofile {OPEN_FILES};\n"
            + ("user root;\n" if os.geteuid() == 0 else "") +
            "events { worker_connections 15000; multi_accept on; }\n"
            "http {\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  tcp_nodelay on;\n"
            "  keepalive_timeout 3600s;\n  keepalive_requests 1000000000;\n"
            "  open_file_cache max=1000 inactive=1h;\n  open_file_cache_valid 1h;\n  open_file_cache_min_uses 1;\n"
            f"  types {{}}\n  default_type application/octet-stream;\n{paths}"
            f"  server {{\n    listen 127.0.0.1:{self.port} reuseport backlog=4096;\n    root {www};\n{types}  }}\n}}\n")
        self.spawn([shutil.which("nginx") or "/usr/sbin/nginx", "-c", config])
        return self


class H2o(Process):
    """h2o with static files; it keeps files open and sends without a log unless told otherwise."""

    name = "h2o"

    def start(self, www):
        config = self.folder / "h2o.conf"
        manifests = [path for path in self.bench.types if "/manifests/" in path]
        config.write_text(
            f"listen: {{host: 127.0.0.1, port: {self.port}}}\nnum-threads: 2\nmax-connections: 20000\n"
            "http1-request-timeout: 3600\nhttp1-upgrade-to-http2: OFF\n"
            + ("user: root\n" if os.geteuid() == 0 else "") +
            "hosts:\n  default:\n    paths:\n"
            + "".join(f"      {path.rpartition('/')[0]}:\n        file.dir: {www}{path.rpartition('/')[0]}\n"
                      f"        file.mime.setdefaulttype: {self.bench.types[path]}\n" for path in manifests[:1])
            + f"      /:\n        file.dir: {www}\n        file.mime.setdefaulttype: application/octet-stream\n")
        self.spawn([shutil.which("h2o") or "/usr/bin/h2o", "-c", config])
        return self


# --- load -----------------------------------------------------------------------------------------------------------


def load(bench, mode, *arguments):
    """Runs larder-load; its JSON report. Requests that failed are in it, not an exception."""
    done = subprocess.run([str(a) for a in (bench.tools / "larder-load", mode, "--json", *arguments)],
                          stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 2):
        raise Failed(f"larder-load {mode} ended with status {done.returncode}")
    return json.loads(done.stdout)


def failures(report):
    return {k: v for k, v in report["errors"].items() if v}


SIZES = {"": 1, "K": KIB, "M": MIB, "G": KIB * MIB}


def wrk(url, seconds, server):
    before = server.cpu()
    text = subprocess.run(["wrk", "-t1", "-c64", f"-d{seconds}s", "--timeout", "30s", url], stdout=subprocess.PIPE, text=True,
                          check=True).stdout
    requests = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])
    number, unit = re.search(r"Transfer/sec:\s+([\d.]+)([KMG]?)B", text).groups()
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: (.*)", text)
    rate = float(number) * SIZES[unit]
    if bad or (errors and re.search(r"(connect|read|write|timeout) [1-9]", errors[1])):
        raise Failed(f"wrk on {server.name}: {(bad or errors)[0]}")
    cpu = server.cpu() - before
    return {"requests_per_second": requests, "bytes_per_second": rate, "server_cpu_seconds": round(cpu, 2),
            "server_cpu_seconds_per_gb": round(cpu / max(rate * seconds / 1e9, 1e-9), 4),
            "server_cpu_us_per_request": round(cpu * 1e6 / max(requests * seconds, 1), 3)}


# --- the report -----------------------------------------------------------------------------------------------------


class Bench:
    def __init__(self, args, tmp):
        self.args = args
        self.tmp = tmp
        self.larder = args.larder
        self.tools = args.tools
        self.rows = []
        self.raw = {}
        self.types = {}  # path -> media type of the static files
        self.stack = contextlib.ExitStack()

    def run(self, process, *arguments):
        """Starts a server that is stopped at the end of the scenario."""
        self.stack.callback(process.stop)
        return process.start(*arguments)

    def row(self, scenario, figure, target, measured, met):
        """met: True, False, or None for a number that has no target."""
        self.rows.append({"scenario": scenario, "figure": figure, "target": target, "measured": measured, "met": met})
        say(f"  {figure}: {measured}" + ("" if met is None else ", met" if met else ", NOT met"))

    def scenario(self, name, function):
        say(f"{name}: {function.__doc__.splitlines()[0]}")
        with contextlib.ExitStack() as self.stack:
            try:
                function(self)
            except (Failed, OSError, ValueError) as e:
                self.row(name, name, "runs", f"failed: {e}", False)


def median(values):
    return statistics.median(values)


def spread(values):
    """How far apart the rounds are, in percent of their median."""
    m = median(values)
    return 0 if m == 0 else 100 * (max(values) - min(values)) / m


# --- scenarios ------------------------------------------------------------------------------------------------------


def herd(bench):
    """200 clients on one cold blob of 64 MiB from an upstream that sends 20 MB/s

    Every round has a blob that larder has not seen. The upstream's own time for one client is measured before each."""
    rounds, clients, size = bench.args.rounds, bench.args.herd, 64 * MIB
    origin = bench.run(Origin(bench), "--rate", "20MB", *["--blob", str(size)] * rounds, "--blob", "1MiB", "--images", "1")
    ceiling(bench, origin, clients, size)
    larder = bench.run(Larder(bench), origin)
    warm = origin.blobs[-1][0]
    for _ in range(3):
        get(f"{larder.url}/v2/b/x/blobs/{warm}")
    larder.forget_peak()
    before = {key: larder.memory(key) for key in ("VmRSS", "RssAnon")}
    results = []
    for digest, _ in origin.blobs[:rounds]:
        direct = load(bench, "herd", "-c", 1, "--size", size, f"{origin.url}/v2/x/blobs/{digest}")
        origin.stats(reset=True)
        cpu = larder.cpu()
        many = load(bench, "herd", "-c", clients, "--size", size, f"{larder.url}/v2/b/x/blobs/{digest}")
        stats = origin.stats()
        results.append({
            "direct": direct, "herd": many, "upstream": stats, "failures": failures(many),
            "gets": stats["requests"]["blob_get"],
            "first_byte_lag_ms": (many["last_first_byte_ns"] - stats["first_blob_byte_ns"]) / 1e6,
            "ratio": many["total_ms"]["max"] / max(direct["total_ms"]["max"], 1e-9),
            "peak_growth": larder.memory("VmHWM") - before["VmRSS"], "anon_growth": larder.memory("RssAnon") - before["RssAnon"],
            "larder_cpu_seconds": larder.cpu() - cpu})
        say(f"  direct {direct['total_ms']['max']:.0f} ms, herd {many['total_ms']['max']:.0f} ms, {failures(many) or 'no failures'}")
    bench.raw["herd"] = results
    name = f"herd of {clients}"
    failed = sum(sum(r["failures"].values()) for r in results)
    bench.row("herd", f"{name}: failed clients", "0", str(failed), failed == 0)
    gets = [r["gets"] for r in results]
    bench.row("herd", f"{name}: upstream GETs", "1", "/".join(map(str, gets)), all(g == 1 for g in gets))
    lag = median([r["first_byte_lag_ms"] for r in results])
    bench.row("herd", f"{name}: last first byte after upstream's", "<= 50 ms", f"{lag:.1f} ms", failed == 0 and lag <= 50)
    ratio = median([r["ratio"] for r in results])
    bench.row("herd", f"{name}: last client done, of one direct", "<= 1.05", f"{ratio:.3f}", failed == 0 and ratio <= 1.05)
    peak = max(r["peak_growth"] for r in results)
    bench.row("herd", f"{name}: growth of resident memory", "< 16 MiB",
              f"{peak / MIB:.1f} MiB, without mapped files {max(r['anon_growth'] for r in results) / MIB:.1f} MiB", failed == 0 and peak < 16 * MIB)
    bench.row("herd", f"{name}: larder's processor time", "", f"{median([r['larder_cpu_seconds'] for r in results]):.2f} s", None)


def ceiling(bench, origin, clients, size):
    """What the machine can move at all: the same herd on a file that nginx has ready."""
    www = bench.tmp / "ceiling"
    www.mkdir()
    digest = origin.blobs[0][0]
    (www / "blob").write_bytes(get(f"{origin.url}/v2/x/blobs/{digest}")[0])
    nginx = Nginx(bench, "nginx-ceiling")
    try:
        nginx.start(www)
        many = [load(bench, "herd", "-c", clients, "--size", size, nginx.url + "/blob") for _ in range(bench.args.rounds)]
    finally:
        nginx.stop()
    bench.raw["ceiling"] = many
    best = min(many, key=lambda r: r["total_ms"]["max"])
    bench.row("herd", f"herd of {clients}: the same from nginx, a static file", "",
              f"{best['total_ms']['max'] / 1000:.2f} s, {best['bytes_per_second'] / 1e9:.1f} GB/s", None)


def static_files(bench, origin, paths):
    """The bytes that larder will serve, as files for the peers; records their media types."""
    www = bench.tmp / "www"
    for path in paths:
        body, headers = get(origin.url + path.replace("/v2/b/", "/v2/"))
        file = www / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
        bench.types[path] = headers["Content-Type"]
    return www


def same_answers(server, www, path):
    body, headers = get(server.url + path)
    if body != (www / path[1:]).read_bytes():
        raise Failed(f"{server.name} answers {path} with other bytes")
    return headers["Content-Type"]


def hits(bench):
    """hits, wrk -t1 -c64: larder with two workers, nginx and h2o with the same bytes as static files

    The servers take turns within a round; what counts is the median over the rounds."""
    origin = bench.run(Origin(bench), "--blob", "16KiB", "--blob", "1MiB", "--blob", "64MiB", "--images", "1")
    small, middle, large = (f"/v2/b/x/blobs/{digest}" for digest, _ in origin.blobs)
    manifests = f"/v2/b/img-0/manifests/{origin.images['img-0:latest']}"
    what = {"manifest by tag": ("/v2/b/img-0/manifests/latest", "requests"), "manifest by digest": (manifests, "requests"),
            "16 KiB blob": (small, "requests"), "1 MiB blob": (middle, "bytes"), "64 MiB blob": (large, "bytes")}
    www = static_files(bench, origin, [path for path, _ in what.values()])
    servers = [Larder(bench), Nginx(bench), H2o(bench)]
    for server in servers:
        bench.run(server, origin if server.name == "larder" else www)
    answer_types = {s.name: {n: same_answers(s, www, p) for n, (p, _) in what.items()} for s in servers}
    raw = bench.raw["hits"] = {"types": answer_types}
    time.sleep(1)  # what was just fetched is being stored
    origin.stats(reset=True)
    for name, (path, unit) in what.items():
        runs = {s.name: [] for s in servers}
        for _ in range(bench.args.rounds):
            for server in servers:
                runs[server.name].append(wrk(server.url + path, bench.args.seconds, server))
        raw[name] = runs
        hits_row(bench, name, unit, runs)
    asked = sum(origin.stats()["requests"].values())
    bench.row("hits", "requests that went upstream", "0", str(asked), asked == 0)


def hits_row(bench, name, unit, runs):
    key = f"{unit}_per_second"
    rate = {server: median([r[key] for r in results]) for server, results in runs.items()}
    text = {s: f"{v / 1000:.1f} k/s" if unit == "requests" else f"{v / 1e9:.2f} GB/s" for s, v in rate.items()}
    wide = max(spread([r[key] for r in results]) for results in runs.values())
    ratio = rate["larder"] / rate["nginx"]
    bench.row("hits", f"{name}: of nginx", ">= 1.00",
              f"{ratio:.2f} (larder {text['larder']}, nginx {text['nginx']}, h2o {text['h2o']}; rounds within {wide:.0f} %)",
              ratio >= 1)


def idle(bench):
    """9,000 idle kept-alive connections: resident memory of each"""
    count, limit = bench.args.idle, resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if count + 500 > limit:
        raise Failed(f"{count} connections need a limit of open files above {limit}: raise it with ulimit -n")
    origin = bench.run(Origin(bench), "--images", "1")
    path = "/v2/b/img-0/manifests/latest"
    www = static_files(bench, origin, [path])
    raw = bench.raw["idle"] = {}
    for server in (Larder(bench), Nginx(bench), H2o(bench)):
        bench.run(server, origin if server.name == "larder" else www)
        try:
            raw[server.name] = idle_one(bench, server, server.url + path, count)
        except Failed as e:
            raw[server.name] = {"failed": str(e)}
            if server.name == "larder":
                raise
        server.stop()
    def text(name):
        r = raw[name]
        return r["failed"] if "failed" in r else f"{r['bytes_each'] / KIB:.2f} KiB"
    each = raw["larder"]["bytes_each"]
    bench.row("idle", f"{count} idle connections: each", "<= 1 KiB",
              f"{text('larder')} (nginx {text('nginx')}, h2o {text('h2o')})", each <= KIB)


def idle_one(bench, server, url, count):
    load(bench, "hits", "-c", 64, "-d", "500ms", url)  # what a server allocates once is not counted per connection
    before, anon = server.memory(), server.memory("RssAnon")
    child = subprocess.Popen([str(bench.tools / "larder-load"), "idle", "--json", "-c", str(count), "--sources", "16", url],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if child.stdout.readline().strip() != "ready":
            raise Failed("larder-load idle did not get ready")
        time.sleep(1)
        after, anon_after = server.memory(), server.memory("RssAnon")
        report = json.loads(child.communicate("")[0])
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            child.wait()
    if failures(report):
        raise Failed(f"of {count} connections to {server.name} some did not stay: {failures(report)}")
    return {"before": before, "after": after, "bytes_each": (after - before) / count, "anon_each": (anon_after - anon) / count}


SCENARIOS = {"herd": herd, "hits": hits, "idle": idle}


# --- main -----------------------------------------------------------------------------------------------------------


def machine():
    def first_line(argv):
        with contextlib.suppress(OSError):
            return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout.split("\n")[0]
        return "absent"
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {"time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "kernel": platform.release(),
            "processors": os.cpu_count(), "model": model[1] if model else platform.machine(), "load": os.getloadavg(),
            "nginx": first_line([shutil.which("nginx") or "/usr/sbin/nginx", "-v"]), "h2o": first_line(["h2o", "--version"]),
            "wrk": first_line(["wrk", "-v"])}


def table(rows):
    heads = ("figure", "target", "measured", "met")
    cells = [(r["figure"], r["target"], r["measured"], {True: "yes", False: "no", None: ""}[r["met"]]) for r in rows]
    widths = [max(len(c[i]) for c in [heads, *cells]) for i in range(4)]
    lines = ["  ".join(c[i].ljust(widths[i]) for i in range(4)).rstrip() for c in [heads, tuple("-" * w for w in widths), *cells]]
    return "\n".join(lines) + "\n"


def arguments():
    p = argparse.ArgumentParser(prog="figures.sh", description="Measures larder's figures and says which targets are met. "
                                "Exit status: 0 all met, 3 some not, 2 wrong arguments, 1 the measurement could not be made.")
    p.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)} (all)")
    p.add_argument("--larder", type=Path, default=ROOT / "build/release/larder", help="the program (build/release/larder)")
    p.add_argument("--tools", type=Path, help="folder of larder-load and larder-origin (bench/ beside the program)")
    p.add_argument("--out", type=Path, default=HERE / "results", help="folder for the results (bench/results)")
    p.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts (3)")
    p.add_argument("--seconds", type=int, default=2, help="length of one run of wrk (2)")
    p.add_argument("--herd", type=int, default=200, help="clients of the herd (200)")
    p.add_argument("--idle", type=int, default=9000, help="idle connections (9000)")
    args = p.parse_args()
    for name in args.scenarios:
        if name not in SCENARIOS:
            p.error(f"there is no scenario '{name}'; there are {', '.join(SCENARIOS)}")
    args.larder = args.larder.resolve()
    args.tools = (args.tools or args.larder.parent / "bench").resolve()
    for tool in (args.larder, args.tools / "larder-load", args.tools / "larder-origin"):
        if not os.access(tool, os.X_OK):
            p.error(f"{tool} is not a program; build it first, or say where it is with --larder and --tools")
    return args


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped
    raise_file_limit()
    before = machine()
    if before["load"][0] > 0.3 * before["processors"]:
        say(f"other programs are running (load {before['load'][0]:.1f} on {before['processors']} processors): the figures will suffer")
    with tempfile.TemporaryDirectory(prefix="larder-bench-") as tmp:
        bench = Bench(args, Path(tmp))
        for name in args.scenarios or SCENARIOS:
            bench.scenario(name, SCENARIOS[name])
    args.out.mkdir(parents=True, exist_ok=True)
    text = table(bench.rows)
    (args.out / "figures.txt").write_text(text)
    (args.out / "figures.json").write_text(json.dumps({"machine": before, "rows": bench.rows, "raw": bench.raw}, indent=1) + "\n")
    print(text, end="")
    say(f"written to {args.out}/figures.txt and figures.json")
    return 0 if all(r["met"] is not False for r in bench.rows) else 3


if __name__ == "__main__":
    sys.exit(main())
