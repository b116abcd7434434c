"""Samples on disk: JSON lines, written as they come, so that a crash loses nothing.

    {"flarekit_samples": 1, "began": "2026-11-21T10:00:00+00:00", "interval_s": 0.1, ...}
    {"t_s": 0.1, "gpu_used_mib": 2218.0, "gpu_tree_mib": null}
    {"t_s": 0.1, "not_supported": {"gpu_tree_mib": "Not Supported"}}

null is not a reading; why not is said when it begins or changes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flarekit.core.errors import InputError, OutputError
from flarekit.core.readings import Reading, Unsupported
from flarekit.profiler.readings import Sample

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


class SampleFile:
    """Writes samples; every line is with the system as soon as it is written.

    Args:
        path: the file to make.
        facts: what the first line tells besides the format.

    Raises:
        OutputError: it cannot be made.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self._path = path
        self._reasons: dict[str, str] = {}
        try:
            self._stream = path.open("wb", buffering=0)
        except OSError as error:
            raise self._refused(error) from error
        self._write({"flarekit_samples": 1, **facts})

    def write(self, sample: Sample) -> None:
        """Append a sample.

        Raises:
            OutputError: the disk is full or gone.
        """
        line: dict[str, Any] = {"t_s": round(sample.t_s, 4)}
        news: dict[str, str] = {}
        for column, reading in sample.readings.items():
            if isinstance(reading, Unsupported):
                line[column] = None
                if self._reasons.get(column) != reading.not_supported:
                    self._reasons[column] = news[column] = reading.not_supported
            else:
                line[column] = round(reading, 4)
        if news:
            self._write({"t_s": line["t_s"], "not_supported": news})
        self._write(line)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            self._stream.write(f"{_ENCODE(line)}\n".encode())
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self._path}: samples cannot be written: {error.strerror}",
            fix="check that the report folder is writable and has space",
        )


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a file of samples holds.

    Attributes:
        facts: of its first line.
        samples: in the order they were taken; of a file cut short all that are whole.
    """

    facts: Mapping[str, Any]
    samples: Sequence[Sample]


def read_samples(path: Path) -> Recording:
    """Read a file of samples back; a last line that was cut short is left out.

    Raises:
        InputError: unreadable, or not such a file.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}", fix="check the report folder"
        ) from error
    whole = lines[:-1]  # what follows the last line feed is empty or cut short
    try:
        facts, *rest = (json.loads(line) for line in whole)
        known = facts["flarekit_samples"] == 1
        samples = _samples(rest) if known else []
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is not a file of samples: {error}", fix="remove it, or profile again"
        ) from error
    if not known:
        raise InputError(f"{path}: samples of an unknown version", fix="use a newer flarekit")
    return Recording(facts=facts, samples=samples)


def _samples(lines: Sequence[dict[str, Any]]) -> list[Sample]:
    reasons: dict[str, str] = {}
    samples = []
    for line in lines:
        if "not_supported" in line:
            reasons |= line["not_supported"]
            continue
        readings: dict[str, Reading] = {
            column: Unsupported(not_supported=reasons[column]) if value is None else value
            for column, value in line.items()
            if column != "t_s"
        }
        samples.append(Sample(t_s=line["t_s"], readings=readings))
    return samples
