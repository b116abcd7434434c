"""How FLARE's images start: the shells, predict.sh as plain sh, and who chooses the GPU."""

import json
from collections.abc import Mapping

from flarekit.verification.check import PASS, Finding, check, fail, skip, verdict_of, warn
from flarekit.verification.image_checks import (
    amd64,
    facts_label,
    one_image,
    root,
    size,
    team_name,
)
from flarekit.verification.remedies import image_fix
from flarekit.verification.run_checks import RUNS
from flarekit.verification.scripts import (
    PREDICT,
    bashisms,
    choices_of_gpus,
    form_faults,
    said_by_sh,
    scripts_of,
    takes_more_than_sh,
)
from flarekit.verification.trials import ImageUnderTest

_PROBE = "test -f predict.sh && sh -c true && echo here"
_PARTS = "command -v sh >/dev/null && echo sh; test -f predict.sh && echo predict.sh; exit 0"


@check(
    fix="ENTRYPOINT [], WORKDIR /workspace, COPY predict.sh ./, and bash in the image", runs=False
)
def shells(image: ImageUnderTest) -> Finding:
    """/bin/bash runs as the command, sh is there, WORKDIR holds predict.sh."""
    trial = image.trial(image.usual_inputs(), command=("/bin/bash", "-c", _PROBE))
    if "here" in trial.outcome.stdout and not trial.outcome.exit_code:
        return PASS
    alone = image.trial(image.usual_inputs(), entrypoint="/bin/bash", command=("-c", _PARTS))
    if alone.failure is not None:
        said = alone.outcome.not_started or trial.outcome.not_started or alone.failure
        return fail(f"/bin/bash does not run as the command: {said}", image_fix(said))
    parts = alone.outcome.stdout.split()
    if "sh" not in parts:
        return fail("/bin/bash is there, but no sh, which is to run predict.sh")
    if PREDICT not in parts:
        return fail(f"no predict.sh in the working directory {image.facts.working_dir}")
    entrypoint = json.dumps(list(image.facts.entrypoint))
    return fail(
        f"ENTRYPOINT {entrypoint} does not run /bin/bash, the command that it is given"
        + (f" ({trial.failure})" if trial.failure else ""),
        'write ENTRYPOINT [] in the Dockerfile, or end its script with exec "$@"',
    )


@check(
    fix="no bashisms: no [[ ]], arrays or source; or predict.sh runs bash on another script",
    runs=False,
)
def plain_shell(image: ImageUnderTest) -> Finding:
    """The script predict.sh is plain sh, which is what runs it."""
    scripts = scripts_of(image)
    faults = form_faults(scripts)
    if faults:
        return verdict_of(faults)
    test = "if command -v dash >/dev/null; then dash -n predict.sh; else sh -n predict.sh; fi"
    trial = image.trial(
        image.usual_inputs(),
        entrypoint="/bin/bash" if scripts else None,
        command=_shell(test, scripts),
    )
    if trial.outcome.not_started:
        return skip(f"it does not start: {trial.outcome.not_started}")
    if trial.outcome.exit_code:
        return fail(trial.outcome.last_line)
    faults = said_by_sh(image.base().outcome.stderr)
    if faults:
        return verdict_of(faults)
    faults = bashisms(scripts)
    if faults and takes_more_than_sh(image):
        return warn(f"sh in this image takes what a plain one does not: {'; '.join(faults[:3])}")
    return verdict_of(faults)


def _shell(test: str, scripts: Mapping[str, str]) -> tuple[str, ...]:
    return ("-c", test) if scripts else ("/bin/bash", "-c", test)


@check(
    fix="remove it from the Dockerfile's ENV, from predict.sh and from what that runs", runs=False
)
def devices_left_alone(image: ImageUnderTest) -> Finding:
    """Neither the image nor its scripts set CUDA_VISIBLE_DEVICES, which the evaluator chooses."""
    faults = [
        f"ENV sets {name}={value}"
        for name, value in image.facts.variables.items()
        if name == "CUDA_VISIBLE_DEVICES"
        or (name == "NVIDIA_VISIBLE_DEVICES" and value not in ("", "all", "void", "none"))
    ]
    return verdict_of([*faults, *choices_of_gpus(scripts_of(image))])


# what holds for every image that an organiser loads from a file and starts by predict.sh
SUBMITTED_BY_FILE = (
    one_image,
    amd64,
    size,
    team_name,
    root,
    facts_label,
    devices_left_alone,
    shells,
    plain_shell,
    *RUNS,
)
