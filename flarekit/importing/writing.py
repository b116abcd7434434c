"""What is said of a checkpoint at the start of an import; weights, facts and card at its end."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flarekit import models
from flarekit.core.apart import keep_apart, keep_below, keep_files
from flarekit.core.files import files_together, write_atomically
from flarekit.core.spec import parse_spec, write_spec

if TYPE_CHECKING:
    from torch import nn

_NO_WEIGHTS_YET = {"sha256": "0" * 64, "parameters": 1}
_HEAD = "Made by `flarekit weights import`."


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What a person says about a checkpoint that it does not say itself.

    Attributes:
        name: of the predictor.
        convention: its default convention.
        folds: which folds of an nnU-Net result make the ensemble; all that are there where None.
        checkpoint: file name inside a fold.
    """

    name: str
    convention: str = "flare"
    folds: tuple[str, ...] | None = None
    checkpoint: str = "checkpoint_final.pth"


def preparation(name: str) -> dict[str, Any]:
    """Return what a table of this folder says of how a network takes a scan."""
    path = Path(__file__).with_name(f"{name}.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def write_predictor(
    folder: Path, facts: Mapping[str, Any], networks: Sequence[nn.Module], *, source: Path
) -> None:
    """Write weights (float32), `predictor.toml`, and a card with what is still to be said.

    Args:
        folder: to make.
        facts: without the weights.
        networks: one, or the members of an ensemble.
        source: where the weights come from.

    Raises:
        PredictorError: the facts do not hold together; nothing is written then.
        UsageError: a file of the source would be replaced; nothing is written then.
        OutputError: it could not be written; what was in the folder is as it was.
    """
    import torch

    parse_spec({**facts, "weights": _NO_WEIGHTS_YET}, source=f"{source}, as a predictor")
    names = [f"model_{k}.safetensors" if k else "model.safetensors" for k in range(len(networks))]
    written = [folder / name for name in (*names, "predictor.toml")]
    if source.is_dir():
        keep_apart(source, folder, [], what="the folder of the weights to import")
        keep_below(source, written, what="the folder of the weights to import")
    keep_files([source], written)
    with files_together(folder, last="predictor.toml") as made:
        weights = [
            models.save_weights(network, made / name, dtype=torch.float32)
            for network, name in zip(networks, names, strict=True)
        ]
        whole = {**facts, "weights": weights[0]}
        if len(weights) > 1:
            whole["ensemble"] = weights[1:]
        write_spec(made, whole, head=_HEAD)
        if not (folder / "CARD.md").exists():
            write_atomically(made / "CARD.md", _card(facts, weights, source).encode())


def _card(facts: Mapping[str, Any], weights: Sequence[Mapping[str, Any]], source: Path) -> str:
    files = "\n".join(
        f"- `{each['file']}`: {each['parameters']:,} parameters, SHA-256 `{each['sha256']}`"
        for each in weights
    )
    return f"""# {facts["name"]}

{facts["title"]}

- Architecture: `{facts["architecture"]["name"]}`
- Imported from: `{source.name}`
{files}

Not yet said: training data and its licence, how it was trained, measured accuracy on cases it never
saw, and what it cannot do.
"""
