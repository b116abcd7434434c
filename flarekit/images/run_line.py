"""The line by which an organiser runs an image, for people who want to try it so."""

import shlex

from flarekit import conventions
from flarekit.containers import CONVENTION_LABEL, ImageFacts

_CUDA_LABEL = "flarekit.cuda.version"
_DOCKERS_SHM_MIB = 64


def organisers_line(image: str, facts: ImageFacts, convention: str | None = None) -> str | None:
    """Return the organiser's `docker container run` line for an image.

    Args:
        image: its name.
        facts: its labels tell whether it is for a GPU, and whose it is.
        convention: whose line; the label's where None.

    Returns:
        The line, with `$PWD/inputs` and `$PWD/outputs` as folders; None where nobody runs it.
    """
    name = convention or facts.labels.get(CONVENTION_LABEL, "")
    gpu = bool(facts.labels.get(_CUDA_LABEL))
    return line_of_convention(name, image, gpu=gpu) if name in conventions.names() else None


def line_of_convention(name: str, image: str, *, gpu: bool) -> str | None:
    """Return the `docker container run` line of a convention's organiser.

    Args:
        name: of the convention.
        image: what stands in the line as the image.
        gpu: whether the image is given a GPU.

    Returns:
        The line, with `$PWD/inputs` and `$PWD/outputs` as folders; None where nobody runs it.
    """
    line = conventions.facts_of(name).run_line
    if line is None:
        return None
    limits = line.conditions
    parts = ["docker container run"]
    if gpu:
        parts.append('--gpus "device=0"')
    if limits.memory_mib is not None:
        parts.append(f"-m {limits.memory_mib // 1024}G")
    if limits.shm_mib != _DOCKERS_SHM_MIB:
        parts.append(f"--shm-size {limits.shm_mib}m")
    if not limits.network:
        parts.append("--network none")
    if not limits.capabilities:
        parts.append("--cap-drop ALL")
    if not limits.new_privileges:
        parts.append("--security-opt no-new-privileges")
    if limits.pids is not None:
        parts.append(f"--pids-limit {limits.pids}")
    only = "" if line.writable_inputs else ":ro"
    parts.append("--rm")
    parts.append(f'-v "$PWD/inputs/":{line.inputs}/{only} -v "$PWD/outputs/":{line.outputs}/')
    parts.append(image)
    *shell, script = line.command or ("",)
    if script:
        parts.append(f'{shlex.join(shell)} "{script}"')
    return " ".join(parts)
