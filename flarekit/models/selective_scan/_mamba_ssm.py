"""The CUDA kernel of the package mamba-ssm (Apache-2.0), called without the rest of the package.

The package itself imports language models, Triton and more; its kernel is an extension by itself.
"""

import torch

from flarekit.core.errors import DeviceError
from flarekit.models.selective_scan._gradient import differentiable


@differentiable
def scan(*tensors: torch.Tensor) -> torch.Tensor:
    """Return y without the skip term; float64 is computed in float32, as the kernel does.

    Raises:
        DeviceError: the extension does not load.
    """
    try:
        import selective_scan_cuda
    except ImportError as error:
        raise DeviceError(
            f"the kernel of mamba-ssm does not load: {error}",
            fix="install a mamba-ssm built for this PyTorch, or let `auto` choose the scan",
        ) from error

    u, delta, A, B, C = (tensor.float().contiguous() for tensor in tensors)
    # no skip weights, gate or bias; step sizes are behind softplus; B and C have one group
    y_BDL: torch.Tensor = selective_scan_cuda.fwd(
        u, delta, A, B[:, None], C[:, None], None, None, None, False
    )[0]
    return y_BDL.to(tensors[0].dtype)
