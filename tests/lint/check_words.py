#!/usr/bin/python3
"""Refuses words that do not belong in the project: paths of the machine it was written on, hosts of package registries (a build takes
what the system's package manager is configured for), and marks of unfinished work."""
import re

import lint

# Each word is written in two parts, so that this file does not contain it.
WORDS = [a + b for a, b in (
    ("/wo", "rk/"), ("/fa", "rm/"), ("/tmp/ba", "sh_jobs"), (".py", "env"), ("deb.deb", "ian.org"), ("security.deb", "ian.org"),
    ("registry.np", "mjs"), ("registry.ya", "rnpkg"), ("py", "pi.org"), ("pythonho", "sted"), ("crates", ".io"),
    ("proxy.gol", "ang.org"), ("ruby", "gems.org"), ("archive.ub", "untu.com"))]
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b")


def check(root, report):
    files = lint.all_files(root)
    for path in files:
        raw = path.read_bytes()
        if b"\0" in raw:
            continue
        for number, line in enumerate(raw.decode("utf-8", errors="replace").split("\n"), 1):
            for word in WORDS:
                if word in line:
                    report.add(path, number, f"'{word}' must not be in the project")
            m = UNFINISHED.search(line)
            if m:
                report.add(path, number, f"'{m.group(1)}': finish it, or open an issue")
    return len(files)


if __name__ == "__main__":
    lint.run(check, __doc__)
