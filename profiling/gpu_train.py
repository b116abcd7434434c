"""Train predictors on a GPU in minutes: bring data together here, train there, export here.

    python profiling/gpu_train.py pack DATA --to PACK                what training needs, small
    python profiling/gpu_train.py run PACK --out OUT --minutes 5     all predictors side by side
    python profiling/gpu_train.py export OUT WEIGHTS                 folders of what came back

DATA is a folder with the datasets that the recipes need (see `DATASETS`). A predictor's recipe is
the next.toml in its folder, where there is one: what its next weights are to be trained by. `run`
first prepares the cases of all predictors on all cores, each case once; then it trains each
predictor in a process of its own on the same device, so that one computes while another launches
kernels. Recipes made on a CPU have a CPU's batch: on a GPU each step takes as many samples as keep
it busy and fit into the training's part of its memory (`gpu/step_size.py`; `--room-mib`), and
`export` writes the recipe with that batch. Every 30 s their averaged weights, as fp16, are packed
into archives of less than 16 MiB, OUT/weights-0.tar.gz and so on, and OUT/train.json says how far
all of them are, so that being cut off loses half a minute.

`pack --quick` and `run --device cpu --quick` do all of it in a minute or two: a case of every
kind, small samples, and every recipe trained for a step or two, as many at once as there are cores.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROOT = Path(__file__).parents[1]
_LOG = logging.getLogger(__name__)
_MIB = 2**20
_SHOW_S = 30.0
_LAST_S = 6.0  # of the time, for the last weights
_QUICK_S = 1.0  # of training in a dry run; one step at least
_SHARE_OF_FREE = 0.8  # of a GPU's memory, for all trainings together
_CT_HU = (-200.0, 300.0)
_CHANNEL = re.compile(r"_(\d{4})\.nii\.gz$")
_MOST_MIB = 15.9  # of a file that is sent back
_FOLD = "fold"  # a training of its parent's recipe without some of its cases
_NOT_BEGUN = {"error": "not begun: the time was up"}
_STATUS, _PROGRESS, _WEIGHTS = "train.json", "progress.json", "weights.safetensors"
_PACKED = "pack.json"
_MANY = ("imagesTr", "labelsTr", "wholebody_organs")  # folders of which a quick pack has one case


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where a recipe's cases lie, inside DATA and inside PACK.

    Attributes:
        dataset: labelled scans, nnU-Net raw layout.
        material: what its synthesis works on.
        negatives: folders of scans, or scans, in which nothing is to be found.
        share: of the time that this training takes; small networks leave the device to others.
        validation: cases that are left out of this training, beside those of the recipe, so that
            what a recipe is worth can be measured on them.
        parts: folders inside `dataset`, where the recipe names several datasets.
        under: folder of PACK that holds the data, where other predictors need them otherwise.
        ranges: of the channels, what is kept of their intensities; from the first to the last that
            a file has where None.
        bits: of each channel, in place of those of the command line.
    """

    dataset: str
    material: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    share: float = 1.0
    validation: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    under: str = "."
    ranges: tuple[tuple[float, float] | None, ...] = (_CT_HU,)
    bits: int | None = None

    def files(self, data: Path) -> Iterator[tuple[Path, Path, int | None]]:
        """Yield each file, its place in PACK, and its channel; None for what is copied as it is.

        Files of channels that `ranges` does not have are left out.
        """
        parts = [f"{self.dataset}/{part}" for part in self.parts] or [self.dataset]
        for folder in (*parts, *self.negatives, *self.material):
            ours = folder in parts
            whole = data / folder
            for path in [whole] if whole.is_file() else sorted(whole.rglob("*.gz")):
                place = Path(self.under if ours else ".") / path.relative_to(data)
                numbered = _CHANNEL.search(path.name)
                if numbered is None and not whole.is_file():
                    yield path, place, None
                    continue
                channel = 0 if numbered is None else int(numbered[1])
                if channel < len(self.ranges):
                    yield path, place, channel

    def how(self, place: Path, channel: int, bits: int) -> tuple[tuple[float, float] | None, int]:
        """Return the range and the bits that a file is stored in."""
        if place.is_relative_to(self.under):
            return self.ranges[channel], self.bits or bits
        return _CT_HU, bits


