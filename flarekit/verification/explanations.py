"""Why a run failed: each of its conditions is let go in turn, and what it says is listened to."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from flarekit.containers import Conditions
from flarekit.verification.check import Finding, fail
from flarekit.verification.remedies import gpu_remedy, image_fix, looks_up_its_user
from flarekit.verification.trials import ImageUnderTest, TrialResult

_ROOT = "needs to be root"
# what is let go -> what an image that then works needs
RELAXED: Mapping[str, Mapping[str, Any]] = {
    "needs the network": {"network": True},
    "needs more than 64 MB of shared memory (/dev/shm)": {"shm_mib": 4096},
    "needs more than 256 processes and threads": {"pids": None},
    "needs Linux capabilities": {"capabilities": True},
    "needs to raise its privileges": {"new_privileges": True},
    "needs more memory": {"memory_mib": None},
    "needs more memory than RLIMIT_DATA leaves it": {"data_mib": None},
    "writes outside its output folder and /tmp": {"read_only": False},
    _ROOT: {"user": "0:0"},
}


def explained(image: ImageUnderTest, conditions: Conditions, *, failed: TrialResult) -> Finding:
    """Return why a trial of the usual inputs failed: each condition is let go in turn."""
    outcome = failed.outcome
    if outcome.not_started:
        return fail(f"{failed.failure}", image_fix(outcome.not_started))
    remedy = gpu_remedy(outcome.stderr, outcome.last_line, conditions.gpus)
    if remedy is not None:
        return fail(f"{remedy.words} ({failed.failure})", remedy.fix)
    needs = needs_of(image, conditions, lambda trial: trial.failure is None)
    if not image.run_line.writable_inputs:
        loose = image.trial(image.usual_inputs(), conditions=conditions, writable_inputs=True)
        if loose.failure is None:
            needs.append(f"writes into {image.run_line.inputs}")
    if not needs and _tries_network(image, conditions, failed):
        needs = ["tries to reach a network, and got no answer"]
    if needs == [_ROOT] and looks_up_its_user(outcome.stderr):
        return fail(
            f"looks its user up in /etc/passwd, which has no entry for it ({failed.failure})",
            "set USER, LOGNAME and HOME with ENV in the Dockerfile, or add the user to the image",
        )
    words = " and ".join(needs)
    return fail(f"{words} ({failed.failure})" if needs else f"{failed.failure}")


def _tries_network(image: ImageUnderTest, conditions: Conditions, failed: TrialResult) -> bool:
    """Tell whether packets found no way out; where there was a network, it is taken away."""
    if conditions.network:
        alone = replace(conditions, network=False)
        failed = image.trial(image.usual_inputs(), conditions=alone)
    return bool(failed.outcome.network_tries)


def needs_of(
    image: ImageUnderTest, conditions: Conditions, good: Callable[[TrialResult], bool]
) -> list[str]:
    """Return which conditions, let go, make a trial good: each by itself, or else together."""
    changes = {
        words: change
        for words, change in RELAXED.items()
        if replace(conditions, **change) != conditions
    }

    def works(chosen: Iterable[Mapping[str, Any]]) -> bool:
        together = {name: value for change in chosen for name, value in change.items()}
        looser = replace(conditions, **together)
        return good(image.trial(image.usual_inputs(), conditions=looser))

    needs = [words for words, change in changes.items() if works([change])]
    if needs or len(changes) < 2 or not works(changes.values()):
        return needs
    return [
        words
        for words in changes
        if not works(change for other, change in changes.items() if other != words)
    ]
