from __future__ import annotations

import subprocess
import sys
import time

import pytest
import typer

CODE = """
import time
from flarekit.cli.predict import process_start
print(time.monotonic() - process_start())
"""


@pytest.mark.slow
def test_the_time_of_a_case_begins_with_the_process_to_a_few_hundredths_of_a_second():
    for _ in range(3):  # at other fractions of a second
        began = time.monotonic()
        process = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
        )
        whole_s = time.monotonic() - began
        assert 0.02 < float(process.stdout) <= whole_s + 0.03
        time.sleep(0.3)


def said_by(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.long
def test_nibabel_does_not_import_pydicom_for_a_command_and_others_still_may():
    code = """
import sys
from flarekit.cli.starting import spare_pydicom
spare_pydicom()
import nibabel, numpy
image = nibabel.Nifti1Image(numpy.zeros((4, 4, 4), "u1"), numpy.eye(4))
tags = nibabel.nifti1.Nifti1Extension(2, bytes.fromhex("0800600043530200") + b"CT")
image.header.extensions.append(tags)
again = nibabel.Nifti1Image.from_bytes(image.to_bytes())
print("pydicom" in sys.modules, again.shape, [each.get_code() for each in again.header.extensions])
import pydicom
print(pydicom.Dataset.__name__)
"""
    assert said_by(code) == "False (4, 4, 4) [2]\nDataset\n"


@pytest.mark.long
def test_only_the_command_that_is_asked_for_is_built():
    code = """
from flarekit.cli.main import app
print(len(app.only("predict").registered_commands), len(app.only("train").registered_groups))
print(sorted(each.callback.__name__ for each in app.only("evaluate").registered_commands))
print(app.only("") is app, app.only("--help") is app, app.only("prdict") is app)
"""
    assert said_by(code) == "1 1\n['evaluate', 'evaluate_interactive']\nTrue True True\n"


def test_every_command_is_found_by_its_first_word():
    from flarekit.cli.main import app

    program = typer.main.get_command(app)
    for name, command in program.commands.items():
        alone = typer.main.get_command(app.only(name.split()[0]))
        assert alone.commands[name].help == command.help
