"""PyTorch's own account of CUDA memory, in this process."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from flarekit.core.readings import Reading, Unsupported

_MIB = 2**20


class CudaProbe:
    """Reads the caching allocator; it never imports torch and never starts CUDA itself.

    Args:
        device: index as torch counts.
        library: what answers like `torch`; that itself, once it is imported, where None.
    """

    columns = ("cuda_allocated_mib", "cuda_reserved_mib")

    def __init__(self, device: int = 0, library: ModuleType | None = None) -> None:
        self._device = device
        self._library = library

    def read(self) -> dict[str, Reading]:
        """Read what tensors hold and what the allocator holds; nothing before CUDA is started."""
        torch: Any = self._library or sys.modules.get("torch")
        if torch is None:
            return {}
        if not torch.cuda.is_available():
            absent = Unsupported(not_supported="torch finds no CUDA device")
            return dict.fromkeys(self.columns, absent)
        if not torch.cuda.is_initialized():
            return {}
        return {
            "cuda_allocated_mib": torch.cuda.memory_allocated(self._device) / _MIB,
            "cuda_reserved_mib": torch.cuda.memory_reserved(self._device) / _MIB,
        }

    def close(self) -> None:
        """Do nothing: nothing was opened."""
