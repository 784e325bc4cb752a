#!/bin/sh
# Brings buildah's images onto the node of the test cluster (make cluster): load.sh IMAGE... What is there stays.
set -eu
cd "$(dirname "$0")/.."
grep -qs '"kubelet": true' .parts/cluster/cluster.json || { echo "no test cluster with a node: nothing to load into"; exit 0; }
archive=$(mktemp -d)
trap 'rm -rf "$archive"' EXIT

images() { python3 tools/cluster ctr images "$@"; }

for image in "$@"; do
    mark=defectbench.dev/image-id=$(buildah inspect --type image --format '{{.FromImageID}}' "$image")
    if images ls "name==$image" | grep -q "$mark"; then
        echo "$image: on the node already"
        continue
    fi
    buildah push --quiet "$image" "docker-archive:$archive/image.tar:$image"
    python3 tools/cluster import "$archive/image.tar" >/dev/null
    images label "$image" "$mark" >/dev/null
    rm "$archive/image.tar"
    echo "$image: loaded"
done
