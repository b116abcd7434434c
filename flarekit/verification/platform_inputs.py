"""The list of a job's sockets that grand-challenge.org puts beside its inputs."""

import json
from collections.abc import Mapping
from pathlib import Path

INPUTS_JSON = "inputs.json"
IMAGES = (".mha", ".tif", ".tiff")


def write_inputs_json(folder: Path) -> None:
    """Write `inputs.json` into a folder of inputs.

    Each folder below `images` and each JSON file is a socket, whose slug is its name.
    """
    entries = []
    for place in sorted(path for path in folder.glob("images/*") if path.is_dir()):
        names = sorted(path.name for path in place.iterdir() if path.suffix.lower() in IMAGES)
        image = {"pk": "5f0c6d2e-7d3b-4c55-9a51-0d0a8c1f6b90", "name": names[0] if names else ""}
        entries.append(_entry(place.name, f"images/{place.name}", kind="Image", image=image))
    values = sorted(path for path in folder.glob("*.json") if path.name != INPUTS_JSON)
    entries += [_entry(path.stem, path.name, kind="Anything", image=None) for path in values]
    (folder / INPUTS_JSON).write_text(json.dumps(entries, indent=2))


def _entry(
    slug: str, path: str, *, kind: str, image: Mapping[str, str] | None
) -> dict[str, object]:
    """Return an entry with the socket under its newer and its older name."""
    socket = {
        "slug": slug,
        "relative_path": path,
        "kind": kind,
        "super_kind": "File" if image is None else "Image",
    }
    return {"socket": socket, "interface": socket, "image": image, "file": None, "value": None}
