"""Around an optimiser step: loss of a batch, schedule, weight decay groups, moving average."""

import copy
import math
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pose3d.data.augment import TrainingBatch
from pose3d.engine.config import TrainConfig
from pose3d.model.likelihood import Likelihood
from pose3d.model.regressor import PoseDistribution


def learning_rate_at(config: TrainConfig, step: int, *, steps_per_epoch: int) -> float:
    """The learning rate of a step: linear warm-up times the schedule.

    Args:
        config: Of training; its schedule counts epochs of ``steps_per_epoch`` steps.
        step: Steps taken before this one, from 0.
        steps_per_epoch: Batches in an epoch.
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    match config.schedule:
        case "constant":
            decay = 1.0
        case "step":
            passed = sum(step >= milestone * steps_per_epoch for milestone in config.milestones)
            decay = config.decay_factor**passed
        case "cosine":
            decay = 0.5 * (1 + math.cos(math.pi * step / (config.epochs * steps_per_epoch)))
    return config.learning_rate * warmup * decay


def build_optimiser(
    network: nn.Module, config: TrainConfig, *, device: torch.device
) -> torch.optim.Optimizer:
    """Adam or AdamW over the network; biases, norms and the flow are not decayed."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        is_plain = parameter.ndim < 2 or name.endswith("bias") or name.startswith("likelihood.")
        (plain if is_plain else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
    return kind(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        fused=device.type in ("cpu", "cuda"),
    )


def location_share(config: TrainConfig, step: int, *, num_steps: int) -> float:
    """How much of the likelihood's gradient reaches μ: 0 in the ℓ1 warm-up, 1 after the blend."""
    start = config.location_warmup_fraction * num_steps
    blend = config.location_blend_fraction * num_steps
    if step < start:
        return 0.0
    return min(1.0, (step - start) / blend) if blend else 1.0


def batch_loss(
    pose: PoseDistribution,
    batch: TrainingBatch,
    likelihood: Likelihood,
    *,
    location_share: float,
    location_scale: float,
    location_beta: float = 0.0,
    reduction: str,
) -> dict[str, Float[Tensor, ""]]:
    """The summands of the loss of a batch by name, reduced; their sum is minimised.

    Args:
        pose: Predicted location and scale.
        batch: Labels and weights.
        likelihood: Gives nats per joint.
        location_share: Part of the likelihood's gradient that reaches μ; the rest of the way μ
            learns by ℓ1, the summand ``location``.
        location_scale: Of that ℓ1: |prediction − label| / scale, as a Laplace density of constant
            scale has it, so that it holds its own against the gradient of σ and flow.
        location_beta: The likelihood's gradient that reaches μ is multiplied, axis by axis, by
            (σ / location_scale) to this power. 0 leaves it as it is: (score of x̄) / σ, so that
            joints the network is unsure of hardly move. At 1 it is (score of x̄) /
            location_scale: every joint has the same voice, as under ℓ1, and μ still comes to rest
            where the likelihood's own gradient is zero. The loss and all other gradients stay.
        reduction: See TrainConfig.loss_reduction.

    Source:
        The weighting by a power of σ: Seitzer et al., On the pitfalls of heteroscedastic
        uncertainty estimation with probabilistic neural networks, ICLR 2022, there of the whole
        Gaussian loss, here of the gradient of μ alone.
    """
    mean = pose.mean
    if location_share < 1:
        mean = torch.lerp(mean.detach(), mean, location_share)  # the same numbers
    if location_beta and likelihood.config.kind not in ("l1", "l2"):  # these predict no σ
        factor = (pose.scale.detach() / location_scale) ** location_beta
        mean = mean.detach() + factor * (mean - mean.detach())  # the same numbers
    parts = likelihood.parts(mean, pose.spread, batch.target, batch.weight, feature=pose.feature)
    if location_share < 1:
        error = torch.where(batch.weight > 0, pose.mean - batch.target, 0)  # else anything, NaN too
        distance = (batch.weight * error.abs()).sum(-1)
        parts["location"] = (1 - location_share) * distance / location_scale
    if reduction == "per_image":
        return {name: part.sum() / len(part) for name, part in parts.items()}
    num_labelled = (batch.weight > 0).any(-1).sum().clamp_min(1)
    return {name: part.sum() / num_labelled for name, part in parts.items()}


NetworkT = TypeVar("NetworkT", bound=nn.Module)


class StepGuard:
    """Keeps the buffers of the last good step, so that a skipped step leaves no trace.

    A batch with a NaN poisons the running statistics of every batch norm in the forward pass,
    before the loss shows it.
    """

    def __init__(self, network: nn.Module) -> None:
        self._buffers = list(network.buffers())
        self._saved = [buffer.clone() for buffer in self._buffers]

    def remember(self) -> None:
        """Call before the forward pass."""
        torch._foreach_copy_(self._saved, self._buffers)

    def restore(self) -> None:
        """Call when the step is skipped."""
        torch._foreach_copy_(self._buffers, self._saved)


class WeightAverage(Generic[NetworkT]):
    """Exponential moving average of a network's weights and buffers.

    The decay rises as (1 + n) / (10 + n) over the first n steps, so that the average forgets the
    initial weights early. Whole numbers (batch counts) are copied.

    Source: Tarvainen and Valpola (2017), "Mean teachers are better role models".
    """

    def __init__(self, network: NetworkT, *, decay: float) -> None:
        self.network: NetworkT = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: NetworkT, *, step: int) -> None:
        """Move towards the network after step number ``step`` (from 0)."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        averages, values = _tensors(self.network), _tensors(network)
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, weight)
            else:
                average.copy_(value)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
