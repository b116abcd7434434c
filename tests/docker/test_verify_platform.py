"""Images for grand-challenge.org and ULS23, broken in one way each; every fault is named."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from flarekit.containers.docker import DockerSandbox
from flarekit.conventions import checks_of
from flarekit.images.verify import VerifyRequest, _verdicts, verify
from flarekit.verification.platform_checks import PLATFORM_IMAGE, PLATFORM_RUNS
from flarekit.verification.run_checks import RUNS
from flarekit.verification.trials import ImageUnderTest, TaskFacts
from tests.docker.built_images import tools

pytestmark = pytest.mark.docker

START = """
import json, mmap, os, shutil, signal, socket, sys, threading, time, zlib
from pathlib import Path
import numpy as np
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
INPUT, OUTPUT = Path("/input"), Path("/output")
def only(folder):
    found = sorted(folder.glob("*.mha"))
    if len(found) != 1:
        raise ValueError(f"{folder} has to hold one image, and holds {len(found)}")
    return found[0]
def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(".part")
    part.write_bytes(content)
    part.replace(path)
"""
END = """
try:
    main()
except Exception as error:
    #handle
    said = str(error).strip().splitlines()[-1:] or [type(error).__name__]
    print("Error: the job cannot be done:", *said, file=sys.stderr)
    sys.exit(1)
"""
ORGANS = (
    START
    + """
import SimpleITK
def main():
    #start
    image = SimpleITK.ReadImage(str(only(INPUT / "images" / "ct")))
    hu = SimpleITK.GetArrayFromImage(image)
    mask = (hu > 60).astype(np.uint8)
    volume = float(mask.sum() * np.prod(image.GetSpacing()) / 1000)
    #mask
    result = SimpleITK.GetImageFromArray(mask)
    if result.GetSize() == image.GetSize():
        result.CopyInformation(image)
    #result
    SimpleITK.WriteImage(result, "/tmp/mask.mha", True)
    put(OUTPUT / "images" / "organs" / "mask.mha", Path("/tmp/mask.mha").read_bytes())
    #done
    put(OUTPUT / "volume.json", json.dumps(volume).encode())
"""
    + END
)
STACK = (
    START
    + """
import cc3d
TYPES = {"MET_SHORT": "<i2", "MET_INT": "<i4", "MET_FLOAT": "<f4"}
SIZE = 128 * 256 * 256
def header_of(stream):
    fields, lines = {}, []
    while "ElementDataFile" not in fields:
        lines.append(stream.readline().decode())
        if " = " not in lines[-1]:
            raise ValueError("the stack is not an image that can be read")
        key, _, value = lines[-1].strip().partition(" = ")
        fields[key] = value
    return fields, lines
