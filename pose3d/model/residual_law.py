"""The density of the standardised residual x̄ that a likelihood describes: Q, G_φ or s·Q·G_φ.

What needs no label is here: log s with the points that give it (see `normaliser`), the density, its
draws and its centre, for all joints, for each of them, or for each image, as the flow is
conditioned.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pose3d.model.base_density import BaseDensity
from pose3d.model.flow import Flow, full_precision
from pose3d.model.flow_context import FlowContext
from pose3d.model.likelihood_config import LikelihoodConfig
from pose3d.model.normaliser import ResidualPoints, WeightedPoints, weighted_points
from pose3d.model.proposal import Proposal, followed

NUM_DRAWS = 6
"""Random numbers for the points of one group: a shift of W's and one of the flow's."""


class ResidualLaw(nn.Module):
    """Density of the standardised residual, of which `Likelihood` makes that of a label.

    Args:
        config: Which density.
        flow: Needed by the kinds flow, flow_reparam and rle, unused by the others.
        num_joints: Of the skeleton; a flow conditioned on the joint needs it.
        feature_dim: Length of the image feature; a flow conditioned on it needs it.

    Raises:
        ValueError: If the kind needs a flow and there is none, or it is not over three axes, or it
            is conditioned on what was not given.
    """

    residual_location: Tensor
    """Running mean of the residuals seen in training, which places W; [3]."""
    residual_spread: Tensor
    """Running mean absolute deviation of the same; [3]."""
    training_points: Tensor
    evaluation_points: Tensor

    def __init__(
        self,
        config: LikelihoodConfig,
        flow: Flow | None,
        *,
        num_joints: int | None = None,
        feature_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.base = BaseDensity(config.base_name)
        self.bound = config.bound
        self.flow = self.planar_flow = self.contexts = None
        if config.has_flow:
            if flow is None or flow.num_axes != 3:
                raise ValueError(
                    f"likelihood.kind {config.kind} needs a flow over 3 axes: pass "
                    "build_flow(config.flow)"
                )
            self.flow = flow
            if config.kind == "flow" or config.is_released:
                self.planar_flow = type(flow)(flow.config, num_axes=2)
            if flow.context_dim:
                self.contexts = FlowContext(
                    flow.config, num_joints=num_joints, feature_dim=feature_dim
                )
        num_training, num_evaluation = self._num_points()
        for name, number in (
            ("training_points", num_training),
            ("evaluation_points", num_evaluation),
        ):
            sobol = torch.quasirandom.SobolEngine(3, scramble=True, seed=0)
            self.register_buffer(name, sobol.draw(number // 2), persistent=False)
        self.register_buffer("residual_location", torch.zeros(3))
        self.register_buffer("residual_spread", torch.ones(3))

    @property
    def conditioned_on_images(self) -> bool:
        """Whether the density depends on the image's feature."""
        return self.contexts is not None and self.contexts.condition == "feature"

    def log_normaliser(
        self, *, feature: Float[Tensor, "batch features"] | None = None
    ) -> Float[Tensor, "*groups"]:
        """log s of the form paper, nats, with its gradient; 0 for every other loss.

        Fixed points in evaluation mode, randomly shifted ones in training mode.

        Returns:
            One number; of a conditioned flow one per joint, or per image.
        """
        if not self.config.is_normalised:
            return self.evaluation_points.new_zeros(())
        with full_precision(self.evaluation_points):
            log_mass = self._weighted(self._groups(feature), fixed=not self.training).log_mass()
        return -log_mass if self.contexts is not None else -log_mass[0]

    def residual_log_prob(
        self,
        x: Float[Tensor, "*batch 3"],
        *,
        joint: int | None = None,
        feature: Float[Tensor, " features"] | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Normalised log density of the standardised residual x̄ = (y − μ) / σ, nats.

        For l1 and l2, which have no scale, of the residual y − μ itself.

        Args:
            x: Residuals.
            joint: Whose, where the flow is conditioned on it; None is all of them in equal parts.
            feature: Of the one image, where the flow is conditioned on it.

        Raises:
            ValueError: For the form released, whose loss is no likelihood, and for the kind flow,
                whose label is no affine function of a residual.
        """
        self._require_density()
        if self.flow is None:
            return self.base.log_prob(x)
        with full_precision(x):
            groups = self._groups_of(joint, feature)
            contexts = [None] if groups is None else list(groups)
            if self.config.is_normalised:
                log_mass = self._weighted(groups, fixed=True, dtype=x.dtype).log_mass()
                log_flow = [
                    self.flow.log_prob(x.clamp(-self.bound, self.bound), c) for c in contexts
                ]
                densities = (
                    torch.stack(log_flow, dim=-1) + self.base.log_prob(x)[..., None] - log_mass
                )
            else:
                densities = torch.stack([self.flow.log_prob(x, c) for c in contexts], dim=-1)
            return densities.logsumexp(-1) - math.log(len(contexts))

    @torch.no_grad()
    def sample_residual(
        self,
        num_samples: int,
        *,
        joint: int | None = None,
        feature: Float[Tensor, " features"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples 3"]:
        """Draw from the density of `residual_log_prob`.

        The exact form is drawn by resampling, with replacement, the points that would give its
        normaliser, at least 16 times as many: a point may come twice.

        Raises:
            ValueError: As `residual_log_prob`.
        """
        self._require_density()
        device = self.evaluation_points.device
        if self.flow is None:
            uniform = torch.rand(num_samples, 3, generator=generator, device=device)
            return self.base.quantile(uniform.clamp(1e-6, 1 - 1e-6))
        groups = self._groups_of(joint, feature)
        num_groups = 1 if groups is None else len(groups)
        if not self.config.is_normalised:
            normal = torch.randn(num_samples, 3, generator=generator, device=device)
            if groups is not None:
                draw = torch.rand(num_samples, generator=generator, device=device)
                groups = groups[(draw * num_groups).long()]
            return self.flow.from_base(normal, groups)[0]
        num_pool = max(8 * num_samples, 2**15) // (2 * num_groups) * 2
        uniform = torch.rand(2, num_groups, num_pool, 3, generator=generator, device=device)
        pool = self._weighted(groups, fixed=True, uniform=uniform)
        chance = pool.log_share.softmax(-1).flatten()
        chosen = torch.multinomial(chance, num_samples, replacement=True, generator=generator)
        return pool.x.flatten(0, 1)[chosen]

    @torch.no_grad()
    def residual_centre(
        self, *, feature: Float[Tensor, "batch features"] | None = None
    ) -> Float[Tensor, "*groups 3"]:
        """Geometric median of the residual density, units of σ: μ + σ·c is the label's.

        From the points that give log s in evaluation; 0 for the kinds without a flow, and for the
        kind flow, whose `estimate` is not the mean of a residual.

        Returns:
            One point; of a conditioned flow a point that broadcasts to [batch joints 3].

        Raises:
            ValueError: For the form released, whose loss is no likelihood.
        """
        if self.flow is None or self.config.kind == "flow":
            return torch.zeros_like(self.residual_location)
        self._require_density()
        with full_precision(self.evaluation_points):
            median = self._weighted(self._groups(feature), fixed=True).geometric_median()
        return median[0] if self.contexts is None else self.contexts.spread_over(median)

    def _require_density(self) -> None:
        reason = self.reason_without_density()
        if reason:
            raise ValueError(reason)

    def reason_without_density(self) -> str:
        """Why there is no density of the residual x̄, for the reader; empty where there is one."""
        if self.config.is_released:
            return (
                "the rle loss in its released form is no likelihood, so its residual has no "
                "density: exp(−loss) is not normalised; train with likelihood.form=paper"
            )
        if self.config.kind == "flow":
            return (
                "the flow loss maps a normal to the label, whose deviation from the estimate has "
                "another density at every prediction; its σ is exact to first order"
            )
        return ""

    def _groups(self, feature: Tensor | None) -> Tensor | None:
        return None if self.contexts is None else self.contexts(feature)

    def _groups_of(self, joint: int | None, feature: Tensor | None) -> Tensor | None:
        """The context of one joint, of all of them, or of one image."""
        groups = self._groups(None if feature is None else feature.reshape(1, -1))
        return groups if groups is None or joint is None else groups[joint : joint + 1]

    def _context_of_joints(self, groups: Tensor | None, like: Tensor) -> Tensor | None:
        return None if self.contexts is None else self.contexts.of_joints(groups, like)

    def _num_points(self) -> tuple[int, int]:
        """For log s in training and in evaluation, for each group."""
        if self.contexts is not None:
            return self.config.num_context_samples, 8 * self.config.num_context_samples
        return self.config.num_normaliser_samples, self.config.num_evaluation_samples

    def _draws(self, groups: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The random numbers of a step, from torch's global generator: six a group, and one."""
        number = NUM_DRAWS * (1 if groups is None else len(groups)) + 1
        return torch.rand(number, device=self.training_points.device, dtype=dtype)

    def _uniform(self, groups: Tensor | None, dtype: torch.dtype, draws: Tensor | None) -> Tensor:
        """Quasi-random points of the unit cube, [2 groups points 3]: fixed, or shifted at random.

        Every group has its own shift, so that the errors of their normalisers differ.
        """
        if draws is None:
            return self.evaluation_points.to(dtype).expand(
                2, 1 if groups is None else len(groups), -1, -1
            )
        shift = draws[:-1].reshape(2, len(draws) // NUM_DRAWS, 1, 3)
        return (self.training_points.to(dtype) + shift) % 1

    def _weighted(
        self,
        groups: Tensor | None,
        *,
        fixed: bool,
        dtype: torch.dtype = torch.float32,
        uniform: Tensor | None = None,
    ) -> WeightedPoints:
        """Points with their shares in 1/s; of flow_reparam, the flow's points in equal shares."""
        assert self.flow is not None
        if uniform is None:
            draws = None if fixed else self._draws(groups, dtype)
            uniform = self._uniform(groups, dtype, draws)
        proposal = self._held_proposal(dtype)
        points = ResidualPoints.from_uniform(uniform, proposal, groups)
        if not self.config.is_normalised:
            context = None if groups is None else groups[:, None]
            x = self.flow.from_base(points.normal, context)[0]
            return WeightedPoints(x, torch.zeros_like(x[..., 0]))
        return weighted_points(self.flow, self.base, self.bound, proposal, points)

    def _held_proposal(self, dtype: torch.dtype) -> Proposal:
        location, spread = self.residual_location, self.residual_spread
        return Proposal(location.to(dtype, copy=True), spread.to(dtype, copy=True))

    def _proposal(self, x: Tensor, labelled: Tensor | None, *, fixed: bool) -> Proposal:
        """W, in training after it has moved towards the residuals of this batch, [rows 3]."""
        if fixed:
            return self._held_proposal(x.dtype)
        flat = None if labelled is None else labelled.reshape(-1, 3)
        moved = followed(self.residual_location, self.residual_spread, x.detach(), flat)
        location, spread = moved.unbind(0)
        self.residual_location.copy_(location)
        self.residual_spread.copy_(spread)
        return Proposal(location, spread)

    def _residuals_of_joints(
        self,
        shape: tuple[int, int, int, int],
        feature: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Residuals [samples images joints 3], each from the density of its joint or image."""
        num_samples, num_images, num_joints, _ = shape
        if self.contexts is None:
            return self.sample_residual(math.prod(shape[:3]), generator=generator).reshape(shape)
        if self.conditioned_on_images:
            assert feature is not None
            number = num_samples * num_joints
            return torch.stack(
                [
                    self.sample_residual(number, feature=one, generator=generator).reshape(
                        num_samples, num_joints, 3
                    )
                    for one in feature
                ],
                dim=1,
            )
        number = num_samples * num_images
        return torch.stack(
            [
                self.sample_residual(number, joint=joint, generator=generator).reshape(
                    num_samples, num_images, 3
                )
                for joint in range(num_joints)
            ],
            dim=2,
        )
