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
from torch import Tensor

from pose3d.model.flow import Flow, full_precision
from pose3d.model.likelihood_config import LikelihoodConfig
from pose3d.model.marginal import depth_nodes, fixed_depth_nodes, gauss_rule, with_depth
from pose3d.model.normaliser import ResidualPoints, weighted_points
from pose3d.model.planar import planar_rows, with_planar
from pose3d.model.proposal import Proposal
from pose3d.model.pushforward import pushed_forward, with_planar_part
from pose3d.model.residual_law import ResidualLaw
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


class Likelihood(ResidualLaw):
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

    def __init__(
        self,
        config: LikelihoodConfig | None = None,
        flow: Flow | None = None,
        *,
        planar_joints: tuple[int, ...] | None = None,
        num_joints: int | None = None,
        feature_dim: int | None = None,
    ) -> None:
        config = config if config is not None else LikelihoodConfig()
        super().__init__(config, flow, num_joints=num_joints, feature_dim=feature_dim)
        self.planar_joints = planar_joints
        self.last_bounded: Tensor | None = None
        self.depth_rule = gauss_rule(config.num_evaluation_depth_nodes // 2)
        counter = torch.zeros((), dtype=torch.int64)
        self.register_buffer("num_bounded", counter, persistent=False)

    @property
    def is_likelihood(self) -> bool:
        """Whether exp(−loss) integrates to 1 over the label for every μ and σ."""
        return self.config.kind not in ("l1", "l2") and not self.config.is_released

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
                assert self.planar_flow is not None
                return with_planar_part(
                    whole, self.planar_flow, mean, scale, context, joints=planar_joints
                )
            if centred:
                centre = self.residual_centre(feature=feature).to(mean)
                return mean + scaled(centre.expand_as(mean), scale), scale
            return mean, scale

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
        x = self._residuals_of_joints(shape, feature, generator)
        return mean + scaled(x.to(mean.dtype), scale)

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
        rows = planar_rows(no_depth, self.planar_joints)
        if no_depth is not None and rows is not None:
            context = None if context is None else context[rows]
            z, log_abs_det = self.planar_flow.to_base(flat[rows, :2], context)
            planar = torch.cat([z, torch.zeros_like(z[:, :1]), log_abs_det[:, None]], dim=-1)
            values = with_planar(
                values, planar, no_depth, rows, is_promised=self.planar_joints is not None
            )
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
        rows = planar_rows(no_depth, self.planar_joints)
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
            log_flow = with_planar(
                log_flow, log_planar, no_depth, rows, is_promised=self.planar_joints is not None
            )
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
        share = self._influence(error / scale)
        error, scale = with_influence(error, share), with_influence(scale, share)
        b = (-error / scale).clamp(-self.bound, self.bound).reshape(-1, 3)
        log_flow = self.flow.log_prob(b, context)
        if labelled is not None:
            no_depth = labelled.any(-1) & ~labelled[..., 2]
            rows = planar_rows(no_depth, self.planar_joints)
            if rows is not None:
                context = None if context is None else context[rows]
                log_planar = self.planar_flow.log_prob(b[rows, :2], context)
                log_flow = with_planar(
                    log_flow, log_planar, no_depth, rows, is_promised=self.planar_joints is not None
                )
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
        if not (self.training and torch.is_grad_enabled()) or self.bound == math.inf:
            return None
        self.last_bounded = (x.detach().abs() > self.bound).any(-1)
        self.num_bounded.add_(self.last_bounded.sum())
        return influence(x, self.bound, power=1 if self.base.name == "laplace" else 2)

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
