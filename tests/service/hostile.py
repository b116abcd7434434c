"""Uploads that mean harm, each made from a seed."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK

from tests.conventions.dicom.dicom_files import ct_voxels, write_series

SCRIPT = "<script>alert('marked')</script>"
Part = tuple[str, str, bytes]  # field, file name, content
NAMES = (
    "../../../marked.nii",
    "/tmp/marked.nii",
    "..\\..\\marked.nii",
    "C:\\marked.nii",
    "a\x00marked.nii",
    f"{SCRIPT}.nii",
    "marked/" * 60 + "x.nii",
    "m" * 400 + ".nii",
    "con.nii.gz",
    ".",
    "..",
    "",
    " ",
    "-rf",
    "\u202emarked.nii",
    "caf\udce9.nii".encode("utf-8", "replace").decode(),
    "scan.nii.gz",
    "scan.zip",
    "scan.mha",
    "scan.nrrd",
    "scan.mhd",
    "IM0001",
)


def _nifti(rng: random.Random) -> bytes:
    shape = tuple(rng.randint(1, 9) for _ in range(3))
    voxels = np.full(shape, rng.randint(-1000, 1000), np.int16)
    return nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 3.0, 1.0])).to_bytes()


def _file_of(ending: str) -> bytes:
    image = SimpleITK.GetImageFromArray(np.full((4, 5, 6), 150, np.int16))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{ending}"
        SimpleITK.WriteImage(image, path)
        return path.read_bytes()


def _series(**elements: str) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        write_series(Path(folder) / "s", ct_voxels(), **elements)
        return [path.read_bytes() for path in sorted((Path(folder) / "s").iterdir())]


MHA, NRRD = _file_of(".mha"), _file_of(".nrrd")
SERIES = _series(SeriesDescription=SCRIPT[:60], PatientName="MARKED^MAN", PatientID="MARKED")


def bent(rng: random.Random, content: bytes, head: int = 400) -> bytes:
    """Return bytes of which some are others, are missing or come twice, mostly at the beginning."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(min(len(data), head)) if rng.random() < 0.8 else rng.randrange(len(data))
        act = rng.randrange(4)
        if act == 0:
            data[at] = rng.randrange(256)
        elif act == 1:
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\xff\xff\xff\xff"))
        elif act == 2:
            del data[at : at + rng.randint(1, 40)]
        else:
            data[at:at] = data[at : at + rng.randint(1, 40)]
        if not data:
            data = bytearray(b"x")
    return bytes(data[: rng.randrange(1, len(data) + 1)] if rng.random() < 0.2 else data)


def names(rng: random.Random) -> list[Part]:
    return [("scan", rng.choice(NAMES), _nifti(rng))]


def bent_nifti(rng: random.Random) -> list[Part]:
    content = bent(rng, _nifti(rng))
    packed = gzip.compress(content)
    if rng.random() < 0.4:
        return [("scan", "a.nii.gz", bent(rng, packed) if rng.random() < 0.5 else packed)]
    return [("scan", "a.nii", content)]


def huge_nifti(rng: random.Random) -> list[Part]:
    content = bytearray(_nifti(rng))
    sizes = [rng.choice((1, 7, 3000, 32767)) for _ in range(3)]
    struct.pack_into("<8h", content, 40, rng.choice((3, 3, 3, 7)), *sizes, 1, 1, 1, 1)
    return [("scan", "a.nii.gz", gzip.compress(bytes(content)))]


def bent_text_header(rng: random.Random) -> list[Part]:
    ending, content = rng.choice(((".mha", MHA), (".nrrd", NRRD)))
    if rng.random() < 0.4:
        field = rng.choice((b"ElementDataFile = /etc/passwd\n", b"data file: /etc/passwd\n"))
        content = content[:60].rpartition(b"\n")[0] + b"\n" + field + content[60:]
    return [("scan", f"a{ending}", bent(rng, content))]


def bent_dicom(rng: random.Random) -> list[Part]:
    files = list(SERIES)
    for _ in range(rng.randint(1, 3)):
        k = rng.randrange(len(files))
        files[k] = bent(rng, files[k], 1500)
    if rng.random() < 0.3:
        del files[rng.randrange(len(files))]
    return [("scan", f"MARKED{k}.dcm", content) for k, content in enumerate(files)]


def zipped(rng: random.Random) -> list[Part]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for _ in range(rng.randint(0, 4)):
            info = zipfile.ZipInfo(rng.choice(NAMES).replace("\x00", "_") or "x")
            if rng.random() < 0.2:
                info.external_attr = rng.choice((0o120777, 0o020666, 0o010666)) << 16
            big = rng.random() < 0.2
            archive.writestr(info, bytes(6 << 20) if big else rng.choice((_nifti(rng), b"/etc")))
        if rng.random() < 0.2:
            inner = io.BytesIO()
            with zipfile.ZipFile(inner, "w") as within:
                within.writestr("a.nii", _nifti(rng))
            archive.writestr("inner.zip", inner.getvalue())
    content = packed.getvalue()
    return [("scan", "a.zip", bent(rng, content, len(content)) if rng.random() < 0.4 else content)]


def tarred(rng: random.Random) -> list[Part]:
    packed = io.BytesIO()
    mode = rng.choice(("w", "w:gz", "w:xz", "w:bz2"))
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for _ in range(rng.randint(0, 4)):
            member = tarfile.TarInfo(rng.choice(NAMES).replace("\x00", "_") or "x")
            member.type = rng.choice(
                (tarfile.REGTYPE,) * 3
                + (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
            )
            member.linkname = rng.choice(("/etc/passwd", "../../marked", "x"))
            content = _nifti(rng)
            member.size = len(content) if member.type == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(content))
    content = packed.getvalue()
    return [("scan", "a.tar", bent(rng, content, len(content)) if rng.random() < 0.4 else content)]


def mixed(rng: random.Random) -> list[Part]:
    return [part for make in rng.sample(UPLOADS, 2) for part in make(rng)]


UPLOADS: tuple[Callable[[random.Random], list[Part]], ...] = (
    names,
    bent_nifti,
    huge_nifti,
    bent_text_header,
    bent_dicom,
    zipped,
    tarred,
)


def raw_request(rng: random.Random) -> bytes:
    """Return the bytes of a request whose lengths, heads or hosts are wrong."""
    nifti = _nifti(rng)
    body = (
        b'--x\r\nContent-Disposition: form-data; name="scan"; filename="a.nii"\r\n\r\n'
        + nifti
        + b"\r\n--x--\r\n"
    )
    if rng.random() < 0.5:
        body = bent(rng, body, len(body))
    length = rng.choice((len(body), len(body) + 100, max(0, len(body) - 50), 10**12, -1))
    host = rng.choice((b"localhost", b"localhost", b"evil.example", b"", b"a\tb", b"[::1", b"\xff"))
    origin = rng.choice((b"", b"", b"Origin: http://evil.example\r\n", b"Origin: null\r\n"))
    path = rng.choice((b"/v1/cases", b"/v1/cases", b"/v1/../etc/passwd", b"/%00", b"//evil/v1"))
    head = (
        b"POST "
        + path
        + b" HTTP/1.1\r\nHost: "
        + host
        + b"\r\n"
        + origin
        + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: "
        + str(length).encode()
        + b"\r\n\r\n"
    )
    if rng.random() < 0.3:
        head = bent(rng, head, len(head))
    return head + body
