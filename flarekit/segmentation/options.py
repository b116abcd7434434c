"""How a folder is to be run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flarekit import conventions
from flarekit.core.budget import Budget, container_memory_mib
from flarekit.core.spec import PredictorSpec, Profile
from flarekit.engine import Precision

OnError = Literal["mask", "skip", "stop"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run.

    Attributes:
        convention: its name; the predictor's own where None.
        profile: `fast`, or `exact` for nnU-Net's arithmetic.
        engine: its name, or `auto`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: of the network's arithmetic.
        mirroring: average over the flips that the predictor names, if any (`exact` only).
        time_budget_s: what a case may take; 0 for no limit, the convention's own where None
            (`fast` only).
        gpu_memory_budget_mib: likewise for memory in use on a GPU.
        ram_budget_mib: memory of this process; the container's limit where None.
        began: when the first case's time began, of `time.monotonic`; when the run starts if None.
        on_error: what a failed case leaves: an empty `mask`, nothing (`skip`), or the end of the
            run (`stop`).
    """

    convention: str | None = None
    profile: Profile = "fast"
    engine: str = "auto"
    device: str = "auto"
    precision: Precision = "auto"
    mirroring: bool = True
    time_budget_s: float | None = None
    gpu_memory_budget_mib: float | None = None
    ram_budget_mib: float | None = None
    began: float | None = None
    on_error: OnError = "mask"


def spec_under(spec: PredictorSpec, options: Options) -> PredictorSpec:
    """Return the facts that are run."""
    spec = spec.under(options.profile)
    if options.mirroring:
        return spec
    return spec.model_copy(update={"grid": spec.grid.model_copy(update={"mirror_axes": ()})})


def budget_under(convention: str, options: Options) -> Budget:
    """The convention's tolerances hold for `fast`; `exact` gives up nothing unless told to."""
    own = conventions.budget_of(convention) if options.profile == "fast" else Budget()
    ram_mib = options.ram_budget_mib
    return Budget(
        time_s=_chosen(options.time_budget_s, own.time_s),
        gpu_memory_mib=_chosen(options.gpu_memory_budget_mib, own.gpu_memory_mib),
        ram_mib=container_memory_mib() if ram_mib is None else _chosen(ram_mib, None),
    )


def _chosen(asked: float | None, own: float | None) -> float | None:
    return own if asked is None else asked or None
