"""`flarekit verify`: every check of a convention on one image, and what they came to."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flarekit import conventions
from flarekit.containers import CONVENTION_LABEL, ImageFacts, RefusedError, Sandbox, SandboxError
from flarekit.containers.docker import DockerSandbox, require_engine
from flarekit.containers.docker_command import engine_fault
from flarekit.containers.saved_image import ENDINGS, read_archive
from flarekit.conventions.facts import preset_of
from flarekit.core.errors import FlarekitError, InputError, UsageError
from flarekit.core.files import is_full
from flarekit.core.registry import near_miss
from flarekit.images.stated_task import stated_task
from flarekit.verification.check import Check, Finding, fail, skip
from flarekit.verification.trials import ImageUnderTest, TaskFacts

_LOG = logging.getLogger(__name__)
_USUAL_RUN = "ends_well"
Backend = Literal["auto", "docker", "process"]


@dataclass(frozen=True, kw_only=True)
class VerifyRequest:
    """What is to be verified, and how.

    Attributes:
        image: its name, or the path of a saved tar.
        convention: whose checks; the image's label where None.
        user_inputs: a folder of inputs to run besides the generated ones.
        backend: `auto` is Docker where an engine answers, else processes.
        only: names of checks; all where empty.
        preset: an edition of the convention's challenge, whose limits and labels count.
        labels: values that masks may hold besides 0; the image's own, or the task's, where None.
        time_s: most seconds for a case; the preset's, or the convention's, where None.
        timeout_s: of one run.
        memory_mib: most memory of a run; the convention's where None.
        gpus: of Docker's `--gpus`.
    """

    image: str
    convention: str | None = None
    user_inputs: Path | None = None
    backend: Backend = "auto"
    only: tuple[str, ...] = ()
    preset: str | None = None
    labels: tuple[int, ...] | None = None
    time_s: float | None = None
    timeout_s: float = 600.0
    memory_mib: int | None = None
    gpus: str | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A check and its finding."""

    check: Check
    finding: Finding

    @property
    def fix(self) -> str:
        """What to do; empty where there is nothing."""
        return self.finding.fix or self.check.fix if self.finding.state in ("fail", "warn") else ""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """All verdicts on an image."""

    image: str
    convention: str
    sandbox: str
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(verdict.finding.state != "fail" for verdict in self.verdicts)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "image": self.image,
            "convention": self.convention,
            "sandbox": self.sandbox,
            "passed": self.passed,
            "checks": [
                {
                    "name": verdict.check.name,
                    "asserts": verdict.check.asserts,
                    "state": verdict.finding.state,
                    "reason": verdict.finding.reason,
                    "fix": verdict.fix,
                }
                for verdict in self.verdicts
            ],
        }


def verify(
    request: VerifyRequest, *, progress: Callable[[Verdict], None] = lambda _: None
) -> Verification:
    """Check an image.

    Args:
        request: what and how.
        progress: called after every check.

    Raises:
        UsageError: no such convention, check or backend.
        InputError: no such image or file.
        DockerError: no engine, where one is needed.
        SandboxError: images cannot be run here.
    """
    with open_sandbox(request) as sandbox, tempfile.TemporaryDirectory() as scratch:
        convention = request.convention or sandbox.facts.labels.get(CONVENTION_LABEL)
        if convention is None:
            raise UsageError(
                f"{request.image}: does not say which convention it follows",
                fix="add --convention NAME; flarekit conventions lists them",
            )
        checks = conventions.checks_of(convention)
        chosen = _chosen(checks.checks, request.only)
        task = _task_facts(request, convention, sandbox.facts)
        place = Path(scratch) / "work"
        image = ImageUnderTest(
            sandbox,
            checks.run_line,
            task,
            checks.write_sample,
            place,
            timeout_s=request.timeout_s,
        )
        verdicts = []
        try:
            for verdict in _verdicts(image, chosen):
                progress(verdict)
                verdicts.append(verdict)
        finally:
            sandbox.remove(place)
    return Verification(
        image=request.image,
        convention=convention,
        sandbox=sandbox.name,
        verdicts=tuple(verdicts),
    )


