"""Flows of the package zuko behind the interface of `Flow`, by name; the extra `flows`."""

import importlib
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from pose3d.model.flow_base import Flow, FlowConfig, full_precision

SPLINE_BOUND = 10.0
"""Splines act within it and are the identity outside; zuko's own 5 would leave the tails out."""
NUM_BINS = 16
"""Of a spline, per axis."""
ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE = 1e-6, 1e-5
"""Of the integration of a continuous flow."""
GAIN = 0.01
"""Of the last layers at the start, which makes every flow close to the identity."""


class ZukoFlow(Flow):
    """A flow of zuko: spline, autoregressive, coupling or continuous.

    zuko_nsf is an autoregressive spline (identity beyond ±10), zuko_maf an autoregressive affine
    map, zuko_realnvp an affine and zuko_nice an additive coupling (volume is preserved); each has
    `num_layers` such maps, whose networks have two hidden layers.

    zuko_cnf integrates a velocity, a network of `num_layers` hidden layers, from time 0 to 1, with
    the exact trace of its Jacobian for the log determinant. The adaptive solver evaluates it some
    tens of times, each with one backward pass per axis, and waits for the device at every step:
    expect a hundred times the cost of a RealNVP, steps shared by the rows of one call (another
    batch gives results that differ within the tolerance of 1e-5), and no compilation.

    Args:
        config: Kind, size and condition.
        num_axes: Axes of the residual.

    Raises:
        ValueError: If zuko is not installed, or the config names no flow of zuko.

    Source:
        Rozet et al., Zuko, 2022. Durkan et al., Neural Spline Flows, 2019; Papamakarios et al.,
        Masked Autoregressive Flow, 2017; Dinh et al., NICE, 2014, and Real NVP, 2016; Grathwohl et
        al., FFJORD, 2018.
    """

    def __init__(self, config: FlowConfig, *, num_axes: int = 3) -> None:
        super().__init__(config, num_axes=num_axes)
        if not config.kind.startswith("zuko_"):
            raise ValueError(
                f"flow.kind {config.kind} is no flow of zuko; build it with build_flow(config)"
            )
        try:
            importlib.import_module("zuko")
        except ImportError as error:
            raise ValueError(
                f"flow.kind {config.kind} needs the package zuko: "
                "run pip install 'pose3d[flows]', or set flow.kind=realnvp"
            ) from error
        kind = _ContinuousMap if config.kind == "zuko_cnf" else _DiscreteMap
        self.map = kind(config, num_axes, self.context_dim)
        with torch.no_grad():
            for last in _last_layers(self.map):
                last.weight.mul_(GAIN)
                last.bias.zero_()

    def to_base(
        self,
        x: Float[Tensor, "*batch axes"],
        context: Float[Tensor, "*contexts context_dim"] | None = None,
    ) -> tuple[Float[Tensor, "*batch axes"], Float[Tensor, "*batch"]]:
        """Map residuals to base variables; see `Flow.to_base`."""
        return self._apply_map(x, context, inverse=False)

    def from_base(
        self,
        z: Float[Tensor, "*batch axes"],
        context: Float[Tensor, "*contexts context_dim"] | None = None,
    ) -> tuple[Float[Tensor, "*batch axes"], Float[Tensor, "*batch"]]:
        """Map base variables to residuals; see `Flow.from_base`."""
        return self._apply_map(z, context, inverse=True)

    def _apply_map(
        self, x: Tensor, context: Tensor | None, *, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        self.check(x, context)
        with full_precision(x):
            dtype = torch.promote_types(x.dtype, next(self.parameters()).dtype)
            rows = x.reshape(-1, self.num_axes).to(dtype)
            if rows.numel() == 0:  # an adaptive solver has no step size for nothing
                return rows.reshape(x.shape), rows.sum(-1).reshape(x.shape[:-1])
            if context is not None:
                context = context.expand(*x.shape[:-1], self.context_dim)
                context = context.reshape(-1, self.context_dim).to(dtype)
            tensors = (*self.map.named_parameters(), *self.map.named_buffers())
            cast = {
                name: tensor.to(dtype)
                for name, tensor in tensors
                if tensor.is_floating_point() and tensor.dtype != dtype
            }
            mapped, log_abs_det = functional_call(self.map, cast, (rows, context, inverse))
            return mapped.reshape(x.shape), log_abs_det.reshape(x.shape[:-1])


class _DiscreteMap(nn.Module):
    """A stack of transforms."""

    def __init__(self, config: FlowConfig, num_axes: int, context_dim: int) -> None:
        super().__init__()
        flows = importlib.import_module("zuko.flows")
        transforms = importlib.import_module("zuko.transforms")
        settings: dict[str, Any] = {
            "features": num_axes,
            "context": context_dim,
            "transforms": config.num_layers,
            "hidden_features": (config.hidden_dim, config.hidden_dim),
        }
        match config.kind:
            case "zuko_nsf":
                spline = partial(transforms.MonotonicRQSTransform, bound=SPLINE_BOUND)
                shapes = [(NUM_BINS,), (NUM_BINS,), (NUM_BINS - 1,)]
                flow = flows.MAF(univariate=spline, shapes=shapes, **settings)
            case "zuko_maf":
                flow = flows.MAF(**settings)
            case "zuko_nice":
                flow = flows.NICE(univariate=transforms.AdditiveTransform, shapes=[()], **settings)
            case _:
                flow = flows.NICE(**settings)
        self.transform = flow.transform

    def forward(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        transform = self.transform(context)
        if not inverse:
            return transform.call_and_ladj(x)
        mapped = transform.inv(x)
        return mapped, -transform.call_and_ladj(mapped)[1]


class _ContinuousMap(nn.Module):
    """The flow of a velocity from time 0 to 1."""

    def __init__(self, config: FlowConfig, num_axes: int, context_dim: int) -> None:
        super().__init__()
        continuous = importlib.import_module("zuko.flows.continuous")
        hidden = (config.hidden_dim,) * config.num_layers
        self.velocity = continuous.FFJTransform(num_axes, context_dim, hidden_features=hidden)

    def forward(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        transforms = importlib.import_module("zuko.transforms")
        # Built here, since zuko's own leaves the parameters without gradient in evaluation mode.
        parameters = tuple(self.velocity.parameters())
        start, stop = self.velocity.times.flip(0) if inverse else self.velocity.times
        transform = transforms.FreeFormJacobianTransform(
            f=partial(self.velocity.f, c=context),
            t0=start,
            t1=stop,
            phi=parameters if context is None else (context, *parameters),
            atol=ABSOLUTE_TOLERANCE,
            rtol=RELATIVE_TOLERANCE,
            exact=True,
        )
        return transform.call_and_ladj(x)


def _last_layers(module: nn.Module) -> list[Any]:
    """The last linear layer of every network within (zuko has linear layers of its own)."""
    networks = [each for each in module.modules() if isinstance(each, nn.Sequential)]
    layers = [[each for each in network if hasattr(each, "weight")] for network in networks]
    return [network[-1] for network in layers if network]
