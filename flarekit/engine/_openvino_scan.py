"""The selective scan of Mamba (Gu and Dao 2023, Algorithm 2) as operations of OpenVINO.

    h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t        y_t = C_t . h_t + D u_t

The tokens are cut into chunks that are scanned side by side, token after token. A first pass
without outputs finds the state that each chunk would leave behind if it started from zero; these
are passed on, decayed by the tokens between, from chunk to chunk; a second pass starts every chunk
from its true state. Only decays (all below one) are ever multiplied, so nothing can overflow. Each
pass is a TensorIterator, whose body the CPU plugin fuses into one kernel and a small product.

Shape letters: B batch, L tokens, D channels, N states per channel, T tokens of a chunk, Q chunks of
all the batch.

Proof of value: `python profiling/bench_openvino.py`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from openvino import Model, Node, Output
from openvino import opset15 as ops
from openvino.op import Constant

_STATES_AT_ONCE = 2**16  # chunks x D x N: what a step works on stays in the cache
_PRECISE = "precise_0"  # OpenVINO's mark on what must not lose precision; becomes one when read

_Step = Callable[[Sequence[Node], Node], tuple[Node, Node | None]]


@dataclass(frozen=True, kw_only=True)
class ScanShape:
    """The sizes of a scan, all known before it is built."""

    batch: int
    channels: int
    states: int
    tokens: int

    @property
    def chunk_tokens(self) -> int:
        """Return the number of tokens in a chunk."""
        together = _STATES_AT_ONCE // (self.batch * self.channels * self.states)
        return -(-self.tokens // max(1, min(math.isqrt(self.tokens), together)))

    @property
    def chunks(self) -> int:
        """Chunks of one sequence; the last is filled up with tokens of step size 0."""
        return -(-self.tokens // self.chunk_tokens)


def selective_scan(
    u_BDL: Output,
    delta_BDL: Output,
    A_DN: Output,
    B_BNL: Output,
    C_BNL: Output,
    D_D: Output,
    *,
    shape: ScanShape,
) -> Node:
    """Return y (B, D, L); arguments as in `flarekit.models.selective_scan`."""
    channels, states = shape.channels, shape.states
    du_BDL = ops.multiply(delta_BDL, u_BDL)
    du_TQ1D, delta_TQ1D = (_cut(values, shape, (1, channels)) for values in (du_BDL, delta_BDL))
    B_TQN1, C_TQ1N = _cut(B_BNL, shape, (states, 1)), _cut(C_BNL, shape, (1, states))
    A_11ND = ops.unsqueeze(ops.transpose(A_DN, _ints(1, 0)), _ints(0, 1))
    inputs = (du_TQ1D, delta_TQ1D, B_TQN1)
    start_1QND = _starts(inputs, A_11ND, shape)
    _, y_TQ1D = _iterate((*inputs, C_TQ1N), A_11ND, start_1QND, _step_with_output)
    assert y_TQ1D is not None
    y_TBQD = _reshaped(y_TQ1D, shape.chunk_tokens, shape.batch, shape.chunks, channels)
    y_BDQT = ops.transpose(y_TBQD, _ints(1, 3, 2, 0))
    padded_BDL = _reshaped(y_BDQT, shape.batch, channels, shape.chunks * shape.chunk_tokens)
    y_BDL = ops.slice(padded_BDL, _ints(0), _ints(shape.tokens), _ints(1), _ints(2))
    return ops.add(y_BDL, ops.multiply(u_BDL, ops.unsqueeze(D_D, _ints(1))))


def keep_float32(node: Node) -> None:
    """Mark an operation as one that half precision must spare: its constants, its body too.

    The mark counts in a model that was written and read again.
    """
    node.rt_info[_PRECISE] = ""
    for each in node.inputs():
        source = each.get_source_output().get_node()
        if isinstance(source, Constant):
            source.rt_info[_PRECISE] = ""
    if node.get_type_name() == "TensorIterator":
        for inner in node.get_function().get_ops():
            inner.rt_info[_PRECISE] = ""


def _starts(inputs: tuple[Node, Node, Node], A_11ND: Node, shape: ScanShape) -> Node:
    """Return the state (1, Q, N, D) that each chunk starts from."""
    batch, chunks, states, channels = shape.batch, shape.chunks, shape.states, shape.channels
    zero_1QND = _zeros(1, batch * chunks, states, channels)
    if chunks == 1:
        return zero_1QND
    last_1QND, _ = _iterate(inputs, A_11ND, zero_1QND, _step)
    elapsed_1Q1D = ops.reduce_sum(inputs[1], _ints(0), True)
    decay_1QND = ops.exp(ops.multiply(elapsed_1Q1D, A_11ND))
    decay_QBND, last_QBND = (
        ops.transpose(_reshaped(values, batch, chunks, states, channels), _ints(1, 0, 2, 3))
        for values in (decay_1QND, last_1QND)
    )
    _, starts_QBND = _iterate(
        (decay_QBND, last_QBND), A_11ND, _zeros(1, batch, states, channels), _pass_on
    )
    assert starts_QBND is not None
    starts_BQND = ops.transpose(starts_QBND, _ints(1, 0, 2, 3))
    return _reshaped(starts_BQND, 1, batch * chunks, states, channels)


def _step(token: Sequence[Node], h_1QND: Node) -> tuple[Node, None]:
    """Scan one token of every chunk."""
    du_1Q1D, delta_1Q1D, B_1QN1, A_11ND = token
    decay_1QND = ops.exp(ops.multiply(delta_1Q1D, A_11ND))
    return ops.add(ops.multiply(decay_1QND, h_1QND), ops.multiply(du_1Q1D, B_1QN1)), None


def _step_with_output(token: Sequence[Node], h_1QND: Node) -> tuple[Node, Node]:
    *inputs, C_1Q1N, A_11ND = token
    after_1QND, _ = _step((*inputs, A_11ND), h_1QND)
    return after_1QND, ops.matmul(C_1Q1N, after_1QND, False, False)


def _pass_on(chunk: Sequence[Node], h_1BND: Node) -> tuple[Node, Node]:
    decay_1BND, last_1BND, _ = chunk
    return ops.add(ops.multiply(decay_1BND, h_1BND), last_1BND), h_1BND


def _iterate(
    sequences: Sequence[Node], constant: Node, start: Node, step: _Step
) -> tuple[Output, Output | None]:
    """Step through the first axis of sequences.

    Args:
        sequences: cut into slices with a first axis of one.
        constant: the last thing that every step is given besides its slices.
        start: the first state.
        step: from a step's slices and a state to the next state and an output.

    Returns:
        The last state, and the outputs joined along the first axis (None where steps have none).
    """
    iterator = ops.tensor_iterator()
    slices = [_parameter(1, *list(each.shape)[1:]) for each in sequences]
    same, state = _parameter(*constant.shape), _parameter(*start.shape)
    after, output = step((*slices, same), state)
    results = [after] if output is None else [after, output]
    body = Model(results, [state, same, *slices])
    iterator.set_body(body)
    iterator.set_merged_input(state, start.output(0), body.results[0].output(0))
    iterator.set_invariant_input(same, constant.output(0))
    for inner, outer in zip(slices, sequences, strict=True):
        iterator.set_sliced_input(inner, outer.output(0), 0, 1, 1, -1, 0)
    last = iterator.get_iter_value(body.results[0].output(0), -1)
    if output is None:
        return last, None
    return last, iterator.get_concatenated_slices(body.results[1].output(0), 0, 1, 1, -1, 0)


def _cut(values_BXL: Output, shape: ScanShape, last: tuple[int, int]) -> Node:
    """Cut the tokens into chunks: (B, X, L) -> (T, Q, *last), where `last` holds X and a one."""
    width, missing = max(last), shape.chunks * shape.chunk_tokens - shape.tokens
    # not Pad, which the CPU plugin replaces by one without the mark of `keep_float32`
    zeros = [_zeros(shape.batch, width, missing)] if missing else []
    padded = ops.concat([values_BXL, *zeros], 2)
    cut_BXQT = _reshaped(padded, shape.batch, width, shape.chunks, shape.chunk_tokens)
    cut_TBQX = ops.transpose(cut_BXQT, _ints(3, 0, 2, 1))
    return _reshaped(cut_TBQX, shape.chunk_tokens, shape.batch * shape.chunks, *last)


def _reshaped(values: Node | Output, *size: int) -> Node:
    return ops.reshape(values, _ints(*size), False)


def _parameter(*size: int) -> Node:
    return ops.parameter(list(size), np.float32)


def _zeros(*size: int) -> Node:
    return ops.constant(np.zeros(size, np.float32))


def _ints(*values: int) -> Node:
    return ops.constant(np.array(values, np.int64))
