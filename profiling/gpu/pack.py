"""What is brought along to a machine with a GPU and no network: packages, weights, two real CTs.

- site.tar.xz: packages that such a machine often lacks, for one version of Python
- weights/NAME.xz: a predictor's safetensors file, as it is in the tree
- locators/SHA256.xz: that of a locator, which several predictors may share
- scans/CASE_0000.nii.gz: CTs in 8 bits, clipped to what the predictors' windows show
- pack.json: what is in it, what did not fit, and the licence of the scans
"""

from __future__ import annotations

import gzip
import json
import lzma
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
PREDICTORS = (  # the first ones go first where not all fit
    "abdomen_ct",
    "mamba_clinix_abdomen",
    "att_umamba_petct",
    "mamba_ahnet_lesion",
    "mpu_net_liver",
    "attention_unet_abdomen",
    "mamba_ahnet_mr",
)
PACKAGES = (
    "nibabel",
    "importlib-resources",
    "zipp",
    "connected-components-3d",
    "isal",
    "pydantic",
    "pydantic-core",
    "annotated-types",
    "typing-inspection",
    "typing-extensions",
    "typer",
    "click",
    "shellingham",
    "annotated-doc",
    "rich",
    "markdown-it-py",
    "mdurl",
    "pygments",
    "tomli-w",
    "threadpoolctl",
    "dynamic-network-architectures",
)
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")
_MIB = 2**20
# two-byte numbers: bytes are predicted by their place in the number (lp, pb), not by text (lc)
_HALVES = [{"id": lzma.FILTER_LZMA2, "preset": 0, "lc": 0, "lp": 1, "pb": 1}]
_LOW_HU, _STEP_HU = -210.0, 2.0  # of 8-bit scans: up to 300 HU
_WEIGHTS, _LOCATOR = "model.safetensors", "locator"
_LEFT_BEHIND = ("tests", "testing", "__pycache__")


@dataclass(kw_only=True)
class Pack:
    """What a pack holds.

    Attributes:
        python: the version that its packages are for.
        packages: name -> version.
        mib: file -> size.
        left_out: what was asked for and did not fit.
    """

    python: str
    packages: dict[str, str] = field(default_factory=dict)
    mib: dict[str, float] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    scans_licence: str = "see the folder that they come from; intensities in 8 bits, 2 HU apart"

    @property
    def total_mib(self) -> float:
        """Its size."""
        return sum(self.mib.values())


