"""Backbones of timm, with a module of the same interface in its place: it need not be installed."""

import sys
import types

import pytest
import torch
from torch import nn

from pose3d.model.regressor import ModelConfig, PoseRegressor

KNOWN = ("conv", "wide", "tokens", "channels_last", "fixed", "two_classifiers")


class Small(nn.Module):
    """Answers as timm's models do: features, then a head that pools and may widen them."""

    def __init__(self, name: str, num_classes: int) -> None:
        super().__init__()
        self.kind = name
        self.num_features = 6
        self.head_hidden_size = 9 if name == "wide" else 6
        self.pretrained_cfg = {"classifier": "fc", "input_size": (3, 48, 48)}
        if name == "fixed":
            self.pretrained_cfg["fixed_input_size"] = True
        if name == "two_classifiers":
            self.pretrained_cfg["classifier"] = ("fc", "fc_dist")
            self.fc_dist = nn.Linear(6, num_classes) if num_classes else nn.Identity()
        self.conv = nn.Conv2d(3, 6, 4, stride=4)
        self.widen = nn.Linear(6, 9) if name == "wide" else nn.Identity()
        self.fc = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def forward_features(self, images):
        x = self.conv(images)
        if self.kind == "tokens":
            return x.flatten(2).mT
        return x.movedim(1, -1) if self.kind == "channels_last" else x

    def forward_head(self, x):
        axes = {"tokens": 1, "channels_last": (1, 2)}.get(self.kind, (2, 3))
        return self.fc(self.widen(x.mean(axes)))

    def forward(self, images):
        return self.forward_head(self.forward_features(images))


@pytest.fixture
def timm(monkeypatch):
    """A stand-in for timm that knows a few models."""
    module = types.ModuleType("timm")

    def create_model(name, *, pretrained, num_classes):
        assert not pretrained
        if name not in KNOWN:
            raise RuntimeError(f"Unknown model ({name})")
        return Small(name, num_classes)

    module.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", module)


def regressor(name, **settings):
    torch.manual_seed(0)
    return PoseRegressor(ModelConfig(backbone=f"timm:{name}", **settings), 5)


@pytest.mark.parametrize("name", ["conv", "wide", "tokens", "channels_last"])
def test_a_model_of_timm_is_the_backbone(timm, name):
    model = regressor(name)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pose = model(images)
    feature = model.backbone.net(images)
    assert torch.equal(pose.feature, feature)
    assert feature.shape[1] == (9 if name == "wide" else 6)
    pose.mean.sum().backward()
    assert model.backbone.net.conv.weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", ["conv", "wide"])
def test_a_heatmap_is_made_of_the_last_map(timm, name):
    model = regressor(name, location_head="integral", integral_layers=1, depth_bins=3)
    maps = []
    model.location_head.enlarge.register_forward_pre_hook(lambda _, inputs: maps.extend(inputs))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pose = model(images)
    assert torch.equal(maps[0], model.backbone.net.conv(images))
    assert torch.equal(pose.feature, model.backbone.net(images))


@pytest.mark.parametrize("name", ["tokens", "channels_last"])
def test_a_heatmap_of_what_is_no_map_is_refused(timm, name):
    model = regressor(name, location_head="integral")
    with pytest.raises(ValueError, match=rf"integral needs maps \[batch 6 .*timm:{name} gives \[2"):
        model(torch.zeros(2, 3, 32, 32))


@pytest.mark.parametrize("location_head", ["released", "integral"])
def test_crops_of_a_size_that_the_model_does_not_take_are_refused(timm, location_head):
    model = regressor("fixed", location_head=location_head, integral_layers=0)
    with pytest.raises(ValueError, match=r"48 px only, got 32 × 32; set data\.input_size_px=48"):
        model(torch.zeros(2, 3, 32, 32))
    assert model(torch.zeros(2, 3, 48, 48)).mean.shape == (2, 5, 3)


@pytest.mark.parametrize("name", ["conv", "two_classifiers"])
def test_a_local_file_of_weights_is_loaded_strictly(timm, tmp_path, name):
    path = tmp_path / "weights.pth"
    weights = Small(name, 1000).state_dict()
    torch.save(weights, path)
    model = regressor(name, pretrained=str(path))
    assert torch.equal(model.backbone.net.conv.weight, weights["conv.weight"])
    torch.save(weights | {"head.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=rf"does not fit timm:{name}: head\.weight unexpected"):
        regressor(name, pretrained=str(path))
    del weights["conv.bias"]
    torch.save(weights, path)
    with pytest.raises(ValueError, match=r"conv\.bias missing; choose the file of this model"):
        regressor(name, pretrained=str(path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nonsense", r"timm:nonsense: Unknown model \(nonsense\); timm\.list_models"),
        ("hf-hub:someone/model", "names a place, from which timm would download"),
    ],
)
def test_unknown_models_are_refused(timm, name, message):
    with pytest.raises(ValueError, match=message):
        regressor(name)


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"needs the package timm.*pip install 'pose3d\[timm\]'"):
        regressor("resnet18")
    # A checkpoint's settings can be read all the same.
    assert ModelConfig(backbone="timm:resnet18").backbone == "timm:resnet18"
