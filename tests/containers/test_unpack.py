from __future__ import annotations

import gzip
import json
import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flarekit.containers import unpack as module
from flarekit.containers.saved_image import read_archive
from flarekit.containers.unpack import inside, unpack
from flarekit.core.archive_members import UnpackLimits
from flarekit.core.errors import InputError, OutputError
from tests.containers.small_images import (
    CONFIG,
    device,
    entry,
    fifo,
    folder,
    hardlink,
    layer,
    save,
    symlink,
)


@pytest.fixture
def unpacked(tmp_path):
    """Return a function that saves layers, unpacks them and gives the root."""

    def make(*layers, name="small.tar", **layout):
        archive = read_archive(save(tmp_path / name, layers, **layout))
        unpack(archive, tmp_path / "root")
        return tmp_path / "root"

    return make


def names(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


@pytest.mark.parametrize("oci", [False, True], ids=["legacy", "oci"])
@pytest.mark.parametrize("pack", [None, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", ["small.tar", "small.tar.gz"])
def test_later_layers_lie_on_earlier_ones_whatever_the_layout(unpacked, oci, pack, name):
    root = unpacked(
        layer(folder("etc"), entry("etc/a", b"first"), entry("etc/b", b"stays")),
        layer(entry("etc/a", b"second"), entry("opt/deep/c", b"new")),
        name=name,
        oci=oci,
        pack=pack,
    )
    assert names(root) == ["etc", "etc/a", "etc/b", "opt", "opt/deep", "opt/deep/c"]
    assert (root / "etc/a").read_bytes() == b"second"
    assert (root / "etc/b").read_bytes() == b"stays"


def test_a_layer_that_two_images_share_is_found_through_its_link(tmp_path):
    manifest = [{"Config": "config.json", "RepoTags": None, "Layers": ["two/layer.tar"]}]
    whole = layer(
        symlink("two/layer.tar", "../one/layer.tar"),
        entry("one/layer.tar", layer(entry("a", b"shared"))),
        entry("config.json", json.dumps(CONFIG).encode()),
        entry("manifest.json", json.dumps(manifest).encode()),
    )
    (tmp_path / "small.tar").write_bytes(whole)
    unpack(read_archive(tmp_path / "small.tar"), tmp_path / "root")
    assert (tmp_path / "root/a").read_bytes() == b"shared"


def test_modes_times_and_kinds_are_the_image_s(unpacked):
    root = unpacked(
        layer(
            folder("./", mode=0o751, time=5),
            folder("tmp", mode=0o1777, time=6),
            entry("tmp/run.sh", b"#!/bin/sh\n", mode=0o4755, time=7),
            folder("closed", mode=0o500, time=8),
            entry("closed/inside", b"x"),
            hardlink("same", "tmp/run.sh"),
            symlink("link", "/tmp/run.sh"),
            fifo("pipe"),
        )
    )
    kinds = {name: stat.filemode((root / name).lstat().st_mode) for name in names(root)}
    assert kinds["tmp"] == "drwxrwxrwt"
    assert kinds["tmp/run.sh"] == kinds["same"] == "-rwsr-xr-x"
    assert kinds["closed"] == ("dr-x------" if os.geteuid() == 0 else "drwx------")
    assert kinds["pipe"].startswith("p")
    assert stat.S_IMODE(root.stat().st_mode) == 0o751
    assert (root / "same").samefile(root / "tmp/run.sh")
    assert str((root / "link").readlink()) == "/tmp/run.sh"
    times = {name: (root / name).stat().st_mtime for name in ("tmp", "tmp/run.sh", "closed")}
    assert times == {"tmp": 6, "tmp/run.sh": 7, "closed": 8}
    assert root.stat().st_mtime == 5


def test_devices_are_left_out(unpacked):
    assert names(unpacked(layer(folder("dev"), device("dev/null"), entry("a", b"")))) == [
        "a",
        "dev",
    ]


def test_owners_are_the_image_s_where_this_is_root_and_told_in_any_case(tmp_path):
    content = layer(folder("home", uid=7, gid=8), entry("home/a", b"", uid=1000, gid=1001))
    archive = read_archive(save(tmp_path / "small.tar", [content]))
    entries = unpack(archive, tmp_path / "root")
    told = {str(path): (facts.uid, facts.gid) for path, facts in entries.items()}
    assert told == {"home": (7, 8), "home/a": (1000, 1001)}
    made = (tmp_path / "root/home/a").stat()
    expected = (1000, 1001) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    assert (made.st_uid, made.st_gid) == expected


def test_deletions_take_away_what_lower_layers_hold(unpacked):
    root = unpacked(
        layer(
            entry("etc/a", b""), entry("etc/b", b""), entry("var/x/y", b""), symlink("l", "/etc")
        ),
        layer(entry("etc/.wh.a", b""), entry(".wh.var", b""), entry(".wh.l", b"")),
        layer(entry("etc/.wh.never", b"")),
    )
    assert names(root) == ["etc", "etc/b"]


@pytest.mark.parametrize("first", [True, False], ids=["marked_first", "marked_last"])
def test_an_opaque_folder_keeps_only_what_its_own_layer_adds(unpacked, first):
    marker = [entry("data/.wh..wh..opq", b"")]
    added = [folder("data"), folder("data/sub"), entry("data/sub/new", b"")]
    root = unpacked(
        layer(entry("data/old", b""), entry("data/sub/old", b""), entry("data/gone/old", b"")),
        layer(*(marker + added if first else added + marker)),
    )
    assert names(root) == ["data", "data/sub", "data/sub/new"]


def test_a_deletion_spares_what_the_same_layer_puts_in_its_place(unpacked):
    root = unpacked(
        layer(entry("app/old", b"")),
        layer(folder("app"), entry("app/new", b""), entry(".wh.app", b"")),
    )
    assert names(root) == ["app", "app/new"]


def test_another_kind_of_entry_replaces_a_lower_one(unpacked):
    root = unpacked(
        layer(entry("a/file", b""), entry("b", b"file"), symlink("c", "a")),
        layer(entry("a", b"now a file"), folder("b"), entry("b/file", b""), folder("c")),
    )
    assert names(root) == ["a", "b", "b/file", "c"]
    assert (root / "a").read_bytes() == b"now a file"
    assert not (root / "c").is_symlink()


@pytest.mark.parametrize("target", ["/usr/lib", "usr/lib", "../../usr/lib"])
def test_entries_below_a_link_land_where_it_points_inside_the_root(unpacked, target):
    root = unpacked(
        layer(folder("usr"), folder("usr/lib"), symlink("lib", target)),
        layer(entry("lib/a", b"through the link")),
    )
    assert (root / "usr/lib/a").read_bytes() == b"through the link"


def test_a_link_to_a_folder_of_this_machine_is_never_followed_out(unpacked, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    root = unpacked(layer(symlink("way", str(outside))), layer(entry("way/a", b"kept in")))
    assert list(outside.iterdir()) == []
    assert (root / outside.relative_to("/") / "a").read_bytes() == b"kept in"


@pytest.mark.parametrize(
    "bad",
    [
        entry("../a", b""),
        entry("etc/../../a", b""),
        hardlink("a", "../../etc/passwd"),
        entry("etc/.wh...", b""),
        entry("etc/.wh..", b""),
    ],
    ids=["above", "deep", "hard_link", "deletes_parent", "deletes_itself"],
)
def test_paths_that_lead_out_are_refused(unpacked, bad, tmp_path):
    with pytest.raises(InputError, match="small.tar: a layer"):
        unpacked(layer(folder("etc"), bad))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "small.tar"]


def test_a_hard_link_through_a_link_stays_inside(unpacked, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpacked(layer(symlink("way", str(tmp_path)), hardlink("a", "way/secret")))
    assert secret.stat().st_nlink == 1


def test_links_in_circles_are_an_error(unpacked):
    with pytest.raises(InputError, match="circles"):
        unpacked(layer(symlink("a", "b"), symlink("b", "a"), entry("a/c", b"")))


def test_a_damaged_layer_says_which_archive(unpacked):
    def cut(content):
        return gzip.compress(content)[:-40]

    many = [entry(f"a{number}", os.urandom(3000)) for number in range(20)]
    with pytest.raises(InputError, match=r"small\.tar: cannot be unpacked"):
        unpacked(layer(*many), oci=True, pack=cut)


@pytest.mark.parametrize("at", [10, 60, 150])
def test_a_damaged_tar_is_named_wherever_its_gzip_stream_breaks(tmp_path, at):
    path = save(tmp_path / "small.tar.gz", [layer(entry("etc/a", bytes(range(256)) * 9))])
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + b"\xff" * 30 + whole[at + 30 :])
    with pytest.raises(InputError, match="small.tar.gz: is not a readable tar"):
        read_archive(path)


def test_zstd_layers_are_named_as_such(unpacked):
    with pytest.raises(InputError, match="zstd") as caught:
        unpacked(layer(entry("a", b"")), pack=lambda content: b"\x28\xb5\x2f\xfd" + content)
    assert "Docker" in caught.value.fix


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (UnpackLimits(most_bytes=2000, most_files=99), "more than"),
        (UnpackLimits(most_bytes=10**6, most_files=2), "2 files"),
    ],
)
def test_an_image_that_unpacks_to_more_than_it_may_is_refused(tmp_path, limits, words):
    many = layer(*(entry(f"a{number}", b"x" * 900) for number in range(3)))
    archive = read_archive(save(tmp_path / "small.tar", [many]))
    with pytest.raises(InputError, match=words):
        unpack(archive, tmp_path / "root", limits=limits)


def test_a_tar_that_decompresses_without_end_is_refused(tmp_path):
    archive = read_archive(save(tmp_path / "bomb.tar.gz", [layer(entry("a", bytes(10**6)))]))
    limits = UnpackLimits(most_bytes=10**5)
    with pytest.raises(InputError, match="unpacks to more than"):
        unpack(archive, tmp_path / "root", limits=limits)


def test_a_full_disk_is_not_blamed_on_the_archive(unpacked, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(OutputError, match="No space left"):
        unpacked(layer(entry("a", b"x")))


PARTS = st.sampled_from(["a", "b", "c", "..", ".", ""])
PATHS = st.lists(PARTS, max_size=5).map("/".join)


@pytest.mark.long
@given(
    links=st.dictionaries(st.sampled_from(["a", "b", "c/a"]), st.tuples(st.booleans(), PATHS)),
    path=PATHS,
)
def test_no_path_leads_out_of_a_root(links, path):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "c").mkdir()
        for name, (absolute, target) in links.items():
            (root / name).symlink_to(f"/{target}" if absolute else target or ".")
        try:
            found = inside(root, path)
        except InputError as error:
            assert "circles" in error.message  # noqa: PT017 - most paths raise nothing
            return
        assert found.is_relative_to(root)
        assert ".." not in found.relative_to(root).parts
        assert not found.is_symlink()
