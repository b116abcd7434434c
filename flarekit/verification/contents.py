"""Whether two runs of the same inputs have written the same, and by how much masks differ."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import UnreadableVolumeError
from flarekit.verification.masks import read_mask, same_content
from flarekit.verification.trials import ImageUnderTest, TrialResult

_NOISE = 0.05  # by how much less a mask may agree than two usual runs do with each other


def again(image: ImageUnderTest) -> TrialResult:
    """Return a second usual trial."""
    return image.once("again", lambda: image.trial(image.usual_inputs()))


def alike(one: Path, other: Path) -> bool:
    """Tell whether two files say the same; equally damaged ones do."""
    try:
        return one.read_bytes() == other.read_bytes() or same_content(one, other)
    except (UnreadableVolumeError, ValueError, OSError):
        return False


def agreement(one: NDArray[np.generic], other: NDArray[np.generic]) -> float:
    """Return the share of voxels with the same label among those with any."""
    if one.shape != other.shape:
        return 0.0
    either = (one != 0) | (other != 0)
    return float((one == other)[either].mean()) if either.any() else 1.0


def name_faults(trial: TrialResult, wanted: Mapping[str, Path]) -> list[str]:
    """Return which outputs a trial lacks, and what it wrote besides.

    Args:
        trial: whose outputs.
        wanted: name of an output -> the input that asks for it.
    """
    missing = [
        f"no {name}" if given.name == name else f"no {name} for {given.name}"
        for name, given in wanted.items()
        if name not in trial.files
    ]
    return missing + [f"wrote {name} too" for name in trial.files if name not in wanted]


def over_old_masks(image: ImageUnderTest, names: Iterable[str]) -> TrialResult:
    """Return a trial of the usual inputs with old files of these names in the output folder."""

    def leave_old(outputs: Path) -> None:
        for name in names:
            (outputs / name).write_bytes(b"an old mask")

    return image.trial(image.usual_inputs(), prepare=leave_old)


def unlike_usual(image: ImageUnderTest, trial: TrialResult, *, noise: float = _NOISE) -> list[str]:
    """Return which files of a trial of the usual inputs say something else than the usual ones.

    Names are not compared. Where two usual runs differ too, masks may agree a little less than
    those do with each other, and other files are not judged.

    Args:
        image: whose usual trial ended well.
        trial: of the usual inputs under other conditions.
        noise: share of labelled voxels by which masks may differ more than two usual runs do.
    """
    usual = image.base()
    differing = _differing(usual, trial)
    if not differing:
        return []
    unsteady = _differing(usual, again(image))
    faults = []
    for name in differing:
        shares = _shares(name, usual, trial, again(image) if name in unsteady else usual)
        if shares is None and name not in unsteady:
            faults.append(f"{name} holds something else")
        elif shares is not None and shares[0] < shares[1] - noise:
            faults.append(f"{name} {_in_words(name, usual, trial)}")
    return faults


def _differing(usual: TrialResult, trial: TrialResult) -> list[str]:
    names = [name for name in usual.files if name in trial.files and not name.endswith("/")]
    return [name for name in names if not alike(usual.outputs / name, trial.outputs / name)]


def _shares(
    name: str, usual: TrialResult, trial: TrialResult, other: TrialResult
) -> tuple[float, float] | None:
    """Return how well masks agree with the usual one; None where they are none."""
    masks = [_voxels(each.outputs / name) for each in (usual, trial, other)]
    known = [mask for mask in masks if mask is not None]
    if len(known) != len(masks):
        return None if masks[0] is None else (0.0, 1.0)
    return agreement(known[0], known[1]), agreement(known[0], known[2])


def _in_words(name: str, usual: TrialResult, trial: TrialResult) -> str:
    before, after = (_voxels(each.outputs / name) for each in (usual, trial))
    if before is None or after is None:
        return "cannot be read any more"
    counts = [_counted(mask) for mask in (after, before)]
    share = agreement(before, after)
    return f"has {counts[0]} instead of {counts[1]} (the same in {100 * share:.0f} % of them)"


def _counted(mask: NDArray[np.generic]) -> str:
    count = int(np.count_nonzero(mask))
    return f"{count} labelled voxels" if count else "no labelled voxel"


def _voxels(path: Path) -> NDArray[np.generic] | None:
    if not path.name.endswith((".nii.gz", ".nii", ".mha", ".npz")):
        return None
    try:
        return read_mask(path).voxels_ZYX
    except UnreadableVolumeError:
        return None


def listed(names: Sequence[str]) -> str:
    """Return names of files in words."""
    return ", ".join(names) or "nothing"
