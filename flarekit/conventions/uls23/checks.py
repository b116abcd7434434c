"""ULS23: a stack of volumes of interest, one lesion at the centre of each; masks stacked alike.

Most runs get one volume. Two get four, and one gets a hundred: it takes the time of a hundred
volumes, or as many as the limit of a run (`--timeout`) has room for, and some 0.7 GB of disk.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flarekit.conventions.uls23 import samples
from flarekit.conventions.uls23.mask_checks import (
    UnjudgedError,
    components,
    dice,
    far_faults,
    grid_faults,
    judged,
    read_masks,
    tree_faults,
    type_faults,
)
from flarekit.verification.check import PASS, Finding, check, checks_in, fail, skip, verdict_of
from flarekit.verification.platform_checks import PLATFORM_IMAGE, PLATFORM_RUNS
from flarekit.verification.run_checks import RUNS, loud_failure
from flarekit.verification.trials import ImageUnderTest, TaskFacts, TrialResult

_ALIKE = 0.98  # Dice of two masks of one volume: sums of batches are rounded in another order
_ORDER = (2, 0, 3, 1)
_MANY = 100
_FEWEST = 24  # volumes from which growth of memory is told from noise
_SHARE_OF_TIME = 0.8
_NOISE_MIB, _GROWTH_MIB = 128.0, 4.0  # per run, per volume; a mask has 8 MiB, a CT 16


def write_sample(folder: Path, task: TaskFacts) -> None:
    """Write the inputs of the usual run: a stack of one volume."""
    del task
    samples.write_stack(folder, [samples.LIVER])


def _four(image: ImageUnderTest) -> TrialResult:
    return image.kept("four", _stack(samples.SCENES))


def _stack(scenes: Sequence[samples.Scene], **how: Any) -> Callable[[Path], None]:  # noqa: ANN401
    """Return what writes a stack of scenes, see `write_stack`."""
    return lambda folder: samples.write_stack(folder, scenes, **how)


def _well(image: ImageUnderTest) -> list[TrialResult]:
    """Return the runs of one and of four volumes, those that ended well."""
    return [trial for trial in (image.base(), _four(image)) if trial.failure is None]


@check(fix="write all masks into one stack; put logs and temporary files into /tmp")
def output_tree(image: ImageUnderTest) -> Finding:
    """images/ct-binary-uls/NAME.mha is written, named as the input, and nothing else."""
    return verdict_of([fault for trial in _well(image) for fault in tree_faults(trial)])


@check(fix="convert with astype(uint8) after mapping the lesion to 1")
def stored_type(image: ImageUnderTest) -> Finding:
    """Masks are uint8, 0 and 1."""
    return verdict_of([fault for trial in _well(image) for fault in type_faults(trial)])


@check(fix="CopyInformation from the input; stack along Z in the order read")
def geometry(image: ImageUnderTest) -> Finding:
    """The masks have the stack's size and header."""
    return verdict_of([fault for trial in _well(image) for fault in grid_faults(trial)])


@check(fix="split the stack every 128 slices, and take each volume's own spacing")
def four_volumes(image: ImageUnderTest) -> Finding:
    """A stack of four volumes with different spacings is segmented without an error."""
    failure = _four(image).failure
    return PASS if failure is None else fail(failure)


@check(fix="keep the component at the centre, else the nearest; a small ball where none is")
@judged
def one_component(image: ImageUnderTest) -> Finding:
    """Each volume gets exactly one component: an empty one scores 0, speckle stalls scoring."""
    return components(read_masks(_four(image)))


@check(fix="choose components by their distance from voxel (64, 128, 128), not by size")
@judged
def central(image: ImageUnderTest) -> Finding:
    """The component lies at the centre, where the lesion is, or next to it."""
    return verdict_of(list(far_faults(read_masks(_four(image)))))


@check(fix="clear the mask in slices, rows and columns of nothing but the volume's minimum")
@judged
def padding(image: ImageUnderTest) -> Finding:
    """No mask reaches into the padding beyond the scan."""
    faults = []
    for index, (mask, scene) in enumerate(
        zip(read_masks(_four(image)), samples.SCENES, strict=True)
    ):
        beyond = np.count_nonzero(mask) - np.count_nonzero(mask[samples.scan_box(scene)])
        if beyond:
            faults.append(f"volume {index} has {beyond} mask voxels in its padding")
    return verdict_of(faults)


@check(fix="read, segment and write volume by volume; no statistics over the stack")
@judged
def order(image: ImageUnderTest) -> Finding:
    """Volumes are independent: in another order, or alone, each gets the same mask.

    Compare four volumes with the same in another order, and the first with it alone.
    """
    few = list(read_masks(_four(image)))
    (alone,) = read_masks(image.base())
    scenes = [samples.SCENES[index] for index in _ORDER]
    permuted = image.trial(image.inputs("permuted", _stack(scenes)))
    if permuted.failure is not None:
        return fail(f"in the order {_ORDER}: {permuted.failure}")
    faults = [
        f"volume {index} as number {place} gets another mask (Dice {alike:.2f})"
        for place, (index, mask) in enumerate(zip(_ORDER, read_masks(permuted), strict=True))
        if (alike := dice(mask, few[index])) < _ALIKE
    ]
    if (alike := dice(alone, few[0])) < _ALIKE:
        faults.append(f"volume 0 alone gets another mask (Dice {alike:.2f})")
    return verdict_of(faults)


