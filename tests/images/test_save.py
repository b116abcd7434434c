from __future__ import annotations

import gzip

import pytest

from flarekit.containers.docker_command import DockerError
from flarekit.core.errors import OutputError
from flarekit.images.save import SaveRequest, save
from tests.containers.fake_docker import FakeDocker


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Return a docker command that has the image `team-a:latest`."""
    made = FakeDocker(tmp_path / "bin")
    monkeypatch.setenv("PATH", made.path)
    made.has("sha256:one", "team-a:latest")
    return made


def test_what_docker_saves_is_compressed_under_the_file_s_name_alone(engine, tmp_path):
    engine.answers("image save", out=b"layers")
    saved = save(SaveRequest(image="team-a:latest", path=tmp_path / "team-a.tar.gz"))
    assert gzip.decompress(saved.path.read_bytes()) == b"layers"
    assert [path.name for path in tmp_path.glob("*.t*")] == ["team-a.tar.gz"]


def test_where_docker_cannot_save_the_last_file_stays_and_nothing_is_left(engine, tmp_path):
    path = tmp_path / "team-a.tar.gz"
    path.write_bytes(b"the last one")
    engine.answers("image save", code=1, out=b"half", err=b"Error: no space left on device")
    with pytest.raises(DockerError, match=r"could not save team-a:latest: .*no space"):
        save(SaveRequest(image="team-a:latest", path=path))
    assert path.read_bytes() == b"the last one"
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_place_that_cannot_be_written_is_named(engine, tmp_path):
    (tmp_path / "team-a.tar.gz").mkdir()
    (tmp_path / "team-a.tar.gz" / "kept").touch()
    engine.answers("image save", out=b"layers")
    with pytest.raises(OutputError, match=r"team-a\.tar\.gz: cannot be written"):
        save(SaveRequest(image="team-a:latest", path=tmp_path / "team-a.tar.gz"))
    assert not list(tmp_path.glob(".*.tmp"))
