"""Draw what training does to organs: one row per change, the scan as it is beside three seeds.

    python profiling/pathology_pictures.py DATASET docs/pictures/pathology.webp

DATASET is in nnU-Net's raw layout; its first case that shows spleen and liver is drawn.
--quick draws one change.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from accuracy_pictures import small_picture

from flarekit.training.augment import ct_window, place, sample
from flarekit.training.cases import real_cases
from flarekit.training.pathology import change_organs, reshape_organ
from flarekit.training.recipe import Recipe, read_recipe
from flarekit.training.samples import OnDevice
from flarekit.training.tables import AugmentationFacts, OrganFacts
from flarekit.training.training_case import TrainingCase

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RECIPE = Path(__file__).parents[1] / "weights" / "abdomen_ct" / "recipe.toml"
_TILE, _MM = (1, 200, 260), (3.0, 1.6, 1.6)
_SEEDS = (0, 1, 2)
_STILL = AugmentationFacts(rotation_deg_ZYX=(0, 0, 0), scale=0, intensity=0)
_SOLID = ("liver", "spleen", "right_kidney", "left_kidney")
_ROWS = {
    "organs grown and shrunk": OrganFacts(
        changed=1, factor={"spleen": (1.6, 2.5), "liver": (0.75, 1.4)}, shift_mm=8
    ),
    "organs removed": OrganFacts(removed={"spleen": 0.7, "left_kidney": 0.7, "gallbladder": 0.7}),
    "cysts and tumours": OrganFacts(lesions=1, lesion_labels=_SOLID),
    "less contrast medium, another phase": OrganFacts(contrast=1),
    "fluid around organs": OrganFacts(fluid=1),
}


def main(line: Sequence[str] | None = None) -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--recipe", type=Path, default=_RECIPE, help="whose labels they have")
    parser.add_argument("--quick", action="store_true", help="one change only")
    arguments = parser.parse_args(line)
    rows = list(_ROWS.items())[: 1 if arguments.quick else None]
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    recipe = read_recipe(arguments.recipe)
    recipe = replace(recipe, training=recipe.training.model_copy(update={"augmentation": _STILL}))
    cases = real_cases(arguments.dataset, recipe)
    names = recipe.class_names
    shown = {names.index("liver"), names.index("spleen"), names.index("left_kidney")}
    case = next(case for case in cases if shown <= case.centres.keys())
    figure = Figure(figsize=(12, 2.6 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), 4, squeeze=False)
    for row, (title, facts) in zip(grid, rows, strict=True):
        _draw(row[0], case, recipe, OrganFacts(), 0)
        row[0].set_title(f"as scanned; right: {title}", fontsize=8, loc="left")
        for axes, seed in zip(row[1:], _SEEDS, strict=True):
            _draw(axes, case, recipe, facts, seed)
            axes.set_title(f"seed {seed}", fontsize=8, loc="left")
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        drawn = Path(scratch) / "drawn.png"
        figure.savefig(drawn, dpi=70)
        arguments.picture.write_bytes(small_picture(drawn, 25_000))


def _draw(axes: Axes, case: TrainingCase, recipe: Recipe, facts: OrganFacts, seed: int) -> None:
    rng = np.random.default_rng(seed)
    voxels = OnDevice.of(case, torch.device("cpu"))
    case_mm, names = case.spacing_mm_ZYX, recipe.class_names
    spleen = case.centres[names.index("spleen")]
    middle = (np.array(case.classes_ZYX.shape) - 1) / 2
    middle[0] = np.median(spleen[:, 0])
    middle_mm = middle * np.array(case_mm)
    positions = place(_TILE, _MM, middle_mm, _STILL, rng, voxels.image_CZYX.device)
    positions = reshape_organ(positions, case.centres, case_mm, facts, names, rng)
    image, classes = sample(
        voxels.image_CZYX, voxels.classes_ZYX, positions, case_mm, voxels.lowest_C
    )
    window = ct_window(recipe.spec.channels[0])
    image, classes = change_organs(image, classes, window, _MM, facts, names, rng)
    axes.imshow((image[0, 0] * window.std + window.mean).numpy(), cmap="gray", vmin=-125, vmax=225)
    labels = classes[0].float().numpy()
    labels[(labels == 0) | (labels >= len(names))] = np.nan
    axes.imshow(labels, cmap="tab20", vmin=0, vmax=len(names), alpha=0.35)
    axes.set_axis_off()


if __name__ == "__main__":
    main()
