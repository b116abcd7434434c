"""Mutations of an archive of a predictor, `model.tar`."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

from tests.sweep.mutations import Table, garbage, words

TAR = Table()
NAME = "model.tar"
FILES = {
    "toy/predictor.toml": b"name = 'toy'\n" * 30,
    "toy/model.safetensors": bytes(range(256)) * 9,
}


def write_tar(folder):
    folder.mkdir(parents=True)
    save(folder, tar(FILES.items()))


def save(folder, content):
    (folder / NAME).write_bytes(content)
    return [NAME]


def tar(files, extra=(), form=tarfile.GNU_FORMAT):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for entry in extra:
            archive.addfile(entry)
    return stream.getvalue()


def other(name, kind, link=""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    return entry


def packed(random, content):
    return random.choice([bytes, gzip.compress, bz2.compress, lzma.compress])(content)


@TAR.same("the archive is compressed, of another form, or a zip")
def _(random, folder):
    form = random.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
    content = packed(random, tar(FILES.items(), form=form))
    if random.random() < 0.3:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", random.choice([0, 8, 12, 14])) as archive:
            for name, data in FILES.items():
                archive.writestr(name, data)
        content = stream.getvalue()
    save(folder, content)


@TAR.same("members have another order, other modes, owners and folders around them")
def _(random, folder):
    files = list(FILES.items())
    random.shuffle(files)
    folders = [other("./", tarfile.DIRTYPE), other("toy", tarfile.DIRTYPE)]
    for entry in folders:
        entry.mode, entry.uid, entry.uname = random.choice([0, 0o777, 0o4755]), 999, words(random)
    prefix = random.choice(["", "./", ".//"])
    save(folder, packed(random, tar([(prefix + name, data) for name, data in files], folders)))


@TAR.same("zeros follow the end")
def _(random, folder):
    save(folder, packed(random, tar(FILES.items()) + bytes(512 * random.randint(1, 200))))


@TAR.refused("a member leads out")
def _(random, folder):
    up = ["../x", "/tmp/x", "toy/../../x", "..", "//x", "..\\x", "C:\\x", "toy/../../../../etc/x"]
    return save(folder, packed(random, tar([*FILES.items(), (random.choice(up), b"1")])))


@TAR.refused("a link leads out")
def _(random, folder):
    kind = random.choice([tarfile.SYMTYPE, tarfile.LNKTYPE])
    target = random.choice(["/etc/passwd", "../../x", "/", "../..", "nowhere", "toy/none"])
    files = [*FILES.items()]
    entry = other("toy/link", kind, target)
    content = tar(files, [entry, other("toy/link/x", tarfile.REGTYPE)])
    return save(folder, packed(random, content))


@TAR.refused("a member is a device or a pipe")
def _(random, folder):
    kind = random.choice([tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
    return save(folder, packed(random, tar(FILES.items(), [other("toy/x", kind)])))


@TAR.refused("a file unpacks to more than is allowed")
def _(random, folder):
    size = random.choice([2 << 20, 30 << 20])
    return save(folder, packed(random, tar([*FILES.items(), ("bomb", bytes(size))])))


@TAR.refused("a compressed archive is cut off")
def _(random, folder):
    content = random.choice([gzip.compress, bz2.compress, lzma.compress])(tar(FILES.items()))
    return save(folder, content[: random.randrange(len(content))])


@TAR.refused("a header is damaged")
def _(random, folder):
    content = bytearray(tar(FILES.items()))
    header = random.choice([0, content.index(b"toy/model")])
    content[header + random.randrange(148)] ^= random.randint(1, 255)
    return save(folder, packed(random, bytes(content)))


@TAR.refused("it is not an archive")
def _(random, folder):
    return save(folder, random.choice([b"", garbage(random, 3000), b"PK\3\4" + garbage(random)]))
