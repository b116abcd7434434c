"""`efficiency.json` of a profile: everything that was measured, of every case."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from flarekit.core.errors import InputError
from flarekit.core.files import write_atomically
from flarekit.core.readings import Reading, Unsupported
from flarekit.profiler.figures import Measured
from flarekit.profiler.official import OfficialFigures
from flarekit.profiler.sampler import SamplerQuality

FORMAT: Final = "flarekit profile 1"
Kind = Literal["command", "docker", "official"]


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """What a case may cost before it costs points.

    Attributes:
        time_s: wall time.
        gpu_mib: memory in use on the device.
        counting: whether GPU memory above it is summed sample by sample, or only the maximum's
            excess counts.
    """

    time_s: float = 15.0
    gpu_mib: float = 4096.0
    counting: Literal["sample", "maximum"] = "sample"


@dataclass(frozen=True, kw_only=True)
class Excess:
    """max(0, x - tolerance) of a case.

    Attributes:
        time_s: of the official time.
        gpu_max_mib: of the maximum.
        gpu_area_mib_s: of every sample, summed, times 0.1 s.
        gpu_area_trapezoid_mib_s: of the curve, integrated over its timestamps.
    """

    time_s: float
    gpu_max_mib: Reading
    gpu_area_mib_s: Reading
    gpu_area_trapezoid_mib_s: Reading


@dataclass(frozen=True, kw_only=True)
class InsideCase:
    """What `flarekit predict --report` said of one case.

    Attributes:
        seconds: stage -> wall time; stages of two cases may overlap.
        wall_s: from its beginning to its mask.
        traded: what it did without to keep a budget.
        error: why it failed, if it did.
    """

    case_id: str
    seconds: dict[str, float]
    wall_s: float
    traded: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class ProfiledCase:
    """One watched run.

    Attributes:
        name: of its files in the report: the scan's name, less `.nii.gz`; or the command's.
        case_id: of the mask.
        shape_XYZ: voxels of the scan as stored; None where there is no scan, or no header to read.
        began: when it was started, ISO 8601.
        wall_s: until it ended.
        exit_code: None where it was killed when its time was up, or its end was not recorded.
        failures: in words; empty where all is well.
        leftovers: files that should not be there, relative to the work folder.
        official: the organisers' figures.
        measured: the careful ones, by column.
        excess: over the report's tolerances.
        stages: stage -> seconds, of everything inside; empty where nothing was told from inside.
        inside: what was told of the cases inside.
        traits: engine, device and precision, as told from inside.
        sampler: how well the samples were taken; None for samples from elsewhere.
    """

    name: str
    case_id: str
    shape_XYZ: tuple[int, int, int] | None
    began: str
    wall_s: float
    exit_code: int | None
    failures: tuple[str, ...]
    leftovers: tuple[str, ...]
    official: OfficialFigures
    measured: dict[str, Measured | Unsupported]
    excess: Excess
    stages: dict[str, float] = field(default_factory=dict)
    inside: tuple[InsideCase, ...] = ()
    traits: dict[str, str] = field(default_factory=dict)
    sampler: SamplerQuality | None = None

    @property
    def slices(self) -> int | None:
        """The third stored dimension."""
        return None if self.shape_XYZ is None else self.shape_XYZ[2]

    def maximum(self, column: str) -> Reading:
        """Return a column's maximum; Unsupported where it is missing in whole or in part."""
        figure = self.measured.get(column)
        if figure is None:
            return Unsupported(not_supported="not measured")
        if isinstance(figure, Unsupported):
            return figure
        if figure.fault is not None:
            return Unsupported(not_supported=f"only in part: {figure.fault}")
        return figure.maximum

    @property
    def ram_mib(self) -> Reading:
        """Most memory of the container, or of the process tree where there is no container.

        Page cache does not count. What the kernel's own peak has above the samples does, less the
        most page cache that was seen, for that peak includes it.
        """
        sampled, peak, cache = (
            self.sampled_ram_mib,
            self.kernel_peak_mib,
            self.maximum("cgroup_cache_mib"),
        )
        if isinstance(sampled, Unsupported) or isinstance(peak, Unsupported):
            return sampled
        if "cgroup_peak_mib" not in self.measured:
            return max(sampled, peak)
        return sampled if isinstance(cache, Unsupported) else max(sampled, peak - cache)

    @property
    def sampled_ram_mib(self) -> Reading:
        """Most memory that a sample has seen, page cache left out."""
        for column in ("cgroup_working_mib", "tree_rss_mib"):
            if isinstance(self.measured.get(column), Measured):
                return self.maximum(column)
        return Unsupported(not_supported="no memory of a container or a process tree")

    @property
    def kernel_peak_mib(self) -> Reading:
        """Most memory at any moment, by the kernel: of the container, page cache included.

        Without a container it is that of the largest process of the tree.
        """
        is_container = "cgroup_peak_mib" in self.measured
        return self.maximum("cgroup_peak_mib" if is_container else "tree_peak_mib")

    @property
    def gpu_mib(self) -> Reading:
        """Most GPU memory that the run is charged with, less that of others where it is known."""
        charged = self.maximum("gpu_charged_mib")
        if not isinstance(charged, Unsupported):
            return charged
        if "gpu_used_mib" in self.measured:
            return self.maximum("gpu_used_mib")
        return self.official.max_gpu_mib

    @property
    def others_gpu_mib(self) -> float:
        """How much GPU memory of other processes the official figures count; 0 where not known."""
        used, charged = self.maximum("gpu_used_mib"), self.maximum("gpu_charged_mib")
        if isinstance(used, Unsupported) or isinstance(charged, Unsupported):
            return 0.0
        return max(0.0, used - charged)


@dataclass(frozen=True, kw_only=True)
class EfficiencyReport:
    """A whole profile.

    Attributes:
        name: the team's or image's; of the CSV.
        kind: how it was made.
        command: what was run; for every case anew.
        created: ISO 8601.
        flarekit: version that measured.
        tolerances: those that `excess` is over.
        environment: what it ran on, in words.
        cases: in the order they ran.
        notes: what else a reader must know.
    """

    name: str
    kind: Kind
    command: tuple[str, ...]
    created: str
    flarekit: str
    tolerances: Tolerances
    environment: dict[str, str]
    cases: tuple[ProfiledCase, ...] = ()
    notes: tuple[str, ...] = ()
    format: Literal["flarekit profile 1"] = FORMAT

    @property
    def failed(self) -> tuple[ProfiledCase, ...]:
        """The cases that failed."""
        return tuple(case for case in self.cases if case.failures)


def write_report_json(report: EfficiencyReport, path: Path) -> None:
    """Write everything.

    Raises:
        OutputError: it could not be written.
    """
    from pydantic import TypeAdapter

    content: dict[str, Any] = TypeAdapter(EfficiencyReport).dump_python(report, mode="json")
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def read_report_json(path: Path) -> EfficiencyReport:
    """Read everything back.

    Raises:
        InputError: unreadable, or not a profile.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}", fix="name a folder that profile has made"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: is not JSON: {error}", fix="profile again") from error
    if not is_profile(content):
        raise InputError(
            f"{path}: is not a profile's, but perhaps that of flarekit predict --report",
            fix="name a folder that flarekit profile has made",
        )
    try:
        return TypeAdapter(EfficiencyReport).validate_python(content)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:3]
        )
        raise InputError(f"{path}: {faults}", fix="profile again") from error


def is_profile(content: object) -> bool:
    """Tell whether the content of an `efficiency.json` is a profile's of this version."""
    return isinstance(content, Mapping) and content.get("format") == FORMAT
