"""What the checks of the sources share: finding files, blanking comments and strings, reporting."""
import argparse
import pathlib
import re
import sys

SKIP_FOLDERS = {".git", ".larder", ".cache", "build", "__pycache__"}


class Report:
    def __init__(self, root):
        self.root = root
        self.findings = 0

    def add(self, path, line, text):
        self.findings += 1
        print(f"{path.relative_to(self.root)}:{line}: {text}")


def run(check, doc):
    """Runs check(root, report) for a script and exits 1 when it reported something."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2],
                        help="the repository (default: the one this script is in)")
    root = parser.parse_args().root.resolve()
    report = Report(root)
    looked_at = check(root, report)
    if looked_at == 0:
        sys.exit(f"{root}: no file to look at; is --root the repository?")
    print(f"{looked_at} files, {report.findings} findings")
    sys.exit(1 if report.findings else 0)


def c_files(root, *tops):
    """The C sources and headers under the named folders, in order."""
    return [p for top in tops for p in sorted((root / top).rglob("*")) if p.suffix in (".c", ".h", ".def") and p.is_file()]


def all_files(root):
    """Every file of the project. A folder with a CMakeCache.txt is somebody's build."""
    found = []
    for p in sorted(root.iterdir()):
        if p.is_dir() and not p.is_symlink():
            if p.name not in SKIP_FOLDERS and not (p / "CMakeCache.txt").exists():
                found += all_files(p)
        elif p.is_file():
            found.append(p)
    return found


_TOKENS = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def code_only(text):
    """The text with comments and literals blanked, and every line where it was."""
    def blank(m):
        s = m.group(0)
        if s[0] in "\"'":
            return s[0] + " " * (len(s) - 2) + s[0]
        return re.sub(r"[^\n]", " ", s)
    return _TOKENS.sub(blank, text)
