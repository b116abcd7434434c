"""What some tests need of the processor; they skip, and say why, where it has that not."""

from __future__ import annotations

import pytest
import torch

from flarekit.engine._cpu import cpu_name, cpu_runs_bf16

AVX2_ONLY, WITH_AVX512 = "flags : fma avx2", "flags : fma avx2 avx512f"  # of /proc/cpuinfo
needs_bf16 = pytest.mark.skipif(
    not cpu_runs_bf16(), reason=f"nothing computes in bf16 on {cpu_name()}: it has no AVX-512"
)
needs_fp16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_fp16_supported(),
    reason=f"PyTorch does not compute in fp16 on {cpu_name()}",
)
