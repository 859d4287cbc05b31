"""What every scenario needs: servers as processes, the load programs, and the list of figures with their targets."""
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
OPEN_FILES = 19000


class Failed(Exception):
    """A step could not be done; the text says why."""


class Impossible(Failed):
    """This machine cannot do it, whatever the servers are."""


ports = iter(random.sample(range(20000, 32000), 4000))


def free_port():
    """Below the range that outgoing connections use: servers with SO_REUSEPORT would share a port without a word."""
    for port in ports:
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(("127.0.0.1", port))
            return port
    raise Failed("no free port between 20000 and 32000")


def say(text):
    print(text, file=sys.stderr, flush=True)


ACCEPT = ", ".join(f"application/vnd.{kind}" for kind in (
    "oci.image.index.v1+json", "oci.image.manifest.v1+json", "docker.distribution.manifest.list.v2+json",
    "docker.distribution.manifest.v2+json")) + ", */*"


def get(url):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": ACCEPT}), timeout=60) as answer:
            return answer.read(), answer.headers
    except OSError as e:
        raise Failed(f"{url}: {e}") from e


def program(name):
    """The path of an installed program, also where only root looks for it; None: not installed."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")


def words(size):
    """16384 -> "16 KiB"."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


# --- processes ------------------------------------------------------------------------------------------------------


class Process:
    """A server: one process, perhaps with children. Its output goes to the file `log` in a folder of its own."""

    name = "process"

    def __init__(self, bench, name=None):
        self.bench = bench
        self.name = name or self.name
        self.folder = Path(bench.folder(self.name))
        self.port = free_port()
        self.child = None
        self.listens_after = None  # seconds from its start

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_url(self):
        """Of those that have a tls_port."""
        return f"https://127.0.0.1:{self.tls_port}"

    def spawn(self, argv, env=None):
        log = open(self.folder / "log", "wb")
        self.child = subprocess.Popen([str(a) for a in argv], stdout=log, stderr=log, cwd=self.folder, env=env)
        log.close()
        begin = time.monotonic()
        while time.monotonic() < begin + 30:
            if self.child.poll() is not None:
                raise Failed(f"{self.name} ended with status {self.child.returncode}: {self.last_words()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                self.listens_after = time.monotonic() - begin
                return
            time.sleep(0.005)
        raise Failed(f"{self.name} did not listen within 30 s: {self.last_words()}")

    def last_words(self):
        lines = (self.folder / "log").read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:]) or "it said nothing"

    def stop(self):
        """Ends it and removes what it stored: a cold start is a new process in a new folder."""
        if self.child is not None:
            self.child.terminate()
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                for pid in self.pids():
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                self.child.wait()
            self.child = None
        shutil.rmtree(self.folder, ignore_errors=True)

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


class MemoryLimit:
    """A cgroup, of version 2 or 1, for servers that may use only so much memory, page cache included."""

    ROOT = Path("/sys/fs/cgroup")

    def __init__(self, limit):
        root, name = self.controller()
        self.path = root / f"larder-bench-{os.getpid()}"
        try:
            self.path.mkdir()
            (self.path / name).write_text(str(limit))
        except OSError as e:
            raise Impossible(f"no limit of memory can be set: {e}") from e

    def controller(self):
        """The folder in which groups are made, and the name of the file with the limit."""
        control = self.ROOT / "cgroup.subtree_control"
        if control.exists() and "memory" in control.read_text().split():
            return self.ROOT, "memory.max"
        if (self.ROOT / "memory/memory.limit_in_bytes").exists():
            return self.ROOT / "memory", "memory.limit_in_bytes"
        raise Impossible(f"there is no memory controller of cgroup v2 or v1 in {self.ROOT}, so no limit of memory can be set")

    def take(self, process):
        for pid in process.pids():
            (self.path / "cgroup.procs").write_text(str(pid))

    def close(self):
        for _ in range(100):  # a group can be removed when its last process is gone
            with contextlib.suppress(OSError):
                self.path.rmdir()
                return
            time.sleep(0.05)


