"""Text that somebody else wrote: read as editors save it, refused where it cannot be."""

from __future__ import annotations

import os

import pytest

from flarekit.core.errors import FlarekitError, InputError, PredictorError
from flarekit.core.json_files import read_json
from flarekit.core.tables import read_toml
from flarekit.core.text_files import MOST_BYTES, read_text


@pytest.mark.parametrize(
    "content", [b"a = 1\nb = 2\n", b"\xef\xbb\xbfa = 1\nb = 2\n", b"a = 1\r\nb = 2\r\n"]
)
def test_a_byte_order_mark_and_line_ends_of_windows_do_no_harm(tmp_path, content):
    (tmp_path / "x.toml").write_bytes(content)
    assert read_toml(tmp_path / "x.toml", fix="none")[1] == {"a": 1, "b": 2}


@pytest.mark.parametrize("content", [b"\xff\xfea\0", "title = 'ä'".encode("latin-1")])
def test_what_is_not_utf8_is_told_how_to_be_saved(tmp_path, content):
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(PredictorError, match="is not text in UTF-8") as refusal:
        read_toml(tmp_path / "x.toml", fix="none")
    assert "UTF-8" in refusal.value.fix


@pytest.mark.parametrize("content", ["a = " + "[" * 50_000, "a = " + "1" * 5000, "[" * 5000])
def test_toml_that_is_nested_or_written_without_end_is_one_sentence(tmp_path, content):
    (tmp_path / "x.toml").write_text(content)
    with pytest.raises(PredictorError, match=r"x\.toml"):
        read_toml(tmp_path / "x.toml", fix="none")


def test_what_an_object_names_twice_is_refused_as_one_would_be_lost(tmp_path):
    (tmp_path / "x.json").write_text('{"a": {"liver": 1, "liver": 2}}')
    with pytest.raises(InputError, match=r"x\.json: is not JSON \('liver' is there twice\)"):
        read_json(tmp_path / "x.json")


def test_a_pipe_a_device_and_a_folder_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, os.devnull):
        with pytest.raises(FlarekitError, match="and should be a file"):
            read_text(tmp_path / path, fix="name a file")


def test_a_file_that_is_larger_than_text_can_be_is_not_read(tmp_path):
    with (tmp_path / "x.json").open("wb") as stream:
        stream.truncate(MOST_BYTES + 1)
    with pytest.raises(InputError, match=r"x\.json: has 67,108,865 bytes"):
        read_json(tmp_path / "x.json")
