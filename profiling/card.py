"""Write the measured part of a predictor's card from what profiling/accuracy.py measured.

    python profiling/card.py abdomen_ct

Everything between the two `measured` marks of CARD.md is replaced; the rest is written by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from flarekit.core.spec import PredictorSpec
from flarekit.pipeline.predictors import find_predictor

HERE = Path(__file__).parent
BEGIN, END = "<!-- measured: profiling/card.py -->", "<!-- /measured -->"
SOURCES = (("scans", "held-out scans"), ("phantoms", "unseen phantoms"))


def main(name: str) -> None:
    predictor = find_predictor(name)
    spec = predictor.spec
    results = {
        kind: json.loads((HERE / f"accuracy_{name}_{kind}.json").read_text()) for kind, _ in SOURCES
    }
    for kind, result in results.items():
        if result["sha256"] != spec.weights.sha256:
            raise SystemExit(f"{kind}: measured on other weights; run profiling/accuracy.py again")
    text = predictor.card.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    predictor.card.write_text(f"{before}{BEGIN}\n{measured(spec, results)}\n{END}{after}")


def measured(spec: PredictorSpec, results: dict[str, Any]) -> str:
    lines = [
        f"- File: `{spec.weights.file}`, SHA-256 `{spec.weights.sha256}`, "
        f"{spec.weights.parameters:,} parameters.",
        f"- Training: {spec.provenance['steps']:,} steps in {spec.provenance['minutes']} minutes.",
        "",
        "| Dice | "
        + " | ".join(f"{len(results[k]['cases'])} {title}" for k, title in SOURCES)
        + " |",
        "|---|" + "---|" * len(SOURCES),
    ]
    for label in ["mean", *spec.labels]:
        cells = []
        for kind, _ in SOURCES:
            result = results[kind]
            value = result["mean"] if label == "mean" else result["labels"].get(label)
            cells.append("not labelled" if value is None else f"{value:.3f}")
        lines.append(f"| {label.replace('_', ' ')} | " + " | ".join(cells) + " |")
    first = results["scans"]
    lines += [
        "",
        f"Measured on {first['device']} in {first['precision']}; the mean is over the labels "
        "listed for that column.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1])
