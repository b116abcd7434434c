"""A saved image as a process in namespaces of its own, for machines without a Docker engine."""

import contextlib
import os
import platform
import posixpath
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from flarekit.containers import ImageFacts, Mount, ProcessResult, Run, SandboxError, bubblewrap
from flarekit.containers.accounts import Account, find_account
from flarekit.containers.bubblewrap import Program
from flarekit.containers.cgroups import make_groups
from flarekit.containers.follow import WatchedLimits, follow, limit_processes
from flarekit.containers.rootfs import open_up, remove, seen_as, staged, writable_root
from flarekit.containers.sandboxed_process import NOT_STARTED
from flarekit.containers.saved_image import Archive, read_archive
from flarekit.containers.unpack import Entry, inside, unpack
from flarekit.core.errors import InputError

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_CGROUP = "/sys/fs/cgroup"
_RUNNABLE = (b"#!", b"\x7fELF")
_USE_DOCKER = "verify with a Docker engine"


def available() -> str | None:
    """Return why images cannot be run as processes on this machine; None where they can."""
    fault = _fault()
    return None if fault is None else str(fault)


class ProcessSandbox:
    """Runs one saved image by bubblewrap, one run at a time.

    Like Docker: namespaces, capabilities, the image's user, variables, working folder and command;
    the program is process 1, so that SIGTERM does nothing to one that does not handle it. What
    differs:

    - **User.** As root, the image's users are the machine's, as in Docker. Without root there is
      one user, this one, shown as the one that was asked for. Files that the image gives to others
      lose their owner's rights for the run, so what Docker would refuse is refused. What a run
      leaves in a mount belongs to this user.
    - **Root.** What is written to it goes to an overlay and is dropped after the run; where none
      can be mounted, to a copy. With `read_only`, `/tmp` is an empty tmpfs. `/dev` is read-only but
      for `/dev/shm`.
    - **Processes.** Where control groups can be made (as root), one limits them. Elsewhere
      RLIMIT_NPROC does, in the run's user namespace (Linux 5.14): fork fails, as in Docker. A
      program that is truly root is exempt from that, so without control groups it is watched: ten
      times a second, and killed when it has too many, with a line at the end of its stderr.
    - **Memory.** Limited by a control group, or watched: when the resident memory of its processes
      adds up to more, the run is killed as out of memory. Programs find the limit where they find
      it in a container.
    - **Privileges.** `no_new_privs` is always set; Docker's seccomp filter and AppArmor profile are
      not there. Without root, capabilities count in the user namespace alone.
    - Extended attributes of files are not there; GPUs are refused.

    Args:
        archive: of `docker save`, read or its path; the first image in it is run.
        scratch: folder for the image's files and what runs write to its root.

    Raises:
        InputError: the archive is damaged, or holds no image.
        SandboxError: no image can be run here.
    """

    name = "process"

    def __init__(self, archive: Archive | Path, scratch: Path) -> None:
        self._read = read_archive(archive) if isinstance(archive, Path) else archive
        self.archive: Path | None = self._read.path
        if not self._read.images:
            raise InputError(f"{self.archive}: holds no image", fix="save the image again")
        self.facts: ImageFacts = self._read.images[0]
        fault = _fault()
        if fault is not None:
            raise SandboxError(fault.message, fix=fault.fix)
        self._place = Path(tempfile.mkdtemp(prefix="image_", dir=scratch))
        self._root = self._place / "root"
        self._entries: dict[Path, Entry] | None = None
        self._lock = threading.RLock()

    def refuses(self, run: Run) -> str | None:
        """Return what of these conditions cannot be made here; None where all can."""
        machine = _MACHINES.get(platform.machine(), platform.machine())
        if run.conditions.gpus is not None:
            return "the process sandbox has no GPUs to give"
        if self.facts.architecture not in ("", machine):
            return f"the image is made for {self.facts.architecture}, this machine is {machine}"
        with contextlib.suppress(InputError):  # no such user: an answer about the image
            fault = bubblewrap.fault_of(self._account(run).uid)
            return None if fault is None else fault.message
        return None

    def run(self, run: Run) -> ProcessResult:
        """Run the image once; nothing that it writes stays but in writable mounts.

        Raises:
            InputError: the image cannot be unpacked.
            OutputError: there is no space for it.
            SandboxError: the run cannot be set up here, or the image has no command.
        """
        with self._lock:
            self._unpacked()
            refusal = self.refuses(run)
            if refusal is not None:
                raise SandboxError(refusal, fix=_USE_DOCKER)
            arguments = self._arguments(run)
            if not arguments:
                raise SandboxError("the image has no command", fix="give it an ENTRYPOINT or CMD")
            try:
                account = self._account(run)
            except InputError as error:
                return _not_started(error.message)
            return self._run(run, account, arguments)

    def open_up(self, folder: Path) -> bool:
        """Let everybody read a folder with what runs have left in it."""
        try:
            open_up(folder, files=True)
        except OSError:
            return False
        return True

    def remove(self, folder: Path) -> None:
        """Remove a folder with what runs have left in it.

        Raises:
            OutputError: something in it belongs to another user.
        """
        remove(folder)

    def close(self) -> None:
        """Remove the unpacked image."""
        remove(self._place)

    def _run(self, run: Run, account: Account, arguments: tuple[str, ...]) -> ProcessResult:
        name, conditions = uuid.uuid4().hex[:12], run.conditions
        variables = {"PATH": _PATH, "HOSTNAME": name, "HOME": account.home}
        variables |= self.facts.variables
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self._place)))
            mounts = stack.enter_context(self._staged(run, name, scratch))
            reason = self._cannot_be_executed(arguments[0], variables)
            if reason is not None:
                return _not_started(reason)
            root, layer = stack.enter_context(
                writable_root(
                    self._root,
                    self._place,
                    read_only=conditions.read_only,
                    seen=lambda files: self._seen(files, run, account),
                )
            )
            groups = make_groups(
                f"flarekit_{name}", memory_mib=conditions.memory_mib, pids=conditions.pids
            )
            for group in groups:
                stack.callback(group.remove)
            limited = {controller for group in groups for controller in group.controllers}
            pids = None if "pids" in limited else conditions.pids
            memory_mib = None if "memory" in limited else conditions.memory_mib
            seen = {group.seen_at: group.folder for group in groups}
            if memory_mib is not None and _CGROUP not in seen:
                (scratch / "memory.max").write_text(f"{memory_mib * 2**20}\n")
                seen[f"{_CGROUP}/memory.max"] = scratch / "memory.max"
            program = Program(
                root=root,
                account=account,
                arguments=arguments,
                variables=variables,
                working_dir=self._working_dir,
                hostname=name,
                layer=layer,
                writable=not conditions.read_only,
                mounts=mounts,
                limits_seen=seen,
                conditions=conditions,
            )
            child = stack.enter_context(bubblewrap.started(program))
            for group in groups:
                group.join(child.pid)
            watched = WatchedLimits(
                memory_mib=memory_mib, pids=limit_processes(child.pid, pids, account)
            )
            result = follow(child, run, watched)
            return replace(
                result,
                out_of_memory=result.out_of_memory or any(g.was_out_of_memory() for g in groups),
                kernel_peak_mib=_most(group.peak_mib() for group in groups),
            )

    def _arguments(self, run: Run) -> tuple[str, ...]:
        if run.entrypoint is not None:  # in Docker the image's command goes with its entrypoint
            return (run.entrypoint, *(run.command or ()))
        return self.facts.entrypoint + (run.command or self.facts.command)

    @property
    def _working_dir(self) -> str:
        return posixpath.join("/", self.facts.working_dir)

    def _unpacked(self) -> dict[Path, Entry]:
        with self._lock:
            if self._entries is None:
                remove(self._root)
                self._entries = unpack(self._read, self._root)
            return self._entries

    def _account(self, run: Run) -> Account:
        self._unpacked()
        return find_account(self._root, run.conditions.user or self.facts.user)

    @contextmanager
    def _staged(self, run: Run, name: str, scratch: Path) -> Iterator[tuple[Mount, ...]]:
        """Make links and mount points; give all mounts, with the places that they really have."""
        for mount in run.mounts:
            if not mount.here.exists():
                raise SandboxError(f"{mount.here}: is not there", fix="make the folder first")
        mounts = [*_about_the_machine(run, name, scratch)]
        mounts += sorted(run.mounts, key=lambda mount: mount.there.count("/"))
        folders = {"/proc", "/dev", "/sys", self._working_dir}
        folders |= {mount.there for mount in mounts if mount.here.is_dir()}
        if run.conditions.read_only:
            folders.add("/tmp")
        files = {mount.there for mount in mounts if not mount.here.is_dir()}
        aside = scratch / "aside"
        aside.mkdir()
        with staged(self._root, folders=folders, files=files, linked=run.linked, aside=aside):
            yield tuple(
                Mount(
                    here=mount.here.resolve(),
                    there=f"/{inside(self._root, mount.there).relative_to(self._root)}",
                    writable=mount.writable,
                )
                for mount in mounts
            )

    def _seen(self, root: Path, run: Run, account: Account) -> AbstractContextManager[None]:
        if os.geteuid() == 0 or (run.conditions.capabilities and account.uid == 0):
            return contextlib.nullcontext()
        links = [inside(self._root, path, follow=False) for path in run.linked]
        places = [link.relative_to(self._root) for link in links]
        entries = {
            path: entry
            for path, entry in self._unpacked().items()
            if not any(path.is_relative_to(place) for place in places)
        }
        return seen_as(root, entries, account)

    def _cannot_be_executed(self, program: str, variables: Mapping[str, str]) -> str | None:
        """Return why the kernel would refuse a program; None where it is not known to.

        Bubblewrap would hand a script without a first line to a shell, which Docker does not.
        """
        folders = [self._working_dir] if "/" in program else variables["PATH"].split(":")
        for folder in folders:
            path = inside(self._root, posixpath.join(folder, program))
            if path.is_file() and path.stat().st_mode & 0o111:
                with path.open("rb") as stream:
                    known = stream.read(4).startswith(_RUNNABLE)
                return None if known else f"exec {program}: exec format error"
        return None


def _most(peaks_mib: Iterable[float | None]) -> float | None:
    return max((peak for peak in peaks_mib if peak is not None), default=None)


def _about_the_machine(run: Run, name: str, scratch: Path) -> Iterator[Mount]:
    """Write the files that Docker puts over the image's own."""
    for there, content in (
        ("/etc/hosts", f"{_HOSTS}127.0.1.1\t{name}\n"),
        ("/etc/hostname", f"{name}\n"),
    ):
        here = scratch / posixpath.basename(there)
        here.write_text(content)
        here.chmod(0o644)
        yield Mount(here=here, there=there)
    resolver = Path("/etc/resolv.conf")
    if run.conditions.network and resolver.exists():
        yield Mount(here=resolver, there=str(resolver))


def _fault() -> SandboxError | None:
    if sys.platform != "linux":
        return SandboxError("the process sandbox needs Linux", fix=_USE_DOCKER)
    return bubblewrap.fault_of(0)


def _not_started(reason: str) -> ProcessResult:
    return ProcessResult(exit_code=NOT_STARTED, stderr=f"{reason}\n", not_started=reason)
