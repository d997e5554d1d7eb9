"""Heads in float32, σ above its floor, and a mirrored prediction that swaps σ with the joints."""

import pytest
import torch
from scipy import special
from torch.nn import functional

from pose3d.geometry.skeleton import HUMAN36M_18
from pose3d.model.backbone import ResNet
from pose3d.model.regressor import ModelConfig, PoseDistribution, PoseRegressor

TINY = {"backbone": "resnet18", "width_multiplier": 0.125}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return PoseRegressor(ModelConfig(**TINY), 18).eval()


@pytest.fixture
def images():
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def feature_of(model, images):
    with torch.no_grad():
        return model.backbone(images).double()


def test_location_depends_on_the_direction_of_the_feature_alone(model, images):
    feature = feature_of(model, images)
    weight, bias = model.location_head.weight.double(), model.location_head.bias.double()
    expected = feature @ weight.T / (feature**2).sum(-1, keepdim=True).sqrt() + bias
    torch.testing.assert_close(model(images).mean.flatten(1).double(), expected)


def test_plain_location_head(images):
    torch.manual_seed(0)
    model = PoseRegressor(ModelConfig(**TINY, location_head="plain"), 5).eval()
    feature = feature_of(model, images)
    expected = feature @ model.location_head.weight.double().T + model.location_head.bias.double()
    torch.testing.assert_close(model(images).mean.flatten(1).double(), expected)


def test_defaults_are_the_released_network_written_out(images):
    """To the bit, from the same seed: weights, names, location and scale."""
    torch.manual_seed(7)
    model = PoseRegressor(ModelConfig(**TINY), 18).eval()
    torch.manual_seed(7)
    backbone = ResNet(18, width_multiplier=0.125).eval()
    heads = [torch.nn.Linear(backbone.num_features, 54) for _ in range(2)]
    for head in heads:
        torch.nn.init.xavier_uniform_(head.weight, gain=0.01)
        torch.nn.init.zeros_(head.bias)
    expected = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    for name, head in zip(("location_head", "scale_head"), heads, strict=True):
        expected |= {f"{name}.{part}": value for part, value in head.state_dict().items()}
    state = model.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    pose, feature = model(images), backbone(images)
    location, raw = heads[0](functional.normalize(feature)), heads[1](feature)
    assert torch.equal(pose.mean, location.view(3, 18, 3))
    assert torch.equal(pose.scale, 1e-3 + (1 - 1e-3) * torch.sigmoid(raw.view(3, 18, 3)))
    assert torch.equal(pose.feature, feature)
    assert pose.scale_tril is None
    assert pose.spread is pose.scale


def test_released_start(model):
    """Xavier with gain 0.01: the first poses are nearly a point, the first σ one half."""
    bound = 0.01 * (6 / (model.backbone.num_features + 54)) ** 0.5
    assert model.location_head.weight.abs().max() <= bound
    assert model.location_head.weight.abs().max() > 0.9 * bound
    scale = model(torch.zeros(1, 3, 64, 64)).scale
    torch.testing.assert_close(scale, torch.full_like(scale, 0.5), atol=0.02, rtol=0)


@pytest.mark.parametrize("floor", [1e-4, 0.05])
def test_scale_stays_between_its_floor_and_one(images, floor):
    torch.manual_seed(0)
    model = PoseRegressor(ModelConfig(**TINY, scale_floor=floor), 2).eval()
    with torch.no_grad():
        model.scale_head.bias.copy_(torch.tensor([-200.0, -5, 0, 5, 200, 0]))
    scale = model(images).scale
    head = model.scale_head
    raw = functional.linear(model.backbone(images), head.weight, head.bias)
    raw = raw.detach().double().view(-1, 2, 3)
    expected = floor + (1 - floor) * special.expit(raw)
    torch.testing.assert_close(scale.double(), expected, rtol=1e-5, atol=0)
    assert scale.min().item() == pytest.approx(floor)
    scale.log().sum().backward()
    assert model.scale_head.bias.grad.isfinite().all()


def test_heads_are_float32_under_autocast(model, images):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pose = model(images)
    assert pose.mean.dtype == pose.scale.dtype == torch.float32
    unrounded = pose.mean.bfloat16().float()
    assert not torch.equal(pose.mean, unrounded)


def test_a_black_image_gives_a_finite_gradient(model):
    """A dead feature has no direction; it must not become NaN."""
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.zero_()
    pose = model(torch.zeros(2, 3, 64, 64))
    (pose.mean.sum() + pose.scale.sum()).backward()
    assert pose.mean.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_mirrored_swaps_left_and_right_in_mean_and_scale():
    generator = torch.Generator().manual_seed(2)
    pose = PoseDistribution(*torch.rand(2, 4, 18, 3, generator=generator))
    mirrored = pose.mirrored(HUMAN36M_18, crop_size_px=256)
    wrists = [HUMAN36M_18.index(name) for name in ("L_Wrist", "R_Wrist")]
    torch.testing.assert_close(mirrored.scale[:, wrists], pose.scale[:, wrists[::-1]])
    # Pixel centres: column x becomes 255 − x, and u = x / 256 − 1/2.
    column = 256 * (pose.mean[:, wrists[::-1], 0] + 0.5)
    torch.testing.assert_close(mirrored.mean[:, wrists, 0], (255 - column) / 256 - 0.5)
    torch.testing.assert_close(mirrored.mean[:, wrists, 1:], pose.mean[:, wrists[::-1], 1:])
    twice = mirrored.mirrored(HUMAN36M_18, crop_size_px=256)
    torch.testing.assert_close(twice.mean, pose.mean)


def test_conversions_keep_all_tensors():
    mean = torch.zeros(1, 2, 3, dtype=torch.float64, requires_grad=True)
    full = PoseDistribution.from_spread(mean, torch.diag_embed(mean + 1), mean[:, 0])
    for pose in (PoseDistribution(mean, mean + 1), full):
        for converted in (pose.float(), pose.detach(), pose.cpu()):
            for name in ("mean", "scale", "scale_tril", "feature"):
                before, after = getattr(pose, name), getattr(converted, name)
                assert (before is None) == (after is None)
    for name in ("mean", "scale", "scale_tril", "feature"):
        assert getattr(full.float(), name).dtype == torch.float32
        assert not getattr(full.detach(), name).requires_grad
        assert getattr(full.cpu(), name).device.type == "cpu"


def test_pretrained_weights_are_read_where_no_checkpoint_follows(tmp_path):
    torch.manual_seed(3)
    public = ResNet(18)
    torch.save(public.state_dict(), tmp_path / "resnet18.pth")
    config = ModelConfig(backbone="resnet18", pretrained=str(tmp_path / "resnet18.pth"))
    model = PoseRegressor(config, 17)
    torch.testing.assert_close(model.backbone.conv1.weight, public.conv1.weight)
    (tmp_path / "resnet18.pth").unlink()
    with pytest.raises(FileNotFoundError, match="resnet18"):
        PoseRegressor(config, 17)
    assert PoseRegressor(config, 17, load_pretrained=False).num_joints == 17


@pytest.mark.parametrize(
    "settings",
    [
        {"backbone": "resnet51"},
        {"backbone": "timm:"},
        {"width_multiplier": -1.0},
        {"width_multiplier": 0.5, "backbone": "timm:resnet18"},
        {"scale_floor": 0.0},
    ],
    ids=str,
)
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ValueError, match=f"model.{next(iter(settings))}"):
        ModelConfig(**settings)
    with pytest.raises(ValueError, match="num_joints"):
        PoseRegressor(ModelConfig(**TINY), 0)
