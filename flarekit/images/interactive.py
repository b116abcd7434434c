"""Playing autoPET's organiser: call after call with more marks, on an image or a predictor.

Each call gets a folder as the platform lays it out, with all marks so far in `lesion-clicks.json`.
Between the calls of a case an image finds what it left in `/cache`, unless it is to forget that.
"""

import json
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flarekit import conventions
from flarekit.containers import Mount, Run, Sandbox
from flarekit.core.errors import FlarekitError, InputError
from flarekit.core.files import make_folder, open_to_all
from flarekit.core.volume import Volume, repaired_directions
from flarekit.evaluation.interactive import Session, Step, figures_of
from flarekit.evaluation.masks import case_id_of, masks_by_case, read_mask, read_volume
from flarekit.evaluation.scribbles import (
    KINDS,
    Marks,
    added,
    corrective_scribble,
    first_of,
    no_marks,
    simulated_clicks,
)

CONVENTION, CACHE, CLICKS = "autopet", "/cache", "lesion-clicks.json"
STEPS = {"4": 11, "5": 6}
_CHANNELS = ("ct", "pet")
Edition = Literal["4", "5"]


class CallError(FlarekitError):
    """A call of an image left no usable mask."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """A PET/CT and its truth, as files."""

    case_id: str
    ct: Path
    pet: Path
    truth: Path


@dataclass(frozen=True, kw_only=True)
class Play:
    """How cases are played.

    Attributes:
        edition: `4` (clicks, eleven calls) or `5` (scribbles, six calls).
        seed: of all that is drawn.
        forget: whether nothing that a call left in its cache is there in the next one.
    """

    edition: Edition = "5"
    seed: int = 0
    forget: bool = False


@dataclass(frozen=True)
class ImagePlayer:
    """An image, run as the platform does."""

    sandbox: Sandbox
    timeout_s: float
    gpus: str | None = None

    def call(self, inputs: Path, outputs: Path, cache: Path) -> float:
        """Write the mask of the one case in `inputs`, and return the seconds it took.

        Raises:
            FlarekitError: it failed.
        """
        line = conventions.facts_of(CONVENTION).run_line
        assert line is not None
        for folder in (inputs, outputs, cache):
            open_to_all(folder)
        run = Run(
            mounts=(
                Mount(here=inputs, there=line.inputs, writable=False),
                Mount(here=outputs, there=line.outputs, writable=True),
                Mount(here=cache, there=CACHE, writable=True),
            ),
            conditions=replace(line.conditions, gpus=self.gpus),
            command=line.command,
            timeout_s=self.timeout_s,
        )
        if refusal := self.sandbox.refuses(run):
            raise CallError(refusal, fix="run this where a Docker engine runs")
        ended = self.sandbox.run(run)
        for folder in (outputs, cache):
            self.sandbox.open_up(folder)
        if ended.not_started or ended.timed_out or ended.exit_code:
            why = ended.not_started or ended.last_line or "it says nothing on stderr"
            how = "was not done in time" if ended.timed_out else f"exit code {ended.exit_code}"
            raise CallError(f"the image failed ({how}): {why}", fix="see flarekit verify")
        return ended.seconds


@dataclass(frozen=True)
class PredictorPlayer:
    """A predictor, run in this process by what `flarekit job` runs.

    Attributes:
        run: segments a folder of inputs: inputs, outputs, folder for what is kept between calls.
    """

    run: Callable[[Path, Path, Path], None]

    def call(self, inputs: Path, outputs: Path, cache: Path) -> float:
        """Write the mask of the one case in `inputs`, and return the seconds it took.

        Raises:
            FlarekitError: it failed.
        """
        began = time.perf_counter()
        self.run(inputs, outputs, cache)
        return time.perf_counter() - began


Player = ImagePlayer | PredictorPlayer  # what makes a mask of a folder of inputs


def find_examinations(truth: Path, scans: Path | None) -> list[Examination]:
    """Return the cases whose truth is in a folder, sorted, with their scans.

    Args:
        truth: of masks, `X` with any ending of a volume.
        scans: holds `images/ct/X` and `images/pet/X`, or `ct/X` and `pet/X`, or `X_0000` and
            `X_0001` (nnU-Net's layout); beside the truth where None.

    Raises:
        InputError: there is no truth, a case has two, or no CT or no PET.
    """
    truths = masks_by_case(truth)
    if not truths:
        raise InputError(f"{truth}: no mask in it", fix="put a true mask of each case there")
    beside = truth.resolve().parent
    places = [scans] if scans is not None else [beside, beside / "imagesTr", beside / "imagesTs"]
    found = []
    for case_id, path in truths.items():
        ct, pet = (_scan(places, case_id, channel) for channel in (0, 1))
        if ct is None or pet is None:
            where = " or ".join(str(place) for place in places)
            raise InputError(
                f"{path}: no CT or PET of {case_id!r} in {where}",
                fix="name their folder with --scans: images/ct/X, images/pet/X, or X_0000, X_0001",
            )
        found.append(Examination(case_id=case_id, ct=ct, pet=pet, truth=path))
    return found


def _scan(places: Sequence[Path], case_id: str, channel: int) -> Path | None:
    name = _CHANNELS[channel]
    for place in places:
        folders = {
            place / "images" / name: case_id,
            place / name: case_id,
            place: f"{case_id}_{channel:04d}",
        }
        for folder, stem in folders.items():
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if path.is_file() and case_id_of(path) == stem:
                    return path
    return None


def play(
    cases: Sequence[Examination], player: Player, how: Play, scratch: Path
) -> Iterator[Session]:
    """Play every case and yield what it came to; a case that fails does not end the others.

    The kinds of scribbles take turns, so that each is a third of the cases.
    """
    for number, case in enumerate(cases):
        kind = "clicks" if how.edition == "4" else KINDS[number % len(KINDS)]
        table = _Table(case=case, player=player, how=how, scratch=scratch / f"case_{number}")
        try:
            yield table.play(kind)
        except FlarekitError as error:
            yield Session(
                case_id=case.case_id,
                kind=kind,
                steps=tuple(table.steps),
                error=error.message,
                fix=error.fix,
            )
        finally:
            shutil.rmtree(table.scratch, ignore_errors=True)


@dataclass(kw_only=True)
class _Table:
    """One case as it is played."""

    case: Examination
    player: Player
    how: Play
    scratch: Path
    steps: list[Step] = field(default_factory=list)

    def play(self, kind: str) -> Session:
        truth = read_mask(self.case.truth)
        lesions = truth.values_ZYX > 0
        inputs = self.scratch / "inputs"
        images = {name: inputs / "images" / name / f"{self.case.case_id}.mha" for name in _CHANNELS}
        uptake = _write_scan(self.case.pet, images["pet"], lesions.shape)
        _write_scan(self.case.ct, images["ct"], None)
        make_folder(self.scratch / "cache")
        seed = [self.how.seed, zlib.crc32(self.case.case_id.encode())]
        count = STEPS[self.how.edition]
        clicks = no_marks()
        if kind == "clicks":
            clicks = simulated_clicks(lesions, uptake, count - 1, np.random.default_rng(seed))
        marks, marked = no_marks(), ""
        for step in range(count):
            mask, seconds = self._call(inputs, marks, step)
            if mask.shape != lesions.shape:
                sizes = [" x ".join(map(str, each[::-1])) for each in (mask.shape, lesions.shape)]
                raise CallError(
                    f"call {step + 1} wrote a mask of {sizes[0]} voxels, the PET has {sizes[1]}",
                    fix="write masks on the PET's grid",
                )
            figures = figures_of(lesions, mask, truth.voxel_ml)
            self.steps.append(Step(figures=figures, seconds=seconds, marked=marked))
            if kind == "clicks":
                marks, marked = first_of(clicks, step + 1), "1 tumor, 1 background"
            elif step + 1 < count:
                marks, marked = self._scribbled(marks, lesions, mask, kind, [*seed, step])
        return Session(case_id=self.case.case_id, kind=kind, steps=tuple(self.steps))

    def _scribbled(
        self,
        marks: Marks,
        truth: NDArray[np.bool_],
        mask: NDArray[np.bool_],
        kind: Any,  # noqa: ANN401 - one of KINDS
        seed: Sequence[int],
    ) -> tuple[Marks, str]:
        scribble = corrective_scribble(truth, mask, kind, np.random.default_rng(seed))
        if scribble is None:
            return marks, "nothing: no error is left"
        name, places = scribble
        return added(marks, name, places), f"{name}, {len(places)} voxels"

    def _call(self, inputs: Path, marks: Marks, step: int) -> tuple[NDArray[np.bool_], float]:
        points = [
            {"point": [int(x), int(y), int(z)], "name": name}
            for name, places in marks.items()
            for z, y, x in places
        ]
        content = {"version": {"major": 1, "minor": 0}, "type": "Multiple points", "points": points}
        (inputs / CLICKS).write_text(json.dumps(content))
        outputs, cache = self.scratch / f"outputs_{step}", self.scratch / "cache"
        make_folder(outputs)
        if self.how.forget:
            shutil.rmtree(cache, ignore_errors=True)
            make_folder(cache)
        seconds = self.player.call(inputs, outputs, cache)
        found = self._mask(outputs, step)
        shutil.rmtree(outputs, ignore_errors=True)
        return found, seconds

    def _mask(self, outputs: Path, step: int) -> NDArray[np.bool_]:
        written = sorted(outputs.glob("images/*/*.mha"))
        if len(written) != 1:
            raise CallError(
                f"call {step + 1} wrote {len(written)} masks below images/", fix="write one mask"
            )
        return read_mask(written[0]).values_ZYX > 0


def _write_scan(
    source: Path, target: Path, shape: tuple[int, ...] | None
) -> NDArray[np.floating[Any] | np.integer[Any]]:
    """Write a scan as `.mha`, and return its voxels; its shape has to be the truth's."""
    import SimpleITK

    volume, _ = read_volume(source)
    if shape is not None and volume.voxels_ZYX.shape != shape:
        sizes = [" x ".join(map(str, each)) for each in (volume.voxels_ZYX.shape, shape)]
        raise InputError(
            f"{source}: has {sizes[0]} voxels, its truth {sizes[1]}",
            fix="draw it on the PET's grid",
        )
    image = SimpleITK.GetImageFromArray(volume.voxels_ZYX)
    _place(image, volume)
    make_folder(target.parent)
    SimpleITK.WriteImage(image, str(target), useCompression=True)
    return volume.voxels_ZYX


def _place(image: Any, volume: Volume) -> None:  # noqa: ANN401 - SimpleITK has no types
    to_lps = np.diag([-1.0, -1.0, 1.0])
    affine = volume.geometry.affine
    image.SetSpacing([float(mm) for mm in volume.geometry.spacing_mm_ZYX[::-1]])
    image.SetOrigin((to_lps @ affine[:3, 3]).tolist())
    image.SetDirection((to_lps @ repaired_directions(affine)).ravel().tolist())
