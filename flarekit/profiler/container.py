"""A container, run by the organisers' line, as something to watch."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flarekit.containers.cgroup_figures import Cgroup, cgroup_of, kernel_peak_mib
from flarekit.containers.docker_command import (
    NO_REASON,
    DockerError,
    docker,
    engine_fault,
    first_device,
    gpus_argument,
    machine_fix,
    open_up,
    reason_in,
)
from flarekit.core.errors import InputError
from flarekit.core.readings import Unsupported
from flarekit.profiler.command import last_line, wait_or_end
from flarekit.profiler.monitor import Ending
from flarekit.profiler.probes.cgroup import CgroupProbe
from flarekit.profiler.probes.host import HostProbe
from flarekit.profiler.probes.nvml import NvmlProbe
from flarekit.profiler.probes.processes import ProcessesProbe
from flarekit.profiler.readings import Probe

PREDICT = "sh predict.sh"
PREDICT_WITH_STAGES = (
    "flarekit predict --input /workspace/inputs --output /workspace/outputs "
    "--report /workspace/inside"
)
_NOT_STARTED = (125, 126, 127)  # docker run's own exit codes, which a program may have too
_PEAK_S = 0.01
_EVENTS_END_S = 5.0  # how long the last events may take after the run


@dataclass(frozen=True, kw_only=True)
class ContainerOptions:
    """What the organisers put on the run line.

    Attributes:
        image: name with tag.
        gpus: of `--gpus`; None for no GPU.
        memory: of `-m`; None for no limit.
        shm_size: of `--shm-size`; None for Docker's 64 MB.
        network: of `--network`; None for Docker's default.
        script: what bash runs.
    """

    image: str
    gpus: str | None = None
    memory: str | None = None
    shm_size: str | None = None
    network: str | None = None
    script: str = PREDICT

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
        options = [
            ("--gpus", None if self.gpus is None else gpus_argument(self.gpus)),
            ("--shm-size", self.shm_size),
            ("-m", self.memory),
            ("--network", self.network),
            ("--name", name),
        ]
        given = [part for flag, value in options if value is not None for part in (flag, value)]
        mounts = [part for here, there in volumes.items() for part in ("-v", f"{here}/:{there}/")]
        shell = ["/bin/bash", "-c", self.script]
        return ["docker", "container", "run", *given, "--rm", *mounts, self.image, *shell]


class ContainerTarget:
    """One container with its control group.

    Args:
        options: of the run line.
        volumes: folder here -> folder inside.
        log: file for what it says.
    """

    def __init__(self, options: ContainerOptions, volumes: dict[Path, str], log: Path) -> None:
        self._name = f"flarekit_profile_{uuid.uuid4().hex[:12]}"
        self._image = options.image
        self._line = options.line(self._name, volumes)
        self._log = log
        self._cgroup: Cgroup | Unsupported | None = None
        self._pids: frozenset[int] = frozenset()
        self._started_at: float | None = None
        self._out_of_memory = False
        self._peak_mib: float | None = None

    def probes(self, gpu: str) -> list[Probe]:
        """Return probes of the group, its processes, the GPU and the host."""
        return [
            CgroupProbe(lambda: self._cgroup, lambda: self._peak_mib),
            ProcessesProbe(self._look),
            NvmlProbe(gpu, self._known_pids),
            HostProbe(),
        ]

    def run(self, timeout_s: float | None) -> Ending:
        """Run the container; when its time is up it is killed."""
        called = time.time()
        events = subprocess.Popen(
            [
                *("docker", "events", "--since", f"{called:.3f}", "--format", "{{json .}}"),
                *("--filter", f"container={self._name}"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        listener = threading.Thread(target=self._listen, args=(events,), daemon=True)
        listener.start()
        try:
            with self._log.open("wb") as log:
                process = subprocess.Popen(self._line, stdout=log, stderr=subprocess.STDOUT)
                code, _ = wait_or_end(process, timeout_s, lambda: self._end(process))
            if self._started_at is not None:
                listener.join(_EVENTS_END_S)
        finally:
            events.terminate()
            events.wait()
            listener.join()
        is_docker_s = code in _NOT_STARTED and self._started_at is None
        return Ending(
            exit_code=code,
            last_line=last_line(self._log),
            out_of_memory=self._out_of_memory,
            not_started=_why_not(self._log) if is_docker_s else "",
            started_s=None if self._started_at is None else max(0.0, self._started_at - called),
        )

    def open_up(self, folder: Path) -> bool:
        """Let everybody read a folder with what it has left, through another container."""
        return open_up(self._image, folder)

    def _listen(self, events: subprocess.Popen[bytes]) -> None:
        """Follow the container's life: its start tells its group, then what killed it."""
        if events.stdout is None:
            return
        with events.stdout:
            for line in events.stdout:
                event: dict[str, Any] = json.loads(line)
                happened = event.get("Action")
                if happened == "start":
                    self._started_at = event["timeNano"] / 1e9
                    self._cgroup = _cgroup_of(self._name)
                    if isinstance(self._cgroup, Cgroup):
                        threading.Thread(
                            target=self._follow_peak, args=(self._cgroup,), daemon=True
                        ).start()
                elif happened == "oom":
                    self._out_of_memory = True
                elif happened == "destroy":
                    return

    def _follow_peak(self, group: Cgroup) -> None:
        """Read the kernel's peak until the group is gone, and the figure with it."""
        while not isinstance(peak := kernel_peak_mib(group), Unsupported):
            self._peak_mib = peak
            time.sleep(_PEAK_S)

    def _known_pids(self) -> frozenset[int] | None:
        return None if isinstance(self._cgroup, Unsupported) else self._pids

    def _look(self) -> frozenset[int]:
        """Return the processes of the group."""
        if isinstance(self._cgroup, Cgroup):
            try:
                members = self._cgroup.memory / "cgroup.procs"
                with open(members, "rb", buffering=0) as stream:  # noqa: PTH123 - ten times a second
                    self._pids = frozenset(map(int, stream.read().split()))
            except OSError:
                self._pids = frozenset()  # it is over
        return self._pids

    def _end(self, client: subprocess.Popen[bytes]) -> None:
        """Kill the container; where there is none yet, give up on the client."""
        if docker("kill", self._name).returncode:
            client.terminate()


