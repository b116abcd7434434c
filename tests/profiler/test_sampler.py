from __future__ import annotations

import itertools
import json
import sys
import time

import pytest

from flarekit.containers import ProcessResult
from flarekit.core.errors import OutputError
from flarekit.core.readings import Unsupported
from flarekit.profiler.command import CommandTarget
from flarekit.profiler.monitor import monitor
from flarekit.profiler.sampler import Sampler
from flarekit.profiler.stream import read_samples

STEPS = """
import json, sys, time
log, kept = [], []
def taken():
    return open(sys.argv[2], "rb").read().count(b'"tree_rss_mib"')
for mib in (0, 80, 60, -1, 120):
    before = time.monotonic()
    if mib < 0:
        kept.clear()
    elif mib:
        kept.append(bytearray(b"x") * (mib << 20))
    log.append([before, time.monotonic(), sum(len(each) >> 20 for each in kept)])
    enough = taken() + 4  # of which two at least begin and end before the next step
    while taken() < enough:
        time.sleep(0.02)
json.dump(log, open(sys.argv[1], "w"))
"""


class Count:
    columns = ("gpu_used_mib",)

    def __init__(self, faults=()):
        self._numbers = itertools.count()
        self._faults = faults
        self.closed = False

    def read(self):
        number = next(self._numbers)
        if number in self._faults:
            raise ZeroDivisionError("a bug")
        return {"gpu_used_mib": float(number)}

    def close(self):
        self.closed = True


class Clock:
    """A clock that only `wait` moves, by what it was asked for and what the world adds."""

    def __init__(self, delays):
        self.now = 100.0
        self._delays = iter(delays)

    def __call__(self):
        return self.now

    def wait(self, seconds):
        delay = next(self._delays, None)
        if delay is None:
            return True
        self.now += seconds + delay
        return False


def run(probe, delays, write=lambda _: None):
    clock = Clock(delays)
    with Sampler([probe], write, interval_s=0.1, clock=clock, wait=clock.wait) as sampler:
        sampler._thread.join()
    return sampler


def test_samples_are_due_at_multiples_of_the_interval_whatever_delays_one():
    sampler = run(Count(), [0, 0.03, 0, 0])
    assert [round(moment - 100, 6) for moment in sampler._moments] == [0, 0.1, 0.23, 0.3, 0.4]


def test_late_samples_are_skipped_and_counted_not_caught_up_with():
    quality = run(Count(), [0, 0.45, 0, 0]).quality()
    assert quality.skipped == 4
    assert quality.longest_gap_s == pytest.approx(0.55)
    assert quality.samples == 5


def test_a_sample_that_was_begun_before_the_clock_is_at_zero_however_long_it_took():
    class Starts(Count):
        def read(self):
            clock.now += 5.0
            sampler.start_clock()
            return super().read()

    clock = Clock([])
    sampler = Sampler([Starts()], lambda _: None, clock=clock, wait=clock.wait)
    with sampler:
        sampler._thread.join()
    assert [sample.t_s for sample in sampler.samples] == [0.0, 0.0]


def test_a_probe_that_fails_is_not_supported_and_the_others_go_on():
    sampler = run(Count(faults={2}), [0, 0, 0])
    values = [sample.readings["gpu_used_mib"] for sample in sampler.samples]
    assert values[2] == Unsupported(not_supported="the probe failed: ZeroDivisionError: a bug")
    assert values[3] == 3.0


def test_opening_the_driver_is_no_cost_of_sampling():
    class Slow(Count):
        def read(self):
            reading = super().read()
            until = time.thread_time() + (0.2 if reading["gpu_used_mib"] == 0 else 0)
            while time.thread_time() < until:
                pass
            return reading

    assert run(Slow(), [0, 0]).quality().cpu_s < 0.1


def test_probes_are_closed():
    probe = Count()
    run(probe, [0])
    assert probe.closed


def test_a_full_disk_is_an_error_at_the_end_and_not_a_hanging_thread():
    def write(_):
        raise OutputError("disk full", fix="make room")

    with pytest.raises(OutputError, match="disk full"):
        run(Count(), [0, 0], write)


class Timed(CommandTarget):
    began = 0.0

    def run(self, timeout_s):
        self.began = time.monotonic()
        return super().run(timeout_s)


@pytest.mark.long
def test_a_process_with_a_known_memory_curve_is_measured_to_within_one_sample(tmp_path):
    files = [str(tmp_path / name) for name in ("steps.json", "samples.jsonl")]
    target = Timed([sys.executable, "-c", STEPS, *files])
    seen = monitor(
        target,
        samples_file=tmp_path / "samples.jsonl",
        record_file=tmp_path / "record.json",
        facts={},
    )
    steps = json.loads((tmp_path / "steps.json").read_text())
    measured = [
        (sample.t_s + target.began, sample.readings["tree_rss_mib"])
        for sample in seen.samples
        if "tree_rss_mib" in sample.readings
    ]
    base = None
    for (_, begin, mib), (end, _, _) in itertools.pairwise(steps):
        inside = [
            value
            for (moment, value), (later, _) in itertools.pairwise(measured)
            if begin <= moment <= later <= end  # it was read before the next one was begun
        ]
        base = inside[0] if base is None else base
        assert len(inside) >= 2
        assert inside == pytest.approx([base + mib] * len(inside), abs=3)
    assert seen.wall_s <= seen.record.time
    on_disk = read_samples(tmp_path / "samples.jsonl").samples
    assert [each.t_s for each in on_disk] == pytest.approx([s.t_s for s in seen.samples], abs=1e-4)


@pytest.mark.usefixtures("still")
def test_flare_s_time_is_that_of_the_run_and_little_more(tmp_path):
    class Sleeps(CommandTarget):
        def run(self, _timeout_s):
            time.sleep(5.0)
            return ProcessResult(exit_code=0)

    files = {"samples_file": tmp_path / "s.jsonl", "record_file": tmp_path / "r.json"}
    seen = monitor(Sleeps(["true"]), **files, facts={})
    assert seen.wall_s == pytest.approx(5.0, abs=0.01)
    assert seen.wall_s <= seen.record.time < seen.wall_s + 0.1


@pytest.mark.slow
def test_sampling_takes_less_than_one_percent_of_a_core(tmp_path):
    target = CommandTarget(
        [sys.executable, "-c", "import time; b = bytearray(1 << 29); time.sleep(15)"]
    )
    seen = monitor(
        target,
        samples_file=tmp_path / "samples.jsonl",
        record_file=tmp_path / "record.json",
        facts={},
    )
    assert seen.quality.core_percent < 1
    assert seen.quality.mean_interval_s == pytest.approx(0.1, rel=0.03)
