"""The tables of figures in README.md, docs/ and ablations.md, from the results beside this script.

    python profiling/figures.py            # writes every table anew
    python profiling/figures.py --check    # fails, and names the pages that differ from the results

A table stands between `<!-- figures: NAME -->` and `<!-- end of figures -->`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import paper_readings
import paper_rows
from accuracy_table import read_results

HERE = Path(__file__).parent
ROOT = HERE.parent
BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n)(.*?)(<!-- end of figures -->)", re.DOTALL)
NETWORKS = {
    "nnunet": "nnU-Net's 3D U-Net",
    "mamba_clinix": "MambaClinix",
    "attention_unet": "FLARE23 VGG13 attention U-Net",
    "mpu_net": "MPU-Net",
    "att_umamba": "Att-UMamba",
    "mamba_ahnet": "Mamba-AHNet",
}
ABLATIONS = ("mamba_clinix", "mamba_ahnet")
UNSEEN = {"flare": "scans", "autopet": "scans", "uls23": "lesions"}
Lines = Sequence[str]


def result_of(name: str) -> dict[str, Any]:
    """Return a result that lies beside this script."""
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))


def predictors() -> Lines:
    """Tabulate the shipped predictors with Dice on scans that none of them was trained on."""
    measured = read_results(HERE)
    rows = []
    for path in sorted((ROOT / "weights").glob("*/predictor.toml")):
        facts = tomllib.loads(path.read_text(encoding="utf-8"))
        name = facts["name"]
        result = measured[name][UNSEEN[facts["convention"]]]
        means = [sum(scores.values()) / len(scores) for scores in result["cases"].values()]
        rows.append([
            f"[`{name}`](weights/{name}/CARD.md)",
            NETWORKS[facts["architecture"]["name"]],
            facts["title"].split(",")[0],
            f"`{facts['convention']}`",
            f"{result['mean']:.3f}",
            f"{min(means):.3f}",
            str(len(means)),
        ])  # fmt: skip
    header = ["predictor", "network", "finds", "convention", "mean Dice", "worst case", "cases"]
    return markdown(header, rows)


def peers() -> Lines:
    """Tabulate nnU-Net and flarekit on the same network, weights and scan: the largest measured."""
    measured = result_of("peers_cpu")
    case = max(measured["cases"].values(), key=lambda each: prod(each["shape"]))
    ways = {
        "nnunetv2": f"nnunetv2 {measured['nnunetv2']}, no mirroring",
        "exact_fp32": "`--mode exact`, fp32",
        "exact_bf16": "`--mode exact`, bf16",
        "fast": f"`--mode fast`, {case['fast']['precision']}",
        "fast_located": "the same, with a locator",
    }
    rows = []
    for way, title in ways.items():
        if way not in case:  # the processor does not compute in that precision
            continue
        run = case[way]
        equal = run.get("voxels_equal")
        rows.append([
            title,
            f"{run['wall_s']:.1f} s",
            f"{run.get('times_faster', 1.0):.1f} x",
            f"{run['peak_rss_mib'] / 1024:.2f} GB",
            "" if equal is None else f"{equal:.3%}",
        ])  # fmt: skip
    size = " x ".join(str(length) for length in case["shape"])
    return markdown([size, "time", "faster", "peak memory", "same voxels as nnunetv2"], rows)


def scaling() -> Lines:
    """Tabulate time and memory of `abdomen_ct` by the number of slices, on two processors."""
    ours, older = result_of("scaling_cpu")["rows"], result_of("scaling_cpu_fp32")["rows"]
    rows = [
        [
            f"512 x 512 x {row['slices']}",
            f"{row['unlimited']['wall_s']:.1f} s",
            f"{slow['unlimited']['wall_s']:.1f} s",
            f"{slow['within_15_s']['wall_s']:.1f} s",
            f"{max(each['unlimited']['peak_rss_mib'] for each in (row, slow)) / 1024:.1f} GB",
        ]
        for row, slow in zip(ours, older, strict=True)
    ]
    names = ["bf16, AMX", "fp32, AVX2", "there, with FLARE's 15 s", "peak memory"]
    return markdown(["scan", *names], rows)


def anytime() -> Lines:
    """Tabulate what is left of Dice within budgets between the shortest and the full run."""
    runs = result_of("anytime_abdomen_ct")["idle"]
    names = {1.0: "R", 0.5: "F + (R - F) / 2", 0.25: "F + (R - F) / 4", 0.125: "F + (R - F) / 8"}
    names |= {0.0: "F"}
    rows = {row["s"]: row for row in runs["summary"]}
    full = sum(scan["full"]["dice"] for scan in runs["scans"]) / len(runs["scans"])
    scores = [f"{rows[share]['dice']:.3f}" for share in names]
    late = [f"{max(rows[share]['latest_s'], 0.0):.2f} s" for share in names]
    table = [
        ["mean Dice", f"{full:.3f}", *scores],
        ["ended after the budget at most", "-", *late],
    ]
    return markdown(["budget", "none", *names.values()], table)


def recipes() -> Lines:
    """Tabulate what published recipes for short times reach, and ours in the same time."""
    rows, cells = [], list[str]()
    for row in result_of("recipes_abdomen_ct")["summary"]:
        told = [f"{row['taken_s']:.2f} s", f"{row['tiles']:.1f}", f"{row['dice']:.3f}"]
        if row["recipe"] == "ours":
            rows[-1] = [*cells, *told[1:]]
            continue
        cells = [row["recipe"], *told]
        rows.append([*cells, "-", "-"])
    return markdown(["recipe", "time", "tiles", "Dice", "ours: tiles", "ours: Dice"], rows)


def gpu() -> Lines:
    """Tabulate what FLARE's script counts of every predictor on a GPU."""
    cases = result_of("gpu_h200")["steps"]["cases"]["cases"]
    sizes = [55, 554]
    found = {
        (case["predictor"], case["size"]): f"{case['time_s']:.1f} s, "
        f"{case['max_gpu_mib']:.0f} MiB, {case['gpu_area_mib_s']:.0f}"
        for case in cases
        if case.get("exit_code") == 0 and "time_s" in case
    }
    rows = [
        [f"`{name}`", *(found.get((name, size), "-") for size in sizes)]
        for name in dict.fromkeys(name for name, _ in found)
    ]
    header = [f"512 x 512 x {size}, or its kind" for size in sizes]
    return markdown(["predictor", *header], rows)