_ELSEWHERE = (
    "Dataset005_SarcomaCT",
    "wholebody_pet/HN-CHUS-052_ct.nii.gz",
    "cases/example_ct_0000.nii.gz",
)
_ABDOMEN = Data(dataset="Dataset001_Abdomen", negatives=_ELSEWHERE)
DATASETS: dict[str, Data] = {  # in the order of their worth: what does not fit is left out
    "abdomen_ct": _ABDOMEN,
    "abdomen_ct/fold": replace(
        _ABDOMEN, share=0.7, validation=("BTCV_01", "BTCV_09", "BTCV_18", "BTCV_27")
    ),
    "abdomen_ct/locator": replace(_ABDOMEN, share=0.35),
    "mamba_clinix_abdomen": _ABDOMEN,
    "att_umamba_petct": Data(
        dataset=".",
        parts=("Dataset002_PETCT", "wholebody_pet"),
        material=("wholebody_organs",),
        under="petct",
        ranges=((-250.0, 250.0), (0.0, 20.0)),
        bits=7,
    ),
    "attention_unet_abdomen": replace(_ABDOMEN, share=0.7),
    "mpu_net_liver": replace(_ABDOMEN, share=0.6),
    "mamba_ahnet_lesion": Data(
        dataset=".",
        parts=("Dataset003_LungNodule", "Dataset005_SarcomaCT", "Dataset002_PETCT"),
        material=("Dataset001_Abdomen",),
        under="lesions",
        ranges=((-950.0, 250.0),),
        bits=7,
    ),
    "mamba_ahnet_mr": Data(dataset="Dataset004_SarcomaMR", ranges=(None,), bits=7),
}


def pack(
    data: Path,
    to: Path,
    names: list[str],
    bits: int,
    max_mib: float = float("inf"),
    *,
    quick: bool = False,
) -> float:
    """Copy what predictors are trained on, CTs in few bits; return the size in MiB.

    Held-out and validation cases stay here. CTs are clipped to a range of HU and stored as bytes
    whose lowest bits are 0: noise of a CT is larger than a step of six bits, and what does not
    change packs well. Predictors whose data do not fit beside those before are left out;
    pack.json says which are in it. `quick` takes the first case of each folder of many.
    """
    packed, left_out = list[str](), list[str]()
    for name in names:
        added = list(_copied(data, to, name, bits, quick=quick))
        if _size_mib(to) <= max_mib:
            packed.append(name)
            continue
        for path in added:
            path.unlink()
        left_out.append(name)
    to.mkdir(parents=True, exist_ok=True)
    (to / _PACKED).write_text(json.dumps({"predictors": packed, "left_out": left_out}) + "\n")
    return _size_mib(to)


def _copied(data: Path, to: Path, name: str, bits: int, *, quick: bool) -> Iterator[Path]:
    """Copy what one predictor needs beside what is there, and yield the new files."""
    from flarekit.training.recipe import read_recipe

    wanted, facts = DATASETS[name], read_recipe(_recipe_path(name)).training
    seen = set[tuple[Path, int | None]]()
    for path, place, channel in wanted.files(data):
        target = to / place
        if _stays_here(path, facts):
            continue
        kind = (path.parent, channel)
        is_one_more = kind in seen and path.parent.name in _MANY
        seen.add(kind)
        if target.exists() or (quick and is_one_more):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if channel is None:
            target.write_bytes(path.read_bytes())
        else:
            _write_in_few_bits(path, target, *wanted.how(place, channel, bits))
        yield target