@check(fix="convert voxels to float32 after reading; read with SimpleITK")
@judged
def voxel_types(image: ImageUnderTest) -> Finding:
    """Int16, int32 and float32, compressed or not, give the same mask."""
    (usual,) = read_masks(image.base())
    faults = []
    for dtype, compressed in (("int16", False), ("int32", True), ("float32", False)):
        words = f"{dtype}, {'compressed' if compressed else 'not compressed'}"
        write = _stack([samples.LIVER], dtype=dtype, compressed=compressed)
        try:
            (mask,) = read_masks(image.trial(image.inputs(f"{dtype}_{compressed}", write)))
        except UnjudgedError as error:
            faults.append(f"{words}: {error}")
            continue
        if (alike := dice(mask, usual)) < _ALIKE:
            faults.append(f"{words}: another mask (Dice {alike:.2f})")
    return verdict_of(faults)


@check(fix="compare the length of the list with slices / 128")
def spacing_count(image: ImageUnderTest) -> Finding:
    """A number of spacings that is not the volumes' ends it with an exit code and a reason."""
    faults = []
    for scenes, count in ((samples.SCENES, 3), ((samples.LIVER,), 2)):
        words = f"{count} spacings for {len(scenes)} volumes"
        inputs = image.inputs(words.replace(" ", "_"), _stack(scenes, spacings=count))
        finding = loud_failure(image.trial(inputs))
        if finding.state != "pass":
            faults.append(f"{words}: {finding.reason}")
    return verdict_of(faults)


def _each_s(image: ImageUnderTest) -> float:
    """Return how long a volume takes, as runs of 1 and 4 tell."""
    more_s = _four(image).outcome.seconds - image.base().outcome.seconds
    return max(more_s / (len(samples.SCENES) - 1), 1e-3)


def _many(image: ImageUnderTest) -> tuple[int, TrialResult]:
    """Return the run of a hundred volumes, or of as many as there is time for.

    Raises:
        UnjudgedError: it has time for hardly more than four, or those fail already.
    """
    four = _four(image)
    if four.failure is not None:
        raise UnjudgedError("four volumes fail already: see four_volumes")
    left_s = _SHARE_OF_TIME * image.timeout_s - four.outcome.seconds
    count = min(_MANY, len(samples.SCENES) + max(0, int(left_s / _each_s(image))))
    if count < _FEWEST:
        raise UnjudgedError(_too_long(image))
    scenes = [samples.SCENES[index % len(samples.SCENES)] for index in range(count)]
    return count, image.kept("many", _stack(scenes))


def _too_long(image: ImageUnderTest) -> str:
    needed_s = _MANY * _each_s(image) / _SHARE_OF_TIME + image.base().outcome.seconds
    timeout_s = int(np.ceil(needed_s / 60) * 60)
    return f"{_MANY} volumes take too long here; give --timeout {timeout_s}"


@check(fix="write masks as they are ready; keep within the time and the memory")
@judged
def hundred_volumes(image: ImageUnderTest) -> Finding:
    """A stack of 100 volumes gets 100 masks."""
    count, trial = _many(image)
    if trial.failure is not None:
        return fail(f"{count} volumes: {trial.failure}")
    four = _four(image)
    faults = [*tree_faults(trial), *grid_faults(trial)]
    if not faults or tree_faults(four) or any(grid_faults(four)):  # which other checks tell
        few = list(read_masks(four))
        faults = [
            f"volume {index} of {count} gets another mask than among four (Dice {alike:.2f})"
            for index, mask in enumerate(read_masks(trial))
            if (alike := dice(mask, few[index % len(few)])) < _ALIKE
        ]
    if not faults and count < _MANY:
        return skip(f"{count} volumes go well, but {_too_long(image)}")
    return verdict_of(faults)


@check(fix="read volumes when their turn comes, and keep masks compressed")
@judged
def flat_memory(image: ImageUnderTest) -> Finding:
    """Memory does not grow with the number of volumes."""
    count, trial = _many(image)
    if trial.failure is not None:
        return skip(f"{count} volumes fail: see hundred_volumes")
    few_mib, many_mib = _four(image).outcome.peak_mib, trial.outcome.peak_mib
    if few_mib is None or many_mib is None:
        return skip("the memory of its processes is not seen here")
    more, growth_mib = count - len(samples.SCENES), many_mib - few_mib
    if growth_mib <= max(_NOISE_MIB, _GROWTH_MIB * more):
        return PASS
    return fail(
        f"{few_mib:.0f} MiB for 4 volumes, {many_mib:.0f} MiB for {count}: "
        f"{growth_mib / more:.1f} MiB more with each"
    )


@check(fix="correct what the reason names")
@judged
def given_inputs(image: ImageUnderTest) -> Finding:
    """The inputs that were given pass the same checks."""
    given = image.task.user_inputs
    if given is None:
        return skip("no --input was given")
    images = len(list((given / samples.IMAGES).glob("*.mha")))
    if images != 1 or not (given / samples.SPACINGS).is_file():
        return fail(f"{given}: one {samples.IMAGES}/*.mha and {samples.SPACINGS} are needed")
    trial = image.trial(given)
    if trial.failure is not None:
        return fail(trial.failure)
    faults = [*tree_faults(trial), *type_faults(trial), *grid_faults(trial)]
    return verdict_of(faults) if faults else components(read_masks(trial))


CHECKS = (*PLATFORM_IMAGE, *RUNS, *PLATFORM_RUNS, *checks_in(globals()))
