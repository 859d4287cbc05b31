#!/usr/bin/python3
"""Proves that each check refuses what it is there to refuse, and nothing in a clean sample. Each case is a small tree in a temporary
folder: the clean one with one file changed."""
import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent

CLEAN = {
    "src/base/mem.h": "#ifndef A\n#define A\nvoid *mem_alloc(int size);\n#endif\n",
    "src/base/mem.c": '#include <stdlib.h>\n\n#include "base/mem.h"\n\nvoid *mem_alloc(int size)\n{\n    return malloc(size);\n}\n',
    "src/base/digest.c": "#include <nettle/sha2.h>\n",
    "src/registry/name.h": '#include "base/mem.h"\n',
    "src/conf/conf.h": '#include "registry/name.h"\n',
    "src/conf/yaml_in.c": "#include <yaml.h>\n",
    "src/core/core.h": "#include <uv.h>\n",
    "src/core/core_int.h": '#include "core/core.h"\n',
    "src/http/url.h": '#include "net/tcp.h"\n',
    "src/http/h1_in.c": '#include <llhttp.h>\n\n/* never sprintf( or atoi( */\nstatic const char *what = "strcpy(";\n',
    "src/net/tcp.h": '#include "core/core.h"\n',
    "src/store/store.h": '#include "core/core.h"\n',
    "src/store/index.c": "#include <lmdb.h>\n",
    "src/proxy/serve.h": '#include "store/store.h"\n#include "http/url.h"\n#include "net/tcp.h"\n',
    "src/main/main.c": '#include "proxy/serve.h"\n',
    "deps/install.sh": "build=(gcc libc6-dev cmake ninja-build ca-certificates\n    libuv1-dev node-llhttp libyaml-dev liblmdb-dev nettle-dev)\n",
    "tests/unit/core/test_core.c": '#include "core/core_int.h"\n',
}


def long_function(lines):
    return "int f(void)\n{\n" + "    g();\n" * (lines - 3) + "}\n"


