"""Why `docker build` failed, told by what it said, and the remedy that fits."""

from __future__ import annotations

from collections.abc import Sequence

from flarekit.containers.docker_command import machine_fix

_STEP = ("step ", " > [")  # how the classic builder, and BuildKit, begin a line that names a step
_UNKNOWN = "these lines end with what failed; the image's Dockerfile has the step that they name"
# what to do, and words of Docker, pip, uv, apt and npm that ask for it; what is found first counts,
# as after a network's failure package managers also say that there is no such package
_REMEDIES = (
    (
        "make room where Docker keeps its data: docker system df shows what takes it, docker "
        "system prune removes what nothing uses",
        ("no space left on device", "disk quota exceeded"),
    ),
    (
        "install Docker's buildx plugin, or set DOCKER_BUILDKIT=0",
        ("buildx component is missing",),
    ),
    (
        "name an image for linux/amd64 with --base",
        ("exec format error", "no match for platform"),
    ),
    (
        "the registry gives no more images for now: use docker login, or wait",
        ("toomanyrequests",),
    ),
    (
        "the base image cannot be fetched: check the network of the Docker engine, or name an "
        "image with --base that docker image ls has",
        ("/v2/", "/token?", "failed to do request"),
    ),
    (
        "name an image with --base that docker image ls has, or that docker pull finds",
        (
            "pull access denied",
            "manifest unknown",
            "manifest for ",
            "failed to resolve source metadata",
            "failed to parse stage name",
            "invalid reference format",
        ),
    ),
    (
        "name an image with --base that has a shell and Python 3.11",
        (
            "python: not found",
            "python: command not found",
            'exec: "/bin/sh"',
            "cannot stat 'opt/flarekit/lib/python3.11",
            "no module named venv",
            "ensurepip is not available",
        ),
    ),
    (
        "the network has certificates of its own: name an image with --base that trusts them",
        ("certificate verify failed", "invalid peer certificate", "unknownissuer", "x509:"),
    ),
    (
        "name a network with --network that the Docker engine has, such as host",
        ("network bridge not found", "could not find a network", "network not found"),
    ),
    (
        "the build needs a network for packages: name another one with --network, and see docker "
        "build's proxy settings; --torch-index names another place for PyTorch",
        (
            "name resolution",
            "could not resolve",
            "temporary failure resolving",
            "no such host",
            "dns error",
            "error sending request",
            "failed to establish a new connection",
            "network is unreachable",
            "connection refused",
            "connection reset",
            "timed out",
            "unable to locate package",
            "no installation candidate",
        ),
    ),
    (
        "where the build looks for packages there is no such release: --torch-index names another "
        "place for PyTorch",
        ("no solution found when resolving", "no matching distribution found"),
    ),
    (
        "the build was killed, most likely for memory: give Docker more",
        ("non-zero code: 137", "exit code: 137", "cannot allocate memory"),
    ),
)


def build_fix(lines: Sequence[str]) -> str:
    """Return what to do about a build that failed.

    Args:
        lines: the last ones that Docker has said; only those of the step that failed count.
    """
    steps = [at for at, line in enumerate(lines) if line.lower().startswith(_STEP)]
    said = "\n".join(lines[steps[-1] :] if steps else lines).lower()
    for fix, words in _REMEDIES:
        if any(each in said for each in words):
            return fix
    return machine_fix(said) or _UNKNOWN
