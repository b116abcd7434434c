"""`statistics.parquet`: the table of statistics with typed columns, for programs."""

import io
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flarekit.core.extras import how_to_install
from flarekit.core.files import write_atomically
from flarekit.report.statistics import HEADER

PARQUET = "statistics.parquet"
_LOG = logging.getLogger(__name__)
_TEXT = ("case", "label", "channel", "flags")
_WHOLE = ("value", "components", "x_min", "y_min", "z_min", "x_max", "y_max", "z_max")


def write_parquet(folder: Path, rows: Sequence[Sequence[str]]) -> Path | None:
    """Write the rows of `statistics.csv` as a Parquet file; None where pyarrow is not installed.

    Args:
        folder: of the file.
        rows: of the table, as text; empty cells become nulls.

    Raises:
        OutputError: it cannot be written.
    """
    if find_spec("pyarrow") is None:
        how = how_to_install("statistics")
        _LOG.info("no %s: pyarrow is not installed (%s)", PARQUET, how)
        return None
    import pyarrow
    from pyarrow import parquet

    names = HEADER.strip().split(",")
    columns = {name: [_typed(name, row[k]) for row in rows] for k, name in enumerate(names)}
    schema = pyarrow.schema([(name, _type(name, pyarrow)) for name in names])
    stream = io.BytesIO()
    parquet.write_table(pyarrow.table(columns, schema=schema), stream)
    write_atomically(folder / PARQUET, stream.getvalue())
    return folder / PARQUET


def _type(name: str, pyarrow: Any) -> Any:  # noqa: ANN401 - pyarrow carries no types
    if name in _TEXT:
        return pyarrow.string()
    if name == "touches_edge":
        return pyarrow.bool_()
    return pyarrow.int32() if name in _WHOLE else pyarrow.float64()


def _typed(name: str, text: str) -> str | bool | int | float | None:
    if name in _TEXT:
        return text
    if name == "touches_edge":
        return text == "yes"
    try:
        return int(text) if name in _WHOLE else float(text)
    except ValueError:
        return None
