from __future__ import annotations

import pytest

from flarekit.core.errors import InputError, OutputError
from flarekit.core.readings import Unsupported
from flarekit.profiler.readings import Sample
from flarekit.profiler.stream import SampleFile, read_samples

GONE = Unsupported(not_supported="GPU is lost")
SAMPLES = [
    Sample(t_s=0.0, readings={"gpu_used_mib": 5.5, "tree_rss_mib": 1.0}),
    Sample(t_s=0.1, readings={"gpu_used_mib": GONE, "tree_rss_mib": 2.0}),
    Sample(t_s=0.2, readings={"gpu_used_mib": GONE}),
    Sample(t_s=0.3, readings={"gpu_used_mib": Unsupported(not_supported="Timeout")}),
]


def written(path, samples=SAMPLES):
    file = SampleFile(path, {"case_id": "a"})
    for sample in samples:
        file.write(sample)
    return file


def test_samples_come_back_as_they_were_with_the_reasons_for_missing_ones(tmp_path):
    written(tmp_path / "s.jsonl").close()
    recording = read_samples(tmp_path / "s.jsonl")
    assert list(recording.samples) == SAMPLES
    assert recording.facts["case_id"] == "a"


def test_every_sample_is_on_disk_before_the_next_one_comes(tmp_path):
    file = written(tmp_path / "s.jsonl")
    try:
        assert list(read_samples(tmp_path / "s.jsonl").samples) == SAMPLES
    finally:
        file.close()


def test_a_file_cut_short_gives_all_samples_that_are_whole(tmp_path):
    written(tmp_path / "s.jsonl").close()
    content = (tmp_path / "s.jsonl").read_bytes()
    (tmp_path / "s.jsonl").write_bytes(content[:-9])
    assert list(read_samples(tmp_path / "s.jsonl").samples) == SAMPLES[:-1]


@pytest.mark.parametrize("content", ["", "no json\n", '{"a": 1}\n', '{"flarekit_samples": 9}\n'])
def test_another_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "s.jsonl").write_text(content)
    with pytest.raises(InputError, match=r"s\.jsonl"):
        read_samples(tmp_path / "s.jsonl")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OutputError, match="samples cannot be written"):
        SampleFile(tmp_path / "no" / "s.jsonl", {})
