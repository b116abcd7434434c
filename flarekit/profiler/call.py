"""A function of this process, as something to watch: torch's own account is read beside it."""

from __future__ import annotations

import os
from collections.abc import Callable

from flarekit.profiler.probes.cuda import CudaProbe
from flarekit.profiler.probes.host import HostProbe
from flarekit.profiler.probes.nvml import NvmlProbe
from flarekit.profiler.probes.processes import ProcessesProbe, ProcessTree
from flarekit.profiler.readings import Probe
from flarekit.profiler.watch import Ending


class CallTarget:
    """A call in this process; samples wait for the interpreter lock, which the jitter shows.

    Args:
        function: what to run; what it raises goes through.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function

    def probes(self, gpu: str) -> list[Probe]:
        """Return probes of torch's allocator, this process's tree, the GPU and the host."""
        tree = ProcessTree(os.getpid)
        watched: list[Probe] = [ProcessesProbe(tree.pids), NvmlProbe(gpu, tree.last), HostProbe()]
        return [CudaProbe(int(gpu)) if gpu.isdecimal() else CudaProbe(), *watched]

    def run(self, timeout_s: float | None) -> Ending:
        """Call the function.

        Raises:
            ValueError: there is a timeout; a call cannot be ended from outside.
        """
        if timeout_s is not None:
            raise ValueError("a call in this process cannot be ended: watch a command instead")
        self._function()
        return Ending(exit_code=0, started_s=0.0)
