#!/bin/sh
# Builds mamba-ssm's wheel from its source release on PyPI, with NVIDIA's compiler as Python packages:
#   CUDA_TORCH=2.11.0 MAMBA_SSM=2.3.2.post1 MAMBA_ARCHITECTURES="sm_80 sm_90" sh build_mamba.sh FOLDER
# Needs root on Debian, and a torch with CUDA 13: NVIDIA has nvcc on PyPI for no older CUDA.
set -eu
wheels=$1
here=$(cd "$(dirname "$0")" && pwd)

header=$(python3 -c "import sysconfig; print(sysconfig.get_path('include'))")/Python.h
apt-get update -qq
apt-get install -y -qq --no-install-recommends g++ $([ -f "$header" ] || echo python3-dev) >/dev/null

export VIRTUAL_ENV=/opt/mamba
uv venv --clear "$VIRTUAL_ENV"
PATH=$VIRTUAL_ENV/bin:$PATH
uv pip install ${CUDA_INDEX:+--default-index "$CUDA_INDEX"} "torch==$CUDA_TORCH"
cuda=$(python -c "import torch; print(torch.version.cuda)")
case $cuda in
13.*) ;;
*)
    echo "mamba-ssm is built for torch with CUDA 13, and torch $CUDA_TORCH has CUDA $cuda: NVIDIA's compiler" \
        "is on PyPI for CUDA 13 alone. Set CUDA_TORCH to 2.11.0." >&2
    exit 1
    ;;
esac
uv pip install numpy packaging pip setuptools wheel ninja \
    "nvidia-cuda-nvcc==$cuda.*" "nvidia-nvvm==$cuda.*" "nvidia-cuda-crt==$cuda.*" "nvidia-cuda-cccl==$cuda.*"

CUDA_HOME=$(python -c "import nvidia.cu13; print(list(nvidia.cu13.__path__)[0])")
export CUDA_HOME
ln -s lib "$CUDA_HOME/lib64"
ln -s libcudart.so.13 "$CUDA_HOME/lib/libcudart.so"

sources=$(mktemp -d)
# its setup asks torch for a compiler even where it is only asked for its name
MAMBA_SKIP_CUDA_BUILD=TRUE pip download --quiet --no-deps --no-build-isolation --no-binary mamba-ssm \
    --dest "$sources" "mamba-ssm==$MAMBA_SSM"
tar -xzf "$sources"/*.tar.gz -C "$sources" --strip-components 1
# shellcheck disable=SC2086 # the architectures are words
python "$here/restrict_mamba.py" "$sources" $MAMBA_ARCHITECTURES
MAMBA_FORCE_BUILD=TRUE MAMBA_LOCAL_VERSION=float32.forward MAX_JOBS=2 CFLAGS=-g0 \
    pip wheel --no-deps --no-build-isolation --wheel-dir "$wheels" "$sources"
# eight gigabytes of PyTorch and compilers, which only this step needs
rm -rf "$VIRTUAL_ENV" "$sources" /var/lib/apt/lists/*
