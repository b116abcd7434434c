"""A container, run by the organisers' line, as something to watch."""

import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from flarekit.containers import CONVENTION_LABEL, ProcessResult, RunLine
from flarekit.containers.cgroup_figures import Cgroup
from flarekit.containers.docker_command import (
    DockerError,
    docker,
    engine_fault,
    first_device,
    gpus_argument,
    machine_fix,
    open_up,
)
from flarekit.containers.docker_images import inspected
from flarekit.containers.docker_run import ContainerRun
from flarekit.core.readings import Unsupported
from flarekit.profiler.probes.cgroup import CgroupProbe
from flarekit.profiler.probes.host import HostProbe
from flarekit.profiler.probes.nvml import NvmlProbe
from flarekit.profiler.probes.processes import ProcessesProbe
from flarekit.profiler.readings import Probe

PREDICT = "sh predict.sh"
INSIDE = "/workspace/inside"  # where a run may leave its ledger, for the time of its steps
_STATE_VARIABLE = "FLAREKIT_STATE"


@dataclass(frozen=True, kw_only=True)
class ContainerOptions:
    """What the organisers put on the run line.

    Attributes:
        image: name with tag.
        gpus: of `--gpus`; None for no GPU.
        memory: of `-m`; None for no limit.
        shm_size: of `--shm-size`; None for Docker's 64 MB.
        network: of `--network`; None for Docker's default.
        script: what bash runs; None for the image's own command.
        inputs: the organisers' folder for inputs.
        outputs: and for outputs.
        further: other options of the organisers' line.
        writable_inputs: whether the container may write into the folder for inputs.
    """

    image: str
    gpus: str | None = None
    memory: str | None = None
    shm_size: str | None = None
    network: str | None = None
    script: str | None = PREDICT
    inputs: str = "/workspace/inputs"
    outputs: str = "/workspace/outputs"
    further: tuple[str, ...] = ()
    writable_inputs: bool = True

    @classmethod
    def of(
        cls,
        line: RunLine,
        image: str,
        *,
        gpus: str | None = None,
        memory: str | None = None,
        shm_size: str | None = None,
        network: str | None = None,
        edition_mib: float | None = None,
    ) -> Self:
        """Return the options of an organiser's line.

        Args:
            line: the organiser's. Of one that runs a script nothing but the folders is taken: its
                limits differ from edition to edition.
            image: name with tag.
            gpus: for no GPU None.
            memory: of `-m`, in place of the line's.
            shm_size: of `--shm-size`, in place of the line's.
            network: of `--network`, in place of the line's.
            edition_mib: memory that one edition gives, in place of the line's.
        """
        memory = memory or (None if edition_mib is None else f"{edition_mib:.0f}m")
        if line.command is not None:
            return cls(
                image=image,
                gpus=gpus,
                memory=memory,
                shm_size=shm_size,
                network=network,
                inputs=line.inputs,
                outputs=line.outputs,
            )
        limits = line.conditions
        further = [] if limits.capabilities else ["--cap-drop", "ALL"]
        further += [] if limits.new_privileges else ["--security-opt", "no-new-privileges"]
        further += [] if limits.pids is None else ["--pids-limit", str(limits.pids)]
        own_memory = None if limits.memory_mib is None else f"{limits.memory_mib}m"
        return cls(
            image=image,
            gpus=gpus,
            memory=memory or own_memory,
            shm_size=shm_size or f"{limits.shm_mib}m",
            network=network or (None if limits.network else "none"),
            script=None,
            inputs=line.inputs,
            outputs=line.outputs,
            further=tuple(further),
            writable_inputs=line.writable_inputs,
        )

    @property
    def team(self) -> str:
        """The image's name without registry and tag, as the organisers call the team."""
        return self.image.rpartition("/")[2].partition("@")[0].partition(":")[0]

    @property
    def watched_gpu(self) -> str:
        """The device that `--gpus` names, the first where it names several; 0 where none."""
        return first_device(self.gpus)

    def line(self, name: str, volumes: dict[Path, str]) -> list[str]:
        """Return the run line.

        Args:
            name: of the container.
            volumes: folder here -> folder inside.
        """
        stated = [
            ("--gpus", None if self.gpus is None else gpus_argument(self.gpus)),
            ("--shm-size", self.shm_size),
            ("-m", self.memory),
            ("--network", self.network),
            ("--name", name),
        ]
        given = [part for flag, value in stated if value is not None for part in (flag, value)]
        locked = () if self.writable_inputs else (self.inputs,)
        mounts = []
        for here, there in volumes.items():
            mounts += ["-v", f"{here}/:{there}/{':ro' if there in locked else ''}"]
        if INSIDE in volumes.values():
            mounts += ["-e", f"{_STATE_VARIABLE}={INSIDE}"]
        shell = [] if self.script is None else ["/bin/bash", "-c", self.script]
        options = [*given, *self.further, "--rm", *mounts]
        return ["docker", "container", "run", *options, self.image, *shell]


