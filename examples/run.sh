#!/bin/bash
# Builds larder and runs it with examples/config.yaml: examples/run.sh [--no-demo]
#
# The demonstration needs no network: it starts a registry of its own on 127.0.0.1:5002, pushes a small image into it, and pulls that
# image twice through larder. Then larder serves on 127.0.0.1:5000 (admin: 127.0.0.1:5001) until it is interrupted.
# With --no-demo there is neither registry nor image: build and serve.
set -euo pipefail
cd "$(dirname "$0")/.."

registry=127.0.0.1:5002
cache=127.0.0.1:5000
admin=127.0.0.1:5001
demo=1
case ${1-} in
'') ;;
--no-demo) demo= ;;
*)
    echo "usage: examples/run.sh [--no-demo]" >&2
    exit 2
    ;;
esac

say() { echo "== $*"; }

answers() { (exec 3<>"/dev/tcp/${1%:*}/${1#*:}") 2>/dev/null; }

must_be_free() {
    if answers "$1"; then
        echo "examples/run.sh: something already listens on $1, which is for $2. Stop it (ss -ltnp shows what it is) and start again" >&2
        exit 1
    fi
}

# wait_for ADDRESS PID NAME [LOG]
wait_for() {
    for _ in {1..100}; do
        if ! kill -0 "$2" 2>/dev/null; then
            echo "examples/run.sh: $3 ended instead of listening on $1" >&2
            [ -z "${4-}" ] || cat "$4" >&2
            exit 1
        fi
        answers "$1" && return
        sleep 0.1
    done
    echo "examples/run.sh: $3 does not listen on $1 after 10 seconds" >&2
    exit 1
}

pids=()
folder=
clean_up() {
    trap - EXIT INT TERM
    # In the order larder, registry: a cache that is stopping may still ask its upstream.
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill "${pids[i]}" 2>/dev/null || true
        wait "${pids[i]}" 2>/dev/null || true
    done
    [ -z "$folder" ] || rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

must_be_free "$cache" "larder"
must_be_free "$admin" "larder's admin address"
[ -z "$demo" ] || must_be_free "$registry" "the demonstration's registry"

say "packages"
deps/install.sh build ${demo:+demo}

say "build"
mkdir -p build/release
cmake -G Ninja -S . -B build/release -DCMAKE_BUILD_TYPE=Release -DLARDER_TESTS= -DLARDER_BENCH=OFF >build/release/configure.log ||
    { cat build/release/configure.log; exit 1; }
cmake --build build/release -- --quiet
larder=build/release/larder

if [ -n "$demo" ]; then
    say "a registry on $registry with the image hello:latest"
    folder=$(mktemp -d)
    cat >"$folder/registry.yml" <<END
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $folder/registry}}
http: {addr: "$registry"}
END
    docker-registry serve "$folder/registry.yml" >"$folder/registry.log" 2>&1 &
    pids+=($!)
    wait_for "$registry" $! "docker-registry" "$folder/registry.log"
    /usr/bin/python3 -B examples/demo.py image "$folder/image"
    skopeo --insecure-policy copy -q --dest-tls-verify=false "oci:$folder/image:latest" "docker://$registry/hello:latest"
fi

mkdir -p .larder
say "larder on $cache, admin on $admin, log in .larder/log"
"$larder" serve -f examples/config.yaml 2>.larder/log &
pids+=($!)
wait_for "$cache" $! "larder" .larder/log
wait_for "$admin" $! "larder" .larder/log

if [ -n "$demo" ]; then
    say "pulling $cache/demo/hello:latest twice"
    /usr/bin/python3 -B examples/demo.py pull "$cache/demo/hello:latest" "$admin"
    say "pull it yourself: skopeo copy --src-tls-verify=false docker://$cache/demo/hello:latest dir:/tmp/hello"
fi
say "serving until interrupted (Ctrl-C)"
wait "${pids[-1]}"
