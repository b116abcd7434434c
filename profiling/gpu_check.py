"""Whether the package works on a GPU, how fast and how lean: one run of a few minutes.

    python profiling/gpu_check.py [--minutes 6] [--device cuda] [--out DIR] [--steps NAME ...]
    python profiling/gpu_check.py pack [--to gpu_pack] [--max-mib 60] [--scans FOLDER]

The machine needs no network and no Docker: torch, Triton, NumPy, SciPy, psutil, nvidia-ml-py,
safetensors, pytest and hypothesis are expected there; `pack` collects what else the package needs,
the weights of the named predictors and two real CTs, and the check unpacks what it finds in
gpu_pack/. A predictor without weights runs with random ones, for timing only, and is marked so;
one for MR runs over volumes of interest of CTs, whose size it shares.

DIR/gpu_check.json has everything and is written again as results come; DIR/reports.tar.gz holds the
efficiency reports. The last lines are a short table.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gpu import pack, table
from gpu.supervise import Settings, Step, Supervisor

FORMAT = "flarekit gpu check 1"
# in the order of their worth; seconds are the most that a check of four minutes gives to each
STEPS = (
    Step(name="facts", most_s=25),
    Step(name="inputs", most_s=120, background=True),
    Step(name="gpu_tests", most_s=40),
    Step(name="untrained", most_s=20),
    Step(name="scans", most_s=35),
    Step(
        name="scans_without_compiler",
        most_s=30,
        without_compiler=True,
        module="scans",
        arguments=("first",),
    ),
    Step(name="tiles", most_s=40),
    Step(name="cases", most_s=150, arguments=("three",)),
    Step(name="precisions", most_s=40),
    Step(name="memory", most_s=25),
    Step(name="trace", most_s=25),
    Step(name="cases_eight", most_s=60, module="cases", arguments=("eight",)),
    Step(name="networks", most_s=25, arguments=("patches",)),
    Step(name="paper_sizes", most_s=60, module="networks", arguments=("sizes",)),
)
# in a quick check: an organiser's CT, and a network with a selective scan on a PET/CT
QUICK = ("abdomen_ct", "att_umamba_petct")
NEED_INPUTS = ("precisions", "tiles", "cases", "memory", "trace", "cases_eight", "paper_sizes")


def main(argv: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["pack"]:
        make_pack(given[1:])
    else:
        check(given)


def make_pack(argv: Sequence[str]) -> None:
    parser = _parser("Collect what such a machine lacks.")
    parser.add_argument("--to", type=Path, default=pack.ROOT / "gpu_pack", help="folder to make")
    parser.add_argument("--max-mib", type=float, default=60, help="what it may weigh")
    parser.add_argument("--scans", type=Path, help="its first two *_0000.nii.gz go along")
    parser.add_argument("--python", default="3.12", help="version there")
    parser.add_argument("--predictors", nargs="*", default=list(pack.PREDICTORS))
    told = parser.parse_args(argv)
    made = pack.make_pack(
        told.to,
        max_mib=told.max_mib,
        predictors=told.predictors,
        scans=told.scans,
        python=told.python,
    )
    for name, mib in made.mib.items():
        print(f"{mib:8.2f} MiB  {name}")
    print(f"{made.total_mib:8.2f} MiB in {told.to}; left out: {', '.join(made.left_out) or 'none'}")


def check(argv: Sequence[str]) -> None:
    began = time.time()
    parser = _parser(__doc__ or "")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes: does all of it run?")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_check"), help="for the results")
    parser.add_argument("--pack", type=Path, default=pack.ROOT / "gpu_pack")
    parser.add_argument("--predictors", nargs="+", help="all that are shipped; two where --quick")
    parser.add_argument("--steps", nargs="+", choices=[step.name for step in STEPS])
    told = parser.parse_args(argv)
    told.predictors = told.predictors or list(QUICK if told.quick else pack.PREDICTORS)
    told.out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="gpu_check_"))
    try:
        packed = pack.unpack(told.pack, work)
        result = run_steps(told, work, packed, told.minutes * 60 - (time.time() - began))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"--- {told.out / 'gpu_check.json'}, {result['seconds']} s")
    print("\n".join(table.lines(result)))


def run_steps(
    told: argparse.Namespace, work: Path, packed: Sequence[str], seconds: float
) -> dict[str, object]:
    """Run the steps that are asked for."""
    here = [name for name in told.predictors if _has_weights(name) or name in packed]
    settings = Settings(
        device=told.device,
        quick=told.quick,
        work=str(work),
        out=str(told.out.resolve()),
        predictors=tuple(told.predictors),
        untrained=tuple(name for name in told.predictors if name not in here),
    )
    facts = {
        "format": FORMAT,
        "command": ["gpu_check.py", *sys.argv[1:]],
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "quick": told.quick,
        "packed": list(packed),
        "untrained": list(settings.untrained),
    }
    supervisor = Supervisor(
        settings,
        told.out / "gpu_check.json",
        environment=_environment(work),
        seconds=seconds,
        facts=facts,
        say=lambda line: print(line, flush=True),
    )
    return supervisor.run(chosen_steps(told.steps, untrained=bool(settings.untrained)))


def chosen_steps(names: Sequence[str] | None, *, untrained: bool) -> list[Step]:
    """Return the steps to run, with those that they need."""
    wanted = set(names or (step.name for step in STEPS))
    if wanted & set(NEED_INPUTS):
        wanted.add("inputs")
    wanted = wanted | {"untrained"} if untrained else wanted - {"untrained"}
    return [replace(step) for step in STEPS if step.name in wanted]


def _has_weights(name: str) -> bool:
    return (pack.ROOT / "weights" / name / "model.safetensors").is_file()


def _environment(work: Path) -> dict[str, str]:
    """Return the steps' environment: packed things go before what the machine has."""
    weights = work / "weights"
    weights.mkdir(exist_ok=True)
    parts = [str(work / "site"), str(pack.ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(part for part in parts if part),
        "FLAREKIT_WEIGHTS": str(weights),
        "FLAREKIT_CACHE": str(work / "cache"),
        "TRITON_CACHE_DIR": str(work / "triton"),
    }


def _parser(description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )


if __name__ == "__main__":
    main()
