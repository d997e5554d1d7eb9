"""The fixed density Q of a standardised residual: Laplace or normal, each axis on its own."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

BASES = ("laplace", "gaussian")


@dataclass(frozen=True, slots=True)
class BaseDensity:
    """Laplace(0, 1) or N(0, 1) on every axis.

    Example:
        >>> BaseDensity("laplace").log_prob(torch.zeros(2, 3))
        tensor([-2.0794, -2.0794])
    """

    name: str
    """laplace or gaussian."""

    @property
    def log_constant(self) -> float:
        """−log Q(0) per axis, nats."""
        return math.log(2) if self.name == "laplace" else 0.5 * math.log(2 * math.pi)

    def energy(self, x: Float[Tensor, "*batch axes"]) -> Float[Tensor, "*batch axes"]:
        """−log Q(x) per axis, less its constant, nats."""
        return x.abs() if self.name == "laplace" else 0.5 * x.square()

    def log_prob(self, x: Float[Tensor, "*batch axes"]) -> Float[Tensor, "*batch"]:
        """Log density of x, nats."""
        return -(self.energy(x).sum(-1) + x.shape[-1] * self.log_constant)

    def log_tail(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Log mass of one axis beyond x >= 0, nats."""
        if self.name == "laplace":
            return -x - math.log(2)
        return torch.special.log_ndtr(-x)

    def quantile(self, uniform: Float[Tensor, "*batch axes"]) -> Float[Tensor, "*batch axes"]:
        """Points of Q from points of the open unit cube."""
        if self.name == "gaussian":
            return torch.special.ndtri(uniform)
        centred = uniform - 0.5
        return -centred.sign() * torch.log1p(-2 * centred.abs())
