"""`flarekit train init`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class First:
    """What a first recipe should be; see `flarekit.training.first_recipe`."""

    name: str | None = None
    convention: str = "flare"
    device: str = "auto"
    memory_mib: Any = None


def init(
    dataset: Path,
    *,
    wanted: First,
    output: Path = Path("recipe.toml"),
    force: bool = False,
    quiet: bool = False,
) -> None:
    """Write a first recipe that fits your labelled scans and this machine."""
    from flarekit.cli.console import Console, typed
    from flarekit.core.errors import UsageError
    from flarekit.core.files import write_atomically
    from flarekit.training.first_recipe import first_recipe

    console = Console(quiet=quiet)
    if output.exists() and not force:
        raise UsageError(f"{output}: is there already", fix="add --force to replace it")
    with console.bar("label maps") as progress:
        text, notes = first_recipe(dataset, **vars(wanted), progress=progress)
    write_atomically(output, text.encode())
    for note in notes:
        console.say(f"note: {note}")
    step = typed("train", "compact", output, dataset, "RUN_DIR", "--minutes", 60)
    console.say(f"{output}: written; next: {step}")
