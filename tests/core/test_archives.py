from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import random
import shutil
import tarfile
import zipfile

import pytest

from flarekit.core.archive_members import UnpackLimits
from flarekit.core.archives import is_archive, unpack_archive
from flarekit.core.errors import InputError, OutputError

NOISE = random.Random(0).randbytes(9000)  # the same in every process: test ids are made of it
PACKERS = {"plain": bytes, "gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress}


def tar_of(*members, ending=True):
    """Return a tar; a member is (name, content), or (name, type, where it links to)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, *rest in members:
            entry = tarfile.TarInfo(name)
            if isinstance(rest[0], bytes) and len(rest) == 1:
                entry.size = len(rest[0])
                tar.addfile(entry, io.BytesIO(rest[0]))
                continue
            entry.type, entry.linkname = rest
            tar.addfile(entry)
    content = stream.getvalue()
    return content if ending else content.rstrip(b"\0")


def zip_of(*members, modes=()):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = dict(modes).get(name, 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return stream.getvalue()


@pytest.fixture
def unpack(tmp_path):
    """Return a function that unpacks bytes and gives what is there: names -> content."""

    def make(content, limits=None):
        path, folder = tmp_path / "a.bin", tmp_path / "deep" / "out"
        path.write_bytes(content)
        files = unpack_archive(path, folder, limits)
        assert not any(each.is_symlink() for each in folder.rglob("*"))
        return {each.relative_to(folder).as_posix(): each.read_bytes() for each in files}

    return make


def nothing_but(tmp_path, *names):
    return sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == sorted(names)


@pytest.mark.parametrize("packer", PACKERS.values(), ids=PACKERS)
def test_a_tar_is_unpacked_whatever_compresses_it(unpack, packer):
    content = packer(tar_of(("./", tarfile.DIRTYPE, ""), ("./m/a.txt", b"one"), ("b", b"")))
    assert unpack(content) == {"m/a.txt": b"one", "b": b""}


def test_a_zip_is_unpacked_also_one_that_windows_made(unpack):
    assert unpack(zip_of(("m/", b""), ("m/a", b"one"), ("n\\b", b"two"))) == {
        "m/a": b"one",
        "n/b": b"two",
    }


def test_a_link_within_the_archive_becomes_a_copy(unpack):
    tar = tar_of(
        ("m/soft", tarfile.SYMTYPE, "../n/a"),
        ("n/a", b"one"),
        ("m/hard", tarfile.LNKTYPE, "n/a"),
    )
    assert unpack(tar) == {"m/soft": b"one", "m/hard": b"one", "n/a": b"one"}


def test_a_link_in_a_zip_becomes_a_copy(unpack):
    packed = zip_of(("a", b"one"), ("m/soft", b"../a"), modes=[("m/soft", 0o120777)])
    assert unpack(packed) == {"a": b"one", "m/soft": b"one"}


@pytest.mark.parametrize(
    "content",
    [
        tar_of(("../x", b"1")),
        tar_of(("/tmp/x", b"1")),
        tar_of(("a/../../x", b"1")),
        tar_of(("..\\x", b"1")),
        tar_of(("door", tarfile.SYMTYPE, "/tmp"), ("door/x", b"1")),
        tar_of(("door", tarfile.SYMTYPE, ".."), ("door/x", b"1")),
        tar_of(("x", tarfile.SYMTYPE, "/etc/passwd")),
        tar_of(("x", tarfile.LNKTYPE, "/etc/passwd")),
        tar_of(("x", tarfile.LNKTYPE, "../../secret")),
        tar_of(("x", tarfile.SYMTYPE, "missing")),
        tar_of(("x", tarfile.SYMTYPE, "x")),
        tar_of(("x", tarfile.FIFOTYPE, "")),
        tar_of(("x", tarfile.CHRTYPE, "")),
        tar_of(("x", b"1"), ("x/y", b"2")),
        tar_of(("x/y", b"2"), ("x", b"1")),
        zip_of(("../x", b"1")),
        zip_of(("/x", b"1")),
        zip_of(("C:\\x", b"1")),
        zip_of(("door", b"/tmp"), ("door/x", b"1"), modes=[("door", 0o120777)]),
    ],
)
def test_what_leads_out_or_is_no_file_is_refused_and_leaves_nothing(tmp_path, unpack, content):
    with pytest.raises(InputError, match="a.bin"):
        unpack(content)
    assert nothing_but(tmp_path, "a.bin", "deep")


@pytest.mark.long
@pytest.mark.parametrize("packer", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("size", [100_000, 40_000_000], ids=["a little", "much"])
def test_no_more_is_unpacked_than_is_allowed(tmp_path, unpack, packer, size):
    limits = UnpackLimits(most_bytes=50_000, most_files=10)
    with pytest.raises(InputError, match="more than"):
        unpack(packer(tar_of(("a", b"1"), ("bomb", bytes(size)))), limits)
    with pytest.raises(InputError, match="more than"):
        unpack(zip_of(("bomb", bytes(size))), limits)
    assert nothing_but(tmp_path, "a.bin", "deep")


def test_copies_made_for_links_count(unpack):
    links = [(f"l{k}", tarfile.LNKTYPE, "a") for k in range(9)]
    with pytest.raises(InputError, match="more than 50000 bytes"):
        unpack(tar_of(("a", bytes(10_000)), *links), UnpackLimits(most_bytes=50_000))


def test_a_zip_that_lies_about_a_size_is_refused(unpack):
    packed = bytearray(zip_of(("bomb", bytes(100_000))))
    for start in (packed.index(b"PK\x03\x04") + 22, packed.index(b"PK\x01\x02") + 24):
        packed[start : start + 4] = (5).to_bytes(4, "little")
    with pytest.raises(InputError, match="a.bin"):
        unpack(bytes(packed), UnpackLimits(most_bytes=50_000))


def test_too_many_files_are_refused(unpack):
    with pytest.raises(InputError, match="more than 5 files"):
        unpack(tar_of(*((str(k), b"") for k in range(6))), UnpackLimits(most_files=5))


def test_a_header_may_not_ask_for_much_memory(unpack):
    entry = tarfile.TarInfo("././@PaxHeader")
    entry.type, entry.size = tarfile.XHDTYPE, 1 << 30
    with pytest.raises(InputError, match="a.bin: is damaged"):
        unpack(entry.tobuf() + bytes(1 << 12))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello" * 500,
        gzip.compress(b"hello" * 500, mtime=0),
        gzip.compress(tar_of(("a", NOISE)), mtime=0)[:-2000],
        gzip.compress(tar_of(("a", NOISE)), mtime=0)[:-1],
        lzma.compress(tar_of(("a", NOISE)))[:-2000],
        bz2.compress(tar_of(("a", NOISE)))[:-2000],
        tar_of(("a", bytes(9000)))[:3000],
        tar_of(("a", bytes(9000)), ("b", b"2"))[:10300],
        zip_of(("a", NOISE))[:5000],
        b"PK\x03\x04" + bytes(100),
    ],
)
def test_a_damaged_archive_is_named_and_leaves_nothing(tmp_path, unpack, content):
    with pytest.raises(InputError, match="a.bin"):
        unpack(content)
    assert nothing_but(tmp_path, "a.bin", "deep")


def test_a_damaged_header_does_not_end_an_archive_silently(unpack):
    content = bytearray(tar_of(("a", b"1"), ("b", b"2"), ("c", b"3")))
    content[1024 + 5] ^= 0xFF
    with pytest.raises(InputError, match="a.bin: is damaged"):
        unpack(bytes(content))


def test_gzip_streams_that_are_wrong_in_any_byte_are_the_archives_fault(tmp_path):
    whole = gzip.compress(tar_of(("a", NOISE[:3000]), ("b", b"text" * 500)), mtime=0)
    rng = random.Random(0)
    for _ in range(100):
        content = bytearray(whole)
        content[rng.randrange(10, len(content))] ^= 1 << rng.randrange(8)
        (tmp_path / "a.tgz").write_bytes(content)
        with contextlib.suppress(InputError):
            unpack_archive(tmp_path / "a.tgz", tmp_path / "out")
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert [path.name for path in tmp_path.iterdir()] == ["a.tgz"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("archive_of", [tar_of, zip_of])
def test_a_name_that_two_members_have_is_refused(unpack, tmp_path, archive_of):
    with pytest.raises(InputError, match="a.bin: holds 'm/a' twice, and only one of them could"):
        unpack(archive_of(("m/a", b"one"), ("m/a", b"other")))
    assert nothing_but(tmp_path, "a.bin", "deep")


def test_an_encrypted_zip_is_refused(unpack):
    packed = bytearray(zip_of(("a", b"secret")))
    packed[packed.index(b"PK\x03\x04") + 6] |= 1
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(InputError, match=r"a.bin: is encrypted"):
        unpack(bytes(packed))


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    path, folder = tmp_path / "a.tar", tmp_path / "out"
    path.write_bytes(tar_of(("a", b"1")))
    folder.mkdir()
    assert unpack_archive(path, folder) == (folder / "a",)
    with pytest.raises(OutputError, match="is there already"):
        unpack_archive(path, folder)
    with pytest.raises(InputError, match=r"none.tar: cannot be read"):
        unpack_archive(tmp_path / "none.tar", tmp_path / "other")


def test_what_an_archive_is_its_content_tells(tmp_path):
    for name, content in (("a.txt", tar_of(("a", b"1"))), ("b", zip_of(("a", b"1")))):
        (tmp_path / name).write_bytes(content)
        assert is_archive(tmp_path / name)
    (tmp_path / "c.zip").write_bytes(b"hello")
    assert not is_archive(tmp_path / "c.zip")
    assert not is_archive(tmp_path / "none")


def test_a_zip_whose_directory_points_before_its_start_is_the_archives_fault(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.txt", b"text")
    content = bytearray(packed.getvalue())
    end = content.rfind(b"PK\x05\x06") + 16  # where its directory begins
    content[end : end + 4] = (int.from_bytes(content[end : end + 4], "little") + 10).to_bytes(
        4, "little"
    )
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zip"):
        unpack_archive(tmp_path / "a.zip", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
