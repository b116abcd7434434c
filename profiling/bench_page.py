"""From the drop of a scan on the page of `flarekit serve` to organs on the screen, in Chromium.

    make web; pip install playwright; apt install chromium
    python profiling/bench_page.py [--slices 100] [--repeats 3] [--predictor abdomen_ct]

A CT of 512 x 512 x N (bench_scaling.py's) is put on the page and segmented at once; told are the
seconds until the mask is drawn over it, those of the first scan (which loads the network) apart.
Chromium draws without a GPU, on the processor's cores that the service computes on. The result goes
to page_cpu.json beside this file; --quick makes one small scan.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
from bench_scaling import SPACING_MM, long_phantom
from load_service import Service
from measured import QUICK_MM, machine, parsed, parser_of, write

from flarekit.segmentation.compiling import compile_predictor
from flarekit.segmentation.predictors import find_predictor

DRAWN_BY_CORES = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
MOST_MS = 120_000


def drop(browser: Any, url: str, scan: Path) -> dict[str, Any]:  # noqa: ANN401 - Playwright's
    """Segment a scan on a page that was just opened, and return what it took."""
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.goto(url)
    page.wait_for_selector("#demo")
    began = time.monotonic()
    page.set_input_files("#files", str(scan))
    page.click("#start:enabled")
    page.wait_for_selector("body[data-ready]", state="attached", timeout=MOST_MS)
    page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)))")
    took_s = time.monotonic() - began
    case_id = page.get_attribute("body", "data-ready")
    page.context.close()
    case = httpx.get(f"{url}/v1/cases/{case_id}").json()
    return {
        "drop_to_organs_s": round(took_s, 2),
        "segmented_s": round(case["result"]["seconds"], 2),
        "steps_s": {step: round(s, 2) for step, s in case["result"]["stage_seconds"].items()},
    }


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--predictor", default="abdomen_ct")
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parsed(parser, line)
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("chromium is not installed")
    from playwright.sync_api import sync_playwright

    compile_predictor(find_predictor(arguments.predictor))
    slices, width = (20, 64) if arguments.quick else (arguments.slices, 512)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        scan = Path(name) / "scan.nii.gz"
        hu = long_phantom(slices, width, QUICK_MM if arguments.quick else None)
        nibabel.save(nibabel.Nifti1Image(hu, np.diag([*SPACING_MM, 1])), scan)
        service = Service(arguments.predictor, Path(name) / "data", queue=4)
        service.start()
        browser = playwright.chromium.launch(executable_path=chromium, args=DRAWN_BY_CORES)
        try:
            first = drop(browser, service.url, scan)
            rows = [drop(browser, service.url, scan) for _ in range(arguments.repeats)]
        finally:
            browser.close()
            service.process.terminate()  # type: ignore[union-attr]  # it was started
            service.process.wait(timeout=60)  # type: ignore[union-attr]
        scan_mb = round(scan.stat().st_size / 1e6, 1)
    median = statistics.median(row["drop_to_organs_s"] for row in rows)
    result = machine() | {
        "predictor": arguments.predictor,
        "shape": [width, width, slices],
        "scan_mb": scan_mb,
        "first": first,
        "later": rows,
        "median_drop_to_organs_s": median,
    }
    write(arguments.output / "page_cpu.json", result)
    print(f"drop to organs: {median} s (first {first['drop_to_organs_s']} s)", file=sys.stderr)


if __name__ == "__main__":
    main()
