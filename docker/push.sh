#!/bin/sh
# Brings an image to a registry under its own name: push.sh IMAGE REGISTRY. Log in first, with the engine's own command.
set -eu
image=$1 registry=${2:-}
[ -n "$registry" ] || { echo "no registry named: make image-push REGISTRY=registry.example.com/vision" >&2; exit 64; }
name=$registry/${image##*/}
engine=$("$(dirname "$0")/engine.sh")
case $image in
*/*) ;;
*) image=docker.io/library/$image ;;
esac
case $engine in
buildah) buildah push "$image" "docker://$name" ;;
*) "$engine" tag "$image" "$name" && "$engine" push "$name" ;;
esac
echo "pushed; for the Jobs: --image $name"
