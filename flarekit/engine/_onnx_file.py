"""Whether an ONNX file holds all of its tensors, told before anything else reads it.

A tensor may say that its values lie in another file, or at an address in memory. OpenVINO looks
there even where it was given the file as bytes: at any path, which no hash covers. So it is walked
by the fields of ONNX's messages (onnx.proto3 of ONNX 1.17), and no value is looked at.
"""

from collections.abc import Iterator
from pathlib import Path

from flarekit.core.errors import PredictorError

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5  # wire types of protocol buffers
_FIXED = {_FIXED_64: 8, _FIXED_32: 4}
_LONGEST_VARINT = 10
_DEEPEST = 100  # as protocol buffers read messages
# message -> number of a field -> the message in it
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14  # of a tensor


def check_contained(path: Path, content: bytes) -> None:
    """Refuse an ONNX file whose tensors lie outside it.

    Raises:
        PredictorError: naming the file and the tensor.
        ValueError: it is not an ONNX file.
    """
    name = outside_tensor(content)
    if name is not None:
        raise PredictorError(
            f"{path}: the values of its tensor {name!r} lie outside it, where nothing is read",
            fix="export it with all weights inside (external_data=False)",
        )


def outside_tensor(content: bytes) -> str | None:
    """Return the name of a tensor whose values lie outside an ONNX file; None where there is none.

    Raises:
        ValueError: it is not an ONNX file.
    """
    waiting = [("model", memoryview(content), 0)]
    while waiting:
        kind, message, depth = waiting.pop()
        if depth > _DEEPEST:
            raise ValueError("messages are nested too deeply")
        name, is_outside = "", False
        for number, value in _fields(message):
            if kind == "tensor":
                is_outside |= number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)
                if number == _NAME and isinstance(value, memoryview):
                    name = bytes(value).decode(errors="replace")
            elif isinstance(value, memoryview) and number in _INSIDE[kind]:
                waiting.append((_INSIDE[kind][number], value, depth + 1))
        if is_outside:
            return name
    return None


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of every field of a message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key >> 32:  # which readers shorten in ways of their own
            raise ValueError("a field of an unknown number")
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire_type == _BYTES:
            length, at = _varint(message, at)
        elif wire_type in _FIXED:
            length = _FIXED[wire_type]
        else:
            raise ValueError(f"a field of an unknown kind ({wire_type})")
        if at + length > len(message):
            raise ValueError("it ends within a field")
        yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a number, and where what follows it begins."""
    value = 0
    for place, byte in enumerate(message[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("it ends within a number")
