from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "predict.sh"


@pytest.mark.parametrize("shell", ["dash", "bash", "sh"])
def test_predict_sh_calls_flarekit_with_the_default_folders(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    fake = tmp_path / "flarekit"
    fake.write_text("#!/bin/sh\nprintf '%s|' \"$@\"\nexit 7\n")
    fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for arguments, expected in (
        ([], "predict|--input|/workspace/inputs|--output|/workspace/outputs|"),
        (["in put", "out"], "predict|--input|in put|--output|out|"),
    ):
        result = subprocess.run(
            [shell, SCRIPT, *arguments],
            text=True,
            capture_output=True,
            env=environment,
            check=False,
        )
        assert (result.stdout, result.returncode) == (expected, 7)
    assert subprocess.run([shell, "-n", SCRIPT], check=False).returncode == 0
