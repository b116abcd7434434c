"""Checks of runs that every organiser's image has to pass, and how their failures are explained."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from flarekit.containers import Conditions
from flarekit.core.errors import UnreadableVolumeError
from flarekit.verification.check import (
    PASS,
    Finding,
    check,
    checks_in,
    fail,
    passed,
    skip,
    verdict_of,
    warn,
)
from flarekit.verification.contents import again, alike, listed, unlike_usual
from flarekit.verification.explanations import RELAXED, explained, needs_of
from flarekit.verification.masks import same_content
from flarekit.verification.remedies import (
    says_gpu_is_missing,
)
from flarekit.verification.trials import ImageUnderTest, TrialResult

_STOP_S = 5.0
_GPU_NOISE = 0.5  # a mask from the CPU is rounded otherwise, but it is the same organ
_FEWEST_WORDS = 4
_CLOSE = 0.9  # to a memory limit, as a share of it
_ASKED_ONLY = "write what is asked for into the output folder, all of it and nothing else"
_SILENT_FIX = (
    "bring everything in the image, and end with an error where something is missing: a mask that "
    "was made without it looks like any other"
)
_ROOMY: Mapping[str, Any] = {
    name: value
    for change in RELAXED.values()
    for name, value in change.items()
    if name not in ("user", "read_only")
}


@check(fix="run it by hand with the same options and correct what its last lines say")
def ends_well(image: ImageUnderTest) -> Finding:
    """The organiser's run line ends with exit code 0."""
    trial = image.base()
    if trial.failure is None:
        return PASS
    return explained(image, image.conditions, failed=trial)


@check(fix="check torch.cuda.is_available() first, and name the missing GPU in the error")
def without_gpu(image: ImageUnderTest) -> Finding:
    """Without a GPU it computes on the CPU, or says that it needs one."""
    if image.task.gpus is None:
        return PASS  # every run was one
    trial = image.trial(image.usual_inputs(), conditions=replace(image.conditions, gpus=None))
    if trial.failure is None:
        faults = unlike_usual(image, trial, noise=_GPU_NOISE)
        return verdict_of([f"ends well, but {fault}" for fault in faults])
    if says_gpu_is_missing(trial.outcome.last_line):
        return PASS
    return fail(f"{trial.failure}: which does not say that a GPU is missing")


@check(fix="put temporary files into /tmp")
def inputs_unchanged(image: ImageUnderTest) -> Finding:
    """Nothing is added, changed or removed in the input folder."""
    trial = image.base()
    if not image.run_line.writable_inputs:
        trial = image.trial(image.usual_inputs(), writable_inputs=True)
    return verdict_of(trial.touched)


@check(
    fix="set umask 022; write files there, not links; use tempfile.mkdtemp in other folders only"
)
def readable_output(image: ImageUnderTest) -> Finding:
    """Everybody can read what it leaves in the output folder.

    Look at who may read what a run has left, before it was opened up to be judged.
    """
    trials = [image.base()]
    faults = [f"{words}: a link, which leads nowhere outside" for words in trials[0].links]
    faults += [f"{words} cannot be read by the user who verifies" for words in trials[0].locked]
    if faults:
        return verdict_of(faults)
    if trials[0].private:
        names = ", ".join(trials[0].private[:3])
        return warn(f"only its owner can read {names}")
    return PASS


@check(fix="set seeds, leave out test-time dropout and random sampling")
def same_twice(image: ImageUnderTest) -> Finding:
    """Two runs of the same input give the same output."""
    first, second = image.base(), again(image)
    if first.files != second.files:
        return fail(f"first {listed(first.files)}, then {listed(second.files)}", _ASKED_ONLY)
    pairs = [(first.outputs / name, second.outputs / name) for name in first.files]
    differ = [
        name
        for name, pair in zip(first.files, pairs, strict=True)
        if not name.endswith("/") and not alike(*pair)
    ]
    return verdict_of([f"{name} differs" for name in differ])


def _under(image: ImageUnderTest, conditions: Conditions, trial: TrialResult) -> Finding:
    """Judge a trial of the usual inputs under other conditions, which has to write the same."""
    if trial.failure is not None:
        return explained(image, conditions, failed=trial)
    if trial.files != image.base().files:
        return fail(f"ends well, but writes {listed(trial.files)}", _ASKED_ONLY)
    return _same_content(image, conditions, trial)


def _same_content(image: ImageUnderTest, conditions: Conditions, trial: TrialResult) -> Finding:
    """Judge by what its files hold, and find out which condition makes the difference."""
    faults = unlike_usual(image, trial)
    if not faults:
        return PASS
    needs = needs_of(
        image,
        conditions,
        lambda looser: looser.failure is None and not unlike_usual(image, looser),
    )
    why = " and ".join(needs) or "depends on the limits"
    return fail(f"{why}, and does not say so: {'; '.join(faults[:3])}", _SILENT_FIX)


@check(fix="bring everything in the image; no DataLoader workers; set thread counts")
def strict_sandbox(image: ImageUnderTest) -> Finding:
    """It runs offline, without capabilities, with 256 pids, 64 MB of /dev/shm, limited memory."""
    finding = _under(image, image.strictest, _strictest(image))
    if finding.state != "pass":
        return finding
    # the organiser's own line has limits too: what would the image write without them?
    roomy = replace(image.conditions, **_ROOMY)
    trial = image.trial(image.usual_inputs(), conditions=roomy)
    faults = [] if trial.failure is not None else unlike_usual(image, trial)
    if not faults:
        return finding
    return fail(
        f"with a network and fewer limits {'; '.join(faults[:3])}: it goes without something, and "
        "does not say so",
        _SILENT_FIX,
    )


