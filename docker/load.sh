#!/bin/sh
# Brings images of buildah into a containerd for Kubernetes: load.sh IMAGE... What is there already stays.
#
# CONTAINERD_ADDRESS  its socket
# CTR                 the ctr command; default: the test cluster's, else the one in PATH
set -eu
cd "$(dirname "$0")/.."
ctr=${CTR:-.parts/bin/ctr}
[ -x "$ctr" ] || ctr=ctr
archive=$(mktemp -d)
trap 'rm -rf "$archive"' EXIT

in_kubernetes() { "$ctr" --address "$CONTAINERD_ADDRESS" --namespace k8s.io images "$@"; }

for image in "$@"; do
    identity=$(buildah inspect --type image --format '{{.FromImageID}}' "$image")
    mark=defectbench.dev/image-id=$identity
    if in_kubernetes ls "name==$image" | grep -q "$mark"; then
        echo "$image: already there"
        continue
    fi
    buildah push --quiet "$image" "docker-archive:$archive/image.tar:$image"
    in_kubernetes import "$archive/image.tar" >/dev/null
    in_kubernetes label "$image" "$mark" >/dev/null
    rm "$archive/image.tar"
    echo "$image: loaded"
done
