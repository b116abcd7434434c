from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flarekit.core.errors import InputError
from flarekit.core.names import LONGEST_NAME, UnsafePathError, path_within, safe_name


@pytest.mark.parametrize(
    "text", ["1.2.840.10008.5.1.4", "case_07-a", "liver.nii", "X" * LONGEST_NAME, "a.b"]
)
def test_a_name_that_is_safe_stays_as_it_is(text):
    assert safe_name(text) == text


@pytest.mark.parametrize(
    ("text", "beginning"),
    [
        ("../../escaped/ANON 1", "escaped_ANON_1-"),
        ("/etc/passwd", "etc_passwd-"),
        ("..", "unnamed-"),
        ("~root", "root-"),
        ("-rf", "rf-"),
        (".hidden", "hidden-"),
        ("C:\\scans\\one", "C_scans_one-"),
        ("a\0b\nc", "a_b_c-"),
        ("Müller^Jörg", "Muller_Jorg-"),
        ("肝臓", "unnamed-"),
        ("con", "_con-"),
        ("NUL.dcm", "_NUL.dcm-"),
        ("trailing.", "trailing-"),
        ("$(reboot)", "reboot-"),
        ("\udcff\ud800", "unnamed-"),
        ("9" * 300, "9" * 100),
    ],
)
def test_every_other_text_becomes_one(text, beginning):
    assert safe_name(text).startswith(beginning)


def test_nothing_has_a_name_too():
    assert safe_name("") == "unnamed"
    assert safe_name(None, otherwise="series") == "None"
    assert safe_name("", otherwise="series") == "series"


@pytest.mark.long
@given(st.text(max_size=300))
def test_a_name_is_one_part_of_a_path_whatever_the_text(text):
    name = safe_name(text)
    assert Path(name).name == name
    assert name not in ("", ".", "..")
    assert len(name) <= LONGEST_NAME
    assert name.isascii()
    assert name.isprintable()
    assert name == safe_name(text)


@pytest.mark.long
@given(st.lists(st.text(alphabet="a/. _ä", min_size=1, max_size=5), unique=True, max_size=20))
def test_two_texts_never_share_a_name(texts):
    assert len({safe_name(text) for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("images/ct", ("images", "ct")),
        ("./images//ct/", ("images", "ct")),
        ("images\\ct\\a b.mha", ("images", "ct", "a b.mha")),
        ("..name/x..y", ("..name", "x..y")),
    ],
)
def test_a_path_below_a_folder_is_taken(tmp_path, text, parts):
    assert path_within(tmp_path, text, source="inputs.json") == tmp_path.joinpath(*parts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "/",
        "/etc/passwd",
        "//server/share",
        "../x",
        "a/../../x",
        "a/..",
        "..\\x",
        "\\x",
        "C:\\x",
        "c:x",
        "a\0b",
        "a\nb",
        "a/\x1b[2J",
        "x/" * 3000,
        "n" * 300,
    ],
)
def test_a_path_that_leads_out_or_cannot_be_is_refused_with_its_source(tmp_path, text):
    with pytest.raises(UnsafePathError, match="inputs.json: the path"):
        path_within(tmp_path, text, source="inputs.json")


def test_a_link_that_leads_out_is_no_way_around(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "door").symlink_to(outside)
    (inside / "round").symlink_to(inside / "round")
    (inside / "own").symlink_to(inside / "real")
    with pytest.raises(InputError, match="symbolic link"):
        path_within(inside, "door/x", source="a")
    with pytest.raises(InputError, match="the path"):
        path_within(inside, "round/x", source="a")
    assert path_within(inside, "own/x", source="a") == inside / "own" / "x"