def folder() -> Lines:
    """Tabulate cases per hour over one folder, nnunetv2's own command beside flarekit's."""
    ways = result_of("folder_cpu")["ways"]
    slowest = ways["nnunetv2, one process"]["cases_per_hour"]
    rows = [
        [name, f"{way['cases_per_hour']}", f"{way['cases_per_hour'] / slowest:.1f} x"]
        for name, way in ways.items()
    ]
    return markdown(["command", "cases per hour", "of nnunetv2's"], rows)


def page() -> Lines:
    """Tabulate what passes from a scan's drop on the page of the service to its organs there."""
    measured = result_of("page_cpu")
    later = sorted(measured["later"], key=lambda each: each["drop_to_organs_s"])
    rows = [
        [name, f"{each['drop_to_organs_s']:.1f} s", f"{each['segmented_s']:.1f} s"]
        for name, each in (
            ("first, which loads the network", measured["first"]),
            ("fastest later one", later[0]),
            ("slowest later one", later[-1]),
        )
    ]
    size = " x ".join(map(str, measured["shape"]))
    return markdown([f"scan of {size}", "drop to organs", "of which segmenting"], rows)


def recist() -> Lines:
    """Tabulate what a file with lines across lesions costs."""
    files = result_of("recist_cpu")["files"]
    rows = [
        [f"{each['lines']}", f"{each['wall_s']:.1f} s", f"{each['peak_rss_mib'] / 1024:.2f} GB"]
        for each in files
    ]
    z, y, x = files[0]["voxels"]
    return markdown([f"lines in a file of {x} x {y} x {z}", "time", "peak memory"], rows)


