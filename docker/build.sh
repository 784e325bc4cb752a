#!/bin/sh
# Builds an image of docker/Dockerfile: build.sh TARGET IMAGE [BASE [TORCH]]
#
# ENGINE  docker, podman or buildah; default: the first that works here
# SSL_CERT_FILE, PIP_CONFIG_FILE, UV_CONFIG_FILE  where set, are lent to the build as secrets, for networks that
#         need certificates or indexes of their own; the image keeps nothing of them
set -eu
cd "$(dirname "$0")/.."
target=$1 image=$2 base=${3:-} torch=${4:-}

engine=$(docker/engine.sh)
case $image in
*/*) ;;
*) image=docker.io/library/$image ;; # what Docker and Kubernetes take a bare name for
esac
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml | head -n 1)
revision=$(git describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)
set -- --file docker/Dockerfile --target "$target" --tag "$image" \
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision"
[ -z "$base" ] || set -- "$@" --build-arg "BASE=$base"
[ -z "$torch" ] || [ "$target" = slim ] || set -- "$@" --build-arg "TORCH=$torch"
[ ! -s "${SSL_CERT_FILE:-}" ] || set -- "$@" --secret "id=ca,src=$SSL_CERT_FILE"
[ ! -s "${PIP_CONFIG_FILE:-}" ] || set -- "$@" --secret "id=pip,src=$PIP_CONFIG_FILE"
[ ! -s "${UV_CONFIG_FILE:-}" ] || set -- "$@" --secret "id=uv,src=$UV_CONFIG_FILE"
case $engine in
docker) DOCKER_BUILDKIT=1 exec docker build "$@" . ;;
podman) exec podman build --layers "$@" . ;;
buildah) exec buildah bud --layers --isolation chroot --network host "$@" . ;;
esac
