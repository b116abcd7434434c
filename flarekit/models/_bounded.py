"""A limit on what a network may be while it is built: its arguments come from somebody's file."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

MOST_TENSORS = 20_000  # of a network whose weights nobody has seen yet


class TooLargeError(Exception):
    """A network that is larger than what it is built for."""


@contextmanager
def at_most(numbers: int, tensors: int = MOST_TENSORS) -> Iterator[None]:
    """Stop a network's constructor, in this thread, before it fills more than it can have.

    A tensor is counted when it is registered: its memory is reserved then, and not yet written.

    Args:
        numbers: of all parameters and buffers together; a constructor may register some twice.
        tensors: that it registers.

    Raises:
        TooLargeError: inside the block, from the constructor.
    """
    from torch.nn.modules import module

    thread = threading.get_ident()
    counted = [0, 0]

    def count(_module: object, _name: str, tensor: object) -> None:
        if threading.get_ident() != thread or tensor is None:
            return
        counted[0] += 1
        counted[1] += tensor.numel()  # type: ignore[attr-defined]
        if counted[0] > tensors:
            raise TooLargeError(f"more than {tensors:,} tensors")
        if counted[1] > numbers:
            raise TooLargeError(f"more than {numbers:,} numbers")

    handles = [
        module.register_module_parameter_registration_hook(count),
        module.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
