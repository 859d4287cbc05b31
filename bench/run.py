"""Measures larder next to its peers, in one run on one machine. See README.md beside this file."""
import argparse
import contextlib
import datetime
import os
import platform
import re
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import report
from harness import GIB, KIB, MIB, OPEN_FILES, Bench, program, say
from peers import PEERS
from scenarios import GROUPS, SCENARIOS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# How many, how long, how large. --figures and --quick change what they name.
FULL = {"quick": False, "figures": False, "rounds": 3, "seconds": 2.0, "settle": 1.0, "large": [MIB, 64 * MIB, GIB], "herd": 1000,
        "herd_size": 64 * MIB, "cold_layer": 32 * MIB, "images": 20, "pullers": 50, "mix_layer": 4 * MIB, "memory": 256 * MIB,
        "memory_blob": 64 * MIB, "idle": 9000, "rules": 10000, "some_objects": 200, "objects": 1000000,
        "evicted": 10000, "verify": [(64 * MIB, 16), (8 * MIB, 64), (MIB, 512), (64 * KIB, 4096)]}
FIGURES = {"figures": True, "large": [MIB, 64 * MIB], "herd": 200}
QUICK = {"quick": True, "rounds": 1, "seconds": 0.3, "settle": 0.1, "large": [MIB, 4 * MIB], "herd": 30, "herd_size": 4 * MIB,
         "cold_layer": 256 * KIB, "images": 5, "pullers": 8, "mix_layer": 64 * KIB, "memory": 64 * MIB, "memory_blob": 16 * MIB,
         "idle": 300, "rules": 300, "some_objects": 50, "objects": 2000,
         "evicted": 300, "verify": [(4 * MIB, 2), (64 * KIB, 30)]}


def machine():
    def first_line(argv):
        path = program(argv[0])
        if path is None:
            return "absent"
        with contextlib.suppress(OSError):
            done = subprocess.run([path, *argv[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            return done.stdout.strip().split("\n")[0]
        return "absent"
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {"time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "kernel": platform.release(),
            "processors": os.cpu_count(), "model": model[1] if model else platform.machine(), "load": os.getloadavg(),
            "versions": {argv[0]: first_line(argv) for argv in (
                ["nginx", "-v"], ["h2o", "--version"], ["docker-registry", "--version"], ["varnishd", "-V"],
                ["traffic_server", "--version"], ["wrk", "-v"])}}


def raise_file_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (want, hard))


def arguments():
    p = argparse.ArgumentParser(prog="run.sh", description="Measures larder next to its peers and says which targets are met. "
                                "Exit status: 0 all met, 3 some not, 2 wrong arguments, 1 the measurement could not be made.")
    p.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join([*SCENARIOS, *GROUPS])} (all)")
    p.add_argument("--quick", action="store_true", help="small and short, to see that everything works: judges no times")
    p.add_argument("--figures", action="store_true", help="the short run of figures.sh: herd, hits and idle against nginx and h2o")
    p.add_argument("--larder", type=Path, default=ROOT / "build/release/larder", help="the program (build/release/larder)")
    p.add_argument("--tools", type=Path, help="folder of larder-load and its like (bench/ beside the program)")
    p.add_argument("--out", type=Path, default=HERE / "results", help="folder for the results (bench/results)")
    p.add_argument("--peers", help=f"of {','.join(PEERS)}, with commas (all)")
    p.add_argument("--tmp", type=Path, help="where stores and files go while it runs: not a tmpfs (the system's temporary folder)")
    for name, what in (("rounds", "rounds, of which the median counts"), ("herd", "clients of the herd"), ("idle", "idle connections"),
                       ("rules", "rules of larder with many"), ("objects", "objects of larder with many")):
        p.add_argument(f"--{name}", type=int, help=f"{what} ({FULL[name]})")
    p.add_argument("--seconds", type=float, help=f"length of one run of a closed or open loop ({FULL['seconds']:.0f})")
    args = p.parse_args()
    check(p, args)
    scale = {**FULL, **(FIGURES if args.figures else {}), **(QUICK if args.quick else {})}
    scale.update({k: v for k, v in vars(args).items() if k in scale and v is not None and v is not False})
    args.scale = argparse.Namespace(**scale)
    return args


def check(p, args):
    named = args.scenarios or (["herd", "hits", "idle"] if args.figures else list(SCENARIOS))
    args.scenarios = [s for name in named for s in GROUPS.get(name, [name])]
    for name in args.scenarios:
        if name not in SCENARIOS:
            p.error(f"there is no scenario '{name}'; there are {', '.join([*SCENARIOS, *GROUPS])}")
    args.peers = args.peers.split(",") if args.peers else ["direct", "nginx", "h2o"] if args.figures else list(PEERS)
    for name in args.peers:
        if name not in PEERS:
            p.error(f"there is no peer '{name}'; there are {', '.join(PEERS)}")
    args.larder = args.larder.resolve()
    args.tools = (args.tools or args.larder.parent / "bench").resolve()
    tools = ["load", "origin"] + (["bare"] if "bare" in args.peers else []) + (["fill"] if {"many", "evict"} & set(args.scenarios) else [])
    for tool in (args.larder, *(args.tools / f"larder-{name}" for name in tools)):
        if not os.access(tool, os.X_OK):
            p.error(f"{tool} is not a program; build it first, or say where it is with --larder and --tools")


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped
    raise_file_limit()
    before = machine()
    if before["load"][0] > 0.3 * before["processors"] and not args.quick:
        say(f"other programs are running (load {before['load'][0]:.1f} on {before['processors']} processors): the figures will suffer")
    with tempfile.TemporaryDirectory(prefix="larder-bench-", dir=args.tmp) as tmp:
        os.chmod(tmp, 0o711)  # a server that gives up root must get to its folder
        bench = Bench(args.scale, args.larder, args.tools, Path(tmp), args.peers)
        for name in args.scenarios:
            bench.scenario(name, SCENARIOS[name])
    name = "figures" if args.figures else "quick" if args.quick else "results"
    print(report.write(bench, before, args.out, name, args.quick), end="")
    say(f"written to {args.out}: {name}.txt, {name}.json, plots/")
    return 3 if any(f.verdict(args.quick)[1] is False for f in bench.figures) else 0


if __name__ == "__main__":
    sys.exit(main())
