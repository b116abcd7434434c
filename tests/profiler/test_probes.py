from __future__ import annotations

import shutil
import subprocess
import sys
import time
from contextlib import suppress
from types import SimpleNamespace

import psutil
import pytest

from flarekit.containers.cgroup_figures import Cgroup, cgroup_of, kernel_peak_mib
from flarekit.core.readings import Unsupported
from flarekit.profiler.probes.cgroup import CgroupProbe
from flarekit.profiler.probes.host import HostProbe
from flarekit.profiler.probes.processes import ProcessesProbe, ProcessTree

MIB = 2**20


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


@pytest.fixture
def proc(tmp_path):
    """Return a function that records what the kernel says of process 7's groups."""

    def record(groups, mounts):
        write(tmp_path / "proc" / "7", cgroup="".join(f"{line}\n" for line in groups))
        write(tmp_path / "proc" / "self", mountinfo="".join(f"{line}\n" for line in mounts))
        return tmp_path / "proc"

    return record


def test_version_2_is_found_and_read(proc, tmp_path):
    root = tmp_path / "cgroup"
    folder = root / "system.slice" / "docker-abc.scope"
    write(
        folder,
        memory__current=f"{300 * MIB}\n",
        memory__peak=f"{390 * MIB}\n",
        memory__stat=f"file 5\nshmem 9\ninactive_file {60 * MIB}\nactive_file {40 * MIB}\n",
        cpu__stat="usage_usec 2500000\nuser_usec 1\n",
    )
    where = proc(
        ["0::/system.slice/docker-abc.scope"],
        [f"31 23 0:28 / {root} rw,nosuid - cgroup2 cgroup2 rw"],
    )
    group = cgroup_of(7, where)
    assert group == Cgroup(version=2, memory=folder, cpu=folder)
    assert CgroupProbe(lambda: group).read() == {
        "cgroup_memory_mib": 300,
        "cgroup_working_mib": 200,
        "cgroup_cache_mib": 100,
        "cgroup_peak_mib": 390,
        "cgroup_cpu_s": 2.5,
    }


def test_version_1_is_found_and_read(proc, tmp_path):
    root = tmp_path / "cgroup"
    write(
        root / "memory" / "docker" / "abc",
        memory__usage_in_bytes=f"{300 * MIB}\n",
        memory__max_usage_in_bytes=f"{390 * MIB}\n",
        memory__stat=f"inactive_file 1\ntotal_inactive_file {60 * MIB}\n"
        f"active_file 2\ntotal_active_file {40 * MIB}\n",
    )
    write(root / "cpuacct" / "docker" / "abc", cpuacct__usage="2500000000\n")
    where = proc(
        ["4:memory:/docker/abc", "2:cpu,cpuacct:/docker/abc", "0::/"],
        [
            f"35 31 0:32 / {root}/memory rw - cgroup cgroup rw,memory",
            f"33 31 0:30 / {root}/cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
            f"41 31 0:38 / {root}/unified rw - cgroup2 cgroup2 rw",
        ],
    )
    group = cgroup_of(7, where)
    assert group.version == 1
    assert CgroupProbe(lambda: group).read() == {
        "cgroup_memory_mib": 300,
        "cgroup_working_mib": 200,
        "cgroup_cache_mib": 100,
        "cgroup_peak_mib": 390,
        "cgroup_cpu_s": 2.5,
    }


def test_a_group_below_what_is_mounted_is_found(proc, tmp_path):
    where = proc(["0::/pod/abc"], [f"31 23 0:28 /pod {tmp_path} rw - cgroup2 cgroup2 rw"])
    assert cgroup_of(7, where).memory == tmp_path / "abc"


def test_a_machine_without_groups_says_so(proc):
    where = proc(["0::/"], [])
    assert "no memory control group" in cgroup_of(7, where).not_supported
    assert "No such file" in cgroup_of(8, where).not_supported


def test_a_container_that_is_gone_or_not_there_yet_has_no_readings(tmp_path):
    gone = Cgroup(version=2, memory=tmp_path / "gone", cpu=tmp_path / "gone")
    assert CgroupProbe(lambda: gone).read() == {}
    assert CgroupProbe(lambda: None).read() == {}


def test_a_controller_that_is_missing_is_not_supported_and_the_rest_is_read(tmp_path):
    write(tmp_path, memory__current=f"{MIB}\n")
    group = Cgroup(version=2, memory=tmp_path, cpu=tmp_path)
    readings = CgroupProbe(lambda: group).read()
    assert readings["cgroup_memory_mib"] == 1
    assert isinstance(readings["cgroup_cpu_s"], Unsupported)
    assert isinstance(readings["cgroup_working_mib"], Unsupported)