def _size_mib(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / _MIB


def _stays_here(path: Path, facts: Any) -> bool:  # noqa: ANN401
    from flarekit.training.cases import matches

    case_id = _CHANNEL.sub("", path.name).removesuffix(".nii.gz")
    never = facts.synthesis.held_out if facts.synthesis is not None else ()
    if never and path.name.startswith(never):
        return True
    return matches(case_id, (*facts.held_out, *facts.validation))


def _write_in_few_bits(
    path: Path, target: Path, kept: tuple[float, float] | None, bits: int
) -> None:
    import nibabel

    scan = nibabel.load(path)
    values: NDArray[np.float32] = np.asarray(scan.dataobj, np.float32)
    low, high = kept or (float(values.min()), max(float(values.max()), float(values.min()) + 1))
    step = 2 ** (8 - bits)
    levels = np.clip((values - low) / (high - low), 0, 1) * 255
    stored = (np.floor(levels / step) * step).astype(np.uint8)
    small = nibabel.Nifti1Image(stored, scan.affine)
    small.header.set_slope_inter((high - low) / 255, low + (high - low) / 255 * step / 2)
    small.to_filename(target)


def run(arguments: argparse.Namespace) -> int:
    """Train predictors side by side until the time is up; return the number that failed."""
    out: Path = arguments.out
    work: Path = arguments.work
    out.mkdir(parents=True, exist_ok=True)
    began, deadline = time.time(), time.monotonic() + 60 * arguments.minutes
    prepare(arguments)
    facts = _facts(arguments.device)
    room_mib = arguments.room_mib or _room_mib(arguments.device)
    if room_mib:
        facts["room_mib"] = room_mib = round(room_mib, 1)
    waiting, children = list(arguments.predictors), dict[str, subprocess.Popen[bytes]]()
    at_once = os.cpu_count() or 1 if arguments.quick else len(waiting)
    archives = _Archives(out, work, arguments.predictors)
    while waiting or any(child.poll() is None for child in children.values()):
        if time.monotonic() > deadline + 20:
            waiting.clear()
            for child in children.values():
                child.kill()
        while waiting and sum(child.poll() is None for child in children.values()) < at_once:
            name = waiting.pop(0)
            until = began + 60 * arguments.minutes
            share_mib = room_mib / len(arguments.predictors)
            children[name] = _start(name, arguments, began, until, share_mib)
        time.sleep(0.2 if arguments.quick else 2.0)
        _write_status(out, facts, work, children)
        archives.update()
    _write_status(out, facts, work, children)
    archives.update()
    for name in arguments.predictors:
        print(_line(name, _read_json(out / _STATUS)["predictors"].get(name, _NOT_BEGUN)))
    return sum(
        name not in children or children[name].returncode != 0 for name in arguments.predictors
    )


def _start(
    name: str, arguments: argparse.Namespace, began: float, until: float, room_mib: float
) -> subprocess.Popen[bytes]:
    """Start the training of one predictor, whose words go into a file."""
    folder = arguments.work / name
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, __file__, "child", str(arguments.pack), name,
        "--work", str(arguments.work), "--out", str(arguments.out), "--device", arguments.device,
        "--began", str(began), "--until", str(until), "--room-mib", str(room_mib),
        *(["--quick"] if arguments.quick else []),
    ]  # fmt: skip
    with (folder / "log.txt").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def _room_mib(device: str) -> float:
    """Return what trainings may take of a GPU's memory together; 0 on a CPU: batches stay."""
    if not device.startswith("cuda"):
        return 0.0
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return _SHARE_OF_FREE * free / _MIB


class _Archives:
    """Keeps archives of weights, none larger than may be sent back, up to date."""

    def __init__(self, out: Path, work: Path, names: list[str]) -> None:
        self._out, self._work = out, work
        self._groups: list[list[str]] = []
        sizes = {name: _expected_bytes(name) for name in names}
        room: list[float] = []
        for name in sorted(names, key=sizes.__getitem__, reverse=True):
            fitting = [index for index, left in enumerate(room) if left >= sizes[name]]
            if not fitting:
                self._groups.append([])
                room.append(_MOST_MIB * _MIB)
                fitting = [len(room) - 1]
            self._groups[fitting[0]].append(name)
            room[fitting[0]] -= sizes[name]
        self._packed: dict[int, list[float]] = {}

    def update(self) -> None:
        """Pack again what has changed."""
        for index, names in enumerate(self._groups):
            paths = [self._work / name / _WEIGHTS for name in names]
            there = [path for path in paths if path.is_file()]
            changed = [path.stat().st_mtime for path in there]
            if not there or changed == self._packed.get(index):
                continue
            archive = self._out / f"weights-{index}.tar.gz"
            temporary = archive.with_name(f".{archive.name}")
            with tarfile.open(temporary, "w:gz", compresslevel=4) as packed:
                for path in there:
                    packed.add(path, _member(str(path.parent.relative_to(self._work))))
            temporary.replace(archive)
            self._packed[index] = changed


def _member(name: str) -> str:
    return f"{name.replace('/', '--')}.safetensors"


