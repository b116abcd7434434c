"""A container, run by the organisers' line, as something to watch."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from flarekit.core.errors import FlarekitError, InputError
from flarekit.profiler.command import last_line, wait_or_end
from flarekit.profiler.probes.cgroup import Cgroup, CgroupProbe, cgroup_of
from flarekit.profiler.probes.host import HostProbe
from flarekit.profiler.probes.nvml import NvmlProbe
from flarekit.profiler.probes.processes import ProcessesProbe
from flarekit.profiler.readings import Probe, Unsupported
from flarekit.profiler.watch import Ending

PREDICT = "sh predict.sh"
PREDICT_WITH_STAGES = (
    "flarekit predict --input /workspace/inputs --output /workspace/outputs "
    "--report /workspace/inside"
)
_EVENTS_END_S = 5.0  # how long the last events may take after the run


class DockerError(FlarekitError):
    """No Docker engine that answers."""

    exit_code: ClassVar[int] = 5


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
        device = (self.gpus or "").partition("device=")[2].strip('"')
        return device.split(",")[0] or "0"

    def line(self, name: str, volumes: dict[Path, str]) -> list[str]:
        """Return the run line.

        Args:
            name: of the container.
            volumes: folder here -> folder inside.
        """
        options = [
            ("--gpus", _quoted(self.gpus)),
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
        self._line = options.line(self._name, volumes)
        self._log = log
        self._cgroup: Cgroup | Unsupported | None = None
        self._pids: frozenset[int] = frozenset()
        self._started_at: float | None = None
        self._out_of_memory = False

    def probes(self, gpu: str) -> list[Probe]:
        """Return probes of the group, its processes, the GPU and the host."""
        return [
            CgroupProbe(lambda: self._cgroup),
            ProcessesProbe(self._look),
            NvmlProbe(gpu, lambda: self._pids),
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
                code = wait_or_end(process, timeout_s, lambda: self._end(process))
            if self._started_at is not None:
                listener.join(_EVENTS_END_S)
        finally:
            events.terminate()
            events.wait()
            listener.join()
        return Ending(
            exit_code=code,
            last_line=last_line(self._log),
            out_of_memory=self._out_of_memory,
            started_s=None if self._started_at is None else max(0.0, self._started_at - called),
        )

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
                elif happened == "oom":
                    self._out_of_memory = True
                elif happened == "destroy":
                    return

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
        if _docker("kill", self._name).returncode:
            client.terminate()


def _quoted(gpus: str | None) -> str | None:
    """Docker takes a list of devices only in quotes of its own."""
    return f'"{gpus}"' if gpus is not None and "," in gpus else gpus


def _cgroup_of(container: str) -> Cgroup | Unsupported | None:
    found = _docker("inspect", "--format", "{{.State.Pid}}", container)
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
    if shutil.which("docker") is None:
        raise DockerError("docker is not installed", fix="install Docker, or use profile run")
    version = _docker("version", "--format", "{{.Server.Version}}")
    if version.returncode:
        raise DockerError(
            f"the Docker engine does not answer: {_last(version.stderr)}",
            fix="start it, and check that you may use it",
        )
    inspected = _docker("image", "inspect", image)
    if inspected.returncode:
        raise InputError(
            f"image {image}: {_last(inspected.stderr)}",
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


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
