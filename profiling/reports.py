"""Make the efficiency reports of our own predictors again.

    python profiling/reports.py [PREDICTOR...] [--scans FOLDER] [--phantoms 1 2 3] [--image TAG]

Every predictor that reads FLARE's layout (all of them by default) runs over FOLDER's *_0000.nii.gz,
or over phantoms, one case and one process at a time, as the organisers do; with --image in a
container of that image, else on the bare machine. The reports go to reports/PREDICTOR/ beside this
file, or reports/PREDICTOR_container/. --quick takes one phantom.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from measured import parsed, parser_of

from flarekit.core.spec import PredictorFolder
from flarekit.phantom import save_phantom
from flarekit.profiler.case_folders import CaseFolders, find_scans
from flarekit.profiler.command import CommandTarget
from flarekit.profiler.environment import environment
from flarekit.profiler.folder import ReportFolder, draw, new_report
from flarekit.profiler.loop import WatchOptions, profile_scans
from flarekit.profiler.records import ProfiledCase, Tolerances
from flarekit.segmentation.predictors import find_predictor, predictor_folders

PROGRAM = str(Path(sys.executable).parent / "flarekit")


def predict_line(predictor: PredictorFolder, work: CaseFolders) -> list[str]:
    inputs, outputs, record = map(str, (work.inputs, work.outputs, work.record))
    folders = ["--input", inputs, "--output", outputs, "--report", record]
    return [PROGRAM, "predict", "--predictor", str(predictor.folder), *folders]


def report_on_machine(
    predictor: PredictorFolder, scans: Path, masks: Path, gpu: str, output: Path
) -> bool:
    name = predictor.spec.name
    folder = ReportFolder(output / "reports" / name, name)
    folder.make()
    line = ("flarekit", "predict", "--predictor", name)
    report = new_report(name, "command", line, Tolerances(), environment(gpu))

    def make(work: CaseFolders, log: Path) -> CommandTarget:
        return CommandTarget(predict_line(predictor, work), log)

    def say(case: ProfiledCase) -> None:
        print(f"{name}, {case.name}: {case.official.time_s:.2f} s {'; '.join(case.failures)}")

    options = WatchOptions(gpu=gpu, timeout_s=1800)
    report = profile_scans(find_scans(scans), make, masks, folder, report, options, say)
    draw(report, folder)
    print(folder.root / "efficiency.html")
    return not report.failed


def report_in_container(image: str, name: str, scans: Path, masks: Path, output: Path) -> bool:
    folder = output / "reports" / f"{name}_container"
    line = [PROGRAM, "profile", "docker", image, "--stages", "--input", str(scans)]
    done = subprocess.run([*line, "--output", str(masks), "--report", str(folder)], check=False)
    return done.returncode == 0


def predictors_of(names: list[str]) -> list[PredictorFolder]:
    chosen = names or [path.name for path in predictor_folders()]
    found = [find_predictor(name) for name in chosen]
    for predictor in found:
        if predictor.spec.convention != "flare":
            print(f"{predictor.spec.name}: left out, it reads {predictor.spec.convention}'s layout")
    return [predictor for predictor in found if predictor.spec.convention == "flare"]


@contextmanager
def phantoms(seeds: list[int]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        for seed in seeds:
            scan = Path(scratch) / f"phantom_{seed}_0000.nii.gz"
            save_phantom(seed, scan=scan, labels=Path(scratch) / "truth")
            (Path(scratch) / "truth").unlink()
        yield Path(scratch)


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("predictors", nargs="*")
    parser.add_argument("--scans", type=Path)
    parser.add_argument("--phantoms", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--image")
    parser.add_argument("--gpu", default="0")
    arguments = parsed(parser, line)
    seeds = arguments.phantoms[:1] if arguments.quick else arguments.phantoms
    whole, output = True, arguments.output
    with phantoms([] if arguments.scans else seeds) as made:
        scans = arguments.scans or made
        for predictor in predictors_of(arguments.predictors):
            with tempfile.TemporaryDirectory() as masks:
                if arguments.image is not None:
                    name = predictor.spec.name
                    whole &= report_in_container(arguments.image, name, scans, Path(masks), output)
                else:
                    whole &= report_on_machine(predictor, scans, Path(masks), arguments.gpu, output)
    raise SystemExit(0 if whole else 1)


if __name__ == "__main__":
    main()
