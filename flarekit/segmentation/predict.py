"""`flarekit.predict`: a folder of scans, in one call."""

from collections.abc import Sequence
from pathlib import Path

from flarekit.core.errors import UsageError
from flarekit.core.records import RunRecord
from flarekit.core.spec import Mode, PredictorFolder
from flarekit.engine import Precision
from flarekit.segmentation.folder import Report, Resuming, run_folder, segment_folder
from flarekit.segmentation.options import Limit, MemoryLimit, OnError, Options
from flarekit.segmentation.predictors import find_predictor
from flarekit.segmentation.segmenter import Segmenter
from flarekit.segmentation.shards import Shard
from flarekit.segmentation.state import state_report


def predict(
    inputs: str | Path | Sequence[str | Path],
    outputs: str | Path,
    predictor: str | Path | PredictorFolder | Segmenter = "abdomen_ct",
    *,
    convention: str | None = None,
    also: Sequence[str] = (),
    mode: Mode = "fast",
    engine: str = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    mirroring: bool = True,
    deterministic: bool = False,
    time_budget_s: Limit = None,
    ram_budget_mib: MemoryLimit = None,
    gpu_memory_budget_mib: Limit = None,
    on_error: OnError = "mask",
    report: str | Path | None = None,
    pictures: bool = True,
    resume: bool = False,
    retry_failed: bool = False,
    shard: str | None = None,
    labels: Sequence[str] | None = None,
    trust: bool = False,
) -> RunRecord:
    """Segment every scan of a folder, as `flarekit predict` does.

    Args:
        inputs: folder with the scans, as the convention lays them out, or a zip or tar of it; where
            no convention is named also files, and folders of scans or DICOM series in any tree.
            Only read.
        outputs: folder for the masks, made where it is missing; or the mask's file, for one scan.
        predictor: a name, a predictor folder, or a segmenter that is loaded; the latter brings how
            to run with it, and the options from `mode` to `gpu_memory_budget_mib` must stay as
            they are.
        convention: whose layout; the predictor's own where None.
        also: what masks of DICOM series are written as besides: `rtstruct` (contours) and `nifti`.
        mode: `fast`, or `exact` for nnU-Net's arithmetic.
        engine: `auto`, `openvino` or `torch`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or a UUID; of several, separated by commas, each
            takes a share of the cases.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        mirroring: average over the flips that the predictor names, if any (`exact` only).
        deterministic: the same masks in every run on the same GPU, if more slowly.
        time_budget_s: seconds that a case may take; None for no limit, `convention` for what the
            organiser tolerates.
        ram_budget_mib: MiB that this process may have resident.
        gpu_memory_budget_mib: MiB that may be in use on the GPU.
        on_error: what a failed case leaves: an empty `mask`, nothing (`skip`), or the end of the
            run (`stop`).
        report: folder for `run.json`, `ledger.jsonl`, `statistics.csv` with a line per case and
            label, and a picture of every case; none where None.
        pictures: whether the report has pictures.
        resume: skip the cases that an earlier run has done, by the ledger in the report folder or,
            where there is none, in the state folder that `flarekit predict` keeps for these two
            folders: the same input, predictor and settings, and a mask that is whole.
        retry_failed: skip what is done, as `resume` does, and run the cases again that failed.
        shard: which share of the cases is run, `3/8` say; all of them where None.
        labels: names of those that masks get, with their usual values; all of them where None.
        trust: let the predictor folder execute what it names, as of `flarekit.load`.

    Returns:
        What happened to every case. A case that failed does not raise: see `RunRecord.failed`.

    Raises:
        UsageError: no such predictor or convention, or options beside a segmenter.
        InputError: no cases.
        PredictorError: weights missing, wrong or not fitting.
        DeviceError: the device or the precision is not available.
        OutputError: the output folder cannot be made.

    >>> import flarekit
    >>> record = flarekit.predict("inputs", "outputs", predictor="mpu_net_liver")
    >>> [case.case_id for case in record.cases], len(record.failed)
    (['patient'], 0)
    """
    options = Options(
        convention=convention,
        also=tuple(also),
        mode=mode,
        engine=engine,
        device=device,
        precision=precision,
        mirroring=mirroring,
        deterministic=deterministic,
        time_budget_s=time_budget_s,
        ram_budget_mib=ram_budget_mib,
        gpu_memory_budget_mib=gpu_memory_budget_mib,
        on_error=on_error,
        labels=None if labels is None else tuple(labels),
        shard=None if shard is None else Shard.of(shard),
    )
    given = [inputs] if isinstance(inputs, str | Path) else inputs
    paths = [Path(path) for path in given], Path(outputs)
    how = Resuming(resume=resume, retry_failed=retry_failed)
    wanted = None
    if report is not None:
        wanted = Report(Path(report), pictures=pictures, resuming=how)
    elif how.wanted:
        wanted = state_report(*paths, how)
    if isinstance(predictor, Segmenter):
        if options != Options(
            convention=convention, also=tuple(also), on_error=on_error, shard=options.shard
        ):
            raise UsageError(
                "a segmenter was loaded with its own mode, device and budgets",
                fix="give them to flarekit.load, not beside a segmenter",
            )
        return run_folder(predictor, *paths, options, report=wanted)
    if not isinstance(predictor, PredictorFolder):
        predictor = find_predictor(str(predictor), trust=trust)
    return segment_folder(predictor, *paths, options, report=wanted)
