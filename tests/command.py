"""The command line: in this process where that shows the same, or in one of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from flarekit.cli import main

COMMAND = [str(Path(sys.executable).parent / "flarekit")]
PLAIN = {"NO_COLOR": "1", "COLUMNS": "200"}


@dataclass(frozen=True)
class Said:
    """What a command came to; named as `subprocess.CompletedProcess` names it."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments, **environment) -> Said:
    """Run `flarekit` in this process; its time counts from now on."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, {**PLAIN, **environment}),
        mock.patch("flarekit.cli.predict.process_start", time.monotonic),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main.run([str(each) for each in arguments])
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    return Said(code, out.getvalue(), err.getvalue())


def run_process(*arguments, **environment) -> subprocess.CompletedProcess[str]:
    """Run `flarekit` in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        text=True,
        encoding="utf-8",
        capture_output=True,
        env={**os.environ, **PLAIN, **environment},
        check=False,
    )
