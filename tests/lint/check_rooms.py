#!/usr/bin/python3
"""Holds the #include lines to the architecture: which room may include which, and which file may include a library's header; and the
packages that a build installs to the libraries that are included.

A room is a folder under src/. It may include the rooms it has an arrow to, and what those may include. A header named *_int.h is for
its own room only, also in tests.
"""
import re

import lint

ARROWS = {
    "base": [],
    "registry": ["base"],
    "conf": ["base", "registry"],
    "core": ["base"],
    "net": ["core"],
    "http": ["net"],
    "store": ["base", "core"],
    "flight": ["store"],
    "proxy": ["http", "registry", "conf", "store", "flight"],
    "admin": ["http", "store", "flight", "conf", "core"],
    "cli": ["base", "conf"],
    "main": ["base", "registry", "conf", "core", "net", "http", "store", "flight", "proxy", "admin", "cli"],
}

# A library's header: where it may be included, as a room or as one file, in how many files at most, and which package it is from.
LIBRARIES = [
    (r"uv\.h", ["core", "net"], None, "libuv1-dev"),
    (r"llhttp\.h", ["http"], 1, "node-llhttp"),
    (r"yaml\.h", ["conf"], 1, "libyaml-dev"),
    (r"lmdb\.h", ["store"], 1, "liblmdb-dev"),
    (r"nettle/.*", ["base/digest.c"], None, "nettle-dev"),
    (r"xxhash\.h", ["base/map.c", "store"], None, "libxxhash-dev"),
    (r"bearssl.*\.h", ["net"], None, "libbearssl-dev"),
    (r"jansson\.h", ["registry", "admin", "cli"], None, "libjansson-dev"),
]
TOOLS = {"gcc", "libc6-dev", "cmake", "ninja-build", "ca-certificates"}

# The C library and the kernel. What is neither here nor above is a new dependency, and wants a decision.
SYSTEM = re.compile(
    r"(assert|ctype|dirent|errno|fcntl|float|getopt|glob|ifaddrs|inttypes|limits|link|locale|math|netdb|poll|pthread|pwd|grp|sched|"
    r"semaphore|signal|stdalign|stdarg|stdatomic|stdbool|stddef|stdint|stdio|stdlib|stdnoreturn|string|strings|syslog|termios|"
    r"threads|time|unistd|fnmatch|spawn|endian|execinfo|malloc)\.h|(sys|netinet|arpa|net|linux|sanitizer)/[a-z0-9_.]+\.h")

# The pure rooms take bytes and the time as arguments.
PURE = {"registry", "conf"}
IMPURE = re.compile(r"(fcntl|unistd|time|pthread|dirent|netdb|poll|signal|sys/stat|sys/time|sys/mman|sys/epoll|spawn)\.h")

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.M)


def reachable(room):
    seen, todo = {room}, [room]
    while todo:
        for other in ARROWS[todo.pop()]:
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


def includes(path):
    text = path.read_text(encoding="utf-8", errors="replace")
    uncommented = re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group(0)), text, flags=re.S)
    for m in INCLUDE.finditer(uncommented):
        yield uncommented.count("\n", 0, m.start()) + 1, m.group(1), m.group(2)


def check_own(root, report, path, line, room, name):
    other = name.split("/")[0]
    if "/" not in name or other not in ARROWS:
        report.add(path, line, f'"{name}": write own headers as "room/name.h"')
        return
    if not (root / "src" / name).exists():
        report.add(path, line, f'"{name}": there is no such file under src/')
    if other not in reachable(room):
        report.add(path, line, f'{room} may not include "{name}": its arrows lead to {", ".join(sorted(reachable(room) - {room})) or "nothing"}')
    elif re.search(r"_int\.h$", name) and other != room:
        report.add(path, line, f'{room} may not include "{name}": a header named *_int.h stays in its room')


def check_library(report, path, line, room, place, name, users):
    for pattern, allowed, limit, _ in LIBRARIES:
        if re.fullmatch(pattern, name):
            if room not in allowed and place not in allowed:
                report.add(path, line, f"<{name}> may be included in {', '.join(allowed)} only")
            users.setdefault((pattern, limit), {}).setdefault(path, line)
            return
    if not SYSTEM.fullmatch(name):
        report.add(path, line, f"<{name}> is of no library that this project has decided to use (see LIBRARIES in tests/lint/check_rooms.py)")
    elif room in PURE and IMPURE.fullmatch(name):
        report.add(path, line, f"<{name}>: {room} is pure; bytes and the time come in as arguments")


def check_source(root, report, path, users):
    place = path.relative_to(root / "src").as_posix()
    room = place.split("/")[0]
    if room not in ARROWS or "/" not in place:
        report.add(path, 1, f"src/{place}: not in a room; the rooms are {', '.join(ARROWS)}")
        return
    for line, quote, name in includes(path):
        if quote == '"':
            check_own(root, report, path, line, room, name)
        else:
            check_library(report, path, line, room, place, name, users)


def check_test(root, report, path):
    room = path.relative_to(root).parts[2] if path.is_relative_to(root / "tests" / "unit") else None
    for line, quote, name in includes(path):
        if quote == '"' and name.endswith("_int.h") and name.split("/")[0] != room:
            report.add(path, line, f'"{name}": only tests of that room may look inside it')


def installed(path):
    """(line, package) of the group `build` of deps/install.sh."""
    text = path.read_text(encoding="utf-8")
    group = re.search(r"^build=\(([^)]*)\)", text, re.M)
    for m in re.finditer(r"\S+", group.group(1) if group else ""):
        yield text.count("\n", 0, group.start(1) + m.start()) + 1, m.group(0)


def check_packages(root, report, users):
    """What is installed is used, and what is used is installed."""
    used = {package for pattern, _, limit, package in LIBRARIES if (pattern, limit) in users}
    path = root / "deps" / "install.sh"
    packages = list(installed(path))
    for line, package in packages:
        if package not in used | TOOLS:
            report.add(path, line, f"{package}: no source includes a header of it; a build does not need it")
    for package in sorted((used | TOOLS) - {package for _, package in packages}):
        report.add(path, 1, f"{package}: a build needs it, and it is not installed")


def check(root, report):
    sources = lint.c_files(root, "src")
    others = lint.c_files(root, "tests", "bench")
    users = {}
    for path in sources:
        check_source(root, report, path, users)
    for path in others:
        check_test(root, report, path)
    for (pattern, limit), files in users.items():
        if limit is not None and len(files) > limit:
            for path, line in files.items():
                report.add(path, line, f"{pattern.replace(chr(92), '')} is included in {len(files)} files; {limit} may")
    if sources:
        check_packages(root, report, users)
    return len(sources) + len(others)


if __name__ == "__main__":
    lint.run(check, __doc__)