def _verdicts(image: ImageUnderTest, checks: Sequence[Check]) -> Iterator[Verdict]:
    runs_at_all = True
    for check in checks:
        if check.runs and check.name != _USUAL_RUN and runs_at_all:
            runs_at_all = image.base().failure is None
        if check.runs and check.name != _USUAL_RUN and not runs_at_all:
            finding = skip("the usual run fails")
        else:
            finding = _look(check, image)
        yield Verdict(check=check, finding=finding)


def _look(check: Check, image: ImageUnderTest) -> Finding:
    """Return what a check finds; an image that makes it stumble has failed it.

    Raises:
        SandboxError: this machine cannot run the image, or has no space for what runs leave.
    """
    try:
        return check.look(image)
    except RefusedError as error:
        return skip(error.message)
    except SandboxError:
        raise
    except FlarekitError as error:
        return fail(error.message)
    except OSError as error:
        if is_full(error):
            raise SandboxError(
                f"{tempfile.gettempdir()}: no space left for the runs of {check.name}",
                fix="make room there, or name another folder with TMPDIR",
            ) from error
        return _stumbled(check, error)
    except Exception as error:  # noqa: BLE001 - the other verdicts must not be lost to odd output
        return _stumbled(check, error)


def _stumbled(check: Check, error: Exception) -> Finding:
    _LOG.debug("%s", check.name, exc_info=error)
    return fail(f"what it wrote cannot be judged: {type(error).__name__}: {error}")


def _chosen(checks: Sequence[Check], only: Sequence[str]) -> list[Check]:
    known = [check.name for check in checks]
    for name in only:
        if name not in known:
            raise UsageError(f"no check {name!r}", fix=near_miss(name, known))
    return [check for check in checks if not only or check.name in only]


def _task_facts(request: VerifyRequest, convention: str, facts: ImageFacts) -> TaskFacts:
    """Gather what is known of the image's task: from the request, its labels, the convention."""
    stated = stated_task(facts, convention)
    organiser = conventions.facts_of(convention)
    values = organiser.mask_values if stated.values is None else stated.values
    time_s, memory_mib = organiser.budget.time_s, None
    if request.preset is not None:
        limits = preset_of(request.preset, organiser.limits)
        values = organiser.edition_values.get(request.preset, values)
        time_s = limits.cap_s or limits.time_s
        memory_mib = None if limits.ram_mib is None else int(limits.ram_mib)
    return TaskFacts(
        values=frozenset({0, *(values if request.labels is None else request.labels)}),
        time_s=time_s if request.time_s is None else request.time_s or None,
        user_inputs=request.user_inputs,
        memory_mib=request.memory_mib or memory_mib,
        gpus=request.gpus,
        settings=stated.settings,
        label_faults=stated.faults,
    )


def _is_tar(image: str) -> bool:
    return image.endswith(ENDINGS) or Path(image).is_file()


@contextmanager
def open_sandbox(request: VerifyRequest) -> Iterator[Sandbox]:
    """Give a sandbox for the image, and remove what was made for it.

    Raises:
        InputError: there is no such tar, or only a tar can be run here.
        DockerError: Docker was asked for, and does not answer.
    """
    backend = request.backend
    fault = engine_fault() if backend == "auto" else None
    if backend == "auto":
        backend = "docker" if fault is None else "process"
    if fault is not None:
        _LOG.warning("%s: images run as processes", fault)
    if _is_tar(request.image) and not Path(request.image).is_file():
        raise InputError(f"{request.image}: is not there", fix="name a saved tar, or an image")
    with tempfile.TemporaryDirectory() as folder:
        image = request.image
        sandbox = _open_docker(image) if backend == "docker" else _open_process(image, Path(folder))
        try:
            yield sandbox
        finally:
            sandbox.close()


def _open_docker(image: str) -> Sandbox:
    require_engine()
    if _is_tar(image):
        return DockerSandbox(image, read_archive(Path(image)))
    return DockerSandbox(image)


def _open_process(image: str, folder: Path) -> Sandbox:
    from flarekit.containers.process import ProcessSandbox

    if not _is_tar(image):
        raise InputError(
            f"{image}: without a Docker engine only a saved tar can be verified",
            fix="name the file that flarekit save or docker save has made",
        )
    return ProcessSandbox(read_archive(Path(image)), folder)
