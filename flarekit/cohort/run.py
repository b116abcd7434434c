"""`flarekit cohort run`: a cohort on Ray, from its inputs to its record."""

import logging
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from flarekit import conventions
from flarekit.cohort.cluster import connected, places_for
from flarekit.cohort.driver import Driver
from flarekit.cohort.jobs import Job, jobs_of, largest_mib
from flarekit.cohort.pool import RayPool, WorkerNeeds
from flarekit.cohort.sources import Source, source_of
from flarekit.cohort.worker import Shipped, Work
from flarekit.conventions import Case
from flarekit.core.apart import keep_apart, keep_inputs
from flarekit.core.errors import FlarekitError
from flarekit.core.files import make_folder, sha256_of
from flarekit.core.records import CaseRecord, RunRecord
from flarekit.core.spec import PredictorFolder, PredictorSpec
from flarekit.engine import EngineFacts
from flarekit.segmentation.devices import facts_of_all
from flarekit.segmentation.fingerprint import input_sha256, settings_of
from flarekit.segmentation.folder import check_probabilities
from flarekit.segmentation.inputs import FoundCases
from flarekit.segmentation.options import Options, effective_budget
from flarekit.segmentation.progress import Progress
from flarekit.segmentation.report import Report
from flarekit.segmentation.resume import Sorted, what_is_left
from flarekit.segmentation.source import Source as NetworkSource

_LOG = logging.getLogger(__name__)
_BASE_MIB = 1200.0  # of a worker: Python, engine, weights
_PER_CASE = 5.0  # of a case's memory beside that of its voxels as read


@dataclass(frozen=True, kw_only=True)
class CohortRequest:
    """What is segmented, and by whom.

    Attributes:
        inputs: a folder, a zip or tar, a list (`.csv`, `.jsonl`), or a URI that fsspec opens.
        output_dir: of the masks; all nodes share it, at the same path.
        address: of the cluster: `local` starts one on this machine, `auto` takes the one that this
            machine belongs to, or `ray://HOST:PORT`.
        workers: how many; as many as fit where None.
        cpus_per_worker: cores of each, and so its threads.
        gpus_per_worker: GPUs of each, or a part of one; one where the cluster has any, if None.
        memory_per_worker_mib: what each may take; by the largest case where None.
        retries: how often a case is run again whose worker was lost.
        case_timeout_s: a case that takes longer costs its worker; no limit where None.
    """

    inputs: str
    output_dir: Path
    address: str = "local"
    workers: int | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float | None = None
    memory_per_worker_mib: float | None = None
    retries: int = 2
    case_timeout_s: float | None = None


def run_cohort(
    request: CohortRequest,
    predictor: PredictorFolder,
    options: Options,
    report: Report,
    progress: Progress,
    *,
    pictures: bool = True,
) -> RunRecord:
    """Segment a cohort on a cluster.

    Args:
        request: what, and by whom.
        predictor: from `find_predictor`.
        options: how to segment; the convention is that of an input folder.
        report: where the ledger is kept, in a folder that all nodes share.
        progress: who wants to know.
        pictures: draw every case.

    Returns:
        What happened to every case.

    Raises:
        InputError: no cases.
        UsageError: Ray is not installed or not there, or another run is writing to the ledger.
        PredictorError, DeviceError: no worker can start.
        OutputError: something cannot be written.
    """
    began = time.monotonic()
    network = NetworkSource.of_folder(predictor)
    source = source_of(request.inputs, network.spec, options.convention, options.also)
    keep_apart(predictor.folder, request.output_dir, [], what="the predictor's folder")
    with source.open(network.spec) as found:
        _check_places(source.here(), request.output_dir, options, report, found)
        make_folder(request.output_dir)
        settings = settings_of(options, found.name)
        stamp = {"predictor_sha256": network.sha256, "settings": settings}
        with report.begun(stamp) as lines:
            resumed = what_is_left(
                found.cases,
                report,
                lines,
                stamp,
                found.convention,
                request.output_dir,
                options.probabilities,
            )
            run = _Cohort(request, found, options, report, progress, resumed)
            if resumed.to_run:
                run.segment(_work(request, source, predictor, options, report, pictures=pictures))
            record = run.record(network.spec, wall_s=time.monotonic() - began)
            report.close(record)
            return record


def _work(
    request: CohortRequest,
    source: Source,
    predictor: PredictorFolder,
    options: Options,
    report: Report,
    *,
    pictures: bool,
) -> Work:
    """Return what every worker is told, in places that hold on other machines as well."""
    return Work(
        source=source,
        output_dir=request.output_dir.resolve(),
        options=_for_workers(options),
        predictor=Shipped.of(predictor),
        report=report.for_workers(pictures=pictures),
    )


def _for_workers(options: Options) -> Options:
    """Return how cases are run by processes that may have another working directory."""
    folder = options.probabilities
    return replace(options, began=None, probabilities=folder and folder.resolve())


def _check_places(
    inputs: list[Path], output_dir: Path, options: Options, report: Report, found: FoundCases
) -> None:
    """Refuse folders where something would replace what is read."""
    cases = found.cases
    keep_inputs(inputs, output_dir, conventions.outputs_of(found.convention, cases))
    report.check_place(inputs, output_dir, [case.case_id for case in cases])
    check_probabilities(options, inputs, output_dir, cases)


