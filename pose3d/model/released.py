"""The published RLE weights for Human3.6M as a regressor and its likelihood, and back.

A file holds one dictionary of tensors under these names, J = 18 joints, C features:

    preact.…                               a ResNet under torchvision's names, without fc
    fc_coord.linear.{weight, bias}         location head, (3J, C) and (3J)
    fc_sigma.{weight, bias}                scale head, the same shapes
    flow3d.mask                            (6, 3), 1 = kept: [0, 0, 1], [1, 1, 0] three times
    flow3d.{s, t}.K.{0, 2, 4}.{weight, bias}   coupling K = 0 … 5: MLPs 3-64-64-3
    flow2d.…                               the same over (u, v): masks [0, 1], [1, 0], 2 for 3

Source:
    Names, shapes and loss of the code published with Li et al., Human Pose Regression with Residual
    Log-likelihood Estimation, ICCV 2021.
"""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pose3d.geometry.skeleton import HUMAN36M_18
from pose3d.model.backbone import STAGE_BLOCKS
from pose3d.model.flow import FlowConfig, ResidualFlow
from pose3d.model.likelihood import Likelihood, LikelihoodConfig
from pose3d.model.regressor import ModelConfig, PoseRegressor
from pose3d.model.weights_file import read_weights, shortened

RELEASED_SCALE_FLOOR = 1e-9
"""What the released code adds to the sigmoid of σ."""
RELEASED_SKELETON = HUMAN36M_18
"""The joints of the published weights, in their order; the root is the first."""
HEADS = {"location_head": "fc_coord.linear", "scale_head": "fc_sigma"}
"""Our heads and their released names."""
FREE_SETTINGS = (
    *("model.pretrained", "model.integral_layers", "model.integral_width", "model.depth_bins"),
    *("flow.context_dim", "likelihood.residual_bound", "likelihood.num_context_samples"),
    *("likelihood.num_normaliser_samples", "likelihood.num_evaluation_samples"),
    *("likelihood.num_depth_nodes", "likelihood.num_evaluation_depth_nodes"),
)
"""Settings that do not change what the weights mean: a file can be written whatever they are."""


def released_settings(backbone: str) -> tuple[ModelConfig, FlowConfig, LikelihoodConfig]:
    """The settings under which our network and loss are the released ones.

    Args:
        backbone: resnet18, resnet34, resnet50, resnet101 or resnet152; published is resnet50.
    """
    return (
        ModelConfig(
            backbone=backbone,
            location_head="released",
            depth_head="regression",
            scale_head="diagonal",
            scale_floor=RELEASED_SCALE_FLOOR,
        ),
        FlowConfig(kind="realnvp", num_layers=6, hidden_dim=64, condition="none"),
        LikelihoodConfig(kind="rle", base="laplace", form="released"),
    )


def load_released(path: str | Path) -> tuple[PoseRegressor, Likelihood]:
    """Load published weights (`h36m-laplace-rle.pth`, or a file of that form), strictly.

    The file is read without running code from it. It may be the bare dictionary, or hold it under
    ``state_dict`` or ``model``, and its names may all start with ``module.``; the batch counters
    (`num_batches_tracked`), which old files lack, may be missing. Any ResNet depth is recognised.

    Args:
        path: The file.

    Returns:
        The regressor, and the likelihood in the form ``released``. Both are in evaluation mode, on
        the CPU, in float32, and their parameters require gradients.

        The regressor takes RGB images [batch 3 256 256], channels in [0, 1] less (0.406, 0.457,
        0.480) and divided by (0.225, 0.224, 0.229). It gives μ and σ of `HUMAN36M_18`,
        [batch 18 3], with σ = sigmoid + 1e-9. Its depth is not yet relative to the root: the
        released code subtracts the root's d in evaluation, this regressor never does.

        `likelihood(mean, scale, target, weight)` is [batch 18] nats; their sum over the batch size
        is the released loss. Joints without depth weight go to the flow over (u, v). Weights are 0
        or 1 in the released code, the same on u and v.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If the file is damaged or holds more than tensors, or if anything in it is
            missing, unexpected, of another shape, no real number, not finite, or if it has
            another number of joints or other masks than the published network; names are given.

    Source:
        Li et al., Human Pose Regression with Residual Log-likelihood Estimation, ICCV 2021.
    """
    path = Path(path)
    weights = read_weights(path)
    regressor, likelihood = _new_network(_nearest_backbone(weights))
    expected = released_state(regressor, likelihood)
    problems = _problems(weights, expected)
    if problems:
        raise ValueError(
            f"{path} is not the released Human3.6M network with {regressor.config.backbone}: "
            + "; ".join(problems)
        )
    _fill(regressor, likelihood, expected | weights)
    return regressor, likelihood


