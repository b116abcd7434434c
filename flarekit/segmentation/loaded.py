"""A case that is read, with what was odd about its files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flarekit.conventions import Points
from flarekit.core.channels import Channel, Window
from flarekit.core.plausible import check_range, with_doubts
from flarekit.core.spec import PredictorSpec
from flarekit.core.volume import Volume
from flarekit.postprocess import split_rules
from flarekit.preprocess import Located, locate
from flarekit.segmentation.context import Clock


@dataclass(frozen=True, kw_only=True)
class LoadedCase:
    """A case that is read; nothing of it is resampled.

    Attributes:
        volumes: one per channel, on one grid.
        located: where in them there is something to look at.
        points: what somebody marked.
        clock: of the case.
    """

    volumes: Sequence[Volume]
    located: Located
    points: Points
    clock: Clock


def load_case(
    read: Callable[[], Sequence[Volume]],
    spec: PredictorSpec,
    points_of: Callable[[Sequence[Volume]], Points] = lambda _: {},
) -> LoadedCase:
    """Read a case and find what there is to look at.

    Args:
        read: gives its volumes.
        spec: the facts that are run.
        points_of: gives what somebody marked in them.

    Raises:
        InputError: a channel is missing or unreadable, of a size that cannot be, or the channels
            do not fit together.
    """
    clock = Clock()
    with clock.stage("read"):
        known = spec.channels
        volumes = [
            _checked(volume, known[k] if k < len(known) else None)
            for k, volume in enumerate(read())
        ]
        points = points_of(volumes) if split_rules(spec.rules)[1] else {}
    with clock.stage("prepare"):
        located = locate(volumes, spec)
    return LoadedCase(volumes=volumes, located=located, points=points, clock=clock)


def _checked(volume: Volume, channel: Channel | None) -> Volume:
    """Return a volume with what is doubtful about its numbers; refuse those that cannot be.

    A channel that is clipped to a window takes no harm from a few huge values.
    """
    doubted = with_doubts(volume, "" if channel is None else channel.name)
    if channel is not None and not isinstance(channel.intensity, Window):
        check_range(volume)
    return doubted


def warnings_of(loaded: LoadedCase) -> tuple[str, ...]:
    """Return what is odd about the files of a case, each with its file."""
    notes = [f"{volume.path}: {note}" for volume in loaded.volumes for note in volume.warnings]
    return (*notes, *loaded.located.notes)