class _Cohort:
    """The cases that are run, and what became of them."""

    def __init__(
        self,
        request: CohortRequest,
        found: FoundCases,
        options: Options,
        report: Report,
        progress: Progress,
        resumed: Sorted,
    ) -> None:
        self._request, self._options, self._report = request, options, report
        self._found, self._convention = found, found.convention
        self._progress, self._resumed = progress, resumed
        self._total = len(found.cases)
        self._left = {case.case_id for case in resumed.to_run}
        self._records: list[CaseRecord] = []
        self._unlisted = 0
        self._seconds: dict[str, float] = {}
        self._facts: list[EngineFacts] = []

    def record(self, spec: PredictorSpec, *, wall_s: float) -> RunRecord:
        """Return what happened, and what computed in all workers, each thing once.

        Args:
            spec: of the predictor.
            wall_s: that the run took.
        """
        facts, resumed, options = facts_of_all(self._facts), self._resumed, self._options
        return RunRecord(
            predictor=spec.name,
            convention=self._found.name,
            mode=options.mode,
            engine=facts.engine,
            device=",".join(dict.fromkeys(each.device for each in self._facts)),
            device_name=facts.device_name,
            precision=facts.precision,
            scan=facts.scan,
            budget=effective_budget(options.convention or spec.convention, options),
            seconds=self._seconds,
            wall_s=wall_s,
            cases=tuple(self._records),
            not_run=tuple(c.case_id for c in resumed.to_run if c.case_id in self._left),
            unlisted=self._unlisted,
            done_before=tuple(resumed.done),
            failed_before=tuple(resumed.failed),
            left_out=conventions.left_out_of(self._found.cases),
        )

    def segment(self, work: Work) -> None:
        """Segment what is to be run, on a cluster."""
        request, cases = self._request, self._resumed.to_run
        jobs = jobs_of(cases, self._convention)
        began = time.monotonic()
        with connected(request.address):
            self._seconds["ray"] = time.monotonic() - began
            needs = WorkerNeeds(
                cpus=request.cpus_per_worker,
                gpus=_gpus(request.gpus_per_worker, self._options.device),
                memory_mib=_memory_mib(request, cases),
            )
            count = request.workers or places_for(needs)
            count = max(1, min(count, len(jobs)))
            _LOG.info(
                "%d workers, each with %g CPUs, %g GPUs and up to %.0f MiB",
                count,
                needs.cpus,
                needs.gpus,
                needs.memory_mib,
            )
            pool = RayPool(work, workers=count, needs=needs, case_timeout_s=request.case_timeout_s)
            self._progress.start_case(f"{len(cases)} cases", self._total - len(cases), self._total)
            driver = Driver(
                pool=pool,
                retries=request.retries,
                stand_in=self._stand_in,
                ended=self._ended,
                stops=self._options.on_error == "stop",
            )
            try:
                driver.run(jobs)
            finally:
                pool.stop()
        self._facts = pool.facts

    def _ended(self, record: CaseRecord) -> None:
        self._left.discard(record.case_id)
        self._report.add(record)
        if record.error is not None or record.traded or record.flags:
            self._records.append(replace(record, statistics=(), curve=(), seconds={}))
        else:
            self._unlisted += 1  # what there is to say stands in the ledger
        self._progress.end_case(record)

    def _stand_in(self, job: Job, fault: str) -> list[CaseRecord]:
        """Return the records of a job that is given up; each of its cases has a stand-in mask."""
        records = []
        by_id = {case.case_id: case for case in self._resumed.to_run}
        for case in (by_id[case_id] for case_id in job.case_ids):
            mask, digest, error = None, None, fault
            if self._options.on_error == "mask":
                try:
                    mask = self._convention.write_empty_mask(case, self._request.output_dir)
                except FlarekitError as failure:
                    error = f"{fault}; and {failure.message}"
            with suppress(OSError):
                digest = None if mask is None else sha256_of(mask)
            records.append(
                CaseRecord(
                    case_id=case.case_id,
                    mask=mask,
                    error=f"{case.channels[0]}: {error}",
                    fix="segment it by itself with flarekit predict, which says more",
                    input_sha256=input_sha256(case),
                    mask_sha256=digest,
                )
            )
        return records


def _gpus(asked: float | None, device: str) -> float:
    """Return how many GPUs a worker takes, or which part of one."""
    import ray

    if asked is not None:
        return asked
    return 1.0 if device != "cpu" and ray.cluster_resources().get("GPU") else 0.0


def _memory_mib(request: CohortRequest, cases: Sequence[Case]) -> float:
    """Return what a worker may take: stated, or by the case with the largest files."""
    if request.memory_per_worker_mib is not None:
        return request.memory_per_worker_mib
    return _BASE_MIB + _PER_CASE * largest_mib(cases)


def rate_of(done: int, seconds: float, left: int) -> str:
    """Return how fast cases end, and when the last one will have, in words."""
    if not done or seconds <= 0:
        return f"{left} cases left"
    per_hour = 3600 * done / seconds
    eta_s = left * seconds / done
    hours, minutes = divmod(math.ceil(eta_s / 60), 60)
    eta = f"{hours} h {minutes} min" if hours else f"{minutes} min"
    return f"{per_hour:.0f} cases per hour, {left} left, about {eta}"
