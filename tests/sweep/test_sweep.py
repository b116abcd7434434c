"""Five thousand inputs, each broken or odd in one way: the same mask, or a refusal that names it.

The names of the tests are the table: a kind of input, a class of mutations, and what is right.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.config import disable_value_validation

import flarekit
from flarekit.core.archive_members import UnpackLimits
from flarekit.core.archives import unpack_archive
from flarekit.core.errors import FlarekitError
from flarekit.core.nifti import read_nifti
from tests.sweep.dicom import DICOM, write_dicom
from tests.sweep.json_files import JSON, write_json_case
from tests.sweep.mha import MHA, write_mha
from tests.sweep.mutations import Mutation
from tests.sweep.nifti import NIFTI, write_nifti
from tests.sweep.tar import TAR, write_tar

SEEDS = 66
MOST_S = 10.0
MOST_MIB = 2048
CATCH_ALLS = ("run again with -v", "the memory of this machine is not enough")


@dataclass(frozen=True)
class Kind:
    """A kind of input: how it is made, how it is run, and its classes of mutations."""

    name: str
    write: object
    table: list[Mutation]
    convention: str
    channels: tuple[str, ...] = ("CT",)


KINDS = [
    Kind("DICOM", write_dicom, DICOM.mutations, "dicom"),
    Kind("NIfTI", write_nifti, NIFTI.mutations, "flare"),
    Kind("MHA", write_mha, MHA.mutations, "autopet", ("CT", "PET")),
    Kind("JSON", write_json_case, JSON.mutations, "autopet", ("CT", "PET", "tumor")),
    Kind("tar", write_tar, TAR.mutations, ""),
]
CLASSES = [(kind, mutation) for kind in KINDS for mutation in kind.table]


def title(value):
    if isinstance(value, Kind):
        return value.name
    right = {"same": "same mask", "refused": "refused, naming it"}[value.outcome]
    return f"{value.name} -> {right}"


@pytest.fixture(scope="module")
def segmenters():
    """Networks that mark what is bright, and where somebody clicked."""
    import torch

    loaded = {}
    for kind in KINDS[:-1]:
        count = len(kind.channels)
        module = torch.nn.Conv3d(count, 2, 1)
        with torch.no_grad():
            module.weight.zero_()
            module.bias.copy_(torch.tensor([0.0, -1.0]))
            gains = {"CT": 0.005, "PET": 0.3, "tumor": 1000.0}
            for k, channel in enumerate(kind.channels):
                module.weight[1, k] = gains[channel]
        facts = {
            "channels": [
                {"name": channel, "intensity": {"kind": "scale", "divisor": 1.0}}
                for channel in kind.channels
            ],
            "grid": {"spacing_mm_ZYX": ["scan"] * 3, "tile_ZYX": [8, 16, 16]},
            "labels": {"lesion": 1},
            "convention": kind.convention,
        }
        loaded[kind.name] = flarekit.load(module=module, facts=facts, device="cpu")
    yield loaded
    for segmenter in loaded.values():
        segmenter.close()


_MAKING = {"os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate"}
_written: list[str] | None = None  # every path that Python makes or opens to write, while noted


def _note(event, arguments):
    if _written is None:
        return
    if event in _MAKING:
        _written.append(os.fsdecode(arguments[event in ("os.rename", "os.link", "os.symlink")]))
    elif event == "open" and arguments[2] & 3 and not isinstance(arguments[0], int):
        _written.append(os.fsdecode(arguments[0]))


sys.addaudithook(_note)


@contextmanager
def written():
    """Give the list of what is written meanwhile, wherever it is."""
    global _written
    _written = found = []
    try:
        yield found
    finally:
        _written = None


@dataclass(frozen=True)
class Came:
    """What came of an input: masks by name, and everything that was said."""

    masks: dict[str, object]
    said: str
    failed: bool


def run(kind: Kind, folder: Path, output: Path, segmenters) -> Came:
    if kind.name == "tar":
        try:
            files = unpack_archive(
                folder / "model.tar", output, UnpackLimits(most_bytes=1 << 20, most_files=100)
            )
        except FlarekitError as error:
            return Came({}, str(error), failed=True)
        contents = {each.relative_to(output).as_posix(): each.read_bytes() for each in files}
        return Came(contents, "", failed=False)
    try:
        record = flarekit.predict(folder, output, segmenters[kind.name], convention=kind.convention)
    except FlarekitError as error:
        return Came({}, str(error), failed=True)
    said = [text for case in record.failed for text in (case.error or "", case.fix or "")]
    said += record.left_out
    masks = {} if record.failed else {"mask": mask_of(record.cases[0].mask)}
    assert len(record.cases) == 1
    return Came(masks, "\n".join(said), failed=bool(record.failed or record.left_out))


def mask_of(path: Path):
    if path.suffix == ".dcm":
        with disable_value_validation():
            seg = pydicom.dcmread(path)
        mask = np.zeros((8, 12, 14), np.uint8)
        for frame, item in zip(
            seg.pixel_array.reshape(-1, 12, 14), seg.PerFrameFunctionalGroupsSequence, strict=True
        ):
            height = float(item.PlanePositionSequence[0].ImagePositionPatient[2])
            mask[round(height / 4)] |= frame
        return mask.tobytes()
    if path.suffix == ".mha":
        return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).tobytes()
    return read_nifti(path).voxels_ZYX.astype(np.uint8).tobytes()


def may_write(path: str, output: Path) -> bool:
    """Return whether a path is of the output folder, the null device, or temporary and ours."""
    place, temporary = Path(path).resolve(), Path(tempfile.gettempdir()).resolve()
    return place in (output.parent, Path(os.devnull)) or any(
        each == output
        or (each.parent == temporary and each.name.startswith("flarekit-"))
        or (each.parent == output.parent and each.name.startswith(".unpacking-"))
        for each in (place, *place.parents)
    )


def contents_of(folder: Path):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def pristine(segmenters, tmp_path_factory):
    """What comes of every kind of input as it is."""
    came = {}
    for kind in KINDS:
        place = tmp_path_factory.mktemp(kind.name)
        kind.write(place / "in")
        came[kind.name] = run(kind, place / "in", place / "out", segmenters)
        assert not came[kind.name].failed, came[kind.name].said
    return came


def test_the_table_is_large_enough_and_two_in_five_classes_keep_their_mask():
    assert len(CLASSES) * SEEDS >= 5000
    same = [mutation for _, mutation in CLASSES if mutation.outcome == "same"]
    assert len(same) >= 0.4 * len(CLASSES)
    assert len({(kind.name, mutation.name) for kind, mutation in CLASSES}) == len(CLASSES)


def test_the_masks_to_compare_with_hold_something(pristine):
    for name in ("DICOM", "NIfTI", "MHA", "JSON"):
        mask = np.frombuffer(pristine[name].masks["mask"], np.uint8)
        assert 0.1 < mask.mean() < 0.9
    assert pristine["MHA"].masks != pristine["JSON"].masks


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "mutation"), CLASSES, ids=title)
def test_a_mutated_input_gives(kind, mutation, segmenters, pristine, tmp_path):
    wrong = []
    for seed in range(SEEDS):
        place = tmp_path / str(seed)
        kind.write(place / "in")
        expected = mutation.change(Random(seed), place / "in")
        before = contents_of(place)
        began = time.monotonic()
        with written() as paths:
            came = run(kind, place / "in", place / "out", segmenters)
        took_s = time.monotonic() - began
        fault = _fault(mutation, came, pristine[kind.name], expected)
        after = {path for path in contents_of(place) if (place / "out") not in path.parents}
        after |= {Path(path).resolve() for path in paths if not may_write(path, place / "out")}
        if any(path.read_bytes() != content for path, content in before.items()):
            fault = "an input was changed"
        if after != set(before):
            fault = f"written outside the output folder: {after - set(before)}"
        if took_s > MOST_S:
            fault = f"took {took_s:.1f} s"
        if fault:
            wrong.append(f"seed {seed}: {fault}")
    assert not wrong, "\n".join([f"{len(wrong)} of {SEEDS}", *wrong[:5]])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 < MOST_MIB


def _fault(mutation: Mutation, came: Came, pristine: Came, expected: list[str]) -> str | None:
    """Return what is wrong with what came; None where nothing is."""
    if any(words in came.said for words in CATCH_ALLS):
        return f"an unexpected error: {came.said}"
    if mutation.outcome == "same":
        if came.failed:
            return f"refused: {came.said}"
        return None if came.masks == pristine.masks else "another mask"
    if not came.failed:
        return "not refused" if came.masks == pristine.masks else "not refused, another mask"
    missing = [text for text in expected if text not in came.said]
    return f"{missing} not named: {came.said}" if missing else None