# (script, file, its text, what the script says)
BAD = [
    ("check_rooms.py", "src/base/up.c", '#include "core/core.h"\n', 'base may not include "core/core.h"'),
    ("check_rooms.py", "src/registry/up.c", '#include "conf/conf.h"\n', 'registry may not include "conf/conf.h"'),
    ("check_rooms.py", "src/conf/loop.c", '#include "core/core.h"\n', 'conf may not include "core/core.h"'),
    ("check_rooms.py", "src/store/web.c", '#include "http/url.h"\n', 'store may not include "http/url.h"'),
    ("check_rooms.py", "src/http/reg.c", '#include "registry/name.h"\n', 'http may not include "registry/name.h"'),
    ("check_rooms.py", "src/admin/live.c", '#include "proxy/serve.h"\n', 'admin may not include "proxy/serve.h"'),
    ("check_rooms.py", "src/cli/web.c", '#include "http/url.h"\n', 'cli may not include "http/url.h"'),
    ("check_rooms.py", "src/net/peek.c", '#include "core/core_int.h"\n', "stays in its room"),
    ("check_rooms.py", "src/core/near.c", '#include "core.h"\n', 'write own headers as "room/name.h"'),
    ("check_rooms.py", "src/core/gone.c", '#include "core/gone.h"\n', "no such file"),
    ("check_rooms.py", "src/attic/old.c", "int x;\n", "not in a room"),
    ("check_rooms.py", "src/http/loop.c", "#include <uv.h>\n", "<uv.h> may be included in core, net only"),
    ("check_rooms.py", "src/http/h1_out.c", "#include <llhttp.h>\n", "llhttp.h is included in 2 files; 1 may"),
    ("check_rooms.py", "src/conf/edit.c", "#include <yaml.h>\n", "yaml.h is included in 2 files; 1 may"),
    ("check_rooms.py", "src/store/tags.c", "#  include <lmdb.h>\n", "lmdb.h is included in 2 files; 1 may"),
    ("check_rooms.py", "src/store/hash.c", "#include <nettle/sha2.h>\n", "may be included in base/digest.c only"),
    ("check_rooms.py", "src/http/hash.c", "#include <xxhash.h>\n", "may be included in base/map.c, store only"),
    ("check_rooms.py", "src/http/tls.c", "#include <bearssl_ssl.h>\n", "may be included in net only"),
    ("check_rooms.py", "src/conf/json.c", "#include <jansson.h>\n", "may be included in registry, admin, cli only"),
    ("check_rooms.py", "src/net/ssl.c", "#include <openssl/ssl.h>\n", "of no library"),
    ("check_rooms.py", "src/registry/file.c", "#include <unistd.h>\n", "registry is pure"),
    ("check_rooms.py", "deps/install.sh", CLEAN["deps/install.sh"].replace("nettle-dev", "nettle-dev libjansson-dev"), "install.sh:2: libjansson-dev: no source includes"),
    ("check_rooms.py", "deps/install.sh", CLEAN["deps/install.sh"].replace("liblmdb-dev", ""), "liblmdb-dev: a build needs it"),
    ("check_rooms.py", "tests/unit/net/test_net.c", '#include "core/core_int.h"\n', "only tests of that room"),
    ("check_code.py", "src/net/a.c", long_function(151), "f() has 151 lines"),
    ("check_code.py", "src/net/a.c", "void f(void)\n{\n    strcpy(a, b);\n}\n", "a.c:3: strcpy()"),
    ("check_code.py", "src/net/a.c", "int x = atoi (s);\n", "atoi()"),
    ("check_code.py", "src/net/a.c", "    vsprintf(a, b, c);\n", "vsprintf()"),
    ("check_code.py", "src/net/a.c", "    sprintf(a, b);\n", "sprintf()"),
    ("check_code.py", "src/net/a.c", "    strcat(a, b);\n", "strcat()"),
    ("check_code.py", "src/net/a.c", "    gets(a);\n", "gets()"),
    ("check_code.py", "src/net/a.c", "    atol(a);\n", "atol()"),
    ("check_code.py", "src/net/a.c", "    strtok(a, b);\n", "strtok()"),
    ("check_code.py", "src/net/a.c", "    system(a);\n", "system()"),
    ("check_code.py", "src/net/a.c", "    assert(a);\n", "assert()"),
    ("check_code.py", "src/net/a.c", "    p = malloc(3);\n", "malloc()"),
    ("check_code.py", "src/net/a.c", "    p = calloc(3, 1);\n", "calloc()"),
    ("check_code.py", "src/net/a.c", "    p = realloc(p, 1);\n", "realloc()"),
    ("check_code.py", "src/net/a.c", '    puts("free(");\n    free(p);\n', "a.c:2: free()"),
    ("check_code.py", "src/conf/a.c", "    f = fopen(p, m);\n", "fopen(): this room is pure"),
    ("check_code.py", "bench/a.c", "    strcpy(a, b);\n", "strcpy()"),
    ("check_code.py", "src/net/a.c", "/* caf\u00e9 */\n", "printable ASCII"),
    ("check_words.py", "docs/a.md", "see /wo" "rk/main\n", "must not be in the project"),
    ("check_words.py", "tests/a.py", "url = 'https://py" "pi.org/simple'\n", "must not be in the project"),
    ("check_words.py", "src/net/a.c", "/* FIX" "ME: later */\n", "finish it"),
    ("format.sh", "src/net/a.c", "int  f( void ){return 1;}\n", "clang-format"),
    ("tidy.sh", "src/net/a.c", "int f(int *p);\nint f(int *p)\n{\n    if (!p)\n        return *p;\n    return 0;\n}\n", "core.NullDereference"),
    ("tidy.sh", "src/net/a.c", "int f(int a);\nint f(int b)\n{\n    if (b);\n        return 1;\n    return 0;\n}\n", "bugprone-suspicious-semicolon"),
]

# clang-tidy parses for real, and so has a clean sample of its own: no header that the sample does not have.
CLEAN_TIDY = {"src/net/tcp.c": "int tcp_one(void);\nint tcp_one(void)\n{\n    return 1;\n}\n"}


def clean(script):
    return CLEAN_TIDY if script == "tidy.sh" else CLEAN


def run_on(script, files):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = pathlib.Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if script.endswith(".sh"):
            for name in (".clang-format", ".clang-tidy"):
                pathlib.Path(folder, name).write_bytes((HERE.parents[1] / name).read_bytes())
            entries = [{"directory": folder, "file": name, "command": f"cc -c {name}"} for name in files if name.endswith(".c")]
            pathlib.Path(folder, "compile_commands.json").write_text(json.dumps(entries), encoding="utf-8")
            command = ["bash", HERE / script, folder, folder] if script == "tidy.sh" else ["bash", HERE / script, folder]
        else:
            command = ["/usr/bin/python3", "-B", HERE / script, "--root", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr


def main():
    wrong = 0
    for script in sorted({case[0] for case in BAD}):
        code, output = run_on(script, clean(script))
        if code != 0:
            wrong += 1
            print(f"{script} refuses the clean sample:\n{output}")
        code, output = run_on(script, {})
        if code == 0:
            wrong += 1
            print(f"{script} is content with an empty folder")
    for script, name, text, said in BAD:
        code, output = run_on(script, {**clean(script), name: text})
        if code == 0 or said not in output or name not in output:
            wrong += 1
            print(f"{script} should refuse {name} with '{said}':\n{text}\nit ended with {code} and said:\n{output}")
    code, output = run_on("check_code.py", {**CLEAN, "src/net/a.c": long_function(150)})
    if code != 0:
        wrong += 1
        print(f"check_code.py refuses a function of 150 lines:\n{output}")
    print(f"{len(BAD)} bad samples, {wrong} failures")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
