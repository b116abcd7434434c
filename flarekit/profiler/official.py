"""FLARE's own files: one JSON per case, one CSV per team, byte by byte as its scripts make them.

After github.com/JunMa11/FLARE, FLARE24/Efficiency.py and load_json.py (FLARE23's are the same):
every sample counts 0.1 s, whenever it was taken. Where there is no GPU their scripts end in an
error; here the list is empty and the cells say so.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flarekit.core.errors import InputError
from flarekit.core.files import write_atomically
from flarekit.core.readings import Reading, Unsupported
from flarekit.profiler.readings import Sample

SAMPLE_S = 0.1
COLUMNS = (
    "Name",
    "Time",
    "MaxGPU_Mem",
    "AUC_GPU_Time",
    "MaxCPU_Utilization",
    "AUC_CPU_Time",
    "MaxRAM",
    "AUC_RAM_Time",
)
NOT_SUPPORTED = "not supported"
_KEYS = ("gpu_memory", "cpu_list", "RAM_list")
_CPU_COLUMNS = ("host_user_percent", "host_system_percent", "host_idle_percent")


@dataclass(frozen=True, kw_only=True)
class OfficialRecord:
    """What FLARE keeps of a case, number types as in the file.

    Attributes:
        gpu_memory: device memory in use, MiB; empty without a GPU.
        cpu_list: user, system and idle time, percent.
        ram_list: memory in use on the host, MiB.
        time: wall time in seconds; None in a file whose writing was cut short.
    """

    gpu_memory: Sequence[float]
    cpu_list: Sequence[Sequence[float]]
    ram_list: Sequence[float]
    time: float | None

    def content(self) -> bytes:
        """Return the bytes of the file."""
        values: dict[str, Any] = {
            "gpu_memory": list(self.gpu_memory),
            "cpu_list": [list(each) for each in self.cpu_list],
            "RAM_list": list(self.ram_list),
        }
        if self.time is not None:
            values["time"] = self.time
        return json.dumps(values, indent=4).encode()


@dataclass(frozen=True, kw_only=True)
class OfficialFigures:
    """A row of the CSV, rounded as there.

    Attributes:
        time_s: wall time from before the start until the lists are copied and dumped.
        gpu_area_mib_s: sum of the samples times 0.1 s, as all areas are.
    """

    time_s: float
    max_gpu_mib: Reading
    gpu_area_mib_s: Reading
    max_cpu_percent: Reading
    cpu_area_percent_s: Reading
    max_ram_mib: Reading
    ram_area_mib_s: Reading


def record_of(samples: Sequence[Sample], time_s: float | None) -> OfficialRecord:
    """Return the lists that FLARE's script would have kept; a lost GPU ends its list."""
    gpu, cpu, ram = [], [], []
    for sample in samples:
        used = sample.readings.get("gpu_used_mib")
        if isinstance(used, float):
            gpu.append(used)
        triple = [sample.readings.get(column) for column in _CPU_COLUMNS]
        known = [each for each in triple if isinstance(each, float)]
        if len(known) == len(_CPU_COLUMNS):
            cpu.append(known)
        host = sample.readings.get("host_ram_mib")
        if isinstance(host, float):
            ram.append(host)
    return OfficialRecord(gpu_memory=gpu, cpu_list=cpu, ram_list=ram, time=time_s)


def read_record(path: Path) -> OfficialRecord:
    """Read a case's JSON.

    Raises:
        InputError: unreadable, or not of that form.
    """
    try:
        values = json.loads(path.read_bytes())
        gpu, cpu, ram = (list(values[key]) for key in _KEYS)
        triples = [(user, system, idle) for user, system, idle in cpu]
        time = values.get("time")
        return OfficialRecord(gpu_memory=gpu, cpu_list=triples, ram_list=ram, time=time)
    except OSError as error:
        fault = error.strerror or str(error)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fault = f"not FLARE's JSON of a case: {type(error).__name__}: {error}"
    raise InputError(f"{path}: {fault}", fix=f"it needs {', '.join(_KEYS)} and time")


def is_record(path: Path) -> bool:
    """Tell whether a JSON file looks like a case's, without judging its values."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and "gpu_memory" in values


def figures_of(record: OfficialRecord) -> OfficialFigures:
    """Return the figures as the CSV has them."""
    time_s, *rest = (
        Unsupported(not_supported="no samples") if value is None else float(value)
        for value in _figures(record)
    )
    if isinstance(time_s, Unsupported):
        raise TypeError("a time is always there")
    names = list(OfficialFigures.__dataclass_fields__)[1:]
    return OfficialFigures(time_s=time_s, **dict(zip(names, rest, strict=True)))


def write_csv(records: Mapping[str, OfficialRecord], path: Path) -> None:
    """Write the team's table.

    Args:
        records: name of the JSON without its ending -> what is in it.
        path: `TEAM_Efficiency.csv`.

    Raises:
        OutputError: it could not be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    stems = sorted(records, key=lambda stem: f"{stem}.json")  # as their files sort
    writer.writerows(_row(stem, records[stem]) for stem in stems)
    write_atomically(path, text.getvalue().encode())


def _row(stem: str, record: OfficialRecord) -> list[Any]:
    cells = [NOT_SUPPORTED if value is None else value for value in _figures(record)]
    return [stem.split(".")[0] + ".nii.gz", *cells]


def _figures(record: OfficialRecord) -> list[Any]:
    """Return the cells behind the name: arithmetic and number types of load_json.py."""
    import numpy as np

    gpu, ram = record.gpu_memory, record.ram_list
    cpu = [100 - idle for _, _, idle in record.cpu_list]
    time = SAMPLE_S * len(gpu) if record.time is None else record.time
    return [
        np.round(time, 2),
        np.round(max(gpu)) if gpu else None,
        np.round(sum(gpu) * SAMPLE_S) if gpu else None,
        np.round(max(cpu), 2) if cpu else None,
        np.round(sum(cpu) * SAMPLE_S, 2) if cpu else None,
        np.round(max(ram), 2) if ram else None,
        np.round(sum(ram) * SAMPLE_S) if ram else None,
    ]
