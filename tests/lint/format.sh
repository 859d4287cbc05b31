#!/bin/bash
# Refuses a C file that clang-format 14 would write differently: format.sh [ROOT]. To mend: clang-format -i FILE.
set -euo pipefail
root=$(realpath "${1:-$(dirname "$0")/../..}")
cd "$root"
mapfile -t files < <(find src tests bench -name '*.[ch]' 2>/dev/null | sort)
if [ ${#files[@]} -eq 0 ]; then
    echo "$root: no C file to look at" >&2
    exit 1
fi
printf '%s\0' "${files[@]}" | xargs -0 -P 2 -n 40 clang-format --dry-run --Werror
echo "${#files[@]} files, no difference"
