"""mamba-ssm's wheel is built from its source release, without NVIDIA's toolkit on the machine."""

from __future__ import annotations

import pytest

from flarekit.images.build import BuildRequest, torch_arguments
from tests.docker.built_images import HOST, ROOT, docker, need_engine

pytestmark = [pytest.mark.docker, pytest.mark.slow]  # ten minutes and more

TAG = "flarekit-mamba-wheel"
INSTALL = (
    "VIRTUAL_ENV=/opt/mamba uv pip install -q --no-deps /wheels/*.whl && /opt/mamba/bin/python -"
)
INSIDE = """
import re, struct, torch, selective_scan_cuda
content = open(selective_scan_cuda.__file__, "rb").read()
first, *cubins = [found.start() for found in re.finditer(b"\\x7fELF\\x02\\x01", content)]
print(sorted("sm_%d" % (struct.unpack_from("<I", content, at + 48)[0] >> 8 & 255) for at in cubins))
tensor = torch.ones(1, 1, 1, 1)
try:
    selective_scan_cuda.fwd(tensor[0], tensor[0], tensor[0, 0], tensor, tensor, *[None] * 3, False)
except RuntimeError as error:
    print(error)
"""


def test_its_kernel_is_built_for_the_architectures_named_and_loads():
    need_engine()
    request = BuildRequest(predictor="abdomen_ct", convention=None, tag=TAG, mamba=True)
    arguments = [f"--build-arg={name}={value}" for name, value in torch_arguments(request).items()]
    docker("build", *HOST, "--target", "mamba", *arguments, "-t", TAG, ROOT)
    script = f"{INSTALL} && /opt/mamba/bin/python - <<'EOF'\n{INSIDE}\nEOF"
    result = docker("run", "--rm", "--network", "none", TAG, "sh", "-c", script)
    architectures, fault = result.stdout.splitlines()[:2]
    assert architectures == "['sm_80', 'sm_90']", result.stderr
    assert "u.is_cuda()" in fault
