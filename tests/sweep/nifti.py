"""Mutations of one CT, `a_0000.nii.gz`."""

from __future__ import annotations

import gzip
import struct

import nibabel
import numpy as np

from tests.sweep.mutations import Table, garbage, words

NIFTI = Table()
NAME = "a_0000.nii.gz"
_SHAPE = (14, 12, 8)
_TEXTS = {
    "descrip": (148, 80),
    "aux_file": (228, 24),
    "intent_name": (328, 16),
    "db_name": (14, 18),
}
_IDLE = {"cal_max": 124, "cal_min": 128, "slice_duration": 132, "toffset": 136, "glmax": 140}


def write_nifti(folder):
    folder.mkdir(parents=True)
    voxels = np.random.default_rng(5).integers(-1000, 1000, _SHAPE).astype(np.int16)
    save(folder, voxels)


def save(folder, voxels, kind=nibabel.Nifti1Image, header=None):
    affine = np.diag([-2.5, -1.5, 4.0, 1.0])
    image = kind(voxels, affine, header)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nibabel.save(image, folder / NAME)


def raw_of(folder):
    return bytearray(gzip.decompress((folder / NAME).read_bytes()))


def put(folder, raw):
    (folder / NAME).write_bytes(gzip.compress(bytes(raw), 1))


def voxels_of(folder):
    return np.asarray(nibabel.load(folder / NAME).dataobj)


def patch(folder, at, content):
    raw = raw_of(folder)
    raw[at : at + len(content)] = content
    put(folder, raw)
    return [NAME]


@NIFTI.same("texts and idle fields of the header hold any bytes")
def _(random, folder):
    for at, length in _TEXTS.values():
        patch(folder, at, random.randbytes(length))
    for at in _IDLE.values():
        patch(folder, at, random.randbytes(4))


@NIFTI.same("bytes are compressed in other ways")
def _(random, folder):
    raw = bytes(raw_of(folder))
    at = random.randrange(1, len(raw))
    content = random.choice(
        [
            raw,
            gzip.compress(raw, random.randint(0, 9)),
            gzip.compress(raw[:at]) + gzip.compress(raw[at:]),
            gzip.compress(raw) + bytes(random.randint(1, 600)),
        ]
    )
    (folder / NAME).write_bytes(content)


@NIFTI.same("voxels have another type or byte order")
def _(random, folder):
    voxels = voxels_of(folder)
    kind = random.choice(["i2", "i4", "f4", "f8"])
    header = nibabel.Nifti1Header(endianness=random.choice("<>"))
    header.set_data_dtype(kind)
    save(folder, voxels.astype(kind), header=header)


@NIFTI.same("it is NIfTI-2")
def _(random, folder):
    kind = random.choice(["i2", "i4", "f4"])
    header = nibabel.Nifti2Header(endianness=random.choice("<>"))
    header.set_data_dtype(kind)
    save(folder, voxels_of(folder).astype(kind), nibabel.Nifti2Image, header)


@NIFTI.same("slope and intercept say nothing")
def _(random, folder):
    slope, intercept = random.choice([(0.0, 7.0), (float("nan"), float("nan")), (1.0, 0.0), (0, 0)])
    patch(folder, 112, struct.pack("<ff", slope, intercept))


@NIFTI.same("there are header extensions and bytes behind the voxels")
def _(random, folder):
    raw = raw_of(folder)
    size = 16 * random.randint(1, 40)
    extension = struct.pack("<ii", size, random.choice([0, 2, 4, 6])) + random.randbytes(size - 8)
    raw[108:112] = struct.pack("<f", 352 + size)
    raw[348:352] = b"\1\0\0\0"
    put(folder, raw[:352] + extension + raw[352:] + garbage(random, 3000))


@NIFTI.same("one of sform and qform is damaged or absent")
def _(random, folder):
    if random.random() < 0.5:
        patch(folder, 256, random.randbytes(12))  # quatern_b to quatern_d
        patch(folder, 252, struct.pack("<h", random.choice([0, 1])))
    else:
        patch(folder, 254, struct.pack("<h", 0))
        patch(folder, 280, random.randbytes(48))


