"""The Docker engine, through its command: images by name, runs under an organiser's conditions."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flarekit.containers import Conditions, Outcome, Run, SandboxError
from flarekit.containers.cgroup_figures import Cgroup, cgroup_of, kernel_peak_mib
from flarekit.containers.docker_command import (
    DockerError,
    as_root,
    docker,
    engine_fault,
    gpus_argument,
    machine_fix,
    open_up,
    reason_in,
)
from flarekit.containers.docker_images import inspect_image, load_image
from flarekit.containers.follow import usage_of
from flarekit.containers.network import NetworkTries
from flarekit.containers.saved_image import Archive
from flarekit.core.readings import Unsupported

_LOG = logging.getLogger(__name__)
_SAMPLE_S = 0.1
_PEAK_S = 0.02  # the kernel's own peak is gone with the container, and cheap to read
_LOST = 125  # docker's own exit code: the container was never started


def require_engine() -> None:
    """Check that there is a Docker engine.

    Raises:
        DockerError: there is none, or it does not answer.
    """
    fault = engine_fault()
    if fault is not None:
        raise DockerError(fault, fix="install Docker or start it, and check that you may use it")


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """How a container ended."""

    seconds: float
    timed_out: bool
    stopped_after_s: float | None
    peak_mib: float | None
    kernel_peak_mib: float | None
    network_tries: int | None


class DockerSandbox:
    """Runs one image by the Docker engine.

    Args:
        image: its name.
        archive: the tar to load it from; None where the engine has it.

    Raises:
        InputError: no such image, or the engine refuses the tar.
    """

    name = "docker"

    def __init__(self, image: str, archive: Archive | None = None) -> None:
        self._loaded = None if archive is None else load_image(archive)
        self._image = image if self._loaded is None else self._loaded.reference
        self.facts = inspect_image(self._image)
        self.archive = None if archive is None else archive.path
        if archive is not None:  # the engine may know the same image by more names
            self.facts = replace(self.facts, names=archive.images[0].names)
        self._linked: dict[tuple[tuple[str, str], ...], str] = {}

    def refuses(self, run: Run) -> str | None:
        """Return None: the engine makes all conditions."""
        del run
        return None  # noqa: RET501 - the protocol's answer

    def run(self, run: Run) -> Outcome:
        """Run a container and remove it.

        Raises:
            SandboxError: no symbolic link could be put into the image, or Docker cannot make these
                conditions on this machine.
        """
        image = self._with_links(run.linked) if run.linked else self._image
        name = f"flarekit_verify_{uuid.uuid4().hex[:12]}"
        line = ["create", "--name", name, *_flags(run.conditions)]
        if run.conditions.read_only:
            line += ["--tmpfs", "/tmp:exec,mode=1777"]
        for mount in run.mounts:
            line += ["-v", f"{mount.here}:{mount.there}:{'rw' if mount.writable else 'ro'}"]
        if run.entrypoint is not None:
            line += ["--entrypoint", run.entrypoint]
        created = docker(*line, image, *(run.command or ()))
        if created.returncode:
            return _not_started(created.stderr, _LOST)
        try:
            started = docker("start", name)
            if started.returncode:
                return _not_started(started.stderr, 127)
            return self._ended(name, run)
        finally:
            docker("rm", "--force", "--volumes", name)

    def _ended(self, name: str, run: Run) -> Outcome:
        ended = _watch(name, run)
        state = _state(name)
        logs = docker("logs", name)
        return Outcome(
            exit_code=int(state["ExitCode"]),
            stdout=logs.stdout,
            stderr=logs.stderr,
            seconds=ended.seconds,
            timed_out=ended.timed_out,
            stopped_after_s=ended.stopped_after_s,
            out_of_memory=bool(state["OOMKilled"]),
            peak_mib=ended.peak_mib,
            kernel_peak_mib=ended.kernel_peak_mib,
            network_tries=ended.network_tries,
        )

    def _with_links(self, linked: Mapping[str, str]) -> str:
        """Return an image that is the same but for symbolic links."""
        key = tuple(sorted(linked.items()))
        if key not in self._linked:
            base = self._image
            if base.startswith("sha256:"):  # BuildKit takes names alone
                base = self._linked.setdefault((), f"flarekit-verify:{uuid.uuid4().hex[:12]}")
                docker("image", "tag", self._image, base)
            lines = [f"FROM {base}", "USER 0"]
            lines += [f"RUN rm -rf {path} && ln -s {target} {path}" for path, target in key]
            lines += [f"USER {self.facts.user or '0'}"]
            tag = f"flarekit-verify:{uuid.uuid4().hex[:12]}"
            built = docker(
                "build", "--force-rm", "--network", "none", "-t", tag, "-", stdin="\n".join(lines)
            )
            if built.returncode:
                raise SandboxError(
                    f"no symbolic link could be put into the image: {reason_in(built.stderr)}",
                    fix="the image needs /bin/sh, rm and ln for this",
                )
            self._linked[key] = tag
        return self._linked[key]

    def open_up(self, folder: Path) -> bool:
        """Let everybody read a folder with what runs have left in it, through a container."""
        return open_up(self._image, folder)

    def remove(self, folder: Path) -> None:
        """Remove a folder, through a container where files of another user are in it."""
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            as_root(self._image, folder, "rm -rf /opened/* /opened/.[!.]* /opened/..?*")
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove the images that were made for links, and one that came from a tar and has no name.

        An image that the tar brought under a name of its own stays.
        """
        for tag in self._linked.values():
            docker("image", "rm", "--force", tag)
        self._linked.clear()
        if self._loaded is not None and self._loaded.is_new:
            names = docker("image", "inspect", "--format", "{{len .RepoTags}}", self._image)
            if names.stdout.strip() == "0":
                docker("image", "rm", self._image)


