"""What an autoPET image has written, judged as an edition wants it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions.autopet import samples
from flarekit.core.errors import UnreadableVolumeError
from flarekit.verification.check import Finding, fail, skip
from flarekit.verification.masks import Mask, geometry_faults, read_mask
from flarekit.verification.trials import ImageUnderTest, TrialResult

PLAIN, CLICKED = "images/automated-petct-lesion-segmentation", "images/tumor-lesion-segmentation"
FLAG = "data-centric-model.json"
_FEW_VOXELS, _ALIKE = 20, 0.5  # a smaller mask tells nothing; Dice with the usual mask
_WITH_FLAG, _WITHOUT_CLICKS, _WITH_CLICKS = 3, 3, 4  # editions

Faults = Mapping[str, list[str]]  # name of the check that is about it -> what is wrong


def settings_of(image: ImageUnderTest) -> Mapping[str, Any] | None:
    """Return the convention's settings that the image's label states; None where none does."""
    return image.task.settings


def without_clicks(image: ImageUnderTest) -> TrialResult:
    """Return a trial of the usual case without a file of clicks, as I to III have it."""
    return image.kept("clicks_missing", samples.writer(samples.Variation(clicks=None)))


def edition_of(image: ImageUnderTest, *, clicked: bool) -> int:
    """Return as which edition a run is judged: 4 stands for V too.

    The image's label says it, else the folder that it writes to.

    Args:
        image: whose usual trial ended well.
        clicked: whether the run has a file of clicks.
    """
    settings = settings_of(image)
    if settings is not None:
        stated = settings.get("edition", "auto")
        if isinstance(stated, int):
            return stated
        return _WITH_CLICKS if clicked else _WITHOUT_CLICKS
    if _is_plain(image.base()) or (not clicked and _is_plain(without_clicks(image))):
        return _WITHOUT_CLICKS
    return _WITH_CLICKS


def _is_plain(trial: TrialResult) -> bool:
    """Tell whether the output is that of an edition without clicks."""
    places = {Path(name).parent.as_posix() for name in trial.files}
    return CLICKED not in places and (PLAIN in places or FLAG in trial.files)


def edition_clear(image: ImageUnderTest) -> Finding:
    """Return as what the image is judged, unless what it does belongs to no edition."""
    settings = settings_of(image)
    if settings is not None and settings.get("task") == 2:
        return skip("task 2 of edition IV has other inputs, which are not generated here")
    if image.base().failure is not None:
        return skip("the usual run fails")
    clicked, plain = (edition_of(image, clicked=clicked) for clicked in (True, False))
    if settings is None and clicked < _WITH_CLICKS and _reads_clicks(image):
        return fail(
            f"{samples.CLICKS} changes its mask, so it serves IV or V, which look in {CLICKED}, "
            f"but it writes to {PLAIN}"
        )
    source = "where it writes" if settings is None else "its label"
    names = {3: "III", 4: "IV (task 1) and V", 5: "V"}
    judged = " and ".join(dict.fromkeys(names.get(each, "I and II") for each in (plain, clicked)))
    return Finding(state="pass", reason=f"judged as {judged}, by {source}")


def _reads_clicks(image: ImageUnderTest) -> bool:
    with_clicks, without = lesions(image.base()), lesions(without_clicks(image))
    if with_clicks is None or without is None or with_clicks.shape != without.shape:
        return False
    return bool((with_clicks != without).any())


def faults_of(image: ImageUnderTest, trial: TrialResult) -> Faults:
    """Return what is wrong with the output of a trial that ended well."""
    edition = edition_of(image, clicked=(trial.inputs / samples.CLICKS).is_file())
    folder = CLICKED if edition >= _WITH_CLICKS else PLAIN
    return {
        "one_mask": _name_faults(trial, folder, stated=settings_of(image) is not None),
        "nothing_else": _other_files(trial, folder, flag=edition == _WITH_FLAG),
        "data_centric": _flag_faults(trial.outputs / FLAG) if edition == _WITH_FLAG else [],
        **_content_faults(image, trial, folder),
    }


def unlike_usual(image: ImageUnderTest, trial: TrialResult, *, same_mask: bool) -> list[str]:
    """Return what is wrong with a trial that is not with the usual one too.

    Args:
        image: whose usual trial ended well.
        trial: of the usual case in another form.
        same_mask: whether the lesions have to be where they are in the usual trial.
    """
    if trial.failure is not None:
        return [trial.failure]
    usual = faults_of(image, image.base())
    found = faults_of(image, trial)
    words = [fault for name, faults in found.items() if not usual[name] for fault in faults]
    return words or (_moved(lesions(image.base()), lesions(trial)) if same_mask else [])


def lesions(trial: TrialResult) -> NDArray[np.bool_] | None:
    """Return where a trial's mask is not 0, (Z, Y, X); None where there is no readable mask."""
    for name in _masks_in(trial, CLICKED) or _masks_in(trial, PLAIN) or _masks_in(trial, None):
        try:
            found: NDArray[np.bool_] = read_mask(trial.outputs / name).voxels_ZYX != 0
        except UnreadableVolumeError:
            return None
        return found
    return None


