#!/bin/bash
# Names the C files that clang-format 14 would write differently, and refuses them: format.sh [ROOT]. To mend: clang-format -i FILE.
set -euo pipefail
cd "${1:-$(dirname "$0")/../..}"
mapfile -t files < <(find src tests bench -name '*.[ch]' 2>/dev/null | sort)
if [ ${#files[@]} -eq 0 ]; then
    echo "$PWD: no C file to look at" >&2
    exit 1
fi
differ=0
for file in "${files[@]}"; do
    if ! first=$(clang-format "$file" | diff -u --label "$file" --label "$file (clang-format -i)" "$file" - | head -n 12; exit "${PIPESTATUS[1]}"); then
        echo "$first"
        differ=$((differ + 1))
    fi
done
echo "${#files[@]} files, $differ differ from clang-format's style"
[ "$differ" -eq 0 ]