def _not_started(said: str, exit_code: int) -> Outcome:
    """Return the outcome of a container that Docker did not start for a reason in the image.

    Raises:
        SandboxError: the reason is this machine's, or the options'.
    """
    reason = reason_in(said)
    fix = machine_fix(reason)
    if fix is not None:
        raise SandboxError(f"Docker cannot run the image as asked: {reason}", fix=fix)
    return Outcome(
        exit_code=exit_code, stdout="", stderr=f"{reason}\n", seconds=0.0, not_started=reason
    )


def _flags(conditions: Conditions) -> list[str]:
    """Return the options of `docker create`."""
    flags = ["--network", "host" if conditions.network else "none"]
    flags += ["--shm-size", f"{conditions.shm_mib}m"]
    if not conditions.capabilities:
        flags += ["--cap-drop", "ALL"]
    if not conditions.new_privileges:
        flags += ["--security-opt", "no-new-privileges"]
    if conditions.read_only:
        flags += ["--read-only"]
    if conditions.memory_mib is not None:
        limit = f"{conditions.memory_mib}m"
        flags += ["--memory", limit, "--memory-swap", limit]
    if conditions.data_mib is not None:
        flags += ["--ulimit", f"data={conditions.data_mib * 2**20}"]
    for option, value in (
        ("--pids-limit", conditions.pids),
        ("--user", conditions.user),
        ("--gpus", None if conditions.gpus is None else gpus_argument(conditions.gpus)),
    ):
        if value is not None:
            flags += [option, str(value)]
    return flags


def _watch(name: str, run: Run) -> _Ended:
    """Wait until a container has ended; signal it, and kill it, when it is time."""
    began = time.monotonic()
    over = threading.Event()

    def wait() -> None:
        docker("wait", name)
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    pid = int(_state(name)["Pid"])
    group = cgroup_of(pid) if pid else Unsupported(not_supported="it is over")
    peak: float | None = None
    kernel_peak: float | None = None
    signalled: float | None = None
    timed_out = False
    sample_s = 0.0
    with NetworkTries(0 if run.conditions.network else pid) as tries:
        while not over.wait(_PEAK_S):
            now = time.monotonic() - began
            kernel_peak = _higher(kernel_peak, group)
            if now >= sample_s:
                sample_s = now + _SAMPLE_S
                usage = usage_of(pid) if pid else None
                if usage is not None:
                    peak = max(peak or 0.0, usage.resident_mib)
            due = signalled is None and now > (run.terminate_after_s or float("inf"))
            if due and not docker("kill", "--signal", "TERM", name).returncode:
                signalled = time.monotonic() - began
            if now > run.timeout_s:
                timed_out = True
                docker("kill", name)
                over.wait(30)
        network_tries = tries.count()
    seconds = time.monotonic() - began
    return _Ended(
        seconds=seconds,
        timed_out=timed_out,
        stopped_after_s=None if signalled is None else seconds - signalled,
        peak_mib=peak,
        kernel_peak_mib=kernel_peak,
        network_tries=network_tries,
    )


def _higher(peak_mib: float | None, group: Cgroup | Unsupported) -> float | None:
    """Return the kernel's peak, or the one before where the group is gone or does not tell."""
    found = kernel_peak_mib(group) if isinstance(group, Cgroup) else group
    return peak_mib if isinstance(found, Unsupported) else found


def _state(name: str) -> dict[str, Any]:
    found = docker("inspect", "--format", "{{json .State}}", name)
    state: dict[str, Any] = json.loads(found.stdout) if found.returncode == 0 else {}
    return {"Pid": 0, "ExitCode": _LOST, "OOMKilled": False, **state}
