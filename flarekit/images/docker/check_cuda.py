"""Fail the build of an image for a GPU whose PyTorch is not what the image's labels say.

    python check_cuda.py CUDA ARCHITECTURES DRIVER

flarekit/engine/_cuda_driver.py lies beside it.
"""

import sys

import torch
from _cuda_driver import oldest_driver


def check(cuda: str, architectures: str, driver: str) -> None:
    """Compare PyTorch with what it should be.

    Raises:
        SystemExit: it has no CUDA, another version, or kernels for other architectures.
    """
    if torch.version.cuda is None:
        raise SystemExit(
            f"torch {torch.__version__} is built without CUDA, and this is an image for a GPU: "
            "name another release (CUDA_TORCH) or the index that has it (CUDA_INDEX)"
        )
    compiled = torch._C._cuda_getArchFlags() or ""  # noqa: SLF001 - get_arch_list() wants a GPU
    facts = {
        "CUDA": (cuda, torch.version.cuda),
        "CUDA_ARCHITECTURES": (architectures, " ".join(compiled.split())),
        "CUDA_DRIVER": (driver, oldest_driver(torch.version.cuda) or "unknown"),
    }
    wrong = [f'{name}="{true}"' for name, (said, true) in facts.items() if said != true]
    if wrong:
        raise SystemExit(
            f"the labels would say what is not so of torch {torch.__version__}: build with "
            + " ".join(f"--build-arg {each}" for each in wrong)
        )


if __name__ == "__main__":
    check(*sys.argv[1:4])
