#!/bin/sh
# Prints what builds and pushes images here: $ENGINE, else the first of docker, podman and buildah that works.
set -eu
if [ -n "${ENGINE:-}" ]; then echo "$ENGINE"
elif docker info >/dev/null 2>&1; then echo docker
elif command -v podman >/dev/null; then echo podman
elif command -v buildah >/dev/null; then echo buildah
else echo "no docker engine, podman or buildah here: install one of them" >&2; exit 69
fi
