"""Bubblewrap: one program in namespaces of its own."""

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from flarekit.containers import Conditions, Mount, SandboxError
from flarekit.containers.accounts import Account
from flarekit.containers.sandboxed_process import USE_DOCKER, SandboxedProcess, not_set_up

_PROGRAMS = ("bwrap", "unshare", "mount", "setpriv", "prlimit", "sh", "cat")
_NAMESPACES = ("--unshare-pid", "--unshare-ipc", "--unshare-uts")
_DOCKER_CAPABILITIES = {  # what Docker leaves to root, and each one's number in the kernel
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_RAW": 13,
    "CAP_SYS_CHROOT": 18,
    "CAP_MKNOD": 27,
    "CAP_AUDIT_WRITE": 29,
    "CAP_SETFCAP": 31,
}
_SYS_ADMIN = 21
_OVERLAY = 'cd "$1" && mount -t overlay overlay -o "$2" merged && cd / && shift 2 && exec "$@"'
_KILL_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Program:
    """One program and what it is to see.

    Attributes:
        root: folder here that is `/` inside.
        layer: a folder with empty `upper`, `work` and `merged`, so that what is written lands
            there and not in the root; None where the root is read-only.
        writable: whether what it writes to the root lands there.
        mounts: on top; their places inside are free of links and exist.
        limits_seen: where programs look for their limits -> what is seen there.
    """

    root: Path
    account: Account
    arguments: tuple[str, ...]
    variables: Mapping[str, str]
    working_dir: str = "/"
    hostname: str = "flarekit"
    layer: Path | None = None
    writable: bool = False
    mounts: tuple[Mount, ...] = ()
    limits_seen: Mapping[str, Path] = field(default_factory=dict)
    conditions: Conditions = Conditions()


def shares_ids(uid: int) -> bool:
    """Return whether a program runs without a user namespace: as root, where we are root."""
    return uid == 0 and os.geteuid() == 0 and bool(_capabilities() >> _SYS_ADMIN & 1)


def layers_can_be_mounted(root: Path, layer: Path) -> bool:
    """Return whether a folder can be laid over a root, so that the root is not written to."""
    line = [*_mounting(root, layer), "true"]
    return subprocess.run(line, capture_output=True, check=False).returncode == 0


@cache
def fault_of(uid: int) -> SandboxError | None:
    """Return why no program can be run as this user; None where one can."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if "bwrap" in missing:
        fix = f"apt-get install bubblewrap, {USE_DOCKER}"
        return SandboxError("the process sandbox needs bubblewrap, which is not here", fix=fix)
    if missing:
        fix = f"install util-linux, mount and coreutils, {USE_DOCKER}"
        return SandboxError(f"the process sandbox needs {', '.join(missing)}", fix=fix)
    account = Account(uid=uid, gid=uid)
    nothing = Program(root=Path("/"), account=account, arguments=("true",), variables=os.environ)
    try:
        with started(nothing) as child:
            child.go()
            child.wait(_KILL_S)
            code = child.end().exit_code
    except SandboxError as error:
        return error
    if code:
        return not_set_up(f"a trial run ended with exit code {code}")
    return None


@contextmanager
def started(program: Program) -> Iterator[SandboxedProcess]:
    """Set a program up; kill it at the end, whatever happens.

    Raises:
        SandboxError: it cannot be set up here.
    """
    with contextlib.ExitStack() as stack:
        namespace = None
        if os.geteuid() == 0 and not shares_ids(program.account.uid):
            namespace = stack.enter_context(_user_namespace(program.account))
        told, telling = os.pipe()
        status = stack.enter_context(os.fdopen(told))
        closed, gate = os.pipe()
        stack.callback(os.close, gate)
        line = [*_before(program), *_bubblewrap(program, namespace, telling, closed)]
        inherited = [fd for fd in (telling, closed, namespace) if fd is not None]
        try:
            process = stack.enter_context(
                subprocess.Popen(
                    [*line, "--", *program.arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=inherited,
                    cwd="/",
                )
            )
            stack.callback(process.kill)
        finally:
            os.close(telling)
            os.close(closed)
        child = SandboxedProcess(process, status, gate)
        stack.callback(child.close)
        yield child


def _before(program: Program) -> list[str]:
    """Return what runs before bubblewrap and becomes it: the layer, the user, the limits."""
    account, line = program.account, []
    if program.layer is not None:
        line += _mounting(program.root, program.layer)
    if os.geteuid() == 0:
        groups = ",".join(map(str, account.groups))
        line += ["setpriv", "--reuid", str(account.uid), "--regid", str(account.gid)]
        line += ["--groups", groups] if groups else ["--clear-groups"]
    if program.conditions.data_mib is not None:
        asked, most = (
            program.conditions.data_mib * 2**20,
            resource.getrlimit(resource.RLIMIT_DATA)[1],
        )
        limit = asked if most == resource.RLIM_INFINITY else min(asked, most)
        line += ["prlimit", f"--data={limit}"]
    return line


def _mounting(root: Path, layer: Path) -> list[str]:
    """Return what lays a folder over a root, in a mount namespace that ends with the program."""
    own = ["--user", "--map-root-user"] if os.geteuid() else []
    options = f"lowerdir={os.path.relpath(root, layer)},upperdir=upper,workdir=work"
    options += ",userxattr" if os.geteuid() else ""
    line = ["unshare", *own, "--mount", "--propagation", "private"]
    return [*line, "sh", "-c", _OVERLAY, "sh", str(layer), options]


def _bubblewrap(program: Program, namespace: int | None, status: int, gate: int) -> list[str]:
    """Return bubblewrap's own line."""
    line = ["bwrap", *_NAMESPACES, "--die-with-parent", "--new-session", "--as-pid-1"]
    if not program.conditions.network:
        line += ["--unshare-net"]
    line += [*_identity(program, namespace), *_view(program)]
    line += ["--chdir", program.working_dir, "--hostname", program.hostname, "--clearenv"]
    for name, value in program.variables.items():
        line += ["--setenv", name, value]
    return [*line, "--json-status-fd", str(status), "--block-fd", str(gate)]


