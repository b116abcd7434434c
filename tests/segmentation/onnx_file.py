"""A small ONNX file, byte by byte: a convolution of 1 x 1 x 1 and its bias."""

from __future__ import annotations

import numpy as np

_FLOAT, _VARINT, _BYTES = 1, 0, 2


def _varint(value: int) -> bytes:
    content = b""
    while value > 127:
        content += bytes([value & 127 | 128])
        value >>= 7
    return content + bytes([value])


def _field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _tensor(name: str, values: np.ndarray) -> bytes:
    dims = b"".join(_field(1, n) for n in values.shape)
    raw = values.astype("<f4").tobytes()
    return dims + _field(2, _FLOAT) + _field(8, name) + _field(9, raw)


def tensor_outside(name: str, location: str, shape: tuple[int, ...], *, told: bool = True) -> bytes:
    """Return a tensor whose values another file holds; where it is not told, only by its place."""
    dims = b"".join(_field(1, n) for n in shape)
    place = _field(13, _field(1, "location") + _field(2, location))
    return dims + _field(2, _FLOAT) + _field(8, name) + place + (_field(14, 1) if told else b"")


def _value(name: str, shape: tuple[int | str, ...]) -> bytes:
    dims = b"".join(_field(1, _field(1 if isinstance(n, int) else 2, n)) for n in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, _FLOAT) + _field(2, dims)))


def convolution(
    weights_KC: np.ndarray, bias_K: np.ndarray, tile=("z", "y", "x"), weights: bytes | None = None
) -> bytes:
    """Return a model from (1, C, Z, Y, X) to logits (1, K, Z, Y, X).

    `weights` is a tensor in place of the one of `weights_KC`.
    """
    classes, channels = weights_KC.shape
    node = _field(1, "image") + _field(1, "w") + _field(1, "b")
    node += _field(2, "logits") + _field(4, "Conv")
    graph = _field(1, node) + _field(2, "small")
    own = _tensor("w", weights_KC.reshape(classes, channels, 1, 1, 1))
    graph += _field(5, own if weights is None else weights)
    graph += _field(5, _tensor("b", bias_K))
    graph += _field(11, _value("image", (1, channels, *tile)))
    graph += _field(12, _value("logits", (1, classes, *tile)))
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13))


def hidden_places(tensor: bytes) -> dict[str, bytes]:
    """Return models that have a tensor in each place where ONNX lets one lie."""
    attribute = _field(1, "value") + _field(5, tensor)
    in_node = _field(1, _field(4, "Constant") + _field(5, attribute))
    inner = _field(5, _field(1, "body") + _field(6, in_node))
    return {
        "an attribute": _field(7, in_node),
        "a list of an attribute": _field(7, _field(1, _field(5, _field(10, tensor)))),
        "a graph in a node": _field(7, _field(1, _field(4, "If") + inner)),
        "a sparse tensor": _field(7, _field(15, _field(1, tensor))),
        "a function": _field(25, _field(7, _field(5, attribute))),
        "training": _field(20, _field(1, in_node)),
        "a second graph": _field(7, _field(2, "g")) + _field(7, _field(5, tensor)),
    }
