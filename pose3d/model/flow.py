"""Densities of the standardised residual behind one interface: a RealNVP and a standard normal.

A flow is an invertible map between the residual x and a base variable z ~ N(0, I). `to_base` goes
from data to base, `from_base` back; both return the log absolute determinant of their Jacobian.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pose3d.model.coupling import CouplingWeights, log_prob_of_rows, map_rows
from pose3d.model.flow_base import Flow, FlowConfig, full_precision, standard_normal_log_prob
from pose3d.model.zuko_flow import ZukoFlow

__all__ = [
    "Flow",
    "FlowConfig",
    "ResidualFlow",
    "StandardNormal",
    "build_flow",
    "full_precision",
    "standard_normal_log_prob",
]


def build_flow(config: FlowConfig | None = None, *, num_axes: int = 3) -> Flow:
    """Build the flow that a config names; it starts close to the identity.

    Example:
        >>> flow = build_flow(FlowConfig(kind="realnvp", condition="joint", context_dim=4))
        >>> flow.log_prob(torch.zeros(5, 18, 3), torch.zeros(18, 4)).shape
        torch.Size([5, 18])

    Raises:
        ValueError: If the kind needs the extra `flows` and it is not installed.
    """
    config = config if config is not None else FlowConfig()
    if config.kind == "realnvp":
        return ResidualFlow(config, num_axes=num_axes)
    return ZukoFlow(config, num_axes=num_axes)


class ResidualFlow(Flow):
    """RealNVP with the layout of the released RLE: affine couplings that alternate two masks.

    Layer k keeps the last axis and changes the others where k is even, and the reverse where k is
    odd (for (u, v, d): masks [0,0,1], [1,1,0], ...). A coupling's scale network s (which ends in
    tanh) and shift network t are MLPs axes-hidden-hidden-axes with LeakyReLU. Their weights lie
    stacked, [layer, s or t, out, in] as in `nn.Linear`, so that one batched product evaluates both,
    and only on the axes that the mask leaves alive. The weights of the other axes exist, as in the
    released layout, but nothing depends on them. The map starts close to the identity.

    Args:
        config: Number and width of the couplings; None is six of width 64.
        num_axes: Axes of the residual: 3 for (u, v, d), 2 for (u, v).

    Example:
        >>> flow = ResidualFlow()
        >>> flow.log_prob(torch.zeros(5, 18, 3)).shape
        torch.Size([5, 18])

    Raises:
        ValueError: If there are fewer than two axes; by ``to_base``, ``from_base`` and
            ``log_prob``, if the last dimension of what is passed has another number of them.

    Source:
        Dinh et al., Density estimation using Real NVP, ICLR 2017; sizes of Li et al., Human Pose
        Regression with Residual Log-likelihood Estimation, ICCV 2021.
    """

    context_weight: nn.Parameter | None

    def __init__(self, config: FlowConfig | None = None, *, num_axes: int = 3) -> None:
        super().__init__(config, num_axes=num_axes)
        layers, hidden = self.config.num_layers, self.config.hidden_dim
        self.input_weight = nn.Parameter(torch.empty(layers, 2, hidden, num_axes))
        self.input_bias = nn.Parameter(torch.empty(layers, 2, hidden))
        self.hidden_weight = nn.Parameter(torch.empty(layers, 2, hidden, hidden))
        self.hidden_bias = nn.Parameter(torch.empty(layers, 2, hidden))
        self.output_weight = nn.Parameter(torch.empty(layers, 2, num_axes, hidden))
        self.output_bias = nn.Parameter(torch.empty(layers, 2, num_axes))
        self.context_weight = None
        if self.context_dim:
            shape = (layers, 2, hidden, self.context_dim)
            self.context_weight = nn.Parameter(torch.empty(shape))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the hidden layers as `nn.Linear` does and the last ones near zero (identity)."""
        for parameter, fan_in in (
            (self.input_weight, self.num_axes),
            (self.input_bias, self.num_axes),
            (self.hidden_weight, self.config.hidden_dim),
            (self.hidden_bias, self.config.hidden_dim),
        ):
            parameter.uniform_(-(fan_in**-0.5), fan_in**-0.5)
        bound = 0.01 * math.sqrt(6 / (self.num_axes + self.config.hidden_dim))  # xavier, gain 0.01
        self.output_weight.uniform_(-bound, bound)
        self.output_bias.zero_()
        if self.context_weight is not None:
            bound = self.context_dim**-0.5
            self.context_weight.uniform_(-bound, bound)

    def to_base(
        self,
        x: Float[Tensor, "*batch axes"],
        context: Float[Tensor, "*contexts context_dim"] | None = None,
    ) -> tuple[Float[Tensor, "*batch axes"], Float[Tensor, "*batch"]]:
        """Map residuals to base variables; see `Flow.to_base`."""
        return self._map(x, context, inverse=False)

    def from_base(
        self,
        z: Float[Tensor, "*batch axes"],
        context: Float[Tensor, "*contexts context_dim"] | None = None,
    ) -> tuple[Float[Tensor, "*batch axes"], Float[Tensor, "*batch"]]:
        """Map base variables to residuals; see `Flow.from_base`."""
        return self._map(z, context, inverse=True)

    def log_prob(
        self,
        x: Float[Tensor, "*batch axes"],
        context: Float[Tensor, "*contexts context_dim"] | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Log density of the residual x, nats; see `Flow.log_prob`."""
        self.check(x, context)
        with full_precision(x):
            return log_prob_of_rows(*self._cast(x, context))

    def _map(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        self.check(x, context)
        with full_precision(x):
            return map_rows(*self._cast(x, context), inverse=inverse)

    def _cast(
        self, x: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor | None, CouplingWeights]:
        """x, the context with one axis for its batch, and the weights, all of one dtype."""
        dtype = torch.promote_types(x.dtype, self.input_weight.dtype)
        if context is not None:
            if context.shape[:-1].numel() != 1:
                context = context.expand(*x.shape[:-1], self.context_dim)
            context = context.reshape(-1, self.context_dim).to(dtype)
        parameters = (getattr(self, name) for name in CouplingWeights._fields)
        weights = CouplingWeights(
            *(
                each if each is None or each.dtype == dtype else each.to(dtype)
                for each in parameters
            )
        )
        return x if x.dtype == dtype else x.to(dtype), context, weights


class StandardNormal(Flow):
    """N(0, I) behind the interface of `Flow`: a flow that has learnt nothing."""

    def to_base(
        self,
        x: Float[Tensor, "*batch axes"],
        context: Float[Tensor, "*contexts context_dim"] | None = None,
    ) -> tuple[Float[Tensor, "*batch axes"], Float[Tensor, "*batch"]]:
        """Return x and a log determinant of 0; the context changes nothing."""
        return x, torch.zeros_like(x[..., 0])

    def from_base(
        self,
        z: Float[Tensor, "*batch axes"],
        context: Float[Tensor, "*contexts context_dim"] | None = None,
    ) -> tuple[Float[Tensor, "*batch axes"], Float[Tensor, "*batch"]]:
        """Return z and a log determinant of 0; the context changes nothing."""
        return z, torch.zeros_like(z[..., 0])

    @torch.no_grad()
    def sample(
        self,
        shape: Sequence[int] = (),
        *,
        context: Float[Tensor, "*contexts context_dim"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch axes"]:
        """Draw residuals of batch shape `shape`, on the generator's device."""
        device = generator.device if generator is not None else None
        return torch.randn(*shape, self.num_axes, generator=generator, device=device)
