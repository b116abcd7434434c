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


@pytest.mark.parametrize(
    ("asked", "kept"), [(None, ""), ("", ""), ("/workspace/inside", "/workspace/inside")]
)
def test_predict_sh_keeps_no_ledger_unless_a_folder_is_named_for_it(asked, kept, tmp_path):
    fake = tmp_path / "flarekit"
    fake.write_text("#!/bin/sh\nprintf '%s' \"$FLAREKIT_STATE\"\n")
    fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment.pop("FLAREKIT_STATE", None)
    if asked is not None:
        environment["FLAREKIT_STATE"] = asked
    command = ["sh", SCRIPT]
    result = subprocess.run(command, text=True, capture_output=True, env=environment, check=True)
    assert result.stdout == kept
