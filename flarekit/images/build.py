"""`flarekit build`: a predictor and a convention become an image."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from flarekit import conventions
from flarekit.containers import CONVENTION_LABEL, FACTS_LABEL, ImageFacts
from flarekit.containers.docker import require_engine
from flarekit.containers.docker_images import inspect_image
from flarekit.conventions.facts import preset_of
from flarekit.core.errors import FlarekitError, OutputError, PredictorError, UsageError
from flarekit.core.package import PACKAGE
from flarekit.core.spec import PredictorFolder, PredictorSpec
from flarekit.images.build_faults import build_fix
from flarekit.segmentation.inputs import settings_for
from flarekit.segmentation.predictors import check_trust, find_predictor, hash_state

BASE = "python:3.11-slim-bookworm"
PREDICTOR_LABEL = "flarekit.predictor"
_LISTS = Path(__file__).parent / "docker"  # of what images leave behind
_CONTEXT = ("Dockerfile", "predict.sh", "pyproject.toml", "README.md", "LICENSE")
_TARGETS = {
    (False, "cuda"): "flare",
    (False, "cpu"): "cpu",
    (True, "cuda"): "gc",
    (True, "cpu"): "gc-cpu",
}
_LAST_LINES, _SHOWN_LINES = 200, 12
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # of what a step says; it would be shown as text
_SHARE_OF_CAP = 0.9  # of the time after which a run is ended, for a container to start and end
# NVIDIA's compiler is on PyPI for CUDA 13 alone, so that mamba-ssm is built for a torch with it
_WITH_MAMBA = {
    "MAMBA": "1",
    "CUDA_TORCH": "2.11.0",
    "CUDA": "13.0",
    "CUDA_ARCHITECTURES": "sm_75 sm_80 sm_86 sm_90 sm_100 sm_120",
    "CUDA_DRIVER": "580.65.06",
}
Device = Literal["cpu", "cuda"]


class BuildError(FlarekitError):
    """Docker could not build the image."""


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What to build.

    Attributes:
        predictor: a name or a folder.
        convention: its name; the predictor's own where None.
        tag: of the image.
        preset: an edition of the convention's challenge, whose limits the image keeps.
        device: `cpu` leaves torch and CUDA out; what the convention's images run on where None.
        base: image to start from.
        torch_index: package index that the torch for this device comes from; PyPI where None.
        mamba: build mamba-ssm's kernel in, for GPUs; takes long, and a torch with CUDA 13.
        network: of the build; it installs packages.
        trust: the image may execute what the predictor names: a class of its own, TorchScript.
    """

    predictor: str
    convention: str | None
    tag: str
    preset: str | None = None
    device: Device | None = None
    base: str = BASE
    torch_index: str | None = None
    mamba: bool = False
    network: str = "host"
    trust: bool = False

    @property
    def is_valid_tag(self) -> bool:
        """Whether Docker takes the tag."""
        return re.fullmatch(r"[a-z0-9][a-z0-9._/:-]*(:[\w][\w.-]*)?", self.tag) is not None


def build(request: BuildRequest, *, say: Callable[[str], None] = lambda _: None) -> ImageFacts:
    """Build an image and return its facts.

    Args:
        request: what to build.
        say: takes Docker's lines.

    Raises:
        UsageError: no such predictor or convention, or a tag that Docker refuses.
        PredictorError: weights that are not whole, or a predictor that does not suit the
            convention.
        DockerError: no engine.
        BuildError: Docker's own build failed; its last lines are in the message.
        OutputError: there is no space for what the image is built from.
    """
    if not request.is_valid_tag:
        raise UsageError(
            f"{request.tag!r} is not a tag that Docker takes",
            fix="write it in lower case, such as team or team:latest",
        )
    predictor = find_predictor(request.predictor, trust=request.trust)
    convention = request.convention or predictor.spec.convention
    facts = task_facts(predictor.spec, convention)
    budget_arguments(convention, request.preset)
    _check_edition(predictor, convention, request.preset)
    request = replace(request, device=request.device or conventions.facts_of(convention).device)
    _check_network(predictor, request.device)
    if request.mamba and request.device != "cuda":
        raise UsageError("mamba-ssm's kernel is for GPUs", fix="build with --cuda")
    state = hash_state(predictor)
    if state != "ok":
        raise PredictorError(
            f"{predictor.weights}: weights are {state}", fix="see flarekit weights verify"
        )
    require_engine()
    as_user = conventions.facts_of(convention).runs_as == "user"
    target = _TARGETS[as_user, request.device or "cuda"]
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        try:
            write_context(predictor, context)
        except OSError as error:
            raise OutputError(
                f"{context}: what the image is built from cannot be copied there: {error}",
                fix="make room there, or name another folder with TMPDIR",
            ) from error
        _docker_build(request, predictor.folder.name, convention, facts, target, context, say)
    return inspect_image(request.tag)


def _check_network(predictor: PredictorFolder, device: Device | None) -> None:
    """Refuse a network that the image could not run.

    Raises:
        PredictorError: it would execute something and is not trusted; its class lies outside the
            folder; an ONNX file in an image for a GPU.
    """
    facts, own = predictor.folder / "predictor.toml", check_trust(predictor)
    if own is not None and own.file is None:
        raise PredictorError(
            f"{facts}: the module {own.module} is not in the folder, and so not in the image",
            fix=f"put {own.module.split('.')[-1]}.py beside predictor.toml",
        )
    if predictor.spec.architecture.name == "onnx" and device == "cuda":
        raise PredictorError(
            f"{facts}: an ONNX network runs on a CPU", fix="build with --cpu, or save TorchScript"
        )


