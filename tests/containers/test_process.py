"""Small images of this machine's own programs, run as processes; skips where none can be."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import isal.igzip  # noqa: F401 - a forked child that is another user may not read it any more
import psutil
import pytest

from flarekit.containers import (
    Conditions,
    Mount,
    Run,
    SandboxError,
    bubblewrap,
    follow,
    process,
    rootfs,
)
from flarekit.containers.docker import DockerSandbox
from flarekit.containers.process import ProcessSandbox, available
from flarekit.containers.sandboxed_process import _Tail
from flarekit.containers.saved_image import read_archive
from flarekit.core.errors import InputError, OutputError
from tests.containers.small_images import entry, folder, host_programs, layer, save, symlink
from tests.docker.built_images import built, docker, need_engine, remove

PROGRAMS = (
    "sh",
    "cat",
    "env",
    "head",
    "id",
    "ln",
    "ls",
    "mkdir",
    "readlink",
    "rm",
    "sleep",
    "stat",
)
PASSWD = b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/sh\n"
GROUP = b"root:x:0:\nuser:x:1001:\nvideo:x:44:user\n"
LONG = f"4711.{os.getpid()}"  # seconds, as nobody else sleeps
SCRIPT = b"#!/bin/sh\necho script $*\n"
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
IMAGE = {
    "architecture": MACHINE,
    "config": {
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["echo ready"],
        "WorkingDir": "/app/made",
        "Env": ["PATH=/bin:/usr/bin", "GREETING=hello there"],
    },
}
STRICT = Conditions(read_only=True, user="1000:1000")
AS_ROOT = os.geteuid() == 0
NO_GROUPS = ["control_groups", "none"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    if (reason := available()) is not None:
        pytest.skip(reason)
    programs = host_programs(*PROGRAMS)
    if programs is None:
        pytest.skip("this machine lacks programs that the image is made of")
    own = layer(
        folder("etc"),
        entry("etc/passwd", PASSWD),
        entry("etc/group", GROUP),
        folder("input"),
        entry("input/of_the_image", b""),
        folder("real"),
        symlink("alias", "/real"),
        entry("script.sh", SCRIPT, mode=0o755),
        entry("no_first_line.sh", b"echo run\n", mode=0o755),
        entry("secret", b"of root\n", mode=0o600),
        entry("of_user", b"of user\n", mode=0o600, uid=1000, gid=1001),
        entry("closed_to_all", b"", mode=0o000),
        folder("for_group", mode=0o770, gid=1001),
    )
    return save(
        tmp_path_factory.mktemp("image") / "small.tar",
        [programs, own],
        config=IMAGE,
        names=(f"flarekit-small:{os.getpid()}",),  # processes share an engine
    )


@pytest.fixture(scope="module")
def sandbox(archive, tmp_path_factory):
    made = ProcessSandbox(archive, tmp_path_factory.mktemp("scratch"))
    yield made
    made.close()


@pytest.fixture
def output(tmp_path):
    place = tmp_path / "output"
    place.mkdir()
    place.chmod(0o777)
    return place


@pytest.fixture
def inputs(tmp_path):
    place = tmp_path / "inputs"
    place.mkdir()
    (place / "scan").write_text("voxels\n")
    return place


@pytest.fixture(params=NO_GROUPS)
def groups(request, monkeypatch):
    """Run with the control groups that there are, and with none."""
    if request.param == "none":
        monkeypatch.setattr(process, "make_groups", lambda *_, **__: ())
    return request.param


def shell(sandbox, line, *, mounts=(), linked=None, timeout_s=30.0, after_s=None, **conditions):
    run = Run(
        mounts=tuple(mounts),
        command=(line,),
        linked=linked or {},
        timeout_s=timeout_s,
        terminate_after_s=after_s,
        conditions=Conditions(**conditions),
    )
    return sandbox.run(run)


def said(sandbox, line, **more):
    outcome = shell(sandbox, line, **more)
    assert outcome.exit_code == 0, outcome.stderr
    return outcome.stdout.splitlines()


def test_the_image_runs_as_its_config_says(sandbox):
    outcome = sandbox.run(Run(mounts=()))
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (0, "ready\n", "")
    assert said(sandbox, "pwd; echo $$; echo $GREETING; echo $HOME") == [
        "/app/made",
        "1",
        "hello there",
        "/root",
    ]


def test_nothing_of_this_machine_s_environment_is_seen(sandbox, monkeypatch):
    monkeypatch.setenv("TOKEN_OF_THE_HOST", "secret")
    names = {line.partition("=")[0] for line in said(sandbox, "exec env")}
    assert names == {"PATH", "GREETING", "HOME", "HOSTNAME", "PWD"}
    name, *lines = said(sandbox, "echo $HOSTNAME; cat /etc/hostname /etc/hosts")
    assert lines[0] == name
    assert "127.0.0.1\tlocalhost" in lines


def test_an_entrypoint_that_replaces_drops_the_image_s_command(sandbox):
    outcome = sandbox.run(Run(mounts=(), entrypoint="/script.sh"))
    assert outcome.stdout == "script\n"
    outcome = sandbox.run(Run(mounts=(), entrypoint="/script.sh", command=("a", "b")))
    assert outcome.stdout == "script a b\n"


def test_the_strictest_conditions_hold(sandbox, inputs, output):
    mounts = (Mount(here=inputs, there="/in"), Mount(here=output, there="/out", writable=True))
    lines = [
        "id -u; id -g; cat /in/scan",
        "echo x > /out/mask; echo x > /tmp/x && echo x > /dev/shm/x",
        "for f in /x /in/x /app/made/x /dev/x /etc/hosts",
        "do (echo x > $f) 2>/dev/null && echo $f; done",
        "while read a b; do case $a in CapEff:|NoNewPrivs:) echo $b;; esac; done < /proc/1/status",
        "while read a b; do case $a in *:) echo $a;; esac; done < /proc/net/dev",
        "ls /tmp",
    ]
    found = said(sandbox, "\n".join(lines), mounts=mounts, read_only=True, user="1000:1000")
    assert found == ["1000", "1000", "voxels", "0000000000000000", "1", "lo:", "x"]
    assert (output / "mask").read_text() == "x\n"
    assert (output / "mask").stat().st_uid == (os.geteuid() or 1000)
    assert [path.name for path in inputs.iterdir()] == ["scan"]


def test_shared_memory_has_the_size_that_was_asked_for(sandbox):
    line = "head -c 3000000 /dev/zero > /dev/shm/x"
    assert shell(sandbox, line, shm_mib=4).exit_code == 0
    assert "No space left" in shell(sandbox, line, shm_mib=2).stderr


@pytest.mark.parametrize("overlay", [True, False])
def test_what_is_written_to_the_root_is_gone_afterwards(sandbox, monkeypatch, overlay):
    if not overlay:
        monkeypatch.setattr(rootfs, "layers_can_be_mounted", lambda *_: False)
    line = "echo x > /x; echo changed > /script.sh; rm /etc/group; cat /x /script.sh; ls /etc"
    assert said(sandbox, line) == ["x", "changed", "hostname", "hosts", "passwd"]
    assert said(sandbox, "ls / /etc | head -n 4; /script.sh")[-1] == "script"
    names = {path.name for path in sandbox._root.iterdir()}
    assert not names & {"x", "app", "proc", "dev", "sys"}
    assert [path.name for path in sandbox._place.iterdir()] == ["root"]


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (None, ["0", "0", "/root"]),
        ("user", ["1000", "1001", "/home/user"]),
        ("1000", ["1000", "1001", "/home/user"]),
        ("4321:44", ["4321", "44", "/"]),
    ],
)
def test_the_user_is_the_one_asked_for(sandbox, user, expected):
    assert said(sandbox, "id -u; id -g; echo $HOME", user=user) == expected


@pytest.mark.skipif(not AS_ROOT, reason="further groups can be given by root alone")
def test_a_named_user_has_its_further_groups(sandbox):
    assert said(sandbox, "id -G", user="user") == ["1001 44"]


def test_files_are_open_to_whom_the_image_opens_them(sandbox):
    line = "cat /secret; cat /of_user; mkdir /for_group/x; echo x > /home_made; echo x > /etc/y"
    as_user = shell(sandbox, f"{line}; ls /for_group", user="user")
    assert as_user.stdout.splitlines() == ["of user", "x"]
    assert as_user.stderr.count("ermission denied") == 3
    as_root = shell(sandbox, "cat /secret; cat /of_user")
    assert as_root.stdout == "of root\n"
    assert "ermission denied" in as_root.stderr
    assert said(sandbox, "cat /of_user", capabilities=True) == ["of user"]
    assert "ermission denied" in shell(sandbox, "cat /closed_to_all").stderr


def test_an_unknown_user_is_an_answer_about_the_image(sandbox):
    outcome = shell(sandbox, "true", user="bob")
    assert outcome.exit_code == 127
    assert outcome.last_line == "unable to find user bob: no matching entries in passwd file"


def test_a_folder_of_the_image_can_give_way_to_a_link(sandbox, inputs):
    mounts = [Mount(here=inputs, there="/mnt/deep/in")]
    found = said(
        sandbox,
        "readlink /input; ls /input",
        mounts=mounts,
        linked={"/input": "/mnt/deep/in"},
    )
    assert found == ["/mnt/deep/in", "scan"]
    assert said(sandbox, "ls /input; ls /mnt 2>&1 | head -n 1")[0] == "of_the_image"
    assert not (sandbox._root / "mnt").exists()


def test_files_behind_a_link_that_leads_to_this_machine_keep_their_rights(sandbox, inputs):
    (inputs / "of_the_image").touch()
    (inputs / "of_the_image").chmod(0o666)
    found = said(
        sandbox,
        "stat -c %a /input/of_the_image",
        mounts=[Mount(here=inputs, there=str(inputs))],
        linked={"/input": str(inputs)},
        user="4321:4321",
    )
    assert found == ["666"]


def test_a_mount_below_a_link_of_the_image_lands_where_it_points(sandbox, inputs):
    mounts = [Mount(here=inputs, there="/alias/in")]
    assert said(sandbox, "ls /real/in", mounts=mounts) == ["scan"]


@pytest.mark.quick(2)
@pytest.mark.parametrize("user", [None, "1000:1000"])
def test_more_processes_than_allowed_fail_the_run(sandbox, groups, user):
    line = "i=0; while [ $i -lt 60 ]; do sleep 60 & i=$((i+1)); done; echo all started; wait"
    outcome = shell(sandbox, line, pids=40, user=user)
    assert outcome.exit_code not in (0, 127)
    assert "all started" not in outcome.stdout or outcome.exit_code == 137
    if groups == "none" and AS_ROOT and user is None:
        assert outcome.exit_code == 137
        assert outcome.last_line.startswith("flarekit: killed for ")
    else:
        assert "fork" in outcome.stderr
    assert said(
        sandbox, "i=0; while [ $i -lt 30 ]; do sleep 0.2 & i=$((i+1)); done; echo $i", pids=40
    )


@pytest.mark.usefixtures("groups")
def test_more_memory_than_allowed_ends_the_run(sandbox):
    line = "x=0123456789abcdef; while :; do x=$x$x; [ ${#x} -ge 134217728 ] && sleep 9; done"
    outcome = shell(sandbox, line, memory_mib=64)
    assert (outcome.exit_code, outcome.out_of_memory) == (137, True)
    assert not outcome.timed_out


@pytest.mark.usefixtures("groups")
def test_programs_find_the_memory_limit_where_containers_have_it(sandbox):
    files = "/sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes"
    found = shell(sandbox, f"cat {files} 2>/dev/null", memory_mib=64).stdout
    assert found == f"{64 * 2**20}\n"
    assert shell(sandbox, f"cat {files} 2>/dev/null").stdout == ""


def test_the_data_limit_is_the_kernel_s(sandbox):
    assert said(sandbox, "ulimit -d", data_mib=100) == [str(100 * 1024)]
    line = "x=0123456789abcdef; while :; do x=$x$x; done"
    outcome = shell(sandbox, line, data_mib=50)
    assert outcome.exit_code not in (0, 137)
    assert not outcome.out_of_memory


def test_sigterm_reaches_the_program_itself(sandbox, output, monkeypatch):
    look = follow.usage_of

    def once_it_listens(pid):
        while not (output / "listens").exists():
            time.sleep(0.02)
        return look(pid)

    monkeypatch.setattr(follow, "usage_of", once_it_listens)
    trap = "trap 'echo stopping; exit 3' TERM; : > /out/listens"
    mounts = (Mount(here=output, there="/out", writable=True),)
    line = f"{trap}; while :; do sleep 0.05; done"
    outcome = shell(sandbox, line, mounts=mounts, after_s=0.4, timeout_s=600.0)
    assert (outcome.exit_code, outcome.stdout, outcome.timed_out) == (3, "stopping\n", False)
    assert 0 <= outcome.stopped_after_s <= outcome.seconds - 0.4


def test_a_first_process_that_does_not_handle_sigterm_goes_on_as_in_docker(sandbox, monkeypatch):
    moments = iter([10.0, 10.2])  # its start, and the first look; then its time is up
    clock = SimpleNamespace(monotonic=lambda: next(moments, 10.7))
    monkeypatch.setattr(follow, "time", clock)
    outcome = shell(sandbox, "exec sleep 600", after_s=0.1, timeout_s=0.6)
    assert (outcome.exit_code, outcome.timed_out) == (137, True)
    assert outcome.stopped_after_s == pytest.approx(0.5)


def test_no_signal_is_reported_to_a_run_that_has_ended_before(sandbox):
    outcome = shell(sandbox, "exit 5", after_s=20.0)
    assert (outcome.exit_code, outcome.stopped_after_s) == (5, None)


@pytest.mark.long
def test_a_run_out_of_time_leaves_nothing_running(sandbox):
    outcome = shell(sandbox, f"sleep {LONG} & (sleep {LONG} &) ; wait", timeout_s=0.5)
    assert (outcome.exit_code, outcome.timed_out) == (137, True)
    assert 0.5 <= outcome.seconds < 120
    assert outcome.peak_mib > 0.5
    running = [found.info["cmdline"] for found in psutil.process_iter(["cmdline"])]
    assert ["sleep", LONG] not in running


def test_a_run_that_is_interrupted_leaves_nothing_running(sandbox, monkeypatch):
    def interrupted(_pid):
        raise KeyboardInterrupt

    monkeypatch.setattr(follow, "usage_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shell(sandbox, f"exec sleep {LONG}")
    running = [found.info["cmdline"] for found in psutil.process_iter(["cmdline"])]
    assert ["sleep", LONG] not in running
    assert [path.name for path in sandbox._place.iterdir()] == ["root"]


@pytest.mark.parametrize(
    ("entrypoint", "said_why"),
    [
        ("/no/such", "No such file"),
        ("nothing_on_the_path", "No such file"),
        ("/etc/passwd", "Permission denied"),
        ("/no_first_line.sh", "exec format error"),
    ],
)
def test_what_cannot_be_executed_is_an_answer_about_the_image(sandbox, entrypoint, said_why):
    outcome = sandbox.run(Run(mounts=(), entrypoint=entrypoint))
    assert outcome.exit_code == 127
    assert said_why in outcome.last_line


def test_of_long_output_the_end_is_kept(sandbox):
    outcome = shell(sandbox, "head -c 5000000 /dev/zero; echo; echo last >&2; echo the end")
    assert outcome.stdout.endswith("\nthe end\n")
    assert outcome.stdout.startswith("[")
    assert 2**20 <= len(outcome.stdout) < 3 * 2**20
    assert outcome.last_line == "last"


def test_what_cannot_be_made_is_refused(sandbox, tmp_path):
    run = Run(mounts=(), conditions=Conditions(gpus="all"))
    assert "GPU" in sandbox.refuses(run)
    with pytest.raises(SandboxError, match="GPU"):
        sandbox.run(run)
    assert sandbox.refuses(Run(mounts=(), conditions=STRICT)) is None
    other = save(tmp_path / "other.tar", [], config={"architecture": "s390x"})
    foreign = ProcessSandbox(other, tmp_path)
    assert "s390x" in foreign.refuses(Run(mounts=()))
    foreign.close()


@pytest.mark.usefixtures("archive")
def test_an_image_without_a_command_is_an_error(tmp_path):
    config = {"architecture": MACHINE, "config": {}}
    sandbox = ProcessSandbox(save(tmp_path / "x.tar", [], config=config), tmp_path)
    with pytest.raises(SandboxError, match="no command"):
        sandbox.run(Run(mounts=()))
    with pytest.raises(SandboxError, match="nowhere"):
        sandbox.run(Run(mounts=(Mount(here=tmp_path / "nowhere", there="/x"),), command=("sh",)))
    sandbox.close()
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


def test_an_archive_without_an_image_is_an_error(tmp_path):
    empty = tmp_path / "x.tar"
    empty.write_bytes(layer(entry("manifest.json", b"[]")))
    with pytest.raises(InputError, match=r"x\.tar: holds no image"):
        ProcessSandbox(empty, tmp_path)


def test_folders_are_removed_whatever_a_run_left_in_them(sandbox, output):
    mounts = [Mount(here=output, there="/out", writable=True)]
    line = "cd /out; mkdir -m 755 a; mkdir a/b; echo x > a/b/c; mkdir -m 0 d; mkdir -m 500 e"
    assert shell(sandbox, line, mounts=mounts, user="1000:1000").exit_code == 0
    sandbox.remove(output)
    assert not output.exists()
    sandbox.remove(output)


def test_a_folder_that_cannot_be_removed_says_how_it_can(tmp_path, monkeypatch):
    def denied(_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(rootfs.shutil, "rmtree", denied)
    with pytest.raises(OutputError, match="not permitted") as caught:
        rootfs.remove(tmp_path)
    assert "sudo rm -rf" in caught.value.fix


@pytest.fixture
def fresh():
    bubblewrap.fault_of.cache_clear()
    yield
    bubblewrap.fault_of.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_without_bubblewrap_it_is_said_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: None if name == "bwrap" else name)
    assert "apt-get install bubblewrap" in available()
    assert "Docker" in available()
    with pytest.raises(SandboxError, match="bubblewrap") as caught:
        ProcessSandbox(save(tmp_path / "x.tar", []), tmp_path)
    assert caught.value.exit_code == 5


def test_a_stream_is_read_to_its_end_whoever_closes_it_meanwhile():
    reading, writing = os.pipe()
    stream = os.fdopen(reading, "rb")
    tail = _Tail(stream)
    stream.close()
    os.write(writing, b"said late")
    os.close(writing)
    assert tail.text() == "said late"


@pytest.mark.usefixtures("fresh")
def test_where_namespaces_are_forbidden_the_reason_is_told(monkeypatch, tmp_path):
    for name in ("bwrap", "unshare"):
        (tmp_path / name).write_text(
            "#!/bin/sh\necho 'no permission for a namespace' >&2\nexit 1\n"
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("setpriv", "prlimit", "mount"):
        if shutil.which(name) is None:
            pytest.skip(f"this machine has no {name}")
    assert "no permission for a namespace" in available()
    assert "Docker" in available()


def as_another_user(function, uid=12345):
    """Return what a function returns when a process of another user calls it; skip where it fails
    for want of a program that this user may run."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            bubblewrap.fault_of.cache_clear()
            os.write(writing, json.dumps(function()).encode())
            code = 0
        except BaseException as error:  # noqa: BLE001 - it must not run the tests of its parent
            os.write(writing, json.dumps({"error": repr(error)}).encode())
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as stream:
        answer = json.loads(stream.read())
    os.waitpid(child, 0)
    return answer


