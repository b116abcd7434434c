"""What pages in docs/ tell people to type works as it stands there, on generated data.

Tiny networks stand in for the predictors, under their names. Commands that need Docker are not run
here, but have to be commands that exist.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import typer
from typer.testing import CliRunner

from flarekit import conventions
from flarekit.cli.main import app
from flarekit.images.run_line import organisers_line
from tests.conventions.dicom.dicom_files import write_series
from tests.images.test_run_line import image
from tests.importing.test_importing import network_of, result_folder

DOCS = Path(__file__).parents[1] / "docs"
ORGANISERS = ("flare", "autopet", "uls23")
NOT_HERE = ("build", "verify", "save", "profile")  # need a Docker engine, or its report


def commands_of(page):
    """Return the commands of a page's sh blocks, in order."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    assert lines
    return [shlex.split(line, comments=True) for line in lines]


def scan_at(path, shape=(16, 40, 48), spacing=(5.0, 3.0, 3.0), value=None):
    """Write a scan of noise, or of one value, in the format of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path)))
    voxels = rng.integers(-200, 200, shape) if value is None else np.full(shape, value)
    z, y, x = spacing
    affine = np.diag([-x, -y, z, 1.0])
    if path.name.endswith(".nii.gz"):
        nibabel.save(nibabel.Nifti1Image(voxels.T.astype(np.int16), affine), path)
    else:
        made = SimpleITK.GetImageFromArray(voxels.astype(np.int16))
        made.SetSpacing((x, y, z))
        SimpleITK.WriteImage(made, str(path))
    return path


def prepare_flare(folder):
    for name in ("p1/ct.nii.gz", "b.mha"):
        scan_at(folder / "scans" / name)


def prepare_autopet(folder):
    for pair in ("STS_008", "pairs/STS_009", "pairs/STS_010"):
        scan_at(folder / f"{pair}_0000.nii.gz", spacing=(4.0, 4.0, 4.0))
        scan_at(folder / f"{pair}_0001.nii.gz", spacing=(4.0, 4.0, 4.0), value=1)


def prepare_uls23(folder):
    scan_at(folder / "volumes" / "a.nii.gz", (128, 256, 256), (1.0, 0.8, 0.8))


def prepare_hospital(folder):
    voxels = np.random.default_rng(0).integers(-900, 300, (12, 40, 40))
    write_series(folder / "study" / "a", voxels)
    shutil.make_archive(str(folder / "study"), "zip", folder / "study")
    scan_at(folder / "scan.mha")
    scan_at(folder / "scan.nrrd")
    scan_at(folder / "archive" / "deep" / "ct.nii.gz")


def prepare_nnunet(folder):
    result_folder(
        folder / "RESULTS" / "Dataset001_X" / "nnUNetTrainer__nnUNetPlans__3d_fullres",
        network_of("nnunet"),
    )
    scan_at(folder / "imagesTs" / "X_0000.nii.gz", (8, 16, 18), (3.0, 1.0, 1.0))


PREPARE = {
    "autopet": prepare_autopet,
    "flare": prepare_flare,
    "hospital": prepare_hospital,
    "nnunet": prepare_nnunet,
    "uls23": prepare_uls23,
}
MADE = {
    "autopet": ["all_masks/STS_009.nii.gz", "all_masks/STS_010.nii.gz", "masks/STS_008.nii.gz"],
    "flare": ["masks/b.mha", "masks/p1/ct.nii.gz"],
    "hospital": ["from_zip", "mask.nii.gz", "masks/scan.nrrd", "report/statistics.csv"],
    "nnunet": ["exact_masks/X.nii.gz", "masks/X.nii.gz", "weights/mini/CARD.md"],
    "uls23": ["masks/a.nii.gz"],
}


def stand_in(made, folder, name, convention):
    """Put a tiny network under a predictor's name where predictors are looked for first."""
    target = folder / name
    shutil.copytree(made.folder, target)
    text = (target / "predictor.toml").read_text()
    text = text.replace('name = "toy"', f'name = "{name}"').replace('"flare"', f'"{convention}"')
    text = text.replace("[2.0, 2.0, 2.0]", "[6.0, 6.0, 6.0]")
    first, _, second = text.rpartition('name = "CT"')
    if name == "att_umamba_petct":
        text = f'{first}name = "PET"{second}'
    (target / "predictor.toml").write_text(text)


