#!/bin/bash
# Runs clang-tidy 14 with .clang-tidy over src/: tidy.sh BUILD [ROOT]. BUILD has the compile_commands.json.
set -euo pipefail
build=$(realpath "$1")
cd "${2:-$(dirname "$0")/../..}"
if [ ! -f "$build/compile_commands.json" ]; then
    echo "$build has no compile_commands.json; configure it first" >&2
    exit 1
fi
mapfile -t files < <(find src -name '*.c' | sort)
if [ ${#files[@]} -eq 0 ]; then
    echo "$PWD: no C file under src/" >&2
    exit 1
fi
# What it says on stderr is how many warnings it left out in system headers.
printf '%s\0' "${files[@]}" | xargs -0 -P "$(nproc)" -n 1 clang-tidy -p "$build" --quiet \
    --extra-arg=-Wno-ignored-optimization-argument 2>/dev/null # what gcc is told and clang does not know
echo "${#files[@]} files, nothing found"