def released_state(regressor: PoseRegressor, likelihood: Likelihood) -> dict[str, Tensor]:
    """The weights under the released names, in the released order; copies, on the CPU.

    Raises:
        ValueError: If the network is not of the released form, naming the settings that differ.
    """
    differences = _differences(regressor, likelihood)
    if differences:
        raise ValueError("this network does not fit the released names: " + "; ".join(differences))
    state = {_released_name(name): value for name, value in regressor.state_dict().items()} | dict(
        _flow_state("flow2d", likelihood.planar_flow)
    )
    state |= dict(_flow_state("flow3d", likelihood.flow))
    # A clone without memory format: convolutions may lie in channels_last.
    return {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
    }


def save_released(path: str | Path, regressor: PoseRegressor, likelihood: Likelihood) -> None:
    """Write the weights under the released names, so that a reader sees all of them or nothing.

    Args:
        path: Where they go; a neighbour of the name ``.NAME.tmp`` exists during the write.
        regressor: As `load_released` gives it, or trained under the same settings.
        likelihood: The same.

    Raises:
        FileExistsError: If there is something at ``path``.
        ValueError: As `released_state`.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} is there already; name another file")
    state = released_state(regressor, likelihood)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _new_network(backbone: str) -> tuple[PoseRegressor, Likelihood]:
    """An untrained network of the released form; torch's generator is left as it was."""
    model, flow, loss = released_settings(backbone)
    with torch.random.fork_rng(devices=[]):
        regressor = PoseRegressor(model, RELEASED_SKELETON.num_joints)
        likelihood = Likelihood(loss, ResidualFlow(flow))
    return regressor.eval(), likelihood.eval()


def _differences(regressor: PoseRegressor, likelihood: Likelihood) -> list[str]:
    """What of a network is not as released."""
    model, flow, loss = released_settings(regressor.config.backbone)
    found = []
    if regressor.num_joints != RELEASED_SKELETON.num_joints:
        found.append(
            f"it has {regressor.num_joints} joints and needs the {RELEASED_SKELETON.num_joints} "
            f"of {RELEASED_SKELETON.name}"
        )
    found += _changed("model", regressor.config, model)
    found += _changed("likelihood", likelihood.config, loss)
    own_flow = likelihood.flow
    if own_flow is not None:
        found += _changed("flow", own_flow.config, flow)
        if not isinstance(own_flow, ResidualFlow) and not found:
            found.append(f"the flow is a {type(own_flow).__name__} and must be a ResidualFlow")
    return found


def _changed(section: str, config: Any, released: Any) -> list[str]:
    pairs = (
        (f"{section}.{field.name}", getattr(config, field.name), getattr(released, field.name))
        for field in dataclasses.fields(released)
    )
    return [
        f"{name} is {value} and must be {needed}"
        for name, value, needed in pairs
        if value != needed and name not in FREE_SETTINGS
    ]


def _released_name(name: str) -> str:
    """Released name of a parameter or buffer of the regressor."""
    room, _, rest = name.partition(".")
    return f"{HEADS[room]}.{rest}" if room in HEADS else f"preact.{rest}"


