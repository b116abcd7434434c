"""Scans in any folders: which files are one scan, and where each mask goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from flarekit import conventions
from flarekit.conventions import Case, left_out_of
from flarekit.core.errors import InputError


def found(folder: Path, names: tuple[str, ...], channels: int = 1) -> Sequence[Case]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return conventions.get("plain").find_cases(folder, channels)


@pytest.mark.parametrize(
    ("names", "masks"),
    [
        (("a.nii.gz", "a_0000.nii.gz"), {"a.nii.gz", "a_0000.nii.gz"}),
        (("b.mha", "b.mhd"), {"b.mha", "b.mhd.mha"}),
        (("b.mhd", "b_0000.mhd"), {"b.mha", "b_0000.mhd.mha"}),
        (("p/b.mha", "q/b.mhd"), {"p/b.mha", "q/b.mha"}),
        (("c.nii", "c.nii.gz", "c_0000.nii"), {"c.nii", "c.nii.gz", "c_0000.nii"}),
        (
            ("a.nii.gz", "a_0000.nii.gz", "a_0000_0000.nii.gz"),
            {"a.nii.gz", "a_0000.nii.gz", "a_0000_0000.nii.gz"},
        ),
        (("d.mha", "d.mhd", "d.mhd.mha"), {"d.mha", "d.mhd.mha", "d.mhd.mha.mha"}),
    ],
)
def test_every_scan_has_a_mask_and_a_name_of_its_own(
    names: tuple[str, ...], masks: set[str], tmp_path: Path
) -> None:
    cases = found(tmp_path, names)

    assert {path for case in cases for path in case.channels} == {tmp_path / name for name in names}
    assert {case.mask.as_posix() for case in cases} == masks
    assert len({case.case_id for case in cases}) == len(names)


def test_a_mask_that_is_called_as_its_scan_is_that_scans(tmp_path: Path) -> None:
    cases = found(tmp_path, ("a.nii.gz", "a_0000.nii.gz", "b.mha", "b.mhd"))

    own = {case.mask.name: case.channels[0].name for case in cases}
    assert own == {
        "a.nii.gz": "a.nii.gz",
        "a_0000.nii.gz": "a_0000.nii.gz",
        "b.mha": "b.mha",
        "b.mhd.mha": "b.mhd",
    }


def test_a_scan_beside_channels_of_its_name_is_left_out_and_named(tmp_path: Path) -> None:
    cases = found(tmp_path, ("a.nii.gz", "a_0000.nii.gz", "a_0001.nii.gz"), 2)

    (case,) = cases
    assert [path.name for path in case.channels] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    (sentence,) = left_out_of(cases)
    assert sentence.startswith(f"{tmp_path / 'a.nii.gz'}: has no _0001")


def test_a_scan_that_lacks_a_channel_is_told_how_all_of_them_are_named(tmp_path: Path) -> None:
    (tmp_path / "a_0000.nii.gz").write_bytes(b"")
    plain = conventions.get("plain", {"channels": ["CT", "PET"]})
    with pytest.raises(InputError, match=r"found a_0000") as told:
        plain.find_cases(tmp_path, 2)
    assert "X_0000.nii.gz (CT), X_0001.nii.gz (PET)" in str(told.value)