def _expected_bytes(name: str) -> float:
    """Return about the size of a predictor's weights, packed."""
    from flarekit import models
    from flarekit.training.recipe import read_recipe

    architecture = read_recipe(_recipe_path(name)).spec.architecture
    network = models.create(architecture.name, **architecture.arguments)
    return 0.95 * 2 * sum(parameter.numel() for parameter in network.parameters())


def prepare(arguments: argparse.Namespace) -> None:
    """Make the cases of all predictors, on all cores; what several share is made once."""
    from flarekit.training.kept import make_kept

    makers = [
        maker
        for name in arguments.predictors
        for pool in _pools(arguments.pack, name, quick=arguments.quick)
        for maker in pool.cases.makers
    ]
    began = time.monotonic()
    count = sum(1 for _ in make_kept(makers, arguments.work / "cases", os.cpu_count() or 1))
    print(f"{count} cases are prepared after {time.monotonic() - began:.0f} s", flush=True)


def _pools(packed: Path, name: str, *, quick: bool) -> list[Any]:
    """Return where a predictor's samples come from; one case of each kind where `quick`."""
    from flarekit.training.cases import LazyCases
    from flarekit.training.sources import training_pools

    data = DATASETS[name]
    pools = training_pools(
        _recipe(name, quick=quick),
        packed / data.under / data.dataset,
        [packed / each for each in data.material],
        [packed / each for each in data.negatives],
    )
    if not quick:
        return pools
    return [replace(each, cases=LazyCases(each.cases.makers[:1])) for each in pools]


def _recipe(name: str, *, quick: bool) -> Any:  # noqa: ANN401
    from flarekit.training.recipe import read_recipe

    recipe = read_recipe(_recipe_path(name))
    left_out = (*recipe.training.validation, *DATASETS[name].validation)
    facts = recipe.training.model_copy(update={"validation": left_out})
    recipe = replace(recipe, training=facts)
    return _quick(recipe) if quick else recipe


def _facts(device: str) -> dict[str, Any]:
    import torch

    facts: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    if device.startswith("cuda"):
        facts["device"] = torch.cuda.get_device_name(0)
    return facts


def _write_status(
    out: Path, facts: dict[str, Any], work: Path, children: dict[str, subprocess.Popen[bytes]]
) -> None:
    predictors = {}
    for name, child in children.items():
        status = _read_json(work / name / _PROGRESS)
        if child.poll() not in (None, 0):
            log = (work / name / "log.txt").read_text(errors="replace")
            status["error"] = f"ended with {child.returncode}: {log[-1500:]}"
        predictors[name] = status
    temporary = out / f".{_STATUS}"
    temporary.write_text(json.dumps({"facts": facts, "predictors": predictors}, indent=1))
    temporary.replace(out / _STATUS)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def _line(name: str, status: dict[str, Any]) -> str:
    if "steps" not in status:
        return f"{name:26} no step; {status.get('error', '')[-300:]}"
    return (
        f"{name:26} {status['steps']:7d} steps of {status['batch']}, {status['minutes']:.2f} min, "
        f"{status['ms_per_step']:.1f} ms a step ({status['ms_to_draw']:.1f} ms to draw it), "
        f"loss {status['loss']:.3f}, prepared in {status['prepared_s']:.0f} s "
        f"{status.get('error', '')[-300:]}"
    )