@pytest.mark.long
@pytest.mark.parametrize("page", sorted(PREPARE))
def test_what_a_page_tells_to_type_works(page, make_toy, tmp_path_factory, tmp_path, monkeypatch):
    predictors = tmp_path_factory.mktemp("predictors")
    name, convention, channels = {
        "autopet": ("att_umamba_petct", "autopet", 2),
        "uls23": ("mamba_ahnet_lesion", "uls23", 1),
    }.get(page, ("abdomen_ct", "flare", 1))
    stand_in(make_toy(channels=channels), predictors, name, convention)
    shutil.rmtree(tmp_path / "weights")
    PREPARE[page](tmp_path)
    monkeypatch.chdir(tmp_path)
    if page == "nnunet":
        monkeypatch.delenv("FLAREKIT_WEIGHTS", raising=False)
    else:
        monkeypatch.setenv("FLAREKIT_WEIGHTS", str(predictors))
    if page == "flare":
        commands = [command for command in commands_of(page) if command[1] != "evaluate"]
    else:
        commands = commands_of(page)
    ran = 0
    for program, *arguments in commands:
        if program == "pip":
            continue  # what is installed once is installed here
        assert program == "flarekit"
        if arguments[0] in NOT_HERE:
            arguments = [*arguments[:1], "--help"]  # noqa: PLW2901
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, (arguments, result.output, result.exception)
        ran += arguments[-1] != "--help"
    assert ran >= 3
    for place in MADE[page]:
        assert (tmp_path / place).exists(), place
    if page == "hospital":
        kinds = {path.name.partition(".")[2][-12:] for path in Path("segmentations").iterdir()}
        assert len(list(Path("segmentations").iterdir())) == 3, kinds


@pytest.mark.parametrize("name", ORGANISERS)
def test_a_page_shows_the_layout_and_the_line_of_the_organiser(name):
    text, facts = (DOCS / f"{name}.md").read_text(encoding="utf-8"), conventions.facts_of(name)
    for tree in (facts.input_tree, facts.output_tree):
        assert tree.strip() in text
    assert organisers_line("team:latest", image(), name) in text


@pytest.mark.parametrize("page", sorted(PREPARE))
def test_a_page_is_short_and_its_links_lead_somewhere(page):
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (DOCS / link).exists(), link


PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "weights/*.md", "weights/*/CARD.md", "profiling/*.md")
    for path in DOCS.parent.glob(pattern)
    if path.name != "CHANGELOG.md"  # of commands as they were
)


def shown_on(path):
    """Return every line of a page that calls flarekit: of its blocks, and within its text."""
    text = path.read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    lines = blocks.replace("\\\n", " ").splitlines()
    within = re.findall(
        r"`((?:\w+=\S+ )*flarekit [^`]*)`", re.sub(r"```.*?```", "", text, flags=re.S)
    )
    return [line for line in lines if re.search(r"(^|\s)flarekit ", line)] + within


def unknown_in(line):
    """Return what a line names that flarekit does not have: a command or an option."""
    called = re.search(r"(?:^|\s)flarekit (.*)", line)[1]
    words = re.split(r"[|&;>)#]|\s--\s", called)[0].replace("'", " ").replace('"', " ").split()
    command = typer.main.get_command(app)
    while words and isinstance(command, typer.core.TyperGroup):
        name = words[0]
        if name.startswith("-") or not re.fullmatch(r"[a-z]+", name):
            break
        if name not in command.commands:
            return name
        name = two if (two := " ".join(words[:2])) in command.commands else name
        command = command.commands[name]
        words = words[len(name.split()) :]
    known = {"--help", "-h", "--version", "--install-completion", "--show-completion"}
    for parameter in command.params:
        known |= {*parameter.opts, *parameter.secondary_opts}
    strange = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return next((word for word in strange if word.rstrip(",.:") not in known), None)


@pytest.mark.long
@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS.parent)))
def test_pages_show_commands_and_options_that_exist(path):
    assert {line: unknown_in(line) for line in shown_on(path) if unknown_in(line)} == {}


def scripts_on(path):
    """Return every call of a script in profiling/ that a page shows: its name and its options."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for name, rest in re.findall(r"python (profiling/\w+\.py)([^`)\n]*)", text):
        yield name, re.findall(r"(?<=\s)--[a-z][a-z-]*", rest)


def test_pages_show_scripts_and_options_of_theirs_that_exist():
    shared = (DOCS.parent / "profiling" / "measured.py").read_text(encoding="utf-8")
    shown = [(path, name, options) for path in PAGES for name, options in scripts_on(path)]
    assert sum(bool(options) for *_, options in shown) > 5
    for path, name, options in shown:
        source = (DOCS.parent / name).read_text(encoding="utf-8") + shared
        unknown = [option for option in options if f'"{option}"' not in source]
        assert unknown == [], f"{path}: {name}"
