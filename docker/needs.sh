#!/bin/sh
# Installs what the full image needs, then sets it out as two layers: needs.sh TORCH DIRECTORY
set -eu
torch=$1 layers=$2
extras='--extra s3 --extra mlflow --extra train'
# triton, a gigabyte, serves torch.compile alone, which nothing here uses; torch does without.
without='--no-install-package triton'

locked() { # the version that uv.lock gives a package
    sed -n "/^name = \"$1\"\$/{n;s/^version = \"\\(.*\\)\"\$/\\1/p;}" uv.lock
}

if [ "$torch" != locked ]; then
    for package in torch torchvision $(sed -n 's/^name = "\(nvidia-.*\|cuda-.*\)"$/\1/p' uv.lock); do
        without="$without --no-install-package $package"
    done
fi
# shellcheck disable=SC2086
uv sync --locked --no-dev --no-install-project $extras $without
if [ "$torch" != locked ]; then
    # Both from one index: a torch of another kind than torchvision's breaks it.
    uv pip install --python "$UV_PROJECT_ENVIRONMENT/bin/python" --torch-backend "$torch" \
        "torch==$(locked torch)" "torchvision==$(locked torchvision)"
fi

# What only compilers read, and a solver for several GPUs that nothing is linked to.
packages=$(echo "$UV_PROJECT_ENVIRONMENT"/lib/python3*/site-packages)
rm -rf "$packages/torch/include"
if [ -d "$packages/nvidia" ]; then
    find "$packages/nvidia" -depth \( -name include -o -name '*.a' -o -name '*.bc' -o -name 'libcusolverMg.so*' \) \
        -exec rm -rf {} +
fi

# The large libraries change seldom: a layer of their own.
for package in "$packages/nvidia" "$packages/torch"; do
    if [ -d "$package" ]; then
        mkdir -p "$layers/cuda$(dirname "$package")"
        mv "$package" "$layers/cuda$package"
    fi
done
mkdir -p "$layers/rest$(dirname "$UV_PROJECT_ENVIRONMENT")"
mv "$UV_PROJECT_ENVIRONMENT" "$layers/rest$UV_PROJECT_ENVIRONMENT"