def child(arguments: argparse.Namespace) -> None:
    """Train one predictor until a moment of the clock."""
    import torch
    from gpu.step_size import sized

    from flarekit.training.compact import RunOptions, train
    from flarekit.training.run_record import CHECKPOINT
    from flarekit.training.samples import Sampler
    from flarekit.training.sources import make_all

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True
    name, folder = arguments.name, arguments.work / arguments.name
    began = time.monotonic()
    recipe, data = _recipe(name, quick=arguments.quick), DATASETS[name]
    if arguments.room_mib:
        recipe = sized(recipe, arguments.room_mib, torch.device(arguments.device))
    pools = _pools(arguments.pack, name, quick=arguments.quick)
    make_all(pools, arguments.work / "cases", 1)
    prepared_s = time.monotonic() - began
    left_s = data.share * (arguments.until - arguments.began) - (time.time() - arguments.began)
    minutes = (_QUICK_S if arguments.quick else max(left_s - _LAST_S, 1.0)) / 60
    progress = _Progress(folder / _PROGRESS, prepared_s, recipe.training.batch)
    options = RunOptions(
        minutes=minutes,
        device=arguments.device,
        checkpoint_every_s=_SHOW_S,
        draw_every_s=3600.0,
    )
    checkpoint, shown_at = folder / "run" / CHECKPOINT, 0.0

    def show() -> None:
        network, effort = _averaged(recipe, checkpoint)
        _save(recipe, network, folder / _WEIGHTS)
        progress.saved(effort)

    def tell(step: int, minutes: float, loss: float) -> None:
        nonlocal shown_at
        progress(step, minutes, loss)
        if checkpoint.is_file() and checkpoint.stat().st_mtime > shown_at:
            shown_at = checkpoint.stat().st_mtime
            show()

    average = train(recipe, pools, folder / "run", options, progress=tell)
    show()
    device = next(average.parameters()).device
    progress.drawing(_ms_to_draw(Sampler(recipe, pools, device), 1 if arguments.quick else 5))


def _averaged(recipe: Any, checkpoint: Path) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
    """Return the averaged network of a checkpoint, and its steps, minutes and devices."""
    import torch

    from flarekit.training.networks import as_trained

    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    network = as_trained(recipe)
    network.load_state_dict(content["average"])
    effort = {"steps": content["step"], "minutes": content["seconds"] / 60}
    return network, {**effort, "devices": content["devices"]}


def _recipe_path(name: str) -> Path:
    folder = _ROOT / "weights" / name
    folder = folder.parent if folder.name == _FOLD else folder
    coming = folder / "next.toml"
    return coming if coming.is_file() else folder / "recipe.toml"


def _quick(recipe: Any) -> Any:  # noqa: ANN401
    """Return a recipe whose samples are small, for the dry run."""
    tile = tuple(n if n == 1 else min(n, 32) for n in recipe.training.tile_ZYX)
    facts = recipe.training.model_copy(
        update={"tile_ZYX": tile, "batch": 1, "phantom_share": 0.0, "phantom_seeds": (0, 0)}
    )
    return replace(recipe, training=facts)


def _save(recipe: Any, network: Any, path: Path) -> None:  # noqa: ANN401
    import torch

    from flarekit import models
    from flarekit.training.networks import as_predicted

    temporary = path.with_name(f".{path.name}")
    models.save_weights(as_predicted(network, recipe), temporary, dtype=torch.float16)
    temporary.replace(path)


def _ms_to_draw(sampler: Any, count: int) -> float:  # noqa: ANN401
    """Return how long a batch takes that nothing else waits for."""
    import torch

    times = []
    for step in range(count):
        began = time.perf_counter()
        batch = sampler.batch(10**6 + step)
        float(batch.image.sum())
        if batch.image.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 1e3 * float(np.median(times))


class _Progress:
    """Writes how far a run is, at most once a second."""

    def __init__(self, path: Path, prepared_s: float, batch: int) -> None:
        self._path = path
        self._facts: dict[str, Any] = {
            "prepared_s": prepared_s, "batch": batch, "ms_to_draw": 0.0, "curve": []
        }  # fmt: skip
        self._written = self._curve = time.monotonic()
        self._began = time.monotonic()
        self._losses: list[float] = []

    def __call__(self, step: int, minutes: float, loss: float) -> None:
        if step == 1:
            self._began = time.monotonic()  # the first step compiles and chooses algorithms
        self._losses = [*self._losses[-99:], loss]
        now = time.monotonic()
        if now - self._written < 1:
            return
        self._written = now
        mean = float(np.nanmean(self._losses))
        ms = 1e3 * (now - self._began) / max(1, step - 1)
        self._facts |= {"steps": step, "minutes": minutes, "loss": mean, "ms_per_step": ms}
        if now - self._curve > 5:
            self._curve = now
            self._facts["curve"].append([step, round(minutes, 3), round(mean, 4)])
        self._write()

    def saved(self, effort: dict[str, Any]) -> None:
        """Remember what the saved weights took."""
        self._facts["saved"] = effort
        self._write()

    def drawing(self, ms: float) -> None:
        """Remember how long a batch takes to draw."""
        self._facts["ms_to_draw"] = ms
        self._write()

    def _write(self) -> None:
        temporary = self._path.with_name(f".{self._path.name}")
        temporary.write_text(json.dumps(self._facts))
        temporary.replace(self._path)


