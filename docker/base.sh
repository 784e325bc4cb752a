#!/bin/sh
# Makes a base image with Python from Debian's packages, for machines where no registry can be reached: needs root,
# debootstrap and buildah. Prints the image's name; does nothing when it is there already.
set -eu
suite=${SUITE:-bookworm}
image=localhost/defectbench-base:$suite-$(dpkg --print-architecture)-1
if ! buildah inspect --type image "$image" >/dev/null 2>&1; then
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "$suite" "$root/base" \
        >"$root/log" 2>&1 || { cat "$root/log" >&2; exit 69; }
    for junk in var/cache/apt var/lib/apt/lists usr/share/doc usr/share/man usr/share/locale usr/share/info; do
        find "$root/base/$junk" -mindepth 1 -delete
    done
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$root/base" / >/dev/null
    buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    buildah commit --quiet --rm "$container" "$image" >&2
fi
echo "$image"
