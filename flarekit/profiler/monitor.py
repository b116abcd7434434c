"""One run under watch, timed as the organisers time it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flarekit.containers import ProcessResult
from flarekit.core.files import write_atomically
from flarekit.profiler import official
from flarekit.profiler.command import CommandTarget
from flarekit.profiler.container import ContainerTarget
from flarekit.profiler.readings import Sample
from flarekit.profiler.sampler import INTERVAL_S, Sampler, SamplerQuality
from flarekit.profiler.stream import SampleFile

Target = CommandTarget | ContainerTarget  # something to run and watch


@dataclass(frozen=True, kw_only=True)
class MonitoredRun:
    """What was seen of a run.

    Attributes:
        began: ISO 8601.
        wall_s: until it ended.
        samples: before, during and just after it.
        record: FLARE's, its time included.
    """

    began: str
    wall_s: float
    result: ProcessResult
    samples: Sequence[Sample]
    record: official.OfficialRecord
    quality: SamplerQuality


def monitor(
    target: Target,
    *,
    samples_file: Path,
    record_file: Path,
    facts: dict[str, Any],
    gpu: str = "0",
    timeout_s: float | None = None,
    interval_s: float = INTERVAL_S,
) -> MonitoredRun:
    """Run a target and sample beside it.

    FLARE's time goes from before the run until its lists are copied and dumped; its JSON is then
    written once more with that time in it. The careful wall time ends with the run.

    Args:
        target: what to run.
        samples_file: gets the samples as they come.
        record_file: gets FLARE's JSON.
        facts: for the first line of the samples.
        gpu: index or UUID of the device.
        timeout_s: after which it is ended; None for never.
        interval_s: between samples.

    Raises:
        OutputError: a file could not be written.
    """
    began = datetime.now(UTC).isoformat(timespec="milliseconds")
    stream = SampleFile(samples_file, {"began": began, "interval_s": interval_s, **facts})
    try:
        sampler = Sampler(target.probes(gpu), stream.write, interval_s=interval_s)
        with sampler:
            start = time.monotonic()
            sampler.start_clock()
            result = target.run(timeout_s)
            wall_s = time.monotonic() - start
            record = official.record_of(sampler.samples, None)
            write_atomically(record_file, record.content())
            time_s = time.monotonic() - start
        record = official.OfficialRecord(
            gpu_memory=record.gpu_memory,
            cpu_list=record.cpu_list,
            ram_list=record.ram_list,
            time=time_s,
        )
        write_atomically(record_file, record.content())
    finally:
        stream.close()
    return MonitoredRun(
        began=began,
        wall_s=wall_s,
        result=result,
        samples=sampler.samples,
        record=record,
        quality=sampler.quality(),
    )
