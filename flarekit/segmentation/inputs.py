"""The cases of a run: of files, folders and archives that were named; which layout they have.

Where no convention is named, the predictor's own is tried first; what it does not know is taken as
DICOM, or as scans in any folders, and the run says so.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from flarekit import conventions
from flarekit.conventions import Case, Convention
from flarekit.core.archives import Unpacked, is_archive
from flarekit.core.errors import InputError, UsageError
from flarekit.core.files import inputs_below
from flarekit.core.scan_files import MASK_ENDINGS, ending_of, is_dicom
from flarekit.core.spec import PredictorSpec

_LOG = logging.getLogger(__name__)
_MOST_NAMED = 3
_MOST_LOOKED_AT = 300  # files of a folder, to see whether any is DICOM
_SEGMENTATION = ".dcm"
Get = Callable[[str], Convention]


@dataclass(frozen=True, kw_only=True)
class FoundCases:
    """Cases, and whose layout they have."""

    name: str
    convention: Convention
    cases: Sequence[Case]


def settings_for(spec: PredictorSpec, convention: str) -> dict[str, Any]:
    """Return the settings of a convention, with how marks were drawn when a network was trained.

    They are the predictor's for its own convention, and mean nothing to another.
    """
    if convention != spec.convention:
        return {}
    drawn = {each.name: each.drawn.model_dump() for each in spec.channels if each.drawn is not None}
    return dict(spec.convention_settings) | ({"drawn": drawn} if drawn else {})


def convention_of(name: str, spec: PredictorSpec, also: Sequence[str] = ()) -> Convention:
    """Return a convention as a predictor sets it up.

    Args:
        name: of the convention.
        spec: the predictor's facts.
        also: what masks are written as besides, `rtstruct` and `nifti`, by the convention `dicom`.
    """
    settings = settings_for(spec, name)
    if name == "plain":
        channels = [channel.name for channel in spec.channels]
        settings |= {"channels": channels, "air": [channel.air for channel in spec.channels]}
    elif name == "dicom":
        settings |= {"predictor": spec.name, "weights_sha256": spec.weights.sha256}
        modalities = [channel.modality for channel in spec.channels]
        if None not in modalities and len(set(modalities)) == len(modalities):
            settings.setdefault("modalities", modalities)
        settings |= {"also": also} if also else {}
    return conventions.get(name, settings, labels=spec.mask_labels)


def check_also(also: Sequence[str], name: str) -> None:
    """Refuse what a convention does not write.

    Raises:
        UsageError: something besides masks is wanted of another convention than `dicom`.
    """
    if also and name != "dicom":
        raise UsageError(
            f"--also {','.join(also)} is written for DICOM series, and {name} has none",
            fix="leave --also out, or take DICOM series alone with --convention dicom",
        )


@contextmanager
def cases_in(
    name: str,
    convention: Convention,
    inputs: Path | Sequence[Path],
    channel_count: int,
    others: Get | None = None,
) -> Iterator[FoundCases]:
    """Give the cases of files and folders; archives among them are unpacked meanwhile.

    Args:
        name: of the convention.
        convention: whose layout they have.
        inputs: which are only read.
        channel_count: of the predictor.
        others: gives other conventions, where the inputs may be of another than the one named.

    Raises:
        InputError: no cases; archives in the folder are named where there are any, and the
            convention whose layout the folder has.
    """
    named = [inputs] if isinstance(inputs, Path) else _each_folder_once(inputs)
    with Unpacked() as unpacked:
        places = [_only_folder(unpacked.add(path)) if _is_packed(path) else path for path in named]
        try:
            found = FoundCases(
                name=name,
                convention=convention,
                cases=conventions.find_in(convention, places, channel_count),
            )
        except InputError as error:
            other = _jobs(name, convention, places, channel_count)
            if other is None and others is not None:
                other = _recognised(name, places, channel_count, others)
            if other is None and isinstance(error, conventions.NothingUsableError):
                raise
            if other is None:
                folder = places[0]
                error = _with_fitting(error, name, folder, channel_count)
                raise _with_archives(error, folder) from error
            found = other
        try:
            yield found
        finally:
            conventions.give_up(found.cases)


def placed_masks(cases: Sequence[Case], output: Path) -> tuple[Path, Sequence[Case]]:
    """Return the folder of the masks and the cases with their masks' names in it.

    Args:
        cases: of a run.
        output: the folder, or a file for the mask of the only case.

    Raises:
        UsageError: a file is named, and there are several cases, or masks of another kind.
    """
    ending = ending_of(output) or (_SEGMENTATION if output.suffix.lower() == _SEGMENTATION else "")
    if not ending or output.is_dir():
        return output, cases
    if len(cases) > 1:
        raise UsageError(
            f"{output}: is one file, and there are {len(cases)} cases", fix="name a folder"
        )
    (case,) = cases
    own = ending_of(case.mask) or case.mask.suffix
    plain = case.mask.parent == Path() and ending in MASK_ENDINGS and own in MASK_ENDINGS
    if case.mask.parent != Path() or not (plain or own == ending):
        raise UsageError(
            f"{output}: the mask of {case.case_id} is written as {case.mask}",
            fix="name a folder, which it is written into",
        )
    return output.parent, [replace(case, mask=Path(output.name))]


def _each_folder_once(inputs: Sequence[Path]) -> list[Path]:
    """Return what is named, without folders that are one named before, however they are spelled."""
    kept: dict[Path, Path] = {}
    for path in inputs:
        kept.setdefault(path.resolve() if path.is_dir() else path, path)
    return list(kept.values())


def _is_packed(path: Path) -> bool:
    return path.is_file() and not ending_of(path) and is_archive(path)


def _jobs(
    name: str, convention: Convention, places: list[Path], channel_count: int
) -> FoundCases | None:
    """Return the cases of a folder of a platform's jobs; None where it is none."""
    if len(places) > 1 or conventions.facts_of(name).runs_as != "user":
        return None
    jobs = conventions.ManyJobs(convention=convention)
    try:
        cases = jobs.find_cases(places[0], channel_count)
    except InputError:
        return None
    for sentence in conventions.left_out_of(cases):
        _LOG.warning("left out: %s", sentence)
    _LOG.info("%s: %d case(s), each in the folder of its job", places[0], len(cases))
    return FoundCases(name=name, convention=jobs, cases=cases)


