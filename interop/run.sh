#!/bin/sh
# TensorFlow's own parser reads the shards that Zoobot writes: makes some, and compares every galaxy.
# TensorFlow 2.13 needs Python 3.8 to 3.11; name one with PYTHON=python3.11 if yours is newer.
set -eu
cd "$(dirname "$0")/.."
environment=.venv-tensorflow
if [ ! -e "$environment/.ready" ]; then
    "${PYTHON:-python3}" -m venv "$environment"
    "$environment/bin/pip" install --quiet --requirement benchmarks/requirements-tensorflow.txt
    touch "$environment/.ready"
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
.venv/bin/python interop/make_shards.py "$folder"
"$environment/bin/python" interop/check_with_tensorflow.py "$folder"
