#!/bin/sh
# Makes an image of the versitygw that `make parts` built, for clusters that reach no registry: needs buildah. Prints
# its name, which names the binary's content.
set -eu
cd "$(dirname "$0")/.."
binary=.parts/bin/versitygw
[ -x "$binary" ] || { echo "no $binary here; run: make parts" >&2; exit 69; }
image=defectbench.test/versitygw:$(sha256sum "$binary" | cut -c 1-12)
if ! buildah inspect --type image "$image" >/dev/null 2>&1; then
    # Static binaries need nothing beside them; one that is not brings its loader's base.
    base=scratch
    if readelf --program-headers "$binary" | grep -q INTERP; then base=$(docker/base.sh); fi
    container=$(buildah from "$base")
    buildah copy --quiet "$container" "$binary" /usr/local/bin/versitygw >/dev/null
    buildah config --entrypoint '["/usr/local/bin/versitygw"]' --user 10001:10001 "$container"
    buildah commit --quiet --rm "$container" "$image" >&2
fi
echo "$image"
