"""Any algorithm of grand-challenge.org: images from sockets in, masks and numbers to sockets out.

`inputs.json` lists the sockets of a job; each image socket is a folder with one .mha or .tif(f), as
is each image that is written (https://grand-challenge.org/documentation/runtime-environment/).

Settings of a predictor:

    inputs = ["ct-image", "pet-image"]   # slugs or paths, one per channel; may be left out for one
    air = -1024                          # what voxels get that are not numbers

    [[outputs]]                          # all that the algorithm declares
    path = "images/organ-segmentation"   # as the socket states it
    kind = "Segmentation"                # label map; 0 and 1 with binary = true
    labels = ["liver"]                   # the labels that count; all where left out

`kind` may also be `Float` (volume in ml), `Integer` (number of components) or `Boolean` (whether
there is any voxel); with `value` it is that, whatever was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from flarekit.conventions import Case
from flarekit.conventions._arranging import names_of
from flarekit.conventions._case import check_folder
from flarekit.conventions._grid import onto
from flarekit.conventions._platform_images import (
    AIR_HU,
    geometry_of_first_readable,
    only_image,
    read_image,
    read_json,
    write_json,
    write_mask,
)
from flarekit.core.errors import InputError, PredictorError
from flarekit.core.names import UnsafePathError, path_within
from flarekit.core.plausible import with_doubts
from flarekit.core.tables import Table, checked
from flarekit.core.volume import Geometry, Volume

_SUFFIXES = (".mha", ".tif", ".tiff")
_FIX = "add [[outputs]] with path and kind to the convention's settings in predictor.toml"


def _relative(path: str) -> str:
    try:
        path_within(Path("output"), path, source="predictor.toml")
    except UnsafePathError as error:
        raise ValueError("must be a path below the folder, without ..") from error
    return path


_Path = Annotated[str, AfterValidator(_relative)]


class _Output(Table):
    path: _Path
    kind: Literal["Segmentation", "Float", "Integer", "Boolean"]
    labels: tuple[str, ...] | None = Field(default=None, min_length=1)
    binary: bool = False
    value: bool | int | float | None = None


class _Settings(Table):
    inputs: tuple[_Path, ...] | None = None
    air: float = Field(default=AIR_HU, allow_inf_nan=False)
    outputs: tuple[_Output, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output that the algorithm writes.

    Attributes:
        path: of a folder for a mask, of a file for a number.
        kind: grand-challenge's.
        values: the mask values that count.
        binary: whether a mask is 0 and 1 only.
        fixed: a number to write whatever was found; None to measure.
    """

    path: Path
    kind: str
    values: tuple[int, ...]
    binary: bool
    fixed: float | None


def create(settings: Mapping[str, Any], labels: Mapping[str, int]) -> GrandChallenge:
    """Return the convention as a predictor sets it up.

    Raises:
        PredictorError: unknown settings or labels, or outputs that get in each other's way.
    """
    parsed = checked(_Settings, settings, source="settings of the convention 'grandchallenge'")
    paths = [output.path.rstrip("/") for output in parsed.outputs]
    if len(set(paths)) != len(paths):
        raise PredictorError("grandchallenge: two outputs have one path", fix="rename one")
    outputs = tuple(_output(each, labels) for each in parsed.outputs)
    return GrandChallenge(inputs=parsed.inputs, air=parsed.air, outputs=outputs)


def _output(stated: _Output, labels: Mapping[str, int]) -> Output:
    unknown = set(stated.labels or ()) - set(labels) if labels else set()
    if unknown:
        raise PredictorError(
            f"grandchallenge: output {stated.path} names unknown labels {sorted(unknown)}",
            fix=f"take some of {', '.join(labels)}",
        )
    is_file = stated.path.endswith(".json")
    if is_file == (stated.kind == "Segmentation"):
        raise PredictorError(
            f"grandchallenge: a {stated.kind} cannot be written to {stated.path}",
            fix="masks go to a folder (images/SLUG), numbers to a .json file",
        )
    chosen = labels if stated.labels is None else stated.labels
    return Output(
        path=Path(stated.path),
        kind=stated.kind,
        values=tuple(labels[name] for name in chosen if name in labels) or tuple(range(1, 256)),
        binary=stated.binary,
        fixed=stated.value,
    )


