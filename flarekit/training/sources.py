"""Where a recipe's samples come from: a dataset, phantoms, and synthesis from material."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from flarekit.core.errors import InputError
from flarekit.training.cases import LazyCases, phantom_cases, real_cases, taken
from flarekit.training.makers import (
    SUV_ENDING,
    LesionCase,
    NegativeCase,
    WholeBodyCase,
    WholeBodyPet,
)
from flarekit.training.recipe import Recipe
from flarekit.training.samples import Pool
from flarekit.training.tables import DatasetFacts, NegativeFacts, SynthesisFacts
from flarekit.training.training_case import TrainingCase

_LOG = logging.getLogger(__name__)
_NOTHING = 1e-6  # a share that is left by rounding


def training_pools(
    recipe: Recipe,
    dataset: Path,
    material: Sequence[Path] = (),
    negatives: Sequence[Path] = (),
) -> list[Pool]:
    """Return the pools that a recipe asks for.

    Cases are made when they are first drawn, unless `make_all` of each pool makes them before.

    Args:
        recipe: shares and seeds.
        dataset: nnU-Net raw layout; where the recipe names datasets, the folder that holds them.
        material: what the recipe's synthesis works on, see `SynthesisFacts`: folders of CTs
            (`imagesTr/*_0000.nii.gz`, or `*.nii.gz` but `*_mask.nii.gz`), or of organ label maps.
        negatives: folders of CTs without a label, see `NegativeFacts`.

    Raises:
        InputError: no cases, no material, no negatives, or a file that cannot be read.
    """
    facts = recipe.training
    pools = [Pool(cases=phantom_cases(recipe), share=facts.phantom_share)]
    if facts.synthesis is not None:
        cases = synthetic_cases(recipe, facts.synthesis, material)
        pools.append(Pool(cases=cases, share=facts.synthesis.share))
    if facts.negatives is not None:
        cases = negative_cases(recipe, facts.negatives, negatives)
        pools.append(Pool(cases=cases, share=facts.negatives.share))
    for folder, table in labelled_folders(recipe, dataset):
        labelled = _labelled(folder, table, recipe)
        _LOG.info("%d labelled cases of %s", len(labelled), folder)
        pools.append(Pool(cases=labelled, share=table.share))
    return [pool for pool in pools if pool.share > 0]


def validation_pool(recipe: Recipe, dataset: Path) -> Pool:
    """Return the cases on which choices are made, on the network's grid; none is trained on.

    Args:
        recipe: names them.
        dataset: as of `training_pools`.

    Raises:
        InputError: a file of one is missing.
    """
    on_network = recipe.training.model_copy(update={"case_grid": "network", "other_ct": None})
    plain, makers = replace(recipe, training=on_network), list[Callable[[], TrainingCase]]()
    for folder, table in labelled_folders(recipe, dataset):
        still = table.model_copy(update={"added": 0})
        makers += _labelled(folder, still, plain, only=recipe.training.validation).makers
    return Pool(cases=LazyCases(makers), share=0.0)


def make_all(
    pools: Sequence[Pool],
    folder: Path,
    processes: int,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Make every case of some pools, so that training never waits for one.

    Args:
        pools: of `training_pools`, and `validation_pool`.
        folder: keeps the cases for later runs; see `flarekit.training.kept`.
        processes: that make cases at the same time.
        progress: called with how many cases are there, of how many.

    Raises:
        InputError: a case cannot be made.
        OutputError: the folder cannot be written.
    """
    lazy = [pool.cases for pool in pools if isinstance(pool.cases, LazyCases)]
    total, done = sum(map(len, lazy)), count(1)
    for cases in lazy:
        cases.make_all(folder, processes, lambda: progress(next(done), total))


