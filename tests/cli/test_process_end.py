"""A command's process ends at once when the command is over, with all it said and its code."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.command import COMMAND

LINGERING = """
import atexit, sys, threading, time
from flarekit.cli import main
class Slow:
    def __del__(self):
        time.sleep(600)
slow = Slow()
def run(command=main.run):
    atexit.register(lambda: print("registered"))
    over = threading.Event()
    threading.Thread(target=lambda: (over.wait(), time.sleep(0.2), print("thread"))).start()
    try:
        command()
    finally:
        over.set()
main.run = run
sys.argv = ["flarekit", *sys.argv[1:]]
main.main()
"""


def ended(code, *arguments, **how):
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, **how)


@pytest.mark.long
def test_threads_and_whoever_asked_are_waited_for_and_nothing_else():
    process = ended(LINGERING, "--version")  # and not until the slow one is through
    assert process.returncode == 0
    lines = process.stdout.splitlines()
    assert lines[0].startswith("flarekit ")
    assert lines[1:] == ["thread", "registered"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param(["predict"], 2, "Missing option", marks=pytest.mark.long),
        (["conventions", "nowhere"], 2, "nowhere"),
        pytest.param(["--help"], 0, "", marks=pytest.mark.long),
    ],
)
def test_exit_codes_and_messages_are_those_of_the_command(arguments, code, said):
    process = ended(LINGERING, *arguments)
    assert process.returncode == code
    assert said in process.stderr


def test_a_bug_ends_the_process_as_python_does():
    broken = LINGERING.replace("main.main()", "main.run = lambda: 1 / 0\nmain.main()")
    process = ended(broken.replace("time.sleep(600)", "pass"), "--version")
    assert process.returncode == 1
    assert "ZeroDivisionError" in process.stderr


@pytest.mark.long
def test_output_that_cannot_be_written_is_no_success():
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        process = subprocess.run(
            [sys.executable, "-c", LINGERING.replace("time.sleep(600)", "pass"), "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert process.returncode != 0


@pytest.mark.long
def test_printing_to_a_full_disk_is_one_sentence():
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        process = subprocess.run(
            [*COMMAND, "predictors"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert process.returncode == 6
    assert process.stderr.startswith("error: what is printed cannot be written: No space")
    assert "Traceback" not in process.stderr


@pytest.mark.long
@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_stream_that_was_closed_before_costs_nothing(closed):
    descriptor = {"stdout": 1, "stderr": 2}[closed]
    process = subprocess.run(
        [*COMMAND, "conventions"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.close(descriptor),
        check=False,
    )
    assert process.returncode == 0
    assert "Traceback" not in process.stderr