def _strictest(image: ImageUnderTest) -> TrialResult:
    conditions = image.strictest
    return image.once("strict", lambda: image.trial(image.usual_inputs(), conditions=conditions))


@check(fix="bring weights in the image; switch off downloads, telemetry and update checks")
def offline(image: ImageUnderTest) -> Finding:
    """It does not try to reach a network."""
    tries = _strictest(image).outcome.network_tries
    if tries is None:
        return skip("the kernel's counters are not seen from here")
    if tries:
        packets = "1 packet" if tries == 1 else f"{tries} packets"
        return warn(f"{packets} found no way out; it went on without, this time")
    return PASS


@check(fix="set HOME, MPLCONFIGDIR, TORCH_HOME and the like to /tmp; leave file modes readable")
def unprivileged(image: ImageUnderTest) -> Finding:
    """It runs as user 1000 with a read-only root, writing only to its output and /tmp."""
    conditions = replace(image.strictest, read_only=True, user="1000:1000")
    return _under(image, conditions, image.trial(image.usual_inputs(), conditions=conditions))


@check(fix="start the program with exec, handle SIGTERM; write to a temporary name and rename")
def stops(image: ImageUnderTest) -> Finding:
    """SIGTERM ends it within 5 s, with no half-written file."""
    usual = image.base()
    for share in (0.4, 0.7, 0.1):  # of its time; some hear no signal before they are under way
        trial = image.trial(image.usual_inputs(), terminate_after_s=share * usual.outcome.seconds)
        outcome = trial.outcome
        if outcome.stopped_after_s is None:
            continue
        if outcome.stopped_after_s > _STOP_S or outcome.timed_out:
            return fail(f"it went on for {outcome.stopped_after_s:.0f} s after SIGTERM")
        if not _went_to_its_end(image, trial):
            break
    else:
        return skip(
            f"it was over by itself within {_STOP_S:.0f} s, so the signal was not put to the test"
        )
    wanted = usual.files
    # a folder that its file has not come to yet is not half of anything
    begun = {f"{parent}/" for name in wanted for parent in PurePosixPath(name).parents}
    odd = [name for name in trial.files if name not in wanted and name not in begun]
    torn = [name for name in trial.files if name in wanted and not _readable(trial.outputs / name)]
    faults = [f"left {name} behind" for name in odd] + [f"left half of {name}" for name in torn]
    if not faults and outcome.exit_code == 0 and trial.files != wanted:
        faults = ["said that all went well (exit code 0) though it was cut short"]
    return verdict_of(faults)


def _went_to_its_end(image: ImageUnderTest, trial: TrialResult) -> bool:
    """Tell whether a run that was asked to stop has done all its work nevertheless."""
    if trial.outcome.exit_code or trial.files != image.base().files:
        return False
    return not unlike_usual(image, trial)


def _readable(path: Path) -> bool:
    try:
        return same_content(path, path)
    except (UnreadableVolumeError, ValueError, OSError):
        return False


@check(
    fix="see flarekit profile run for where the time goes; --time-limit where this machine is slow"
)
def in_time(image: ImageUnderTest) -> Finding:
    """One case takes no longer than the limit."""
    limit_s = image.task.time_s
    if limit_s is None:
        return skip("no limit is known; give one with --time-limit")
    seconds = image.base().outcome.seconds
    if seconds <= limit_s:
        return passed(f"{seconds:.1f} s on this machine, limit {limit_s:g} s")
    return fail(f"{seconds:.1f} s for one case on this machine, limit {limit_s:g} s")


@check(fix="see flarekit profile docker for when it takes it; --memory where the limit is another")
def in_memory(image: ImageUnderTest) -> Finding:
    """One case takes no more memory than the limit."""
    outcome, limit_mib = image.base().outcome, image.conditions.memory_mib
    seen = [
        f"{mib:.0f} MiB {how}"
        for mib, how in (
            (outcome.peak_mib, "resident, ten samples a second"),
            (outcome.kernel_peak_mib, "by the kernel's own count, page cache included"),
        )
        if mib is not None
    ]
    if not seen:
        return skip("its memory is not seen from here")
    words = "; ".join([*seen, "no limit" if limit_mib is None else f"limit {limit_mib} MiB"])
    if limit_mib is not None and (outcome.peak_mib or 0.0) > _CLOSE * limit_mib:
        return warn(words)
    return passed(words)


def is_sentence(line: str) -> bool:
    """Tell whether a line can be acted on: some words, and no line of a traceback."""
    words = line.split()
    return len(words) >= _FEWEST_WORDS and not line.startswith(("File ", "Traceback ", "^"))


def loud_failure(trial: TrialResult) -> Finding:
    """Return whether a trial that had to fail did so, with a last line that says why."""
    if trial.outcome.timed_out:
        return fail(f"was not done after {trial.outcome.seconds:.0f} s")
    if trial.outcome.exit_code == 0:
        return fail("ends with exit code 0, as if all were well")
    line = trial.outcome.last_line
    if not is_sentence(line):
        return fail(f"the last line on stderr does not say what is wrong: {line[:200]!r}")
    return PASS


RUNS = checks_in(globals())


def nothing_done(trial: TrialResult) -> Finding:
    """Return whether a trial without inputs wrote nothing, and ended well or said why not."""
    faults = [f"wrote {name}" for name in trial.files]
    if trial.outcome.timed_out:
        faults.append("did not end")
    elif trial.outcome.exit_code and not is_sentence(trial.outcome.last_line):
        faults.append(f"ends with {trial.outcome.last_line[:120]!r}, which says nothing")
    return verdict_of(faults)
