"""What workers of one node do at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from flarekit.cohort import worker
from flarekit.cohort.worker import Shipped
from flarekit.segmentation.predictors import hash_state


@pytest.mark.parametrize("before", ["missing", "damaged"])
def test_workers_that_ask_for_a_predictor_at_once_all_get_it_whole(
    toy, tmp_path, monkeypatch, before
):
    monkeypatch.setenv("FLAREKIT_CACHE", str(tmp_path / "cache"))
    shipped = Shipped.of(toy)
    if before == "damaged":
        shipped.unpacked().weights.write_bytes(b"torn")
    made, unpack = [], Shipped._unpack

    def counted(self, folder):
        made.append(folder)
        unpack(self, folder)

    monkeypatch.setattr(worker.Shipped, "_unpack", counted)
    with ThreadPoolExecutor(4) as workers:
        found = [each.result() for each in [workers.submit(shipped.unpacked) for _ in range(4)]]
    assert [hash_state(each) for each in found] == ["ok"] * 4
    assert len(made) == 1