@pytest.mark.long
@pytest.mark.skipif(not AS_ROOT, reason="another user can be played by root alone")
def test_users_without_rights_can_run_images_too(archive):
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        scratch.chmod(0o777)
        tar = scratch / "small.tar"
        shutil.copy(archive, tar)
        tar.chmod(0o644)

        def play():
            if (reason := available()) is not None:
                return {"skip": reason}
            sandbox = ProcessSandbox(tar, scratch)
            test_the_image_runs_as_its_config_says(sandbox)
            test_files_are_open_to_whom_the_image_opens_them(sandbox)
            for user in (None, "1000:1000"):
                outcome = shell(
                    sandbox,
                    "i=0; while [ $i -lt 60 ]; do sleep 3 & i=$((i+1)); done; wait",
                    pids=40,
                    user=user,
                )
                assert outcome.exit_code not in (0, 137)
                assert "fork" in outcome.stderr
            line = (
                "x=0123456789abcdef; while :; do x=$x$x; [ ${#x} -ge 134217728 ] && sleep 9; done"
            )
            assert shell(sandbox, line, memory_mib=64).out_of_memory
            folders = scratch / "inputs", scratch / "output"
            for place in folders:
                place.mkdir(mode=0o777)
            (folders[0] / "scan").write_text("voxels\n")
            test_the_strictest_conditions_hold(sandbox, *folders)
            test_folders_are_removed_whatever_a_run_left_in_them(sandbox, folders[1])
            sandbox.close()
            return {"left": sorted(path.name for path in scratch.iterdir())}

        answer = as_another_user(play)
    if "skip" in answer:
        pytest.skip(answer["skip"])
    assert answer == {"left": ["inputs", "small.tar"]}


