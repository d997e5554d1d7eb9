"""Likelihoods of a joint's label under a predicted location μ and scale σ: unreduced, in nats.

With x̄ = (y − μ) / σ, axis by axis, or x̄ = L⁻¹(y − μ) with a full covariance LLᵀ, Q a fixed
factorised density, N the normal one and G_φ the density of a flow f_φ over (u, v, d):

    l1, l2              Σ_a |y_a − μ_a|, Σ_a (y_a − μ_a)² / 2     constants dropped: no likelihoods
    laplace, gaussian   Σ_a log σ_a − log Q(x̄)
    flow                −log N(f⁻¹(y); μ, σ²) − log |det ∂f⁻¹/∂y|     design (a): y = f(z)
    flow_reparam        Σ_a log σ_a − log G_φ(x̄)                     design (b)
    rle, paper          Σ_a log σ_a − log Q(x̄) − log G_φ(x̄) − log s(φ),   1/s = ∫ Q·G_φ
    rle, released       what the released RLE code minimises; exp(−loss) is no density

One wrong label can swamp neither the flow nor a step. In the form paper the flow sees c(x̄), x̄
clamped to ±`residual_bound` on each axis; the form stays a density, because its normaliser is that
of the clamped product (see `normaliser`), and beyond the bound the label's density falls as Q does.
Even so the gradient of log σ would grow as |x̄|, or x̄² where Q is Gaussian. In training mode, and
there alone, what μ and σ get from a joint beyond the bound is therefore scaled down by
bound / max|x̄|, Q Laplace, or (bound / max|x̄|)², Q Gaussian, in `laplace` and `gaussian`, too; the
flow's weights get theirs whole.
`flow` and `flow_reparam` have no Q that could take over: the flow sees x̄ itself, and in training
mode all that such a joint gives is scaled down by (bound / max|x̄|)². That is a bounded influence,
as robust statistics has it, and no change of the density: the value is exact everywhere, only the
gradient is then not that of the loss. In evaluation mode it is. The form released has no bound
unless one is set, and is then exactly the published loss, in training mode, too.

A joint without depth label has the marginal over depth of its density (see `marginal`), but in two
cases, as in the released code, a second flow over (u, v): in the form released, and in `flow`,
whose label is no affine function of the residual.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pose3d.model.base_density import BaseDensity
from pose3d.model.flow import Flow, full_precision
from pose3d.model.flow_context import FlowContext
from pose3d.model.likelihood_config import LikelihoodConfig
from pose3d.model.marginal import depth_nodes, fixed_depth_nodes, gauss_rule, with_depth
from pose3d.model.normaliser import ResidualPoints, WeightedPoints, weighted_points
from pose3d.model.proposal import Proposal, followed
from pose3d.model.pushforward import pushed_forward
from pose3d.model.standardise import (
    Spread,
    influence,
    is_triangular,
    masked_spread,
    scaled,
    standardised,
    with_influence,
)

__all__ = ["Likelihood", "LikelihoodConfig"]
NUM_DRAWS = 6
"""Random numbers for the points of one group: a shift of W's and one of the flow's."""


class Likelihood(nn.Module):
    """Negative log-likelihood of labels, per joint, in nats.

    Args:
        config: Which density.
        flow: Needed by the kinds flow, flow_reparam and rle, unused by the others.
        planar_joints: None finds the joints without depth label from the weights, which makes the
            host wait for a GPU once, or, under torch.compile, has every joint treated as one of
            them. Given, shapes are static and nothing waits: only the joints named here, such as
            (skeleton.root,), may lack depth, others give NaN where they do.
        num_joints: Of the skeleton; a flow conditioned on the joint needs it.
        feature_dim: Length of the image feature; a flow conditioned on it needs it.

    Attributes:
        last_bounded: Bool [batch joints], the joints whose residual was bounded in the last
            forward pass in training; None before it, and where nothing is bounded.

    Example:
        >>> from pose3d.model.flow import ResidualFlow
        >>> likelihood = Likelihood(LikelihoodConfig(), ResidualFlow())
        >>> mean, scale = torch.zeros(4, 18, 3), torch.full((4, 18, 3), 0.1)
        >>> likelihood(mean, scale, torch.zeros(4, 18, 3)).shape
        torch.Size([4, 18])

    Raises:
        ValueError: If the kind needs a flow and there is none, or it is not over three axes, or it
            is conditioned on what was not given.

    Source:
        Li et al., Human Pose Regression with Residual Log-likelihood Estimation, ICCV 2021,
        section 3; log s, which published code drops, is kept in the form paper.
    """

    num_bounded: Tensor
    """Joints, counted in training mode since construction, whose residual was bounded."""
    residual_location: Tensor
    """Running mean of the residuals seen in training, which places W; [3]."""
    residual_spread: Tensor
    """Running mean absolute deviation of the same; [3]."""
    training_points: Tensor
    evaluation_points: Tensor

    def __init__(
        self,
        config: LikelihoodConfig | None = None,
        flow: Flow | None = None,
        *,
        planar_joints: tuple[int, ...] | None = None,
        num_joints: int | None = None,
        feature_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config if config is not None else LikelihoodConfig()
        self.planar_joints = planar_joints
        self.last_bounded: Tensor | None = None
        self.base = BaseDensity(self.config.base_name)
        self.bound = self.config.bound
        self.flow = self.planar_flow = self.contexts = None
        if self.config.has_flow:
            if flow is None or flow.num_axes != 3:
                raise ValueError(
                    f"likelihood.kind {self.config.kind} needs a flow over 3 axes: pass "
                    "build_flow(config.flow)"
                )
            self.flow = flow
            if self.config.kind == "flow" or self.config.is_released:
                self.planar_flow = _planar_counterpart(flow)
            if flow.context_dim:
                self.contexts = FlowContext(
                    flow.config, num_joints=num_joints, feature_dim=feature_dim
                )
        self.depth_rule = gauss_rule(self.config.num_evaluation_depth_nodes // 2)
        counter = torch.zeros((), dtype=torch.int64)
        self.register_buffer("num_bounded", counter, persistent=False)
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
    def is_likelihood(self) -> bool:
        """Whether exp(−loss) integrates to 1 over the label for every μ and σ."""
        return self.config.kind not in ("l1", "l2") and not self.config.is_released

    @property
    def conditioned_on_images(self) -> bool:
        """Whether the density depends on the image's feature."""
        return self.contexts is not None and self.contexts.condition == "feature"

    def forward(
        self,
        mean: Float[Tensor, "batch joints 3"],
        scale: Spread,
        target: Float[Tensor, "batch joints 3"],
        weight: Float[Tensor, "batch joints 3"] | None = None,
        *,
        feature: Float[Tensor, "batch features"] | None = None,
    ) -> Float[Tensor, "batch joints"]:
        """Negative log-likelihood of each joint; may be negative, is 0 for unlabelled joints.

        Args:
            mean: Predicted μ, uvd.
            scale: Predicted σ, uvd, > 0, or the lower triangular Cholesky factor of the covariance
                scale, axes u, v, d, with a diagonal > 0.
            target: Labels, uvd; anything, NaN included, where the weight is 0.
            weight: Per axis, >= 0; None is 1. A density of the joint (flow, flow_reparam, rle in
                the form paper, and every kind where `scale` is a Cholesky factor) has, for a joint
                labelled on all axes, its 3-D density, for one without depth the marginal over
                depth, any other pattern counts nothing, and the mean weight of the labelled axes
                multiplies. All other losses are sums over axes, each with its own weight.
            feature: Of the images, where the flow depends on it.

        Returns:
            Nats per joint, unreduced; float32, or float64 where the predictions are.

        Raises:
            ValueError: If the form is released and `scale` a Cholesky factor, or what the flow
                depends on is missing.
        """
        parts = self.parts(mean, scale, target, weight, feature=feature)
        return torch.stack(list(parts.values())).sum(0)

    def parts(
        self,
        mean: Float[Tensor, "batch joints 3"],
        scale: Spread,
        target: Float[Tensor, "batch joints 3"],
        weight: Float[Tensor, "batch joints 3"] | None = None,
        *,
        feature: Float[Tensor, "batch features"] | None = None,
    ) -> dict[str, Float[Tensor, "batch joints"]]:
        """Summands of `forward` by name: base, log_scale, flow, log_s, those that there are.

        Each enters the loss with the sign it has here: `flow` is −log G (in design (a), −log abs
        det of the map to the base), `log_s` is −log s.
        """
        with full_precision(mean):
            return self._parts(mean, scale, target, weight, feature, fixed=not self.training)

    @torch.no_grad()
    def terms(
        self,
        mean: Float[Tensor, "batch joints 3"],
        scale: Spread,
        target: Float[Tensor, "batch joints 3"],
        weight: Float[Tensor, "batch joints 3"] | None = None,
        *,
        feature: Float[Tensor, "batch features"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Means of `parts` over the labelled joints, for logs; draws no random numbers."""
        weight = torch.ones_like(mean) if weight is None else weight
        num_labelled = (weight > 0).any(-1).sum().clamp_min(1)
        with full_precision(mean):
            parts = self._parts(mean, scale, target, weight, feature, fixed=True)
        return {name: part.sum() / num_labelled for name, part in parts.items()}

    def estimate(
        self,
        mean: Float[Tensor, "batch joints 3"],
        scale: Spread,
        *,
        feature: Float[Tensor, "batch features"] | None = None,
        centred: bool = False,
        planar_joints: tuple[int, ...] = (),
    ) -> tuple[Float[Tensor, "batch joints 3"], Spread]:
        """Location and spread of the label, uvd, that belong to a prediction.

        Args:
            mean: Predicted μ.
            scale: Predicted σ, or the Cholesky factor of the covariance scale.
            feature: Of the images, where the flow depends on it.
            centred: Whether to move μ to the geometric median of the label, μ + σ·c or μ + L·c,
                see `residual_centre`.
            planar_joints: Joints whose labels had no depth in training, such as (skeleton.root,):
                in the kind flow their u and v went through the second flow, and do so here.

        Returns:
            For the kind flow f(μ), and the square root of the diagonal (or the Cholesky factor) of
            J diag(σ²) Jᵀ with the flow's Jacobian J at μ: exact to first order in σ, without
            gradient. For all others the prediction itself.
        """
        with full_precision(mean):
            if self.config.kind == "flow":
                assert self.flow is not None
                dtype = torch.promote_types(mean.dtype, torch.float32)
                context = self._context_of_joints(self._groups(feature), mean)
                mean, scale = mean.to(dtype), scale.to(dtype)
                whole = pushed_forward(self.flow, mean, scale, context)
                return self._with_planar_estimate(whole, mean, scale, context, planar_joints)
            if centred:
                centre = self.residual_centre(feature=feature).to(mean)
                return mean + scaled(centre.expand_as(mean), scale), scale
            return mean, scale

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

    def log_prob(
        self,
        mean: Float[Tensor, "batch joints 3"],
        scale: Spread,
        target: Float[Tensor, "batch joints 3"],
        *,
        feature: Float[Tensor, "batch features"] | None = None,
    ) -> Float[Tensor, "batch joints"]:
        """Log density of a label with depth, nats: of every likelihood −`forward`, normalised.

        Raises:
            ValueError: If the loss is no likelihood: l1, l2, and rle in the form released.
        """
        if not self.is_likelihood:
            name = f"form={self.config.form}" if self.config.is_released else self.config.kind
            raise ValueError(
                f"likelihood {name} is no normalised density of the label; laplace, gaussian, "
                "flow, flow_reparam and rle with form=paper are"
            )
        return -self(mean, scale, target, feature=feature)

    @torch.no_grad()
    def sample(
        self,
        mean: Float[Tensor, "batch joints 3"],
        scale: Spread,
        num_samples: int,
        *,
        feature: Float[Tensor, "batch features"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples batch joints 3"]:
        """Draw labels, uvd, from the density of `log_prob`; each axis and joint has its own draw.

        Args:
            mean: Predicted μ.
            scale: Predicted σ, or the Cholesky factor of the covariance scale.
            num_samples: Labels of each joint.
            feature: Of the images, where the flow depends on it.
            generator: On the device of the likelihood.

        Raises:
            ValueError: As `log_prob`.
        """
        if not self.is_likelihood:
            self.log_prob(mean, scale, mean)  # raises
        num_images, num_joints, _ = mean.shape
        shape = (num_samples, num_images, num_joints, 3)
        if self.config.kind == "flow":
            assert self.flow is not None
            normal = torch.randn(shape, generator=generator, device=mean.device, dtype=mean.dtype)
            context = self._context_of_joints(self._groups(feature), mean)
            if context is not None:
                context = context.repeat(num_samples, 1)
            z = (mean + scaled(normal, scale)).reshape(-1, 3)
            return self.flow.from_base(z, context)[0].reshape(shape)
        if self.contexts is None:
            x = self.sample_residual(math.prod(shape[:3]), generator=generator).reshape(shape)
        elif self.conditioned_on_images:
            assert feature is not None
            number = num_samples * num_joints
            x = torch.stack(
                [
                    self.sample_residual(number, feature=one, generator=generator).reshape(
                        num_samples, num_joints, 3
                    )
                    for one in feature
                ],
                dim=1,
            )
        else:
            number = num_samples * num_images
            x = torch.stack(
                [
                    self.sample_residual(number, joint=joint, generator=generator).reshape(
                        num_samples, num_images, 3
                    )
                    for joint in range(num_joints)
                ],
                dim=2,
            )
        return mean + scaled(x.to(mean.dtype), scale)

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

    def _parts(
        self,
        mean: Tensor,
        scale: Tensor,
        target: Tensor,
        weight: Tensor | None,
        feature: Tensor | None,
        *,
        fixed: bool,
    ) -> dict[str, Tensor]:
        dtype = torch.promote_types(torch.promote_types(mean.dtype, scale.dtype), torch.float32)
        mean, scale, target = mean.to(dtype), scale.to(dtype), target.to(dtype)
        kind = self.config.kind
        if kind in ("l1", "l2"):
            labelled, weight = _labelled_axes(weight, dtype)
            error = _chosen(labelled, target - mean)
            return {"base": _weighted_sum(self.base.energy(error), weight)}
        if self.config.is_released:
            return self._released_parts(mean, scale, target, weight, feature)
        if self.flow is None and not is_triangular(scale):
            labelled, weight = _labelled_axes(weight, dtype)
            scale = masked_spread(scale, labelled)
            x = _chosen(labelled, target - mean) / scale
            share = self._influence(x)
            energy = self.base.energy(with_influence(x, share))
            return {
                "base": _weighted_sum(energy + self.base.log_constant, weight),
                "log_scale": _weighted_sum(with_influence(scale.log(), share), weight),
            }
        return self._joint_parts(mean, scale, target, weight, feature, fixed=fixed)

    def _joint_parts(
        self,
        mean: Tensor,
        scale: Tensor,
        target: Tensor,
        weight: Tensor | None,
        feature: Tensor | None,
        *,
        fixed: bool,
    ) -> dict[str, Tensor]:
        """Terms of a density of all axes of a joint, or of (u, v), together."""
        labelled, weight = _labelled_axes(weight, mean.dtype)
        num_axes: Tensor | int = 3
        no_depth = None
        if labelled is not None and weight is not None:
            labelled = _whole_or_planar(labelled)
            num_axes = labelled.sum(-1)
            no_depth = num_axes == 2
            weight = torch.where(labelled, weight, 0).sum(-1) / num_axes.clamp_min(1)
        # Chosen before, not after: what is not labelled enters nothing, so NaN cannot spread.
        scale = masked_spread(scale, labelled)
        parts: dict[str, Tensor] = {}
        if self.config.kind == "flow":
            z, log_abs_det = self._to_base(_chosen(labelled, target), no_depth, feature)
            x, log_scale = standardised(_chosen(labelled, z - mean), scale)
            parts["flow"] = -log_abs_det
        else:
            x, log_scale = standardised(_chosen(labelled, target - mean), scale)
        share = self._influence(x)
        if self.config.kind not in ("flow", "flow_reparam"):
            # What reaches μ and σ: the flow's weights see c(x) anyway.
            x, log_scale = with_influence(x, share), with_influence(log_scale, share)
        if self.config.kind in ("rle", "flow_reparam"):
            parts |= self._flow_parts(x, labelled, no_depth, feature, fixed=fixed)
        parts["log_scale"] = log_scale
        if self.config.kind != "flow_reparam":
            parts["base"] = self.base.energy(x).sum(-1) + self.base.log_constant * num_axes
        if self.config.kind in ("flow", "flow_reparam"):
            parts = {name: with_influence(part, share) for name, part in parts.items()}
        if weight is None:
            return parts
        return {name: weight * part for name, part in parts.items()}

    def _to_base(
        self, target: Tensor, no_depth: Tensor | None, feature: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """f⁻¹(y) and log |det ∂f⁻¹/∂y|; by the second flow where there is no depth."""
        assert self.flow is not None
        assert self.planar_flow is not None
        context = self._context_of_joints(self._groups(feature), target)
        flat = target.reshape(-1, 3)
        z, log_abs_det = self.flow.to_base(flat, context)
        values = torch.cat([z, log_abs_det[:, None]], dim=-1)
        rows = self._planar_rows(no_depth)
        if no_depth is not None and rows is not None:
            context = None if context is None else context[rows]
            z, log_abs_det = self.planar_flow.to_base(flat[rows, :2], context)
            planar = torch.cat([z, torch.zeros_like(z[:, :1]), log_abs_det[:, None]], dim=-1)
            values = self._with_planar(values, planar, no_depth, rows)
        values = values.reshape(*target.shape[:-1], 4)
        return values[..., :3], values[..., 3]

    def _flow_parts(
        self,
        x: Tensor,
        labelled: Tensor | None,
        no_depth: Tensor | None,
        feature: Tensor | None,
        *,
        fixed: bool,
    ) -> dict[str, Tensor]:
        """−log G and −log s of residuals; those without depth integrate Q·G, or G, over it."""
        assert self.flow is not None
        groups = self._groups(feature)
        context = self._context_of_joints(groups, x)
        is_normalised = self.config.is_normalised
        bounded = x.clamp(-self.bound, self.bound).reshape(-1, 3)
        proposal = self._proposal(bounded, labelled, fixed=fixed)
        draws = None if fixed else self._draws(groups, x.dtype)
        # One pass through the flow for everything that needs its density.
        inputs = [bounded if is_normalised else x.reshape(-1, 3)]
        contexts = [] if context is None else [context]
        rows = self._planar_rows(no_depth)
        if rows is not None:
            nodes, log_node_weight = self._depth_nodes(proposal, rows, draws)
            entering = nodes.clamp(-self.bound, self.bound) if is_normalised else nodes
            inputs.append(with_depth(inputs[0][rows, :2], entering).flatten(0, 1))
            if context is not None:
                contexts.append(context[rows].repeat_interleave(nodes.shape[-1], dim=0))
        if is_normalised:
            points = ResidualPoints.from_uniform(
                self._uniform(groups, x.dtype, draws), proposal, groups
            )
            inputs.append(points.wide.clamp(-self.bound, self.bound).flatten(0, 1))
            if groups is not None:
                contexts.append(groups.repeat_interleave(points.wide.shape[-2], dim=0))
        log_prob = self.flow.log_prob(torch.cat(inputs), torch.cat(contexts) if contexts else None)
        log_flow, *rest = log_prob.split([len(part) for part in inputs])
        if no_depth is not None and rows is not None:
            log_planar = (rest[0].reshape(nodes.shape) + log_node_weight).logsumexp(-1)
            log_flow = self._with_planar(log_flow, log_planar, no_depth, rows)
        parts = {"flow": -log_flow.reshape(x.shape[:-1])}
        if is_normalised:
            log_mass = weighted_points(
                *(self.flow, self.base, self.bound, proposal, points),
                rest[-1].reshape(points.wide.shape[:-1]),
            ).log_mass()
            if self.contexts is not None:
                log_mass = self.contexts.spread_over(log_mass)
            parts["log_s"] = log_mass.expand(x.shape[:-1])
        return parts

    def _released_parts(
        self,
        mean: Tensor,
        scale: Tensor,
        target: Tensor,
        weight: Tensor | None,
        feature: Tensor | None,
    ) -> dict[str, Tensor]:
        """Σ_a w_a [2 log σ_a − log G(b) + log √(2π) + |e_a| / (√2 σ_a + 1e-9)], b = −e/σ.

        Joints without depth have a second flow, over (u, v). With Q Gaussian, of which there is no
        published form, the last term is (e_a/σ_a)² / 2.
        """
        assert self.flow is not None
        assert self.planar_flow is not None
        if is_triangular(scale):
            raise ValueError(
                "likelihood.form=released is a sum over axes, each with its own σ, and has no "
                "full covariance; use likelihood.form=paper, or a head with one σ per axis"
            )
        labelled, weight = _labelled_axes(weight, mean.dtype)
        error = _chosen(labelled, target - mean)
        scale = masked_spread(scale, labelled)
        context = self._context_of_joints(self._groups(feature), mean)
        if self.bound < math.inf:
            share = self._influence(error / scale)
            error, scale = with_influence(error, share), with_influence(scale, share)
        b = (-error / scale).clamp(-self.bound, self.bound).reshape(-1, 3)
        log_flow = self.flow.log_prob(b, context)
        if labelled is not None:
            no_depth = labelled.any(-1) & ~labelled[..., 2]
            rows = self._planar_rows(no_depth)
            if rows is not None:
                context = None if context is None else context[rows]
                log_planar = self.planar_flow.log_prob(b[rows, :2], context)
                log_flow = self._with_planar(log_flow, log_planar, no_depth, rows)
        log_flow = log_flow.reshape(mean.shape[:-1])
        spread = math.sqrt(2) * scale + 1e-9 if self.base.name == "laplace" else scale
        base = self.base.energy(error / spread) + 0.5 * math.log(2 * math.pi)
        return {
            "base": _weighted_sum(base, weight),
            "log_scale": 2 * _weighted_sum(scale.log(), weight),
            "flow": -log_flow * (3 if weight is None else weight.sum(-1)),
        }

    def _influence(self, x: Tensor) -> Tensor | None:
        """How much of each joint's gradient counts, in training, where joints are noted, too."""
        if not (self.training and torch.is_grad_enabled()):
            return None
        self.last_bounded = (x.detach().abs() > self.bound).any(-1)
        self.num_bounded.add_(self.last_bounded.sum())
        return influence(x, self.bound, power=1 if self.base.name == "laplace" else 2)

    def _planar_rows(self, no_depth: Tensor | None) -> Tensor | None:
        """Indices, into the flattened joints, of those that may lack a depth label."""
        if no_depth is None or self.planar_joints == ():
            return None
        num_joints = no_depth.shape[1]
        if self.planar_joints is None:
            if torch.compiler.is_compiling():  # any joint: no shape may depend on the data
                return torch.arange(no_depth.numel(), device=no_depth.device)
            return no_depth.flatten().nonzero().squeeze(-1)
        first = torch.arange(0, no_depth.numel(), num_joints, device=no_depth.device)
        # Numbers of Python, not a tensor made from them: no copy to the device, nothing waits.
        return torch.stack([first + joint for joint in self.planar_joints], dim=-1).flatten()

    def _with_planar(
        self, values: Tensor, planar: Tensor, no_depth: Tensor, rows: Tensor
    ) -> Tensor:
        """Put the values of joints without depth into the place of the others'; [rows, ...]."""
        flat = no_depth.flatten()
        shape = (-1,) + (1,) * (values.ndim - 1)
        planar = torch.where(flat[rows].reshape(shape), planar, values[rows])
        merged = values.index_copy(0, rows, planar)
        if self.planar_joints is not None:
            unpromised = flat.index_fill(0, rows, False)
            merged = torch.where(unpromised.reshape(shape), math.nan, merged)
        return merged

    def _with_planar_estimate(
        self,
        whole: tuple[Tensor, Tensor],
        mean: Tensor,
        scale: Tensor,
        context: Tensor | None,
        joints: tuple[int, ...],
    ) -> tuple[Tensor, Tensor]:
        """Estimates of the kind flow, of which (u, v) of some joints are those of the second."""
        assert self.planar_flow is not None
        if not joints:
            return whole
        chosen = list(joints)
        plane = (..., slice(2), slice(2)) if is_triangular(scale) else (..., slice(2))
        if context is not None:
            context = context.reshape(*mean.shape[:2], context.shape[-1])[:, chosen].flatten(0, 1)
        planar = pushed_forward(
            self.planar_flow, mean[:, chosen, :2], scale[:, chosen][plane], context
        )
        location, spread = (values.clone() for values in whole)
        location[:, chosen, :2] = planar[0]
        own = spread[:, chosen]
        own[plane] = planar[1]
        if is_triangular(scale):  # the planes of the two flows know nothing of each other's depth
            own[..., 2, 2] = torch.linalg.vector_norm(own[..., 2, :], dim=-1)
            own[..., 2, :2] = 0
        spread[:, chosen] = own
        return location, spread

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

    def _depth_nodes(
        self, proposal: Proposal, rows: Tensor, draws: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Nodes over the depth of each of the rows, [rows nodes], and their log weights."""
        base = self.base if self.config.is_normalised else None
        if draws is not None:
            number, shift = self.config.num_depth_nodes, draws[-1]
            return depth_nodes(proposal, base, rows, num_nodes=number, shift=shift)
        nodes, log_weight = fixed_depth_nodes(proposal, base, self.bound, rule=self.depth_rule)
        return nodes.expand(len(rows), -1), log_weight

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


def _planar_counterpart(flow: Flow) -> Flow:
    """A second flow of the same kind and size, over (u, v)."""
    return type(flow)(flow.config, num_axes=2)


def _labelled_axes(
    weight: Tensor | None, dtype: torch.dtype
) -> tuple[Bool[Tensor, "batch joints 3"] | None, Float[Tensor, "batch joints 3"] | None]:
    """Which axes have a label, and their weights, 0 for the others; None where all count 1."""
    if weight is None:
        return None, None
    labelled = weight > 0
    return labelled, torch.where(labelled, weight.to(dtype), 0)


def _chosen(labelled: Tensor | None, value: Tensor) -> Tensor:
    """The value where there is a label, 0, without gradient, elsewhere."""
    return value if labelled is None else torch.where(labelled, value, 0)


def _weighted_sum(values: Tensor, weight: Tensor | None) -> Tensor:
    """Sum over axes."""
    return (values if weight is None else values * weight).sum(-1)


def _whole_or_planar(labelled: Tensor) -> Tensor:
    """Keep joints labelled on all axes or on u and v; drop every other pattern."""
    plane = labelled[..., :2].all(-1, keepdim=True)
    return torch.cat([plane, plane, plane & labelled[..., 2:]], dim=-1)