# --- load -----------------------------------------------------------------------------------------------------------


def load(bench, mode, *arguments):
    """Runs larder-load; its JSON report. Requests that failed are in it, not an exception."""
    done = subprocess.run([str(a) for a in (bench.tools / "larder-load", mode, "--json", "--quiet", *arguments)],
                          stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 2):
        raise Failed(f"larder-load {mode} ended with status {done.returncode}")
    return json.loads(done.stdout)


def load_told(bench, during, *arguments):
    """An open loop that counts for just as long as during() runs."""
    child = subprocess.Popen([str(a) for a in (bench.tools / "larder-load", "rate", "--told", "--json", "--quiet", *arguments)],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if child.stdout.readline().strip() != "ready":
            raise Failed("larder-load rate did not get ready")
        during()
        text = child.communicate("")[0]
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    if child.returncode not in (0, 2):
        raise Failed(f"larder-load rate ended with status {child.returncode}")
    return json.loads(text)


def failures(report):
    return {k: v for k, v in report["errors"].items() if v}


def refuse_failures(report, server):
    if failures(report):
        raise Failed(f"{server.name}: {failures(report)} of {report['requests'] + sum(failures(report).values())} requests")


def machine_cpu():
    """Seconds that all processors were busy so far, for whomever: user, nice, system, irq and softirq of /proc/stat."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return sum(int(fields[i]) for i in (1, 2, 3, 6, 7)) / os.sysconf("SC_CLK_TCK")


def with_cpu(server, run):
    """What run() returned, with the processor time that the server needed for it, and the whole machine."""
    before, machine = server.cpu(), machine_cpu()
    result = run()
    gigabytes = max(result["bytes"] / 1e9, 1e-9)
    result["server_cpu_seconds"] = round(server.cpu() - before, 2)
    result["server_cpu_seconds_per_gb"] = result["server_cpu_seconds"] / gigabytes
    result["machine_cpu_seconds_per_gb"] = (machine_cpu() - machine) / gigabytes
    return result


def hammer(bench, server, paths, connections=64):
    """A closed loop on what the server has: one generator thread, as wrk -t1."""
    return closed_loop(bench, server, server.url, paths, connections)


def hammer_tls(bench, server, paths, connections=64, *options):
    """The same by TLS."""
    return closed_loop(bench, server, server.tls_url, paths, connections, "--ca", bench.certificate()[0], *options)


def closed_loop(bench, server, url, paths, connections, *options):
    def run():
        report = load(bench, "hits", "-c", connections, "-d", f"{bench.scale.seconds}s", *options, url + server.path(paths[0]),
                      *map(server.path, paths[1:]))
        refuse_failures(report, server)
        return report
    return with_cpu(server, run)


SIZES = {"": 1, "K": KIB, "M": MIB, "G": GIB}


def wrk_tls(bench, server, paths, connections=64):
    """The same by another program, by TLS."""
    return wrk(bench, server, paths, connections, server.tls_url)


def wrk(bench, server, paths, connections=64, url=None):
    """The same by another program."""
    seconds = max(1, round(bench.scale.seconds))
    def run():
        text = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", (url or server.url) + server.path(paths[0])],
                              stdout=subprocess.PIPE, text=True, check=True).stdout
        number, unit = re.search(r"Transfer/sec:\s+([\d.]+)([KMG]?)B", text).groups()
        bad = re.search(r"Non-2xx or 3xx responses: \d+", text) or re.search(
            r"Socket errors:.*(?:connect|read|write|timeout) [1-9].*", text)
        if bad:
            raise Failed(f"wrk on {server.name}: {bad[0]}")
        rate = float(number) * SIZES[unit]
        return {"requests_per_second": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]), "bytes_per_second": rate,
                "bytes": rate * seconds}
    return with_cpu(server, run)


@contextlib.contextmanager
def every_second(action):
    """Calls action once a second in another thread."""
    over = threading.Event()
    def run():
        while not over.wait(1):
            action()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# --- figures and targets --------------------------------------------------------------------------------------------


def per_second(v):
    return f"{v / 1000:.1f} k/s" if v >= 10000 else f"{v:.0f}/s"


UNITS = {
    "requests": per_second,
    "bytes": lambda v: f"{v / 1e9:.2f} GB/s" if v >= 1e8 else f"{v / 1e6:.2f} MB/s",
    "s/GB": lambda v: f"{v:.3f} s/GB",
    "ms": lambda v: f"{v:.2f} ms" if v < 100 else f"{v:.0f} ms",
    "s": lambda v: f"{v:.2f} s",
    "ratio": lambda v: f"{v:.3f}",
    "count": lambda v: f"{v:.0f}",
    "KiB": lambda v: f"{v / KIB:.2f} KiB",
    "byte": lambda v: f"{v:.0f} bytes",
    "MiB": lambda v: f"{v / MIB:.1f} MiB",
}
SHARP = {"count", "ratio of bytes"}  # not times: judged also where the machine is busy
UNITS["ratio of bytes"] = UNITS["ratio"]


class Target:
    """text: what is wanted. judge(values): (what larder reached, whether that is enough), or None when it cannot be told."""

    def __init__(self, text, judge):
        self.text = text
        self.judge = judge


def at_most(limit, unit):
    return Target(f"<= {UNITS[unit](limit)}", lambda v: (v["larder"], v["larder"] <= limit))


def at_least(limit):
    return Target(f">= {UNITS['ratio'](limit)}", lambda v: (v["larder"], v["larder"] >= limit))


LIMIT = "limit"  # instead of whether a target is met: it is out of reach here, and larder is where the machine ends


def at_least_of(factor, *peers):
    """larder has at least so many times what the best of the peers has. Where even `bare` has less, that target is out of reach on
    this machine; then what counts is that larder has as much as that, within a twentieth."""
    def judge(values):
        others = [values[p] for p in peers if p in values]
        if not others:
            return None
        best = max(max(others), 1e-9)
        ratio = values["larder"] / best
        bare = values.get("bare", float("inf")) / best
        return ratio, LIMIT if ratio < factor and bare < factor and ratio >= 0.95 * bare else ratio >= factor
    return Target(f">= {factor:.2f} x {' and '.join(peers)}", judge)


def at_most_of(factor, *peers, words=None):
    """larder needs at most so many times what the best of the peers needs; without names, of all peers."""
    def judge(values):
        others = [v for p, v in values.items() if p != "larder" and (p in peers or not peers)]
        if not others:
            return None
        ratio = values["larder"] / max(min(others), 1e-9)
        return ratio, ratio <= factor
    return Target(f"<= {factor:.2f} x {words or ' and '.join(peers) or 'any peer'}", judge)


class Figure:
    """One row: a number for each server that can do it, a reason for each that cannot."""

    def __init__(self, scenario, name, unit, target=None):
        self.scenario, self.name, self.unit, self.target = scenario, name, unit, target
        self.rounds = {}  # server -> what it did in each round
        self.no = {}      # server -> why not
        self.notes = {}   # server -> what to know about its number
        self.impossible = None  # why nobody has: this machine cannot do it

    def add(self, server, value):
        self.rounds.setdefault(server, []).append(value)

    def refuse(self, server, why):
        self.no[server] = why
        self.rounds.pop(server, None)

    def values(self):
        """By server: the median of the rounds, and of what should not happen the worst."""
        middle = max if self.unit == "count" else statistics.median
        return {server: middle(rounds) for server, rounds in self.rounds.items()}

    def spread(self):
        """How far apart the rounds are, in percent of their median, for the server for which it is worst."""
        wide = 0
        for server, middle in self.values().items():
            rounds = self.rounds[server]
            wide = max(wide, 100 * (max(rounds) - min(rounds)) / middle if middle else 0)
        return wide

    def verdict(self, sharp_only=False):
        """(text, met): met is None when there is nothing to meet or it cannot be told."""
        if self.impossible:
            return "no", None
        if "larder" not in self.rounds:
            return ("no", False) if "larder" in self.no else ("", None)
        if self.target is None or (sharp_only and self.unit not in SHARP):
            return "", None
        found = self.target.judge(self.values())
        if found is None:
            return "no peer", None
        reached, met = found
        text = f"{reached:.2f} x" if " x " in self.target.text else UNITS[self.unit](reached)
        return text, met

    def json(self, sharp_only):
        text, met = self.verdict(sharp_only)
        return {"scenario": self.scenario, "figure": self.name, "unit": self.unit, "target": self.target.text if self.target else None,
                "measured": text, "met": met, "medians": self.values(), "rounds": self.rounds, "no": self.no, "notes": self.notes,
                "impossible": self.impossible,
                "spread_percent": round(self.spread(), 1)}


class Bench:
    def __init__(self, scale, larder, tools, tmp, peers):
        self.scale = scale    # how many, how long, how large
        self.larder = larder  # the program
        self.tools = tools    # the folder of larder-load and its like
        self.tmp = tmp
        self.chosen = peers   # names of the peers that are asked for
        self.figures = []
        self.raw = {}
        self.stack = contextlib.ExitStack()
        self.running = None
        self.workers = max(1, (os.cpu_count() or 1) - 1)  # of each server: the load generator has a processor of its own
        self.folders = 0

    def certificate(self):
        """(certificate, key): an ECDSA P-256 certificate for 127.0.0.1 that everybody shows."""
        pair = self.tmp / "tls.crt", self.tmp / "tls.key"
        if not pair[0].exists():
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                            "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1", "-out", pair[0], "-keyout", pair[1]],
                           check=True, stderr=subprocess.DEVNULL)
            for path in pair:
                path.chmod(0o644)
        return pair

    def folder(self, name):
        self.folders += 1
        path = self.tmp / f"{name}-{self.folders}"
        path.mkdir()
        return path

    def figure(self, name, unit, target=None):
        self.figures.append(Figure(self.running, name, unit, target))
        return self.figures[-1]

    def record(self, key, value):
        """Raw results, for the JSON file only."""
        self.raw.setdefault(self.running, {}).setdefault(key, []).append(value)

    def run(self, process, *arguments):
        """Starts a server that is stopped at the end of the scenario."""
        self.stack.callback(process.stop)
        return process.start(*arguments)

    def servers(self, classes, world, figures):
        """Starts the chosen ones of these and yields those that run; the others are a "no" with the reason in every figure."""
        up = []
        for kind in classes:
            if kind.name != "larder" and kind.name not in self.chosen:
                continue
            try:
                up.append(self.run(kind(self), world))
            except (Failed, OSError) as e:
                self.refuse(figures, kind.name, e)
        return up

    def refuse(self, figures, name, why):
        for f in figures:
            f.refuse(name, str(why))
        say(f"  {name}: no: {why}")

    def scenario(self, name, function):
        self.running = name
        say(f"{name}: {function.__doc__.splitlines()[0]}")
        before = len(self.figures)
        with contextlib.ExitStack() as self.stack:
            try:
                function(self)
            except Impossible as e:
                for f in self.figures[before:] or [self.figure(name, "count")]:
                    f.impossible = None if f.rounds else str(e)
            except (Failed, OSError, ValueError, subprocess.SubprocessError) as e:
                if len(self.figures) == before:
                    self.figure(name, "count")
                self.refuse([f for f in self.figures[before:] if not f.rounds], "larder", e)
        for f in self.figures[before:]:
            values = ", ".join(f"{s} {UNITS[f.unit](v)}" for s, v in f.values().items())
            text, met = f.verdict(self.scale.quick)
            say(f"  {f.name}: {values or f.impossible or 'nothing'}" + (f"; {text}" if text else "")
                + {True: ", met", False: ", NOT met", None: ""}[met])
