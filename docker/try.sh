#!/bin/sh
# Runs deep models inside an image of buildah's and prints its size and the time to the first batch: try.sh IMAGE
set -eu
cd "$(dirname "$0")/.."
container=$(buildah from "$1")
trap 'buildah rm "$container" >/dev/null' EXIT
echo "$1: $(buildah images --format '{{.Size}}' "$1")"
nice -n 5 buildah run --isolation chroot --volume "$PWD/benchmarks:/benchmarks:ro" --env OMP_NUM_THREADS=1 "$container" \
    -- /opt/defectbench/bin/python /benchmarks/first_batch.py
