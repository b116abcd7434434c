"""`flarekit train locator`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flarekit.cli.console import Console
    from flarekit.conventions import Case
    from flarekit.conventions import Convention as ConventionOf
    from flarekit.core.spec import PredictorFolder

_EVERY = 5  # case of five is set aside, to measure the locator on
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class LocatorRun:
    """How a locator is trained."""

    minutes: float = 40
    device: str = "auto"
    replace: bool = False
    convention: str | None = None


def locator(predictor: str, scans: Path, run_dir: Path, *, options: LocatorRun) -> None:
    """Train the small network that tells a predictor where to look, from its own masks.

    The predictor segments the scans; a network of less than 1 MB learns to find the same labels
    at a coarse spacing, and becomes PREDICTOR/locator. With it, tiles that can hold no label are
    not run, and with a time budget there is a whole mask at any moment. Call it again after a kill
    to go on.

    Example: flarekit train locator my_predictor scans run --minutes 40
    """
    from flarekit.cli.console import Console

    _train(predictor, scans, run_dir, options, Console())


def _train(name: str, scans: Path, run_dir: Path, options: LocatorRun, console: Console) -> None:
    import typer

    from flarekit.cli.train_requests import Sources
    from flarekit.cli.training import run_training
    from flarekit.core.apart import keep_apart
    from flarekit.core.files import write_atomically
    from flarekit.segmentation.predictors import find_predictor
    from flarekit.training.compact import RunOptions
    from flarekit.training.export import export_predictor
    from flarekit.training.locator import add_locator, refuse_to_replace, refuse_what_needs_none
    from flarekit.training.recipe import read_recipe

    run = RunOptions(minutes=options.minutes, device=options.device)
    predictor = find_predictor(name)
    refuse_what_needs_none(predictor.spec)
    refuse_to_replace(predictor, replace=options.replace)
    for folder in (scans, predictor.folder):
        keep_apart(folder, run_dir, [], what="a folder that the training reads")
    dataset, recipe_path = run_dir / "dataset", run_dir / "locator.toml"
    ids, left_out = _masks(predictor, scans, dataset, options, console)
    if not recipe_path.is_file():  # after a kill, the run goes on with the recipe that it had
        write_atomically(recipe_path, _recipe(predictor, dataset, ids).encode())
    training, cases = run_dir / "training", run_dir / "cases"
    sources = Sources(
        recipe_path=recipe_path, dataset=dataset, run_dir=training, cases=cases, processes=1
    )
    run_training(read_recipe(recipe_path), sources, run, console)
    made = run_dir / "locator"
    export_predictor(training, made)
    folder = add_locator(predictor, made, replace=options.replace)
    size = (folder / "model.safetensors").stat().st_size / _MIB
    console.say(
        f"{folder}: made ({size:.2f} MiB); read {folder / 'CARD.md'}; predictions use it from now "
        "on, unless --no-locator is given"
    )
    if left_out:
        console.error(f"{left_out} of the scans were left out, each named above", None)
        raise typer.Exit(1)


def _masks(
    predictor: PredictorFolder, scans: Path, dataset: Path, options: LocatorRun, console: Console
) -> tuple[list[str], int]:
    """Let the predictor segment every scan, as a data set.

    Returns:
        The ids of the scans that have masks, and how many have none, or could not be read.

    Raises:
        InputError: no scan, or none that could be segmented.
    """
    import flarekit
    from flarekit.conventions import left_out_of
    from flarekit.core.errors import FlarekitError, InputError
    from flarekit.core.files import make_folder
    from flarekit.core.names import safe_name
    from flarekit.segmentation.inputs import cases_in, convention_of

    images, labels = dataset / "imagesTr", dataset / "labelsTr"
    for folder in (images, labels):
        make_folder(folder)
    spec, ids = predictor.spec, list[str]()
    name = options.convention or spec.convention
    other = (lambda each: convention_of(each, spec)) if options.convention is None else None
    with (
        cases_in(name, convention_of(name, spec), scans, len(spec.channels), other) as found,
        flarekit.load(predictor, device=options.device, locator=False) as segmenter,
    ):
        for number, case in enumerate(found.cases, start=1):
            case_id = safe_name(case.case_id)
            mask = labels / f"{case_id}.nii.gz"
            try:
                files = _channels(found.convention, case, images, case_id)
                if not mask.is_file():
                    segmenter.segment(files).save(mask)
            except FlarekitError as error:
                console.error(f"{case.case_id}: left out: {error.message}", error.fix)
                continue
            ids.append(case_id)
            console.say(f"{case.case_id}: has a mask ({number} of {len(found.cases)})")
    if not ids:
        raise InputError(
            f"{scans}: none of the scans could be segmented",
            fix="read the errors above, one for each scan",
        )
    return sorted(ids), len(found.cases) - len(ids) + len(left_out_of(found.cases))


def _channels(convention: ConventionOf, case: Case, images: Path, case_id: str) -> list[Path]:
    """Bring the channels of a case into the data set, and return what is to be segmented.

    NIfTI files get a link there; what is none is converted, and the copies are returned.
    """
    import nibabel

    targets = [images / f"{case_id}_{k:04d}.nii.gz" for k in range(len(case.channels))]
    if all(str(path).endswith(".nii.gz") for path in case.channels):
        for target, path in zip(targets, case.channels, strict=True):
            target.unlink(missing_ok=True)
            target.symlink_to(path.resolve())
        return list(case.channels)
    volumes = convention.read_case(case)
    targets = [images / f"{case_id}_{k:04d}.nii.gz" for k in range(len(volumes))]
    for target, volume in zip(targets, volumes, strict=True):
        image = nibabel.Nifti1Image(volume.voxels_ZYX.T, volume.geometry.affine)
        nibabel.save(image, target)
    return targets


def _recipe(predictor: PredictorFolder, dataset: Path, ids: Sequence[str]) -> str:
    """Return the locator's recipe, and write what the masks' values are called beside them.

    Raises:
        InputError: the masks are empty.
    """
    import json

    import numpy as np

    from flarekit.core.errors import InputError
    from flarekit.core.files import write_atomically
    from flarekit.training.labelled_scan import survey
    from flarekit.training.locator import locator_recipe

    maps = survey([dataset / "labelsTr" / f"{each}.nii.gz" for each in ids], lambda *_: None)
    present = {value for each in maps for value in each.voxels}
    labels = {name: value for name, value in predictor.spec.labels.items() if value in present}
    if not labels:
        raise InputError(
            f"{dataset / 'labelsTr'}: {predictor.spec.name} finds none of its labels in the scans",
            fix="name scans that show what it segments",
        )
    channels = {str(k): each.name for k, each in enumerate(predictor.spec.channels)}
    content = {"channel_names": channels, "labels": {"background": 0, **labels}}
    write_atomically(dataset / "dataset.json", (json.dumps(content, indent=1) + "\n").encode())
    sizes = np.array([np.multiply(each.shape_ZYX, each.spacing_mm_ZYX) for each in maps])
    left = {value: sum(value in each.voxels for each in maps) for value in present}
    aside = list[str]()
    for case_id, label_map in list(zip(ids, maps, strict=True))[_EVERY // 2 :: _EVERY]:
        if all(left[value] > 1 for value in label_map.voxels):  # each label stays in another case
            aside.append(case_id)
            left = {value: n - (value in label_map.voxels) for value, n in left.items()}
    return locator_recipe(predictor.spec, labels, np.median(sizes, axis=0).tolist(), aside)