@NIFTI.same("there are trailing axes of one")
def _(random, folder):
    raw = raw_of(folder)
    count = random.randint(4, 7)
    raw[40:42] = struct.pack("<h", count)
    for k in range(4, count + 1):
        raw[40 + 2 * k : 42 + 2 * k] = struct.pack("<h", 1)
    put(folder, raw)


@NIFTI.same("other files lie beside it")
def _(random, folder):
    for name in ("a.nii.gz", "b.nii", "notes.txt", ".hidden_0000.nii.gz", "a_0001.nii.gz", "x y"):
        if random.random() < 0.6:
            (folder / name).write_bytes(garbage(random, 900))
    (folder / "c_0000.nii.gz").mkdir()


@NIFTI.refused("the compressed file is cut off")
def _(random, folder):
    whole = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(whole[: random.randrange(len(whole) - 1)])
    return [NAME]


@NIFTI.refused("the voxels are fewer than the header says")
def _(random, folder):
    raw = raw_of(folder)
    cut = raw[: random.randrange(len(raw) - 1)]
    if random.random() < 0.5:
        put(folder, cut)
    else:
        (folder / NAME).write_bytes(cut)
    return [NAME]


@NIFTI.refused("the header counts no voxels, or more than can be")
def _(random, folder):
    axis = random.randint(1, 3)
    patch(folder, 40 + 2 * axis, struct.pack("<h", random.choice([0, -1, -32768, 30000])))
    return [NAME, "(dim"]


@NIFTI.refused("all axes are as long as a header can say")
def _(random, folder):
    patch(folder, 42, struct.pack("<hhh", *(random.choice([32767, 20000]) for _ in "xyz")))
    return [NAME, "(dim"]


@NIFTI.refused("it is not 3D")
def _(random, folder):
    if random.random() < 0.5:
        patch(folder, 40, struct.pack("<h", random.choice([0, 1, 2, 8, -1, 300])))
    else:
        patch(folder, 40, struct.pack("<hhhhh", 4, 7, 12, 8, 2))
    return [NAME, "(dim"]


@NIFTI.refused("the voxels are of no real type")
def _(random, folder):
    code, bits = random.choice(
        [(32, 64), (128, 24), (1, 1), (1792, 128), (77, 16), (-1, 8), (0, 0)]
    )
    return [*patch(folder, 70, struct.pack("<hh", code, bits)), "data"]


@NIFTI.refused("the voxels begin nowhere")
def _(random, folder):
    start = random.choice([-352.0, -1.0, float("nan"), float("inf"), 1e30, 1e6, -1e30])
    return patch(folder, 108, struct.pack("<f", start))


@NIFTI.refused("the affine places no voxels")
def _(random, folder):
    odd = random.choice([0.0, float("nan"), float("inf"), 1e30, -1e30, 1e-30])
    row = struct.pack("<ffff", odd, odd, odd, odd)
    return [*patch(folder, 280, row * 3), "affine"]


@NIFTI.refused("the spacing is beyond any scanner")
def _(random, folder):
    scale = random.choice([1e3, 1e5, 1e-4, 1e-6])
    rows = [(-2.5 * scale, 0, 0, 0), (0, -1.5 * scale, 0, 0), (0, 0, 4.0 * scale, 0)]
    patch(folder, 280, b"".join(struct.pack("<ffff", *row) for row in rows))
    return [NAME, "spacing"]


@NIFTI.refused("it is something else")
def _(random, folder):
    content = random.choice(
        [
            b"",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            b"<!DOCTYPE html><html>" + words(random).encode(),
            b"PK\3\4" + garbage(random),
            b"NRRD0004\n" + garbage(random),
            bytes(128) + b"DICM" + garbage(random),
            gzip.compress(gzip.compress(bytes(raw_of(folder)))),
            b"\x1f\x8b" + garbage(random),
            garbage(random, 2000),
        ]
    )
    (folder / NAME).write_bytes(content)
    return [NAME]