def _masks_in(trial: TrialResult, folder: str | None) -> list[str]:
    """Return the .mha files directly in a folder, or anywhere."""
    images = [name for name in trial.files if name.endswith(".mha")]
    return [name for name in images if folder in (None, Path(name).parent.as_posix())]


def _files(trial: TrialResult) -> list[str]:
    return [name for name in trial.files if not name.endswith("/")]


def _cts(trial: TrialResult) -> list[Path]:
    return sorted((trial.inputs / "images" / "ct").glob("*.mha"))


def _name_faults(trial: TrialResult, folder: str, *, stated: bool) -> list[str]:
    written, cts = _masks_in(trial, folder), _cts(trial)
    if not written:
        files = ", ".join(_files(trial)[:5]) or "nothing"
        places = folder if stated else f"{CLICKED} or {PLAIN}"
        return [f"no mask in {places}: it wrote {files}"]
    names = [Path(name).name for name in written]
    if len(names) > len(cts):
        return [f"{len(names)} masks in {folder} for {len(cts)} CT: {', '.join(names[:5])}"]
    return [
        f"{', '.join(names[:5])} in {folder} for the CT {ct.name}"
        for ct in cts
        if ct.name not in names
    ]


def _other_files(trial: TrialResult, folder: str, *, flag: bool) -> list[str]:
    """Return the files that nobody asked for; folders without files do no harm."""
    masks = _masks_in(trial, folder) or [
        name for name in trial.files if name.startswith("images/") or name.endswith(".mha")
    ]
    expected = {*masks, FLAG} if flag else {*masks}
    return [f"wrote {name} too" for name in _files(trial) if name not in expected]


def _flag_faults(path: Path) -> list[str]:
    if not path.is_file():
        return [f"no {FLAG}, which edition III needs"]
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        return [f"{FLAG} is not JSON ({error})"]
    if not isinstance(content, bool):
        return [f"{FLAG} holds {json.dumps(content)[:80]}, not a bare true or false"]
    return []


def _content_faults(image: ImageUnderTest, trial: TrialResult, folder: str) -> Faults:
    faults: dict[str, list[str]] = {"binary": [], "geometry": []}
    for name in _masks_in(trial, folder) or _masks_in(trial, None):
        short = Path(name).name
        try:
            mask = read_mask(trial.outputs / name)
        except UnreadableVolumeError as error:
            faults["binary"].append(f"{short} {error.fault}")
            continue
        words = _voxel_faults(mask, image.task.values)
        faults["binary"] += [f"{short} {fault}" for fault in words]
        if mask.components == 1:
            faults["geometry"] += [
                f"{short}: {fault}" for fault in _grid_faults(trial, short, mask)
            ]
    return faults


def _voxel_faults(mask: Mask, values: frozenset[int]) -> list[str]:
    faults = []
    if mask.voxels_ZYX.dtype != np.uint8:
        faults.append(f"is {mask.voxels_ZYX.dtype}, not uint8")
    if mask.components != 1:
        faults.append(f"has {mask.components} numbers per voxel, not one")
    odd = [value for value in np.unique(mask.voxels_ZYX).tolist() if value not in values]
    if odd:
        faults.append(f"holds {', '.join(map(str, odd[:5]))}, not only 0 and 1")
    return faults


def _grid_faults(trial: TrialResult, name: str, mask: Mask) -> list[str]:
    """Compare a mask with its PET: the one of its name, or the only one."""
    pets = sorted((trial.inputs / "images" / "pet").glob("*.mha"))
    named = [pet for pet in pets if pet.name == name]
    for pet in named if len(pets) > 1 else pets:
        return geometry_faults(mask, read_mask(pet))
    return []


def _moved(usual: NDArray[np.bool_] | None, now: NDArray[np.bool_] | None) -> list[str]:
    if usual is None or now is None or usual.shape != now.shape or usual.sum() < _FEW_VOXELS:
        return []
    dice = 2 * float((usual & now).sum()) / float(usual.sum() + now.sum())
    if dice >= _ALIKE:
        return []
    voxels = f"{int(now.sum())} voxels instead of {int(usual.sum())}"
    return [f"the mask is not the usual one: {voxels}, Dice {dice:.2f}"]
