"""The text of a first recipe: TOML with a word on where each number comes from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flarekit.training.proposal import Fit


@dataclass(kw_only=True)
class Channel:
    """Intensities of one channel."""

    name: str
    labelled: list[np.ndarray[Any, np.dtype[np.float32]]] = field(default_factory=list)
    lowest: list[float] = field(default_factory=list)


def recipe_text(
    *,
    dataset: str,
    name: str,
    title: str,
    convention: str,
    labels: Mapping[str, int],
    channels: Sequence[Channel],
    fit: Fit,
    validation: Sequence[str],
    count: int,
    case_grid: str,
    licence: str,
    on_gpu: bool,
    empty: Sequence[str],
) -> str:
    """Return the text of `recipe.toml` from what it is made of."""
    arguments = fit.topology.arguments(len(channels), len(labels) + 1)
    is_ct = len(channels) == 1 and _is_ct(channels[0])
    crop = [
        "",
        "[predictor.crop]  # the body: the largest thing brighter than this",
        "threshold = -110",
    ]
    empty = f"  # no case has {', '.join(empty)}" if empty else ""
    gpu = "a GPU" if on_gpu else "this processor"
    trained_on = count - len(validation)
    lines = [
        f"# A first recipe for {dataset}, written by flarekit train init: change it freely.",
        "",
        "[predictor]",
        f"name = {_quoted(name)}",
        f"title = {_quoted(title)}",
        f"convention = {_quoted(convention)}",
        "",
        "[predictor.architecture]",
        'name = "nnunet"',
        "",
        "[predictor.architecture.arguments]",
        *(f"{name} = {value}" for name, value in arguments.items()),
        *(line for channel in channels for line in _channel_lines(channel)),
        *(crop if is_ct else []),
        "",
        "[predictor.grid]",
        f"spacing_mm_ZYX = {list(fit.spacing_mm)}  # the scans' median is {list(fit.median_mm)}",
        f"tile_ZYX = {list(fit.tile)}",
        "step = 0.5",
        'decide = "scan"',
        "",
        f"[predictor.labels]{empty}",
        *(f"{_key(name)} = {value}" for name, value in labels.items()),
        "",
        "[training]",
        "held_out = []  # cases for a last test: neither trained on nor looked at",
        f"validation = {_list(validation)}  # measured as training goes on",
        f'case_grid = "{case_grid}"',
        f"tile_ZYX = {list(fit.tile)}",
        f"batch = {fit.batch}  # a step takes about {fit.step_bytes / 2**30:.1f} GiB on {gpu}",
        'regime = "compact"',
        "",
        "[provenance]",
        f"dataset = {_quoted(dataset)}  # what stands below is said of this one",
        f"data = [{_quoted(f'{trained_on} labelled cases of {dataset}')}]",
        f"licence = {_quoted(licence)}",
        'command = "flarekit train compact recipe.toml DATASET RUN_DIR"',
        "",
    ]
    return "\n".join(lines)


def _channel_lines(channel: Channel) -> list[str]:
    return [
        "",
        "[[predictor.channels]]",
        f"name = {_quoted(channel.name)}",
        f"intensity = {_intensity(channel)}",
    ]


def _intensity(channel: Channel) -> str:
    """Return how intensities are normalised: a CT by its labelled voxels (nnU-Net's rule)."""
    kind = channel.name.lower().replace(" ", "").replace("_", "")
    if kind in ("rescaleto01", "rgbto01"):
        return '{ kind = "rescale" }'
    if kind in ("nonorm", "nonormalization"):
        return '{ kind = "scale", divisor = 1.0 }'
    if not _is_ct(channel):
        return '{ kind = "z_score" }'
    voxels = np.concatenate(channel.labelled)
    low, high = (float(value) for value in np.percentile(voxels, (0.5, 99.5)))
    if high - low < 1:
        low, high = low - 1, high + 1
    mean, std = float(voxels.mean()), max(1.0, float(voxels.std()))
    return (
        f'{{ kind = "window", low_hu = {low:.1f}, high_hu = {high:.1f}, mean = {mean:.1f}, '
        f"std = {std:.1f} }}"
    )


def _is_ct(channel: Channel) -> bool:
    return channel.name.upper() == "CT"


def _quoted(text: str) -> str:
    import tomli_w

    return tomli_w.dumps({"x": text}).removeprefix("x = ").strip()


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)


def _list(names: Sequence[str]) -> str:
    return f"[{', '.join(map(_quoted, names))}]"
