#!/bin/bash
# Builds larder in every way it is tested and runs all tests: tests/run.sh [unit|flow|fuzz|lint]...   (default: all)
#
#   gcc     Release: unit, lint, and the flows of tests/flow/release.list
#   clang   Release: that it compiles without a warning
#   asan    address and undefined behaviour: unit, flow
#   tsan    threads: unit, and the flows of tests/flow/threads.list
#   fuzz    clang, libFuzzer, address and undefined behaviour: six seconds for each fuzzer
#
# One ctest run over all of them gives one summary, which is the last thing printed. Needs Debian 12; installs what is missing
# (deps/install.sh). Environment: LARDER_BUILD (where to build, default build/), LARDER_JOBS (default: number of processors).
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
out=$(realpath -m "${LARDER_BUILD:-build}")
jobs=${LARDER_JOBS:-$(nproc)}

say() { printf '== %3ds  %s\n' "$SECONDS" "$*"; }

labels=("$@")
[ ${#labels[@]} -gt 0 ] || labels=(unit flow fuzz lint)
builds=()
for label in "${labels[@]}"; do
    case $label in
    unit | flow) builds+=(gcc clang asan tsan) ;;
    fuzz) builds+=(fuzz) ;;
    lint) builds+=(gcc) ;;
    *)
        echo "tests/run.sh: unknown label '$label'; the labels are unit, flow, fuzz and lint" >&2
        exit 2
        ;;
    esac
done

say "packages"
deps/install.sh build test

launcher=()
if command -v ccache >/dev/null; then
    launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
fi

# make_build NAME COMPILER TYPE [cmake options]
make_build() {
    local name=$1 compiler=$2 type=$3
    shift 3
    [[ " ${builds[*]} " == *" $name "* ]] || return 0
    say "build $name ($compiler, $type)"
    mkdir -p "$out/$name"
    if ! cmake -G Ninja -S . -B "$out/$name" -DCMAKE_C_COMPILER="$compiler" -DCMAKE_BUILD_TYPE="$type" "${launcher[@]}" "$@" \
        >"$out/$name/configure.log" 2>&1; then
        cat "$out/$name/configure.log" >&2
        exit 1
    fi
    cmake --build "$out/$name" -j "$jobs" -- --quiet
    [ "$name" = clang ] || echo "subdirs(\"$out/$name\")" >>"$out/all/CTestTestfile.cmake"
}

# ctest goes where CTestTestfile.cmake sends it: one that names the other builds makes one run of them.
mkdir -p "$out/all"
: >"$out/all/CTestTestfile.cmake"
make_build gcc gcc Release "-DLARDER_TESTS=unit;flow-release;lint"
make_build clang clang Release
make_build asan gcc Asan "-DLARDER_TESTS=unit;flow" -DLARDER_TEST_SUFFIX=.asan -DLARDER_BENCH=OFF
make_build tsan gcc Tsan "-DLARDER_TESTS=unit;flow-threads" -DLARDER_TEST_SUFFIX=.tsan -DLARDER_BENCH=OFF
make_build fuzz clang Asan -DLARDER_FUZZ=ON

say "tests: ${labels[*]}"
pattern=$(IFS='|'; echo "^(${labels[*]})\$")
exec ctest --test-dir "$out/all" -L "$pattern" -j "$jobs" --no-tests=error --output-on-failure --output-junit "$out/results.xml"
