"""Compiled networks on disk: made once, checked by hash, made again where anything is stale.

An artefact is a folder named after what it depends on: weights and architecture, input shape. It
holds the network as OpenVINO IR, which any version and processor can read, and one compiled blob
per OpenVINO version, processor capability and precision. `facts.json` has the SHA-256 of each file,
is written last, and makes the others count.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flarekit.core.errors import OutputError, PredictorError
from flarekit.core.files import make_folder, sha256_of, write_atomically
from flarekit.engine import Networks
from flarekit.engine._cpu import cpu_capability
from flarekit.engine._onnx_file import check_contained

if TYPE_CHECKING:
    import openvino

# OpenVINO reports its use to a server, in every process; without that module it does not
cast(dict[str, Any], sys.modules).setdefault("openvino_telemetry", None)

_LOG = logging.getLogger(__name__)
_FORMAT = 2  # raised when what is converted, or how, changes
_IMPORTING = threading.Lock()
_HINTS = {"fp32": "f32", "bf16": "bf16"}


def import_openvino() -> None:
    """Import OpenVINO without its converter of other formats, which takes as long as the rest.

    Whoever imports `openvino.tools.ovc` afterwards gets it.
    """
    name = "openvino.tools.ovc"
    with _IMPORTING:
        if "openvino" in sys.modules:
            return
        cast(dict[str, Any], sys.modules)[name] = None
        try:
            import openvino  # noqa: F401 - what follows finds it
        finally:
            del sys.modules[name]


def load_compiled(
    networks: Networks, input_shape: tuple[int, ...], precision: str, *, portable: bool = True
) -> tuple[list[openvino.CompiledModel], str]:
    """Return compiled networks, from disk where they are there and whole.

    What had to be made is kept in `networks.keep`; where it is not to be portable, the blob alone.

    Returns:
        One per network of the ensemble, and what had to be made: `nothing`, `blob` (from the IR) or
        `all` (from PyTorch).

    Raises:
        PredictorError: they are nowhere, and PyTorch is not there to make them.
    """
    import_openvino()
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    name = _artefact_name(networks, input_shape)
    blob = f"{precision}-{_blob_key(openvino.get_version())}"
    found = [_Artefact.find(folder / name) for folder in networks.folders]
    artefacts = [artefact for artefact in found if artefact is not None]
    for artefact in artefacts:
        blobs = artefact.read_all(f"{blob}-*.blob")
        if blobs:
            return [core.import_model(each, "CPU", settings) for each in blobs], "nothing"
    for artefact in artefacts:
        converted = artefact.read_networks(core)
        if converted:
            compiled = [core.compile_model(each, "CPU", settings) for each in converted]
            _keep(networks.keep, name, blob, compiled, converted)
            return compiled, "blob"
    converted = (
        _of_onnx(core, networks, input_shape)
        if networks.onnx
        else _converted(networks, input_shape)
    )
    compiled = [core.compile_model(each, "CPU", settings) for each in converted]
    _keep(networks.keep, name, blob, compiled, converted if portable else ())
    return compiled, "all"


def has_blobs(networks: Networks, input_shape: tuple[int, ...], precision: str) -> bool:
    """Return whether compiled networks for this processor lie on disk; they are not read."""
    import_openvino()
    import openvino

    blob = f"{precision}-{_blob_key(openvino.get_version())}"
    name = _artefact_name(networks, input_shape)
    found = [_Artefact.find(folder / name) for folder in networks.folders]
    return any(
        Path(each).match(f"{blob}-*.blob")
        for artefact in found
        if artefact is not None
        for each in artefact.sha256
    )


def _artefact_name(networks: Networks, input_shape: tuple[int, ...]) -> str:
    content = json.dumps([_FORMAT, networks.identity, input_shape])
    return f"openvino-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def _blob_key(version: str) -> str:
    return hashlib.sha256(f"{version} {cpu_capability()}".encode()).hexdigest()[:12]


def _converted(networks: Networks, input_shape: tuple[int, ...]) -> list[openvino.Model]:
    try:
        from flarekit.engine._openvino_convert import to_openvino
    except ImportError as error:
        raise PredictorError(
            f"no compiled network is in {', '.join(map(str, networks.folders)) or 'any folder'}, "
            f"and {error.name} is not installed to make one",
            fix="run `flarekit compile` where torch is installed, or choose --engine torch",
        ) from error
    _LOG.info("compiling the network for OpenVINO (once)")
    return [to_openvino(network, input_shape) for network in networks.build()]


def _of_onnx(
    core: openvino.Core, networks: Networks, input_shape: tuple[int, ...]
) -> list[openvino.Model]:
    """Read ONNX networks for one shape of input; what lies outside their files is not read.

    Raises:
        PredictorError: one has tensors outside its file; OpenVINO does not read one, or it does not
            take a tile.
    """
    found = []
    for path in networks.onnx:
        content = path.read_bytes()
        try:
            check_contained(path, content)
            model = core.read_model(content, b"")
            model.reshape(list(input_shape))  # of its one input
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise PredictorError(
                f"{path}: OpenVINO does not run it on a tile of {list(input_shape)}: {reason}",
                fix="export it with all weights inside, for one input (batch, channels, Z, Y, X) "
                "of the size of grid.tile_ZYX",
            ) from error
        found.append(model)
    return found


@dataclass(frozen=True, kw_only=True)
class _Artefact:
    """A folder whose `facts.json` is whole."""

    folder: Path
    sha256: dict[str, str]

    @classmethod
    def find(cls, folder: Path) -> _Artefact | None:
        try:
            facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
            return cls(folder=folder, sha256=dict(facts["sha256"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            _LOG.warning("%s: is damaged (%s) and is made again", folder / "facts.json", error)
            return None

    def read_networks(self, core: openvino.Core) -> list[openvino.Model]:
        """Return the networks as they were converted; none where a file is damaged."""
        names = sorted(name for name in self.sha256 if name.endswith(".xml"))
        converted = []
        for name in names:
            graph, weights = self.read(name), self.read(name.replace(".xml", ".bin"))
            if graph is None or weights is None:
                return []
            converted.append(core.read_model(graph, weights))
        return converted

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes where they are those that were written."""
        try:
            content = (self.folder / name).read_bytes()
        except OSError:
            content = b""
        if hashlib.sha256(content).hexdigest() == self.sha256.get(name):
            return content
        _LOG.warning("%s: is damaged or missing and is made again", self.folder / name)
        return None

    def read_all(self, pattern: str) -> list[bytes]:
        names = sorted(name for name in self.sha256 if Path(name).match(pattern))
        contents = [self.read(name) for name in names]
        return [content for content in contents if content is not None] if all(contents) else []