@pytest.fixture(scope="module")
def docker_sandbox(archive):
    need_engine()
    made = DockerSandbox(str(archive), read_archive(archive))
    yield made
    made.close()
    for name in made.facts.names:
        remove(name)


RIGHTS = (
    "cat /secret; cat /of_user; mkdir /for_group/x; echo x > /x; ls /for_group; echo x > /tmp/y"
)
STATUS = "while read a b; do case $a in Cap[EP]*|NoNew*) echo $a $b;; esac; done < /proc/1/status"
SAME = {
    "itself": Run(mounts=()),
    "entrypoint": Run(mounts=(), entrypoint="/script.sh"),
    "cannot be started: no_program": Run(mounts=(), entrypoint="nothing"),
    "cannot be started: no_first_line": Run(mounts=(), entrypoint="/no_first_line.sh"),
    "cannot be started: no_user": Run(mounts=(), conditions=Conditions(user="bob")),
    "exit_code": Run(mounts=(), command=("exit 41",)),
    "child_killed": Run(mounts=(), command=("sh -c 'kill -9 $$'; echo $?",)),
    "rights_of_root": Run(mounts=(), command=(f"{STATUS}; {RIGHTS}",)),
    "rights_of_user": Run(
        mounts=(), command=(f"{STATUS}; {RIGHTS}",), conditions=Conditions(user="user")
    ),
    "rights_read_only": Run(
        mounts=(),
        command=(f"{STATUS}; {RIGHTS}",),
        conditions=Conditions(user="user", read_only=True),
    ),
    "rights_with_capabilities": Run(
        mounts=(), command=(f"{STATUS}; {RIGHTS}",), conditions=Conditions(capabilities=True)
    ),
    "network": Run(
        mounts=(),
        command=("while read a b; do case $a in *:) echo $a;; esac; done < /proc/net/dev",),
    ),
    "linked": Run(
        mounts=(Mount(here=Path(__file__).parent, there="/mnt/in"),),
        linked={"/input": "/mnt/in"},
        command=("readlink /input; cat /input/test_process.py",),
    ),
    "processes": Run(
        mounts=(),
        command=("i=0; while [ $i -lt 60 ]; do sleep 3 & i=$((i+1)); done; wait",),
        conditions=Conditions(pids=40),
    ),
    "memory": Run(
        mounts=(),
        command=("x=0123456789abcdef; while :; do x=$x$x; done",),
        conditions=Conditions(memory_mib=64),
    ),
    "data": Run(
        mounts=(),
        command=("ulimit -d; x=0123456789abcdef; while :; do x=$x$x; done",),
        conditions=Conditions(data_mib=300),
    ),
    "handles_sigterm": Run(
        mounts=(),
        command=("trap 'echo stop; exit 3' TERM; while :; do sleep 0.1; done",),
        terminate_after_s=1.0,
        timeout_s=20.0,
    ),
    "ignores_sigterm": Run(
        mounts=(), command=("exec sleep 60",), terminate_after_s=0.5, timeout_s=2.0
    ),
}


