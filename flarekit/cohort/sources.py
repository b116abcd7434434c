"""Where the scans of a cohort come from: a folder, a list in a file, or a store behind a URI."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flarekit.cohort.listed import Listed, ListedCase
from flarekit.cohort.manifest import read_manifest
from flarekit.cohort.stores import files_at
from flarekit.core.errors import InputError, UsageError
from flarekit.core.spec import PredictorSpec
from flarekit.segmentation.inputs import FoundCases, cases_in, check_also, convention_of

_LISTS = (".csv", ".jsonl")
_URI = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_OF_THIS_MACHINE = re.compile(r"(file|local)://", re.IGNORECASE)
_SCANS = (".nii", ".nii.gz", ".mha")
_CHANNEL = re.compile(r"(.+)_(\d{4})(\.nii\.gz|\.nii|\.mha)")


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A convention's input folder, which every worker sees under the same path.

    Attributes:
        path: of the folder, absolute: workers may run elsewhere.
        convention: its name; the predictor's own where None, or whichever the folder has.
        also: what masks of DICOM series are written as besides, `rtstruct` and `nifti`.
    """

    path: Path
    convention: str | None
    also: tuple[str, ...] = ()

    def here(self) -> list[Path]:
        """Return the folder."""
        return [self.path]

    @contextmanager
    def open(self, spec: PredictorSpec) -> Iterator[FoundCases]:
        """Give the cases of the folder."""
        name = self.convention or spec.convention
        get = partial(convention_of, spec=spec, also=self.also)
        others = get if self.convention is None else None
        with cases_in(name, get(name), self.path, len(spec.channels), others) as found:
            check_also(self.also, found.name)
            yield found


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Cases by name, each with the files or URIs of its channels.

    Attributes:
        cases: that are listed.
        place: of the list, a file or URI; empty where it is none.
    """

    cases: tuple[ListedCase, ...]
    place: str = ""

    def here(self) -> list[Path]:
        """Return the files that have no URI, or one of this machine, and the list itself."""
        places = [self.place, *(place for case in self.cases for place in case.places)]
        paths = [_OF_THIS_MACHINE.sub("", place) for place in places]
        return [Path(path) for path in paths if path and "://" not in path]

    @contextmanager
    def open(self, spec: PredictorSpec) -> Iterator[FoundCases]:
        """Give the cases of the list."""
        for case in self.cases:
            if len(case.places) != len(spec.channels):
                raise InputError(
                    f"case {case.case_id!r} has {len(case.places)} channels, and {spec.name} takes "
                    f"{len(spec.channels)}",
                    fix="name one file per channel, in the predictor's order",
                )
        yield FoundCases(name="listed", convention=Listed(spec), cases=self.cases)


Source = Folder | Rows  # goes to every worker


def source_of(
    text: str, spec: PredictorSpec, convention: str | None, also: Sequence[str] = ()
) -> Source:
    """Return the source that a path or URI names.

    Args:
        text: a folder, a zip or tar of one, a list (`.csv`, `.jsonl`), or a URI that fsspec opens,
            of a list or of a folder of scans.
        spec: of the predictor.
        convention: of a folder here; the predictor's own where None.
        also: what masks of a folder of DICOM series are written as besides.

    Raises:
        InputError: there is nothing to segment.
        UsageError: a convention was named for what is not a folder of this machine, or something
            besides masks is wanted of what is listed.
    """
    is_uri = _URI.match(text) is not None
    if not is_uri and not text.endswith(_LISTS):
        return Folder(path=Path(text).absolute(), convention=convention, also=tuple(also))
    check_also(also, "a list")
    if convention is not None:
        raise UsageError(
            f"{text}: --convention applies to folders on this machine only",
            fix="leave it out: listed scans are NIfTI or .mha files, one per channel",
        )
    if text.endswith(_LISTS):
        names = [each.name for each in spec.channels]
        place = text if is_uri else str(Path(text).absolute())
        return Rows(cases=tuple(read_manifest(place, names)), place=place)
    return Rows(cases=tuple(_scans_at(text, len(spec.channels))))


def _scans_at(uri: str, channel_count: int) -> Iterator[ListedCase]:
    """Yield the scans below a URI: `X_0000.nii.gz` and so on, or any name for one channel."""
    found = {path: tag for path, tag in files_at(uri) if path.endswith(_SCANS)}
    parts = {path: _CHANNEL.fullmatch(path.rpartition("/")[2]) for path in found}
    first = [path for path, match in parts.items() if match is not None and match[2] == "0000"]
    if not first and channel_count == 1:
        first = list(found)
    if not first:
        raise InputError(
            f"{uri}: has no scans named *_0000.nii.gz",
            fix="name each scan CASE_0000.nii.gz, or list the scans in a .csv",
        )
    for path in first:
        match = parts[path]
        places = [path]
        if match is not None:
            start = path[: -len(match[0])] + match[1]
            places = [f"{start}_{k:04d}{match[3]}" for k in range(channel_count)]
        name = match[1] if match is not None else path.rpartition("/")[2]
        below = path[: -len(path.rpartition("/")[2])].removeprefix(uri.rstrip("/")).strip("/")
        yield ListedCase.of(
            name=f"{below}/{name}" if below else name,
            places=places,
            tags=[found.get(place, "missing") for place in places],
        )
