"""autoPET I to V: one PET/CT in, its lesions out; in task 2 of IV, follow-up CTs.

Layouts: lab-midas/autoPET, ClinicalDataScience/autoPETIII and lab-midas/autoPETCTIV on github.com.

| edition | in | out |
|---|---|---|
| 1, 2 | `images/ct`, `images/pet` | `images/automated-petct-lesion-segmentation` |
| 3 | same | same, and `data-centric-model.json` |
| 4, 5 | and `lesion-clicks.json` | `images/tumor-lesion-segmentation` |

A mask has the CT's name and the PET's voxels, 0 and 1. Channels are CT, PET, then the clicks on
tumor and on background; where a predictor takes none, a rule may use them (`read_points`).

Settings of a predictor: `edition` (1 to 5; `auto` looks for the clicks and takes 3 where there are
none), `task` (2 is the second of edition 4), `data_centric` (what 3's JSON says), `lesion` (the
label, where there are several), `channels` (names, where they are not in the order above),
`clicks` (how they are drawn: `kind` point, gaussian or exp, `scale`, `unit`; as channels say they
were `drawn` in training, or else as the organisers' nnU-Net baseline does, a Gaussian of 3 voxels),
or in short `click_sigma_voxels` (of the Gaussian; 0 marks the voxel alone).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from flarekit.conventions import Case, Points
from flarekit.conventions._arranging import names_of
from flarekit.conventions._case import check_folder, own_case
from flarekit.conventions._drawn import draw, encoding_of
from flarekit.conventions._grid import onto
from flarekit.conventions._lesion import lesion_value
from flarekit.conventions._platform_images import (
    AIR_HU,
    geometry_of_first_readable,
    images_in,
    write_json,
    write_mask,
)
from flarekit.conventions.autopet.clicks import (
    BACKGROUND,
    TUMOR,
    none_set,
    of_known_kinds,
    read_clicks,
)
from flarekit.conventions.autopet.follow_up import FollowUp, find_follow_ups, is_follow_up
from flarekit.core.channels import Drawn
from flarekit.core.errors import InputError, PredictorError
from flarekit.core.metaimage import read_metaimage
from flarekit.core.plausible import with_doubts
from flarekit.core.tables import Table, checked
from flarekit.core.volume import Geometry, Volume

_LOG = logging.getLogger(__name__)
_CLICKS = "lesion-clicks.json"
_FLAG = "data-centric-model.json"
_PLAIN, _CLICKED = "automated-petct-lesion-segmentation", "tumor-lesion-segmentation"
_THERE = "under [convention_settings] in predictor.toml"
_USUAL = Drawn(kind="gaussian", scale=3.0)
_ORDER = ("CT", "PET", TUMOR, BACKGROUND)
Channel = Literal["CT", "PET", "tumor", "background", "baseline-CT", "baseline-lesions"]


class _Settings(Table):
    edition: Literal["auto", 1, 2, 3, 4, 5] = "auto"
    task: Literal[1, 2] = 1
    data_centric: bool = False
    lesion: str | None = None
    channels: tuple[Channel, ...] | None = None
    clicks: Drawn | None = None
    click_sigma_voxels: float | None = Field(default=None, ge=0, le=50)
    drawn: dict[str, Drawn] = Field(default_factory=dict)

    @property
    def stated(self) -> Drawn | None:
        """How clicks are drawn, where the settings say it."""
        sigma = self.click_sigma_voxels
        if self.clicks is not None or sigma is None:
            return self.clicks
        return Drawn(kind="gaussian" if sigma else "point", scale=sigma)


@dataclass(frozen=True, kw_only=True)
class PetGeometry(Geometry):
    """Where the voxels of a PET lie, and what is known of them once they are gone.

    Attributes:
        uptake: whether any of them is above zero.
    """

    uptake: bool


@dataclass(frozen=True, kw_only=True)
class PetCt(Case):
    """One PET/CT.

    Attributes:
        kinds: what each channel is.
        ct: the image that names the mask.
        pet: the image whose voxels the mask has.
        clicks: the file with the clicks; None where there is none.
        data_centric: what `data-centric-model.json` says; None where there is no such file.
    """

    kinds: tuple[str, ...]
    ct: Path
    pet: Path
    clicks: Path | None
    data_centric: bool | None


def create(settings: Mapping[str, Any], labels: Mapping[str, int]) -> AutoPet:
    """Return the convention as a predictor sets it up.

    Raises:
        PredictorError: unknown settings, or no label that is the lesion.
    """
    parsed = checked(_Settings, settings, source="settings of the convention 'autopet'")
    if parsed.task == 2 and parsed.edition not in ("auto", 4):
        raise PredictorError(
            "autopet: only edition 4 has a task 2", fix=f"write edition = 4 {_THERE}"
        )
    if parsed.clicks is not None and parsed.click_sigma_voxels is not None:
        raise PredictorError(
            "autopet: clicks and click_sigma_voxels both say how clicks are drawn",
            fix=f"keep one of them {_THERE}",
        )
    encoding = encoding_of(parsed.stated, parsed.drawn, _USUAL)
    lesion = lesion_value(labels, parsed.lesion)
    return AutoPet(settings=parsed, lesion=lesion, encoding=encoding)


@dataclass(frozen=True, kw_only=True)
class AutoPet:
    """The convention; see the module.

    Attributes:
        settings: a predictor's.
        lesion: the value of its lesions.
        encoding: how clicks are drawn.
    """

    settings: _Settings
    lesion: int
    encoding: Drawn

    def find_cases(self, input_dir: Path, channel_count: int) -> Sequence[Case]:
        """Return the PET/CT of the folder; several where CTs and PETs have the same names.

        Raises:
            InputError: no such folder, no pair in it, or no telling what belongs together.
            PredictorError: a number of channels that has no usual order.
        """
        check_folder(input_dir)
        if self.settings.task == 2 or (self.settings.edition == "auto" and is_follow_up(input_dir)):
            return find_follow_ups(input_dir, channel_count, self.settings.channels)
        pairs = _pairs(input_dir)
        clicks = input_dir / _CLICKS if (input_dir / _CLICKS).is_file() else None
        if clicks is not None and len(pairs) > 1:
            raise InputError(
                f"{clicks}: belongs to one case, and there are {len(pairs)}",
                fix="put one case into the folder",
            )
        kinds = self._kinds(channel_count)
        edition = self.settings.edition
        if edition == "auto":
            edition = 3 if clicks is None else 4
        return [self._case(input_dir, ct, pet, clicks, kinds, edition) for ct, pet in pairs]

    def _case(
        self,
        input_dir: Path,
        ct: Path,
        pet: Path,
        clicks: Path | None,
        kinds: tuple[str, ...],
        edition: int,
    ) -> PetCt:
        files = {"CT": ct, "PET": pet}
        folder = _PLAIN if edition <= 3 else _CLICKED
        return PetCt(
            case_id=ct.stem,
            channels=tuple(files.get(kind, input_dir / _CLICKS) for kind in kinds),
            mask=Path("images", folder, f"{ct.stem}.mha"),
            kinds=kinds,
            ct=ct,
            pet=pet,
            clicks=clicks if edition > 3 else None,
            data_centric=self.settings.data_centric if edition == 3 else None,
        )

    def _kinds(self, channel_count: int) -> tuple[str, ...]:
        kinds = self.settings.channels or _ORDER[:channel_count]
        if len(kinds) != channel_count or (channel_count < 2 and not self.settings.channels):
            raise PredictorError(
                f"autopet: which {channel_count} channels the predictor takes is not clear",
                fix='write channels = ["CT", "PET"], in the order of the network, under '
                "[convention_settings] in predictor.toml",
            )
        if not set(kinds) <= set(_ORDER):
            raise PredictorError(
                f"autopet: a PET/CT has no channels {sorted(set(kinds) - set(_ORDER))}",
                fix=f"take some of {', '.join(_ORDER)}",
            )
        return kinds

    def read_case(self, case: Case) -> list[Volume]:
        """Read all channels of a case, on the PET's (or follow-up CT's) grid.

        Raises:
            InputError: a file is missing or unreadable.
        """
        if isinstance(case, FollowUp):
            return case.read(self._maps)
        petct = own_case(case, PetCt)
        pet = with_doubts(read_metaimage(petct.pet, air=0.0), "PET")
        uptake = bool(pet.voxels_ZYX.max() > 0)
        pet = replace(pet, geometry=PetGeometry(**vars(pet.geometry), uptake=uptake))
        found = {"PET": pet}
        if "CT" in petct.kinds:
            ct = with_doubts(read_metaimage(petct.ct, air=AIR_HU), "CT")
            found["CT"] = onto(ct, pet.geometry, outside=AIR_HU)
        points, notes = _points(petct, pet)
        found |= self._maps(points, pet, petct.clicks, petct.kinds)
        volumes = [found[kind] for kind in petct.kinds]
        volumes[0] = replace(volumes[0], warnings=(*volumes[0].warnings, *notes))
        return volumes

    def _maps(
        self, points: Points, like: Volume, path: Path | None, kinds: Sequence[str]
    ) -> dict[str, Volume]:
        """Draw the clicks as channels."""
        shape, spacing = like.geometry.shape_ZYX, like.geometry.spacing_mm_ZYX
        return {
            kind: Volume(
                voxels_ZYX=draw(none_set(points, kind), shape, spacing, self.encoding),
                geometry=like.geometry,
                path=path or like.path,
            )
            for kind in kinds
            if kind in (TUMOR, BACKGROUND)
        }

    def read_points(self, case: Case, volumes: Sequence[Volume]) -> Points:
        """Return the clicks `tumor` and `background` of a case, as indices of voxels.

        Raises:
            InputError: the file with the clicks is not readable.
        """
        if isinstance(case, FollowUp):
            return case.points(volumes[0])
        return _points(own_case(case, PetCt), volumes[0])[0]

    def further_outputs(self, case: Case) -> Sequence[Path]:
        """Return autoPET III's JSON, where its edition is served."""
        flagged = isinstance(case, PetCt) and case.data_centric is not None
        return (Path(_FLAG),) if flagged else ()

    def write_mask(
        self,
        case: Case,
        label_map_ZYX: NDArray[np.uint8],
        geometry: Geometry,
        output_dir: Path,
    ) -> Path:
        """Write the lesions as 0 and 1 on the grid of the case; none where no PET is above zero.

        Raises:
            OutputError: it could not be written.
        """
        mask = label_map_ZYX == self.lesion
        if isinstance(case, PetCt):
            if mask.any() and isinstance(geometry, PetGeometry) and not geometry.uptake:
                _LOG.warning("%s: no uptake anywhere; the mask is empty", case.pet)
                mask = np.zeros_like(mask)
            _write_flag(case, output_dir)
        return write_mask(output_dir / case.mask, mask, geometry)

    def write_empty_mask(self, case: Case, output_dir: Path) -> Path:
        """Write a mask without lesions, on the PET's grid, or the CT's where the PET is damaged.

        Raises:
            OutputError: it could not be written.
        """
        if isinstance(case, FollowUp):
            images: tuple[Path, ...] = (case.ct,)
        else:
            petct = own_case(case, PetCt)
            images = petct.pet, petct.ct
            _write_flag(petct, output_dir)
        geometry = geometry_of_first_readable(images)
        return write_mask(output_dir / case.mask, np.zeros(geometry.shape_ZYX, np.uint8), geometry)


