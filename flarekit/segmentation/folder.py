"""A folder of scans in, a folder of masks out: the cases are dealt out among the devices."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from flarekit import conventions
from flarekit.conventions import Case, Convention
from flarekit.core.apart import keep_apart, keep_inputs
from flarekit.core.errors import UsageError
from flarekit.core.files import make_folder
from flarekit.core.probabilities import probabilities_path
from flarekit.core.records import CaseRecord, RunRecord
from flarekit.core.spec import PredictorFolder
from flarekit.report.ledger import Line
from flarekit.segmentation.case_loop import CaseLoop
from flarekit.segmentation.devices import devices_of, facts_of_all, side_by_side
from flarekit.segmentation.fingerprint import settings_of
from flarekit.segmentation.inputs import (
    FoundCases,
    cases_in,
    check_also,
    convention_of,
    placed_masks,
)
from flarekit.segmentation.options import Options
from flarekit.segmentation.progress import Progress, SharedProgress, Silent
from flarekit.segmentation.report import Report, Resuming
from flarekit.segmentation.resume import Sorted, what_is_left
from flarekit.segmentation.segmenter import Segmenter
from flarekit.segmentation.shards import cases_of
from flarekit.segmentation.source import Source

__all__ = ["Options", "Progress", "Report", "Resuming", "Silent", "run_folder", "segment_folder"]


def segment_folder(
    predictor: PredictorFolder,
    inputs: Path | Sequence[Path],
    output: Path,
    options: Options | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
) -> RunRecord:
    """Segment every case of a folder; the engine starts while the first case is read.

    Args:
        predictor: from `find_predictor`.
        inputs: the convention's input folder, or a zip or tar of it; where the options name no
            convention also scans, or folders of scans in any tree. Only read.
        output: folder, made where it is missing, that gets the masks and nothing else; or the file
            of the mask, where there is one case.
        options: how to run.
        progress: who wants to know.
        report: what to leave in writing.

    Returns:
        What happened to every case, stage times in seconds, and what computed.

    Raises:
        InputError: no cases.
        UsageError: a mask would replace a file of the input folder, the output or report folder is
            the predictor's, or one file is named for several masks.
        PredictorError: weights missing, wrong or not fitting.
        DeviceError: the device or the precision is not available.
        OutputError: the output folder cannot be made, or what the masks are parts of not completed.
    """
    options, source = options or Options(), Source.of_folder(predictor)
    for folder in (output, *(() if report is None else (report.folder,))):
        keep_apart(predictor.folder, folder, [], what="the predictor's folder")
    segmenters = [
        Segmenter(source, replace(options, device=device)) for device in devices_of(options.device)
    ]
    first, *others = segmenters
    try:
        return run_folder(first, inputs, output, options, progress, report, others=others)
    finally:
        for segmenter in segmenters:
            segmenter.close()


def run_folder(
    segmenter: Segmenter,
    inputs: Path | Sequence[Path],
    output: Path,
    options: Options | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
    others: Sequence[Segmenter] = (),
) -> RunRecord:
    """Segment every case of a folder with a segmenter, loaded or not; see `segment_folder`.

    Args:
        segmenter: brings mode, device and budgets.
        inputs: as for `segment_folder`.
        output: as for `segment_folder`.
        options: whose convention, what failed cases leave, and when the first one began.
        progress: who wants to know.
        report: what to leave in writing.
        others: segmenters of other devices, that take cases as well.
    """
    options, spec = options or Options(), segmenter.spec
    name = options.convention or spec.convention
    began = time.monotonic() if options.began is None else options.began
    seconds = {} if options.began is None else {"import": time.monotonic() - began}
    given = [inputs] if isinstance(inputs, Path) else list(inputs)
    get = partial(convention_of, spec=spec, also=options.also)
    other = get if options.convention is None else None
    with cases_in(name, get(name), given, len(spec.channels), other) as found:
        name, convention = found.name, found.convention
        output_dir, cases = _cases_to_run(found, given, output, options, report)
        make_folder(output_dir)
        settings, sha256 = settings_of(segmenter.options, name), segmenter.predictor_sha256
        stamp = {"predictor_sha256": sha256, "settings": settings}
        part = "" if options.shard is None else options.shard.name
        begun: AbstractContextManager[dict[str, Line]] = nullcontext({})
        if report is not None:
            begun = report.begun(stamp, part)
        with begun as lines:
            resumed = what_is_left(
                cases, report, lines, stamp, convention, output_dir, options.probabilities
            )
            segmenters = [segmenter, *others][: len(resumed.to_run)]
            shared = SharedProgress(progress=progress or Silent(), report=report, total=len(cases))
            made_by = settings | {"predictor_sha256": sha256}
            loops = _loops(
                segmenters, resumed, convention, output_dir, options, shared, made_by, seconds
            )
            by_id = _computed(loops, shared, began)
            over = [case for case in resumed.to_run if case.case_id in by_id]
            conventions.finish_run(convention, over, output_dir)
            record = RunRecord(
                predictor=spec.name,
                convention=name,
                mode=segmenter.options.mode,
                **vars(facts_of_all([each.facts for each in segmenters])),
                budget=segmenter.budget,
                seconds=seconds | segmenter.seconds,
                wall_s=time.monotonic() - began,
                cases=tuple(by_id[case.case_id] for case in over),
                not_run=tuple(case.case_id for case in resumed.to_run if case.case_id not in by_id),
                done_before=tuple(resumed.done),
                failed_before=tuple(resumed.failed),
                left_out=conventions.left_out_of(found.cases),
            )
            if report is not None:
                report.close(record)
            return record


def _cases_to_run(
    found: FoundCases, given: Sequence[Path], output: Path, options: Options, report: Report | None
) -> tuple[Path, Sequence[Case]]:
    """Return the folder for masks and this run's cases, once nothing that is read is in its way."""
    check_also(options.also, found.name)
    output_dir, cases = placed_masks(found.cases, output)
    if options.shard is not None:
        cases = cases_of(options.shard, cases, found.convention)
    keep_inputs(given, output_dir, conventions.outputs_of(found.convention, cases))
    if report is not None:
        only_masks = output if output_dir == output else None
        report.check_place(given, only_masks, [case.case_id for case in cases])
    check_probabilities(options, given, output, cases)
    return output_dir, cases


