"""An algorithm for autoPET in one file, and what can be wrong with it.

Serves III without clicks, IV and V with them. `#name` marks where a fault is put in.
"""

from __future__ import annotations

import textwrap

SCRIPT = """
import json, os, shutil, signal, sys, tempfile
from pathlib import Path
import numpy as np
import SimpleITK

INPUTS, OUTPUTS = Path("/input"), Path("/output")
if __name__ == "__main__":  # as process 1 it would ignore the signal
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
#start
try:
    ct_path = next((INPUTS / "images/ct").glob("*.mha"))
    pet_path = next((INPUTS / "images/pet").glob("*.mha"))
    ct, pet = SimpleITK.ReadImage(str(ct_path)), SimpleITK.ReadImage(str(pet_path))
except (StopIteration, RuntimeError):
    sys.exit("Error: images/ct and images/pet of /input need one readable .mha file each")
resampled = SimpleITK.Resample(ct, pet, SimpleITK.Transform(), SimpleITK.sitkLinear, -1024.0)
hu = SimpleITK.GetArrayFromImage(resampled)
raw = SimpleITK.GetArrayFromImage(pet)
suv = np.nan_to_num(raw)
clicks_path = INPUTS / "lesion-clicks.json"
clicks = json.loads(clicks_path.read_text())["points"] if clicks_path.exists() else []
mask = (suv > 4) & (hu > -500)
#mask
for click in clicks:
    x, y, z = (int(np.floor(n + 0.5)) for n in click["point"])
    #click
    if not all(0 <= at < n for at, n in zip((z, y, x), mask.shape)):
        continue
    box = tuple(slice(max(0, n - 2), n + 3) for n in (z, y, x))
    mask[box] = suv[box] > 0.41 * suv[box].max() if click["name"] == "tumor" else False
folder = "tumor-lesion-segmentation"
if not clicks_path.exists():
    folder = "automated-petct-lesion-segmentation"
name = ct_path.name
image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
image.CopyInformation(pet)
#image
target = OUTPUTS / "images" / folder / name
target.parent.mkdir(parents=True, exist_ok=True)
with tempfile.TemporaryDirectory() as temporary:
    SimpleITK.WriteImage(image, os.path.join(temporary, name), useCompression=True)
    shutil.copy(os.path.join(temporary, name), target.parent / ".part")
    (target.parent / ".part").replace(target)
if folder.startswith("automated"):
    (OUTPUTS / "data-centric-model.json").write_text("false")
#done
"""
FLAG = "if folder.startswith('automated'): (OUTPUTS / 'data-centric-model.json')"
SHORT = "[:suv.shape[0], :suv.shape[1], :suv.shape[2]]"