def volumes(stream, fields):
    dtype = np.dtype(TYPES[fields["ElementType"]])
    inflate = zlib.decompressobj() if fields["CompressedData"] == "True" else None
    for _ in range(int(fields["DimSize"].split()[2]) // 128):
        content = bytearray()
        while len(content) < SIZE * dtype.itemsize:
            left = SIZE * dtype.itemsize - len(content)
            raw = (inflate and inflate.unconsumed_tail) or stream.read(min(left, 1 << 20))
            piece = inflate.decompress(raw, left) if inflate else raw
            if not raw and not piece:
                raise ValueError("the stack ends before its last volume")
            content += piece
        yield np.frombuffer(content, dtype).reshape(128, 256, 256)
def segment(hu, spacing, index):
    mask = np.zeros(hu.shape, bool)
    box = tuple(slice(n // 2 - 24, n // 2 + 25) for n in hu.shape)
    at_centre = np.median(hu[62:67, 126:131, 126:131])
    mask[box] = np.abs(hu[box] - at_centre) < 30
    inside = hu > hu.min()
    faces = [inside.any(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
    allowed = np.zeros(hu.shape, bool)
    allowed[tuple(slice(f.argmax(), len(f) - f[::-1].argmax()) for f in faces)] = True
    parts = cc3d.connected_components(mask & allowed, connectivity=6)
    mask = parts == np.bincount(parts[60:69, 124:133, 124:133].ravel())[1:].argmax() + 1
    #segment
    return mask.astype(np.uint8)
def main():
    path = only(INPUT / "images" / "stacked-3d-ct-lesion-volumes")
    spacings = json.loads((INPUT / "stacked-3d-volumetric-spacings.json").read_text())
    stream = path.open("rb")
    fields, lines = header_of(stream)
    count = int(fields["DimSize"].split()[2]) // 128
    #start
    if len(spacings) != count:
        raise ValueError(f"there are {len(spacings)} spacings for {count} volumes")
    deflate, parts, kept = zlib.compressobj(1), [], []
    for index, hu in enumerate(volumes(stream, fields)):
        mask = segment(hu, spacings[index], index)
        #kept
        parts.append(deflate.compress(mask.tobytes()))
    parts.append(deflate.flush())
    name, element = path.name, "MET_UCHAR"
    #write
    content = b"".join(parts)
    keep = ("Comp", "ElementType", "ElementDataFile")
    text = "".join(line for line in lines if not line.startswith(keep))
    text += f"CompressedData = True\\nCompressedDataSize = {len(content)}\\n"
    text += f"ElementType = {element}\\nElementDataFile = LOCAL\\n"
    #text
    put(OUTPUT / "images" / "ct-binary-uls" / name, text.encode() + content)
    #done
"""
    + END
)
FACTS = {
    "inputs": ["images/ct"],
    "outputs": [
        {"path": "images/organs", "kind": "Segmentation"},
        {"path": "volume.json", "kind": "Float"},
    ],
}
WANTED = {
    "grandchallenge": TaskFacts(values=frozenset({0, 1}), time_s=120, settings=FACTS),
    "uls23": TaskFacts(values=frozenset({0, 1}), time_s=120),
}
PLATFORM = {check.name for check in (*PLATFORM_IMAGE, *RUNS, *PLATFORM_RUNS)}
LONG = {"hundred_volumes", "flat_memory"}
ULS23 = {check.name for check in checks_of("uls23").checks}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is broken in an image, and the checks that have to say so.

    Attributes:
        changes: places in the script, and the lines that go there.
        dockerfile: lines behind the script's.
        reason: words of the first check's reason.
        only: the checks that are run; those of the convention itself where None.
    """

    changes: tuple[tuple[str, str], ...] = ()
    dockerfile: str = ""
    names: tuple[str, ...]
    reason: str
    only: frozenset[str] | None = None


@pytest.fixture
def make_image(build_image):
    """Return a function that builds an image from a script."""
    base = tools()

    def make(tag, script, changes=(), dockerfile="") -> str:
        for place, lines in changes:
            assert place in script
            script = script.replace(place, lines.strip().replace("\n", "\n    "))
        start = 'USER 1000:1000\nCOPY run.py /opt/run.py\nCMD ["python", "/opt/run.py"]\n'
        whole = f"FROM {base}\n{start}{dockerfile}\n"
        return build_image(f"fkv-platform-{tag}", whole, {"run.py": script})

    return make


def findings(image, convention, scratch, only=None):
    """Run the checks of a convention on an image."""
    checks = checks_of(convention)
    sandbox = DockerSandbox(image)
    image = ImageUnderTest(
        sandbox, checks.run_line, WANTED[convention], checks.write_sample, scratch
    )
    chosen = [check for check in checks.checks if only is None or check.name in only]
    try:
        return {each.check.name: each.finding for each in _verdicts(image, chosen)}
    finally:
        sandbox.remove(scratch)
        sandbox.close()


def failed(found):
    return {name: finding.reason for name, finding in found.items() if finding.state == "fail"}


@pytest.mark.parametrize(
    ("convention", "script", "names"),
    [
        pytest.param("grandchallenge", ORGANS, None, id="grandchallenge"),
        # mamba_ahnet_mr's image passes what matters most of these
        pytest.param("uls23", STACK, ULS23, id="uls23", marks=pytest.mark.slow),
    ],
)
def test_an_image_that_behaves_passes_everything(make_image, tmp_path, convention, script, names):
    image = make_image(f"good-{convention}", script)
    found = findings(image, convention, tmp_path / "work", names)
    assert not failed(found)
    skipped = {name for name, finding in found.items() if finding.state != "pass"}
    assert skipped <= {"given_inputs", "stops"}  # quick ones are over before the signal


def test_the_command_says_so(make_image):
    image = make_image("good-verify", ORGANS)
    only = ("one_image", "shell", "ends_well")
    verification = verify(
        VerifyRequest(image=image, convention="grandchallenge", backend="docker", only=only)
    )
    states = {verdict.check.name: verdict.finding.state for verdict in verification.verdicts}
    assert verification.passed
    assert [states[name] for name in only] == ["pass"] * 3


OWN_ORGANS = {
    "sixteen_bits": Fault(
        changes=(("#mask", "mask = mask.astype(np.int16)"),),
        names=("stored_type",),
        reason="images/organs/mask.mha is int16",
    ),
    "two_channels": Fault(
        changes=(("GetImageFromArray(mask)", "GetImageFromArray(np.stack([mask] * 2, -1), True)"),),
        names=("stored_type",),
        reason="has 2 channels",
    ),
    "other_values": Fault(
        changes=(("#mask", "mask *= 3"),), names=("labels",), reason="mask.mha holds 3"
    ),
    "two_outputs": Fault(
        changes=(
            ("#done", 'shutil.copy("/tmp/mask.mha", OUTPUT / "images" / "organs" / "b.mha")'),
        ),
        names=("one_per_socket",),
        reason="images/organs holds 2",
    ),
    "another_folder": Fault(
        changes=(('/ "organs" /', '/ "organ" /'),),
        names=("output_tree",),
        reason="no images/organs",
    ),
    "a_socket_left_out": Fault(
        changes=(("volume.json", "volume.txt"),), names=("output_tree",), reason="no volume.json"
    ),
    "no_number": Fault(
        changes=(("#done", 'volume = float("nan")'),),
        names=("json_values",),
        reason="volume.json is not JSON: it has no NaN",
    ),
    "a_text": Fault(
        changes=(("#done", "volume = str(volume)"),),
        names=("json_values",),
        reason="volume.json is to be a Float",
    ),
    "own_header": Fault(
        changes=(("#result", "result.SetOrigin((0.0, 0.0, 0.0))"),),
        names=("geometry",),
        reason="spacing, direction or origin",
    ),
    "own_size": Fault(
        changes=(("#mask", "mask = mask[1:]"),),
        names=("geometry",),
        reason="124 x 92 x 45 voxels for 124 x 92 x 46",
    ),
}
OF_THE_PLATFORM = {
    "root": Fault(dockerfile="USER 0:0", names=("not_root",), reason="USER is 0"),
    "no_shell": Fault(
        dockerfile="USER 0:0\nRUN rm /bin/sh\nUSER 1000",
        names=("shell",),
        reason="/bin/sh does not start",
    ),
    "network": Fault(
        changes=(
            (
                "#start",
                'if len(socket.if_nameindex()) < 2: raise ValueError("weights cannot be fetched")',
            ),
        ),
        names=("ends_well",),
        reason="needs the network (exit code 1",
    ),
    "writes_into_input": Fault(
        changes=(("#start", '(INPUT / "tmp.nii").write_bytes(b"")'),),
        names=("ends_well",),
        reason="writes into /input (exit code 1",
    ),
    "adds_to_input_where_it_can": Fault(
        changes=(("#start", 'os.access(INPUT, os.W_OK) and (INPUT / "x").write_bytes(b"")'),),
        names=("inputs_unchanged",),
        reason="added x",
    ),
    "many_threads": Fault(
        changes=(
            (
                "#start",
                "wait = threading.Event()\n"
                "crowd = [threading.Thread(target=wait.wait, daemon=True) for _ in range(300)]\n"
                "[one.start() for one in crowd]\n"
                "wait.set()",
            ),
        ),
        names=("ends_well",),
        reason="needs more than 256 processes and threads",
    ),
    "shared_memory": Fault(
        changes=(("#start", 'Path("/dev/shm/block").write_bytes(bytes(100 << 20))'),),
        names=("strict_sandbox", "unprivileged"),
        reason="needs more than 64 MB of shared memory",
    ),
    "writes_elsewhere": Fault(
        dockerfile="USER 0:0\nRUN mkdir -m 777 /cache\nUSER 1000:1000",
        changes=(("#start", 'Path("/cache/x").write_bytes(b"")'),),
        names=("unprivileged",),
        reason="writes outside its output folder and /tmp",
    ),
    "files_of_one_user": Fault(
        dockerfile="USER 0:0\nRUN chown 1234 /opt/run.py && chmod 600 /opt/run.py\nUSER 1234",
        names=("unprivileged",),
        reason="Permission denied",
    ),
    "ignores_the_signal": Fault(
        changes=(
            (
                "#start",
                "signal.signal(signal.SIGTERM, lambda *_: time.sleep(8))\ntime.sleep(2)",
            ),
        ),
        names=("stops",),
        reason="s after SIGTERM",
        only=frozenset({"ends_well", "stops"}),
    ),
    "different_each_time": Fault(
        changes=(("#mask", "mask[0, 0, :64] = np.frombuffer(os.urandom(64), np.uint8) % 2"),),
        names=("same_twice",),
        reason="images/organs/mask.mha differs",
    ),
    "traceback_only": Fault(
        changes=(("#handle", 'raise KeyError("ct") from None'),),
        names=("corrupt_input", "no_input"),
        reason="""the last line on stderr does not say what is wrong: "KeyError: 'ct'\"""",
    ),
    "hides_failure": Fault(
        changes=(("#handle", "sys.exit(0)"),),
        names=("corrupt_input", "no_input"),
        reason="ends with exit code 0, as if all were well",
    ),
    "model_needed": Fault(
        changes=(("#start", 'Path("/opt/ml/model/weights.pt").read_bytes()'),),
        names=("model_absent", "ends_well"),
        reason="needs what is in /opt/ml/model: ",
    ),
    "model_folder_needed": Fault(
        changes=(("#start", 'os.listdir("/opt/ml/model")'),),
        names=("model_absent", "ends_well"),
        reason="needs the folder /opt/ml/model",
    ),
    "model_in_the_folder": Fault(
        dockerfile="USER 0:0\nRUN mkdir -p /opt/ml/model && touch /opt/ml/model/w.pt\nUSER 1000",
        changes=(("#start", 'Path("/opt/ml/model/w.pt").read_bytes()'),),
        names=("model_empty", "model_filled"),
        reason="with an empty /opt/ml/model: exit code 1",
    ),
    "takes_what_is_in_the_folder": Fault(
        changes=(
            ("#start", '[json.loads(each.read_text()) for each in Path("/opt/ml").rglob("*.txt")]'),
        ),
        names=("model_filled",),
        reason="holds notes.txt and extra/table.csv: exit code 1",
    ),
    "follows_no_link": Fault(
        changes=(("#start", 'if INPUT.resolve() != INPUT: raise ValueError("not below /input")'),),
        names=("linked_input",),
        reason="with /input as a link to",
    ),
    "weights_in_tmp": Fault(
        dockerfile="RUN echo weights > /tmp/weights.pt",
        changes=(("#start", 'Path("/tmp/weights.pt").read_bytes()'),),
        names=("empty_tmp", "unprivileged"),
        reason="with an empty /tmp: exit code 1",
    ),
    "needs_the_list": Fault(
        changes=(("#start", '(INPUT / "inputs.json").read_bytes()'),),
        names=("inputs_json",),
        reason="without inputs.json: exit code 1",
    ),
    "reserves_memory": Fault(
        changes=(
            (
                "#start",
                "flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE\n"
                "arena = mmap.mmap(-1, 40 << 30, flags)",
            ),
        ),
        names=("data_limit",),
        reason="needs more memory than RLIMIT_DATA leaves it",
    ),
}
OWN_STACK = {
    "sixteen_bits": Fault(
        changes=(
            ("return mask.astype(np.uint8)", "return mask.astype(np.int16)"),
            ("#write", 'element = "MET_SHORT"'),
        ),
        names=("stored_type",),
        reason="mha is int16",
    ),
    "255": Fault(
        changes=(("return mask.astype(np.uint8)", "return mask.astype(np.uint8) * 255"),),
        names=("stored_type",),
        reason="mha holds 255",
    ),
    "another_name": Fault(
        changes=(("#write", 'name = "mask.mha"'),), names=("output_tree",), reason="no images/ct-"
    ),
    "two_outputs": Fault(
        changes=(("#done", 'put(OUTPUT / "images/ct-binary-uls" / "b.mha", b"")'),),
        names=("output_tree",),
        reason="wrote images/ct-binary-uls/b.mha too",
    ),
    "own_header": Fault(
        changes=(("#text", 'text = text.replace("-12.5", "0.0")'),),
        names=("geometry",),
        reason="up to 12.5 mm off",
    ),
    "own_size": Fault(
        changes=(("#text", 'text = text.replace(f"{128 * count}\\n", f"{64 * count}\\n")'),),
        names=("geometry",),
        reason="256 x 256 x 64 voxels for 256 x 256 x 128",
    ),
    "one_volume_only": Fault(
        changes=(("#start", 'if count != 1: raise ValueError("one volume was expected here")'),),
        names=("four_volumes",),
        reason="one volume was expected here",
    ),
    "an_empty_one": Fault(
        changes=(("#segment", "mask &= spacing[2] < 2"),),
        names=("one_component",),
        reason="volume 2 has no components",
    ),
    "speckle": Fault(
        changes=(("#segment", "mask[100:110:3, 140, 140:200:9] = True"),),
        names=("one_component",),
        reason="components",
    ),
    "not_at_the_centre": Fault(
        changes=(("#segment", "mask = np.roll(mask, (20, -30, 60), (0, 1, 2))"),),
        names=("central",),
        reason="mm from the centre",
    ),
    "padding": Fault(
        changes=(("#segment", "mask[40:65, 120:130, 100:129] = True"),),
        names=("padding",),
        reason="mask voxels in its padding",
    ),
    "order": Fault(
        changes=(("#segment", "if index == 3: mask = np.flip(mask, 0) & (mask.sum() > 0)"),),
        names=("order",),
        reason="gets another mask",
    ),
    "one_type_only": Fault(
        changes=(
            (
                "#start",
                'if fields["ElementType"] != "MET_SHORT": raise ValueError("not sixteen bits")',
            ),
        ),
        names=("voxel_types",),
        reason="int32, compressed: the run fails (exit code 1",
    ),
    "any_spacings": Fault(
        changes=(("len(spacings) != count", "not spacings"), ("spacings[index]", "spacings[0]")),
        names=("spacing_count",),
        reason="3 spacings for 4 volumes: ends with exit code 0",
    ),
    "keeps_all_volumes": Fault(
        changes=(("#kept", "kept.append(hu.copy())"),),
        names=("flat_memory",),
        reason="MiB more with each",
        only=frozenset({"flat_memory"}),
    ),
    "fifty_at_most": Fault(
        changes=(("#start", 'if count > 50: raise ValueError("more than fifty volumes")'),),
        names=("hundred_volumes",),
        reason="100 volumes: exit code 1",
        only=LONG,
    ),
}


def judge(make_image, tmp_path, convention, script, name, fault, only=None):
    image = make_image(name.replace("_", "-"), script, fault.changes, fault.dockerfile)
    checks = {check.name for check in checks_of(convention).checks}
    only = only or fault.only or (checks - PLATFORM - LONG) | {"ends_well"}
    found = failed(findings(image, convention, tmp_path / "work", only))
    assert set(found) == set(fault.names), found
    if fault.names:
        assert fault.reason in found[fault.names[0]]


@pytest.mark.slow  # the same faults stand in test_checks_grandchallenge.py, without an engine
@pytest.mark.parametrize("name", OWN_ORGANS)
def test_a_fault_of_an_algorithm_is_named(make_image, tmp_path, name):
    judge(make_image, tmp_path, "grandchallenge", ORGANS, name, OWN_ORGANS[name])


@pytest.mark.slow  # likewise, in test_checks_uls23.py
@pytest.mark.parametrize("name", OWN_STACK)
def test_a_fault_of_a_stack_is_named(make_image, tmp_path, name):
    judge(make_image, tmp_path, "uls23", STACK, name, OWN_STACK[name])


WITHOUT_AN_ENGINE_TOO = (  # in test_checks_platform.py
    "different_each_time", "traceback_only", "hides_failure", "model_needed",
    "model_folder_needed", "model_in_the_folder", "takes_what_is_in_the_folder",
    "needs_the_list", "adds_to_input_where_it_can",
)  # fmt: skip


FOR_FLARE_TOO = (  # in test_verify_flare.py, by the same checks
    "network", "shared_memory", "many_threads", "files_of_one_user", "writes_into_input",
)  # fmt: skip
CAUGHT = [
    pytest.param(name, marks=pytest.mark.slow)
    if name in (*WITHOUT_AN_ENGINE_TOO, *FOR_FLARE_TOO)
    else name
    for name in OF_THE_PLATFORM
]


@pytest.mark.parametrize("name", CAUGHT)
def test_a_fault_in_the_platform_s_sandbox_is_named(make_image, tmp_path, name):
    fault = OF_THE_PLATFORM[name]
    judge(make_image, tmp_path, "grandchallenge", ORGANS, name, fault, frozenset(fault.names))


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_THE_PLATFORM)
def test_a_fault_in_the_platform_s_sandbox_is_named_by_no_other_check(make_image, tmp_path, name):
    fault = OF_THE_PLATFORM[name]
    only = fault.only or frozenset(PLATFORM)
    judge(make_image, tmp_path, "grandchallenge", ORGANS, name, fault, only)
