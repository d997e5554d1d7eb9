"""Published weights against a plain reading of them: functions over the released names."""

import math
import os
import pickle
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import special
from torch import nn
from torch.nn import functional

from pose3d.model.flow import FlowConfig, ResidualFlow
from pose3d.model.likelihood import Likelihood
from pose3d.model.released import load_released, released_state, save_released


def plain_features(weights, images, *, training=False):
    """Pooled features of the ResNet whose weights these are."""

    def convolve(x, name, stride=1):
        kernel = weights[f"{name}.weight"]
        return functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def norm(x, name):
        parts = [weights[f"{name}.{part}"] for part in ("running_mean", "running_var")]
        moving = [part.detach().clone() for part in parts]
        affine = (weights[f"{name}.weight"], weights[f"{name}.bias"])
        return functional.batch_norm(x, *moving, *affine, training=training)

    x = torch.relu(norm(convolve(images, "preact.conv1", stride=2), "preact.bn1"))
    x = functional.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    for stage in range(1, 5):
        block = 0
        while f"preact.layer{stage}.{block}.conv1.weight" in weights:
            name, stride = f"preact.layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            is_deep = f"{name}.conv3.weight" in weights
            y = convolve(x, f"{name}.conv1", 1 if is_deep else stride)
            y = torch.relu(norm(y, f"{name}.bn1"))
            y = norm(convolve(y, f"{name}.conv2", stride if is_deep else 1), f"{name}.bn2")
            if is_deep:
                y = norm(convolve(torch.relu(y), f"{name}.conv3"), f"{name}.bn3")
            if f"{name}.downsample.0.weight" in weights:
                x = norm(convolve(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x, block = torch.relu(x + y), block + 1
    return x.flatten(2).sum(-1) / (x.shape[2] * x.shape[3])


def plain_forward(weights, images, *, training=False):
    """μ and σ as the released code computes them, before depth is taken from the root."""
    feature = plain_features(weights, images, training=training)
    length = (feature * feature).sum(dim=1, keepdim=True).sqrt()
    mean = feature @ weights["fc_coord.linear.weight"].t() / length
    mean = mean + weights["fc_coord.linear.bias"]
    raw = feature @ weights["fc_sigma.weight"].t() + weights["fc_sigma.bias"]
    scale = 1 / (1 + torch.exp(-raw)) + 1e-9
    return mean.reshape(len(images), -1, 3), scale.reshape(len(images), -1, 3)


def plain_log_prob(weights, prefix, x):
    """Log density of one residual under a released flow: layers from the last to the first."""

    def network(kind, layer, x):
        for place in (0, 2, 4):
            name = f"{prefix}.{kind}.{layer}.{place}"
            x = weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]
            x = torch.where(x > 0, x, 0.01 * x) if place < 4 else x
        return torch.tanh(x) if kind == "s" else x

    z, log_det = x, 0.0
    for layer in (5, 4, 3, 2, 1, 0):
        mask = weights[f"{prefix}.mask"][layer]
        s = network("s", layer, mask * z) * (1 - mask)
        t = network("t", layer, mask * z) * (1 - mask)
        z = (1 - mask) * (z - t) * torch.exp(-s) + mask * z
        log_det = log_det - s.sum()
    return -0.5 * (z * z).sum() - 0.5 * len(z) * math.log(2 * math.pi) + log_det


def plain_loss(weights, mean, scale, target, weight):
    """The released loss, joint by joint and axis by axis."""
    total = mean.new_zeros(())
    for image in range(mean.shape[0]):
        for joint in range(mean.shape[1]):
            residual = (mean[image, joint] - target[image, joint]) / scale[image, joint]
            if weight[image, joint, 2] > 0:
                log_g = plain_log_prob(weights, "flow3d", residual)
            else:
                log_g = plain_log_prob(weights, "flow2d", residual[:2])
            for axis in range(3):
                sigma = scale[image, joint, axis]
                error = (target[image, joint, axis] - mean[image, joint, axis]).abs()
                log_q = torch.log(sigma * math.sqrt(2 * math.pi))
                log_q = log_q + error / (math.sqrt(2) * sigma + 1e-9)
                term = torch.log(sigma) - log_g + log_q
                total = total + weight[image, joint, axis] * term
    return total / mean.shape[0]


def ours_by_released_name(regressor, likelihood, value):
    """`value` of each of our parameters, cut into the released names."""
    heads = {"location_head": "fc_coord.linear", "scale_head": "fc_sigma", "backbone": "preact"}
    found = {}
    for name, parameter in regressor.named_parameters():
        room, rest = name.split(".", 1)
        found[f"{heads[room]}.{rest}"] = value(parameter)
    for prefix, flow in (("flow3d", likelihood.flow), ("flow2d", likelihood.planar_flow)):
        for layer in range(6):
            for index, kind in enumerate("st"):
                for place, room in ((0, "input"), (2, "hidden"), (4, "output")):
                    for part in ("weight", "bias"):
                        stacked = value(getattr(flow, f"{room}_{part}"))
                        found[f"{prefix}.{kind}.{layer}.{place}.{part}"] = stacked[layer, index]
    return found


def labels(num_images, seed=1):
    """Targets and 0/1 weights: joints with depth, without, and without any label."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(num_images, 18, 3, generator=generator) - 0.5
    weight = torch.ones(num_images, 18, 3)
    weight[:, 3::4, 2] = 0
    weight[0, 5] = 0
    weight[-1, ::3] = 0
    return target, weight


@pytest.fixture(scope="module")
def weights(draw_released):
    return draw_released(18)


def light(weights):
    """The backbone's weights one number each, repeated, so that files are small and quick."""
    return {
        name: value.flatten()[:1].clone().reshape([1] * value.ndim).expand(value.shape)
        if name.startswith("preact") and value.ndim
        else value
        for name, value in weights.items()
    }


@pytest.fixture(scope="module")
def light_weights(weights):
    return light(weights)


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("released") / "released.pth"
    torch.save(weights, path)
    return path


def save(weights, folder, **options):
    torch.save(weights, folder / "changed.pth", **options)
    return folder / "changed.pth"


def images_of(num_images, size=64, seed=2):
    return torch.randn(num_images, 3, size, size, generator=torch.Generator().manual_seed(seed))


def compare(weights, path, images, *, dtype, training=False, tolerance):
    """Forward, loss and gradients of every weight, relative to the largest of their kind."""
    regressor, likelihood = load_released(path)
    regressor.to(dtype).train(training)
    likelihood.to(dtype).train(training)
    plain = {
        name: value.to(dtype).requires_grad_() if value.is_floating_point() else value
        for name, value in weights.items()
    }
    images = images.to(dtype)
    target, weight = (value.to(dtype) for value in labels(len(images)))
    mean, scale = plain_forward(plain, images, training=training)
    expected = plain_loss(plain, mean, scale, target, weight)
    expected.backward()
    pose = regressor(images)
    nats = likelihood(pose.mean, pose.scale, target, weight)
    assert nats.shape == (len(images), 18)
    loss = nats.sum() / len(images)
    loss.backward()
    torch.testing.assert_close(pose.mean, mean, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(pose.scale, scale, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(loss, expected, atol=tolerance, rtol=tolerance)
    ours = ours_by_released_name(regressor, likelihood, lambda parameter: parameter.grad)
    assert {name for name, value in plain.items() if value.grad is not None} >= set(ours)
    for name, gradient in ours.items():
        size = float(plain[name].grad.abs().max())
        torch.testing.assert_close(gradient, plain[name].grad, atol=tolerance * size, rtol=0)
    return pose, loss


@pytest.mark.parametrize("training", [False, True])
def test_forward_loss_and_gradients_are_the_released_ones(weights, file, training):
    compare(weights, file, images_of(2), dtype=torch.float64, training=training, tolerance=1e-7)


def test_agreement_in_float32_is_to_its_rounding(weights, file):
    compare(weights, file, images_of(2), dtype=torch.float32, tolerance=2e-4)


def test_the_published_size(draw_released, tmp_path):
    """ResNet-50 at 256²."""
    weights = draw_released(50)
    path = save(weights, tmp_path)
    images = images_of(1, size=256)
    compare(weights, path, images, dtype=torch.float32, tolerance=5e-4)


@pytest.mark.parametrize("raw", [-200.0, -40.0, -25.0, -18.0, -3.0, 0.0, 4.0, 30.0])
def test_sigma_has_the_released_floor_even_where_it_is_tiny(light_weights, tmp_path, raw):
    changed = {
        **light_weights,
        "fc_sigma.weight": torch.zeros(54, 512),
        "fc_sigma.bias": torch.full((54,), raw),
    }
    regressor, likelihood = load_released(save(changed, tmp_path))
    pose = regressor(images_of(1))
    sigma = special.expit(raw) + 1e-9
    np.testing.assert_allclose(pose.scale.detach().numpy(), sigma, rtol=3e-7)
    plain = {name: value.double() for name, value in changed.items()}
    mean = pose.mean.detach().double()
    target = mean + 0.01 * sigma * labels(1)[0].double()
    weight = torch.ones(1, 18, 3, dtype=torch.float64)
    expected = plain_loss(plain, mean, torch.full_like(mean, sigma), target, weight)
    loss = likelihood(mean, pose.scale.double(), target, weight).sum()
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-5)


def test_far_residuals_are_not_bounded(weights, file):
    _, likelihood = load_released(file)
    mean, scale = torch.zeros(1, 18, 3), torch.full((1, 18, 3), 1e-3)
    target, weight = labels(1)
    for far in (target, 40 * target):
        expected = plain_loss(weights, mean, scale, far, weight)
        loss = likelihood(mean, scale, far, weight).sum()
        torch.testing.assert_close(loss, expected, atol=0, rtol=1e-4)


def test_a_joint_keeps_its_place(light_weights, tmp_path):
    bias = torch.arange(54) / 100
    changed = {
        **light_weights,
        "fc_coord.linear.weight": torch.zeros(54, 512),
        "fc_coord.linear.bias": bias,
    }
    pose = load_released(save(changed, tmp_path))[0](images_of(1))
    assert pose.mean[0, 13].tolist() == pytest.approx([0.39, 0.40, 0.41])


def test_what_is_loaded_is_ready_to_judge_and_to_train_on(file):
    state = torch.get_rng_state()
    regressor, likelihood = load_released(file)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for part in (regressor, likelihood) for module in part.modules())
    for part in (regressor, likelihood):
        parameters = list(part.parameters())
        assert parameters
        assert all(p.requires_grad and p.dtype == torch.float32 for p in parameters)


@pytest.mark.parametrize("depth", [34, 152])
def test_other_depths_are_recognised(draw_released, tmp_path, depth):
    weights = light(draw_released(depth))
    regressor, _ = load_released(save(weights, tmp_path))
    assert regressor.config.backbone == f"resnet{depth}"
    last = "layer4.2.conv2.weight"
    assert torch.equal(regressor.backbone.state_dict()[last], weights[f"preact.{last}"])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"state_dict": weights},
        lambda weights: {"model": weights, "epoch": 3},
        lambda weights: {f"module.{name}": value for name, value in weights.items()},
        lambda weights: {"state_dict": {f"module.{n}": v for n, v in weights.items()}},
        lambda weights: OrderedDict(reversed(weights.items())),
        lambda weights: {n: v for n, v in weights.items() if "num_batches" not in n},
        lambda weights: {n: nn.Parameter(v, v.is_floating_point()) for n, v in weights.items()},
        lambda weights: {n: v.double() if v.ndim else v for n, v in weights.items()},
    ],
    ids=["wrapped", "model", "parallel", "both", "other order", "old", "parameters", "float64"],
)
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before 1.6"])
def test_files_as_people_have_them(light_weights, tmp_path, wrap, is_zip):
    path = save(wrap(light_weights), tmp_path, _use_new_zipfile_serialization=is_zip)
    regressor, likelihood = load_released(path)
    ours = ours_by_released_name(regressor, likelihood, lambda parameter: parameter)
    assert all(torch.equal(value, light_weights[name]) for name, value in ours.items())


