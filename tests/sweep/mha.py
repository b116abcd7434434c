"""Mutations of a PET and its CT, `images/pet/p.mha` and `images/ct/c.mha`, without clicks."""

from __future__ import annotations

import zlib

import numpy as np

from tests.sweep.mutations import Table, garbage, words

MHA = Table()
_SHAPE = (8, 12, 14)
_ORDER = ("ObjectType", "NDims", "BinaryData", "BinaryDataByteOrderMSB", "CompressedData")


def write_mha(folder):
    random = np.random.default_rng(5)
    save(folder, "ct/c", random.integers(-1000, 1000, _SHAPE).astype("<i2"))
    save(folder, "pet/p", random.uniform(0, 9, _SHAPE).round(2).astype("<f4"))


def fields_of(voxels):
    kinds = {"i2": "MET_SHORT", "i4": "MET_INT", "f4": "MET_FLOAT", "f8": "MET_DOUBLE"}
    z, y, x = voxels.shape
    return {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": str(voxels.dtype.byteorder == ">"),
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "-10 -20 30.5",
        "CenterOfRotation": "0 0 0",
        "AnatomicalOrientation": "RAI",
        "ElementSpacing": "2.5 1.5 4",
        "DimSize": f"{x} {y} {z}",
        "ElementType": kinds[voxels.dtype.str[1:]],
        "ElementDataFile": "LOCAL",
    }


def save(folder, name, voxels, fields=None, data=None):
    path = folder / "images" / f"{name}.mha"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{key} = {value}\n" for key, value in (fields or fields_of(voxels)).items())
    path.write_bytes(text.encode("utf-8") + (voxels.tobytes() if data is None else data))


def load(folder, name):
    whole = (folder / "images" / f"{name}.mha").read_bytes()
    mark = b"ElementDataFile = LOCAL\n"
    data = whole[whole.index(mark) + len(mark) :]
    return np.frombuffer(data, "<i2" if name == "ct/c" else "<f4").reshape(_SHAPE)


def either(random):
    return random.choice(["ct/c", "pet/p"])


def field(random, folder, changes):
    """Change lines of the PET's or the CT's header (None takes one away); return file and line."""
    name = either(random)
    voxels = load(folder, name)
    fields = fields_of(voxels) | changes
    save(folder, name, voxels, {key: value for key, value in fields.items() if value is not None})
    return [f"{name.split('/')[1]}.mha", next(iter(changes))]


@MHA.same("the header's lines have another order")
def _(random, folder):
    name = either(random)
    voxels = load(folder, name)
    fields = fields_of(voxels)
    keys = [key for key in fields if key != "ElementDataFile"]
    random.shuffle(keys)
    save(folder, name, voxels, {key: fields[key] for key in [*keys, "ElementDataFile"]})


@MHA.same("the header has lines that nobody knows")
def _(random, folder):
    name = either(random)
    voxels = load(folder, name)
    odd = {f"K{random.randrange(10**6)}": words(random).replace("\n", " ") for _ in range(5)}
    save(folder, name, voxels, {**odd, **fields_of(voxels)})


@MHA.same("the voxels are compressed")
def _(random, folder):
    name = either(random)
    voxels = load(folder, name)
    data = zlib.compress(voxels.tobytes(), random.randint(0, 9))
    fields = fields_of(voxels) | {"CompressedData": random.choice(["True", "true", "1"])}
    if random.random() < 0.5:
        fields = {"CompressedDataSize": str(len(data)), **fields}
    save(folder, name, voxels, fields, data + random.choice([b"", garbage(random)]))


@MHA.same("the voxels have another type or byte order")
def _(random, folder):
    name = either(random)
    voxels = load(folder, name)
    kind = random.choice(["f4", "f8"] if name == "pet/p" else ["i2", "i4", "f4", "f8"])
    save(folder, name, voxels.astype(random.choice("<>") + kind))


@MHA.same("lines have their other names, spaces and zeros")
def _(random, folder):
    name = either(random)
    voxels = load(folder, name)
    fields = fields_of(voxels)
    fields[random.choice(["Position", "Origin"])] = fields.pop("Offset")
    fields[random.choice(["Rotation", "Orientation"])] = fields.pop("TransformMatrix")
    fields["ElementSpacing"] = random.choice(["2.50 1.5e0 4.", "  2.5   1.5 4  ", "+2.5 1.5 04"])
    end = fields.pop("ElementDataFile")
    save(folder, name, voxels, {**fields, "ElementDataFile": end})


