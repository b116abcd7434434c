"""The Docker engine, through its command: images by name, runs under an organiser's conditions."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flarekit.core.errors import InputError
from flarekit.packaging.archive import facts_of
from flarekit.packaging.sandboxes import Conditions, ImageFacts, Outcome, Run, SandboxError
from flarekit.packaging.sandboxes.course import usage_of
from flarekit.packaging.sandboxes.network import NetworkTries
from flarekit.profiler.container import DockerError

_SAMPLE_S = 0.1
_LOST = 125  # docker's own exit code: the container was never started


def docker(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the docker command."""
    return subprocess.run(
        ["docker", *arguments], input=stdin, capture_output=True, text=True, check=False
    )


def engine_fault() -> str | None:
    """Return why there is no Docker engine to work with; None where there is one."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    version = docker("version", "--format", "{{.Server.Version}}")
    return (
        f"the Docker engine does not answer: {_last(version.stderr)}"
        if version.returncode
        else None
    )


def require_engine() -> None:
    """Check that there is a Docker engine.

    Raises:
        DockerError: there is none, or it does not answer.
    """
    fault = engine_fault()
    if fault is not None:
        raise DockerError(fault, fix="install Docker or start it, and check that you may use it")


def inspect_image(name: str) -> ImageFacts:
    """Return the facts of an image that the engine has.

    Raises:
        InputError: it has no such image.
    """
    found = docker("image", "inspect", name)
    if found.returncode:
        raise InputError(
            f"image {name}: {_last(found.stderr)}",
            fix="build it with flarekit build, or name one of docker image ls",
        )
    config: dict[str, Any] = json.loads(found.stdout)[0]
    return facts_of(config, tuple(config.get("RepoTags") or ()), int(config["Size"]))


def load_image(path: Path) -> str:
    """Load a saved tar into the engine and return the image's name, or its id where it has none.

    Raises:
        InputError: the engine refuses it.
    """
    loaded = docker("image", "load", "--input", str(path))
    name = loaded.stdout.strip().rpartition(": ")[2]
    if loaded.returncode or not name:
        raise InputError(
            f"{path}: docker load refuses it: {_last(loaded.stderr)}", fix="save the image again"
        )
    return name


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """How a container ended."""

    seconds: float
    timed_out: bool
    stopped_after_s: float | None
    peak_mib: float | None
    network_tries: int | None


class DockerSandbox:
    """Runs one image by the Docker engine.

    Args:
        image: its name.
        archive: the tar that it was loaded from; None where the engine had it.
    """

    name = "docker"

    def __init__(self, image: str, archive: Path | None = None) -> None:
        self.facts = inspect_image(image)
        self.archive = archive
        self._image = image
        self._linked: dict[tuple[tuple[str, str], ...], str] = {}

    def refuses(self, run: Run) -> str | None:
        """Return None: the engine makes all conditions."""
        del run
        return None  # noqa: RET501 - the protocol's answer

    def run(self, run: Run) -> Outcome:
        """Run a container and remove it.

        Raises:
            SandboxError: no symbolic link could be put into the image.
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
        if created.returncode:  # it has no command, say: an answer about the image
            said = created.stderr.partition("See 'docker")[0]
            return Outcome(exit_code=_LOST, stdout="", stderr=said, seconds=0.0)
        try:
            outcome = self._started(name, run)
        finally:
            docker("rm", "--force", "--volumes", name)
        return outcome

    def _started(self, name: str, run: Run) -> Outcome:
        started = docker("start", name)
        if started.returncode:  # its command is not in the image: an answer about the image
            return Outcome(exit_code=127, stdout="", stderr=started.stderr, seconds=0.0)
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
            network_tries=ended.network_tries,
        )

    def _with_links(self, linked: Mapping[str, str]) -> str:
        """Return an image that is the same but for symbolic links."""
        key = tuple(sorted(linked.items()))
        if key not in self._linked:
            lines = [f"FROM {self._image}", "USER 0"]
            lines += [f"RUN rm -rf {path} && ln -s {target} {path}" for path, target in key]
            lines += [f"USER {self.facts.user or '0'}"]
            tag = f"flarekit-verify:{uuid.uuid4().hex[:12]}"
            built = docker(
                "build", "--force-rm", "--network", "none", "-t", tag, "-", stdin="\n".join(lines)
            )
            if built.returncode:
                raise SandboxError(
                    f"no symbolic link could be put into the image: {_last(built.stderr)}",
                    fix="the image needs /bin/sh, rm and ln for this",
                )
            self._linked[key] = tag
        return self._linked[key]

    def remove(self, folder: Path) -> None:
        """Remove a folder, through a container where files of another user are in it."""
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            command = ["--entrypoint", "/bin/sh", self._image, "-c", "rm -rf /remove/*"]
            docker("run", "--rm", "--user", "0", "-v", f"{folder}:/remove", *command)
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove the images that were made for links."""
        for tag in self._linked.values():
            docker("image", "rm", "--force", tag)
        self._linked.clear()


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
        ("--gpus", conditions.gpus),
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
    peak: float | None = None
    signalled: float | None = None
    timed_out = False
    with NetworkTries(0 if run.conditions.network else pid) as tries:
        while not over.wait(_SAMPLE_S):
            now = time.monotonic() - began
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
        network_tries=network_tries,
    )


def _state(name: str) -> dict[str, Any]:
    found = docker("inspect", "--format", "{{json .State}}", name)
    state: dict[str, Any] = json.loads(found.stdout) if found.returncode == 0 else {}
    return {"Pid": 0, "ExitCode": _LOST, "OOMKilled": False, **state}


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
