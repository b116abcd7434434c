"""A Triton kernel: one program per batch, chunk of tokens and block of channels.

The kernel runs twice, as the chunked scan does its two parts: from zero states to find what each
chunk leaves behind, then from the right states to write the outputs. The state lives in registers.
"""

import torch
import triton
import triton.language as tl

from flarekit.models.selective_scan._gradient import differentiable

_CHUNK = 256  # tokens per program
_BLOCK = 32  # channels per program


@triton.jit
def _kernel(  
    u, delta, A, B, C, start, y, last, elapsed,
    channels, tokens, chunks,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, N: tl.constexpr, N_PADDED: tl.constexpr,
    WRITE: tl.constexpr,
):  # fmt: skip
    batch, chunk = tl.program_id(0), tl.program_id(1)
    d = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    n = tl.arange(0, N_PADDED)
    inside = d < channels
    square = inside[:, None] & (n < N)[None, :]
    a = tl.load(A + d[:, None] * N + n[None, :], mask=square, other=0.0)
    at = ((batch * chunks + chunk) * channels + d)[:, None] * N + n[None, :]
    h = tl.load(start + at, mask=square, other=0.0)
    total = tl.zeros([BLOCK], dtype=h.dtype)
    for step in range(CHUNK):
        t = chunk * CHUNK + step
        real = inside & (tl.zeros_like(d) + t < tokens)
        known = (n < N) & (tl.zeros_like(n) + t < tokens)
        row = (batch * channels + d) * tokens + t
        dt = tl.load(delta + row, mask=real, other=0.0)
        x = tl.load(u + row, mask=real, other=0.0)
        column = (batch * N + n) * tokens + t
        b = tl.load(B + column, mask=known, other=0.0)
        h = tl.exp(dt[:, None] * a) * h + (dt * x)[:, None] * b[None, :]
        total += dt
        if WRITE:
            c = tl.load(C + column, mask=known, other=0.0)
            tl.store(y + row, tl.sum(h * c[None, :], axis=1), mask=real)
    if not WRITE:
        tl.store(last + at, h, mask=square)
        tl.store(elapsed + (batch * chunks + chunk) * channels + d, total, mask=inside)


@differentiable
def scan(*tensors: torch.Tensor) -> torch.Tensor:
    """Return y without the skip term."""
    u, delta, A, B, C = (tensor.contiguous() for tensor in tensors)
    batch, channels, tokens = u.shape
    states = A.shape[1]
    chunks = triton.cdiv(tokens, _CHUNK)
    y, last = torch.empty_like(u), u.new_empty(batch, chunks, channels, states)
    elapsed, start = u.new_empty(batch, chunks, channels), torch.zeros_like(last)
    grid = (batch, chunks, triton.cdiv(channels, _BLOCK))
    sizes = {"CHUNK": _CHUNK, "BLOCK": _BLOCK, "N": states,
             "N_PADDED": triton.next_power_of_2(states)}  # fmt: skip
    arguments = (u, delta, A, B, C, start, y, last, elapsed, channels, tokens, chunks)
    if chunks > 1:
        _kernel[grid](*arguments, **sizes, WRITE=False)
        decay = torch.exp(elapsed[..., None] * A)
        for chunk in range(1, chunks):
            start[:, chunk] = decay[:, chunk - 1] * start[:, chunk - 1] + last[:, chunk - 1]
    _kernel[grid](*arguments, **sizes, WRITE=True)
    return y