@pytest.mark.docker
@pytest.mark.skipif(not AS_ROOT, reason="a run without root has one user, a container has many")
@pytest.mark.parametrize("name", SAME)
def test_runs_end_as_they_do_in_docker(sandbox, docker_sandbox, name):
    run = SAME[name]
    ours, theirs = sandbox.run(run), docker_sandbox.run(run)
    assert ours.stdout == theirs.stdout
    if "cannot be started" in name:
        assert ours.exit_code == 127
        assert theirs.exit_code in (1, 127)  # 1 for what the kernel refuses to execute
        return
    assert ours.exit_code == theirs.exit_code
    assert ours.stderr.splitlines() == theirs.stderr.splitlines()
    assert ours.timed_out == theirs.timed_out
    assert ours.out_of_memory == theirs.out_of_memory
    assert (ours.stopped_after_s is None) == (theirs.stopped_after_s is None)


PREDICT = "flarekit predict --input /workspace/inputs --output /workspace/outputs --time-budget 0"


@pytest.mark.docker
@pytest.mark.slow  # a gigabyte is saved and unpacked
@pytest.mark.parametrize("target", ["cpu", "gc-cpu"])
def test_an_image_of_ours_gives_the_masks_that_it_gives_in_docker(target, tmp_path):
    from flarekit.phantom import save_phantom

    if (reason := available()) is not None:
        pytest.skip(reason)
    image = built(target)
    tar = tmp_path / "team.tar"
    docker("image", "save", "--output", str(tar), image)
    folders = {name: tmp_path / name for name in ("inputs", "docker", "process")}
    for place in folders.values():
        place.mkdir()
        place.chmod(0o777)
    save_phantom(
        2, scan=folders["inputs"] / "phantom_0000.nii.gz", labels=tmp_path / "truth.nii.gz"
    )
    masks = {}
    for sandbox in (DockerSandbox(image), ProcessSandbox(tar, tmp_path)):
        run = Run(
            mounts=(
                Mount(here=folders["inputs"], there="/workspace/inputs"),
                Mount(here=folders[sandbox.name], there="/workspace/outputs", writable=True),
            ),
            command=("/bin/bash", "-c", PREDICT),
            conditions=replace(STRICT, user=None, memory_mib=28 * 1024),
        )
        outcome = sandbox.run(run)
        assert outcome.exit_code == 0, outcome.stderr
        assert outcome.peak_mib > 100
        masks[sandbox.name] = (folders[sandbox.name] / "phantom.nii.gz").read_bytes()
        sandbox.close()
    tar.unlink()
    assert masks["process"] == masks["docker"]
