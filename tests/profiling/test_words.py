from __future__ import annotations

import pytest
import words


@pytest.mark.long
def test_every_command_and_every_error_is_printed(capsys):
    words.main()
    said = capsys.readouterr().out
    for command in ("predict", "weights import", "profile docker", "train compact"):
        assert f"Usage: flarekit {command} [OPTIONS]" in said
    assert "core/nifti.py:" in said
    assert "is not a NIfTI file | convert it to NIfTI" in said


def test_what_is_filled_in_stands_in_braces(tmp_path):
    source = tmp_path / "module.py"
    source.write_text('raise InputError(f"{path}: is empty", fix="copy it again")\n')
    assert ("{path}: is empty | copy it again") in [said for _, said in words.messages(source)]
