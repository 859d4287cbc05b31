#!/bin/bash
# Installs the Debian packages that larder needs: deps/install.sh [build] [test] [bench] [demo]   (default: build test)
#
#   build  compiler, build tools and libraries
#   test   what tests/run.sh runs: clang and its tools, test frameworks, registries and clients to test against
#   bench  load generators and the servers that larder is compared with
#   demo   what examples/run.sh shows larder with
#
# Debian 12, as root or with sudo. Installs only what is missing; says so and does nothing when nothing is. Some packages bring a
# service (nginx, docker-registry, containerd, tinyproxy, h2o, varnish, trafficserver): the tests start their own copies, so no service is started here.
set -euo pipefail

build=(gcc libc6-dev cmake ninja-build ca-certificates
    libuv1-dev node-llhttp libbearssl-dev libyaml-dev libxxhash-dev liblmdb-dev nettle-dev libjansson-dev)
tests=(clang llvm libclang-rt-14-dev clang-tidy clang-format ccache
    libcmocka-dev libssl-dev python3 python3-pytest python3-yaml openssl iproute2 strace
    docker-registry skopeo containerd podman nginx-light curl tinyproxy)
bench=(libssl-dev openssl wrk nginx-light h2o varnish trafficserver docker-registry gnuplot-nox python3 iproute2 strace)
demo=(docker-registry skopeo python3)

say() { echo "deps/install.sh: $*"; }

usage() {
    say "unknown group '$1'; the groups are build, test, bench and demo" >&2
    exit 2
}

wanted=()
[ $# -gt 0 ] || set -- build test
for group in "$@"; do
    case $group in
    build) wanted+=("${build[@]}") ;;
    test) wanted+=("${tests[@]}") ;;
    bench) wanted+=("${bench[@]}") ;;
    demo) wanted+=("${demo[@]}") ;;
    *) usage "$group" ;;
    esac
done

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    say "this is not a Debian system; see deps/README.md for what to install by other means" >&2
    exit 1
fi

missing=()
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null || true)
for package in $(printf '%s\n' "${wanted[@]}" | sort -u); do
    grep -qx "installed $package" <<<"$installed" || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    say "everything for '$*' is installed"
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        say "missing: ${missing[*]}. Run this as root, or install sudo" >&2
        exit 1
    fi
    as_root=(sudo)
fi

# Services must not start. Where systemd runs, their units are masked until the next boot at the latest, and unmasked at the end;
# elsewhere runlevel 1 makes invoke-rc.d refuse to start them.
units=()
if [ -d /run/systemd/system ]; then
    for package in "${missing[@]}"; do
        case $package in
        nginx-light) units+=(nginx.service) ;;
        docker-registry | containerd | tinyproxy | h2o | trafficserver) units+=("$package.service") ;;
        varnish) units+=(varnish.service varnishncsa.service) ;;
        podman) units+=(podman.service podman.socket podman-auto-update.timer podman-restart.service) ;;
        esac
    done
fi
unmask() {
    [ ${#units[@]} -eq 0 ] || "${as_root[@]}" systemctl --runtime unmask "${units[@]}"
}
trap unmask EXIT
[ ${#units[@]} -eq 0 ] || "${as_root[@]}" systemctl --runtime mask "${units[@]}"

say "installing ${missing[*]}"
apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -q -y -o DPkg::Lock::Timeout=300 "$@"
}
apt update
apt install --no-install-recommends "${missing[@]}"
if [ ${#units[@]} -gt 0 ]; then
    say "not started, but enabled by their packages for the next boot: ${units[*]} (systemctl disable UNIT prevents it)"
fi
say "done"