def test_writing_gives_back_the_very_file(weights, file, tmp_path):
    save_released(tmp_path / "new" / "again.pth", *load_released(file))
    again = torch.load(tmp_path / "new" / "again.pth", weights_only=True)
    assert list(again) == list(weights)
    for name, value in again.items():
        assert value.dtype == weights[name].dtype
        assert torch.equal(value, weights[name])
        assert value.untyped_storage().nbytes() == value.nbytes  # nothing else goes along
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["again.pth"]


def test_writing_never_replaces_a_file(file, tmp_path):
    regressor, likelihood = load_released(file)
    (tmp_path / "there.pth").write_text("mine")
    with pytest.raises(FileExistsError, match="there already"):
        save_released(tmp_path / "there.pth", regressor, likelihood)
    assert (tmp_path / "there.pth").read_text() == "mine"


def test_a_copy_of_the_state_does_not_follow_the_network(file):
    regressor, likelihood = load_released(file)
    regressor.to(memory_format=torch.channels_last)
    state = released_state(regressor, likelihood)
    before = state["preact.conv1.weight"].clone()
    assert before.is_contiguous()
    with torch.no_grad():
        regressor.backbone.conv1.weight.zero_()
    assert torch.equal(state["preact.conv1.weight"], before)


@pytest.mark.parametrize(
    ("model", "flow", "loss", "joints", "named"),
    [
        ({}, {}, {}, 18, None),
        ({}, {}, {"num_depth_nodes": 8, "residual_bound": 9.0}, 18, None),
        ({"scale_floor": 1e-3}, {}, {}, 18, r"model\.scale_floor is 0\.001 and must be 1e-09"),
        ({"width_multiplier": 0.25}, {}, {}, 18, r"model\.width_multiplier is 0\.25 and must be 1"),
        ({}, {"hidden_dim": 32}, {}, 18, r"flow\.hidden_dim is 32 and must be 64"),
        ({}, {"num_layers": 8}, {}, 18, r"flow\.num_layers is 8 and must be 6"),
        ({}, {}, {"form": "paper"}, 18, r"likelihood\.form is paper and must be released"),
        ({}, {}, {"base": "gaussian"}, 18, r"likelihood\.base is gaussian and must be laplace"),
        ({}, {}, {"kind": "l1"}, 18, r"likelihood\.kind is l1 and must be rle"),
        ({}, {}, {}, 17, "17 joints and needs the 18 of human36m_18"),
    ],
)
def test_networks_of_another_form_are_not_written(file, model, flow, loss, joints, named):
    regressor, likelihood = load_released(file)
    regressor.config, regressor.num_joints = replace(regressor.config, **model), joints
    likelihood = Likelihood(replace(likelihood.config, **loss), ResidualFlow(FlowConfig(**flow)))
    if named is None:
        assert released_state(regressor, likelihood)["flow3d.mask"].shape == (6, 3)
        return
    with pytest.raises(ValueError, match=named):
        released_state(regressor, likelihood)