# fault: where and what, the checks that have to fail, words of the first one's reason
BROKEN: dict[str, tuple[dict[str, str], set[str], str]] = {
    "two_masks": (
        {"done": "shutil.copy(target, target.parent / 'second.mha')"},
        {"one_mask"},
        "2 masks in images/tumor-lesion-segmentation",
    ),
    "fixed_name": ({"image": "name = 'mask.mha'"}, {"one_mask"}, "mask.mha in images/tumor"),
    "wrong_folder": ({"image": "folder = 'lesions'"}, {"one_mask"}, "it wrote images/lesions"),
    "wrong_kind": ({"image": "name = 'a.nii.gz'"}, {"one_mask"}, "a.nii.gz"),
    "no_mask": ({"done": "target.unlink()"}, {"one_mask"}, "it wrote nothing"),
    "log": ({"done": "(OUTPUTS / 'log.txt').touch()"}, {"nothing_else"}, "log.txt"),
    "both_folders": (
        {
            "done": "other = OUTPUTS / 'images/automated-petct-lesion-segmentation'\n"
            "other.mkdir(exist_ok=True)\n"
            "if other != target.parent: shutil.copy(target, other / name)"
        },
        {"nothing_else"},
        "automated-petct",
    ),
    "int16": (
        {"image": "image = SimpleITK.Cast(image, SimpleITK.sitkInt16)"},
        {"binary"},
        "is int16, not uint8",
    ),
    "two_numbers": (
        {"image": "image = SimpleITK.Compose(image, image)"},
        {"binary"},
        "2 numbers per voxel",
    ),
    "255": ({"image": "image = image * 255"}, {"binary"}, "holds 255"),
    "torn": (
        {"done": "target.write_bytes(target.read_bytes()[:-40])"},
        {"binary"},
        "cannot be read",
    ),
    "origin": ({"image": "image.SetOrigin((0, 0, 0))"}, {"geometry"}, "mm off"),
    "spacing": ({"image": "image.SetSpacing((4, 4, 5))"}, {"geometry"}, "mm off"),
    "direction": (
        {"image": "image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))"},
        {"geometry"},
        "mm off",
    ),
    "axes": (
        {"image": "image = SimpleITK.PermuteAxes(image, (2, 1, 0))"},
        {"geometry"},
        "100 x 80 x 96 voxels for 96 x 80 x 100",
    ),
    "mirrored": (
        {"image": "i = image; image = SimpleITK.Flip(i, (False, True, False)); "
         "image.CopyInformation(i)"},
        {"aligned"},
        "mirrored along y",
    ),
    "pet_name": ({"image": "name = pet_path.name"}, {"differing_stems"}, "pet_of_case_0001.mha in"),
    "same_names_only": (
        {"mask": "if ct_path.name != pet_path.name: sys.exit('Error: no PET for this CT')"},
        {"differing_stems"},
        "no PET for this CT",
    ),
    "exact_grid": (
        {
            "mask": "gap = ct.GetOrigin()[0] - pet.GetOrigin()[0]\n"
            "if 0 < abs(gap) < 1: sys.exit('another space')"
        },
        {"ct_rounding"},
        "another space",
    ),
    "same_size": (
        {"mask": "if ct.GetSize() != pet.GetSize(): sys.exit('Error: the sizes differ')"},
        {"ct_other_grid"},
        "the sizes differ",
    ),
    "mask_of_the_ct": (
        {"image": "image = SimpleITK.Resample(image, ct)"},
        {"ct_other_grid"},
        "voxels for 96 x 80 x 100",
    ),
    "grid_ignored": (
        {"mask": f"hu = SimpleITK.GetArrayFromImage(ct){SHORT}\nmask = (suv > 4) & (hu > 20)"},
        {"ct_other_grid"},
        "not the usual one",
    ),
    "compressed_only": (
        {"mask": "if b'CompressedData = T' not in pet_path.read_bytes()[:500]: sys.exit('raw?')"},
        {"stored_otherwise"},
        "raw?",
    ),
    "narrow_only": (
        {"mask": "if raw.dtype != np.float32: sys.exit('Error: float64')"},
        {"stored_otherwise"},
        "float64",
    ),
    "nan_spreads": ({"mask": "mask &= raw / raw.max() > 0.1"}, {"nan_in_pet"}, "not the usual one"),
    "refuses_nan": (
        {"mask": "if np.isnan(raw).any(): sys.exit('Error: NaN in the PET')"},
        {"nan_in_pet"},
        "NaN in the PET",
    ),
    "relative": ({"mask": "mask = suv >= 0.3 * suv.max()"}, {"no_uptake"}, "768000 voxels"),
    "divides": (
        {"mask": "if suv.max() == 0: raise ZeroDivisionError('division by zero')"},
        {"no_uptake"},
        "division by zero",
    ),
    "clicks_needed": (
        {"start": "(INPUTS / 'lesion-clicks.json').read_text()"},
        {"clicks_missing"},
        "lesion-clicks.json",
    ),
    "a_click_needed": (
        {"mask": "if clicks_path.exists(): np.array([c['point'] for c in clicks])[:, 0]"},
        {"clicks_empty"},
        "too many indices",
    ),
    "no_bounds": ({"click": "suv[z, y, x]"}, {"clicks_outside"}, "out of bounds"),
    "integers_only": (
        {"click": "if click['point'] != [x, y, z]: sys.exit('Error: not an index')"},
        {"clicks_floats"},
        "not an index",
    ),
    "ten_clicks": (
        {"mask": "if len(clicks) > 10: sys.exit('Error: at most ten clicks')"},
        {"scribbles"},
        "at most ten",
    ),
    "reversed": ({"click": "x, z = z, x"}, {"clicks_placed"}, "they are read as z, y, x"),
    "swapped": ({"click": "x, y = y, x"}, {"clicks_placed"}, "they are read as y, x, z"),
    "world": (
        {"click": "x, y, z = pet.TransformPhysicalPointToIndex((float(x), float(y), float(z)))"},
        {"clicks_placed"},
        "they are read as millimetres",
    ),
    "shifted": ({"click": "x += 25"}, {"clicks_placed"}, "most of them elsewhere"),
    "always_plain": (
        {"image": "folder = 'automated-petct-lesion-segmentation'"},
        {"edition"},
        "changes its mask",
    ),
    "no_flag": ({"done": f"{FLAG}.unlink()"}, {"data_centric"}, "no data-centric-model.json"),
    "flag_is_text": (
        {"done": f"{FLAG}.write_text('\"false\"')"},
        {"data_centric"},
        'holds "false", not a bare true or false',
    ),
    "flag_is_an_object": (
        {"done": f"{FLAG}.write_text('{{\"data-centric-model\": true}}')"},
        {"data_centric"},
        "not a bare",
    ),
    "flag_is_a_number": ({"done": f"{FLAG}.write_text('0')"}, {"data_centric"}, "holds 0"),
    "flag_is_python": ({"done": f"{FLAG}.write_text('True')"}, {"data_centric"}, "is not JSON"),
}  # fmt: skip


def script(**faults: str) -> str:
    """Return the algorithm with faults put in."""
    lines = []
    for line in SCRIPT.splitlines():
        place = line.strip().removeprefix("#")
        if line.strip().startswith("#"):
            lines.append(textwrap.indent(faults.get(place, ""), line[: -len(place) - 1]))
        else:
            lines.append(line)
    return "\n".join(lines)
