"""Images that a test builds for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.docker.built_images import docker, remove


@pytest.fixture
def build_image(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return a function that builds an image from a Dockerfile and files, named as they are in it.

    The images are removed when the test is over.
    """
    tags: list[str] = []

    def build(tag: str, dockerfile: str, files: Mapping[str, str]) -> str:
        context = tmp_path / f"context_{len(tags)}"
        context.mkdir()
        for name, content in {**files, "Dockerfile": dockerfile}.items():
            (context / name).write_text(content)
            (context / name).chmod(0o644)
        tags.append(tag)
        docker("build", "--force-rm", "--network", "none", "-t", tag, context)
        return tag

    yield build
    for tag in dict.fromkeys(tags):
        remove(tag)
