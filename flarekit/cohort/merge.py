"""The ledgers of a cohort's parts become one, with the statistics that go with them."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flarekit.cohort.parquet import write_parquet
from flarekit.core.errors import InputError
from flarekit.core.files import write_atomically
from flarekit.report.ledger import LEDGER, RUN, Ledger, Line, ledgers_in, part_of, read_ledgers
from flarekit.report.statistics import STATISTICS, read_rows, write_rows

_PART = re.compile(r"ledger-((\d+)-of-(\d+))\.jsonl")


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What the parts of a cohort come to.

    Attributes:
        lines: case id -> the last line of any ledger, sorted by id.
        ledgers: that were read.
        missing: parts of the cohort that are not there or not run to their end, a sentence each.
    """

    lines: dict[str, Line]
    ledgers: tuple[Path, ...]
    missing: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[str, ...]:
        """The ids of the cases that failed."""
        return tuple(case_id for case_id, line in self.lines.items() if line.get("error"))


def read_parts(places: Iterable[Path]) -> Merged:
    """Read the ledgers of a cohort's parts; of each case the line counts that was written last.

    Args:
        places: ledgers, or folders with ledgers.

    Raises:
        InputError: a place that has no ledger.
        OutputError: one that cannot be read.
    """
    ledgers: list[Path] = []
    for place in places:
        found = ledgers_in(place) if place.is_dir() else [place] * place.is_file()
        if not found:
            raise InputError(
                f"{place}: has no ledger", fix="name a ledger.jsonl, or the folder of a report"
            )
        ledgers += [path for path in found if path not in ledgers]
    return Merged(
        lines=dict(sorted(read_ledgers(ledgers).items())),
        ledgers=tuple(ledgers),
        missing=_missing_of(ledgers),
    )


def _missing_of(ledgers: Sequence[Path]) -> tuple[str, ...]:
    """Return what lacks for a whole cohort, by the names of the ledgers of its parts.

    A cohort may have been dealt out more than once, in other numbers of parts; then it is whole
    where one of these dealings is.
    """
    dealings: dict[int, dict[int, Path]] = {}
    for ledger in ledgers:
        match = _PART.fullmatch(ledger.name)
        if match is not None:
            dealings.setdefault(int(match[3]), {})[int(match[2])] = ledger
    gaps = [_gaps(count, parts) for count, parts in dealings.items()]
    return min(gaps, key=len, default=())


def _gaps(count: int, parts: dict[int, Path]) -> tuple[str, ...]:
    gaps = []
    for number in range(1, count + 1):
        name = f"{number}-of-{count}"
        if number not in parts:
            gaps.append(f"{part_of(Path(LEDGER), name)} is not there: its cases are missing")
        elif not (record := part_of(parts[number].with_name(RUN), name)).is_file():
            gaps.append(f"{parts[number]}: has no {record.name} beside it: its run did not end")
    return tuple(gaps)


def merge(places: Sequence[Path], folder: Path) -> Merged:
    """Write one ledger and one table of statistics for all parts of a cohort.

    The parts stay as they are. Where `folder` is that of the parts, `predict --resume` reads all of
    them, and the merged ledger as well.

    Args:
        places: ledgers, or folders with ledgers.
        folder: for `ledger.jsonl`, `statistics.csv` and `statistics.parquet`, the latter where
            pyarrow is installed; made where it is missing.

    Raises:
        InputError: a place that has no ledger.
        OutputError: something cannot be read or written.
        UsageError: a run is writing to the ledger of `folder`.
    """
    merged = read_parts(places)
    statistics = statistics_of(merged)
    ledger = Ledger(folder, keep=True, begins=False)  # which keeps runs away meanwhile
    try:
        content = "".join(json.dumps(line) + "\n" for line in merged.lines.values())
        write_atomically(folder / LEDGER, content.encode())
        if statistics:
            write_rows(folder / STATISTICS, statistics)
            write_parquet(folder, statistics)
    finally:
        ledger.end()
    return merged


def statistics_of(merged: Merged) -> list[list[str]]:
    """Return the rows of every case from beside the ledger that has its last line."""
    rows: dict[str, list[list[str]]] = {}
    for path in merged.ledgers:
        own: dict[str, list[list[str]]] = {}
        for row in read_rows(statistics_beside(path)):
            own.setdefault(row[0], []).append(row)
        for case_id, line in read_ledgers([path]).items():
            if case_id in own and line == merged.lines[case_id]:
                rows.setdefault(case_id, own[case_id])
    return [row for case_id in merged.lines for row in rows.get(case_id, [])]


def statistics_beside(ledger: Path) -> Path:
    """Return the table of the run that wrote a ledger: statistics-3-of-8.csv, say."""
    stem = ledger.stem.replace(Path(LEDGER).stem, Path(STATISTICS).stem, 1)
    return ledger.with_name(stem + Path(STATISTICS).suffix)
