"""What a worker of a cohort does: the cases that it is given, with one segmenter."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import tarfile
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from flarekit import conventions
from flarekit.cohort.jobs import Job
from flarekit.cohort.sources import Source
from flarekit.conventions import Case, Convention
from flarekit.core.errors import InputError, OutputError, WeightsHashError
from flarekit.core.records import CaseRecord
from flarekit.core.spec import PredictorFolder
from flarekit.engine import EngineFacts
from flarekit.segmentation.case_loop import CaseLoop
from flarekit.segmentation.options import Options
from flarekit.segmentation.predictors import cache_folder, find_predictor, hash_state
from flarekit.segmentation.progress import SharedProgress, Silent
from flarekit.segmentation.report import Report
from flarekit.segmentation.segmenter import Segmenter
from flarekit.segmentation.source import Source as NetworkSource


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """A predictor's folder on its way to the nodes.

    Attributes:
        content: a tar of it.
        sha256: of the tar; names the folder on a node.
    """

    content: bytes
    sha256: str

    @classmethod
    def of(cls, predictor: PredictorFolder) -> Shipped:
        """Pack a predictor; the same folder always makes the same tar."""
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for file in sorted(predictor.folder.rglob("*")):
                if file.is_file() and not file.name.startswith("."):
                    name = file.relative_to(predictor.folder).as_posix()
                    facts = tarfile.TarInfo(name)
                    facts.size = file.stat().st_size
                    with file.open("rb") as opened:
                        tar.addfile(facts, opened)
        content = stream.getvalue()
        return cls(content=content, sha256=hashlib.sha256(content).hexdigest())

    def unpacked(self) -> PredictorFolder:
        """Return the predictor on this node; unpacked by the first worker that asks for it.

        Raises:
            WeightsHashError: its weights are not those that its facts name.
            OutputError: it cannot be unpacked.
        """
        folder = cache_folder() / "predictors" / self.sha256
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with (folder.parent / f".{self.sha256}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # all workers of a node ask at once
                if not folder.is_dir():
                    self._unpack(folder)
                predictor = find_predictor(str(folder))
                if hash_state(predictor) != "ok":  # damaged meanwhile
                    shutil.rmtree(folder)
                    self._unpack(folder)
        except OSError as error:
            raise OutputError(
                f"{folder}: cannot be made: {error.strerror or error}",
                fix="name a folder that can be written with FLAREKIT_CACHE, on every node",
            ) from error
        if hash_state(predictor) != "ok":
            raise WeightsHashError(
                f"{predictor.name}: its weights are not those that predictor.toml describes",
                fix="fetch it again, or export it again",
            )
        return predictor

    def _unpack(self, folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as own:
            target = Path(own, "predictor")
            with tarfile.open(fileobj=io.BytesIO(self.content)) as tar:
                tar.extractall(target, filter="data")
            target.rename(folder)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every worker is told.

    Attributes:
        source: where the cases come from.
        output_dir: of the masks; a folder that all nodes share.
        options: how to segment.
        predictor: what segments.
        report: what is wanted of every case beside its mask; its folder is shared as well.
    """

    source: Source
    output_dir: Path
    options: Options
    predictor: Shipped
    report: Report

    def __call__(self) -> Segmenting:
        """Return what runs in a worker."""
        return Segmenting(self)


class Segmenting:
    """Segments the cases that it is given."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._stack = ExitStack()
        self._segmenter: Segmenter | None = None
        self._convention: Convention | None = None
        self._cases: dict[str, Case] = {}

    def start(self) -> EngineFacts:
        """Load the network, and find the cases.

        Raises:
            OutputError: this node does not see the output folder.
            FlarekitError: weights, device or inputs are not as they should be.
        """
        work = self._work
        if not work.output_dir.is_dir():
            raise OutputError(
                f"{work.output_dir}: is not there on the node {os.uname().nodename}",
                fix="name an output folder that all nodes share, at the same path",
            )
        source = NetworkSource.of_folder(work.predictor.unpacked())
        self._segmenter = Segmenter(source, work.options)
        facts = self._segmenter.facts
        found = self._stack.enter_context(work.source.open(self._segmenter.spec))
        self._convention = found.convention
        self._cases = {case.case_id: case for case in found.cases}
        return facts

    def run(self, job: Job) -> list[CaseRecord]:
        """Segment the cases of a job.

        Raises:
            InputError: a case is not there any more.
            OutputError: what the masks are parts of could not be completed.
        """
        segmenter, convention, work = self._segmenter, self._convention, self._work
        assert segmenter is not None
        assert convention is not None
        missing = [case_id for case_id in job.case_ids if case_id not in self._cases]
        if missing:
            raise InputError(f"{missing[0]}: is not among the inputs any more", fix="run again")
        cases = [self._cases[case_id] for case_id in job.case_ids]
        loop = CaseLoop(
            cases=cases,
            convention=convention,
            context=segmenter.context(),
            output_dir=work.output_dir,
            on_error=work.options.on_error,
            probabilities=work.options.probabilities,
            budget_s=segmenter.budget.time_s,
            shared=SharedProgress(progress=Silent(), report=work.report, total=len(cases)),
            numbers=range(len(cases)),
        )
        records = loop.run(segmenter, time.monotonic())
        conventions.finish_run(convention, cases[: len(records)], work.output_dir)
        return records
