"""Chunks of tokens side by side: few large tensor operations instead of many small ones.

The tokens are cut into chunks that are scanned at the same time, each from a zero state. What a
chunk inherits is the state that the chunks before it leave behind, decayed by the tokens between:
the states are passed on chunk by chunk, and their share is added to every output. Only decays (all
below one) are ever multiplied, so nothing can overflow, and memory is linear in tokens.

Proof of value: `python profiling/bench_scan.py`.
"""

import math

import torch
from torch.nn import functional

# chunks x D x N of one step: what stays in a CPU's cache; on a GPU launches are what costs, a
# temporary of 32 MiB is not
_STATES_AT_ONCE = {"cpu": 2**17, "cuda": 2**23}


def scan(*tensors: torch.Tensor) -> torch.Tensor:
    """Return y without the skip term."""
    u_BDL, delta_BDL, A_DN, B_BNL, C_BNL = tensors
    batch, channels, tokens = u_BDL.shape
    chunks = chunks_of(batch, A_DN.numel(), tokens, u_BDL.device.type)
    length = -(-tokens // chunks)
    # Q: batch and chunk together; T: token in the chunk. Padding tokens have step size 0.
    du_TQD, delta_TQD, B_TQN, C_TQN = (
        _cut(tensor, chunks, length) for tensor in (delta_BDL * u_BDL, delta_BDL, B_BNL, C_BNL)
    )
    y_TQD, last_QDN = _scan_from_zero(du_TQD, delta_TQD, A_DN, B_TQN, C_TQN)
    if chunks > 1:
        elapsed_TQD = delta_TQD.cumsum(dim=0)
        decay_QDN = torch.exp(elapsed_TQD[-1, :, :, None] * A_DN)
        start_QDN = _pass_on(last_QDN, decay_QDN, batch)
        y_TQD = y_TQD + _inherited(elapsed_TQD, A_DN, C_TQN, start_QDN)
    y_BDL: torch.Tensor = y_TQD.unflatten(1, (batch, -1)).permute(1, 3, 2, 0).flatten(2)
    return y_BDL[:, :, :tokens]


def chunks_of(batch: int, states: int, tokens: int, device_type: str) -> int:
    """Return into how many chunks the tokens are cut: at most as many as a chunk has tokens.

    Tokens and states (D x N) are those of one sequence of the batch.
    """
    at_once = _STATES_AT_ONCE.get(device_type, _STATES_AT_ONCE["cpu"])
    return max(1, min(math.isqrt(tokens), at_once // (batch * states)))


def _cut(tensor_BXL: torch.Tensor, chunks: int, length: int) -> torch.Tensor:
    """Cut the tokens into chunks: (B, X, L) -> (T, Q, X), contiguous."""
    padded = functional.pad(tensor_BXL, (0, chunks * length - tensor_BXL.shape[2]))
    cut_BXQT: torch.Tensor = padded.unflatten(2, (chunks, length))
    cut_TQX: torch.Tensor = cut_BXQT.permute(3, 0, 2, 1).flatten(1, 2).contiguous()
    return cut_TQX


def _scan_from_zero(
    du_TQD: torch.Tensor,
    delta_TQD: torch.Tensor,
    A_DN: torch.Tensor,
    B_TQN: torch.Tensor,
    C_TQN: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the outputs of every chunk and its last state, each started from zero."""
    h_QDN = du_TQD.new_zeros(*du_TQD.shape[1:], A_DN.shape[1])
    outputs = []
    for du_QD, delta_QD, B_QN, C_QN in zip(du_TQD, delta_TQD, B_TQN, C_TQN, strict=True):
        decay_QDN = torch.exp(delta_QD[:, :, None] * A_DN)
        h_QDN = torch.addcmul(decay_QDN * h_QDN, du_QD[:, :, None], B_QN[:, None, :])
        outputs.append(torch.bmm(h_QDN, C_QN[:, :, None])[:, :, 0])
    return torch.stack(outputs), h_QDN


def _pass_on(last_QDN: torch.Tensor, decay_QDN: torch.Tensor, batch: int) -> torch.Tensor:
    """Return the state each chunk starts from."""
    last, decay = (tensor.unflatten(0, (batch, -1)) for tensor in (last_QDN, decay_QDN))
    state = torch.zeros_like(last[:, 0])
    starts = []
    for chunk in range(last.shape[1]):
        starts.append(state)
        state = decay[:, chunk] * state + last[:, chunk]
    return torch.stack(starts, dim=1).flatten(0, 1)


def _inherited(
    elapsed_TQD: torch.Tensor, A_DN: torch.Tensor, C_TQN: torch.Tensor, start_QDN: torch.Tensor
) -> torch.Tensor:
    """Return what the start states add to every output."""
    outputs = []
    for elapsed_QD, C_QN in zip(elapsed_TQD, C_TQN, strict=True):
        h_QDN = torch.exp(elapsed_QD[:, :, None] * A_DN) * start_QDN
        outputs.append(torch.bmm(h_QDN, C_QN[:, :, None])[:, :, 0])
    return torch.stack(outputs)
