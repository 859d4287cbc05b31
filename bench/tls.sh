#!/bin/bash
# A cold pull from a registry by TLS, next to curl that downloads the same: tls.sh [--larder PATH] [--rounds N] [--size MIB]
#
# nginx on loopback serves one blob by TLS 1.2 (AES-128-GCM, an ECDSA key). In turn, curl fetches it directly, and through a larder whose store is
# empty and whose clients use plain HTTP. Prints seconds for each round and the ratio of the medians; the target is at most 1.3. Exit
# status: 0 met, 3 not met, 1 could not be measured, 2 wrong arguments.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
root=$(dirname "$here")

larder=$root/build/release/larder rounds=5 mib=256 target=1.3
while [ $# -gt 0 ]; do
    case $1 in
    --larder) larder=$(realpath "${2:?}") ;;
    --rounds) rounds=${2:?} ;;
    --size) mib=${2:?} ;;
    *)
        echo "bench/tls.sh: unknown argument '$1'; it takes --larder PATH, --rounds N and --size MIB" >&2
        exit 2
        ;;
    esac
    shift 2
done
fail() {
    echo "bench/tls.sh: $*" >&2
    exit 1
}
[ -x "$larder" ] || fail "$larder is not a program: build it, or say --larder PATH"
PATH=$PATH:/usr/sbin
for program in nginx openssl curl; do
    command -v "$program" >/dev/null || fail "$program is not installed (deps/install.sh test)"
done
unset HTTPS_PROXY https_proxy HTTP_PROXY http_proxy ALL_PROXY all_proxy

folder=$(mktemp -d)
nginx_pid='' larder_pid=''
stop() {
    # shellcheck disable=SC2086  # none, one or two
    [ -z "$nginx_pid$larder_pid" ] || kill $nginx_pid $larder_pid 2>/dev/null || true
    wait || true
    rm -rf "$folder"
}
trap stop EXIT

free_port() {
    /usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
await() { # PORT NAME
    for _ in $(seq 100); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.1
    done
    fail "$2 does not listen: $(tail -n 3 "$folder/$2.log")"
}

# --- the registry ---
nginx_port=$(free_port)
mkdir -p "$folder/client" "$folder/www/v2/app/blobs"
head -c "${mib}M" /dev/urandom >"$folder/blob"
digest=sha256:$(sha256sum <"$folder/blob" | cut -d' ' -f1)
mv "$folder/blob" "$folder/www/v2/app/blobs/$digest"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
    -keyout "$folder/key.pem" -out "$folder/cert.pem" 2>/dev/null
cat >"$folder/nginx.conf" <<END
daemon off; worker_processes 1; pid $folder/nginx.pid; error_log stderr warn;
$([ "$(id -u)" -ne 0 ] || echo "user root;")
events {}
http {
  access_log off; sendfile on; default_type application/octet-stream;
  client_body_temp_path $folder/t1; proxy_temp_path $folder/t2; fastcgi_temp_path $folder/t3; uwsgi_temp_path $folder/t4; scgi_temp_path $folder/t5;
  server {
    listen 127.0.0.1:$nginx_port ssl; root $folder/www;
    ssl_certificate $folder/cert.pem; ssl_certificate_key $folder/key.pem;
    ssl_protocols TLSv1.2; ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256; ssl_buffer_size 16k;
  }
}
END
nginx -c "$folder/nginx.conf" >"$folder/nginx.log" 2>&1 &
nginx_pid=$!
await "$nginx_port" nginx

# --- one download, in seconds ---
fetch() { # URL [curl options]
    local seconds
    rm -f "$folder/client/got"
    sync -f "$folder" # what earlier downloads left to be written, or to be discarded, is not this one's
    sleep 0.2
    seconds=$(curl -sSf -q --cacert "$folder/cert.pem" -o "$folder/client/got" -w '%{time_total}' "$@") || fail "curl cannot fetch $1: $(tail -n 3 "$folder/larder.log")"
    [ "sha256:$(sha256sum <"$folder/client/got" | cut -d' ' -f1)" = "$digest" ] || fail "$1 gave other bytes"
    echo "$seconds"
}

direct() { fetch "https://localhost:$nginx_port/v2/app/blobs/$digest"; }

through_larder() {
    local port admin seconds
    port=$(free_port) admin=$(free_port)
    rm -rf "$folder/store"
    cat >"$folder/larder.yaml" <<END
listen: [{address: "127.0.0.1:$port"}]
admin: {address: "127.0.0.1:$admin"}
store: {path: $folder/store}
upstreams: [{registry: bench.test, endpoints: ["https://localhost:$nginx_port"], ca: $folder/cert.pem}]
rules: [{name: bench, source: bench.test/*, target: "*"}]
log: {level: warn, access: false}
END
    "$larder" serve -f "$folder/larder.yaml" >"$folder/larder.log" 2>&1 &
    larder_pid=$!
    await "$port" larder
    seconds=$(fetch "http://127.0.0.1:$port/v2/app/blobs/$digest")
    kill "$larder_pid"
    wait "$larder_pid" || fail "larder did not end well: $(tail -n 3 "$folder/larder.log")"
    larder_pid=''
    echo "$seconds"
}

median() { sort -g | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'; }

: >"$folder/larder.log"
direct >/dev/null # the file is in memory from here on
for round in $(seq "$rounds"); do
    direct >>"$folder/direct"
    through_larder >>"$folder/cold"
    printf 'round %d: direct %s s, larder %s s\n' "$round" "$(tail -n 1 "$folder/direct")" "$(tail -n 1 "$folder/cold")"
done
awk -v d="$(median <"$folder/direct")" -v c="$(median <"$folder/cold")" -v t="$target" -v mib="$mib" 'BEGIN {
    printf "%d MiB by TLS 1.2, cold: direct %.3f s, larder %.3f s, ratio %.2f, target %.2f: %s\n", mib, d, c, c / d, t, c <= t * d ? "met" : "not met"
    exit c <= t * d ? 0 : 3
}'