@dataclass(frozen=True, kw_only=True)
class GrandChallenge:
    """The convention; see the module.

    Attributes:
        inputs: slugs or paths of the channels' sockets; None where one socket is all there is.
        air: what voxels get that are not numbers.
        outputs: what to write.
    """

    inputs: tuple[str, ...] | None
    air: float
    outputs: tuple[Output, ...]

    def find_cases(self, input_dir: Path, channel_count: int) -> Sequence[Case]:
        """Return the one case of a job.

        Raises:
            InputError: no such folder, a socket is missing, or a socket has not one image.
            PredictorError: no outputs are stated, or which sockets are the channels is not clear.
        """
        check_folder(input_dir)
        if not self.outputs:
            raise PredictorError("grandchallenge: no outputs are stated", fix=_FIX)
        if self.inputs is not None and len(self.inputs) != channel_count:
            raise PredictorError(
                f"grandchallenge: {len(self.inputs)} inputs for {channel_count} channels",
                fix="state one input per channel, in the channels' order",
            )
        folders = _folders(input_dir, self.inputs)
        if not folders:
            raise InputError(
                f"{input_dir}: no image in images/SOCKET; {names_of(input_dir)}",
                fix="each channel goes into a folder of its own, as .mha; flarekit arrange FILES "
                "--convention grandchallenge --socket SLUG -o INPUT lays them out",
            )
        if len(folders) != channel_count or (self.inputs is None and channel_count > 1):
            found = ", ".join(str(folder.relative_to(input_dir)) for folder in folders) or "none"
            raise PredictorError(
                f"grandchallenge: which images are the {channel_count} channels is not clear; "
                f"{input_dir} has {found}",
                fix='write inputs = ["SLUG", ...], one per channel, under [convention_settings] in '
                "predictor.toml",
            )
        channels = tuple(only_image(folder, _SUFFIXES) for folder in folders)
        first = next((each for each in self.outputs if each.kind == "Segmentation"), None)
        stem = channels[0].stem
        mask = first.path / f"{stem}.mha" if first is not None else self.outputs[0].path
        return [Case(case_id=stem, channels=channels, mask=mask)]

    def read_case(self, case: Case) -> list[Volume]:
        """Read all channels of a case, on the first one's grid.

        Raises:
            InputError: a file is missing or unreadable.
        """
        images = (read_image(path, air=self.air) for path in case.channels)
        first, *others = (with_doubts(image, "") for image in images)
        return [
            first,
            *(onto(each, first.geometry, outside=float(each.voxels_ZYX.min())) for each in others),
        ]

    def further_outputs(self, case: Case) -> Sequence[Path]:
        """Return every output of the algorithm."""
        return [self._place(output, case) for output in self.outputs]

    def write_mask(
        self,
        case: Case,
        label_map_ZYX: NDArray[np.uint8],
        geometry: Geometry,
        output_dir: Path,
    ) -> Path:
        """Write every output of the algorithm, and return the path of its (first) mask.

        Raises:
            OutputError: one could not be written.
        """
        self._write(case, label_map_ZYX, geometry, output_dir)
        return output_dir / case.mask

    def write_empty_mask(self, case: Case, output_dir: Path) -> Path:
        """Write every output as if nothing had been found.

        Raises:
            OutputError: one could not be written.
        """
        geometry = geometry_of_first_readable(case.channels)
        self._write(case, np.zeros(geometry.shape_ZYX, np.uint8), geometry, output_dir)
        return output_dir / case.mask

    def _write(
        self,
        case: Case,
        label_map_ZYX: NDArray[np.uint8],
        geometry: Geometry,
        output_dir: Path,
    ) -> None:
        voxel_ml = float(abs(np.linalg.det(geometry.affine[:3, :3]))) / 1000.0
        for output in self.outputs:
            chosen = np.isin(label_map_ZYX, output.values)
            path = output_dir / self._place(output, case)
            if output.kind == "Segmentation":
                mask = chosen.astype(np.uint8) if output.binary else label_map_ZYX * chosen
                write_mask(path, mask, geometry)
            else:
                write_json(path, _number(output, chosen, voxel_ml))

    def _place(self, output: Output, case: Case) -> Path:
        """Return where an output goes, relative to the output folder."""
        is_image = output.kind == "Segmentation"
        return Path(output.path, f"{case.channels[0].stem}.mha") if is_image else Path(output.path)


def _number(output: Output, chosen: NDArray[np.bool_], voxel_ml: float) -> float:
    if output.kind == "Boolean":
        return bool(chosen.any() if output.fixed is None else output.fixed)
    if output.kind == "Float":
        return float(chosen.sum() * voxel_ml if output.fixed is None else output.fixed)
    if output.fixed is not None:
        return int(output.fixed)
    import cc3d

    _, count = cc3d.connected_components(chosen, connectivity=26, return_N=True)
    return int(count)


def _folders(input_dir: Path, wanted: Sequence[str] | None) -> list[Path]:
    """Return the folders of the channels, or of all images where none are stated."""
    sockets = _sockets(input_dir / "inputs.json")
    if wanted is None:
        images = [input_dir / path for path in sockets.values() if path.startswith("images/")]
        folders = (input_dir / "images").glob("*/")
        return images or sorted(folder for folder in folders if folder.is_dir())
    found = []
    for name in wanted:
        places = [sockets.get(name, name), f"images/{name}"]
        folder = next((input_dir / each for each in places if (input_dir / each).is_dir()), None)
        if folder is None:
            known = ", ".join(sockets) or "no inputs.json"
            raise InputError(
                f"{input_dir}: has no input {name!r} ({known})",
                fix="state inputs as the platform's interface names them",
            )
        found.append(folder)
    return found


def _sockets(path: Path) -> dict[str, str]:
    """Return the sockets of a job, slug -> path; none where there is no list of them."""
    if not path.is_file():
        return {}
    content = read_json(path)
    sockets: dict[str, str] = {}
    for entry in content if isinstance(content, list) else [None]:
        stated = entry if isinstance(entry, dict) else {}
        socket = stated.get("socket") or stated.get("interface")  # the newer and the older name
        slug = socket.get("slug") if isinstance(socket, dict) else None
        place = socket.get("relative_path") if isinstance(socket, dict) else None
        if not isinstance(slug, str) or not isinstance(place, str):
            raise InputError(
                f"{path}: does not list sockets", fix="give each a socket with relative_path"
            )
        path_within(path.parent, place, source=f"{path}, socket {slug[:40]!r}")
        if slug in sockets or place in sockets.values():
            raise InputError(
                f"{path}: lists the socket {slug[:40]!r}, or its path, twice",
                fix="give each socket a path of its own",
            )
        sockets[slug] = place
    return sockets
