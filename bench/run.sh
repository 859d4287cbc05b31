#!/bin/bash
# Measures larder next to its peers: run.sh [--larder PATH] [OPTION]... [SCENARIO]...   (--help says more; README.md how to read it)
# Installs the packages that it needs. Without --larder it builds the program and the tools of bench/ in build/release first.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
root=$(dirname "$here")

# --quick and --help take what is there: a peer that is not installed is a "no".
case " $* " in
*" --quick "* | *" --help "* | *" -h "*) ;;
*) "$root/deps/install.sh" build bench >&2 ;;
esac
case " $* " in
*" --larder"* | *" --help "* | *" -h "*) ;;
*)
    mkdir -p "$root/build/release"
    cmake -G Ninja -S "$root" -B "$root/build/release" -DCMAKE_BUILD_TYPE=Release -DLARDER_TESTS= -DLARDER_BENCH=ON \
        >"$root/build/release/configure.log" || { cat "$root/build/release/configure.log" >&2; exit 1; }
    cmake --build "$root/build/release" -- --quiet >&2
    ;;
esac
exec /usr/bin/python3 -B "$here/run.py" "$@"
