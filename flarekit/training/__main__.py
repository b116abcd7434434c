"""Train a predictor from its recipe, or export the checkpoint of a run.

python -m flarekit.training run    weights/abdomen_ct/recipe.toml DATASET RUN_DIR --minutes 75
python -m flarekit.training export weights/abdomen_ct/recipe.toml RUN_DIR weights/abdomen_ct
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help=__doc__, no_args_is_help=True, rich_markup_mode=None)


@app.command()
def run(
    recipe_path: Path,
    dataset: Annotated[Path, typer.Argument(help="nnU-Net raw layout: imagesTr, labelsTr")],
    run_dir: Path,
    minutes: float = 75,
    device: str = "cpu",
) -> None:
    """Train; call it again after a kill to go on."""
    from flarekit.training.compact import train
    from flarekit.training.recipe import read_recipe
    from flarekit.training.samples import phantom_cases, real_cases

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    recipe = read_recipe(recipe_path)
    phantoms = list(phantom_cases(recipe))
    real = list(real_cases(dataset, recipe))
    train(recipe, real, phantoms, run_dir=run_dir, minutes=minutes, device=device)


@app.command()
def export(recipe_path: Path, run_dir: Path, folder: Path) -> None:
    """Write predictor.toml and model.safetensors."""
    from flarekit.training.export import export_predictor
    from flarekit.training.recipe import read_recipe

    export_predictor(read_recipe(recipe_path), run_dir / "checkpoint.pt", folder)


if __name__ == "__main__":
    app()
