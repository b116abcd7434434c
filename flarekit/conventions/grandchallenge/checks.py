"""Any algorithm of grand-challenge.org: one image per image socket, numbers as JSON.

What it reads and writes is known from the image's label `flarekit.facts`, which `flarekit build`
sets: {"settings": {"inputs": ["ct-image"], "outputs": [{"path": "images/organs", "kind":
"Segmentation"}]}}. Without it, inputs are those that were given, or else one CT in images/ct.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import numpy as np

from flarekit.conventions.grandchallenge import samples
from flarekit.core.errors import UnreadableVolumeError
from flarekit.verification.check import PASS, Finding, check, checks_in, fail, skip, verdict_of
from flarekit.verification.masks import Mask, geometry_faults, read_mask
from flarekit.verification.platform_checks import PLATFORM_IMAGE, PLATFORM_RUNS
from flarekit.verification.platform_inputs import IMAGES
from flarekit.verification.run_checks import RUNS
from flarekit.verification.trials import ImageUnderTest, TaskFacts, TrialResult

_UNKNOWN = (
    "what the algorithm declares is not known: build it with flarekit build, or set the label "
    "flarekit.facts with its outputs"
)


@dataclass(frozen=True, kw_only=True)
class _Output:
    """An output that the algorithm declares; see `conventions.grandchallenge`."""

    path: str
    kind: str
    binary: bool

    @property
    def is_file(self) -> bool:
        """Whether it is a JSON file; images stand in a folder of their own."""
        return self.path.endswith(".json")


def write_sample(folder: Path, task: TaskFacts) -> None:
    """Write the inputs of the usual run: those given, where the image says nothing of its own."""
    if task.user_inputs is not None and not _declared(task):
        shutil.copytree(task.user_inputs, folder, dirs_exist_ok=True)
        return
    stated = (task.settings or {}).get("inputs")
    inputs = [str(name) for name in stated] if isinstance(stated, list | tuple) else []
    samples.write_job(folder, inputs or samples.UNKNOWN)


def _declared(task: TaskFacts) -> tuple[_Output, ...]:
    """Return the declared outputs; none where they are not known."""
    stated = (task.settings or {}).get("outputs")
    return tuple(
        _Output(
            path=str(each["path"]).strip("/"),
            kind=str(each.get("kind", "")),
            binary=each.get("binary") is True,
        )
        for each in (stated if isinstance(stated, list | tuple) else ())
        if isinstance(each, Mapping) and "path" in each
    )


def _of(trial: TrialResult, output: _Output) -> list[str]:
    """Return the files of an output."""
    if output.is_file:
        return [name for name in trial.files if name == output.path]
    return [name for name in trial.files if str(PurePosixPath(name).parent) == output.path]


def _images(trial: TrialResult, output: _Output) -> list[str]:
    return [name for name in _of(trial, output) if Path(name).suffix.lower() in IMAGES]


def _tree_faults(trial: TrialResult, outputs: tuple[_Output, ...]) -> list[str]:
    found = {output.path: _of(trial, output) for output in outputs}
    known = {name for names in found.values() for name in names}
    missing = [f"no {path}" for path, names in found.items() if not names]
    return missing + [f"wrote {name} too" for name in trial.files if name not in known]


def _count_faults(trial: TrialResult) -> Iterator[str]:
    """Yield which folders below `images` hold anything but one image."""
    folders: dict[str, list[str]] = {}
    for name in trial.files:
        parts = PurePosixPath(name).parts
        if len(parts) > 2 and parts[0] == "images":
            folders.setdefault("/".join(parts[:2]), []).append(name)
    for folder, names in folders.items():
        images = [name for name in names if Path(name).suffix.lower() in IMAGES]
        if len(images) != 1:
            yield f"{folder} holds {len(images)} .mha or .tif files"
        elif others := sorted(set(names) - set(images)):
            yield f"{folder} holds {others[0]} besides its image"


def _json_faults(trial: TrialResult, outputs: tuple[_Output, ...]) -> Iterator[str]:
    kinds = {output.path: output.kind for output in outputs}
    for name in trial.files:
        if not name.endswith(".json"):
            continue
        try:
            value = json.loads((trial.outputs / name).read_bytes(), parse_constant=_no_number)
        except ValueError as error:
            yield f"{name} is not JSON: {error}"
            continue
        kind = kinds.get(name, "")
        if not _is_of(kind, value):
            yield f"{name} is to be a {kind}, and holds {json.dumps(value)[:60]}"


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"it has no {word}")


def _is_of(kind: str, value: Any) -> bool:  # noqa: ANN401 - JSON is anything
    """Tell whether a value is of a kind; of one that is not known here, every value is."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind in ("Boolean", "Bool"):
        return isinstance(value, bool)
    if kind == "Integer":
        return is_number and float(value).is_integer()
    if kind == "Float":
        return is_number
    return isinstance(value, str) if kind == "String" else True


