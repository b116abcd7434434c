"""Task 2 of autoPET IV: a baseline CT with its lesions, and follow-up CTs to segment.

The platform gives one or two baselines and one or two follow-ups, `primary` and `secondary`, each
with a JSON of lesion centres that are named by lesion, the same name in either
(https://github.com/lab-midas/autoPETCTIV, Task2). A follow-up without a baseline of its own takes
the primary one. The baseline is brought onto the follow-up's grid by position in space, moved by
the median offset of lesions that both name; nothing else registers them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions import Case, Points
from flarekit.conventions._grid import onto
from flarekit.conventions._platform_images import AIR_HU, images_in, only_image
from flarekit.conventions.autopet.clicks import TUMOR, read_clicks
from flarekit.core.errors import InputError, PredictorError
from flarekit.core.metaimage import read_metaimage
from flarekit.core.plausible import with_doubts
from flarekit.core.volume import Volume

_ROLES = ("primary", "secondary")
_ORDERS: Mapping[int, tuple[str, ...]] = {
    1: ("CT",),
    2: ("CT", TUMOR),
    3: ("CT", "baseline-CT", "baseline-lesions"),
    4: ("CT", "baseline-CT", "baseline-lesions", TUMOR),
}
Maps = Callable[[Points, Volume, Path | None, Sequence[str]], dict[str, Volume]]


def is_follow_up(input_dir: Path) -> bool:
    """Return whether a folder has this task's layout."""
    return any((input_dir / "images" / f"{role}-followup-ct").is_dir() for role in _ROLES)


def find_follow_ups(
    input_dir: Path, channel_count: int, channels: Sequence[str] | None
) -> list[Case]:
    """Return one case per follow-up.

    Raises:
        InputError: there is none, or not exactly one image in a folder.
        PredictorError: channels that this task does not have.
    """
    kinds = tuple(channels or _ORDERS.get(channel_count, ()))
    if len(kinds) != channel_count or "CT" not in kinds or not set(kinds) <= set(_ORDERS[4]):
        raise PredictorError(
            f"autopet, task 2: there is no usual order of {channel_count} channels",
            fix=f"write channels = [...] of {', '.join(_ORDERS[4])} under [convention_settings] in "
            "predictor.toml",
        )
    cases: list[Case] = [
        _follow_up(input_dir, role, kinds)
        for role in _ROLES
        if images_in(input_dir / "images" / f"{role}-followup-ct")
    ]
    if not cases:
        raise InputError(
            f"{input_dir}: no CT in images/primary-followup-ct", fix="put the follow-up CT there"
        )
    return cases


def _follow_up(input_dir: Path, role: str, kinds: tuple[str, ...]) -> FollowUp:
    images = input_dir / "images"
    ct = only_image(images / f"{role}-followup-ct")
    before = role if images_in(images / f"{role}-baseline-ct") else _ROLES[0]
    files = {"CT": ct, TUMOR: input_dir / f"{role}-followup-lesion-clicks.json"}
    if "baseline-CT" in kinds:
        files["baseline-CT"] = only_image(images / f"{before}-baseline-ct")
    if "baseline-lesions" in kinds:
        name = f"{before}-baseline-ct-tumor-lesion-seg"
        older = images / f"{name}mentation"
        files["baseline-lesions"] = only_image(older if older.is_dir() else images / name)
    return FollowUp(
        case_id=f"{role}-{ct.stem}",
        channels=tuple(files[kind] for kind in kinds),
        mask=Path("images", f"{role}-followup-ct-tumor-lesion-seg", f"{ct.stem}.mha"),
        kinds=kinds,
        ct=ct,
        clicks=files[TUMOR],
        baseline_clicks=input_dir / f"{before}-baseline-lesion-clicks.json",
    )


@dataclass(frozen=True, kw_only=True)
class FollowUp(Case):
    """One follow-up CT.

    Attributes:
        kinds: what each channel is.
        ct: the image whose voxels and name the mask has.
        clicks: the lesions' centres in it; may be missing.
        baseline_clicks: the lesions' centres in the baseline; may be missing.
    """

    kinds: tuple[str, ...]
    ct: Path
    clicks: Path
    baseline_clicks: Path

    def read(self, maps: Maps) -> list[Volume]:
        """Read all channels, on the follow-up's grid.

        Args:
            maps: draws clicks as channels.

        Raises:
            InputError: a file is missing or unreadable.
        """
        ct = with_doubts(read_metaimage(self.ct, air=AIR_HU), "CT")
        lesions, notes = _lesions(self.clicks, ct)
        found = {"CT": ct, **maps(_together(lesions), ct, self.clicks, self.kinds)}
        found |= self._baseline(ct, lesions)
        volumes = [found[kind] for kind in self.kinds]
        volumes[0] = replace(volumes[0], warnings=(*volumes[0].warnings, *notes))
        return volumes

    def points(self, ct: Volume) -> Points:
        """Return the lesions' centres, all as `tumor`.

        Raises:
            InputError: the file with them is not readable.
        """
        return _together(_lesions(self.clicks, ct)[0])

    def _baseline(self, ct: Volume, lesions: Points) -> dict[str, Volume]:
        files = dict(zip(self.kinds, self.channels, strict=True))
        found: dict[str, Volume] = {}
        for kind, outside in (("baseline-CT", AIR_HU), ("baseline-lesions", 0.0)):
            if kind not in files:
                continue
            volume = with_doubts(read_metaimage(files[kind], air=outside), kind)
            before, _ = _lesions(self.baseline_clicks, volume)
            moved = onto(
                volume,
                ct.geometry,
                outside=outside,
                nearest=kind == "baseline-lesions",
                shift_mm=_shift_mm(before, volume, lesions, ct),
            )
            if kind == "baseline-lesions":  # values are numbers of lesions
                moved = replace(moved, voxels_ZYX=(moved.voxels_ZYX > 0).astype(np.uint8))
            found[kind] = moved
        return found


def _lesions(path: Path, volume: Volume) -> tuple[Points, tuple[str, ...]]:
    if not path.is_file():
        return {}, (f"came without {path.name}: there are no clicks",)
    points, notes = read_clicks(path, volume.geometry.shape_ZYX)
    return points, tuple(f"{path.name}: {note}" for note in notes)


def _together(lesions: Points) -> Points:
    return {TUMOR: np.concatenate(list(lesions.values()))} if lesions else {}


def _shift_mm(
    before: Points, baseline: Volume, after: Points, follow_up: Volume
) -> NDArray[np.float64] | None:
    """Return how far lesions that both name have moved, the median of each coordinate."""
    both = sorted(before.keys() & after.keys())
    if not both:
        return None
    there, here = (
        np.array([_position_mm(points[name][0], volume) for name in both])
        for points, volume in ((before, baseline), (after, follow_up))
    )
    median: NDArray[np.float64] = np.median(here - there, axis=0)
    return median


def _position_mm(place_ZYX: NDArray[np.int64], volume: Volume) -> NDArray[np.float64]:
    position: NDArray[np.float64] = (volume.geometry.affine @ [*place_ZYX[::-1], 1])[:3]
    return position