def _why_not(log: Path) -> str:
    """Return why Docker did not start a container, and what to do where that is known."""
    try:
        reason = reason_in(log.read_bytes().decode("utf-8", "replace"))
    except OSError:
        return NO_REASON
    fix = machine_fix(reason)
    return reason if fix is None else f"{reason} ({fix})"


def _cgroup_of(container: str) -> Cgroup | Unsupported | None:
    found = docker("inspect", "--format", "{{.State.Pid}}", container)
    if found.returncode or found.stdout.strip() == "0":
        return None  # over before we came
    group = cgroup_of(int(found.stdout))
    if isinstance(group, Cgroup) and not group.memory.is_dir():
        return Unsupported(not_supported=f"{group.memory} of the container is not seen from here")
    return group


def check_engine(image: str) -> dict[str, str]:
    """Return facts of the Docker engine and an image.

    Raises:
        DockerError: no engine that answers.
        InputError: no such image.
    """
    fault = engine_fault()
    if fault is not None:
        raise DockerError(fault, fix="install Docker or start it, or use profile run")
    version = docker("version", "--format", "{{.Server.Version}}")
    inspected = docker("image", "inspect", image)
    if inspected.returncode:
        raise InputError(
            f"image {image}: {reason_in(inspected.stderr)}",
            fix="docker load -i TEAM.tar.gz, or name one of docker image ls",
        )
    facts = json.loads(inspected.stdout)[0]
    digests = facts.get("RepoDigests") or ["none: not from a registry"]
    return {
        "docker": version.stdout.strip(),
        "image": image,
        "image_id": facts["Id"],
        "image_digest": ", ".join(digests),
        "image_size_mib": f"{facts['Size'] / 2**20:.0f}",
    }