def _pairs(input_dir: Path) -> list[tuple[Path, Path]]:
    """Return the CTs with their PETs: by name, or the only ones there are."""
    folders = [input_dir / "images" / modality for modality in ("ct", "pet")]
    cts, pets = (_by_stem(folder) for folder in folders)
    for folder, images in zip(folders, (cts, pets), strict=True):
        if not images:
            raise InputError(
                f"{folder}: no file named *.mha; {names_of(input_dir)}",
                fix="the CT goes into images/ct, the PET (in SUV) into images/pet, as .mha; "
                "flarekit arrange FILES --convention autopet -o INPUT lays them out",
            )
    if len(cts) == len(pets) == 1:
        return list(zip(cts.values(), pets.values(), strict=True))
    if cts.keys() != pets.keys():
        odd = ", ".join(sorted(cts.keys() ^ pets.keys())[:5])
        raise InputError(
            f"{input_dir}: which PET belongs to which CT is not clear ({odd})",
            fix="give pairs the same name, or put one case into the folder",
        )
    return [(ct, pets[stem]) for stem, ct in sorted(cts.items())]


def _by_stem(folder: Path) -> dict[str, Path]:
    images = images_in(folder)
    found = {path.stem: path for path in images}
    if len(found) < len(images):
        raise InputError(
            f"{folder}: two images have one name ({', '.join(path.name for path in images[:5])})",
            fix="keep one of each name: masks are named after them",
        )
    return found


def _points(case: PetCt, pet: Volume) -> tuple[Points, tuple[str, ...]]:
    if case.clicks is None:
        asked = case.mask.parent.name == _CLICKED or {TUMOR, BACKGROUND} & set(case.kinds)
        return {}, (f"came without {_CLICKS}: there are no clicks",) if asked else ()
    stated, notes = read_clicks(case.clicks, pet.geometry.shape_ZYX)
    points, further = of_known_kinds(stated)
    return points, tuple(f"{case.clicks.name}: {note}" for note in (*notes, *further))


def _write_flag(case: PetCt, output_dir: Path) -> None:
    if case.data_centric is not None:
        write_json(output_dir / _FLAG, case.data_centric)
