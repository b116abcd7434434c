"""`flarekit cohort`: what several processes or machines do of one cohort of scans."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from flarekit.cli.help import App
from flarekit.cli.options import Budgets, Messages
from flarekit.cli.requests import Prediction, Recording

app = App(help="Segment many scans by several processes or machines.")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What several processes left of one cohort, and where what is made of it goes."""

    places: list[Path]
    output: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder to write to."""
        first = self.places[0]
        return self.output or (first if first.is_dir() else first.parent)


@app.command()
def merge(parts: Parts) -> None:
    """Join the ledgers and tables that shards left into one ledger and one table.

    Where several ledgers have the same case, its newest line counts. The exit code is 1 where cases
    failed, and where a shard is missing or was not run to its end.
    """
    from flarekit.cli.console import Console
    from flarekit.cohort.merge import merge

    console = Console()
    merged = merge(parts.places, parts.folder)
    for sentence in merged.missing:
        console.error(sentence, "run that shard, with --resume, and merge again")
    done = len(merged.lines) - len(merged.failed)
    console.say(
        f"{parts.folder}: {done} of {len(merged.lines)} cases done, {len(merged.failed)} failed"
    )
    for case_id in merged.failed:
        console.say(f"failed: {case_id}: {merged.lines[case_id]['error']}")
    raise typer.Exit(1 if merged.failed or merged.missing else 0)


@app.command()
def report(parts: Parts) -> None:
    """Write report.html of a cohort, and statistics.parquet where pyarrow is installed.

    One page that needs no network: volumes of every label, outliers with their pictures, flagged
    masks, time and memory per case, failures.
    """
    from flarekit.cli.console import Console
    from flarekit.cohort.report import write_report

    console = Console()
    with console.spinner("writing the report"):
        written = write_report(parts.places, parts.folder)
    console.say(f"{written}: written")


def statistics(
    masks: Path, output: Path, scans: Path | None = None, predictor: str | None = None
) -> None:
    """Measure existing masks: statistics.csv, statistics.parquet and report.html.

    The exit code is 1 where a mask could not be measured; each is named.
    """
    from flarekit.cli.console import Console
    from flarekit.cohort.measure import measure_masks
    from flarekit.segmentation.predictors import find_predictor

    console = Console()
    spec = None if predictor is None else find_predictor(predictor).spec
    with console.spinner("measuring masks"):
        measured = measure_masks(masks, scans, output, spec)
    for case_id, fault in measured.faults.items():
        console.error(f"{case_id}: {fault}", None)
    total = len(measured.cases) + len(measured.faults)
    console.say(f"{output}: {len(measured.cases)} of {total} masks measured")
    raise typer.Exit(1 if measured.faults else 0)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Who segments; see `flarekit.cohort.run.CohortRequest`."""

    address: str = "local"
    workers: int | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float | None = None
    retries: int = 2
    case_timeout_s: float | None = None
    memory_per_worker_mib: Any = None


@app.command()
def run(
    inputs: str,
    output_dir: Path,
    predictor: str = "abdomen_ct",
    *,
    prediction: Prediction,
    budgets: Budgets,
    cluster: Cluster,
    recording: Recording,
    messages: Messages,
) -> None:
    """Segment a cohort on a Ray cluster, or by several processes of this machine.

    Each worker loads the predictor once; a case goes to whoever is free, large ones first. A case
    whose worker dies, hangs or runs out of memory is run again elsewhere, and recorded as a failure
    with an empty mask where that happens again and again. Needs the extra `cluster`.
    """
    from flarekit.cli.cohort_run import run_on_cluster
    from flarekit.cli.console import Console
    from flarekit.cohort.run import CohortRequest
    from flarekit.segmentation.folder import Options

    request = CohortRequest(inputs=inputs, output_dir=output_dir, **vars(cluster))
    options, console = Options(**vars(prediction), **vars(budgets)), Console(**vars(messages))
    raise typer.Exit(run_on_cluster(request, predictor, options, recording, console))
