"""Several devices: cases are dealt out among them."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from flarekit.core.errors import DeviceError
from flarekit.engine import EngineFacts

T = TypeVar("T")


def devices_of(request: str) -> list[str]:
    """Return the devices that a request names, separated by commas.

    Raises:
        DeviceError: an empty name, or one that is named twice.
    """
    names = [name.strip() for name in request.split(",")]
    if not all(names) or len(set(names)) != len(names):
        raise DeviceError(
            f"no devices {request!r}: a name is empty or given twice",
            fix="name each device once, such as cuda:0,cuda:1, or only one",
        )
    if "auto" in names and len(names) > 1:
        raise DeviceError(
            f"no devices {request!r}: auto chooses one device and cannot be one of several",
            fix="name each device, such as cuda:0,cuda:1, or auto alone",
        )
    return names


def side_by_side(works: Sequence[Callable[[], T]], stop: Callable[[], None]) -> list[T]:
    """Do several things at the same time and return what they give, in order.

    Args:
        works: one per device; a single one is done in this thread, and there may be none.
        stop: called where one raises, so that the others end soon; then it is raised.
    """
    if len(works) <= 1:
        return [work() for work in works]

    def guarded(work: Callable[[], T]) -> T:
        try:
            return work()
        except BaseException:  # an interruption as well: the others end too
            stop()
            raise

    with ThreadPoolExecutor(max_workers=len(works), thread_name_prefix="device") as threads:
        return list(threads.map(guarded, works))


def facts_of_all(facts: Sequence[EngineFacts]) -> EngineFacts:
    """Return what computes on several devices, each thing named once."""

    def joined(name: str) -> str:
        values = (getattr(each, name) for each in facts)
        return ", ".join(dict.fromkeys(value for value in values if value is not None))

    return EngineFacts(
        engine=joined("engine"),
        device=",".join(each.device for each in facts),
        device_name=joined("device_name"),
        precision=joined("precision"),
        scan=joined("scan") or None,
    )
