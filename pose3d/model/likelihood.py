"""Likelihoods of a joint's label under a predicted location μ and scale σ: unreduced, in nats.

With x̄ = (y − μ) / σ, axis by axis, Q a fixed factorised density and G_φ a flow over (u, v, d):

    l1, l2              Σ_a |y_a − μ_a|, Σ_a (y_a − μ_a)² / 2     constants dropped: no likelihoods
    laplace, gaussian   Σ_a log σ_a − log Q(x̄)
    rle, paper          Σ_a log σ_a − log Q(x̄) − log G_φ(x̄) − log s(φ),   1/s = ∫ Q·G_φ
    rle, released       what the released RLE code minimises; exp(−loss) is no density

Residual guard: the flow sees c(x̄), x̄ clamped to ±`residual_bound` on each axis, so that one wrong
label cannot swamp it. The exact form stays a density, because its normaliser is that of the clamped
product, 1/s = ∫ Q(x)·G(c(x)) dx; beyond the bound the label's density falls as Q does.

The normaliser. 1/s = E_{z~N}[Q(f(z))] is blind where the flow is wide, and heavy-tailed residuals
make it so: G must then outweigh Q's tails, and nearly all its mass lies where Q has none.
1/s = E_{x~Q}[G(x)] is blind where the flow is sharp, and to what P holds beyond Q's bulk. Training
exploits a blind estimate: it moves mass to where nothing is counted, and runs away. Half of the
points are therefore drawn from the flow and half from W, a density that follows the residuals seen
in training (so that no scale of σ escapes it): Student's t with two degrees of freedom, on each
axis for one half of W and trivariate for the other, about their running mean and mean absolute
deviation. Both are weighed by the balance heuristic (Veach & Guibas 1995),

    1/s = E_{x~W}[Q·G / (W+G)] + E_{x~G}[Q·G / (W+G)],

where, beyond the bound, W's points count Q·G(c(x)) / W and the flow's count 0. The points are
Sobol's, shifted at random modulo 1 in training (one draw of eight numbers from torch's global
generator), fixed and more numerous in evaluation. The gradient is pathwise.

Error of log s in nats, rms over 16 shifts against quadrature, after 400 steps of the exact form
(Q Laplace) on residuals of σ = 1; one-sided estimates are off by 1 to 20 nats on most rows:

    residuals                                    log s   1024 points   4096 points
    Student's t of 2 d.o.f., skewed               36.3        0.023         0.007
    uniform in ±3                                 17.5        0.028         0.009
    normal, deviation 0.1                          2.3        0.003         0.001
    normal, deviation 6                           40.2        0.023         0.009
    normal at (2, −2, 3), deviation 0.3           10.7        0.010         0.006
    normal, deviations 4, 0.3, 0.1                 8.5        0.034         0.017
    eight clusters at ±2.5, deviation 0.15        25.4        0.35          0.18
    a bent sheet 0.1 thick                         8.6        0.39          0.09
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pose3d.model.flow import (
    ResidualFlow,
    StandardNormal,
    full_precision,
    standard_normal_log_prob,
)

KINDS = ("l1", "l2", "laplace", "gaussian", "rle")
BASES = ("laplace", "gaussian")
FORMS = ("paper", "released")
PACE_OF_PROPOSALS = 0.1
"""Share of the newest batch in the running location and spread of the residuals."""
LOG_CONSTANT_OF_BALL = math.lgamma(2.5) - 1.5 * math.log(2 * math.pi)
"""Log density at 0 of the trivariate Student's t with two degrees of freedom."""
BOUND_OF_BASE = {"laplace": 10.0, "gaussian": 5.0}
"""Standard residual bound of the exact form; Q leaves under 5e-5 of its mass beyond it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LikelihoodConfig:
    """Which density of the label, and how exactly it is normalised."""

    kind: str = "rle"
    """l1, l2 (constant scale), laplace, gaussian (predicted scale) or rle (Q times a flow)."""
    base: str = "laplace"
    """Q of rle: laplace or gaussian."""
    form: str = "paper"
    """rle only: paper is the normalised density, released what the published weights minimised."""
    residual_bound: float | None = None
    """Largest standardised residual that enters the flow, per axis; null: none in the form
    released, which is then exactly the published loss, else 10 for Q Laplace, 5 for Q Gaussian."""
    num_normaliser_samples: int = 1024
    """Points for log s in training; half from the flow, half from where residuals were seen."""
    num_evaluation_samples: int = 8192
    """Points for log s in evaluation mode."""
    num_depth_nodes: int = 32
    """Quadrature nodes over the depth of a joint without depth label."""

    def __post_init__(self) -> None:
        for name, allowed in (("kind", KINDS), ("base", BASES), ("form", FORMS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"likelihood.{name} must be one of {', '.join(allowed)}, "
                    f"got {getattr(self, name)!r}"
                )
        if self.residual_bound is not None and not self.residual_bound > 0:
            raise ValueError(f"likelihood.residual_bound must be > 0, got {self.residual_bound}")
        for name in ("num_normaliser_samples", "num_evaluation_samples", "num_depth_nodes"):
            if getattr(self, name) < 4 or getattr(self, name) % 4:
                raise ValueError(
                    f"likelihood.{name} must be a positive multiple of 4, got {getattr(self, name)}"
                )


class Likelihood(nn.Module):
    """Negative log-likelihood of labels, per joint, in nats.

    Args:
        config: Which density.
        flow: Density of the standardised residual; needed by the kind rle, unused by the others.
        planar_joints: None finds the joints without depth label from the weights, which makes the
            host wait for a GPU once. Given, shapes are static and nothing waits: only the joints
            named here, such as (skeleton.root,), may lack depth, others give NaN where they do.
        num_joints: Of the skeleton; a flow conditioned on the joint needs it.
        feature_dim: Length of the image feature; a flow conditioned on it needs it.

    Attributes:
        last_bounded: Bool [batch joints], the joints whose residual was bounded in the last
            forward pass in training; None before it.

    Example:
        >>> likelihood = Likelihood(LikelihoodConfig(), ResidualFlow())
        >>> mean, scale = torch.zeros(4, 18, 3), torch.full((4, 18, 3), 0.1)
        >>> likelihood(mean, scale, torch.zeros(4, 18, 3)).shape
        torch.Size([4, 18])

    Raises:
        ValueError: If the kind is rle and there is no flow, or the flow is not over three axes.

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
    depth_nodes: Tensor
    depth_log_mass: Tensor

    def __init__(
        self,
        config: LikelihoodConfig | None = None,
        flow: ResidualFlow | StandardNormal | None = None,
        *,
        planar_joints: tuple[int, ...] | None = None,
        num_joints: int | None = None,
        feature_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config if config is not None else LikelihoodConfig()
        self.planar_joints = planar_joints
        self.num_joints, self.feature_dim = num_joints, feature_dim
        self.last_bounded: Tensor | None = None
        is_rle = self.config.kind == "rle"
        if is_rle and (flow is None or flow.num_axes != 3):
            raise ValueError("likelihood.kind rle needs a flow over 3 axes: pass ResidualFlow()")
        self.flow = flow if is_rle else None
        self.planar_flow = None
        if flow is not None and is_rle and self.config.form == "released":
            self.planar_flow = type(flow)(flow.config, num_axes=2)
        self.base = self.config.base if is_rle else _BASE_OF_KIND[self.config.kind]
        self.bound = self.config.residual_bound or (
            BOUND_OF_BASE[self.base] if self.config.form == "paper" else math.inf
        )
        counter = torch.zeros((), dtype=torch.int64)
        self.register_buffer("num_bounded", counter, persistent=False)
        for name, number in (
            ("training_points", self.config.num_normaliser_samples),
            ("evaluation_points", self.config.num_evaluation_samples),
        ):
            sobol = torch.quasirandom.SobolEngine(4, scramble=True, seed=0)
            self.register_buffer(name, sobol.draw(number // 2), persistent=False)
        self.register_buffer("residual_location", torch.zeros(3))
        self.register_buffer("residual_spread", torch.ones(3))
        nodes, log_mass = _depth_rule(self.base, self.bound, self.config.num_depth_nodes)
        self.register_buffer("depth_nodes", nodes, persistent=False)
        self.register_buffer("depth_log_mass", log_mass, persistent=False)

    @property
    def is_likelihood(self) -> bool:
        """Whether exp(−loss) integrates to 1 over the label for every μ and σ."""
        kind, form = self.config.kind, self.config.form
        return kind in ("laplace", "gaussian") or (kind == "rle" and form == "paper")

    def forward(
        self,
        mean: Float[Tensor, "batch joints 3"],
        scale: Float[Tensor, "batch joints 3"],
        target: Float[Tensor, "batch joints 3"],
        weight: Float[Tensor, "batch joints 3"] | None = None,
        *,
        feature: Float[Tensor, "batch features"] | None = None,
    ) -> Float[Tensor, "batch joints"]:
        """Negative log-likelihood of each joint; may be negative, is 0 for unlabelled joints.

        Args:
            mean: Predicted μ, uvd.
            scale: Predicted σ, uvd, > 0.
            target: Labels, uvd; anything, NaN included, where the weight is 0.
            weight: Per axis, >= 0; None is 1. In the form paper a joint labelled on all axes has
                its 3-D density, one without depth the exact marginal over depth, any other
                pattern counts nothing, and the mean weight of the labelled axes multiplies. All
                other losses are sums over axes, each with its own weight.

        Returns:
            Nats per joint, unreduced; float32, or float64 where the predictions are.
        """
        parts = self.parts(mean, scale, target, weight, feature=feature)
        return torch.stack(list(parts.values())).sum(0)

    def parts(
        self,
        mean: Float[Tensor, "batch joints 3"],
        scale: Float[Tensor, "batch joints 3"],
        target: Float[Tensor, "batch joints 3"],
        weight: Float[Tensor, "batch joints 3"] | None = None,
        *,
        feature: Float[Tensor, "batch features"] | None = None,
    ) -> dict[str, Float[Tensor, "batch joints"]]:
        """Summands of `forward` by name: base and, where there are such, log_scale, flow, log_s.

        Each enters the loss with the sign it has here: `flow` is −log G, `log_s` is −log s.
        """
        with full_precision(mean):
            return self._parts(mean, scale, target, weight, fixed=not self.training)

    @torch.no_grad()
    def terms(
        self,
        mean: Float[Tensor, "batch joints 3"],
        scale: Float[Tensor, "batch joints 3"],
        target: Float[Tensor, "batch joints 3"],
        weight: Float[Tensor, "batch joints 3"] | None = None,
        *,
        feature: Float[Tensor, "batch features"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Means of `parts` over the labelled joints, for logs; draws no random numbers."""
        weight = torch.ones_like(mean) if weight is None else weight
        num_labelled = (weight > 0).any(-1).sum().clamp_min(1)
        with full_precision(mean):
            parts = self._parts(mean, scale, target, weight, fixed=True)
        return {name: part.sum() / num_labelled for name, part in parts.items()}

    def estimate(
        self, mean: Float[Tensor, "batch joints 3"], scale: Float[Tensor, "batch joints 3"]
    ) -> tuple[Float[Tensor, "batch joints 3"], Float[Tensor, "batch joints 3"]]:
        """Location and scale of the label, uvd, from the predicted μ and σ: these themselves."""
        return mean, scale

    def log_normaliser(self) -> Float[Tensor, ""]:
        """log s of the form paper, nats, with its gradient; 0 for every other loss.

        Fixed points in evaluation mode, randomly shifted ones in training mode.
        """
        if self.flow is None or not self._has_normaliser:
            return self.evaluation_points.new_zeros(())
        with full_precision(self.evaluation_points):
            wide, normal = self._points(torch.float32, fixed=not self.training)
            log_flow = self.flow.log_prob(wide.clamp(-self.bound, self.bound))
            return -self._log_mass(wide, log_flow, normal)

    def residual_log_prob(self, x: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """Normalised log density of the standardised residual x̄ = (y − μ) / σ, nats.

        For l1 and l2, which have no scale, of the residual y − μ itself.

        Raises:
            ValueError: For the form released, whose loss is no likelihood.
        """
        self._require_density()
        log_base = -(self._energy(x) + self._log_constant).sum(-1)
        if self.flow is None:
            return log_base
        with full_precision(x):
            wide, normal = self._points(x.dtype, fixed=True)
            inputs = torch.cat([x.reshape(-1, 3), wide]).clamp(-self.bound, self.bound)
            log_x, log_wide = self.flow.log_prob(inputs).split([x[..., 0].numel(), len(wide)])
            log_mass = self._log_mass(wide, log_wide, normal)
            return log_base + log_x.reshape(x.shape[:-1]) - log_mass

    @torch.no_grad()
    def sample_residual(
        self, num_samples: int, *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "samples 3"]:
        """Draw from the density of `residual_log_prob`.

        The exact form is drawn by resampling, with replacement, the points that would give its
        normaliser, at least 16 times as many: a point may come twice.

        Raises:
            ValueError: For the form released, which has no density.
        """
        self._require_density()
        device = self.evaluation_points.device
        if self.flow is None:
            uniform = torch.rand(num_samples, 3, generator=generator, device=device)
            return _base_quantile(self.base, uniform.clamp(1e-6, 1 - 1e-6))
        num_pool = max(8 * num_samples, 2**15)
        uniform = torch.rand(2, num_pool, 4, generator=generator, device=device)
        wide, normal = self._wide_and_normal(uniform)
        log_flow = self.flow.log_prob(wide.clamp(-self.bound, self.bound))
        x, log_flow, log_wide = self._proposals(wide, log_flow, normal)
        log_base = -self._energy(x).sum(-1)
        log_ratio = log_base + log_flow - self._log_mixture(x, log_flow, log_wide, num_pool)
        chance = (log_ratio - log_ratio.max()).exp()
        return x[torch.multinomial(chance, num_samples, replacement=True, generator=generator)]

    def _require_density(self) -> None:
        if self.config.kind == "rle" and self.config.form == "released":
            raise ValueError(
                "the released form of rle is no likelihood, so its residual has no density; "
                "train with likelihood.form=paper"
            )

    @property
    def _has_normaliser(self) -> bool:
        return self.config.kind == "rle" and self.config.form == "paper"

    @property
    def _log_constant(self) -> float:
        """−log Q(0) per axis."""
        return math.log(2) if self.base == "laplace" else 0.5 * math.log(2 * math.pi)

    def _energy(self, x: Tensor) -> Tensor:
        """−log Q(x) per axis, less its constant."""
        return x.abs() if self.base == "laplace" else 0.5 * x.square()

    def _parts(
        self,
        mean: Tensor,
        scale: Tensor,
        target: Tensor,
        weight: Tensor | None,
        *,
        fixed: bool,
    ) -> dict[str, Tensor]:
        dtype = torch.promote_types(torch.promote_types(mean.dtype, scale.dtype), torch.float32)
        rows = mean.new_zeros(0, dtype=torch.int64)  # joints without depth
        if weight is None:
            labelled = torch.ones_like(mean, dtype=torch.bool)
            weight = torch.ones_like(mean, dtype=dtype)
        else:
            labelled, weight = weight > 0, weight.to(dtype)
            if self._has_normaliser:
                labelled = _whole_or_planar(labelled)
            if self.flow is not None:
                rows = self._planar_rows(labelled)
        # Chosen before, not after: what is not labelled enters nothing, so NaN cannot spread.
        weight = torch.where(labelled, weight, 0)
        mean = torch.where(labelled, mean.to(dtype), 0)
        target = torch.where(labelled, target.to(dtype), 0)
        scale = torch.where(labelled, scale.to(dtype), 1)
        error = target - mean
        if self.config.kind in ("l1", "l2"):
            return {"base": (weight * self._energy(error)).sum(-1)}
        if self.flow is None:
            base = self._energy(error / scale) + self._log_constant
            return {
                "base": (weight * base).sum(-1),
                "log_scale": (weight * scale.log()).sum(-1),
            }
        if self.config.form == "released":
            return self._released_parts(error, scale, weight, rows)
        return self._exact_parts(error / scale, scale, weight, rows, fixed=fixed)

    def _exact_parts(
        self, x: Tensor, scale: Tensor, weight: Tensor, rows: Tensor, *, fixed: bool
    ) -> dict[str, Tensor]:
        """Terms of Σ log σ − log Q − log G − log s; rows without depth integrate Q·G over it."""
        assert self.flow is not None
        labelled = (weight > 0).to(weight.dtype)
        weight = weight.sum(-1) / labelled.sum(-1).clamp_min(1)  # [batch joints]
        bounded = self._bounded(x).reshape(-1, 3)
        if not fixed:
            self._follow(bounded.detach(), labelled.reshape(-1, 3))
        wide, normal = self._points(x.dtype, fixed=fixed)
        over_depth = self._over_depth(bounded[rows])
        # One pass through the flow for everything that needs its density.
        inputs = torch.cat([bounded, wide.clamp(-self.bound, self.bound), over_depth.flatten(0, 1)])
        log_flow, log_wide, log_depth = self.flow.log_prob(inputs).split(
            [len(bounded), len(wide), over_depth[..., 0].numel()]
        )
        log_depth = log_depth.reshape(over_depth.shape[:-1]) + self.depth_log_mass.to(x.dtype)
        log_flow = self._with_planar(
            log_flow, log_depth.logsumexp(-1), weighted=labelled, rows=rows
        )
        log_mass = self._log_mass(wide, log_wide, normal)
        base = ((self._energy(x) + self._log_constant) * labelled).sum(-1)
        return {
            "base": weight * base,
            "log_scale": weight * scale.log().sum(-1),
            "flow": -weight * log_flow,
            "log_s": weight * log_mass,
        }

    def _released_parts(
        self, error: Tensor, scale: Tensor, weight: Tensor, rows: Tensor
    ) -> dict[str, Tensor]:
        """Σ_a w_a [2 log σ_a − log G(b) + log √(2π) + |e_a| / (√2 σ_a + 1e-9)], b = −e/σ.

        Joints without depth have a second flow, over (u, v). With Q Gaussian, of which there is no
        published form, the last term is (e_a/σ_a)² / 2.
        """
        assert self.flow is not None
        assert self.planar_flow is not None
        bounded = self._bounded(-error / scale).reshape(-1, 3)
        log_flow = self.flow.log_prob(bounded)
        log_planar = self.planar_flow.log_prob(bounded[rows, :2])
        log_flow = self._with_planar(log_flow, log_planar, weighted=weight, rows=rows)
        is_laplace = self.base == "laplace"
        spread = math.sqrt(2) * scale + 1e-9 if is_laplace else scale
        base = self._energy(error / spread) + 0.5 * math.log(2 * math.pi)
        return {
            "base": (weight * base).sum(-1),
            "log_scale": 2 * (weight * scale.log()).sum(-1),
            "flow": -weight.sum(-1) * log_flow,
        }

    def _bounded(self, x: Tensor) -> Tensor:
        """Residual that enters the flow; counts the joints it changes."""
        if self.training and torch.is_grad_enabled():
            self.last_bounded = (x.detach().abs() > self.bound).any(-1)
            self.num_bounded.add_(self.last_bounded.sum())
        return x.clamp(-self.bound, self.bound)

    def _planar_rows(self, labelled: Tensor) -> Tensor:
        """Indices, into the flattened joints, of those that may lack a depth label."""
        num_batch, num_joints, _ = labelled.shape
        if self.planar_joints is None:
            planar = labelled.any(-1) & ~labelled[..., 2]
            return planar.flatten().nonzero().squeeze(-1)
        first = torch.arange(num_batch, device=labelled.device) * num_joints
        if not self.planar_joints:
            return first[:0]
        # Numbers of Python, not a tensor made from them: no copy to the device, nothing waits.
        return torch.stack([first + joint for joint in self.planar_joints], dim=-1).flatten()

    def _over_depth(self, x: Tensor) -> Tensor:
        """[rows 3] to [rows nodes 3]: every depth node under each (u, v)."""
        nodes = self.depth_nodes.to(x.dtype)
        plane = x[:, None, :2].expand(-1, len(nodes), -1)
        return torch.cat([plane, nodes[None, :, None].expand(len(x), -1, -1)], dim=-1)

    def _with_planar(
        self, log_flow: Tensor, log_planar: Tensor, *, weighted: Tensor, rows: Tensor
    ) -> Tensor:
        """Put the planar log densities in the place of joints without depth; [batch joints]."""
        alive = weighted > 0
        no_depth = (alive.any(-1) & ~alive[..., 2]).flatten()
        log_planar = torch.where(no_depth[rows], log_planar, log_flow[rows])
        merged = log_flow.index_copy(0, rows, log_planar)
        if self.planar_joints is not None:
            promised = torch.zeros_like(no_depth).index_fill(0, rows, True)
            merged = torch.where(no_depth & ~promised, math.nan, merged)
        return merged.reshape(weighted.shape[:-1])

    def _points(self, dtype: torch.dtype, *, fixed: bool) -> tuple[Tensor, Tensor]:
        """Quasi-random points of W and of the flow's base, [points 3] each."""
        points = (self.evaluation_points if fixed else self.training_points).to(dtype)
        shift = points.new_zeros(2, 1, 4)
        if not fixed:
            shift = torch.rand(shift.shape, device=points.device, dtype=dtype)
        return self._wide_and_normal((points + shift) % 1)

    def _wide_and_normal(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Points of W and of N(0, I), [points 3] each, from uniform ones, [2 points 4]."""
        uniform = uniform.clamp(1e-6, 1 - 1e-6)
        axis, ball = uniform[0].chunk(2)
        axis = (2 * axis[:, :3] - 1) / (2 * axis[:, :3] * (1 - axis[:, :3])).sqrt()
        ball = torch.special.ndtri(ball[:, :3]) / (-ball[:, 3:].log()).sqrt()
        location, spread = self.residual_location.clone(), self.residual_spread.clone()
        wide = location.to(uniform.dtype) + spread.to(uniform.dtype) * torch.cat([axis, ball])
        return wide, torch.special.ndtri(uniform[1, :, :3])

    @torch.no_grad()
    def _follow(self, x: Tensor, labelled: Tensor) -> None:
        """Move W towards the residuals of this batch, [joints 3]; axes without labels stay."""
        count = labelled.sum(0)
        location = (x * labelled).sum(0) / count.clamp_min(1)
        spread = ((x - location).abs() * labelled).sum(0) / count.clamp_min(1)
        is_sound = (count > 0) & spread.isfinite()
        for buffer, value in (
            (self.residual_location, location),
            (self.residual_spread, spread.clamp_min(1e-3)),
        ):
            moved = buffer.lerp(value.to(buffer.dtype), PACE_OF_PROPOSALS)
            buffer.copy_(torch.where(is_sound, moved, buffer))

    def _log_mass(self, wide: Tensor, log_flow_of_wide: Tensor, normal: Tensor) -> Tensor:
        """log ∫ Q(x)·G(c(x)) dx by the balance heuristic; see the module's docstring.

        Args:
            wide: Points of W, [points 3].
            log_flow_of_wide: log G(c(x)) at them, [points].
            normal: Points of the flow's base, [points 3].
        """
        x, log_flow, log_wide = self._proposals(wide, log_flow_of_wide, normal)
        log_base = -(self._energy(x) + self._log_constant).sum(-1)
        log_ratio = log_base + log_flow - self._log_mixture(x, log_flow, log_wide, len(wide))
        return log_ratio.logsumexp(0) - math.log(len(wide))

    def _proposals(
        self, wide: Tensor, log_flow_of_wide: Tensor, normal: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Points of W, then of G, with log G (clamped for W's) and log W at each."""
        assert self.flow is not None
        from_flow, log_abs_det = self.flow.from_base(normal)
        log_flow_of_flow = standard_normal_log_prob(normal) - log_abs_det
        x = torch.cat([wide, from_flow])
        spread = self.residual_spread.clone().to(x.dtype)
        square = ((x - self.residual_location.clone().to(x.dtype)) / spread).square()
        axis = -1.5 * (2 + square).log().sum(-1)
        ball = LOG_CONSTANT_OF_BALL - 2.5 * torch.log1p(square.sum(-1) / 2)
        log_wide = torch.logaddexp(axis, ball) - math.log(2) - spread.log().sum()
        return x, torch.cat([log_flow_of_wide, log_flow_of_flow]), log_wide

    def _log_mixture(self, x: Tensor, log_flow: Tensor, log_wide: Tensor, num_wide: int) -> Tensor:
        """log(W + G) within the bound; beyond it log W for points of W, infinite for the others."""
        is_inside = (x.abs() <= self.bound).all(-1)
        beyond = torch.full_like(log_wide, math.inf)
        beyond[:num_wide] = log_wide[:num_wide]
        return torch.where(is_inside, torch.logaddexp(log_wide, log_flow), beyond)


_BASE_OF_KIND = {"l1": "laplace", "l2": "gaussian", "laplace": "laplace", "gaussian": "gaussian"}


def _whole_or_planar(labelled: Tensor) -> Tensor:
    """Keep joints labelled on all axes or on u and v; drop every other pattern."""
    plane = labelled[..., :2].all(-1, keepdim=True)
    return torch.cat([plane, plane, plane & labelled[..., 2:]], dim=-1)


def _base_quantile(base: str, uniform: Tensor) -> Tensor:
    """Points of Q from points of the unit cube."""
    if base == "gaussian":
        return torch.special.ndtri(uniform)
    centred = uniform - 0.5
    return -centred.sign() * torch.log1p(-2 * centred.abs())


def _depth_rule(base: str, bound: float, num_nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes t and log masses w for ∫ Q(t)·g(c(t)) dt = Σ w·g(t).

    Gauss-Legendre on either side of 0, where Q may have its kink, after t = a·sinh(b·τ), which is
    dense near 0. Beyond the bound g is constant: two last nodes at ±bound hold all that mass.
    """
    edge = min(bound, 30.0 if base == "laplace" else 8.0)
    nodes, masses = np.polynomial.legendre.leggauss(num_nodes // 2)
    stretch = math.asinh(edge / 0.5)
    t = 0.5 * np.sinh(stretch * (nodes + 1) / 2)
    log_width = np.log(masses / 2 * 0.5 * stretch * np.cosh(stretch * (nodes + 1) / 2))
    if base == "laplace":
        log_mass, log_tail = log_width - t - math.log(2), -edge - math.log(2)
    else:
        log_mass = log_width - t**2 / 2 - 0.5 * math.log(2 * math.pi)
        log_tail = math.log(math.erfc(edge / math.sqrt(2)) / 2)
    positive = torch.tensor([*t, edge], dtype=torch.float32)
    log_masses = torch.tensor([*log_mass, log_tail], dtype=torch.float32)
    return torch.cat([-positive, positive]), torch.cat([log_masses, log_masses])
