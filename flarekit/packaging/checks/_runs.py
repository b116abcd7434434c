"""Checks of runs that every organiser's image has to pass, and how their failures are explained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flarekit.core.errors import UnreadableVolumeError
from flarekit.packaging.bench import Bench, Trial
from flarekit.packaging.checks import PASS, Check, Finding, fail, held, skip, warn
from flarekit.packaging.masks import same_content
from flarekit.packaging.sandboxes import Conditions

_STOP_S = 5.0
_GPU_WORDS = ("gpu", "cuda", "nvidia")
_FEWEST_WORDS = 4
# what is let go -> what an image that then works needs
_RELAXED: Mapping[str, Mapping[str, Any]] = {
    "needs the network": {"network": True},
    "needs more than 64 MB of shared memory (/dev/shm)": {"shm_mib": 4096},
    "needs more than 256 processes and threads": {"pids": None},
    "needs Linux capabilities": {"capabilities": True},
    "needs to raise its privileges": {"new_privileges": True},
    "needs more memory": {"memory_mib": None},
    "needs more memory than RLIMIT_DATA leaves it": {"data_mib": None},
    "writes outside its output folder and /tmp": {"read_only": False},
    "needs to be root": {"user": "0:0"},
}


def explained(bench: Bench, conditions: Conditions, *, failed: Trial) -> Finding:
    """Return why a trial of the usual inputs failed: each condition is let go in turn."""
    needs = _needs(bench, conditions)
    if not bench.layout.writable_inputs:
        loose = bench.trial(bench.usual_inputs(), conditions=conditions, writable_inputs=True)
        if loose.failure is None:
            needs.append(f"writes into {bench.layout.inputs}")
    if not needs and _tries_network(bench, conditions, failed):
        needs = ["tries to reach a network, and got no answer"]
    if needs:
        return fail(f"{' and '.join(needs)} ({failed.failure})")
    if _says_gpu(failed):
        return fail(f"needs a GPU, and says so ({failed.failure}); give it one with --gpus all")
    return fail(f"{failed.failure}")


def _tries_network(bench: Bench, conditions: Conditions, failed: Trial) -> bool:
    """Tell whether packets found no way out; where there was a network, it is taken away."""
    if conditions.network:
        alone = replace(conditions, network=False)
        failed = bench.trial(bench.usual_inputs(), conditions=alone)
    return bool(failed.outcome.network_tries)


def _needs(bench: Bench, conditions: Conditions) -> list[str]:
    """Return which conditions, let go, make the image work: each by itself, or else together."""
    changes = {
        words: change
        for words, change in _RELAXED.items()
        if replace(conditions, **change) != conditions
    }

    def works(chosen: Iterable[Mapping[str, Any]]) -> bool:
        together = {name: value for change in chosen for name, value in change.items()}
        looser = replace(conditions, **together)
        return bench.trial(bench.usual_inputs(), conditions=looser).failure is None

    needs = [words for words, change in changes.items() if works([change])]
    if needs or len(changes) < 2 or not works(changes.values()):
        return needs
    return [
        words
        for words in changes
        if not works(change for other, change in changes.items() if other != words)
    ]


def _says_gpu(trial: Trial) -> bool:
    return any(word in trial.outcome.last_line.lower() for word in _GPU_WORDS)


def _ends_well(bench: Bench) -> Finding:
    trial = bench.base()
    if trial.failure is None:
        return PASS
    return explained(bench, bench.conditions, failed=trial)


def _without_gpu(bench: Bench) -> Finding:
    if bench.wanted.gpus is None:
        return PASS  # every run was one
    trial = bench.trial(bench.usual_inputs(), conditions=replace(bench.conditions, gpus=None))
    if trial.failure is None or _says_gpu(trial):
        return PASS
    return fail(f"{trial.failure}: which does not say that a GPU is missing")


def _inputs_unchanged(bench: Bench) -> Finding:
    trial = bench.base()
    if not bench.layout.writable_inputs:
        trial = bench.trial(bench.usual_inputs(), writable_inputs=True)
    return held(trial.touched)


def _same_twice(bench: Bench) -> Finding:
    first, second = bench.base(), bench.trial(bench.usual_inputs())
    if first.files != second.files:
        return fail(f"first {', '.join(first.files)}, then {', '.join(second.files)}")
    pairs = [(first.outputs / name, second.outputs / name) for name in first.files]
    differ = [name for name, pair in zip(first.files, pairs, strict=True) if not _alike(*pair)]
    return held([f"{name} differs" for name in differ])


def _alike(one: Path, other: Path) -> bool:
    """Tell whether two files say the same; equally damaged ones do."""
    if one.read_bytes() == other.read_bytes():
        return True
    try:
        return same_content(one, other)
    except (UnreadableVolumeError, ValueError):
        return False


def _under(bench: Bench, conditions: Conditions, trial: Trial) -> Finding:
    """Judge a trial of the usual inputs under other conditions, which has to write the same."""
    if trial.failure is not None:
        return explained(bench, conditions, failed=trial)
    if trial.files != bench.base().files:
        return fail(f"ends well, but writes {', '.join(trial.files) or 'nothing'}")
    return PASS


def _strict(bench: Bench) -> Finding:
    return _under(bench, bench.strictest, _strictest(bench))


def _strictest(bench: Bench) -> Trial:
    conditions = bench.strictest
    return bench.once("strict", lambda: bench.trial(bench.usual_inputs(), conditions=conditions))


def _offline(bench: Bench) -> Finding:
    tries = _strictest(bench).outcome.network_tries
    if tries is None:
        return skip("the kernel's counters are not seen from here")
    if tries:
        return warn(f"{tries} packets found no way out; it went on without, this time")
    return PASS


def _unprivileged(bench: Bench) -> Finding:
    conditions = replace(bench.strictest, read_only=True, user="1000:1000")
    return _under(bench, conditions, bench.trial(bench.usual_inputs(), conditions=conditions))


def _stops(bench: Bench) -> Finding:
    for share in (0.4, 0.1):  # of its time; some are over sooner than before
        after_s = share * bench.base().outcome.seconds
        trial = bench.trial(bench.usual_inputs(), terminate_after_s=after_s)
        outcome = trial.outcome
        if outcome.stopped_after_s is not None:
            break
    else:
        return skip("it was over before the signal came")
    if outcome.stopped_after_s > _STOP_S or outcome.timed_out:
        return fail(f"it went on for {outcome.stopped_after_s:.0f} s after SIGTERM")
    wanted = bench.base().files
    odd = [name for name in trial.files if name not in wanted]
    torn = [name for name in trial.files if name in wanted and not _readable(trial.outputs / name)]
    faults = [f"left {name} behind" for name in odd] + [f"left half of {name}" for name in torn]
    if not faults and outcome.exit_code == 0 and trial.files != wanted:
        faults = ["said that all went well (exit code 0) though it was cut short"]
    return held(faults)


def _readable(path: Path) -> bool:
    try:
        return same_content(path, path)
    except (UnreadableVolumeError, ValueError, OSError):
        return False


def _in_time(bench: Bench) -> Finding:
    limit_s = bench.wanted.time_s
    if limit_s is None:
        return skip("no limit is known; give one with --time-limit")
    seconds = bench.base().outcome.seconds
    if seconds <= limit_s:
        return PASS
    return fail(f"{seconds:.1f} s for one case on this machine, limit {limit_s:g} s")


def is_sentence(line: str) -> bool:
    """Tell whether a line can be acted on: some words, and no line of a traceback."""
    words = line.split()
    return len(words) >= _FEWEST_WORDS and not line.startswith(("File ", "Traceback ", "^"))


def loud_failure(trial: Trial) -> Finding:
    """Return whether a trial that had to fail did so, with a last line that says why."""
    if trial.outcome.timed_out:
        return fail(f"was not done after {trial.outcome.seconds:.0f} s")
    if trial.outcome.exit_code == 0:
        return fail("ends with exit code 0, as if all were well")
    line = trial.outcome.last_line
    if not is_sentence(line):
        return fail(f"the last line on stderr does not say what is wrong: {line[:200]!r}")
    return PASS


ENDS_WELL = Check(
    name="ends_well",
    asserts="the organiser's run line ends with exit code 0",
    fix="run it by hand with the same options and mend what its last lines say",
    look=_ends_well,
)
WITHOUT_GPU = Check(
    name="without_gpu",
    asserts="without a GPU it computes on the CPU, or says that it needs one",
    fix="check torch.cuda.is_available() first, and name the missing GPU in the error",
    look=_without_gpu,
)
INPUTS_UNCHANGED = Check(
    name="inputs_unchanged",
    asserts="nothing is added, changed or removed in the input folder",
    fix="put temporary files into /tmp",
    look=_inputs_unchanged,
)
SAME_TWICE = Check(
    name="same_twice",
    asserts="two runs of the same input give the same output",
    fix="set seeds, leave out test-time dropout and random sampling",
    look=_same_twice,
)
STRICT = Check(
    name="strict_sandbox",
    asserts="it runs without network and capabilities, with 256 pids, 64 MB of shared memory and "
    "a memory limit",
    fix="bring everything in the image; no DataLoader workers; set thread counts",
    look=_strict,
)
OFFLINE = Check(
    name="offline",
    asserts="it does not try to reach a network",
    fix="bring weights in the image; switch off downloads, telemetry and update checks",
    look=_offline,
)
UNPRIVILEGED = Check(
    name="unprivileged",
    asserts="it runs as user 1000 with a read-only root, writing only to its output and /tmp",
    fix="set HOME, MPLCONFIGDIR, TORCH_HOME and the like to /tmp; leave file modes readable",
    look=_unprivileged,
)
STOPS = Check(
    name="stops",
    asserts=f"SIGTERM ends it within {_STOP_S:.0f} s, with no half-written file",
    fix="start the program with exec, handle SIGTERM; write to a temporary name and rename",
    look=_stops,
)
IN_TIME = Check(
    name="in_time",
    asserts="one case takes no longer than the limit",
    fix="see flarekit profile run for where the time goes; --time-limit where this machine is slow",
    look=_in_time,
)
RUNS = (
    ENDS_WELL,
    WITHOUT_GPU,
    INPUTS_UNCHANGED,
    SAME_TWICE,
    STRICT,
    OFFLINE,
    UNPRIVILEGED,
    STOPS,
    IN_TIME,
)
