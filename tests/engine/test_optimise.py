"""Schedule, weight decay groups, moving average, guard and the loss of a batch."""

import copy
import math

import pytest
import torch
from torch import nn

from pose3d.data.augment import TrainingBatch
from pose3d.engine.config import TrainConfig
from pose3d.engine.optimise import (
    StepGuard,
    WeightAverage,
    batch_loss,
    build_optimiser,
    learning_rate_at,
    location_share,
)
from pose3d.model.flow import ResidualFlow
from pose3d.model.likelihood import Likelihood, LikelihoodConfig
from pose3d.model.regressor import PoseDistribution


def torch_rates(config: TrainConfig, steps_per_epoch: int) -> list[float]:
    """What torch's own schedulers give, step by step."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    num_steps = config.epochs * steps_per_epoch
    if config.schedule == "step":
        milestones = [epoch * steps_per_epoch for epoch in config.milestones]
        scheduler = torch.optim.lr_scheduler.MultiStepLR(
            optimiser, milestones, gamma=config.decay_factor
        )
    else:
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=num_steps)
    rates = []
    for _ in range(num_steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_schedules_are_those_of_torch(schedule):
    config = TrainConfig(epochs=7, schedule=schedule, milestones=(3, 5), learning_rate=0.02)
    rates = [learning_rate_at(config, step, steps_per_epoch=4) for step in range(28)]
    assert rates == pytest.approx(torch_rates(config, 4), rel=1e-9)


def test_warm_up_rises_linearly_to_the_full_rate():
    config = TrainConfig(schedule="constant", warmup_steps=4, learning_rate=1.0)
    rates = [learning_rate_at(config, step, steps_per_epoch=2) for step in range(6)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_weight_decay_spares_biases_norms_and_the_flow():
    network = nn.Module()
    network.regressor = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    network.likelihood = Likelihood(LikelihoodConfig(), ResidualFlow())
    config = TrainConfig(optimiser="adamw", weight_decay=0.1)
    groups = build_optimiser(network, config, device=torch.device("cpu")).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    decayed = [{names[id(p)] for p in g["params"]} for g in groups if g["weight_decay"]]
    assert decayed == [{"regressor.0.weight", "regressor.2.weight"}]
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_moving_average_follows_its_recursion():
    network = nn.BatchNorm1d(2)
    average = WeightAverage(network, decay=0.5)
    expected = network.weight.detach().clone()
    for step in range(12):
        with torch.no_grad():
            network.weight += 1
            network.num_batches_tracked += 1
        average.update(network, step=step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network.weight.detach()
    torch.testing.assert_close(average.network.weight.detach(), expected)
    assert average.network.num_batches_tracked == 12
    assert not average.network.weight.requires_grad


def test_guard_takes_back_what_a_bad_batch_did_to_the_norms():
    norm = nn.BatchNorm1d(2)
    norm(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))
    before = copy.deepcopy(dict(norm.named_buffers()))
    guard = StepGuard(norm)
    guard.remember()
    norm(torch.full((4, 2), math.nan))
    assert norm.running_mean.isnan().all()
    guard.restore()
    for name, buffer in norm.named_buffers():
        assert torch.equal(buffer, before[name])


def test_location_share_has_three_parts():
    config = TrainConfig(location_warmup_fraction=0.2, location_blend_fraction=0.4)
    shares = [location_share(config, step, num_steps=10) for step in (0, 1, 2, 4, 6, 9)]
    assert shares == pytest.approx([0, 0, 0, 0.5, 1, 1])
    assert location_share(TrainConfig(), 0, num_steps=10) == 1


@pytest.fixture
def labelled():
    generator = torch.Generator().manual_seed(0)
    mean, target = torch.rand(2, 4, 5, 3, generator=generator) - 0.5
    scale = torch.rand(4, 5, 3, generator=generator) + 0.1
    weight = torch.ones(4, 5, 3)
    weight[0, 1] = 0
    pose = PoseDistribution(mean.requires_grad_(), scale.requires_grad_())
    batch = TrainingBatch(
        images=torch.zeros(4, 3, 8, 8),
        target=target,
        weight=weight,
        crop_from_image=torch.eye(3).double().expand(4, 3, 3),
        index=torch.arange(4),
    )
    return pose, batch


def gradients(pose, batch, **kwargs):
    likelihood = Likelihood(LikelihoodConfig(kind="laplace"))
    parts = batch_loss(pose, batch, likelihood, location_scale=0.1, **kwargs)
    return torch.autograd.grad(sum(parts.values()), (pose.mean, pose.scale))


def test_in_the_warm_up_location_learns_by_l1_and_scale_by_likelihood(labelled):
    pose, batch = labelled
    warm_mean, warm_scale = gradients(pose, batch, location_share=0.0, reduction="per_image")
    _, usual_scale = gradients(pose, batch, location_share=1.0, reduction="per_image")
    sign = (pose.mean.detach() - batch.target).sign()
    torch.testing.assert_close(warm_mean, sign * batch.weight / 4 / 0.1)
    torch.testing.assert_close(warm_scale, usual_scale)


def test_the_blend_goes_over_from_one_gradient_to_the_other(labelled):
    pose, batch = labelled
    ends = [gradients(pose, batch, location_share=s, reduction="per_joint")[0] for s in (0.0, 1.0)]
    middle = gradients(pose, batch, location_share=0.25, reduction="per_joint")[0]
    torch.testing.assert_close(middle, 0.75 * ends[0] + 0.25 * ends[1])


def test_what_is_not_labelled_may_be_anything_in_the_warm_up(labelled):
    pose, batch = labelled
    options = {"location_share": 0.5, "location_beta": 1.0, "reduction": "per_joint"}
    expected = gradients(pose, batch, **options)
    batch.target[batch.weight == 0] = torch.nan
    for found, value in zip(gradients(pose, batch, **options), expected, strict=True):
        torch.testing.assert_close(found, value)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_a_power_of_sigma_weighs_the_gradient_of_the_location_alone(labelled, beta):
    """Of a Laplace density it is sign(μ − y) / σ; at power 1 σ is gone, as under ℓ1."""
    pose, batch = labelled
    options = {"location_share": 1.0, "reduction": "per_image"}
    mean, scale = gradients(pose, batch, location_beta=beta, **options)
    sign = (pose.mean.detach() - batch.target).sign() * batch.weight
    sigma = pose.scale.detach()
    torch.testing.assert_close(mean, sign / sigma ** (1 - beta) / 0.1**beta / 4)
    torch.testing.assert_close(scale, gradients(pose, batch, **options)[1])


@pytest.mark.parametrize("kind", ["l1", "laplace", "rle"])
def test_the_weighting_leaves_the_loss_as_it_is(labelled, kind):
    pose, batch = labelled
    likelihood = Likelihood(LikelihoodConfig(kind=kind), ResidualFlow()).eval()
    options = {"location_share": 1.0, "location_scale": 0.1, "reduction": "per_joint"}
    plain, weighted = (
        batch_loss(pose, batch, likelihood, location_beta=beta, **options) for beta in (0.0, 1.0)
    )
    torch.testing.assert_close(sum(plain.values()), sum(weighted.values()))
    if kind == "l1":  # no σ is learnt, so that none can weigh
        expected, actual = (
            torch.autograd.grad(sum(parts.values()), pose.mean)[0] for parts in (plain, weighted)
        )
        torch.testing.assert_close(actual, expected)


def test_reductions_divide_the_sum_by_images_or_labelled_joints(labelled):
    pose, batch = labelled
    likelihood = Likelihood(LikelihoodConfig(kind="gaussian"))
    total = likelihood(pose.mean, pose.scale, batch.target, batch.weight).sum()
    for reduction, count in (("per_image", 4), ("per_joint", 19)):
        parts = batch_loss(
            pose,
            batch,
            likelihood,
            location_share=1.0,
            location_scale=0.1,
            reduction=reduction,
        )
        torch.testing.assert_close(sum(parts.values()), total / count)
