"""Restrict mamba-ssm's sources to what flarekit runs: the forward scan in float32.

    python restrict_mamba.py SOURCES sm_80 [sm_90 ...]

Its setup compiles ten files (three precisions, real and complex, forward and backward) for up to
nine architectures, which takes hours on two cores. What is left says so where it is asked for more.
"""

import re
import sys
from pathlib import Path

_SCAN = "csrc/selective_scan/selective_scan.cpp"
_FORWARD = "csrc/selective_scan/selective_scan_fwd_fp32.cu"
_MACROS = """\
#undef DISPATCH_ITYPE_FLOAT_AND_HALF_AND_BF16
#define DISPATCH_ITYPE_FLOAT_AND_HALF_AND_BF16(ITYPE, NAME, ...)                      \\
    TORCH_CHECK(ITYPE == at::ScalarType::Float, NAME, ": built for float32 alone");   \\
    { using input_t = float; __VA_ARGS__(); }
#undef DISPATCH_WTYPE_FLOAT_AND_COMPLEX
#define DISPATCH_WTYPE_FLOAT_AND_COMPLEX(WTYPE, NAME, ...)                            \\
    TORCH_CHECK(WTYPE == at::ScalarType::Float, NAME, ": built for real A alone");    \\
    { using weight_t = float; __VA_ARGS__(); }

"""


def restrict(sources: Path, architectures: list[str]) -> None:
    """Edit the sources.

    Raises:
        SystemExit: they are not as they were when this was written, or no such architecture.
    """
    numbers = [re.fullmatch(r"sm_(\d+)", each) for each in architectures]
    if not numbers or None in numbers:
        raise SystemExit(f"architectures are words such as sm_90, not {architectures}")
    flags = [
        flag
        for each in numbers
        if each
        for flag in ("-gencode", f"arch=compute_{each[1]},code=sm_{each[1]}")
    ]
    _edit(
        sources / "setup.py",
        (r"(?m)^.*selective_scan_(?:bwd|fwd_fp16|fwd_bf16)\w*\.cu.*\n", ""),
        (r"(?m)^(?=    # HACK: The compiler flag)", f"    cc_flag = {flags!r}\n"),
        (r'"--threads", "4"', '"--threads", "1"'),
        (r'(?m)^.*"(?:-lineinfo|--ptxas-options=-v)",\n', ""),
    )
    _edit(
        sources / _SCAN,
        (r"(?m)^(?=template<typename input_t, typename weight_t>\n)", _MACROS.replace("\\", r"\\")),
        (
            r"selective_scan_bwd_cuda<input_t, weight_t>\(params, stream\);",
            'TORCH_CHECK(false, "this mamba-ssm is built without its backward scan");',
        ),
    )
    _edit(sources / _FORWARD, (r"(?m)^template void .*complex_t.*\n?", ""))


def _edit(path: Path, *edits: tuple[str, str]) -> None:
    text = path.read_text()
    for pattern, replacement in edits:
        text, count = re.subn(pattern, replacement, text)
        if not count:
            raise SystemExit(f"{path}: {pattern!r} matches nothing; this is another mamba-ssm")
    path.write_text(text)


if __name__ == "__main__":
    restrict(Path(sys.argv[1]), sys.argv[2:])
