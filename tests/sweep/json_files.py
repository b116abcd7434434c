"""Mutations of the clicks of a PET/CT, `lesion-clicks.json`, which are a channel of the network."""

from __future__ import annotations

import json

from tests.sweep.mha import write_mha
from tests.sweep.mutations import Table, garbage, words

JSON = Table()
NAME = "lesion-clicks.json"
_CLICKS = [
    {"point": [3, 4, 5], "name": "tumor"},
    {"point": [9, 2, 1], "name": "tumor"},
    {"point": [1, 1, 1], "name": "background"},
]


def write_json_case(folder):
    write_mha(folder)
    save(folder, content())


def content(points=None):
    points = _CLICKS if points is None else points
    return {
        "version": {"major": 1, "minor": 0},
        "type": "Multiple points",
        "points": points,
    }


def save(folder, value, **how):
    (folder / NAME).write_text(json.dumps(value, **how), encoding="utf-8")


@JSON.same("lines, spaces, order and a mark at the start differ")
def _(random, folder):
    text = json.dumps(
        content(),
        indent=random.choice([None, 0, 3, "\t"]),
        sort_keys=random.random() < 0.5,
        ensure_ascii=random.random() < 0.5,
    )
    mark = random.choice(["", "\ufeff", "\n \t"])
    (folder / NAME).write_text(mark + text + random.choice(["", "\n", "  \r\n"]), encoding="utf-8")


@JSON.same("there are keys that nobody knows")
def _(random, folder):
    points = [{**each, words(random): [None, {}, words(random)]} for each in _CLICKS]
    save(folder, {**content(points), words(random): {"a": [1, 2, {}]}})


@JSON.same("the version or the type is another, or absent")
def _(random, folder):
    value = content()
    for key in ("version", "type"):
        value[key] = random.choice([None, 7, "x", [], {}, {"major": "two"}])
        if random.random() < 0.3:
            del value[key]
    save(folder, value)


@JSON.same("coordinates are floats of the same voxel")
def _(random, folder):
    points = [
        {**each, "point": [at + random.uniform(-0.49, 0.49) for at in each["point"]]}
        for each in _CLICKS
    ]
    save(folder, content(points))


@JSON.same("points are in another order and there twice")
def _(random, folder):
    points = [*_CLICKS, *random.choices(_CLICKS, k=random.randint(0, 9))]
    random.shuffle(points)
    save(folder, content(points))


@JSON.same("further points lie outside, have other names, or are malformed")
def _(random, folder):
    odd = [
        {"point": [999, 0, 0], "name": "tumor"},
        {"point": [-1, 0, 0], "name": "tumor"},
        {"point": [0, 0, 1e300], "name": "tumor"},
        {"point": [0, 0, float("nan")], "name": "tumor"},
        {"point": [0, 0, float("inf")], "name": "tumor"},
        {"point": [2**70, 0, 0], "name": "tumor"},
        {"point": [True, False, True], "name": "tumor"},
        {"point": ["1", "2", "3"], "name": "tumor"},
        {"point": [1, 2], "name": "tumor"},
        {"point": [1, 2, 3, 4], "name": "tumor"},
        {"point": None, "name": "tumor"},
        {"point": [2, 2, 2], "name": words(random)},
        {"point": [2, 2, 2], "name": {"a": 1}},
        {"point": [2, 2, 2]},
        {},
        None,
        7,
        [],
        words(random),
    ]
    save(folder, content([*_CLICKS, *random.sample(odd, random.randint(1, 9))]))


@JSON.refused("the file is cut off")
def _(random, folder):
    whole = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(whole[: random.randrange(len(whole))])
    return [NAME]


@JSON.refused("the file is not JSON")
def _(random, folder):
    odd = [
        garbage(random, 500),
        b"\xff\xfe" + "{}".encode("utf-16-le"),
        b"<html></html>",
        b"{'points': []}",
        b'{"points": [1e]}',
        b'{"points": [' + b"9" * 5000 + b"]}",
    ]
    (folder / NAME).write_bytes(random.choice(odd))
    return [NAME]


@JSON.refused("the file is nested beyond all recursion")
def _(random, folder):
    deep = random.choice([3_000, 200_000])
    start, end = random.choice([("[", "]"), ('{"points":', "}")])
    (folder / NAME).write_text(start * deep + "1" + end * deep)
    return [NAME]


@JSON.refused("there is no list of points")
def _(random, folder):
    value = random.choice(
        [None, 7, "points", [], [_CLICKS], {}, {"points": None}, {"points": {}}, {"points": "x"},
         {"Points": _CLICKS}, True]
    )  # fmt: skip
    save(folder, value)
    return [NAME]
