"""Measured accuracy in words: what cards and accuracy.md say of the results of accuracy.py."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accuracy_bodies import LOOKED_AT

from flarekit.core.errors import InputError
from flarekit.core.files import write_atomically

SPLITS = {
    "flare": ("scans", "phantoms"),
    "autopet": ("scans", "wholebody"),
    "uls23": ("lesions",),
}
MORE_SPLITS = {"flare": ("altered",)}  # that a card shows where they were measured
_ORDER = ("scans", "scans_exact", "altered", "lesions", "lesions_exact", "wholebody", "phantoms")
_TITLES = {
    "scans": "held-out scans",
    "scans_exact": "held-out scans, `exact`",
    "altered": "held-out scans, altered as in disease",
    "lesions": "lesions",
    "lesions_exact": "lesions, `exact`",
    "wholebody": "synthetic whole bodies",
    "phantoms": "unseen phantoms",
}
_LESION_HEADER = ["DSC", "false positive ml", "missed ml", "lesions found / of"]
Result = Mapping[str, Any]
Results = Mapping[str, Result]


def result_path(folder: Path, name: str, split: str, profile: str = "fast") -> Path:
    """Return where a result is written."""
    suffix = "" if profile == "fast" else f"_{profile}"
    return folder / f"accuracy_{name}_{split}{suffix}.json"


def read_results(folder: Path) -> dict[str, dict[str, Result]]:
    """Return predictor -> split (with `_exact`) -> result, of every file in a folder.

    Raises:
        InputError: a result lacks what the tables say.
    """
    found: dict[str, dict[str, Result]] = {}
    for path in sorted(folder.glob("accuracy_*.json")):
        result = json.loads(path.read_text())
        if "command" not in result:
            raise InputError(f"{path}: is of an older script", fix="measure it again, or remove it")
        name = result["predictor"]
        found.setdefault(name, {})[path.stem.removeprefix(f"accuracy_{name}_")] = result
    return {
        name: dict(sorted(results.items(), key=lambda entry: _place(entry[0])))
        for name, results in found.items()
    }


def write_table(folder: Path) -> Path:
    """Write accuracy.md from the results beside it and return its path.

    Raises:
        OutputError: it could not be written.
    """
    path = folder / "accuracy.md"
    write_atomically(path, table_text(read_results(folder)).encode())
    return path


def table_text(everything: Mapping[str, Results]) -> str:
    """Return accuracy.md."""
    rows = [
        [name, f"{len(result['cases'])} {_TITLES[split]}", *_summary(result)]
        for name, results in everything.items()
        for split, result in results.items()
    ]
    lines = [
        "# Accuracy",
        "",
        "Written by `python profiling/accuracy.py --table` from the JSON files beside it, which",
        "hold every case and figure. Held-out cases come from the training cases' own sources.",
        "DSC: Dice of whole volumes, mean over labels of means over cases; NSD: surface Dice by",
        "FLARE's rules and tolerances (2 mm for lesions). The organisers' own figures, slice rules",
        "included, are in the JSON under their names.",
        "",
        *markdown(["predictor", "cases", "DSC", "NSD", ""], rows),
    ]
    for name, results in everything.items():
        lines += ["", f"## {name}", "", *commands(results), "", *tables(results)]
        lines += pictures_of(results, "")
    return "\n".join(lines) + "\n"


def commands(results: Results) -> list[str]:
    """Return what was run, and on what, as a block."""
    ran = dict.fromkeys(
        f"{result['device']} ({result['device_name']}), {result['engine']}, {result['precision']}"
        for result in results.values()
    )
    lines = ["```", *(str(result["command"]) for result in results.values()), "```", ""]
    return [*lines, f"Measured on {'; '.join(ran)}."]


def tables(results: Results) -> list[str]:
    """Return the figures of one predictor as Markdown."""
    organs = {split: each for split, each in results.items() if "flare" in each}
    lines = _organ_table(organs) if organs else []
    for split, result in results.items():
        rows = None
        if split == "wholebody":
            rows = _body_table(result)
        elif "autopet" in result:
            rows = _petct_table(result)
        elif "uls23" in result:
            rows = _voi_table(result)
        if rows:
            lines += ["", *rows] if lines else rows
    return lines


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _place(split: str) -> tuple[int, str]:
    return (_ORDER.index(split) if split in _ORDER else len(_ORDER)), split


def _summary(result: Result) -> list[str]:
    note = ""
    if "false_positives_ml" in result:
        largest = result["false_positives_ml"]["largest"]
        note = "largest false positive: " + ", ".join(
            f"{name} {_ml(largest[name])} ml" for name in LOOKED_AT
        )
    elif "groups" in result:
        note = "DSC " + ", ".join(f"{_text(v)} {name}" for name, v in result["groups"].items())
    mean = result.get("autopet", {}).get("overall", {}).get("dice", result["mean"])  # as below it
    return [_text(mean), _text(result.get("nsd", {}).get("mean")), note]


def _organ_table(results: Results) -> list[str]:
    header = ["label"]
    for split, result in results.items():
        header += [f"DSC, {len(result['cases'])} {_TITLES[split]}", "worst", "NSD"]
    labels = dict.fromkeys(label for result in results.values() for label in result["labels"])
    rows = []
    for label in ("mean", *labels):
        row = [label.replace("_", " ")]
        for result in results.values():
            row += _organ_cells(result, label)
        rows.append(row)
    return markdown(header, rows)


def _organ_cells(result: Result, label: str) -> list[str]:
    nsd = result["nsd"]
    if label == "mean":
        worst = min(sum(scores.values()) / len(scores) for scores in result["cases"].values())
        return [_text(result["mean"]), _text(worst), _text(nsd["mean"])]
    if label not in result["labels"]:
        return ["not labelled", "", ""]
    worst = min(scores[label] for scores in result["cases"].values())
    return [_text(result["labels"][label]), _text(worst), _text(nsd["labels"][label])]


def _petct_table(result: Result) -> list[str]:
    header = ["PET/CT", *_LESION_HEADER, "NSD"]
    nsd = result["nsd"]
    rows = [
        [case, *_lesion_cells(figures), _text(nsd["cases"][case][label])]
        for case, scores in result["autopet"]["cases"].items()
        for label, figures in scores.items()
    ]
    overall = result["autopet"]["overall"]
    rows.append(["mean, sum", *_lesion_cells(overall, "lesions_"), _text(nsd["mean"])])
    return markdown(header, rows)


def _body_table(result: Result) -> list[str]:
    false = result["false_positives_ml"]
    header = ["synthetic body", *_LESION_HEADER]
    header += [f"largest false positive, {name}, ml" for name in LOOKED_AT]
    rows = [
        [case, *_lesion_cells(figures), *_organ_ml(false["cases"][case])]
        for case, scores in result["autopet"]["cases"].items()
        for figures in scores.values()
    ]
    overall = result["autopet"]["overall"]
    summary = ["mean, sum, largest", *_lesion_cells(overall, "lesions_")]
    return markdown(header, [*rows, [*summary, *_organ_ml(false["largest"])]])


def _lesion_cells(figures: Mapping[str, float], prefix: str = "") -> list[str]:
    found, missed = figures[f"{prefix}found"], figures[f"{prefix}missed"]
    volumes = [_ml(figures["fpv_ml"]), _ml(figures["fnv_ml"])]
    return [_text(figures["dice"]), *volumes, f"{found:.0f} / {found + missed:.0f}"]


def _organ_ml(volumes_ml: Mapping[str, float]) -> list[str]:
    return [_ml(volumes_ml[name]) for name in LOOKED_AT]


def _voi_table(result: Result) -> list[str]:
    header = ["lesion", "DSC", "NSD", "long axis error", "short axis error"]
    rows = []
    for case, scores in result["uls23"]["cases"].items():
        ((label, figures),) = scores.items()
        rows.append([
            case, _text(figures["dice"]), _text(result["nsd"]["cases"][case][label]),
            _text(figures["long_axis_error"]), _text(figures["short_axis_error"]),
        ])  # fmt: skip
    overall = result["uls23"]["overall"]
    rows.append([
        "mean", _text(overall["dice"]), _text(result["nsd"]["mean"]),
        _text(overall["long_axis_error"]), _text(overall["short_axis_error"]),
    ])  # fmt: skip
    score = overall["score_without_consistency"]
    note = f"ULS23's score without its consistency term: {_text(score)}."
    return [*markdown(header, rows), "", note]


def pictures_of(results: Results, base: str) -> list[str]:
    """Return links to the worst cases; `base` leads to this folder."""
    lines = []
    for split, result in results.items():
        if "worst" in result:
            case, picture = result["worst"]["case"], result["worst"]["picture"]
            text = f"The worst of the {_TITLES[split]}: {case}"
            lines += ["", f"![{text}]({base}{picture})", "", f"*{text}.*"]
    return lines


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _ml(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
