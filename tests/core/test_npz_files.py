"""Arrays that somebody else wrote, and files that only look as if they held some."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from flarekit.core.errors import InputError, UnreadableVolumeError
from flarekit.core.npz_files import read_arrays
from flarekit.core.probabilities import read_probabilities
from flarekit.verification.masks import read_mask


def test_arrays_come_back_as_they_were_stored(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", segs=np.arange(24).reshape(2, 3, 4), spacing=np.ones(3))
    found = read_arrays(tmp_path / "a.npz")
    assert list(found) == ["segs", "spacing"]
    assert np.array_equal(found["segs"], np.arange(24).reshape(2, 3, 4))


def an_npy_file(path):
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))


def a_broken_header(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("segs", "probabilities"):
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00\x02\x00[1")


def a_broken_stream(path):
    np.savez_compressed(path, probabilities=np.random.default_rng(0).random((1, 9, 9, 9)))
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(255 - byte for byte in content[200:400])
    path.write_bytes(content)


def objects(path):
    np.savez(path, segs=np.array([{}]), probabilities=np.array([{}]), allow_pickle=True)


def no_archive(path):
    path.write_bytes(b"no archive")


def no_bytes(path):
    path.write_bytes(b"")


def nothing(path):
    assert not path.exists()


BROKEN = [an_npy_file, a_broken_header, a_broken_stream, objects, no_archive, no_bytes, nothing]


@pytest.mark.parametrize("write", BROKEN)
def test_whatever_is_wrong_with_a_file_is_one_kind_of_error(write, tmp_path):
    path = tmp_path / "a.npz"
    write(path)
    with pytest.raises(ValueError, match=r"."):
        read_arrays(path)
    with pytest.raises(UnreadableVolumeError, match="cannot be read"):
        read_mask(path)
    with pytest.raises(InputError, match="holds no probabilities"):
        read_probabilities(path, (9, 9, 9))