def _recognised(own: str, places: list[Path], channel_count: int, get: Get) -> FoundCases | None:
    """Return the cases of DICOM, or of scans in any folders; None where there are none.

    Raises:
        InputError: there is DICOM and no case in it, or scans that lack channels.
        UsageError: there is DICOM, and what reads it is not installed.
    """
    has_dicom = any(map(_is_dicom, places))
    only_dicom = has_dicom or any(map(_is_job, places))
    names = ["dicom"] if only_dicom else ["plain", "dicom"]
    for name in names:
        if name == own:
            continue
        convention = get(name)
        try:
            cases = conventions.find_in(convention, places, channel_count)
        except conventions.NothingUsableError:
            raise
        except (InputError, UsageError):
            if has_dicom or (name == "plain" and any(map(_has_scans, places))):
                raise
            continue
        where = ", ".join(map(str, places[:_MOST_NAMED]))
        _LOG.info("%s: not laid out as %s; taken as --convention %s", where, own, name)
        return FoundCases(name=name, convention=convention, cases=cases)
    return None


def _is_dicom(path: Path) -> bool:
    """Return whether a file, or one of the first files of a folder, begins as DICOM files do."""
    files = filter(Path.is_file, inputs_below(path)) if path.is_dir() else [path]
    return any(map(is_dicom, islice(files, _MOST_LOOKED_AT)))


def _has_scans(path: Path) -> bool:
    """Return whether a path is meant as a scan, being no folder, or is a folder with one in it."""
    return not path.is_dir() or any(map(ending_of, inputs_below(path)))


def _is_job(path: Path) -> bool:
    """Return whether a folder is laid out as grand-challenge.org does: no tree of plain scans."""
    return any(path.glob("images/*/*.mha"))


def _only_folder(folder: Path) -> Path:
    """Return the folder that archives are often made of, where it is all that one holds."""
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _with_fitting(error: InputError, name: str, folder: Path, channel_count: int) -> InputError:
    fitting = conventions.fitting(folder, channel_count, but=name)
    if not fitting:
        return error
    return InputError(
        f"{error.message}; the folder is laid out as {' or '.join(fitting)} wants it",
        fix=f"add --convention {fitting[0]}, or else {error.fix}",
    )


def _with_archives(error: InputError, folder: Path) -> InputError:
    names = [path.name for path in sorted(folder.glob("*")) if path.is_file() and is_archive(path)]
    if not names:
        return error
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return InputError(
        f"{error.message}; there are archives: {', '.join(names[:_MOST_NAMED])}{more}",
        fix=f"name the archive itself as input, or unpack it; or else {error.fix}",
    )
