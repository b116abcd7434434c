"""MONAI's networks under their names; these tests skip where MONAI (extra `peers`) is absent."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
import torch

from flarekit import models
from flarekit.core.errors import UsageError
from flarekit.training.nnunet.planning import for_architecture
from flarekit.training.regimes import REGIMES
from tests.training.test_nnunet import PLANS, build

needs_monai = pytest.mark.skipif(
    find_spec("monai") is None or find_spec("einops") is None, reason="the extra peers is absent"
)
SIZE = (64, 32, 32)
SMALL = {
    "segresnet": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
    "unetr": {"input_size": SIZE, "feature_size": 8, "hidden_size": 48, "mlp_dim": 64,
              "num_heads": 4},
    "swin_unetr": {"feature_size": 12},
}  # fmt: skip


def test_every_peer_is_an_architecture_with_a_regime():
    assert set(SMALL) == set(models.PEERS) <= set(models.built_in())
    assert set(models.PEERS) <= set(REGIMES)


@pytest.mark.parametrize("name", SMALL)
def test_without_monai_the_extra_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "monai", None)
    with pytest.raises(UsageError) as caught:
        models.create(name, input_channels=1, num_classes=2, **SMALL[name])
    assert ".[peers]" in caught.value.fix


@needs_monai
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MONAI's own, at its import
@pytest.mark.parametrize("name", SMALL)
def test_a_peer_learns_is_saved_and_is_planned(name, tmp_path):
    torch.manual_seed(0)
    make = {"input_channels": 2, "num_classes": 3, **SMALL[name]}
    network, other = models.create(name, **make).train(), models.create(name, **make)
    image = torch.randn(1, 2, *SIZE)
    output = network(image)
    assert output.shape == (1, 3, *SIZE)
    (output * torch.randn_like(output)).mean().backward()
    idle = {key for key, each in network.named_parameters() if each.grad is None}
    # MONAI's ViT has a token for classes, and its last blocks' cross attention, that are not run
    assert all("cls_token" in key or "cross_attn" in key for key in idle)
    models.save_weights(network, tmp_path / "w.safetensors", dtype=torch.float32)
    models.load_weights(other, tmp_path / "w.safetensors")
    with torch.inference_mode():
        assert torch.equal(network.eval()(image), other.eval()(image))
    small = {key: value for key, value in SMALL[name].items() if key != "input_size"}
    chosen = for_architecture(PLANS, name, "3d_fullres", small)["configurations"]["3d_fullres"]
    chosen["patch_size"] = list(SIZE)
    block = chosen["architecture"]
    if name == "unetr":
        assert len(block["arch_kwargs"]["input_size"]) == 3
        block["arch_kwargs"]["input_size"] = list(SIZE)
    assert build(block)(torch.randn(1, 1, *SIZE)).shape == (1, 3, *SIZE)


@needs_monai
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_full_width_has_about_the_parameters_of_the_papers_tables():
    """MambaClinix's Table 3: UNETR 93 M, SwinUNETR 61 M, SegResNet 19 M."""
    facts = {"input_channels": 1, "num_classes": 14}
    made = {"unetr": {"input_size": (96, 96, 96)}, "swin_unetr": {}, "segresnet": {}}
    counts = {
        name: sum(each.numel() for each in models.create(name, **facts, **arguments).parameters())
        for name, arguments in made.items()
    }
    assert counts["unetr"] == pytest.approx(93e6, rel=0.03)
    assert counts["swin_unetr"] == pytest.approx(61e6, rel=0.03)
    assert counts["segresnet"] == pytest.approx(19e6, rel=0.03)
