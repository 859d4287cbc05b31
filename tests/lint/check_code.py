#!/usr/bin/python3
"""Refuses in C files: functions over 150 lines, functions of libc that invite mistakes, malloc outside base/, bytes beyond ASCII."""
import re

import lint

MAX_FUNCTION = 150

# name -> what to do instead
EVERYWHERE = {
    "strcpy": "copy with a length (base/str.h)",
    "strcat": "build with base/str.h",
    "strncpy": "it may leave the copy unterminated; use base/str.h",
    "strncat": "build with base/str.h",
    "sprintf": "use str_fmt or snprintf",
    "vsprintf": "use vsnprintf",
    "gets": "read with a length",
    "atoi": "it cannot report an error; parse with base/span.h or strtol",
    "atol": "it cannot report an error; parse with base/span.h or strtol",
    "atoll": "it cannot report an error; parse with base/span.h or strtoll",
    "atof": "it cannot report an error; use strtod",
    "strtok": "split with base/span.h",
    "alloca": "the size of a stack frame is fixed",
    "system": "no shell; use posix_spawn with arguments",
    "popen": "no shell; use posix_spawn with arguments",
    "assert": "use MUST or SOFT (base/check.h)",
}
OUTSIDE_BASE = {name: "memory comes from base/mem.h or an arena" for name in (
    "malloc", "calloc", "realloc", "reallocarray", "free", "strdup", "strndup", "asprintf", "vasprintf")}
# The pure rooms: no files, no sockets, no clock.
IN_PURE = {name: "this room is pure; bytes and the time come in as arguments" for name in (
    "fopen", "open", "openat", "read", "write", "socket", "time", "clock_gettime", "gettimeofday", "getenv")}


def calls(code, banned):
    pattern = r"(?<![\w.])(?<!->)(" + "|".join(banned) + r")\s*\("
    for m in re.finditer(pattern, code):
        yield code.count("\n", 0, m.start()) + 1, m.group(1)


def functions(code):
    """(name, first line, number of lines) of every function: its body stands between braces in the first column."""
    lines = code.split("\n")
    start = None
    for i, line in enumerate(lines):
        if line == "{":
            start = i
        elif line == "}" and start is not None:
            head = start - 1
            while head > 0 and lines[head - 1].strip() and lines[head - 1][0] not in "#}":
                head -= 1
            name = re.search(r"(\w+)\s*\(", " ".join(lines[head:start]))
            yield (name.group(1) if name else "?"), head + 1, i - head + 1
            start = None


def banned_in(place):
    banned = dict(EVERYWHERE)
    if place[0] == "src" and place[1] != "base":
        banned.update(OUTSIDE_BASE)
    if place[0] == "src" and place[1] in ("registry", "conf"):
        banned.update(IN_PURE)
    return banned


def check(root, report):
    files = lint.c_files(root, "src", "tests", "bench")
    for path in files:
        raw = path.read_bytes()
        for number, line in enumerate(raw.split(b"\n"), 1):
            if any(byte > 126 or (byte < 32 and byte != 9) for byte in line):
                report.add(path, number, "bytes beyond printable ASCII; write \\x.. in a literal, plain letters in a comment")
        code = lint.code_only(raw.decode("latin-1"))
        banned = banned_in(path.relative_to(root).parts)
        for number, name in calls(code, banned):
            report.add(path, number, f"{name}(): {banned[name]}")
        for name, number, length in functions(code):
            if length > MAX_FUNCTION:
                report.add(path, number, f"{name}() has {length} lines; {MAX_FUNCTION} is the limit, 40 the aim")
    return len(files)


if __name__ == "__main__":
    lint.run(check, __doc__)
