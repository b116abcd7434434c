"""What a cohort's driver costs, how workers that sleep scale, and cases per hour beside `predict`.

`driver`: jobs that end at once, in this process; each has a line in the ledger and 13 rows of
statistics. `scaling`: nodes simulated on this machine (one worker each) whose cases only sleep, so
that nothing is claimed of computation; the time counts from when all workers are ready.
`throughput`: SCANS, a folder in FLARE's layout, by one `predict` and by `cohort run` with a worker
per core, both with the same number of threads in all; Ray's start is stated apart.

    python profiling/bench_cohort.py                                  # driver, scaling
    python profiling/bench_cohort.py --scans FOLDER --predictor NAME  # throughput

--quick takes a few jobs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from measured import parsed, parser_of, write

from flarekit.cohort.driver import Driver
from flarekit.cohort.jobs import Job, Outcome
from flarekit.core.records import CaseRecord, LabelStatistics
from flarekit.segmentation.memory import resident_mib
from flarekit.segmentation.report import Report

LABELS = [f"organ_{k}" for k in range(13)]
SLEEP_S = 0.5
CASES_PER_NODE = 24


def record_of(case_id: str) -> CaseRecord:
    """Return a record as a case of 13 labels has it."""
    statistics = tuple(
        LabelStatistics(
            label=name,
            value=k + 1,
            voxels=1000,
            volume_ml=12.5,
            intensities={"CT": (50.0, 20.0)},
            components=1,
            first_voxel_xyz=(1, 2, 3),
            last_voxel_xyz=(40, 50, 60),
            centroid_mm_ras=(1.5, 2.5, 3.5),
        )
        for k, name in enumerate(LABELS)
    )
    stages = ("read", "prepare", "plan", "tiles", "restore", "rules", "write", "statistics")
    return CaseRecord(
        case_id=case_id,
        mask=Path(f"/masks/{case_id}.nii.gz"),
        seconds=dict.fromkeys(stages, 0.25),
        wall_s=4.0,
        volumes_ml=dict.fromkeys(LABELS, 12.5),
        statistics=statistics,
        input_sha256="0" * 64,
        mask_sha256="0" * 64,
    )


class AtOnce:
    """A pool whose jobs have ended when they are asked for."""

    def __init__(self, workers: int) -> None:
        self._workers, self._running = workers, deque[Job]()

    def free(self) -> int:
        """Return how many workers wait."""
        return self._workers - len(self._running)

    def busy(self) -> int:
        """Return how many jobs run."""
        return len(self._running)

    def give(self, job: Job) -> None:
        """Take a job."""
        self._running.append(job)

    def take(self, timeout_s: float) -> list[Outcome]:  # noqa: ARG002 - nothing is waited for
        """End the oldest job."""
        job = self._running.popleft()
        return [Outcome(job=job, records=[record_of(case_id) for case_id in job.case_ids])]


def driver_cost(counts: Sequence[int]) -> list[dict[str, float]]:
    """Return milliseconds per case, and how memory grows over the second half of the cases."""
    rows = []
    for count in counts:
        stamp = {"predictor_sha256": "0" * 64, "settings": {"mode": "fast"}}
        with ExitStack() as held:
            folder = held.enter_context(tempfile.TemporaryDirectory())
            report = Report(Path(folder), pictures=False)
            held.enter_context(report.begun(stamp))
            seen: list[float] = []
            ended = [0]

            def end(
                record: CaseRecord,
                report: Report = report,
                ended: list[int] = ended,
                seen: list[float] = seen,
                half: int = count // 2,
            ) -> None:
                report.add(record)
                ended[0] += 1
                if ended[0] == half:
                    seen.append(resident_mib())

            driver = Driver(pool=AtOnce(16), retries=2, stand_in=lambda _job, _fault: [], ended=end)
            jobs = [Job((f"case_{index:06d}",), 1.0) for index in range(count)]
            began = time.perf_counter()
            driver.run(jobs)
            spent_s = time.perf_counter() - began
            grown_mib = resident_mib() - seen[0]
        rows.append(
            {
                "cases": count,
                "ms_per_case": round(1000 * spent_s / count, 3),
                "memory_grown_over_second_half_mib": round(grown_mib, 1),
            }
        )
    return rows


@dataclass(frozen=True)
class Sleeping:
    """A runner whose cases take half a second of nothing."""

    seconds: float

    def __call__(self) -> Sleeping:
        """Return itself: it holds nothing."""
        return self

    def start(self) -> None:
        """Be ready."""

    def run(self, job: Job) -> list[CaseRecord]:
        """Sleep."""
        time.sleep(self.seconds)
        return [record_of(case_id) for case_id in job.case_ids]


def scaling(node_counts: Sequence[int], cases_per_node: int) -> list[dict[str, float]]:
    """Return the efficiency of workers that sleep, on simulated nodes with one worker each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    from flarekit.cohort.pool import RayPool, WorkerNeeds

    memory = {"object_store_memory": 80 * 2**20}
    head = {"num_cpus": 0, "include_dashboard": False, **memory}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    rows, nodes = [], 0
    try:
        for count in node_counts:
            while nodes < count:
                cluster.add_node(num_cpus=1, **memory)
                nodes += 1
            began = time.perf_counter()
            pool = RayPool(Sleeping(SLEEP_S), workers=count, needs=WorkerNeeds(cpus=1))
            while pool.free() < count:
                pool.take(1.0)
            starting_s = time.perf_counter() - began
            jobs = [Job((f"case_{index:06d}",)) for index in range(count * cases_per_node)]
            ended: list[str] = []
            driver = Driver(
                pool=pool,
                retries=2,
                stand_in=lambda _job, _fault: [],
                ended=lambda record, ended=ended: ended.append(record.case_id),
            )
            began = time.perf_counter()
            driver.run(jobs)
            spent_s = time.perf_counter() - began
            pool.stop()
            assert len(ended) == len(jobs)
            rows.append(
                {
                    "nodes": count,
                    "cases": len(jobs),
                    "seconds": round(spent_s, 2),
                    "efficiency": round(cases_per_node * SLEEP_S / spent_s, 3),
                    "starting_workers_s": round(starting_s, 1),
                }
            )
    finally:
        ray.shutdown()
        cluster.shutdown()
    return rows