def running(folder):
    write(
        folder,
        memory__current=f"{300 * MIB}\n",
        memory__peak=f"{390 * MIB}\n",
        memory__stat=f"inactive_file {60 * MIB}\nactive_file {40 * MIB}\n",
        cpu__stat="usage_usec 2500000\n",
    )
    return Cgroup(version=2, memory=folder, cpu=folder)


@pytest.mark.parametrize("part", ["memory.current", "memory.stat", "memory.peak", "cpu.stat"])
def test_a_group_that_vanishes_file_by_file_at_the_end_leaves_no_fault(tmp_path, part):
    group = running(tmp_path / "group")
    probe = CgroupProbe(lambda: group)
    whole = probe.read()
    for emptied in (True, False):
        (tmp_path / "group" / part).write_text("") if emptied else (
            tmp_path / "group" / part
        ).unlink()
        last = probe.read()
        assert 0 < len(last) < len(whole)
        assert not [each for each in last.values() if isinstance(each, Unsupported)]


def test_a_kernel_without_a_peak_says_so(tmp_path):
    group = running(tmp_path / "group")
    (tmp_path / "group" / "memory.peak").unlink()
    readings = CgroupProbe(lambda: group).read()
    assert isinstance(readings["cgroup_peak_mib"], Unsupported)
    assert readings["cgroup_working_mib"] == 200
    assert isinstance(kernel_peak_mib(group), Unsupported)


def test_the_peak_that_somebody_saw_in_between_stays_when_the_group_is_gone(tmp_path):
    group = running(tmp_path / "group")
    probe = CgroupProbe(lambda: group, lambda: 512.0)
    assert probe.read()["cgroup_peak_mib"] == 512
    shutil.rmtree(tmp_path / "group")
    assert probe.read() == {"cgroup_peak_mib": 512}


def test_the_host_s_percentages_are_flare_s():
    times = iter([(10.0, 5.0, 100.0), (11.0, 5.5, 102.4)])
    names = ("user", "system", "idle")
    library = SimpleNamespace(
        cpu_times=lambda: SimpleNamespace(**dict(zip(names, next(times), strict=True))),
        virtual_memory=lambda: SimpleNamespace(used=3 * MIB),
    )
    probe = HostProbe(library)
    assert probe.read()["host_idle_percent"] == 0
    second = probe.read()
    assert [second[f"host_{name}_percent"] for name in names] == pytest.approx(
        [100 * 1 / 4, 100 * 0.5 / 4, 100 * 2.4 / 4]
    )
    assert second["host_ram_mib"] == 3


GRANDCHILD = "import time; kept = bytearray(b'x') * (60 << 20); time.sleep(600)"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {GRANDCHILD!r}])"
IN_A_THREAD = (
    "import subprocess, sys, threading;"
    f"run = lambda: subprocess.run([sys.executable, '-c', {GRANDCHILD!r}]);"
    "threading.Thread(target=run).start()"
)


@pytest.fixture
def processes():
    started = []

    def start(code):
        started.append(subprocess.Popen([sys.executable, "-c", code]))
        return started[-1]

    yield start
    for process in started:
        with suppress(psutil.NoSuchProcess):
            for each in psutil.Process(process.pid).children(recursive=True):
                each.kill()
        process.kill()
        process.wait()


@pytest.mark.long
@pytest.mark.parametrize("code", [CHILD, IN_A_THREAD], ids=["main_thread", "other_thread"])
def test_the_memory_of_children_counts(processes, code):
    process = processes(code)
    probe = ProcessesProbe(ProcessTree(lambda: process.pid).pids)
    deadline = time.monotonic() + 60
    readings = {}
    while readings.get("tree_rss_mib", 0) < 70 and time.monotonic() < deadline:
        readings = probe.read()
        time.sleep(0.1)
    assert 70 <= readings["tree_rss_mib"] < 200
    assert readings["tree_cpu_s"] >= 0


@pytest.mark.long
def test_where_the_kernel_tells_no_children_those_that_were_found_stay_until_they_end(
    processes, monkeypatch
):
    monkeypatch.setattr("flarekit.profiler.probes.processes._KERNEL_TELLS_CHILDREN", False)
    process = processes(CHILD)
    tree = ProcessTree(lambda: process.pid)
    deadline = time.monotonic() + 60
    while len(tree.pids()) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    for _ in range(3):  # the search is too slow for every reading
        assert len(tree.pids()) == 2
    (child,) = tree.pids() - {process.pid}
    psutil.Process(child).kill()
    process.wait()
    assert tree.pids() == frozenset()


def test_nothing_is_read_before_the_start_and_zero_after_the_end():
    pid = None
    probe = ProcessesProbe(ProcessTree(lambda: pid).pids)
    assert probe.read() == {}
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pid = process.pid
    alive = probe.read()
    assert alive["tree_rss_mib"] > 0
    process.communicate(b"\n")
    gone = probe.read()
    assert gone["tree_rss_mib"] == 0
    assert gone["tree_cpu_s"] >= alive["tree_cpu_s"]
