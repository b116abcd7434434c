"""ONNX files are walked for tensors that lie outside them."""

from __future__ import annotations

import numpy as np
import pytest

from flarekit.engine._onnx_file import outside_tensor
from tests.segmentation.onnx_file import convolution, hidden_places, tensor_outside

OUTSIDE = tensor_outside("secret", "/etc/passwd", (2, 1))


def test_a_file_that_holds_its_tensors_names_none():
    assert outside_tensor(convolution(np.ones((2, 1)), np.zeros(2))) is None


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("location", ["w.bin", "../w.bin", "/w.bin", "*/_ORT_MEM_ADDR_/*"])
def test_a_tensor_of_another_file_is_named(location, told):
    weights = tensor_outside("w", location, (2, 1, 1, 1, 1), told=told)
    model = convolution(np.ones((2, 1)), np.zeros(2), weights=weights)
    assert outside_tensor(model) == "w"


@pytest.mark.parametrize("place", hidden_places(OUTSIDE))
def test_it_is_named_wherever_it_lies(place):
    assert outside_tensor(hidden_places(OUTSIDE)[place]) == "secret"


def test_what_is_no_onnx_file_or_ends_early_is_told():
    whole = convolution(np.ones((2, 1)), np.zeros(2))
    contents = (
        b"no network",
        b"<?xml version='1.0'?><net/>",
        whole[:-3],
        b"\x3a\xff",
        b"\x80" * 11,
        b"\x80\x80\x80\x80\x80\x01\x00",  # a field beyond 32 bits, which some readers shorten
    )
    for content in contents:
        with pytest.raises(ValueError, match="it ends within|unknown"):
            outside_tensor(content)


def test_messages_that_lie_too_deep_in_each_other_are_refused():
    deep = b""
    for _ in range(70):  # a graph in a node's attribute, again and again
        deep = _message(6, deep)
        deep = _message(1, _message(5, deep))
    with pytest.raises(ValueError, match="too deep"):
        outside_tensor(_message(7, deep))


def _message(number: int, content: bytes) -> bytes:
    length, size = len(content), b""
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content