def throughput(scans: Path, predictor: str) -> dict[str, Any]:
    """Return cases per hour of one `predict` and of `cohort run`, over the same folder."""
    cores = len(os.sched_getaffinity(0))
    count = len(list(scans.glob("*_0000.nii.gz")))
    flarekit = Path(sys.executable).parent / "flarekit"
    common = ["-i", str(scans), "-p", predictor, "--device", "cpu"]
    found: dict[str, Any] = {"cases": count, "cores": cores, "predictor": predictor}
    found["load_before"] = round(os.getloadavg()[0], 1)  # other work beside
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"FLAREKIT_STATE": f"{folder}/plain_state"}
        run = partial(subprocess.run, check=True, capture_output=True, text=True)
        began = time.perf_counter()
        run(
            [flarekit, "predict", *common, "-o", f"{folder}/plain"],
            env=environment | {"OMP_NUM_THREADS": str(cores)},
        )
        plain_s = time.perf_counter() - began
        began = time.perf_counter()
        line = [flarekit, "cohort", "run", *common, "-o", f"{folder}/ray", "--workers", str(cores)]
        own = {"OMP_NUM_THREADS": "1", "FLAREKIT_STATE": f"{folder}/state"}
        run(line, env=environment | own)
        ray_s = time.perf_counter() - began
        (record,) = Path(folder, "state").rglob("run.json")
        starting_s = json.loads(record.read_text())["seconds"]["ray"]
    found |= {
        "predict_s": round(plain_s, 1),
        "cohort_run_s": round(ray_s, 1),
        "of_which_ray_s": round(starting_s, 1),
        "cases_per_hour": {
            "predict": round(3600 * count / plain_s),
            "cohort run, without Ray's start": round(3600 * count / (ray_s - starting_s)),
        },
        "ratio_without_ray_s_start": round(plain_s / (ray_s - starting_s), 3),
    }
    return found


def main(line: Sequence[str] | None = None) -> None:
    """Measure, and write into `cohort.json`."""
    parser = parser_of(__doc__)
    parser.add_argument("--scans", type=Path, help="folder, for `throughput` alone")
    parser.add_argument("--predictor", default="mpu_net_liver")
    wanted = parsed(parser, line)
    path = wanted.output / "cohort.json"
    result: dict[str, Any] = {}
    if path.is_file():
        result = json.loads(path.read_text(encoding="utf-8"))
    if wanted.scans is None:
        result["driver"] = driver_cost([100] if wanted.quick else [1000, 10_000, 100_000])
        counts, cases = ([1], 2) if wanted.quick else ([1, 2, 4, 8], CASES_PER_NODE)
        result["scaling"] = scaling(counts, cases)
    else:
        result["throughput"] = throughput(wanted.scans, wanted.predictor)
    write(path, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
