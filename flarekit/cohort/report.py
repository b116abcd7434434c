"""What a cohort came to: one page, and the statistics for programs."""

import logging
from collections.abc import Sequence
from pathlib import Path

from flarekit.cohort.merge import read_parts, statistics_of
from flarekit.cohort.page import write_page
from flarekit.cohort.parquet import write_parquet
from flarekit.report.ledger import Line

_LOG = logging.getLogger(__name__)


def write_report(places: Sequence[Path], folder: Path) -> Path:
    """Write `report.html`, and `statistics.parquet` where pyarrow is installed.

    Args:
        places: ledgers, or folders with ledgers, of a cohort's parts.
        folder: to write to, with the pictures of the cases.

    Returns:
        The page.

    Raises:
        InputError: a place that has no ledger.
        OutputError: something cannot be read or written.
    """
    merged = read_parts(places)
    for sentence in merged.missing:
        _LOG.warning("the cohort is not complete: %s", sentence)
    rows = statistics_of(merged)
    write_parquet(folder, rows)
    return write_page(folder, merged.lines, volumes_of(merged.lines))


def volumes_of(lines: dict[str, Line]) -> dict[str, dict[str, float]]:
    """Return label -> case id -> volume in ml, of the cases that did not fail."""
    found: dict[str, dict[str, float]] = {}
    for case_id, line in lines.items():
        volumes = line.get("volumes_ml")
        if line.get("error") or not isinstance(volumes, dict):
            continue
        for label, ml in volumes.items():
            if isinstance(ml, int | float):
                found.setdefault(label, {})[case_id] = float(ml)
    return found
