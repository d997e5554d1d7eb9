"""Densities of the standardised residual behind one interface: a RealNVP and a standard normal.

A flow is an invertible map between the residual x and a base variable z ~ N(0, I). `to_base` goes
from data to base, `from_base` back; both return the log absolute determinant of their Jacobian.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowConfig:
    """RealNVP over the standardised residual (u, v, d)."""

    num_layers: int = 6
    """Coupling layers, alternating which axes are kept; the released RLE uses 3 pairs."""
    hidden_dim: int = 64
    """Width of both hidden layers of the scale and shift networks."""

    def __post_init__(self) -> None:
        if self.num_layers < 2:
            raise ValueError(f"flow.num_layers must be >= 2 (one per mask), got {self.num_layers}")
        if self.hidden_dim < 1:
            raise ValueError(f"flow.hidden_dim must be >= 1, got {self.hidden_dim}")


@contextmanager
def full_precision(like: Tensor) -> Iterator[None]:
    """Suspend autocast on the device of `like`: densities are computed in float32 or float64."""
    with torch.autocast(device_type=like.device.type, enabled=False):
        yield


def standard_normal_log_prob(z: Float[Tensor, "*batch axes"]) -> Float[Tensor, "*batch"]:
    """Log density of N(0, I) at z, nats."""
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi))


class ResidualFlow(nn.Module):
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

    def __init__(self, config: FlowConfig | None = None, *, num_axes: int = 3) -> None:
        super().__init__()
        if num_axes < 2:
            raise ValueError(f"num_axes must be >= 2 (a coupling keeps one), got {num_axes}")
        self.config = config if config is not None else FlowConfig()
        self.num_axes = num_axes
        layers, hidden = self.config.num_layers, self.config.hidden_dim
        self.input_weight = nn.Parameter(torch.empty(layers, 2, hidden, num_axes))
        self.input_bias = nn.Parameter(torch.empty(layers, 2, hidden))
        self.hidden_weight = nn.Parameter(torch.empty(layers, 2, hidden, hidden))
        self.hidden_bias = nn.Parameter(torch.empty(layers, 2, hidden))
        self.output_weight = nn.Parameter(torch.empty(layers, 2, num_axes, hidden))
        self.output_bias = nn.Parameter(torch.empty(layers, 2, num_axes))
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

    def to_base(
        self, x: Float[Tensor, "*batch axes"]
    ) -> tuple[Float[Tensor, "*batch axes"], Float[Tensor, "*batch"]]:
        """Map residuals to base variables.

        Args:
            x: Standardised residuals, dimensionless, any float type.

        Returns:
            z of the shape of x, and log abs det dz/dx. Float32, or float64 where x or the
            parameters are, also under autocast.
        """
        self._check_axes(x)
        with full_precision(x):
            halves, layers = self._prepare(x)
            log_scales = []
            for layer in reversed(range(len(layers))):
                changed = layer % 2
                log_scale, shift = _scale_and_shift(halves[1 - changed], *layers[layer])
                halves[changed] = (halves[changed] - shift) * torch.exp(-log_scale)
                log_scales.append(log_scale)
            log_abs_det = -torch.cat(log_scales, dim=-1).sum(-1)
            return torch.cat(halves, dim=-1).reshape(x.shape), log_abs_det.reshape(x.shape[:-1])

    def from_base(
        self, z: Float[Tensor, "*batch axes"]
    ) -> tuple[Float[Tensor, "*batch axes"], Float[Tensor, "*batch"]]:
        """Map base variables to residuals, the inverse of `to_base`.

        Args:
            z: Base variables, dimensionless.

        Returns:
            x of the shape of z, and log abs det dx/dz.
        """
        self._check_axes(z)
        with full_precision(z):
            halves, layers = self._prepare(z)
            log_scales = []
            for layer in range(len(layers)):
                changed = layer % 2
                log_scale, shift = _scale_and_shift(halves[1 - changed], *layers[layer])
                halves[changed] = halves[changed] * torch.exp(log_scale) + shift
                log_scales.append(log_scale)
            log_abs_det = torch.cat(log_scales, dim=-1).sum(-1)
            return torch.cat(halves, dim=-1).reshape(z.shape), log_abs_det.reshape(z.shape[:-1])

    def log_prob(self, x: Float[Tensor, "*batch axes"]) -> Float[Tensor, "*batch"]:
        """Log density of the residual x, nats."""
        z, log_abs_det = self.to_base(x)
        return standard_normal_log_prob(z) + log_abs_det

    @torch.no_grad()
    def sample(
        self, shape: Sequence[int] = (), *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "*batch axes"]:
        """Draw residuals of batch shape `shape`; the generator lives on the flow's device."""
        z = torch.randn(
            *shape,
            self.num_axes,
            generator=generator,
            device=self.input_weight.device,
            dtype=self.input_weight.dtype,
        )
        return self.from_base(z)[0]

    def _check_axes(self, x: Tensor) -> None:
        if x.shape[-1] != self.num_axes:
            raise ValueError(
                f"x must have {self.num_axes} axes in its last dimension, got shape "
                f"{tuple(x.shape)}; build the flow with num_axes={x.shape[-1]}"
            )

    def _prepare(self, x: Tensor) -> tuple[list[Tensor], list[tuple[Tensor, ...]]]:
        """Split x into (all axes but the last, the last), and the weights layer by layer."""
        dtype = torch.promote_types(x.dtype, self.input_weight.dtype)
        rows = x.reshape(-1, self.num_axes).to(dtype)
        head = self.num_axes - 1
        sides = (slice(0, head), slice(head, None))
        unbound = [parameter.to(dtype).unbind(0) for parameter in self.parameters()]
        layers = []
        for layer, (weight, bias, *hidden, out_weight, out_bias) in enumerate(
            zip(*unbound, strict=True)
        ):
            kept, changed = sides[1 - layer % 2], sides[layer % 2]
            outputs = (out_weight[:, changed], out_bias[:, changed])
            layers.append((weight[..., kept], bias, *hidden, *outputs))
        return [rows[:, sides[0]], rows[:, sides[1]]], layers


