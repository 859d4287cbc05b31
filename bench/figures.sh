#!/bin/bash
# Measures larder's figures on this machine: figures.sh [--larder PATH] [OPTION]... [SCENARIO]...   (--help says more)
# Needs the packages that "deps/install.sh bench" installs, and a release build with the programs of bench/.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
for command in wrk nginx h2o /usr/bin/python3; do
    if ! command -v "$command" >/dev/null && ! [ -x "/usr/sbin/$command" ]; then
        echo "figures.sh: $command is missing; \"deps/install.sh bench\" installs it" >&2
        exit 1
    fi
done
exec /usr/bin/python3 -B "$here/figures.py" "$@"
