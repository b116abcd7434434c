"""Reports that are there already: our own, one that a crash cut short, and FLARE's own files."""

from dataclasses import replace
from pathlib import Path

from flarekit.core.errors import InputError
from flarekit.core.files import write_atomically
from flarekit.profiler import official
from flarekit.profiler.figures import measure_all
from flarekit.profiler.folder import (
    ReportFolder,
    excess_of,
    new_report,
    samples_of,
    samples_of_record,
)
from flarekit.profiler.records import EfficiencyReport, ProfiledCase, Tolerances, read_report_json
from flarekit.profiler.stream import read_samples


def load_report(
    root: Path, tolerances: Tolerances | None = None
) -> tuple[EfficiencyReport, ReportFolder]:
    """Read a report folder, or a folder of FLARE's own JSON files.

    Cases whose samples are there but whose end was never recorded (a crash) come back as failed.

    Args:
        root: the folder.
        tolerances: of the excess; the report's own where None.

    Raises:
        InputError: neither of the two, or a file in it cannot be read.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder", fix="name a folder that profile has made")
    path = root / "efficiency.json"
    if path.is_file():
        report = read_report_json(path)
        folder = ReportFolder(root, report.name)
        report = _with_interrupted(report, folder)
        return (report if tolerances is None else _judged_by(report, folder, tolerances)), folder
    records = [each for each in sorted(root.glob("*.json")) if official.is_record(each)]
    if not records:
        raise InputError(
            f"{root}: no efficiency.json, and no JSON of a case as FLARE's script writes it",
            fix="name a folder that flarekit profile or FLARE's Efficiency.py has made",
        )
    return _of_records(root, records, tolerances or Tolerances())


def _judged_by(
    report: EfficiencyReport, folder: ReportFolder, tolerances: Tolerances
) -> EfficiencyReport:
    cases = [
        replace(
            case,
            excess=excess_of(
                samples_of(case, folder),
                official.read_record(folder.record(case.name)),
                tolerances,
            ),
        )
        for case in report.cases
    ]
    return replace(report, tolerances=tolerances, cases=tuple(cases))


def _with_interrupted(report: EfficiencyReport, folder: ReportFolder) -> EfficiencyReport:
    known = {case.name for case in report.cases}
    lost = [
        path for path in sorted((folder.root / "samples").glob("*.jsonl")) if path.stem not in known
    ]
    cases = [_interrupted(path, folder, report.tolerances) for path in lost]
    return replace(report, cases=(*report.cases, *cases))


def _interrupted(path: Path, folder: ReportFolder, tolerances: Tolerances) -> ProfiledCase:
    recording = read_samples(path)
    samples = list(recording.samples)
    last_s = max(samples[-1].t_s, 0.0) if samples else 0.0
    record = official.record_of(samples, last_s)
    write_atomically(folder.record(path.stem), record.content())
    shape = recording.facts.get("shape_XYZ")
    return ProfiledCase(
        name=path.stem,
        case_id=str(recording.facts.get("case_id", path.stem)),
        shape_XYZ=None if shape is None else (shape[0], shape[1], shape[2]),
        began=str(recording.facts.get("began", "")),
        wall_s=last_s,
        exit_code=None,
        failures=(f"the profile was interrupted {last_s:.1f} s after the start",),
        leftovers=(),
        official=official.figures_of(record),
        measured=measure_all(samples),
        excess=excess_of(samples, record, tolerances),
    )


def _of_records(
    root: Path, paths: list[Path], tolerances: Tolerances
) -> tuple[EfficiencyReport, ReportFolder]:
    """Return a report of files that FLARE's script wrote."""
    folder = _Foreign(root, root.resolve().name)
    cases = []
    for path in paths:
        record = official.read_record(path)
        samples = samples_of_record(record)
        figures = official.figures_of(record)
        cases.append(
            ProfiledCase(
                name=path.stem,
                case_id=path.stem.removesuffix("_0000"),
                shape_XYZ=None,
                began="",
                wall_s=figures.time_s,
                exit_code=None,
                failures=(),
                leftovers=(),
                official=figures,
                measured=measure_all(samples),
                excess=excess_of(samples, record, tolerances),
            )
        )
    report = new_report(folder.name, "official", (), tolerances, {})
    note = "Samples without times, from FLARE's JSON: taken to be 0.1 s apart."
    return replace(report, cases=tuple(cases), notes=(note,)), folder


class _Foreign(ReportFolder):
    """A folder of FLARE's own: its files lie beside the report, not one below.

    It gets no `efficiency.json`, for load_json.py takes every JSON there for a case.
    """

    def record(self, case: str) -> Path:
        return self.root / f"{case}.json"

    def write(self, report: EfficiencyReport) -> None:
        official.write_csv(self.records(report), self.csv)