def _scale_and_shift(
    kept: Tensor,
    input_weight: Tensor,
    input_bias: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    output_weight: Tensor,
    output_bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """Log scale and shift of one coupling: s and t side by side in three products."""
    first = functional.linear(kept, input_weight.flatten(0, 1), input_bias.flatten())
    hidden = functional.leaky_relu(first).unflatten(-1, input_bias.shape).transpose(0, 1)
    hidden = torch.baddbmm(hidden_bias[:, None], hidden, hidden_weight.mT)  # [2 rows hidden]
    hidden = functional.leaky_relu(hidden)
    raw, shift = torch.baddbmm(output_bias[:, None], hidden, output_weight.mT).unbind(0)
    return torch.tanh(raw), shift


class StandardNormal(nn.Module):
    """N(0, I) behind the interface of `ResidualFlow`: a flow that has learnt nothing."""

    def __init__(self, config: FlowConfig | None = None, *, num_axes: int = 3) -> None:
        super().__init__()
        self.config = config if config is not None else FlowConfig()
        self.num_axes = num_axes

    def to_base(
        self, x: Float[Tensor, "*batch axes"]
    ) -> tuple[Float[Tensor, "*batch axes"], Float[Tensor, "*batch"]]:
        """Return x and a log determinant of 0."""
        return x, torch.zeros_like(x[..., 0])

    def from_base(
        self, z: Float[Tensor, "*batch axes"]
    ) -> tuple[Float[Tensor, "*batch axes"], Float[Tensor, "*batch"]]:
        """Return z and a log determinant of 0."""
        return z, torch.zeros_like(z[..., 0])

    def log_prob(self, x: Float[Tensor, "*batch axes"]) -> Float[Tensor, "*batch"]:
        """Log density of the residual x, nats."""
        return standard_normal_log_prob(x)

    @torch.no_grad()
    def sample(
        self, shape: Sequence[int] = (), *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "*batch axes"]:
        """Draw residuals of batch shape `shape`."""
        device = generator.device if generator is not None else None
        return torch.randn(*shape, self.num_axes, generator=generator, device=device)