def make_pack(
    folder: Path,
    *,
    max_mib: float,
    predictors: Sequence[str] = PREDICTORS,
    scans: Path | None = None,
    python: str = "3.12",
    packages: Sequence[str] = PACKAGES,
    weights: Path = ROOT / "weights",
) -> Pack:
    """Fill a folder, which is emptied first: packages, scans, then weights as long as they fit.

    Args:
        folder: to make.
        max_mib: what it may weigh.
        predictors: whose weights are wanted, the most wanted first.
        scans: a folder whose first two `*_0000.nii.gz` go along.
        python: which version the packages are for.
        packages: of the Python that runs this, in the versions that are installed there.
        weights: folder of predictor folders.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("weights", "locators", "scans"):
        (folder / name).mkdir(parents=True)
    pack = Pack(python=python)
    room = partial(_put, pack=pack, max_mib=max_mib)
    if packages:
        pack.packages = {name: version(name) for name in packages}
        _write_site(folder / "site.tar.xz", pack.packages, python)
        room(folder, folder / "site.tar.xz")
    for scan in sorted(scans.glob("*_0000.nii.gz"))[:2] if scans else ():
        small = folder / "scans" / scan.name
        small.write_bytes(in_eight_bits(scan.read_bytes()))
        room(folder, small)
    for name in predictors:
        needed = {folder / "weights" / f"{name}.xz": weights / name / _WEIGHTS}
        if (sha256 := _locator_sha256(weights / name)) is not None:
            needed[folder / "locators" / f"{sha256}.xz"] = weights / name / _LOCATOR / _WEIGHTS
        for small, whole in needed.items():
            if not small.exists():
                small.write_bytes(lzma.compress(whole.read_bytes(), filters=_HALVES))
                room(folder, small)
    (folder / "pack.json").write_text(json.dumps(asdict(pack), indent=1) + "\n")
    return pack


def unpack(folder: Path, work: Path, weights: Path = ROOT / "weights") -> list[str]:
    """Unpack into `work/site`, `work/weights` and `work/scans`; missing parts are left out.

    Args:
        folder: of `make_pack`; nothing happens where there is none.
        work: to unpack into.
        weights: where the predictors' other files are.

    Returns:
        The predictors whose weights were packed.
    """
    jobs = []
    site, locators = folder / "site.tar.xz", folder / "locators"
    if site.is_file():
        jobs.append(partial(_unpack_site, site, work / "site"))
    packed = sorted((folder / "weights").glob("*.xz"))
    jobs += [
        partial(_unpack_weights, path, work / "weights" / path.stem, weights / path.stem, locators)
        for path in packed
    ]
    with ThreadPoolExecutor(max_workers=8) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()
    if (folder / "scans").is_dir():
        shutil.copytree(folder / "scans", work / "scans", dirs_exist_ok=True)
    return [path.stem for path in packed]


def in_eight_bits(content: bytes) -> bytes:
    """Return a NIfTI-1 scan with voxels in 8 bits: 2 HU apart from -210 HU on, clipped beyond."""
    import numpy as np

    plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    header = bytearray(plain[:352])
    offset = int(struct.unpack_from("<f", header, 108)[0])
    slope, intercept = struct.unpack_from("<2f", header, 112)
    kind = {2: "u1", 4: "<i2", 8: "<i4", 16: "<f4", 512: "<u2"}[
        struct.unpack_from("<h", header, 70)[0]
    ]
    hu = np.frombuffer(plain, kind, offset=offset).astype(np.float32)
    if slope not in (0.0, 1.0) or intercept:
        hu = hu * (slope or 1.0) + intercept
    voxels = np.clip(np.rint((hu - _LOW_HU) / _STEP_HU), 0, 255).astype(np.uint8)
    struct.pack_into("<hh", header, 70, 2, 8)
    struct.pack_into("<fff", header, 108, 352.0, _STEP_HU, _LOW_HU)
    struct.pack_into("<4s", header, 348, b"\0\0\0\0")  # no extensions
    return gzip.compress(bytes(header) + voxels.tobytes(), 9, mtime=0)


def _put(folder: Path, path: Path, *, pack: Pack, max_mib: float) -> None:
    """Keep a file that fits; remove one that does not, and say so."""
    mib, name = path.stat().st_size / _MIB, str(path.relative_to(folder))
    if pack.total_mib + mib <= max_mib:
        pack.mib[name] = round(mib, 3)
        return
    path.unlink()
    pack.left_out.append(f"{name} ({mib:.1f} MiB)")


def _write_site(path: Path, packages: dict[str, str], python: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        wheels, site = Path(scratch) / "wheels", Path(scratch) / "site"
        for name, number in packages.items():
            _fetch(f"{name}=={number}", wheels, python)
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
        with tarfile.open(path, "w:xz", preset=6) as archive:
            archive.add(site, ".", filter=_without_tests)


def _without_tests(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(member.name).name in _LEFT_BEHIND else member


def _fetch(requirement: str, wheels: Path, python: str) -> None:
    """Fetch a wheel for another Python; one that is only there as a source must be pure."""
    pip = [sys.executable, "-m", "pip", "--quiet"]
    platforms = [part for name in PLATFORMS for part in ("--platform", f"{name}_x86_64")]
    binary = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    place = ["--no-deps", "--dest", str(wheels)]
    fetched = subprocess.run(
        [*pip, "download", *place, *binary, *platforms, requirement],
        check=False,
        capture_output=True,
        text=True,
    )
    if not fetched.returncode:
        return
    before = set(wheels.glob("*.whl"))
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), requirement], check=True
    )
    made = set(wheels.glob("*.whl")) - before
    if not all(wheel.name.endswith("-none-any.whl") for wheel in made):
        raise SystemExit(f"{requirement}: no wheel for Python {python}:\n{fetched.stderr[-2000:]}")


def _unpack_site(path: Path, site: Path) -> None:
    with tarfile.open(path) as archive:
        archive.extractall(site, filter="data")


def _unpack_weights(path: Path, folder: Path, tree: Path, locators: Path) -> None:
    """Make a predictor's folder, its locator's inside, of the facts in the tree."""
    _unpack_network(path, folder, tree)
    sha256 = _locator_sha256(tree)
    if sha256 is None:
        return
    packed = locators / f"{sha256}.xz"
    if packed.is_file():
        _unpack_network(packed, folder / _LOCATOR, tree / _LOCATOR)
    else:
        shutil.copytree(tree / _LOCATOR, folder / _LOCATOR)


def _unpack_network(path: Path, folder: Path, tree: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(tree / "predictor.toml", folder)
    (folder / _WEIGHTS).write_bytes(lzma.decompress(path.read_bytes()))


def _locator_sha256(predictor: Path) -> str | None:
    """Return the hash of a predictor's locator; None where it has none."""
    facts = tomllib.loads((predictor / "predictor.toml").read_text())
    sha256: str | None = facts.get("locator", {}).get("sha256")
    return sha256
