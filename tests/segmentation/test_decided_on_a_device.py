from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch

from flarekit.engine import _torch_restore, _torch_sums
from flarekit.engine._torch_memory import NoRoom
from flarekit.segmentation.folder import Options, segment_folder

EXACT = Options(device="cpu", precision="fp32")


@pytest.fixture
def scans(tmp_path, write_scan):
    folder = tmp_path / "in"
    folder.mkdir()
    voxels = np.random.default_rng(0).normal(size=(30, 40, 36)).cumsum(0).cumsum(1).cumsum(2)
    voxels = 300 * voxels / np.abs(voxels).max()
    write_scan(folder / "a_0000.nii.gz", voxels, np.diag([-1.1, 1.3, 1.7, 1.0]))
    return folder


def mask_of(toy, scans, folder):
    record = segment_folder(toy, scans, folder, EXACT)
    assert not record.failed
    return np.asarray(nibabel.load(folder / "a.nii.gz").dataobj), record.cases[0].traded


@pytest.mark.parametrize("has_room", [True, False])
def test_labels_decided_on_the_device_are_those_decided_on_the_host(
    toy, scans, tmp_path, monkeypatch, has_room
):
    on_host, _ = mask_of(toy, scans, tmp_path / "host")
    assert len(np.unique(on_host)) > 1
    monkeypatch.setattr(_torch_sums, "_HOST", torch.device("meta"))  # the CPU is a device like any
    if not has_room:
        monkeypatch.setattr(_torch_restore, "attempt", lambda _work: NoRoom("not enough"))
    came = []
    decided = _torch_restore.TorchRestorer.add

    def counted(self, logits):
        came.append(1)
        return decided(self, logits)

    monkeypatch.setattr(_torch_restore.TorchRestorer, "add", counted)
    on_device, traded = mask_of(toy, scans, tmp_path / "device")
    assert came
    assert any("decided on the host" in note for note in traded) != has_room
    assert (on_device == on_host).mean() >= 0.9999