def export(out: Path, weights: Path) -> None:
    """Make predictor folders of what a run left."""
    from gpu.step_size import with_batch

    from flarekit import models
    from flarekit.training.export import export_network
    from flarekit.training.recipe import read_recipe

    statuses = _read_json(out / _STATUS).get("predictors", {})
    stored = {
        name: content for path in sorted(out.glob("*.tar.gz")) for name, content in _read(path)
    }
    for name, status in statuses.items():
        if _member(name) not in stored or "saved" not in status:
            print(f"{name}: nothing came back; {status.get('error', '')}")
            continue
        recipe = with_batch(read_recipe(_recipe_path(name)), status["batch"])
        architecture = recipe.spec.architecture
        network = models.create(architecture.name, **architecture.arguments)
        _load(network, stored[_member(name)])
        effort = {**status["saved"], "minutes": round(status["saved"]["minutes"], 2)}
        export_network(recipe, network, effort, weights / name)
        print(f"{weights / name}: {effort}")


def _read(archive: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive) as packed:
        for member in packed:
            content = packed.extractfile(member)
            if content is not None:
                yield member.name, content.read()


def _load(network: Any, content: bytes) -> None:  # noqa: ANN401
    import torch
    from safetensors.torch import load

    from flarekit import models

    stored = load(content)
    with torch.no_grad():
        for tensor_name, tensor in models.own_tensors(network).items():
            tensor.copy_(stored[tensor_name])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="Bring data together in few bits.")
    packing.add_argument("data", type=Path)
    packing.add_argument("--to", type=Path, required=True)
    packing.add_argument("--bits", type=int, default=6, help="Of a CT's intensities, 4 to 8.")
    packing.add_argument("--max-mib", type=float, default=62.0, help="What the pack may weigh.")
    running = commands.add_parser("run", help="Train until the time is up.")
    running.add_argument("pack", type=Path)
    running.add_argument("--minutes", type=float, default=5.0)
    one = commands.add_parser("child")
    one.add_argument("pack", type=Path)
    one.add_argument("name")
    one.add_argument("--began", type=float, required=True)
    one.add_argument("--until", type=float, required=True)
    for each in (running, one):
        each.add_argument("--out", type=Path, required=True)
        each.add_argument("--work", type=Path, default=Path("runs/gpu_train"))
        each.add_argument("--device", default="cuda")
        each.add_argument("--quick", action="store_true", help="Tiny samples, for a dry run.")
        each.add_argument(
            "--room-mib",
            type=float,
            default=0.0,
            help="Memory of the device for all trainings; by default 80 %% of what is free on a "
            "GPU, and on a CPU each step takes what the recipe says.",
        )
    packing.add_argument("--quick", action="store_true", help="One case of each folder.")
    packing.add_argument("--predictors", type=_names, default=list(DATASETS))
    running.add_argument("--predictors", type=_names, help="All that PACK holds the data of.")
    exporting = commands.add_parser("export", help="Make predictor folders of what came back.")
    exporting.add_argument("out", type=Path)
    exporting.add_argument("weights", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "pack":
        named, bits, most = arguments.predictors, arguments.bits, arguments.max_mib
        size = pack(arguments.data, arguments.to, named, bits, most, quick=arguments.quick)
        told = _read_json(arguments.to / _PACKED)
        print(f"{arguments.to}: {size:.1f} MiB for {', '.join(told['predictors']) or 'nothing'}")
        if told["left_out"]:
            print(f"left out, for {most:g} MiB: {', '.join(told['left_out'])}; take fewer bits")
    elif arguments.command == "run":
        packed = _read_json(arguments.pack / _PACKED).get("predictors", list(DATASETS))
        arguments.predictors = arguments.predictors or packed
        raise SystemExit(min(run(arguments), 1))
    elif arguments.command == "child":
        child(arguments)
    else:
        export(arguments.out, arguments.weights)


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in DATASETS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no predictor {', '.join(unknown)}; known: {', '.join(DATASETS)}"
        )
    return names


if __name__ == "__main__":
    main()
