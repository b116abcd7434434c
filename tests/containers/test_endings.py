"""How processes end, and that nobody else's number is signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from flarekit.containers import ProcessResult, Run, follow
from flarekit.containers.endings import end_tree, wait_or_end

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


class AtOnce:
    """A timer whose time is up as soon as it is started, or once its end is awaited."""

    def __init__(self, _seconds, function):
        self._function = function
        self.daemon = False

    def start(self):
        self._function()

    def cancel(self):
        pass

    def join(self):
        pass


class WhenCancelled(AtOnce):
    def start(self):
        pass

    def cancel(self):
        self._function()


@pytest.fixture
def ended():
    """Return a process that has ended with code 3, and was not waited for."""
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return process


@pytest.mark.parametrize("timer", [AtOnce, WhenCancelled])
def test_a_process_that_has_ended_is_not_late_however_late_we_are(monkeypatch, ended, timer):
    monkeypatch.setattr("flarekit.containers.endings.threading.Timer", timer)
    killed = []
    code, peak_mib = wait_or_end(ended, 1.0, lambda: killed.append(ended.pid))
    assert (code, killed) == (3, [])
    assert peak_mib > 1


def test_the_number_of_a_process_is_its_own_until_what_ends_it_is_through():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    seen = []

    def end():
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        time.sleep(0.1)  # the other thread may do what it can
        seen.append(psutil.Process(process.pid).status())

    assert wait_or_end(process, 0.01, end)[0] is None
    assert seen == [psutil.STATUS_ZOMBIE]
    assert process.returncode == -signal.SIGKILL


def test_who_interrupts_the_wait_ends_the_process(monkeypatch):
    def interrupted(_pid):
        raise KeyboardInterrupt

    monkeypatch.setattr("flarekit.containers.endings._await_end", interrupted)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with pytest.raises(KeyboardInterrupt):
        wait_or_end(process, None, lambda: end_tree(process.pid))
    assert process.returncode == -signal.SIGTERM


@pytest.mark.slow
def test_one_that_may_not_be_signalled_does_not_save_the_others(monkeypatch):
    terminate = psutil.Process.terminate

    def denied_once(self):
        if not refused:
            refused.append(self.pid)
            raise psutil.AccessDenied(self.pid)
        terminate(self)

    refused = []
    monkeypatch.setattr("flarekit.containers.endings._GRACE_S", 1.0)
    monkeypatch.setattr(psutil.Process, "terminate", denied_once)
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True
    ) as process:
        child = psutil.Process(int(process.stdout.readline()))
        end_tree(process.pid)
        assert process.wait() in (-signal.SIGTERM, -signal.SIGKILL)
    assert refused == [process.pid]
    child.wait(60)  # of another process's child: until it is gone


@pytest.mark.long
def test_a_child_that_came_after_the_first_look_is_ended_too(monkeypatch):
    looks, everyone = [], psutil.Process.children

    def too_early(self, **how):
        looks.append(self.pid)
        return [] if len(looks) == 1 else everyone(self, **how)

    terminate = psutil.Process.terminate
    monkeypatch.setattr("flarekit.containers.endings._GRACE_S", 0.1)
    monkeypatch.setattr(psutil.Process, "children", too_early)
    monkeypatch.setattr(psutil.Process, "terminate", lambda _self: None)  # it does not heed it
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True
    ) as process:
        child = psutil.Process(int(process.stdout.readline()))
        end_tree(process.pid)
        process.wait()
    monkeypatch.setattr(psutil.Process, "terminate", terminate)
    child.wait(60)


def test_a_run_that_ended_in_time_is_not_out_of_time_however_late_we_look(monkeypatch):
    class Ending:
        """A program that ends while nobody looks."""

        pid = 0
        looks = 0

        def go(self):
            pass

        def wait(self, _timeout_s):
            self.looks += 1
            return self.looks > 1

        def signal(self, number):
            raise AssertionError(number)

        def end(self):
            return ProcessResult(exit_code=0)

    monkeypatch.setattr(follow, "usage_of", lambda _pid: None)
    result = follow.follow(Ending(), Run(mounts=(), timeout_s=0.0), follow.WatchedLimits())
    assert (result.exit_code, result.timed_out) == (0, False)
