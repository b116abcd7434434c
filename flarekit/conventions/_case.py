"""What a convention is: how it finds and reads cases and writes masks; what some add to that."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from flarekit.core.archives import Unpacked
from flarekit.core.errors import InputError, OutputError
from flarekit.core.files import printable_name
from flarekit.core.unpacked_names import by_archive
from flarekit.core.volume import Geometry, Volume

Points = Mapping[str, NDArray[np.int64]]  # what they mark -> (N, 3) indices of voxels, (z, y, x)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case to segment.

    Attributes:
        case_id: the organiser's name for it, as consoles and tables take it.
        channels: one file per channel of the predictor, in its order; a file may be missing.
        mask: where the mask goes, relative to the output folder.
        identity: what tells its inputs from others where they are not files of this machine.
    """

    case_id: str
    channels: tuple[Path, ...]
    mask: Path
    identity: str | None = None

    def __post_init__(self) -> None:
        """Make a name that came from a file's fit for every record and console."""
        object.__setattr__(self, "case_id", printable_name(self.case_id))


_Case = TypeVar("_Case", bound=Case)
_Geometry = TypeVar("_Geometry", bound=Geometry)
_MOST_NAMED = 5


class NothingUsableError(InputError):
    """There are inputs of a convention's kind, and none can be used; the reason is told."""


class Cases(list[Case]):
    """Cases, and what of the folder is in none of them though it looks as if it should be.

    Attributes:
        left_out: one sentence per file or series: which, what is wrong, what to do.
        unpacked: temporary files that some of them lie in, for `give_up`.
    """

    def __init__(
        self,
        cases: Iterable[Case] = (),
        *,
        left_out: Iterable[str] = (),
        unpacked: Unpacked | None = None,
    ) -> None:
        super().__init__(cases)
        self.left_out = tuple(map(by_archive, left_out))
        self.unpacked = unpacked


def give_up(cases: Sequence[Case]) -> None:
    """Remove temporary files that cases lie in; none of the cases can be read afterwards."""
    if isinstance(cases, Cases) and cases.unpacked is not None:
        cases.unpacked.close()


def left_out_of(cases: Sequence[Case]) -> tuple[str, ...]:
    """Return what a convention left out when it found these cases."""
    return cases.left_out if isinstance(cases, Cases) else ()


class Convention(Protocol):
    """What every convention module defines."""

    def find_cases(self, input_dir: Path, channel_count: int) -> Sequence[Case]:
        """Return the cases in a folder, sorted by name; as `Cases` where anything is left out.

        Who calls it calls `give_up` once the cases are done with.

        Raises:
            InputError: no such folder, or no case in it; the message says what was looked for.
        """
        ...

    def read_case(self, case: Case) -> list[Volume]:
        """Read all channels of a case.

        Raises:
            InputError: a channel is missing or unreadable.
        """
        ...

    def write_mask(
        self,
        case: Case,
        label_map_ZYX: NDArray[np.uint8],
        geometry: Geometry,
        output_dir: Path,
    ) -> Path:
        """Write the mask of a case and return its path.

        Args:
            case: which.
            label_map_ZYX: uint8 on the grid of the case's first volume.
            geometry: that volume's.
            output_dir: folder of the masks.

        Raises:
            OutputError: it could not be written.
        """
        ...

    def write_empty_mask(self, case: Case, output_dir: Path) -> Path:
        """Write an all-background mask for a case that failed, and return its path.

        In the scan's geometry where that can still be read, else of a single voxel.

        Raises:
            OutputError: it could not be written.
        """
        ...


@runtime_checkable
class Pointed(Protocol):
    """A convention whose cases may come with points that somebody set."""

    def read_points(self, case: Case, volumes: Sequence[Volume]) -> Points:
        """Return the points of a case, as indices into its first volume.

        Raises:
            InputError: the file with the points is not readable.
        """
        ...


@runtime_checkable
class Gathering(Protocol):
    """A convention that takes files, or several folders, as well as one folder."""

    def find_in(self, inputs: Sequence[Path], channel_count: int) -> Sequence[Case]:
        """Return the cases of files and folders, as `Convention.find_cases` does of one folder.

        Raises:
            InputError: a path is missing, or there is no case in any.
        """
        ...


@runtime_checkable
class Describing(Protocol):
    """A convention that writes more for a case than its mask."""

    def further_outputs(self, case: Case) -> Sequence[Path]:
        """Return what else is written for a case, relative to the output folder."""
        ...


