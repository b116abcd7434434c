"""The report folder: what lies where, rewritten after every case.

efficiency.json            everything
NAME_Efficiency.csv        FLARE's table
NAME/CASE.json             FLARE's file of a case (load_json.py reads this folder)
samples/CASE.jsonl         every sample with its time
logs/CASE.txt              what the container said
curves/CASE.png            its curves
efficiency.html            the report to look at
"""

import logging
from datetime import UTC, datetime
from pathlib import Path

from flarekit.core.errors import OutputError
from flarekit.core.extras import can_draw
from flarekit.core.files import make_folder, write_atomically
from flarekit.core.package import VERSION
from flarekit.core.readings import Unsupported
from flarekit.profiler import official
from flarekit.profiler.figures import (
    area,
    curve_of,
    official_area_over,
    over,
)
from flarekit.profiler.readings import Sample
from flarekit.profiler.records import (
    EfficiencyReport,
    Excess,
    Kind,
    ProfiledCase,
    Tolerances,
    write_report_json,
)
from flarekit.profiler.stream import read_samples

_LOG = logging.getLogger(__name__)


class ReportFolder:
    """Paths of a report.

    Args:
        root: the folder.
        name: the team's or image's; of the CSV and of the folder of FLARE's files.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name

    @property
    def json(self) -> Path:
        """Everything."""
        return self.root / "efficiency.json"

    @property
    def csv(self) -> Path:
        """FLARE's table."""
        return self.root / f"{self.name}_Efficiency.csv"

    def record(self, case: str) -> Path:
        """FLARE's file of a case."""
        return self.root / self.name / f"{case}.json"

    def samples(self, case: str) -> Path:
        """Every sample of a case."""
        return self.root / "samples" / f"{case}.jsonl"

    def log(self, case: str) -> Path:
        """What a case's container said."""
        return self.root / "logs" / f"{case}.txt"

    def make(self) -> None:
        """Make the folders; what an earlier profile left in them goes.

        Raises:
            OutputError: they cannot be made or emptied, or hold what no profile left.
        """
        own = {self.name: "*.json", "samples": "*.jsonl", "logs": "*.txt", "curves": "*.png"}
        foreign = [path for name in own for path in sorted((self.root / name).glob(own[name]))]
        if foreign and not self.json.exists():
            raise OutputError(
                f"{foreign[0]}: would be removed, and no profile seems to have left it",
                fix="name another folder for the report, or move that file",
            )
        for name, pattern in own.items():
            folder = self.root / name
            make_folder(folder)
            try:
                for path in folder.glob(pattern):
                    path.unlink()
            except OSError as error:
                raise OutputError(
                    f"{folder}: cannot be emptied: {error.strerror}", fix="name another folder"
                ) from error

    def write(self, report: EfficiencyReport) -> None:
        """Write the JSON and the CSV: after every case, so that a crash costs one at most.

        Raises:
            OutputError: they could not be written.
        """
        write_report_json(report, self.json)
        official.write_csv(self.records(report), self.csv)

    def records(self, report: EfficiencyReport) -> dict[str, official.OfficialRecord]:
        """Read FLARE's files of a report's cases.

        Raises:
            InputError: one of them cannot be read.
        """
        paths = {case.name: self.record(case.name) for case in report.cases}
        return {name: official.read_record(path) for name, path in paths.items()}


def excess_of(
    samples: list[Sample], record: official.OfficialRecord, tolerances: Tolerances
) -> Excess:
    """Return what a case cost above the tolerances."""
    figures = official.figures_of(record)
    curve = curve_of(samples, "gpu_used_mib")
    trapezoid = (
        area(curve, above=tolerances.gpu_mib)
        if curve.values
        else Unsupported(not_supported=curve.fault or "not measured")
    )
    return Excess(
        time_s=max(0.0, figures.time_s - tolerances.time_s),
        gpu_max_mib=over(figures.max_gpu_mib, tolerances.gpu_mib),
        gpu_area_mib_s=official_area_over(record.gpu_memory, tolerances.gpu_mib, official.SAMPLE_S),
        gpu_area_trapezoid_mib_s=trapezoid,
    )


def new_report(
    name: str,
    kind: Kind,
    command: tuple[str, ...],
    tolerances: Tolerances,
    environment: dict[str, str],
) -> EfficiencyReport:
    """Return a report without cases."""
    return EfficiencyReport(
        name=name,
        kind=kind,
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        flarekit=VERSION,
        tolerances=tolerances,
        environment=environment,
    )


def samples_of(case: ProfiledCase, folder: ReportFolder) -> list[Sample]:
    """Return a case's samples; those of FLARE's JSON, 0.1 s apart, where there are no others.

    Raises:
        InputError: they cannot be read.
    """
    path = folder.samples(case.name)
    if path.is_file():
        return list(read_samples(path).samples)
    return samples_of_record(official.read_record(folder.record(case.name)))


def draw(report: EfficiencyReport, folder: ReportFolder) -> None:
    """Write the page and, where matplotlib is installed, the pictures.

    Raises:
        InputError: samples cannot be read.
        OutputError: they could not be written.
    """
    from flarekit.profiler.page.html import page

    samples = {case.name: samples_of(case, folder) for case in report.cases}
    write_atomically(folder.root / "efficiency.html", page(report, samples).encode())
    if not can_draw("no pictures"):
        return
    from flarekit.profiler.pictures import write_picture

    make_folder(folder.root / "curves")  # a folder of FLARE's own has none yet
    for case in report.cases:
        path = folder.root / "curves" / f"{case.name}.png"
        write_picture(path, case, samples[case.name], report.tolerances)


def samples_of_record(record: official.OfficialRecord) -> list[Sample]:
    """Return samples 0.1 s apart, as FLARE takes its own to be."""
    columns: dict[str, list[float]] = {
        "gpu_used_mib": [float(value) for value in record.gpu_memory],
        "host_ram_mib": [float(value) for value in record.ram_list],
    }
    for place, column in enumerate(("user", "system", "idle")):
        columns[f"host_{column}_percent"] = [float(each[place]) for each in record.cpu_list]
    length = max(map(len, columns.values()))
    return [
        Sample(
            t_s=index * official.SAMPLE_S,
            readings={
                column: values[index] for column, values in columns.items() if index < len(values)
            },
        )
        for index in range(length)
    ]
