"""Cases and reports made up for tests."""

from __future__ import annotations

import sys
from dataclasses import replace

from flarekit.profiler.figures import measure_all
from flarekit.profiler.folder import excess_of, new_report
from flarekit.profiler.official import figures_of, record_of
from flarekit.profiler.readings import Sample
from flarekit.profiler.records import ProfiledCase, Tolerances

COMMAND = [sys.executable, "-m", "flarekit.cli.main"]  # also where no script is installed


def made_case(name="a_0000", *, gpu=(1000.0, 3000.0, 1000.0), time_s=9.0, **changes):
    """Return a case with samples every 0.1 s; a reading of the GPU may be Unsupported."""
    samples = made_samples(gpu)
    record = record_of(samples, time_s)
    case = ProfiledCase(
        name=name,
        case_id=name.removesuffix("_0000"),
        shape_XYZ=(512, 512, 41),
        began="2026-11-21T10:00:00+00:00",
        wall_s=time_s,
        exit_code=0,
        failures=(),
        leftovers=(),
        official=figures_of(record),
        measured=measure_all(samples),
        excess=excess_of(samples, record, Tolerances()),
    )
    return replace(case, **changes)


def made_samples(gpu):
    return [
        Sample(
            t_s=round(0.1 * index, 1),
            readings={
                "gpu_used_mib": value,
                "tree_rss_mib": 500.0 + 10 * index,
                "host_ram_mib": 9000.0,
                "host_user_percent": 10.0,
                "host_system_percent": 5.0,
                "host_idle_percent": 60.0,
            },
        )
        for index, value in enumerate(gpu)
    ]


def made_report(*cases):
    report = new_report("team", "docker", ("docker", "run"), Tolerances(), {"cpu": "a CPU"})
    return replace(report, cases=cases)
