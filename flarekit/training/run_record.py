"""What a run was made of: `run.json` in its folder, from which cards and provenance are taken."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from flarekit.core.errors import InputError
from flarekit.core.files import make_folder, write_atomically
from flarekit.core.json_files import read_json, typed
from flarekit.core.package import VERSION
from flarekit.training.fitting import LabelledFolder
from flarekit.training.recipe import Recipe

CHECKPOINT, RECIPE = "checkpoint.pt", "recipe.toml"  # of a run, beside its record
_FILE = "run.json"
_MOST_NAMED = 5
_NOT_STATED = "not stated"


def keep_recipe(recipe: Recipe, folder: Path) -> None:
    """Write a recipe into a folder, and the module of its own that lies beside it.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomically(folder / RECIPE, recipe.text.encode())
    own = recipe.own_class
    if own is not None and own.file is not None and own.file.parent != folder:
        write_atomically(folder / own.file.name, own.file.read_bytes())


class RunRecord(BaseModel):
    """What a run was made of.

    Attributes:
        command: what was typed last, with the names of folders in place of their paths.
        folders: with labelled cases.
        others: how many other cases there are, by what they are.
        held_out: patterns of cases that are never looked at.
        flarekit: its version.
        torch: its version.
    """

    model_config = ConfigDict(frozen=True)

    command: str
    folders: tuple[LabelledFolder, ...]
    others: dict[str, int]
    held_out: tuple[str, ...]
    flarekit: str
    torch: str

    @property
    def data(self) -> list[str]:
        """What was trained on, one sentence for each source."""
        labelled = [
            f"{len(each.training)} labelled cases of {each.name}"
            + (f" (licence: {each.licence})" if each.licence else "")
            for each in self.folders
        ]
        return labelled + [f"{count} {what}" for what, count in self.others.items()]

    @property
    def licence(self) -> str:
        """What the folders' dataset.json say of their licence."""
        stated = {each.licence for each in self.folders}
        return " and ".join(sorted(stated)) if stated and all(stated) else _NOT_STATED

    def provenance(self, recipe: Recipe) -> dict[str, Any]:
        """Return where weights of this run come from, for `predictor.toml`.

        What the recipe states is taken where it says of which data it speaks, by naming the run's
        folder (`dataset`): a recipe is often used again for other data.
        """
        named = recipe.provenance.get("dataset")
        mine = named is not None and named in {each.name for each in self.folders}
        stated = recipe.provenance if mine else {}
        own: dict[str, Any] = {
            "data": list(stated.get("data") or self.data),
            "licence": stated.get("licence") or self.licence,
            "command": self.command,
            "cases": {each.name: len(each.training) for each in self.folders},
            "flarekit": self.flarekit,
            "torch": self.torch,
        }
        return {**stated, **own}


def begin_record(
    run_dir: Path,
    recipe: Recipe,
    folders: Sequence[LabelledFolder],
    others: Mapping[str, int],
    command: str,
) -> RunRecord:
    """Write what a run is made of, or compare it with what it began with; its folder may be new.

    `others` has how many cases there are beside the labelled ones, by what they are.

    Raises:
        InputError: the run began with other cases.
        OutputError: it cannot be written.
    """
    import torch

    record = RunRecord(
        command=command,
        folders=tuple(folders),
        others=dict(others),
        held_out=recipe.training.held_out,
        flarekit=VERSION,
        torch=torch.__version__,
    )
    before = read_record(run_dir)
    if before is not None and (run_dir / CHECKPOINT).is_file():
        _check_same_cases(before, record, run_dir / _FILE)
    make_folder(run_dir)
    content = json.dumps(record.model_dump(mode="json"), indent=2) + "\n"
    write_atomically(run_dir / _FILE, content.encode())
    return record


def read_record(run_dir: Path) -> RunRecord | None:
    """Return what a run was made of; None where its folder does not say.

    Raises:
        InputError: the file is damaged.
    """
    path = run_dir / _FILE
    return typed(RunRecord, read_json(path), source=path) if path.is_file() else None


def _check_same_cases(before: RunRecord, now: RunRecord, path: Path) -> None:
    then, today = _cases(before), _cases(now)
    if then == today and before.others == now.others:
        return
    changes = [f"+ {name}" for name in sorted(today - then)]
    changes += [f"- {name}" for name in sorted(then - today)]
    changes += [
        f"{what}: {before.others.get(what, 0)} then, {now.others.get(what, 0)} now"
        for what in {**before.others, **now.others}
        if before.others.get(what) != now.others.get(what)
    ]
    more = f", and {len(changes) - _MOST_NAMED} more" if len(changes) > _MOST_NAMED else ""
    raise InputError(
        f"{path}: the run began with other cases: {', '.join(changes[:_MOST_NAMED])}{more}",
        fix="train in another folder, or give the data that it began with",
    )


def _cases(record: RunRecord) -> set[str]:
    return {
        f"{folder.name}/{case_id} ({use})"
        for folder in record.folders
        for use in ("training", "validation")
        for case_id in getattr(folder, use)
    }
