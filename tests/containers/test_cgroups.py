from __future__ import annotations

from types import SimpleNamespace

import pytest

from flarekit.containers import SandboxError
from flarekit.containers.cgroups import Group, make_groups

V1 = """24 18 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw
36 31 0:32 / {root}/memory rw,relatime shared:9 - cgroup cgroup rw,memory
39 31 0:36 / {root}/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:33 / {root}/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
"""
V2 = "35 24 0:30 / {root} rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.fixture
def hierarchy(tmp_path):
    """Return a function that makes folders like the kernel's, and the list of what is mounted."""

    def make(mounts, *folders, subtree=None):
        root = tmp_path / "cgroup"
        for folder in ("", *folders):
            (root / folder).mkdir(exist_ok=True)
        if subtree is not None:
            (root / "cgroup.subtree_control").write_text(subtree)
        (tmp_path / "mountinfo").write_text(mounts.format(root=root))
        return root, tmp_path / "mountinfo"

    return make


def settings(group):
    return {path.name: path.read_text() for path in group.folder.iterdir()}


def test_in_version_1_each_controller_has_a_group(hierarchy):
    root, mounts = hierarchy(V1, "memory", "pids", "cpu")
    memory, pids = make_groups("run", memory_mib=100, pids=256, mounts=mounts)
    assert (memory.folder, memory.seen_at) == (root / "memory/run", "/sys/fs/cgroup/memory")
    assert settings(memory) == {"memory.limit_in_bytes": str(100 * 2**20)}
    assert (pids.folder, pids.seen_at) == (root / "pids/run", "/sys/fs/cgroup/pids")
    assert settings(pids) == {"pids.max": "256"}
    assert not (root / "cpu/run").exists()


def test_in_version_2_one_group_has_what_is_enabled(hierarchy):
    root, mounts = hierarchy(V2, subtree="cpu memory pids\n")
    (group,) = make_groups("run", memory_mib=100, pids=256, mounts=mounts)
    assert (group.folder, group.seen_at) == (root / "run", "/sys/fs/cgroup")
    assert group.controllers == ("memory", "pids")
    assert settings(group) == {"memory.max": str(100 * 2**20), "pids.max": "256"}


def test_a_limit_that_is_not_asked_for_makes_no_group(hierarchy):
    _, mounts = hierarchy(V1, "memory", "pids", "cpu")
    assert make_groups("run", memory_mib=None, pids=None, mounts=mounts) == ()
    (pids,) = make_groups("run", memory_mib=None, pids=5, mounts=mounts)
    assert pids.controllers == ("pids",)


@pytest.mark.parametrize("subtree", [None, "", "cpu io\n"])
def test_without_the_controllers_there_is_no_group(hierarchy, subtree):
    _, mounts = hierarchy(V2, subtree=subtree)
    assert make_groups("run", memory_mib=100, pids=256, mounts=mounts) == ()


def test_a_group_that_may_not_be_made_is_left_to_watching(hierarchy):
    root, mounts = hierarchy(V1, "memory", "cpu")  # no folder of pids: it cannot be made there
    (memory,) = make_groups("run", memory_mib=100, pids=256, mounts=mounts)
    assert memory.controllers == ("memory",)
    assert not (root / "pids").exists()


@pytest.mark.parametrize(("version", "file"), [(1, "memory.oom_control"), (2, "memory.events")])
def test_kills_for_memory_are_told(tmp_path, version, file):
    group = Group(folder=tmp_path, seen_at="/", controllers=("memory",), version=version)
    assert not group.was_out_of_memory()
    (tmp_path / file).write_text("low 0\nunder_oom 0\noom_kill 0\n")
    assert not group.was_out_of_memory()
    (tmp_path / file).write_text("low 0\nunder_oom 0\noom_kill 2\n")
    assert group.was_out_of_memory()


def test_a_process_is_put_into_a_group_and_the_group_removed(tmp_path):
    group = Group(folder=tmp_path / "run", seen_at="/", controllers=("pids",), version=1)
    group.folder.mkdir()
    group.join(4711)
    assert (group.folder / "cgroup.procs").read_text() == "4711"
    (group.folder / "cgroup.procs").unlink()  # the kernel's files go with the folder
    group.remove()
    assert not group.folder.exists()
    group.remove()


def test_a_group_is_looked_at_once_more_when_its_time_is_up(tmp_path, monkeypatch):
    group = Group(folder=tmp_path / "run", seen_at="/", controllers=("pids",), version=1)
    (group.folder / "child").mkdir(parents=True)

    def slept_long(_seconds):
        now[0] += 1000.0
        (group.folder / "child").rmdir()

    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=slept_long)
    monkeypatch.setattr("flarekit.containers.cgroups.time", clock)
    group.remove()
    assert not group.folder.exists()


def test_a_group_in_which_something_runs_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("flarekit.containers.cgroups._REMOVAL_S", 0.05)
    group = Group(folder=tmp_path / "run", seen_at="/", controllers=("pids",), version=1)
    (group.folder / "child").mkdir(parents=True)
    with pytest.raises(SandboxError, match="something still runs in it"):
        group.remove()