class ContainerTarget:
    """One container with its control group.

    Args:
        options: of the run line.
        volumes: folder here -> folder inside.
        log: file for what it says.
    """

    def __init__(self, options: ContainerOptions, volumes: dict[Path, str], log: Path) -> None:
        name = f"flarekit_profile_{uuid.uuid4().hex[:12]}"
        self._image = options.image
        self._container = ContainerRun(name, options.line(name, volumes))
        self._log = log
        self._pids: frozenset[int] = frozenset()

    def probes(self, gpu: str) -> list[Probe]:
        """Return probes of the group, its processes, the GPU and the host."""
        return [
            CgroupProbe(lambda: self._container.cgroup, lambda: self._container.kernel_peak_mib),
            ProcessesProbe(self._look),
            NvmlProbe(gpu, self._known_pids),
            HostProbe(),
        ]

    def run(self, timeout_s: float | None) -> ProcessResult:
        """Run the container; when its time is up it is killed."""
        result = self._container.run(self._log, self._log, timeout_s=timeout_s)
        fix = machine_fix(result.not_started)
        if fix is None:
            return result
        return replace(result, not_started=f"{result.not_started} ({fix})")

    def open_up(self, folder: Path) -> bool:
        """Let everybody read a folder with what it has left, through another container."""
        return open_up(self._image, folder)

    def _known_pids(self) -> frozenset[int] | None:
        return None if isinstance(self._container.cgroup, Unsupported) else self._pids

    def _look(self) -> frozenset[int]:
        """Return the processes of the group."""
        if isinstance(self._container.cgroup, Cgroup):
            try:
                members = self._container.cgroup.memory / "cgroup.procs"
                with open(members, "rb", buffering=0) as stream:  # noqa: PTH123 - ten times a second
                    self._pids = frozenset(map(int, stream.read().split()))
            except OSError:
                self._pids = frozenset()  # it is over
        return self._pids


def check_engine(image: str) -> dict[str, str]:
    """Return facts of the Docker engine and an image, and the convention that its label names.

    Raises:
        DockerError: no engine that answers.
        InputError: no such image.
    """
    fault = engine_fault()
    if fault is not None:
        raise DockerError(fault, fix="install Docker or start it, or use profile run")
    version = docker("version", "--format", "{{.Server.Version}}")
    facts = inspected(image, fix="docker load -i TEAM.tar.gz, or name one of docker image ls")
    digests = facts.get("RepoDigests") or ["none: not from a registry"]
    label = (facts["Config"].get("Labels") or {}).get(CONVENTION_LABEL)
    return ({"convention": label} if label else {}) | {
        "docker": version.stdout.strip(),
        "image": image,
        "image_id": facts["Id"],
        "image_digest": ", ".join(digests),
        "image_size_mib": f"{facts['Size'] / 2**20:.0f}",
    }