def _flow_parts(flow: ResidualFlow) -> Iterator[tuple[str, Tensor, tuple[int, int]]]:
    """Released names within a flow, our stacked parameter of each, and where in it the part is."""
    for kind in ("t", "s"):
        for layer in range(flow.config.num_layers):
            for place, room in ((0, "input"), (2, "hidden"), (4, "output")):
                for part in ("weight", "bias"):
                    stacked = getattr(flow, f"{room}_{part}")
                    yield f"{kind}.{layer}.{place}.{part}", stacked, (layer, "st".index(kind))


def _flow_state(prefix: str, flow: Any) -> Iterator[tuple[str, Tensor]]:
    assert isinstance(flow, ResidualFlow)
    kept_last = torch.zeros(flow.num_axes)
    kept_last[-1] = 1
    pair = torch.stack([kept_last, 1 - kept_last])
    yield f"{prefix}.mask", pair.repeat(flow.config.num_layers // 2, 1)
    for name, stacked, place in _flow_parts(flow):
        yield f"{prefix}.{name}", stacked[place]


@torch.no_grad()
def _fill(regressor: PoseRegressor, likelihood: Likelihood, weights: Mapping[str, Tensor]) -> None:
    regressor.load_state_dict(
        {name: weights[_released_name(name)] for name in regressor.state_dict()}
    )
    for prefix, flow in (("flow3d", likelihood.flow), ("flow2d", likelihood.planar_flow)):
        assert isinstance(flow, ResidualFlow)
        for name, stacked, place in _flow_parts(flow):
            stacked[place] = weights[f"{prefix}.{name}"]


def _nearest_backbone(weights: Mapping[str, Tensor]) -> str:
    """The ResNet whose blocks the names come closest to."""
    blocks = [
        len({found[1] for name in weights if (found := re.match(pattern, name))})
        for pattern in (rf"preact\.layer{stage}\.(\d+)\." for stage in range(1, 5))
    ]
    is_deep = any(re.match(r"preact\.layer\d\.\d+\.conv3\.", name) for name in weights)

    def distance(depth: int) -> int:
        missing = sum(abs(a - b) for a, b in zip(STAGE_BLOCKS[depth], blocks, strict=True))
        return missing + 100 * (is_deep != (depth >= 50))

    return f"resnet{min(STAGE_BLOCKS, key=distance)}"


def _problems(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """What does not fit, in words; empty where everything does."""
    optional = {name for name in expected if name.endswith("num_batches_tracked")}
    both = [name for name in expected if name in weights]
    fitting = [name for name in both if weights[name].shape == expected[name].shape]
    sound = [name for name in fitting if _is_same_kind(weights[name], expected[name])]
    kinds = {
        "missing": sorted(expected.keys() - weights.keys() - optional),
        "unexpected": sorted(weights.keys() - expected.keys()),
        "of another shape": [
            f"{name} (got {tuple(weights[name].shape)}, expected {tuple(expected[name].shape)})"
            for name in both
            if name not in fitting
        ],
        "of another kind of number": [
            f"{name} (got {weights[name].dtype}, expected {expected[name].dtype})"
            for name in fitting
            if name not in sound
        ],
        "not finite": [name for name in sound if not weights[name].float().isfinite().all()],
        "negative": [
            name
            for name in sound
            if name.endswith(("running_var", "num_batches_tracked")) and (weights[name] < 0).any()
        ],
        "other than published": [
            name
            for name in sound
            if name.endswith(".mask") and not torch.equal(weights[name].float(), expected[name])
        ],
    }
    problems = [f"{shortened(names)} {kind}" for kind, names in kinds.items() if names]
    return [*_wrong_joints(weights), *problems]


def _wrong_joints(weights: Mapping[str, Tensor]) -> list[str]:
    head = weights.get("fc_coord.linear.bias")
    needed = RELEASED_SKELETON.num_joints
    if head is None or head.ndim != 1 or len(head) == 3 * needed:
        return []
    return [f"it has {len(head) / 3:g} joints, expected the {needed} of {RELEASED_SKELETON.name}"]


def _is_same_kind(value: Tensor, expected: Tensor) -> bool:
    """Whether both are real numbers, or both whole ones."""
    return not value.is_complex() and value.is_floating_point() == expected.is_floating_point()
