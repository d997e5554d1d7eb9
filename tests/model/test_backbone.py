"""The backbones carry torchvision's public names and shapes, and load such files strictly."""

import pytest
import torch
from safetensors.torch import save_file

from pose3d.model.backbone import ResNet, load_imagenet_weights

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# Blocks per stage, convolutions per block, first block of a stage that projects its input,
# parameters and state entries of the public models, both without fc.
PUBLIC = {
    18: ((2, 2, 2, 2), 2, 2, 11_176_512, 120),
    34: ((3, 4, 6, 3), 2, 2, 21_284_672, 216),
    50: ((3, 4, 6, 3), 3, 1, 23_508_032, 318),
    101: ((3, 4, 23, 3), 3, 1, 42_500_160, 624),
    152: ((3, 8, 36, 3), 3, 1, 58_143_808, 930),
}
SHAPES = {
    18: {
        "conv1.weight": (64, 3, 7, 7),
        "layer1.1.conv2.weight": (64, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer4.0.conv1.weight": (512, 256, 3, 3),
        "layer4.1.bn2.running_var": (512,),
    },
    50: {
        "bn1.running_mean": (64,),
        "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer3.5.conv1.weight": (256, 1024, 1, 1),
        "layer4.0.downsample.1.bias": (2048,),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
    },
}


def public_names(depth):
    blocks, convolutions, first_projection, _, _ = PUBLIC[depth]
    names = {"conv1.weight", *(f"bn1.{part}" for part in NORM)}
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            prefix = f"layer{stage}.{block}"
            for number in range(1, convolutions + 1):
                names.add(f"{prefix}.conv{number}.weight")
                names |= {f"{prefix}.bn{number}.{part}" for part in NORM}
            if block == 0 and stage >= first_projection:
                names.add(f"{prefix}.downsample.0.weight")
                names |= {f"{prefix}.downsample.1.{part}" for part in NORM}
    return names


@pytest.mark.parametrize("depth", PUBLIC)
def test_names_and_counts_are_the_public_ones(depth):
    with torch.device("meta"):
        model = ResNet(depth)
    _, _, _, num_parameters, num_entries = PUBLIC[depth]
    state = model.state_dict()
    assert set(state) == public_names(depth)
    assert len(state) == num_entries
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters
    assert {name: tuple(state[name].shape) for name in SHAPES.get(depth, {})} == SHAPES.get(
        depth, {}
    )


def test_feature_is_the_mean_over_a_map_of_stride_32():
    torch.manual_seed(0)
    model = ResNet(18, width_multiplier=0.25).eval()
    maps = []
    model.layer4.register_forward_hook(lambda _, __, output: maps.append(output))
    feature = model(torch.randn(2, 3, 96, 64))
    assert maps[0].shape == (2, 128, 3, 2)
    assert feature.shape == (2, model.num_features)
    torch.testing.assert_close(feature, maps[0].flatten(2).mean(-1))


def test_one_block_matches_the_formula_written_out():
    torch.manual_seed(0)
    block = ResNet(50, width_multiplier=0.125).layer2[0].eval()
    x = torch.rand(2, block.conv1.in_channels, 8, 8)

    def conv(x, layer, stride, padding):
        return torch.nn.functional.conv2d(x, layer.weight, stride=stride, padding=padding)

    inner = conv(x, block.conv1, 1, 0).div((1 + 1e-5) ** 0.5).clamp_min(0)
    inner = conv(inner, block.conv2, 2, 1).div((1 + 1e-5) ** 0.5).clamp_min(0)
    inner = conv(inner, block.conv3, 1, 0).div((1 + 1e-5) ** 0.5)
    shortcut = conv(x, block.downsample[0], 2, 0).div((1 + 1e-5) ** 0.5)
    torch.testing.assert_close(block(x), (inner + shortcut).clamp_min(0))


def test_activations_keep_their_size_through_the_depth():
    torch.manual_seed(0)
    feature = ResNet(18, width_multiplier=0.5)(torch.randn(4, 3, 64, 64))
    assert 0.1 < feature.std() < 10


@pytest.fixture
def public_weights():
    torch.manual_seed(1)
    weights = {name: value.clone() for name, value in ResNet(18).state_dict().items()}
    return weights | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_public_file_loads_in_either_format(tmp_path, public_weights, suffix):
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(public_weights, path)
    model = ResNet(18)
    load_imagenet_weights(model, path)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, public_weights[name], rtol=0, atol=0)


def test_an_old_file_without_batch_counters_loads(tmp_path, public_weights):
    weights = {k: v for k, v in public_weights.items() if not k.endswith("num_batches_tracked")}
    torch.save(weights, tmp_path / "old.pth")
    load_imagenet_weights(ResNet(18), tmp_path / "old.pth")


def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path, public_weights):
    del public_weights["layer1.0.bn1.bias"]
    public_weights["head.weight"] = torch.zeros(3)
    public_weights["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    torch.save(public_weights, tmp_path / "bad.pth")
    model = ResNet(18)
    before = model.bn1.weight.clone()
    with pytest.raises(ValueError, match=r"layer1\.0\.bn1\.bias missing") as error:
        load_imagenet_weights(model, tmp_path / "bad.pth")
    assert "head.weight unexpected" in str(error.value)
    assert "conv1.weight (got (64, 1, 7, 7), expected (64, 3, 7, 7))" in str(error.value)
    assert "\n" not in str(error.value)
    assert torch.equal(model.bn1.weight, before)


def test_a_narrow_backbone_refuses_standard_weights(tmp_path, public_weights):
    torch.save(public_weights, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="of another shape"):
        load_imagenet_weights(ResNet(18, width_multiplier=0.5), tmp_path / "weights.pth")


class Payload:
    def __reduce__(self):
        return (print, ("code ran",))


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    torch.save({"conv1.weight": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="not a readable weights file") as error:
        load_imagenet_weights(ResNet(18, width_multiplier=0.125), tmp_path / "evil.pth")
    assert "\n" not in str(error.value)
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["junk.pth", "junk.safetensors", "list.pth"])
def test_junk_is_refused_in_one_line(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"not weights at all")
    if name == "list.pth":
        torch.save([1, 2], path)
    with pytest.raises(ValueError, match=name) as error:
        load_imagenet_weights(ResNet(18, width_multiplier=0.125), path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        load_imagenet_weights(ResNet(18, width_multiplier=0.125), tmp_path / "nowhere.pth")


@pytest.mark.parametrize("arguments", [{"depth": 42}, {"depth": 18, "width_multiplier": 0.0}])
def test_impossible_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match="got"):
        ResNet(**arguments)
