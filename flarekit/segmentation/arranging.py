"""Scans of any kind laid out as an organiser's platform would lay them out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flarekit import conventions
from flarekit.conventions import Convention, Placed, ScanToPlace
from flarekit.core.apart import keep_inputs
from flarekit.core.channels import UPTAKE_NAMES
from flarekit.core.nifti import AIR_HU
from flarekit.core.scan_files import MASK_ENDINGS, ending_of
from flarekit.segmentation.inputs import cases_in
from flarekit.segmentation.predictors import predictors


@dataclass(frozen=True, kw_only=True)
class Arranged:
    """What was laid out, and a sentence for each input that was not."""

    placed: tuple[Placed, ...]
    left_out: tuple[str, ...]


def arrange(
    inputs: Sequence[Path],
    name: str,
    folder: Path,
    channels: int = 1,
    sockets: Sequence[str] = (),
) -> Arranged:
    """Lay scans out for a convention, with a list that tells which mask is whose.

    Args:
        inputs: files, folders in any tree, DICOM series or archives; only read.
        name: of the convention.
        folder: which is made, or empty.
        channels: of a scan, where the convention leaves that open.
        sockets: slugs of the channels' sockets, for grandchallenge.

    Raises:
        UsageError: no such convention, or one that takes scans as they are.
        InputError: no scans, or one that cannot be read or is not what the organiser takes.
        OutputError: the folder is not empty, or cannot be written.
    """
    arranging = conventions.arranging(name, sockets)
    names = arranging.CHANNELS or ("CT",) * channels
    settings = {
        "channels": names,
        "air": [0.0 if each in UPTAKE_NAMES else AIR_HU for each in names],
    }

    def get(other: str) -> Convention:
        return conventions.get(other, settings if other == "plain" else None)

    with cases_in("plain", get("plain"), inputs, len(names), get) as found:
        keep_inputs(inputs, folder, [])
        conventions.refuse_filled(folder)
        scans = []
        for case, safe in conventions.with_safe_names(found.cases):
            files = case.channels if all(path.is_file() for path in case.channels) else ()
            mask = case.mask if ending_of(case.mask) in MASK_ENDINGS else Path(f"{safe}.nii.gz")
            read = partial(found.convention.read_case, case)
            scans.append(ScanToPlace(name=safe, mask=mask, read=read, files=files))
        placed = arranging.arrange(scans, folder)
        conventions.write_manifest(folder, name, placed)
        return Arranged(placed=tuple(placed), left_out=conventions.left_out_of(found.cases))


def predictor_for(name: str, channels: int = 1) -> str | None:
    """Return the first predictor at hand that was made for a convention; None where there is none.

    Args:
        name: of the convention.
        channels: of a scan, where the convention leaves that open.
    """
    count = len(conventions.arranging(name, ()).CHANNELS) or channels
    fitting = (
        each.name
        for each in predictors()
        if each.spec.convention == name and len(each.spec.channels) == count
    )
    return next(fitting, None)
