"""Training cases on disk, so that a run that goes on does not resample and draw them again.

A case is one safetensors file: its arrays, and in the header what made it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flarekit.core.errors import InputError
from flarekit.core.files import make_folder, write_atomically
from flarekit.training.recipe import Recipe
from flarekit.training.training_case import TrainingCase

Maker = Callable[[], TrainingCase]
_ELSEWHERE = ("recipe", "path", "label_path")  # of a maker's facts, those that are told otherwise
_ROOMS = ("core", "phantom", "preprocess", "synthesis", "training")  # of the code that makes cases
_OF_CODE = (".py", ".toml")  # anatomy, regimes
_CENTRES, _HARD = "centres.", "hard_negatives."


def make_kept(makers: Sequence[Maker], folder: Path, processes: int) -> Iterator[Path]:
    """Make the cases that a folder does not hold yet, and yield each one's file in order.

    What several makers make alike is made once.

    Args:
        makers: each gives a case.
        folder: made where it is missing.
        processes: that make cases at the same time.

    Raises:
        InputError: a case cannot be made.
        OutputError: the folder or a file cannot be written.
    """
    make_folder(folder)
    paths = [folder / f"{_key(maker)}.safetensors" for maker in makers]
    missing = {path: maker for path, maker in zip(paths, makers, strict=True) if not path.is_file()}
    if processes < 2 or len(missing) < 2:
        for path, maker in missing.items():
            _keep(path, maker)
        yield from paths
        return
    with ProcessPoolExecutor(
        min(processes, len(missing)), mp_context=get_context("spawn"), initializer=_one_thread
    ) as workers:
        coming = {path: workers.submit(_keep, path, maker) for path, maker in missing.items()}
        for path in paths:
            if path in coming:
                coming[path].result()
            yield path


def read_kept(path: Path) -> TrainingCase:
    """Read a case that `make_kept` wrote; its arrays are read as they are needed.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with safe_open(path, framework="np") as file:
            header = json.loads(file.metadata()["case"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return TrainingCase(
            case_id=header["case_id"],
            image_CZYX=tensors["image"],
            classes_ZYX=tensors["classes"],
            possible_K=tensors["possible"].astype(np.bool_),
            centres={int(name.removeprefix(_CENTRES)): tensors[name] for name in tensors
                     if name.startswith(_CENTRES)},
            hard_negatives=[tensors[f"{_HARD}{i}"] for i in range(header["hard_negatives"])],
            spacing_mm_ZYX=tuple(header["spacing_mm_ZYX"]),
        )  # fmt: skip
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: is damaged: {error}", fix="delete it; it is made anew"
        ) from error


def _keep(path: Path, maker: Maker) -> None:
    write_atomically(path, _bytes(maker()))


def _one_thread() -> None:
    """Keep a worker to one thread: there is one worker for every core."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)


def _key(maker: Maker) -> str:
    """Tell a maker from others by its files, its seed, the facts of its recipe, and the code."""
    facts = {name: value for name, value in vars(maker).items() if name not in _ELSEWHERE}
    recipe = getattr(maker, "recipe", None)
    told = hashlib.sha256(f"{type(maker).__name__} {facts} {_code()}".encode())
    told.update(recipe.case_facts.encode() if isinstance(recipe, Recipe) else b"")
    for path in _files(maker):
        stat = path.stat()
        told.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return told.hexdigest()[:24]


def _files(maker: Maker) -> list[Path]:
    """Return the files that a maker reads."""
    paths = [getattr(maker, name, None) for name in ("path", "label_path")]
    found = [path for path in paths if isinstance(path, Path)]
    return [*found, *getattr(maker, "image_paths", [])]


@cache
def _code() -> str:
    """Tell the code that makes cases from any other, so that a change of it makes them anew."""
    package = Path(__file__).parents[1]
    told = hashlib.sha256()
    files = (file for room in _ROOMS for file in (package / room).rglob("*.*"))
    for path in sorted(file for file in files if file.suffix in _OF_CODE):
        told.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return told.hexdigest()


def _bytes(case: TrainingCase) -> bytes:
    tensors: dict[str, NDArray[np.generic]] = {
        "image": np.ascontiguousarray(case.image_CZYX),
        "classes": np.ascontiguousarray(case.classes_ZYX),
        "possible": case.possible_K.astype(np.uint8),
        **{f"{_CENTRES}{index}": voxels for index, voxels in case.centres.items()},
        **{f"{_HARD}{index}": part for index, part in enumerate(case.hard_negatives)},
    }
    header = {
        "case_id": case.case_id,
        "spacing_mm_ZYX": list(case.spacing_mm_ZYX),
        "hard_negatives": len(case.hard_negatives),
    }
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    return save(tensors, metadata={"case": json.dumps(header)})