def _identity(program: Program, namespace: int | None) -> list[str]:
    """Return who the program is and what it may do."""
    account, line = program.account, []
    if namespace is not None:
        line += ["--userns", str(namespace)]
    elif os.geteuid():
        line += ["--unshare-user", "--uid", str(account.uid), "--gid", str(account.gid)]
    line += ["--cap-drop", "ALL"]
    if program.conditions.capabilities and account.uid == 0:
        ours = _capabilities() if shares_ids(0) else -1  # a namespace's root has them all
        for name, number in _DOCKER_CAPABILITIES.items():
            line += ["--cap-add", name] if ours >> number & 1 else []
    return line


def _view(program: Program) -> list[str]:
    """Return the files that the program sees."""
    conditions = program.conditions
    root = program.root if program.layer is None else program.layer / "merged"
    line = ["--bind" if program.writable else "--ro-bind", str(root), "/"]
    line += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777"]
    line += ["--size", str(conditions.shm_mib * 2**20), "--tmpfs", "/dev/shm"]
    line += ["--remount-ro", "/dev", "--ro-bind", "/sys", "/sys"]
    if Path("/sys/fs/cgroup").is_dir():
        line += ["--tmpfs", "/sys/fs/cgroup"]
        for there, here in program.limits_seen.items():
            line += ["--ro-bind", str(here), there]
        line += ["--remount-ro", "/sys/fs/cgroup"]
    if conditions.read_only:
        line += ["--perms", "1777", "--tmpfs", "/tmp"]
    for mount in program.mounts:
        line += ["--bind" if mount.writable else "--ro-bind", str(mount.here), mount.there]
    return line


@contextmanager
def _user_namespace(account: Account) -> Iterator[int]:
    """Make a user namespace that an account owns, where every number means what it means here.

    Bubblewrap cannot change from root to another user, so the user's own bubblewrap joins this; and
    RLIMIT_NPROC counts in it.
    """
    holder = subprocess.Popen(
        ["unshare", "--user", "cat"],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
    )
    with holder:
        into, out, err = holder.stdin, holder.stdout, holder.stderr
        if into is None or out is None or err is None:
            raise not_set_up("no pipes")
        with contextlib.suppress(BrokenPipeError):
            into.write(b"there\n")
            into.flush()
        if not out.readline():  # cat answers from inside the namespace
            raise not_set_up(err.read().decode(errors="replace"))
        for kind in ("uid_map", "gid_map"):
            ranges = [line.split() for line in Path(f"/proc/self/{kind}").read_text().splitlines()]
            same = "".join(f"{first} {first} {count}\n" for first, _, count in ranges)
            Path(f"/proc/{holder.pid}/{kind}").write_text(same)
        handle = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _capabilities() -> int:
    """Return this process's effective capabilities, a bit each."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
