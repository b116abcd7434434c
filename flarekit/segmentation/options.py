"""How to run: what computes, how exactly, and what a case may cost."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flarekit import conventions
from flarekit.core.budget import Budget, container_memory_mib
from flarekit.core.errors import UsageError
from flarekit.core.registry import near_miss
from flarekit.core.spec import Mode, PredictorSpec
from flarekit.engine import Precision
from flarekit.segmentation.shards import Shard

OnError = Literal["mask", "skip", "stop"]
Limit = float | Literal["convention"] | None
MemoryLimit = float | Literal["container"] | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run.

    Budgets are None where nothing is to be given up; 0 means the same.

    Attributes:
        convention: its name; the predictor's own where None.
        also: what masks of DICOM series are written as besides, `rtstruct` and `nifti`.
        mode: `fast`, or `exact` for nnU-Net's arithmetic.
        engine: its name, or `auto`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or a UUID; several, separated by commas, share the
            cases of a folder.
        precision: of the network's arithmetic.
        deterministic: the same masks in every run on the same GPU, if more slowly.
        mirroring: average over the flips that the predictor names, if any (`exact` only).
        time_budget_s: what a case may take, in seconds; `convention` for what the organiser
            tolerates.
        gpu_memory_budget_mib: what may be in use on a GPU, in MiB; `convention` for what the
            organiser tolerates.
        ram_budget_mib: resident memory of this process, in MiB; `container` for the limit of the
            container around it.
        began: when the first case's time began, of `time.monotonic`; when the run starts if None.
        locator: use the predictor's locator, if it has one.
        labels: names of those that masks get; all of them where None. The network looks for all.
        on_error: what a failed case leaves: an empty `mask`, nothing (`skip`), or the end of the
            run (`stop`).
        probabilities: folder that gets those of every class of every case; none where None.
        shard: which share of a folder's cases is run; all of them where None.
        between_calls: a folder that lasts from call to call of a case whose clicks grow; what the
            network said is kept there and used again. None for no such folder.
    """

    convention: str | None = None
    also: tuple[str, ...] = ()
    mode: Mode = "fast"
    engine: str = "auto"
    device: str = "auto"
    precision: Precision = "auto"
    deterministic: bool = False
    mirroring: bool = True
    time_budget_s: Limit = None
    gpu_memory_budget_mib: Limit = None
    ram_budget_mib: MemoryLimit = None
    began: float | None = None
    locator: bool = True
    labels: tuple[str, ...] | None = None
    on_error: OnError = "mask"
    probabilities: Path | None = None
    shard: Shard | None = None
    between_calls: Path | None = None


def facts_to_run(spec: PredictorSpec, options: Options) -> PredictorSpec:
    """Return a predictor's facts in the mode, and with the flips and labels, that options name.

    Raises:
        UsageError: the predictor has no such label.
    """
    spec = spec.for_mode(options.mode)
    if options.labels is not None:
        if not options.labels:
            raise UsageError("no label is named", fix=f"known: {', '.join(spec.labels)}")
        for name in options.labels:
            if name not in spec.labels:
                hint = near_miss(name, spec.labels)
                raise UsageError(f"{spec.name} has no label {name!r}", fix=hint)
        spec = spec.model_copy(update={"only_labels": tuple(options.labels)})
    if options.mirroring:
        return spec
    return spec.model_copy(update={"grid": spec.grid.model_copy(update={"mirror_axes": ()})})


def effective_budget(convention: str, options: Options) -> Budget:
    """Return what a case may cost, in numbers.

    Args:
        convention: the name of the one that is run.
        options: how to run.
    """
    tolerated = conventions.budget_of(convention)
    ram_mib = options.ram_budget_mib
    return Budget(
        time_s=_in_numbers(options.time_budget_s, tolerated.time_s),
        gpu_memory_mib=_in_numbers(options.gpu_memory_budget_mib, tolerated.gpu_memory_mib),
        ram_mib=container_memory_mib() if ram_mib == "container" else _in_numbers(ram_mib, None),
    )


def unlimited(convention: str, options: Options) -> tuple[str, ...]:
    """Return which limits were asked for by a word that stands for none here, a sentence each.

    Args:
        convention: the name of the one that is run.
        options: how to run.
    """
    budget = effective_budget(convention, options)
    none_stated = f"the convention {convention} states none"
    asked = (
        ("time", options.time_budget_s, budget.time_s, none_stated),
        ("GPU memory", options.gpu_memory_budget_mib, budget.gpu_memory_mib, none_stated),
        ("memory", options.ram_budget_mib, budget.ram_mib, "no container around it has one"),
    )
    return tuple(
        f"a case has no limit of {what}: {why}"
        for what, word, limit, why in asked
        if isinstance(word, str) and limit is None
    )


def _in_numbers(asked: float | str | None, tolerated: float | None) -> float | None:
    if isinstance(asked, str):
        return tolerated
    return asked or None
