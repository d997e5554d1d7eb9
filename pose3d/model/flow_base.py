"""What every flow shares: its settings, its interface, the standard normal it maps to."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

KINDS = ("realnvp", "zuko_nsf", "zuko_maf", "zuko_nice", "zuko_realnvp", "zuko_cnf")
CONDITIONS = ("none", "joint", "feature")


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowConfig:
    """Flow over the standardised residual (u, v, d)."""

    kind: str = "realnvp"
    """realnvp (the released layout), or, with the extra `flows`, zuko_nsf (spline), zuko_maf
    (autoregressive), zuko_nice, zuko_realnvp (coupling) or zuko_cnf (continuous; slow)."""
    num_layers: int = 6
    """Layers; those of realnvp alternate which axes are kept; the released RLE uses 3 pairs. In a
    continuous flow, hidden layers of its velocity."""
    hidden_dim: int = 64
    """Width of the hidden layers of every network; the couplings of realnvp have two of them."""
    condition: str = "none"
    """none (one density for all joints), joint (an embedding per joint) or feature (a projection
    of the image's feature) enters the flow as its context."""
    context_dim: int = 8
    """Size of the context vector; of no effect where the condition is none."""

    def __post_init__(self) -> None:
        for name, allowed in (("kind", KINDS), ("condition", CONDITIONS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"flow.{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        if self.kind == "realnvp" and self.num_layers < 2:
            raise ValueError(f"flow.num_layers must be >= 2 (one per mask), got {self.num_layers}")
        for name in ("num_layers", "hidden_dim", "context_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"flow.{name} must be >= 1, got {getattr(self, name)}")


@contextmanager
def full_precision(like: Tensor) -> Iterator[None]:
    """Suspend autocast on the device of `like`: densities are computed in float32 or float64."""
    with torch.autocast(device_type=like.device.type, enabled=False):
        yield


def standard_normal_log_prob(z: Float[Tensor, "*batch axes"]) -> Float[Tensor, "*batch"]:
    """Log density of N(0, I) at z, nats."""
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi))


class Flow(nn.Module, ABC):
    """An invertible map between the residual x and a base variable z ~ N(0, I).

    A flow with `context_dim` > 0 is a different map for every context, a vector per residual.

    Args:
        config: Kind, size and condition; None is six couplings of width 64.
        num_axes: Axes of the residual: 3 for (u, v, d), 2 for (u, v).

    Raises:
        ValueError: If there are fewer than two axes; by ``to_base``, ``from_base`` and
            ``log_prob``, if what is passed has another number of axes, or a context is missing,
            unasked for, or of the wrong size.
    """

    def __init__(self, config: FlowConfig | None = None, *, num_axes: int = 3) -> None:
        super().__init__()
        if num_axes < 2:
            raise ValueError(f"num_axes must be >= 2 (a coupling keeps one), got {num_axes}")
        self.config = config if config is not None else FlowConfig()
        self.num_axes = num_axes
        self.context_dim = 0 if self.config.condition == "none" else self.config.context_dim

    @abstractmethod
    def to_base(
        self,
        x: Float[Tensor, "*batch axes"],
        context: Float[Tensor, "*contexts context_dim"] | None = None,
    ) -> tuple[Float[Tensor, "*batch axes"], Float[Tensor, "*batch"]]:
        """Map residuals to base variables.

        Args:
            x: Standardised residuals, dimensionless, any float type.
            context: What the density depends on; its batch broadcasts to that of x. None where
                the flow is unconditional.

        Returns:
            z of the shape of x, and log abs det dz/dx. Float32, or float64 where x or the
            parameters are, also under autocast.
        """

    @abstractmethod
    def from_base(
        self,
        z: Float[Tensor, "*batch axes"],
        context: Float[Tensor, "*contexts context_dim"] | None = None,
    ) -> tuple[Float[Tensor, "*batch axes"], Float[Tensor, "*batch"]]:
        """Map base variables to residuals, the inverse of `to_base`.

        Args:
            z: Base variables, dimensionless.
            context: As for `to_base`.

        Returns:
            x of the shape of z, and log abs det dx/dz.
        """

    def log_prob(
        self,
        x: Float[Tensor, "*batch axes"],
        context: Float[Tensor, "*contexts context_dim"] | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Log density of the residual x, nats."""
        z, log_abs_det = self.to_base(x, context)
        with full_precision(z):  # the sum of both, in fewer operator calls
            constant = 0.5 * self.num_axes * math.log(2 * math.pi)
            return torch.sub(log_abs_det, (z * z).sum(-1), alpha=0.5) - constant

    @torch.no_grad()
    def sample(
        self,
        shape: Sequence[int] = (),
        *,
        context: Float[Tensor, "*contexts context_dim"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch axes"]:
        """Draw residuals of batch shape `shape`, to which the context broadcasts.

        The generator lives on the flow's device.
        """
        parameter = next(self.parameters())
        z = torch.randn(
            *shape,
            self.num_axes,
            generator=generator,
            device=parameter.device,
            dtype=parameter.dtype,
        )
        return self.from_base(z, context)[0]

    def check(self, x: Tensor, context: Tensor | None) -> None:
        """Refuse residuals and contexts that this flow is not made for."""
        if x.shape[-1] != self.num_axes:
            raise ValueError(
                f"x must have {self.num_axes} axes in its last dimension, got shape "
                f"{tuple(x.shape)}; build the flow with num_axes={x.shape[-1]}"
            )
        if context is None:
            if self.context_dim:
                raise ValueError(
                    f"this flow is conditioned (flow.condition={self.config.condition}): pass a "
                    f"context of {self.context_dim} numbers per residual"
                )
            return
        if not self.context_dim:
            raise ValueError(
                "this flow takes no context: leave it out, or build the flow with "
                "flow.condition=joint or flow.condition=feature"
            )
        batch = x.shape[:-1]
        fits = len(context.shape) <= len(x.shape) and all(
            ours in (1, theirs)
            for ours, theirs in zip(reversed(context.shape[:-1]), reversed(batch), strict=False)
        )
        if context.shape[-1] != self.context_dim or not fits:
            raise ValueError(
                f"context must have a shape that broadcasts to {(*batch, self.context_dim)}, got "
                f"{tuple(context.shape)}"
            )
