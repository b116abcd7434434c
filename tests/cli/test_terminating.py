"""A run ends in order on SIGTERM, and only on its own."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from flarekit.cli import terminating

POOL = """
import multiprocessing, time
from flarekit.cli import terminating

terminating._GRACE_S = 0.1
terminating.end_on_sigterm()
with multiprocessing.get_context("fork").Pool(2) as pool:  # its end sends SIGTERM to the workers
    print(sum(pool.map(abs, [-1, -2])))
time.sleep(0.5)
print("goes on")
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_the_end_of_a_forked_worker_is_not_the_end_of_the_run():
    command = [sys.executable, "-c", POOL]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "3\ngoes on\n", "")


def test_the_last_words_are_said_once_whoever_says_them(capfd):
    """By the main thread and by the one that ends the process, at the same time."""
    words, at_once = terminating._LastWords(), threading.Barrier(8)

    def say():
        at_once.wait()
        words.say("terminated")

    threads = [threading.Thread(target=say) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capfd.readouterr().err == "error: terminated; nothing half-written is left\n"
