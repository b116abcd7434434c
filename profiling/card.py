"""Write the measured part of a predictor's card from what profiling/accuracy.py measured.

    python profiling/card.py abdomen_ct

Everything between the two `measured` marks of CARD.md is replaced; the rest is written by hand.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from accuracy_table import SPLITS, Results, commands, pictures_of, read_results, tables
from measured import bare_parser

from flarekit.core.files import write_atomically
from flarekit.core.spec import PredictorFolder
from flarekit.segmentation.predictors import find_predictor

HERE = Path(__file__).parent
BEGIN, END = "<!-- measured: profiling/card.py -->", "<!-- /measured -->"
_PICTURES = "../../profiling/"  # from weights/NAME
_MINUTES = 0.02  # what a run may take longer than it was told


def main() -> None:
    parser = bare_parser(__doc__)
    parser.add_argument("predictor")
    parser.add_argument("--predictor-folder", type=Path, help="where it lies, if not in weights/")
    parser.add_argument("--results", type=Path, default=HERE, help="folder of the JSON files")
    arguments = parser.parse_args()
    predictor = find_predictor(str(arguments.predictor_folder or arguments.predictor))
    results = read_results(arguments.results).get(arguments.predictor, {})
    check(predictor, results)
    if not predictor.card.is_file():
        raise SystemExit(
            f"{predictor.card}: is not there; write what no script can measure, see abdomen_ct's"
        )
    text = with_measured(predictor.card.read_text(), measured(predictor, results))
    write_atomically(predictor.card, text.encode())
    print(predictor.card)


def check(predictor: PredictorFolder, results: Results) -> None:
    """Stop where a card would say what is not so."""
    spec = predictor.spec
    for split in SPLITS[spec.convention]:
        if split not in results:
            raise SystemExit(f"{spec.name}: not measured on {split}; run profiling/accuracy.py")
    for split, result in results.items():
        if result["sha256"] != spec.weights.sha256:
            raise SystemExit(f"{split}: measured on other weights; run profiling/accuracy.py again")
    stated = re.search(r"--minutes ([\d.]+)", spec.provenance["command"])
    minutes = spec.provenance["minutes"]
    if stated is None or abs(float(stated[1]) - minutes) > max(1.0, _MINUTES * minutes):
        raise SystemExit(
            f"{spec.name}: took {minutes} minutes, which is not what its command says "
            f"({spec.provenance['command']}); correct [provenance] of the recipe, then "
            "`flarekit train export RUN_DIR FOLDER --recipe RECIPE`"
        )


def with_measured(card: str, lines: list[str]) -> str:
    """Return a card with other lines between its marks."""
    if card.count(BEGIN) != 1 or card.count(END) != 1:
        raise SystemExit(f"the card must have the marks {BEGIN} and {END}, once each")
    before, rest = card.split(BEGIN)
    after = rest.split(END)[1]
    return "\n".join([before + BEGIN, *lines, END + after])


def measured(predictor: PredictorFolder, results: Results) -> list[str]:
    """Return what stands between the marks."""
    spec = predictor.spec
    made, weights = spec.provenance, spec.weights
    size_mb = (predictor.folder / weights.file).stat().st_size / 1e6
    return [
        f"- File: `{weights.file}`, {size_mb:.1f} MB, SHA-256 `{weights.sha256}`, "
        f"{weights.parameters:,} parameters as {made['stored_as']}.",
        f"- Training: {made['steps']:,} steps in {made['minutes']} minutes{_start(made)}.",
        f"- Command: `{made['command']}`, then `flarekit train export RUN_DIR FOLDER`.",
        "",
        *commands(results),
        "",
        *tables(results),
        *pictures_of(results, _PICTURES),
    ]


def _start(made: dict[str, Any]) -> str:
    start = made.get("start_sha256")
    return f" from weights of SHA-256 `{start}`" if start else ""


if __name__ == "__main__":
    main()
