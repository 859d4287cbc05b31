#!/bin/bash
# The short run: a herd of 200, hits by wrk, idle connections, against nginx and h2o. About two minutes. Takes the options of run.sh.
exec "$(dirname "$(realpath "$0")")/run.sh" --figures "$@"
