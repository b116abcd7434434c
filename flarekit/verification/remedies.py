"""What a failed run says about itself: the fault in words, and the remedy that fits it."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

_LAST_LINES = 80
_NO_USER = re.compile(
    r"getpwuid|uid not found|cannot find name for user|no user exists for uid", re.I
)
_GPU_WORDS = ("gpu", "cuda", "nvidia")


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """A fault that is known by its message.

    Attributes:
        words: what is wrong, to stand before the message.
        fix: what to do.
    """

    words: str
    fix: str


_FAULTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))["faults"]
_KNOWN = tuple(
    (re.compile("|".join(each["patterns"]), re.I), Remedy(words=each["words"], fix=each["fix"]))
    for each in _FAULTS
)
_NO_GPU = re.compile(
    r"no cuda-capable device|cuda unknown error|driver initialization failed|nvml: "
    r"|found no nvidia driver|not compiled with cuda"
    r"|(cuda|gpu)\W+(is\W+)?(not\W+|un)available|libcuda\.so|no (cuda )?gpus?\b|nvidia-smi",
    re.I,
)
_NOT_FOUND = Remedy(
    words="was given a GPU and does not find it",
    fix="install a CUDA build of torch, leave CUDA_VISIBLE_DEVICES and NVIDIA_VISIBLE_DEVICES "
    "alone, and check that nvidia-smi works in a container here",
)
NEEDS_GPU = Remedy(words="needs a GPU, and says so", fix="verify it with --gpus all")


def known_fault(stderr: str) -> Remedy | None:
    """Return what is wrong where the last lines of stderr hold a message that is known."""
    said = "\n".join(stderr.splitlines()[-_LAST_LINES:])
    return next((remedy for pattern, remedy in _KNOWN if pattern.search(said)), None)


def says_gpu_is_missing(line: str) -> bool:
    """Tell whether a message says that there is no GPU, and not that one is of no use."""
    if known_fault(line) is not None:
        return False
    return any(word in line.lower() for word in _GPU_WORDS)


def gpu_remedy(stderr: str, last_line: str, gpus: str | None) -> Remedy | None:
    """Return what is wrong about the GPU; None where the message is not about one.

    Args:
        stderr: of the run.
        last_line: of stderr.
        gpus: what it was given, of `--gpus`.
    """
    known = known_fault(stderr)
    if known is not None:
        return known
    if gpus is None:
        return NEEDS_GPU if says_gpu_is_missing(last_line) else None
    return _NOT_FOUND if _NO_GPU.search(last_line) else None


def image_fix(reason: str) -> str:
    """Return what to do about an image that the engine does not start; empty where not known."""
    said = reason.lower()
    if "unable to find user" in said or "unable to find group" in said or "no user" in said:
        return "name a user in USER that the image has, or its number"
    if "exec format error" in said:
        return "begin the script with #!/bin/sh, and build for linux/amd64"
    if "no such file" in said or "not found" in said:
        return "install the missing program in the image, and check WORKDIR and PATH"
    if "permission denied" in said:
        return "make the program executable for everybody: chmod 755 in the Dockerfile"
    if "no command specified" in said:
        return "add CMD or ENTRYPOINT to the Dockerfile"
    return ""


def looks_up_its_user(stderr: str) -> bool:
    """Tell whether a run ended because its user is not in the image's list of users."""
    return _NO_USER.search(stderr) is not None