NAN = float("nan")
MASK = torch.tensor([[0, 0, 1], [1, 1, 0]] * 3, dtype=torch.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preact.layer3.1.conv2.weight": None}, r"preact\.layer3\.1\.conv2\.weight missing"),
        ({"fc_sigma.bias": None}, r"fc_sigma\.bias missing"),
        ({"flow2d.s.3.2.weight": None}, r"flow2d\.s\.3\.2\.weight missing"),
        ({"flow3d.mask": None}, r"flow3d\.mask missing"),
        ({"fc.weight": torch.zeros(1000, 512)}, r"fc\.weight unexpected"),
        ({"fcs.0.weight": torch.zeros(2)}, r"fcs\.0\.weight unexpected"),
        ({"flow3d.t.6.0.bias": torch.zeros(64)}, r"flow3d\.t\.6\.0\.bias unexpected"),
        ({"preact.layer4.2.conv1.weight": torch.zeros(2)}, r"layer4\.2\.conv1\.weight unexpected"),
        (
            {"preact.conv1.weight": torch.zeros(32, 3, 7, 7)},
            r"conv1\.weight \(got \(32, 3, 7, 7\), expected \(64, 3, 7, 7\)\) of another shape",
        ),
        ({"flow3d.t.0.0.bias": torch.zeros(32)}, r"flow3d\.t\.0\.0\.bias \(got \(32,\)"),
        ({"preact.bn1.num_batches_tracked": torch.zeros(1, dtype=torch.int64)}, "another shape"),
        ({"fc_sigma.bias": torch.tensor([NAN] + [0.0] * 53)}, r"fc_sigma\.bias not finite"),
        ({"flow2d.t.5.4.bias": torch.full((2,), math.inf)}, r"flow2d\.t\.5\.4\.bias not finite"),
        ({"fc_sigma.bias": torch.full((54,), 1e39, dtype=torch.float64)}, "not finite"),
        ({"fc_sigma.bias": torch.zeros(54, dtype=torch.int64)}, r"got torch\.int64"),
        ({"fc_sigma.bias": torch.zeros(54, dtype=torch.complex64)}, r"got torch\.complex64"),
        ({"preact.bn1.num_batches_tracked": torch.tensor(1.5)}, r"got torch\.float32"),
        ({"preact.bn1.running_var": torch.full((64,), -1.0)}, r"bn1\.running_var negative"),
        ({"flow3d.mask": 1 - MASK}, r"flow3d\.mask other than published"),
        ({"flow3d.mask": MASK.roll(1, 0)}, r"flow3d\.mask other than published"),
        ({"flow2d.mask": MASK[:, :2].contiguous()}, r"flow2d\.mask other than published"),
        ({"flow3d.mask": MASK * 0.5}, r"flow3d\.mask other than published"),
        ({"fc_sigma.bias": [1, 2]}, "plain tensors by name; others: fc_sigma.bias"),
        ({7: torch.zeros(2)}, "plain tensors by name; others: 7"),
        ({"fc_sigma.bias": torch.zeros(54).to_sparse()}, "others: fc_sigma.bias"),
        ({"fc_sigma.bias": torch.zeros(54, device="meta")}, "others: fc_sigma.bias"),
    ],
)
def test_files_that_are_not_exactly_this_network_are_refused(
    light_weights, tmp_path, changes, message
):
    changed = {**light_weights, **changes}
    path = save({n: v for n, v in changed.items() if v is not None}, tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        load_released(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_number_of_joints_is_said_in_words(draw_released, tmp_path):
    path = save(draw_released(18, num_joints=17), tmp_path)
    with pytest.raises(ValueError, match="has 17 joints, expected the 18 of human36m_18"):
        load_released(path)


def test_another_network_names_what_it_lacks(tmp_path):
    with pytest.raises(ValueError, match=r"fc_coord\.linear\.bias, .* more missing; a unexpected"):
        load_released(save({"a": torch.zeros(2)}, tmp_path))
    with pytest.raises(ValueError, match="missing"):
        load_released(save({}, tmp_path))
    with pytest.raises(ValueError, match="dictionary of tensors, got list"):
        load_released(save([torch.zeros(2)], tmp_path))


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("form", ["zip", "before 1.6", "pickle"])
def test_code_in_a_file_is_never_run(light_weights, tmp_path, form):
    contents, path = (
        {**light_weights, "fc_sigma.bias": Trap(tmp_path / "proof")},
        tmp_path / "trap.pth",
    )
    if form == "pickle":
        path.write_bytes(pickle.dumps({"a": contents["fc_sigma.bias"]}, protocol=2))
    else:
        torch.save(contents, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ValueError, match=r"trap\.pth is not a readable weights file") as caught:
        load_released(path)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # no advice to trust it
    assert not (tmp_path / "proof").exists()
    if form != "pickle":  # the trap works
        torch.load(path, weights_only=False)
        assert (tmp_path / "proof").exists()


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before 1.6"])
def test_damaged_files_are_refused(file, weights, tmp_path, is_zip):
    path = save(weights, tmp_path, _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    for length in (0, 1, 30, 1000, len(whole) // 2, len(whole) - 1000, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not a readable weights file"):
            load_released(path)
    path.write_bytes(b"some other file\n" * 100)
    with pytest.raises(ValueError, match="not a readable weights file"):
        load_released(path)


def test_a_flipped_bit_is_found_by_the_checksum(file, tmp_path):
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    (tmp_path / "flipped.pth").write_bytes(whole)
    with pytest.raises(ValueError, match=r"flipped\.pth .* the checksum of .* does not match"):
        load_released(tmp_path / "flipped.pth")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights file at"):
        load_released(tmp_path / "none.pth")
    with pytest.raises(FileNotFoundError, match="no weights file at"):
        load_released(tmp_path)
