"""The Docker engine, through its command: images by name, runs under an organiser's conditions."""

import logging
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from flarekit.containers import Conditions, ProcessResult, Run, SandboxError
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
from flarekit.containers.docker_run import ContainerRun
from flarekit.containers.sandboxed_process import NOT_STARTED
from flarekit.containers.saved_image import Archive

_LOG = logging.getLogger(__name__)


def require_engine() -> None:
    """Check that there is a Docker engine.

    Raises:
        DockerError: there is none, or it does not answer.
    """
    fault = engine_fault()
    if fault is not None:
        raise DockerError(fault, fix="install Docker or start it, and check that you may use it")


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

    def run(self, run: Run) -> ProcessResult:
        """Run a container and remove it.

        Raises:
            SandboxError: no symbolic link could be put into the image, or Docker cannot make these
                conditions on this machine.
        """
        image = self._with_links(run.linked) if run.linked else self._image
        name = f"flarekit_verify_{uuid.uuid4().hex[:12]}"
        line = ["docker", "run", "--pull", "never", "--name", name, *_flags(run.conditions)]
        if run.conditions.read_only:
            line += ["--tmpfs", "/tmp:exec,mode=1777"]
        for mount in run.mounts:
            line += ["-v", f"{mount.here}:{mount.there}:{'rw' if mount.writable else 'ro'}"]
        if run.entrypoint is not None:
            line += ["--entrypoint", run.entrypoint]
        container = ContainerRun(name, [*line, image, *(run.command or ())], observe=True)
        try:
            with tempfile.TemporaryDirectory() as folder:
                result = container.run(
                    Path(folder, "stdout"),
                    Path(folder, "stderr"),
                    timeout_s=run.timeout_s,
                    terminate_after_s=run.terminate_after_s,
                )
            if result.not_started:
                return _not_started(result)
            killed = docker("inspect", "--format", "{{.State.OOMKilled}}", name)
            out_of_memory = result.out_of_memory or killed.stdout.strip() == "true"
            tries = None if run.conditions.network else result.network_tries
            return replace(result, out_of_memory=out_of_memory, network_tries=tries)
        finally:
            docker("rm", "--force", "--volumes", name)

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
                reason = reason_in(built.stderr)
                raise SandboxError(
                    f"no symbolic link could be put into the image: {reason}",
                    fix=machine_fix(reason) or "the image needs /bin/sh, rm and ln for this",
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


def _not_started(result: ProcessResult) -> ProcessResult:
    """Return the result of a container that Docker did not start for a reason in the image.

    Raises:
        SandboxError: the reason is this machine's, or the options'.
    """
    fix = machine_fix(result.not_started)
    if fix is not None:
        raise SandboxError(f"Docker cannot run the image as asked: {result.not_started}", fix=fix)
    return replace(result, exit_code=NOT_STARTED)


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
