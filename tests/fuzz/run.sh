#!/bin/bash
# Runs one fuzzer for some seconds: run.sh PROGRAM CORPUS WORK. The corpus is copied into WORK first, so that the source tree is only
# read; an input that fails stays in WORK, and its path is in the output.
set -euo pipefail
program=$1 corpus=$2 work=$3
if ! compgen -G "$corpus/*" >/dev/null; then
    echo "no seeds in $corpus: give the fuzzer at least one valid input to start from" >&2
    exit 1
fi
rm -rf "$work"
mkdir -p "$work/corpus"
cp -r "$corpus/." "$work/corpus"
# Twice: the seeds alone first, so that a seed that fails is named, then the search.
"$program" -timeout=5 -artifact_prefix="$work/" "$work"/corpus/* >"$work/seeds.log" 2>&1 || { cat "$work/seeds.log"; exit 1; }
exec "$program" -max_total_time=6 -timeout=5 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$work/" "$work/corpus"