def check_probabilities(
    options: Options, inputs: Sequence[Path], output: Path, cases: Sequence[Case]
) -> None:
    """Refuse a folder where probabilities would replace inputs, or would be taken for masks.

    Raises:
        UsageError: naming the folder, or the file that would be replaced.
    """
    folder = options.probabilities
    if folder is None:
        return
    if folder.resolve().is_relative_to(output.resolve()):
        raise UsageError(
            f"{folder}: lies in the output folder ({output}), which holds masks and nothing else",
            fix="name a folder for the probabilities that is not in the output folder",
        )
    keep_inputs(inputs, folder, [probabilities_path(folder, case.case_id) for case in cases])


def _loops(
    segmenters: Sequence[Segmenter],
    resumed: Sorted,
    convention: Convention,
    output_dir: Path,
    options: Options,
    shared: SharedProgress,
    made_by: dict[str, Any],
    start: dict[str, float],
) -> list[tuple[CaseLoop, Segmenter]]:
    """Deal the cases out among the devices."""
    cases, count = resumed.to_run, len(segmenters)
    before = shared.total - len(cases)
    return [
        (
            CaseLoop(
                cases=cases[first::count],
                convention=convention,
                context=each.context(),
                output_dir=output_dir,
                on_error=options.on_error,
                probabilities=options.probabilities,
                budget_s=each.budget.time_s,
                shared=shared,
                numbers=range(before + first, shared.total, count),
                between_calls=options.between_calls,
                made_by=made_by,
                start=start,
            ),
            each,
        )
        for first, each in enumerate(segmenters)
    ]


def _computed(
    loops: Sequence[tuple[CaseLoop, Segmenter]], shared: SharedProgress, began: float
) -> dict[str, CaseRecord]:
    """Run the loops side by side, and return what became of every case, by its id."""
    calls = [partial(loop.run, segmenter, began) for loop, segmenter in loops]
    records = side_by_side(calls, shared.stopped.set)
    return {record.case_id: record for some in records for record in some}