def labelled_folders(recipe: Recipe, dataset: Path) -> list[tuple[Path, DatasetFacts]]:
    """Return the folders that labelled samples are taken from, each with what a recipe says of it.

    Args:
        recipe: `training.datasets`; a folder that it does not name has the share that is left.
        dataset: nnU-Net raw layout; the folder that holds such folders where the recipe names them.
    """
    facts = recipe.training
    found = [(dataset / table.folder, table) for table in facts.datasets]
    if not found:
        others = (each.share for each in (facts.synthesis, facts.negatives) if each is not None)
        left = max(0.0, 1 - facts.phantom_share - sum(others))
        found = [(dataset, DatasetFacts(folder="unnamed", share=left))]
    return [(folder, table) for folder, table in found if table.share > _NOTHING]


def _labelled(
    folder: Path, table: DatasetFacts, recipe: Recipe, *, only: Sequence[str] | None = None
) -> LazyCases:
    if table.layout == "wholebody_pet":
        return _wholebody_cases(folder, table, recipe, only=only)
    return real_cases(folder, recipe, only=only)


def _wholebody_cases(
    folder: Path, table: DatasetFacts, recipe: Recipe, *, only: Sequence[str] | None = None
) -> LazyCases:
    """Return the whole-body PETs of a folder that are trained on, in as many copies as wanted."""
    facts = recipe.training
    paths = [
        path
        for path in sorted(folder.glob(f"*{SUV_ENDING}"))
        if taken(path.name.removesuffix(SUV_ENDING), facts, only)
    ]
    if not paths and only is None:
        raise InputError(
            f"{folder}: holds no whole-body PET to train on",
            fix=f"name a folder with X{SUV_ENDING}",
        )
    copies = range(1 if facts.other_ct is None else facts.other_ct.copies)
    return LazyCases(
        [
            WholeBodyPet(path, known, copy, table.added * (copy % 2), recipe)
            for path in paths
            for known in table.known_Z.get(path.name.removesuffix(SUV_ENDING), (None,))
            for copy in copies
        ]
    )


def synthetic_cases(recipe: Recipe, facts: SynthesisFacts, material: Sequence[Path]) -> LazyCases:
    """Return the cases that the recipe's synthesis makes, in turn from each file of the material.

    Raises:
        InputError: there is no material.
    """
    held_out = (*recipe.training.held_out, *facts.held_out)
    files = [path for folder in material for path in material_files(folder, held_out)]
    if not files:
        what = "organ label maps" if facts.kind == "wholebody_petct" else "CTs"
        raise InputError(
            f"the recipe's synthesis ({facts.kind}) has nothing to work on",
            fix=f"name a folder of {what} with --material",
        )
    maker = WholeBodyCase if facts.kind == "wholebody_petct" else LesionCase
    return LazyCases(
        [maker(files[seed % len(files)], seed, recipe) for seed in range(*facts.seeds)]
    )


def negative_cases(recipe: Recipe, facts: NegativeFacts, folders: Sequence[Path]) -> LazyCases:
    """Return scans in which nothing is to be found but what the recipe says may be there.

    Raises:
        InputError: there are none, or none of a name that the recipe says more of.
    """
    held_out = recipe.training.held_out
    files = [path for folder in folders for path in material_files(folder, held_out)]
    if not files:
        raise InputError(
            "the recipe takes negatives, and no folder with such scans was named",
            fix="name a folder of CTs without a label with --negatives",
        )
    for field, told in (("possible", facts.possible), ("part", facts.part)):
        unknown = [each for each in told if not any(path.name.startswith(each) for path in files)]
        if unknown:
            raise InputError(
                f"training.negatives.{field}: no scan among the negatives is named "
                f"{', '.join(unknown)}...",
                fix="name scans that are there, or remove their entries from the recipe",
            )
    return LazyCases([NegativeCase(path, recipe, facts) for path in files])


def material_files(folder: Path, held_out: Sequence[str]) -> list[Path]:
    """Return a folder's scans (or one file), in turn, without those that are held out."""
    if folder.is_file():
        return [folder]
    images = sorted((folder / "imagesTr").glob("*_0000.nii.gz"))
    files = images or [
        path for path in sorted(folder.glob("*.nii.gz")) if not path.name.endswith("_mask.nii.gz")
    ]
    return [path for path in files if not path.name.startswith(tuple(held_out))]