def _masks(
    trial: TrialResult, outputs: tuple[_Output, ...]
) -> Iterator[tuple[_Output, str, Mask | UnreadableVolumeError]]:
    """Yield the segmentations that were written."""
    for output in outputs:
        if output.kind == "Segmentation":
            for name in _images(trial, output):
                try:
                    yield output, name, read_mask(trial.outputs / name)
                except UnreadableVolumeError as error:
                    yield output, name, error


def _type_faults(trial: TrialResult, outputs: tuple[_Output, ...]) -> Iterator[str]:
    for _, name, mask in _masks(trial, outputs):
        if isinstance(mask, UnreadableVolumeError):
            yield f"{name} {mask.fault}"
        elif mask.components != 1:
            yield f"{name} has {mask.components} channels"
        elif mask.voxels_ZYX.dtype not in (np.uint8, np.int8):
            yield f"{name} is {mask.voxels_ZYX.dtype}"


def _value_faults(
    trial: TrialResult, outputs: tuple[_Output, ...], values: frozenset[int]
) -> Iterator[str]:
    for output, name, mask in _masks(trial, outputs):
        allowed = {0, 1} if output.binary else values
        if isinstance(mask, Mask):
            found = np.unique(mask.voxels_ZYX).tolist()
            if odd := sorted(set(found) - allowed):
                yield f"{name} holds {', '.join(f'{value:g}' for value in odd[:5])}"


def _grid_faults(trial: TrialResult, outputs: tuple[_Output, ...]) -> Iterator[str]:
    """Yield which segmentations lie on the grid of no input."""
    paths = sorted(path for path in trial.inputs.rglob("*") if path.suffix.lower() in IMAGES)
    scans = [read_mask(path) for path in paths]
    for _, name, mask in _masks(trial, outputs):
        if isinstance(mask, Mask) and mask.components == 1:
            faults = [geometry_faults(mask, scan) for scan in scans]
            if faults and all(faults):
                yield f"{name}: {faults[0][0]}"


@check(fix="write to the paths that the sockets state; put logs and temporary files into /tmp")
def output_tree(image: ImageUnderTest) -> Finding:
    """Every declared output is written, and nothing else."""
    trial, outputs = image.base(), _declared(image.task)
    if outputs:
        return verdict_of(_tree_faults(trial, outputs))
    return skip(_UNKNOWN) if trial.files else fail("wrote nothing")


@check(fix="write one file per socket, and clear what earlier steps have left")
def one_per_socket(image: ImageUnderTest) -> Finding:
    """A folder of images holds exactly one .mha or .tif file."""
    return verdict_of(list(_count_faults(image.base())))


@check(fix="json.dump(value, file, allow_nan=False), after converting NumPy's numbers")
def json_values(image: ImageUnderTest) -> Finding:
    """JSON files hold values of the declared kind, and no NaN or infinity."""
    return verdict_of(list(_json_faults(image.base(), _declared(image.task))))


@check(fix="convert with astype(uint8), and write a scalar image")
def stored_type(image: ImageUnderTest) -> Finding:
    """Segmentations are uint8 or int8 with one channel."""
    outputs = _declared(image.task)
    return verdict_of(list(_type_faults(image.base(), outputs))) if outputs else skip(_UNKNOWN)


@check(fix="map the network's classes to the task's values; --labels where the task has others")
def labels(image: ImageUnderTest) -> Finding:
    """Segmentations hold the declared values only."""
    outputs = _declared(image.task)
    if not outputs:
        return skip(_UNKNOWN)
    if not _knows_values(image.task, outputs):
        return skip("which values masks may hold is not known: give --labels")
    return verdict_of(list(_value_faults(image.base(), outputs, image.task.values)))


def _knows_values(task: TaskFacts, outputs: tuple[_Output, ...]) -> bool:
    masks = [output for output in outputs if output.kind == "Segmentation"]
    return not task.values <= {0} or all(output.binary for output in masks)


@check(fix="resample to the input's grid, then CopyInformation from it")
def geometry(image: ImageUnderTest) -> Finding:
    """Segmentations have the input's size, spacing, origin and direction."""
    outputs = _declared(image.task)
    return verdict_of(list(_grid_faults(image.base(), outputs))) if outputs else skip(_UNKNOWN)


@check(fix="correct what the reason names")
def given_inputs(image: ImageUnderTest) -> Finding:
    """The inputs that were given pass the same checks."""
    outputs = _declared(image.task)
    if image.task.user_inputs is None:
        return skip("no --input was given")
    if not outputs:
        return PASS  # all runs were of these
    trial = image.trial(image.task.user_inputs)
    if trial.failure is not None:
        return fail(trial.failure)
    faults = [*_tree_faults(trial, outputs), *_count_faults(trial), *_json_faults(trial, outputs)]
    faults += [*_type_faults(trial, outputs), *_grid_faults(trial, outputs)]
    if _knows_values(image.task, outputs):
        faults += _value_faults(trial, outputs, image.task.values)
    return verdict_of(faults)


CHECKS = (*PLATFORM_IMAGE, *RUNS, *PLATFORM_RUNS, *checks_in(globals()))
