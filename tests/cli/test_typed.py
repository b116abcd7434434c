"""Commands that are printed to be typed."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from flarekit.cli.console import typed


@pytest.mark.parametrize("path", ["my run", "it's", "a;b", "$HOME", "plain"])
def test_a_shell_takes_a_path_in_a_command_that_is_printed_for_one_word(path):
    line = typed("train", "export", Path(path), "weights/NAME")
    assert shlex.split(line) == ["flarekit", "train", "export", path, "weights/NAME"]