def _check_edition(predictor: PredictorFolder, convention: str, preset: str | None) -> None:
    """Refuse a predictor whose masks hold what those of an edition do not.

    Raises:
        PredictorError: so it is.
    """
    organiser = conventions.facts_of(convention)
    wanted = organiser.edition_values.get(preset or "")
    labels = predictor.spec.mask_labels
    foreign = sorted(set(labels.values()) - set(wanted or labels.values()))
    if foreign:
        held = ", ".join(f"{name} {value}" for name, value in labels.items() if value in foreign)
        raise PredictorError(
            f"{predictor.folder / 'predictor.toml'}: masks of {preset} hold "
            f"{' and '.join(map(str, wanted or ()))}, and this predictor's hold {held}",
            fix="build a predictor with that edition's labels, or leave --preset out",
        )


def task_facts(spec: PredictorSpec, convention: str) -> dict[str, Any]:
    """Return what `flarekit verify` wants to know of the task, for the image's label.

    Raises:
        UsageError: no such convention.
        PredictorError: the predictor does not suit it.
    """
    settings = settings_for(spec, convention)
    conventions.get(convention, settings, labels=spec.labels)
    if convention == "grandchallenge" and not settings.get("outputs"):
        raise PredictorError(
            f"{spec.name}: does not say which outputs the algorithm declares",
            fix='in predictor.toml set convention = "grandchallenge" and add '
            "[[convention_settings.outputs]] with path and kind",
        )
    organiser = conventions.facts_of(convention)
    own = organiser.mask_values if organiser.one_label else spec.mask_labels.values()
    values = sorted(value for value in own if value)
    return {"values": values, "channels": len(spec.channels), "settings": settings}


def budget_arguments(convention: str, preset: str | None = None) -> dict[str, str]:
    """Return what an image is built to keep, 0 for no limit.

    Args:
        convention: whose organiser's tolerances count where no edition is named.
        preset: an edition, of which count nine tenths of the time after which it ends a run (its
            tolerance where it ends none) and its GPU memory.

    Raises:
        UsageError: the convention has no such edition.
    """
    facts = conventions.facts_of(convention)
    time_s, gpu_mib = facts.budget.time_s, facts.budget.gpu_memory_mib
    if preset is not None:
        limits = preset_of(preset, facts.limits)
        time_s = _SHARE_OF_CAP * limits.cap_s if limits.cap_s else limits.time_s
        gpu_mib = limits.gpu_mib
    named = {"TIME_BUDGET": time_s, "GPU_MEMORY_BUDGET": gpu_mib}
    return {name: f"{limit or 0:g}" for name, limit in named.items()}


def write_context(predictor: PredictorFolder, context: Path) -> None:
    """Lay out what the Dockerfile copies: the package, this one predictor, and nothing else.

    Raises:
        UsageError: the package was installed without its Dockerfile.
    """
    sources = [PACKAGE / "images" / "context", PACKAGE.parent]  # installed; a checkout
    source = next((each for each in sources if (each / "Dockerfile").is_file()), None)
    if source is None:
        raise UsageError("the Dockerfile is not beside the package", fix="install flarekit again")
    for name in _CONTEXT:
        shutil.copy(source / name, context / name)
    leave = shutil.ignore_patterns("__pycache__", "weights", "context", "web")
    shutil.copytree(PACKAGE, context / "flarekit", ignore=leave)
    leave = shutil.ignore_patterns("compiled", ".*")
    shutil.copytree(predictor.folder, context / "weights" / predictor.folder.name, ignore=leave)


def torch_arguments(request: BuildRequest) -> dict[str, str]:
    """Return where torch comes from, and which one where the Dockerfile's own does not do."""
    index = {"cpu": "TORCH_INDEX", "cuda": "CUDA_INDEX"}[request.device or "cuda"]
    arguments = {index: request.torch_index} if request.torch_index else {}
    return arguments | (_WITH_MAMBA if request.mamba else {})


def _docker_build(
    request: BuildRequest,
    name: str,
    convention: str,
    facts: dict[str, Any],
    target: str,
    context: Path,
    say: Callable[[str], None],
) -> None:
    labels = {
        CONVENTION_LABEL: convention,
        PREDICTOR_LABEL: name,
        FACTS_LABEL: json.dumps(facts),
    }
    arguments = {
        "BASE": request.base,
        "PREDICTOR": name,
        "CONVENTION": convention,
        **budget_arguments(convention, request.preset),
        "EXTRAS": conventions.facts_of(convention).extra,
        "TRUST": "1" if request.trust else "",
        "LEAVE": convention if (_LISTS / f"{convention}.packages.txt").is_file() else "",
        **torch_arguments(request),
    }
    line = ["docker", "build", "--network", request.network, "--target", target]
    line += ["--platform", "linux/amd64"] if sys.platform != "linux" else []
    line += [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
    line += [part for key, value in labels.items() for part in ("--label", f"{key}={value}")]
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(
        [*line, "-t", request.tag, str(context)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        for text in process.stdout or ():
            last.append(_COLOUR.sub("", text).rstrip())
            say(last[-1])
    if process.returncode:
        shown = list(last)[-_SHOWN_LINES:]
        raise BuildError("docker build failed:\n" + "\n".join(shown), fix=build_fix(list(last)))
