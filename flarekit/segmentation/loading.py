"""`flarekit.load`: a predictor, or a module of one's own, becomes a segmenter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flarekit.core.errors import UsageError
from flarekit.core.spec import Mode, PredictorFolder, PredictorSpec
from flarekit.engine import Precision
from flarekit.segmentation.options import Limit, MemoryLimit, Options
from flarekit.segmentation.predictors import find_predictor, trusted
from flarekit.segmentation.segmenter import Segmenter
from flarekit.segmentation.source import Source

if TYPE_CHECKING:
    from torch import nn


def load(
    predictor: str | Path | PredictorFolder | None = None,
    *,
    module: nn.Module | None = None,
    facts: PredictorSpec | Mapping[str, Any] | None = None,
    device: str = "auto",
    mode: Mode = "fast",
    precision: Precision = "auto",
    engine: str = "auto",
    deterministic: bool = False,
    mirroring: bool = True,
    time_budget_s: Limit = None,
    ram_budget_mib: MemoryLimit = None,
    gpu_memory_budget_mib: Limit = None,
    locator: bool = True,
    labels: Sequence[str] | None = None,
    trust: bool = False,
) -> Segmenter:
    """Load a predictor: a network with its weights, ready to segment scans.

    Args:
        predictor: a name (see `flarekit.predictors`) or a predictor folder.
        module: instead of a predictor, a PyTorch network of one's own: (B, C, Z, Y, X) in, logits
            (B, K, Z, Y, X) out, the background first. It is copied, and stays as it is.
        facts: about the module, as `predictor.toml` has them; `channels`, `grid` and `labels` at
            least.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; one that is not there is an error.
        mode: `fast`, or `exact` for nnU-Net's arithmetic.
        precision: `auto`, `fp32`, `bf16` or `fp16`; `auto` is what the device is fastest at.
        engine: `auto`, `openvino` or `torch`; a module of one's own runs on torch.
        deterministic: the same labels in every run on the same GPU, if more slowly; a CPU gives
            them anyway.
        mirroring: average over the flips that the predictor names, if any (`exact` only).
        time_budget_s: seconds that a scan may take; detail is given up for it, which
            `Result.traded` tells. None for no limit, `convention` for what the organiser of the
            predictor's challenge tolerates.
        ram_budget_mib: MiB that this process may have resident; what does not fit is refused. None
            for no limit, `container` for the limit of the container around the process.
        gpu_memory_budget_mib: MiB that may be in use on the GPU; None for no limit, `convention` as
            above.
        locator: use the predictor's locator, if it has one: tiles that can hold no label are not
            run, and with a time budget there is a whole mask at any moment.
        labels: names of those that results have; all of them where None.
        trust: let the predictor folder execute what it names, a class of its own or a TorchScript
            file. Without it nothing in a folder is ever executed.

    Returns:
        What segments; use it in a `with` statement, or `close` it.

    Raises:
        UsageError: no such predictor or label, or neither a predictor nor a module.
        PredictorError: weights missing, wrong or not fitting, facts that do not hold together, or a
            folder that would execute something and is not trusted.
        DeviceError: the device or the precision is not available.

    >>> import torch
    >>> import flarekit
    >>> facts = {
    ...     "channels": [{"name": "MR", "intensity": {"kind": "z_score"}}],
    ...     "grid": {"spacing_mm_ZYX": [2.0, 2.0, 2.0], "tile_ZYX": [16, 32, 32]},
    ...     "labels": {"tumour": 1},
    ... }
    >>> segmenter = flarekit.load(module=torch.nn.Conv3d(1, 2, 3, padding=1), facts=facts)
    >>> segmenter.label_names
    {1: 'tumour'}
    """
    options = Options(
        mode=mode,
        engine="torch" if module is not None and engine == "auto" else engine,
        device=device,
        precision=precision,
        deterministic=deterministic,
        mirroring=mirroring,
        time_budget_s=time_budget_s,
        ram_budget_mib=ram_budget_mib,
        gpu_memory_budget_mib=gpu_memory_budget_mib,
        locator=locator,
        labels=None if labels is None else tuple(labels),
    )
    segmenter = Segmenter(_source_of(predictor, module, facts, trust=trust), options)
    segmenter.start()
    return segmenter


def _source_of(
    predictor: str | Path | PredictorFolder | None,
    module: nn.Module | None,
    facts: PredictorSpec | Mapping[str, Any] | None,
    *,
    trust: bool,
) -> Source:
    if (predictor is None) == (module is None) or (module is None) != (facts is None):
        raise UsageError(
            "what to load is not clear",
            fix="name a predictor, or give a module together with its facts",
        )
    if module is not None and facts is not None:
        return Source.of_module(module, facts)
    if isinstance(predictor, PredictorFolder):
        return Source.of_folder(predictor if not trust else trusted(predictor))
    return Source.of_folder(find_predictor(str(predictor), trust=trust))
