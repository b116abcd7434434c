"""The public names: what they are, what loading them costs, and their examples."""

from __future__ import annotations

import doctest
import importlib
import json
import pickle
import pkgutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

import flarekit
from flarekit.core.errors import FlarekitError, InputError, UnreadableVolumeError
from flarekit.core.spec import read_spec

HEAVY = ("torch", "openvino", "nibabel", "scipy", "SimpleITK", "numpy", "pydantic", "cc3d")
EXAMPLES = [
    flarekit,
    flarekit.Segmenter,
    flarekit.Segmenter.facts,
    flarekit.Segmenter.label_names,
    flarekit.Segmenter.reopen,
    flarekit.Segmenter.segment,
    flarekit.Segmenter.open,
    flarekit.Result.save,
    flarekit.Result.to_nibabel,
    flarekit.Result.to_sitk,
    flarekit.load,
    flarekit.predict,
    flarekit.predictors,
    flarekit.save_predictor,
]


def modules_after(code):
    script = f"import sys; {code}; print([m for m in {HEAVY!r} if m in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", script], text=True, capture_output=True, check=True
    ).stdout.strip()


def test_importing_the_package_loads_nothing_heavy():
    assert modules_after("import flarekit") == "[]"
    assert modules_after("import flarekit; dir(flarekit); flarekit.__version__") == "[]"


def test_the_package_says_the_version_that_it_is_built_as():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert flarekit.__version__ == project["version"]


def test_errors_can_be_caught_without_loading_anything_heavy():
    assert modules_after("import flarekit; flarekit.FlarekitError") == "[]"


@pytest.mark.long
def test_listing_predictors_loads_no_torch_and_no_openvino():
    found = modules_after("import flarekit; flarekit.predictors()")
    assert not {"torch", "openvino"} & set(json.loads(found.replace("'", '"')))


def test_the_public_names_are_these_and_every_one_is_there():
    assert (
        sorted(flarekit.__all__)
        == flarekit.__all__
        == [
            "BudgetError",
            "CaseRecord",
            "DeviceError",
            "FlarekitError",
            "InputError",
            "OpenScan",
            "OutputError",
            "PredictorError",
            "PredictorFolder",
            "PredictorSpec",
            "Result",
            "RunRecord",
            "Segmenter",
            "UnreadableVolumeError",
            "UsageError",
            "WeightsHashError",
            "WeightsMismatchError",
            "WeightsMissingError",
            "load",
            "predict",
            "predictors",
            "save_predictor",
        ]
    )
    for name in flarekit.__all__:
        assert getattr(flarekit, name).__doc__
    assert set(flarekit.__all__) <= set(dir(flarekit))
    with pytest.raises(AttributeError, match="no attribute 'segment'"):
        flarekit.segment  # noqa: B018


@pytest.fixture
def example_files(tmp_path, monkeypatch):
    """Put the files that examples name into the folder where they run."""
    rng = np.random.default_rng(0)
    for name, shape in (
        ("scan.nii.gz", (40, 40, 12)),
        ("inputs/patient_0000.nii.gz", (40, 40, 12)),
        ("ct.nii.gz", (24, 24, 16)),
        ("pet.nii.gz", (24, 24, 16)),
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        voxels = rng.integers(-200, 200, shape).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-2.0, -2.0, 5.0, 1.0])), path)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small_tiles(monkeypatch):
    """Let networks see less at a time: what an example says of a mask does not depend on it."""

    def read(folder):
        predictor = read_spec(folder)
        z, *plane = predictor.spec.grid.tile_ZYX
        tile = (z, *(-(-side // 32) * 16 for side in plane))  # what is halved four times
        grid = predictor.spec.grid.model_copy(update={"tile_ZYX": tile})
        return replace(predictor, spec=predictor.spec.model_copy(update={"grid": grid}))

    monkeypatch.setattr("flarekit.segmentation.predictors.read_spec", read)


@pytest.mark.long
@pytest.mark.usefixtures("example_files", "small_tiles")
@pytest.mark.parametrize("what", EXAMPLES, ids=lambda what: getattr(what, "__qualname__", None))
def test_the_examples_of_public_names_work_as_written(what):
    described = what.fget if isinstance(what, property) else what
    docstring = described.__doc__
    name = getattr(described, "__qualname__", described.__name__)
    example = doctest.DocTestParser().get_doctest(docstring, {}, name, None, 0)
    assert example.examples
    said = []
    results = doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert results.failed == 0, "".join(said)


@pytest.mark.long
@pytest.mark.usefixtures("example_files", "small_tiles")
@pytest.mark.parametrize(("page", "said"), [("README.md", ""), ("docs/python.md", "()\n")])
def test_the_first_example_of_a_page_works_as_typed(page, said, capsys):
    text = (Path(__file__).parents[1] / page).read_text(encoding="utf-8")
    code = text.split("```python\n", 1)[1].split("```", 1)[0]
    exec(compile(code, page, "exec"), {})  # noqa: S102 - what a reader types in
    assert nibabel.load("mask.nii.gz").shape == nibabel.load("scan.nii.gz").shape
    assert capsys.readouterr().out.endswith(said)


def errors_of_the_package():
    """Yield every exception class that the package defines."""
    for module in pkgutil.walk_packages(flarekit.__path__, "flarekit."):
        if "_triton" in module.name or "_mamba_ssm" in module.name or "weights" in module.name:
            continue
        try:
            importlib.import_module(module.name)
        except ImportError:
            continue  # an extra that is not installed
    waiting, found = [FlarekitError], set()
    while waiting:
        kind = waiting.pop()
        found.add(kind)
        waiting += kind.__subclasses__()
    return sorted(found, key=lambda kind: kind.__qualname__)


def test_every_error_survives_pickling():
    kinds = errors_of_the_package()
    assert len(kinds) > 12
    for kind in kinds:
        check_pickling(kind)


def check_pickling(kind):
    if issubclass(kind, UnreadableVolumeError):
        error = kind(Path("scan.nii.gz"), "is empty", fix="export it again")
    else:
        error = kind("what happened", fix="what to do")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), again.message, again.fix) == (str(error), error.message, error.fix)
    assert (again.args, again.exit_code) == (error.args, error.exit_code)
    assert vars(again) == vars(error)


def test_a_worker_s_error_arrives_whole():
    from concurrent.futures import ProcessPoolExecutor

    with (
        ProcessPoolExecutor(max_workers=1) as workers,
        pytest.raises(InputError, match=r"no_such.nii.gz: cannot be opened"),
    ):
        workers.submit(_reads_nothing).result()


def _reads_nothing():
    from flarekit.core.nifti import read_nifti

    read_nifti(Path("no_such.nii.gz"))