def _keep(
    folder: Path | None,
    name: str,
    blob: str,
    compiled: Sequence[openvino.CompiledModel],
    converted: Sequence[openvino.Model],
) -> None:
    """Write what was made; where that fails the run goes on, and says so."""
    if folder is None:
        return
    try:
        _write(folder / name, blob, compiled, converted)
        _LOG.info("compiled network kept in %s", folder / name)
    except OutputError as error:
        _LOG.warning("the compiled network is not kept for the next run: %s", error)


def _write(
    folder: Path,
    blob: str,
    compiled: Sequence[openvino.CompiledModel],
    converted: Sequence[openvino.Model],
) -> None:
    import openvino

    make_folder(folder)
    known = _Artefact.find(folder)
    sha256 = dict(known.sha256) if known is not None else {}
    try:
        # in a folder of its own: another process may make the same
        with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as own:
            for index, network in enumerate(converted):
                draft = Path(own, f"network-{index}.xml")
                openvino.save_model(network, draft, compress_to_fp16=False)
                for made in (draft.with_suffix(".bin"), draft):
                    sha256[made.name] = sha256_of(made)
                    made.replace(folder / made.name)
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{folder}: {error}", fix="name a folder with space") from error
    for index, model in enumerate(compiled):
        content = model.export_model().getvalue()
        name = f"{blob}-{index}.blob"
        write_atomically(folder / name, content)
        sha256[name] = hashlib.sha256(content).hexdigest()
    facts = json.dumps({"sha256": sha256}, indent=2) + "\n"
    write_atomically(folder / "facts.json", facts.encode())
