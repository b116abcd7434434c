"""Which NVIDIA driver a version of CUDA needs, and which one is here."""

import re

# CUDA's release notes, table 2: the oldest driver for Linux that runs every minor version
OLDEST_DRIVERS = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}


def oldest_driver(cuda: str) -> str | None:
    """Return the oldest driver that runs programs built for a CUDA version such as `12.6`.

    None where CUDA's release notes of that generation are not known here.
    """
    return OLDEST_DRIVERS.get(int(cuda.split(".")[0]))


def driver_fault(installed: str | None, cuda: str) -> str | None:
    """Return, in one sentence, that a driver is too old for a CUDA version; None where it is not.

    Args:
        installed: the driver's own version, such as `470.82.01`; None where it is not known.
        cuda: that PyTorch is built for.
    """
    oldest = oldest_driver(cuda)
    if installed is None or oldest is None or _numbers(installed) >= _numbers(oldest):
        return None
    return (
        f"the NVIDIA driver {installed} is too old: this PyTorch is built for CUDA {cuda}, "
        f"which needs driver {oldest} or later"
    )


def installed_driver() -> str | None:
    """Return the version of the NVIDIA driver here, as NVML tells it; None where there is none."""
    import pynvml  # type: ignore[import-untyped]

    try:
        pynvml.nvmlInit()
        try:
            version = pynvml.nvmlSystemGetDriverVersion()
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
    return version.decode() if isinstance(version, bytes) else str(version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", version))
