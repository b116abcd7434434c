"""Where an image runs under chosen conditions, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flarekit.core.errors import FlarekitError

CONVENTION_LABEL, FACTS_LABEL = "flarekit.convention", "flarekit.facts"  # of an image


class SandboxError(FlarekitError):
    """An image cannot be run here at all, whatever is in it."""

    exit_code = 5


class RefusedError(SandboxError):
    """The conditions of one run cannot be made here; others can."""


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What an image says about itself.

    Attributes:
        names: with tags, as stored; none where it was saved by its id.
        entrypoint: of the config; empty where there is none.
        variables: of the environment.
        size_bytes: of its layers, unpacked.
    """

    names: tuple[str, ...]
    architecture: str
    system: str
    user: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    working_dir: str
    variables: Mapping[str, str]
    labels: Mapping[str, str]
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder here that is seen at an absolute path inside."""

    here: Path
    there: str
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a run may use. The defaults are the strictest that any organiser sets.

    Attributes:
        network: the machine's; none at all where False.
        capabilities: Docker's usual ones; all dropped where False.
        new_privileges: whether set-uid programs may raise them.
        pids: most processes and threads at a time; None for no limit.
        shm_mib: size of `/dev/shm`.
        memory_mib: most memory, swap included; None for no limit.
        data_mib: RLIMIT_DATA, by which grand-challenge limits memory; None for no limit.
        read_only: whether nothing but the writable mounts and `/tmp` can be written.
        user: `UID:GID`; the image's own where None.
        gpus: of Docker's `--gpus`; None for no GPU.
    """

    network: bool = False
    capabilities: bool = False
    new_privileges: bool = False
    pids: int | None = 256
    shm_mib: int = 64
    memory_mib: int | None = None
    data_mib: int | None = None
    read_only: bool = False
    user: str | None = None
    gpus: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunLine:
    """How an organiser runs an image.

    Attributes:
        inputs: folder inside that holds the cases.
        outputs: folder inside that gets the masks.
        command: what replaces the image's own; None where it runs as it is, on jobs.
        scans: how the names of scans end, where an image does not run on jobs.
        conditions: of the line as it is written.
        writable_inputs: whether the line would let an image write into its inputs.
    """

    inputs: str
    outputs: str
    command: tuple[str, ...] | None
    conditions: Conditions
    writable_inputs: bool
    scans: str = ".nii.gz"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of an image.

    Attributes:
        command: what replaces the image's command; its own where None.
        entrypoint: what replaces the image's ENTRYPOINT, with `command` as its arguments.
        linked: a path inside that is a symbolic link to a mount's, path -> target.
        timeout_s: after which it is killed.
        terminate_after_s: seconds from its start to a SIGTERM; None for no signal.
    """

    mounts: tuple[Mount, ...]
    conditions: Conditions = Conditions()
    command: tuple[str, ...] | None = None
    entrypoint: str | None = None
    linked: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 600.0
    terminate_after_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class ProcessResult:
    """How a run ended, and what was seen of it.

    Attributes:
        exit_code: as a shell gives it (128 + signal).
        seconds: from start to end.
        timed_out: whether it was killed because its time was up.
        stopped_after_s: from the SIGTERM to the end; None where none was sent in time.
        out_of_memory: whether the memory limit killed something in it.
        not_started: why it was never started, in the words of what should have started it; empty
            where it was.
        peak_mib: most resident memory of its processes, added up, at moments 0.1 s apart; None
            where not seen.
        kernel_peak_mib: most memory of its control group at any moment, page cache included, as
            the kernel keeps it; None where not seen.
        network_tries: packets that found no network; None where there was one, or not seen.
        started_s: from the call to the start of its first process; None if unknown.
    """

    exit_code: int
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0
    timed_out: bool = False
    stopped_after_s: float | None = None
    out_of_memory: bool = False
    not_started: str = ""
    peak_mib: float | None = None
    kernel_peak_mib: float | None = None
    network_tries: int | None = None
    started_s: float | None = None

    @property
    def last_line(self) -> str:
        """The last line of stderr that is not empty, which is all that platforms show."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        return lines[-1] if lines else ""


class Sandbox(Protocol):
    """Runs one image.

    Attributes:
        name: of the kind of sandbox.
        facts: the image's.
        archive: the saved tar that it came in; None where the engine had it.
    """

    name: str
    facts: ImageFacts
    archive: Path | None

    def refuses(self, run: Run) -> str | None:
        """Return why this sandbox cannot make these conditions; None where it can."""
        ...

    def run(self, run: Run) -> ProcessResult:
        """Run the image.

        Raises:
            SandboxError: it cannot be started for a reason that is not the image's.
        """
        ...

    def open_up(self, folder: Path) -> bool:
        """Let everybody read a folder with what runs have left in it; False where that failed."""
        ...

    def remove(self, folder: Path) -> None:
        """Remove a folder with what runs have left in it, whoever owns it."""
        ...

    def close(self) -> None:
        """Remove what was made for the runs."""
        ...