@MHA.same("there is a fourth axis of one")
def _(random, folder):
    field(
        random,
        folder,
        {
            "NDims": "4",
            "DimSize": "14 12 8 1",
            "ElementSpacing": "2.5 1.5 4 1",
            "Offset": "-10 -20 30.5 0",
            "CenterOfRotation": "0 0 0 0",
            "TransformMatrix": "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
        },
    )


@MHA.same("the grids of PET and CT differ by rounding")
def _(random, folder):
    voxels = load(folder, "ct/c")
    offset = " ".join(str(at + random.uniform(-1e-4, 1e-4)) for at in (-10, -20, 30.5))
    save(folder, "ct/c", voxels, fields_of(voxels) | {"Offset": offset})


@MHA.same("other files lie beside them")
def _(random, folder):
    for place in ("images/ct", "images/pet", "images", "."):
        (folder / place / f"{random.randrange(10**6)}.txt").write_bytes(garbage(random))
        (folder / place / f".{random.randrange(10**6)}.mha").write_bytes(garbage(random))


@MHA.refused("a line that is needed is absent")
def _(random, folder):
    return field(
        random, folder, {random.choice(["DimSize", "ElementType", "ElementDataFile"]): None}
    )


@MHA.refused("the number of voxels cannot be")
def _(random, folder):
    odd = ["0 12 8", "-14 12 8", "14 12", "nan 12 8", "inf 12 8", "1e300 12 8", "14.5 12 8", "a b",
           "14 12 8 2", "14 12 80000", "99999999 99999999 99999999", "", "1e9 1e9 1"]  # fmt: skip
    return field(random, folder, {"DimSize": random.choice(odd)})


@MHA.refused("the placement is not numbers")
def _(random, folder):
    key = random.choice(["TransformMatrix", "Offset", "ElementSpacing"])
    odd = ["nan nan nan", "inf 1 1", "x y z", "1", "1,5 1,5 4", "1e999 1 1", "0x1 1 1", "1 2"]
    return field(random, folder, {key: random.choice(odd)})


@MHA.refused("the placement places no voxels")
def _(random, folder):
    changes = random.choice(
        [
            {"ElementSpacing": "0 1 1"},
            {"ElementSpacing": "1e-9 1 1"},
            {"ElementSpacing": "1e6 1 1"},
            {"ElementSpacing": "1e300 1e300 1e300"},
            {"TransformMatrix": "0 0 0 0 0 0 0 0 0"},
            {"TransformMatrix": "1 0 0 1 0 0 0 0 1"},
        ]
    )
    return [field(random, folder, changes)[0], "pacing"]  # ElementSpacing, or its spacing


@MHA.refused("the voxels are of no known type, or elsewhere")
def _(random, folder):
    changes = random.choice(
        [
            {"ElementType": "MET_STRING"},
            {"ElementType": words(random).replace("\n", "")},
            {"ElementNumberOfChannels": "3", "ElementDataFile": None, "ElementDataFile ": "LOCAL"},
            {"ElementDataFile": "../../../etc/passwd"},
            {"ElementDataFile": "LIST"},
            {"BinaryData": "False"},
            {"HeaderSize": "-1", "ElementDataFile": None, "ElementDataFile ": "LOCAL"},
        ]
    )
    return field(random, folder, changes)


@MHA.refused("a file is cut off")
def _(random, folder):
    name = either(random)
    path = folder / "images" / f"{name}.mha"
    whole = path.read_bytes()
    path.write_bytes(whole[: random.randrange(len(whole))])
    return [path.name]


@MHA.refused("a compressed stream is damaged")
def _(random, folder):
    name = either(random)
    voxels = load(folder, name)
    data = bytearray(zlib.compress(voxels.tobytes()))
    if random.random() < 0.5:
        del data[random.randrange(2, len(data) - 100) :]
    else:
        data[0:2] = b"\xff\xff"
    save(folder, name, voxels, fields_of(voxels) | {"CompressedData": "True"}, bytes(data))
    return [f"{name.split('/')[1]}.mha"]


@MHA.refused("a file is something else")
def _(random, folder):
    path = folder / "images" / f"{either(random)}.mha"
    path.write_bytes(
        random.choice(
            [b"", b"<html>", b"version https://git-lfs.github.com/spec/v1\n", garbage(random, 999),
             b"\x1f\x8b" + garbage(random), bytes(344) + b"n+1\0", b"ObjectType = Image\n" * 9]
        )
    )  # fmt: skip
    return [path.name]