@runtime_checkable
class Finishing(Protocol):
    """A convention that has to know when all cases of a run are done."""

    def finish_run(self, cases: Sequence[Case], output_dir: Path) -> None:
        """Complete what the masks of the cases are parts of.

        Raises:
            OutputError: it could not be completed or written.
        """
        ...


@runtime_checkable
class Sharing(Protocol):
    """A convention whose cases may be parts of one file."""

    def share_of(self, case: Case) -> float:
        """Return which part of its files a case is, in (0, 1]."""
        ...


@runtime_checkable
class Measuring(Protocol):
    """A convention that knows something of a mask once it is written."""

    def measured(self, case: Case) -> Mapping[str, float]:
        """Return what was measured of a case's mask: name with its unit -> figure."""
        ...


def measured_of(convention: Convention, case: Case) -> dict[str, float]:
    """Return what a convention measured of a mask that it has written; mostly nothing."""
    return dict(convention.measured(case)) if isinstance(convention, Measuring) else {}


def share_of(convention: Convention, case: Case) -> float:
    """Return which part of its files a case is, in (0, 1]: mostly all of them."""
    return convention.share_of(case) if isinstance(convention, Sharing) else 1.0


def find_in(convention: Convention, inputs: Sequence[Path], channel_count: int) -> Sequence[Case]:
    """Return the cases of what was named: one folder, or what else a convention takes.

    Raises:
        InputError: no case, or the convention takes one folder.
    """
    if isinstance(convention, Gathering):
        return convention.find_in(inputs, channel_count)
    if len(inputs) > 1:
        raise InputError(f"{inputs[0]} and others: one folder is expected", fix="name one folder")
    cases = convention.find_cases(inputs[0], channel_count)
    if not cases:
        raise InputError(f"{inputs[0]}: no case in it", fix="name the folder with the scans")
    return cases


def outputs_of(convention: Convention, cases: Sequence[Case]) -> list[Path]:
    """Return every file that is written for some cases, relative to the output folder."""
    further = convention.further_outputs if isinstance(convention, Describing) else lambda _: ()
    return [path for case in cases for path in (case.mask, *further(case))]


def points_of(convention: Convention, case: Case, volumes: Sequence[Volume]) -> Points:
    """Return the points of a case; none where the convention knows of none.

    Raises:
        InputError: the file with the points is not readable.
    """
    return convention.read_points(case, volumes) if isinstance(convention, Pointed) else {}


def finish_run(convention: Convention, cases: Sequence[Case], output_dir: Path) -> None:
    """Let a convention complete its output once all cases have run; most need nothing.

    Raises:
        OutputError: the output could not be completed or written.
    """
    if isinstance(convention, Finishing):
        convention.finish_run(cases, output_dir)


def check_folder(input_dir: Path) -> None:
    """Refuse what is not a folder of inputs.

    Raises:
        InputError: it is missing, or something else.
    """
    if not input_dir.is_dir():
        raise InputError(f"{input_dir}: is not a folder", fix="name the folder with the scans")


def own_case(case: Case, kind: type[_Case]) -> _Case:
    """Return a case of a convention as what that convention made of it.

    Raises:
        TypeError: another convention found it.
    """
    if not isinstance(case, kind):
        raise TypeError(f"{type(case).__name__} is not a case of this convention")
    return case


def own_geometry(geometry: Geometry, kind: type[_Geometry]) -> _Geometry:
    """Return a geometry as what a convention made of it when it read the case.

    Raises:
        TypeError: it is of no case that the convention read.
    """
    if not isinstance(geometry, kind):
        raise TypeError(f"{type(geometry).__name__} is not of a case that was read")
    return geometry


def refuse_empty_mask(case: Case, output_dir: Path) -> NoReturn:
    """Refuse to write a mask for a case that failed: an empty one would read as "nothing found".

    Raises:
        OutputError: always.
    """
    raise OutputError(
        f"{output_dir / case.mask}: not written, the case failed",
        fix="an empty mask would read as nothing found; correct the case",
    )


def check_whole(missing: Sequence[Case], output_dir: Path) -> None:
    """Say which files could not be written because masks that belong in them are missing.

    Args:
        missing: the cases that left no mask.
        output_dir: folder of the masks.

    Raises:
        OutputError: there are any.
    """
    files: dict[Path, list[str]] = {}
    for case in missing:
        files.setdefault(output_dir / case.mask, []).append(case.case_id)
    if files:
        raise OutputError(
            "; ".join(
                f"{path}: not written, {len(names)} masks are missing "
                f"({', '.join(names[:_MOST_NAMED])})"
                for path, names in files.items()
            ),
            fix="let failed cases leave a mask",
        )
