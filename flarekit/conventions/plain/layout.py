"""Scans as people have them: files, or folders in folders; one mask each, in the scan's own format.

Channels of one scan lie beside each other as `X_0000`, `X_0001` and so on; where as many files are
named as a predictor takes channels, these are they. Masks are named after their scans and lie in
the same tree; `X_0000` is called `X`, unless that is a scan as well. A case that failed leaves
nothing: an empty mask would read as "nothing found".

Settings of a predictor: `channels` (their names; where one is PET, SUV or PT, masks have its
voxels), `air` (what voxels of each channel get that are not numbers).
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions import Case, Cases
from flarekit.conventions._case import refuse_empty_mask
from flarekit.conventions._grid import onto
from flarekit.core.archives import is_archive
from flarekit.core.channels import UPTAKE_NAMES
from flarekit.core.errors import InputError
from flarekit.core.files import inputs_below, make_folder
from flarekit.core.nifti import AIR_HU
from flarekit.core.scan_files import (
    MASK_ENDINGS,
    SCAN_ENDINGS,
    ending_of,
    is_dicom,
    read_scan,
    stem_of,
    write_mask,
)
from flarekit.core.tables import Table, checked
from flarekit.core.volume import Geometry, Volume

_LOG = logging.getLogger(__name__)
_NUMBERED = re.compile(r"(.+)_(\d{4})", re.DOTALL)
_MOST_NAMED = 5
_WORDS = {"CT": ("ctres", "ct"), "PET": ("suv", "pet", "pt")}  # in names; the earlier counts
_Group = tuple[Path, bool]  # a scan's place in the tree of masks; whether its files are numbered


class _Settings(Table):
    channels: tuple[str, ...] = ()
    air: tuple[float, ...] = ()


def create(settings: Mapping[str, Any], labels: Mapping[str, int]) -> Plain:  # noqa: ARG001
    """Return the convention as a predictor sets it up.

    Raises:
        PredictorError: unknown settings.
    """
    parsed = checked(_Settings, settings, source="settings of the convention 'plain'")
    return Plain(channels=parsed.channels, air=parsed.air)


@dataclass(frozen=True, kw_only=True)
class Plain:
    """The convention; see the module.

    Attributes:
        channels: names of a predictor's channels; empty where they are not known.
        air: what voxels of each channel get that are not numbers; that of CT where empty.
    """

    channels: tuple[str, ...] = ()
    air: tuple[float, ...] = ()

    def find_cases(self, input_dir: Path, channel_count: int) -> Sequence[Case]:
        """Return one case per scan of a folder and those below it.

        Raises:
            InputError: no such folder, or no scan with all its channels in it.
        """
        return self.find_in([input_dir], channel_count)

    def find_in(self, inputs: Sequence[Path], channel_count: int) -> Sequence[Case]:
        """Return one case per scan that is named, or that lies in a folder that is.

        Raises:
            InputError: a path is missing, or no scan; or there is no scan with all its channels.
        """
        closed: list[str] = []
        scans = _scans_of(inputs, closed)
        groups: dict[_Group, dict[int, Path]] = {}
        for path, place in scans.items():
            match = _NUMBERED.fullmatch(stem_of(path))
            if match is not None and (channel_count > 1 or _has_first(path, match[1], scans)):
                whole = place.with_name(f"{match[1]}{ending_of(path)}")
                groups.setdefault((whole, True), {})[int(match[2])] = path
            else:
                groups.setdefault((place, False), {})[0] = path
        _unite_by_words(groups, self.channels)
        cases, left_out = self._cases(groups, channel_count)
        left_out += closed
        if not cases and len(scans) == channel_count and all(map(Path.is_file, inputs)):
            first, *_ = scans.values()
            cases, left_out = [_case(_usual_mask(first), tuple(scans), stem_of(first))], []
        if not cases:
            raise self._nothing(inputs, list(scans), channel_count)
        for sentence in left_out:
            _LOG.warning("left out: %s", sentence)
        return Cases(cases, left_out=left_out)

    def _cases(
        self, groups: Mapping[_Group, Mapping[int, Path]], channel_count: int
    ) -> tuple[list[Case], list[str]]:
        """Return the cases that are whole, and a sentence for every file that is in none."""
        whole: dict[_Group, tuple[Path, ...]] = {}
        left_out = []
        for group, channels in sorted(groups.items()):
            missing = [k for k in range(channel_count) if k not in channels]
            if missing:
                names = ", ".join(str(path) for path in channels.values())
                left_out.append(f"{names}: {self._missing(missing, channel_count)}")
                continue
            whole[group] = tuple(channels[k] for k in range(channel_count))
            left_out += [
                f"{path}: is number {k + 1} of a scan's channels, and only "
                f"{channel_count} {'is' if channel_count == 1 else 'are'} wanted"
                for k, path in sorted(channels.items())
                if k >= channel_count
            ]
        masks = _masks_of(whole)
        stems = Counter(mask.with_name(stem_of(mask)) for mask in masks.values())
        cases = []
        for group, mask in masks.items():
            alone = stems[mask.with_name(stem_of(mask))] == 1
            cases.append(_case(mask, whole[group], stem_of(mask) if alone else group[0].name))
        return cases, left_out

    def _missing(self, missing: Sequence[int], channel_count: int) -> str:
        names = dict(enumerate(self.channels))
        listed = " and ".join(
            f"_{k:04d}" + (f" ({names[k]})" if k in names else "") for k in missing
        )
        return f"has no {listed} beside it; the predictor takes {channel_count} channels"

    def _nothing(self, inputs: Sequence[Path], scans: Sequence[Path], count: int) -> InputError:
        where = ", ".join(map(str, inputs[:_MOST_NAMED]))
        if not scans:
            return InputError(
                f"{where}: no scan ({', '.join(SCAN_ENDINGS)})",
                fix="name files or folders of scans",
            )
        found = ", ".join(path.name for path in scans[:_MOST_NAMED])
        more = f" and {len(scans) - _MOST_NAMED} more" if len(scans) > _MOST_NAMED else ""
        names = self.channels if len(self.channels) == count else ("",) * count
        wanted = ", ".join(
            f"X_{k:04d}.nii.gz" + (f" ({name})" if name else "") for k, name in enumerate(names)
        )
        return InputError(
            f"{where}: no scan with {count} channels; found {found}{more}",
            fix=f"name the channels of a scan {wanted}",
        )

    def read_case(self, case: Case) -> list[Volume]:
        """Read all channels of a case, on the PET's grid, or else the first one's.

        Raises:
            InputError: a channel is missing or unreadable.
        """
        air = self.air or (AIR_HU,) * len(case.channels)
        volumes = [
            read_scan(path, air=value) for path, value in zip(case.channels, air, strict=True)
        ]
        uptakes = [k for k, name in enumerate(self.channels) if name.upper() in UPTAKE_NAMES]
        leading = uptakes[0] if uptakes else 0
        grid = volumes[leading].geometry
        return [
            each if k == leading else onto(each, grid, outside=air[k])
            for k, each in enumerate(volumes)
        ]

    def write_mask(
        self,
        case: Case,
        label_map_ZYX: NDArray[np.uint8],
        geometry: Geometry,
        output_dir: Path,
    ) -> Path:
        """Write a mask in the format that its name says.

        Raises:
            OutputError: it could not be written.
        """
        path = output_dir / case.mask
        make_folder(path.parent)
        write_mask(path, label_map_ZYX, geometry)
        return path

    def write_empty_mask(self, case: Case, output_dir: Path) -> Path:
        """Refuse to write an empty mask; the module's docstring says why.

        Raises:
            OutputError: always.
        """
        refuse_empty_mask(case, output_dir)


def _case(mask: Path, files: tuple[Path, ...], name: str) -> Case:
    """Return a case by where its mask lies in the output folder, and its name there."""
    return Case(case_id=mask.with_name(name).as_posix(), channels=files, mask=mask)


def _usual_mask(place: Path) -> Path:
    """Return what the mask of a scan is called that lies there in the tree."""
    return place.with_name(f"{stem_of(place)}{ending_of(place).replace('.mhd', '.mha')}")


def _masks_of(groups: Mapping[_Group, Sequence[Path]]) -> dict[_Group, Path]:
    """Return where each scan's mask goes, no two to one place.

    Masks that are called as their scans come first. Where another scan's mask would be called so
    too (`X_0000.nii.gz` beside `X.nii.gz`, `X.mhd` beside `X.mha`), it keeps its scan's whole name:
    `X_0000.nii.gz`, `X.mhd.mha`.
    """

    def is_renamed(group: _Group) -> bool:
        return group[1] or _usual_mask(group[0]) != group[0]

    masks: dict[_Group, Path] = {}
    taken: set[Path] = set()
    for group in sorted(groups, key=lambda group: (is_renamed(group), group)):
        mask, first = _usual_mask(group[0]), groups[group][0]
        if mask in taken:
            is_mask = ending_of(first) in MASK_ENDINGS
            mask = mask.with_name(first.name if is_mask else f"{first.name}.mha")
        while mask in taken:
            mask = mask.with_name(f"{mask.name}{ending_of(mask)}")
        taken.add(mask)
        masks[group] = mask
    return dict(sorted(masks.items()))


def _has_first(path: Path, name: str, scans: Mapping[Path, Path]) -> bool:
    return path.with_name(f"{name}_0000{path.name[len(stem_of(path)) :]}") in scans


def _scans_of(inputs: Sequence[Path], closed: list[str]) -> dict[Path, Path]:
    """Return the scans, and where each mask lies in the output folder.

    Args:
        inputs: which are only read.
        closed: gets a sentence for each folder that cannot be opened, and for what is no such scan.

    Raises:
        InputError: a path is missing or no scan.
    """
    files: dict[Path, Path] = {}
    absolute = {path: Path(os.path.abspath(path)) for path in inputs}  # noqa: PTH100 - links stay
    common = Path(os.path.commonpath([path.parent for path in absolute.values()]))
    for path in inputs:
        if path.is_dir():
            for scan in _below(path, closed):
                below = scan.relative_to(path)
                alone = len(inputs) == 1
                files[scan] = below if alone else absolute[path].relative_to(common) / below
        elif not path.exists():
            raise InputError(f"{path}: there is no such file or folder", fix="check the path")
        elif not ending_of(path):
            raise InputError(
                f"{path}: is not a scan that can be read",
                fix=f"give {', '.join(SCAN_ENDINGS)}, DICOM, or an archive of them",
            )
        else:
            files[path] = absolute[path].relative_to(common)
    names = Counter(place.name for place in files.values())
    if all(path.is_file() for path in inputs) and max(names.values(), default=1) == 1:
        return {path: Path(place.name) for path, place in files.items()}
    return files


def _below(folder: Path, closed: list[str]) -> Iterator[Path]:
    """Yield the scans of a folder and those below it; hidden ones are left alone."""
    others = []
    for path in inputs_below(folder, closed):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            continue
        if ending_of(path):
            yield path
        else:
            others.append(path)
    dicom = [path for path in others if is_dicom(path)]
    packed = [path for path in set(others) - set(dicom) if is_archive(path)]
    for kind, paths in (("DICOM", dicom), ("an archive", sorted(packed))):
        if paths:
            closed.append(
                f"{_listed(paths)}: {kind} beside scans of other formats; give it as an input by "
                "itself"
            )
    alone = [path.relative_to(folder) for path in others if path not in {*dicom, *packed}]
    if alone:
        _LOG.info("%s: left alone: %s", folder, _listed(alone))


def _listed(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
    return ", ".join(map(str, paths[:_MOST_NAMED])) + more


def _unite_by_words(groups: dict[_Group, dict[int, Path]], channels: Sequence[str]) -> None:
    """Make one group of files whose names differ in a channel's word alone, as CTres and SUV do."""
    upper = [name.upper() for name in channels]
    words = [_WORDS.get("PET" if name in UPTAKE_NAMES else name, ()) for name in upper]
    found: dict[tuple[Path, tuple[str, ...]], dict[int, list[tuple[int, _Group]]]] = {}
    for group in groups:
        parts = re.findall(r"[a-z0-9]+", stem_of(group[0]).lower())
        said = [
            (k, own.index(part), part)
            for k, own in enumerate(words)
            for part in parts
            if part in own
        ]
        if len(said) == 1 and not group[1]:
            channel, rank, word = said[0]
            rest = tuple(part for part in parts if part != word)
            of_scan = found.setdefault((group[0].parent, rest), {})
            of_scan.setdefault(channel, []).append((rank, group))
    for of_scan in found.values():
        if len(of_scan) == len(words) > 1:
            first, *others = (min(of_scan[k])[1] for k in range(len(words)))
            groups[first] |= {k: groups.pop(each)[0] for k, each in enumerate(others, 1)}
