from __future__ import annotations

import subprocess
import sys
import time

import pytest

CODE = """
import time
from flarekit.cli.predict import process_start
print(time.monotonic() - process_start())
"""


@pytest.mark.long
def test_the_time_of_a_case_begins_with_the_process_to_a_few_hundredths_of_a_second():
    for _ in range(3):  # at other fractions of a second
        began = time.monotonic()
        process = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
        )
        whole_s = time.monotonic() - began
        assert 0.02 < float(process.stdout) <= whole_s + 0.03
        time.sleep(0.3)