def mamba_clinix_rows() -> Lines:
    """Tabulate MambaClinix's Table 4: parameters of ours and the paper's, in millions."""
    header = ["row", "all, code", "encoder, code", "encoder, C' = 32", "paper's"]
    header += ["added, code", "added, C' = 32", "paper's"]
    return markdown(header, paper_rows.rows())


def mamba_clinix_readings() -> Lines:
    """Tabulate what readings of MambaClinix's HGCN add to the baseline, in millions."""
    rows = ("HGCN [2, 3, 4, 5, 6, 6]", "HGCN and Mamba (Bot)", "HGCN [2, 3, 4] and Mamba")
    header = ["C'", "stem", "convolutions behind", *rows]
    return markdown(header, paper_readings.rows())


def ablations() -> Lines:
    """Tabulate the rows of the papers' tables that were trained again, with both seeds."""
    rows = []
    for paper in ABLATIONS:
        for each in result_of(f"ablation_{paper}_steps")["rows"]:
            runs, within = each["runs"], each["at_equal_minutes"]
            minutes = sum(run["cpu_minutes"] for run in runs) / len(runs)
            rows.append([
                f"`{paper}`: {each['row']}",
                f"{each['paper']:g}",
                ", ".join(f"{run['dice']:.3f}" for run in runs),
                f"{each['mean']:.3f}",
                f"{each['spread']:.3f}",
                f"{minutes:.2f}",
                f"{within['mean']:.3f} ({within['spread']:.3f})",
            ])  # fmt: skip
    header = ["row", "paper's", "Dice of both seeds", "mean", "spread", "CPU minutes"]
    return markdown([*header, "mean (spread) in the least of these minutes"], rows)


def ablation_curves() -> Lines:
    """Tabulate how the Dice of these runs rose: the mean of both seeds, and both."""
    rows, moments = [], 5
    for paper in ABLATIONS:
        for each in result_of(f"ablation_{paper}_steps")["rows"]:
            points = list(zip(*(run["curve"] for run in each["runs"]), strict=True))
            dice = [[f"{point['dice']:.2f}" for point in both] for both in points]
            rows.append([f"`{paper}`: {each['row']}", *(" / ".join(both) for both in dice)])
            moments = len(points)
    return markdown(["row", *(f"{k}/{moments}" for k in range(1, moments + 1))], rows)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Lines:
    """Return a table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return [lines[0], "|" + "---|" * len(header), *lines[1:]]


TABLES: Mapping[str, Callable[[], Lines]] = {
    "predictors": predictors,
    "peers": peers,
    "scaling": scaling,
    "anytime": anytime,
    "recipes": recipes,
    "gpu": gpu,
    "folder": folder,
    "page": page,
    "recist": recist,
    "mamba_clinix_rows": mamba_clinix_rows,
    "mamba_clinix_readings": mamba_clinix_readings,
    "ablations": ablations,
    "ablation_curves": ablation_curves,
}


def renewed(text: str) -> str:
    """Return a page with every table of figures written anew."""

    def table(match: re.Match[str]) -> str:
        return match[1] + "\n".join(TABLES[match[2]]()) + "\n" + match[4]

    return BLOCK.sub(table, text)


def pages() -> list[Path]:
    """Return the pages that may hold tables of figures."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), HERE / "ablations.md"]


def main(line: Sequence[str] | None = None) -> int:
    """Write the tables, or say which differ from the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    check = parser.parse_args(line).check
    stale = [
        page for page in pages() if renewed(page.read_text("utf-8")) != page.read_text("utf-8")
    ]
    for page in stale:
        sys.stdout.write(f"{page.relative_to(ROOT)}: differs from the results in profiling/\n")
        if not check:
            page.write_text(renewed(page.read_text("utf-8")), encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
