"""A folder of jobs: each folder in it is laid out as the platform would lay out one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions._case import (
    Case,
    Cases,
    Convention,
    Points,
    finish_run,
    left_out_of,
    outputs_of,
    own_case,
    points_of,
    share_of,
)
from flarekit.core.errors import InputError
from flarekit.core.files import make_folder
from flarekit.core.volume import Geometry, Volume


@dataclass(frozen=True, kw_only=True)
class JobCase(Case):
    """A case of one of many jobs.

    Attributes:
        job: name of its folder.
        own: the case as the job has it.
    """

    job: str
    own: Case


@dataclass(frozen=True, kw_only=True)
class ManyJobs:
    """A convention whose input folders lie in one folder; so will its output folders.

    Attributes:
        convention: of each job.
    """

    convention: Convention

    def find_cases(self, input_dir: Path, channel_count: int) -> Sequence[Case]:
        """Return the cases of every job; a folder that is none is left out and named.

        Raises:
            InputError: no folder in it is a job.
        """
        cases: list[Case] = []
        left_out: list[str] = []
        for folder in sorted(input_dir.iterdir()) if input_dir.is_dir() else ():
            if not folder.is_dir() or folder.name.startswith("."):
                continue
            try:
                found = self.convention.find_cases(folder, channel_count)
            except InputError as error:
                left_out.append(str(error))
                continue
            left_out += left_out_of(found)
            cases += [_of_job(folder.name, case, alone=len(found) == 1) for case in found]
        if not cases:
            raise InputError(
                f"{input_dir}: no folder in it is a job",
                fix="name the folder of a job, or a folder of such folders; "
                "flarekit conventions NAME shows what is in one",
            )
        return Cases(cases, left_out=left_out)

    def read_case(self, case: Case) -> list[Volume]:
        """Read all channels of a case.

        Raises:
            InputError: a channel is missing or unreadable.
        """
        return self.convention.read_case(own_case(case, JobCase).own)

    def write_mask(
        self, case: Case, label_map_ZYX: NDArray[np.uint8], geometry: Geometry, output_dir: Path
    ) -> Path:
        """Write the mask of a case into its job's output folder.

        Raises:
            OutputError: it could not be written.
        """
        job = own_case(case, JobCase)
        make_folder(output_dir / job.job)
        return self.convention.write_mask(job.own, label_map_ZYX, geometry, output_dir / job.job)

    def write_empty_mask(self, case: Case, output_dir: Path) -> Path:
        """Write what a failed case leaves into its job's output folder.

        Raises:
            OutputError: it could not be written.
        """
        job = own_case(case, JobCase)
        make_folder(output_dir / job.job)
        return self.convention.write_empty_mask(job.own, output_dir / job.job)

    def read_points(self, case: Case, volumes: Sequence[Volume]) -> Points:
        """Return the points of a case, as indices into its first volume.

        Raises:
            InputError: the file with the points is not readable.
        """
        return points_of(self.convention, own_case(case, JobCase).own, volumes)

    def further_outputs(self, case: Case) -> Sequence[Path]:
        """Return what else is written for a case, relative to the output folder."""
        job = own_case(case, JobCase)
        return [Path(job.job) / path for path in outputs_of(self.convention, [job.own])]

    def share_of(self, case: Case) -> float:
        """Return which part of its files a case is."""
        return share_of(self.convention, own_case(case, JobCase).own)

    def finish_run(self, cases: Sequence[Case], output_dir: Path) -> None:
        """Complete the output of every job.

        Raises:
            OutputError: it could not be completed or written.
        """
        by_job: dict[str, list[Case]] = {}
        for case in cases:
            job = own_case(case, JobCase)
            by_job.setdefault(job.job, []).append(job.own)
        for name, own in by_job.items():
            finish_run(self.convention, own, output_dir / name)


def _of_job(name: str, case: Case, *, alone: bool) -> JobCase:
    return JobCase(
        case_id=name if alone else f"{name}/{case.case_id}",
        channels=case.channels,
        mask=Path(name) / case.mask,
        job=name,
        own=case,
    )
