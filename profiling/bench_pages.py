"""What pages of 2 MiB save: whole runs on a CT with them and without, in turns.

    python profiling/bench_pages.py SCAN [--predictor abdomen_ct] [--rounds 5]
    python profiling/bench_pages.py SCAN --quick --output FOLDER

Medians of wall and processor seconds go to pages_cpu.json beside this file. Without means that the
engine does not ask for them (`flarekit.engine._huge_pages`); where the system gives them to every
process, or to none, both are the same.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from measured import machine, parsed, parser_of, run, write

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
CODE = """
import sys
from flarekit.cli.main import main
from flarekit.engine import openvino
if not int(sys.argv.pop(1)):
    openvino.ask_for_huge_pages = lambda: None
sys.exit(main())
"""
MODES = {
    "fast": (),
    "exact": ("--mode", "exact"),
    "exact, fp32": ("--mode", "exact", "--precision", "fp32"),
}


def measure(scan: Path, predictor: str, extra: Sequence[str], rounds: int) -> dict[str, object]:
    rows: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs"
        inputs.mkdir()
        (inputs / scan.name).symlink_to(scan.resolve())
        options = ["-i", inputs, "-p", predictor, "--time-budget", "0", "--device", "cpu"]
        for turn in range(2 * rounds + 2):  # the first two fill caches
            asks = bool(turn % 2)
            outputs = ["-o", Path(scratch) / str(turn)]
            row = run(
                [sys.executable, "-c", CODE, int(asks), "predict", *options, *outputs, *extra]
            )
            if turn > 1:
                rows[asks].append(row)
    result: dict[str, object] = {}
    for asks, name in ((False, "4 KiB"), (True, "2 MiB")):
        columns = ("wall_s", "cpu_s", "peak_rss_mib")
        result[name] = {each: round(median(row[each] for row in rows[asks]), 3) for each in columns}
    return result


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--predictor", default="abdomen_ct")
    parser.add_argument("--rounds", type=int, default=5)
    told = parsed(parser, line)
    modes = dict(list(MODES.items())[:1]) if told.quick else MODES
    rounds = 1 if told.quick else told.rounds
    setting = SETTING.read_text(encoding="ascii").strip() if SETTING.is_file() else None
    runs = {name: measure(told.scan, told.predictor, each, rounds) for name, each in modes.items()}
    write(
        told.output / "pages_cpu.json",
        machine() | {"system": setting, "predictor": told.predictor, "runs": runs},
    )


if __name__ == "__main__":
    main()
