"""Lists of cases: a CSV with a column per channel, or JSON lines."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flarekit.cohort.listed import ListedCase
from flarekit.cohort.stores import read_text, tag_of
from flarekit.core.errors import InputError

_CASE, _SCAN, _CHANNELS = "case", "scan", "channels"


def read_manifest(place: str, channels: Sequence[str]) -> list[ListedCase]:
    """Return the cases of a list.

    A CSV has the column `case` and one column per channel, named as the predictor names it, or
    `scan` where there is one channel; commas, semicolons or tabs part its columns. A line of JSON
    is `{"case": "a", "channels": ["ct.nii.gz"]}`, or has the names of the CSV's columns. Files are
    relative to the list.

    Args:
        place: file or URI of the list, `.csv` or `.jsonl`.
        channels: names of the predictor's channels.

    Raises:
        InputError: it cannot be read, a line is wrong, or two cases share a name.
    """
    text = read_text(place)
    rows = _csv_rows(place, text) if place.endswith(".csv") else _json_rows(place, text)
    folder = place.rpartition("/")[0] or "."
    found: dict[str, tuple[int, ListedCase]] = {}
    for number, row in rows:
        row = {str(key).strip().lower(): value for key, value in row.items()}
        name = row.get(_CASE)
        if not isinstance(name, str) or not name.strip():
            raise _fault(place, number, "names no case", "fill in the column `case`")
        files = _files_of(row, channels)
        if files is None:
            wanted = f"`{_SCAN}`" if len(channels) == 1 else ", ".join(f"`{c}`" for c in channels)
            raise _fault(place, number, f"case {name!r} lacks files", f"fill in {wanted}")
        places = [each if _stands_alone(each) else f"{folder}/{each}" for each in files]
        remote = any("://" in each for each in places)
        tags = [tag_of(each) for each in places] if remote else None
        case = ListedCase.of(name=name.strip(), places=places, tags=tags)
        if case.case_id in found:
            before = found[case.case_id][0]
            fault = f"case {name!r} is in line {before} as well"
            raise _fault(place, number, fault, "give each a name of its own")
        found[case.case_id] = number, case
    if not found:
        raise InputError(f"{place}: lists no cases", fix="write a line per case")
    return [case for _, case in found.values()]


def _stands_alone(file: str) -> bool:
    return "://" in file or Path(file).is_absolute()


def _files_of(row: Mapping[str, Any], channels: Sequence[str]) -> list[str] | None:
    listed = row.get(_CHANNELS)
    if listed is None:
        names = [name.lower() for name in channels]
        if len(channels) == 1 and names[0] not in row:
            names = [_SCAN]
        listed = [row.get(name) for name in names]
    if not isinstance(listed, list) or not listed:
        return None
    if not all(isinstance(each, str) and each.strip() and "\0" not in each for each in listed):
        return None
    return [each.strip() for each in listed]


def _csv_rows(place: str, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)  # spreadsheets of many countries write semicolons
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True, delimiter=delimiter)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise _fault(
            place, reader.line_num, f"is not a CSV ({error})", "export it again"
        ) from error


def _json_rows(place: str, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _fault(place, number, f"is not JSON ({error})", "correct the line") from error
        if not isinstance(row, dict):
            raise _fault(place, number, "is not an object {...}", "correct the line")
        yield number, row


def _fault(place: str, number: int, what: str, fix: str) -> InputError:
    return InputError(f"{place}: line {number}: {what}", fix=fix)
