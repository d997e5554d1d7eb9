"""Affine couplings of stacked weights: one readable implementation, one of few operator calls.

`plain_map` is the definition, and differentiable as often as one likes. `fused_map` computes the
same and its gradient by hand: one node in autograd's graph, about a quarter of the operator calls
that a loop over modules makes. `plain_log_prob` and `fused_log_prob` are the same two for the log
density of the rows.

Each layer keeps some axes and changes the others: even layers keep the last axis, odd ones all
but the last. Only what is kept enters the networks s and t, whose weights lie stacked as
[layer, s or t, out, in], and only the outputs of changed axes are computed.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from pose3d.model.workspace import workspace

SLOPE = 0.01
"""Of LeakyReLU where its argument is negative."""


class CouplingWeights(NamedTuple):
    """Weights of all layers, as in `nn.Linear`; those of a context only where there is one."""

    input_weight: Float[Tensor, "layers 2 hidden axes"]
    input_bias: Float[Tensor, "layers 2 hidden"]
    hidden_weight: Float[Tensor, "layers 2 hidden hidden"]
    hidden_bias: Float[Tensor, "layers 2 hidden"]
    output_weight: Float[Tensor, "layers 2 axes hidden"]
    output_bias: Float[Tensor, "layers 2 axes"]
    context_weight: Float[Tensor, "layers 2 hidden context_dim"] | None = None


def map_rows(
    x: Float[Tensor, "*batch axes"],
    context: Float[Tensor, "contexts context_dim"] | None,
    weights: CouplingWeights,
    *,
    inverse: bool,
) -> tuple[Float[Tensor, "*batch axes"], Float[Tensor, "*batch"]]:
    """Pass rows through all couplings, in the way that is quickest where it is called.

    A compiler, a transformation of `torch.func` and forward-mode differentiation get `plain_map`.

    Args:
        x: Residuals, or base variables where `inverse`; of the dtype of the weights.
        context: One for each row, or one for all; None without.
        weights: Of the couplings.
        inverse: From data to base if False, layers from last to first; True is the way back.

    Returns:
        The mapped rows, and the log absolute determinant of the map's Jacobian.
    """
    function = plain_map if _is_transformed() else fused_map
    return function(x, context, weights, inverse=inverse)


def log_prob_of_rows(
    x: Float[Tensor, "*batch axes"],
    context: Float[Tensor, "contexts context_dim"] | None,
    weights: CouplingWeights,
) -> Float[Tensor, "*batch"]:
    """Log density of residuals whose base variable is standard normal, nats; see `map_rows`."""
    function = plain_log_prob if _is_transformed() else fused_log_prob
    return function(x, context, weights)


def _is_transformed() -> bool:
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def plain_map(
    x: Float[Tensor, "*batch axes"],
    context: Float[Tensor, "contexts context_dim"] | None,
    weights: CouplingWeights,
    *,
    inverse: bool,
) -> tuple[Float[Tensor, "*batch axes"], Float[Tensor, "*batch"]]:
    """Pass rows through all couplings; see `map_rows`."""
    head = x.shape[-1] - 1
    sides = (slice(0, head), slice(head, None))
    rows = x.reshape(-1, head + 1)
    halves = [rows[:, side] for side in sides]
    input_bias = weights.input_bias[:, :, None]
    if context is not None and weights.context_weight is not None:
        input_bias = input_bias + context @ weights.context_weight.mT  # [layers 2 contexts hidden]
    log_scales = []
    layers = range(len(input_bias))
    for layer in layers if inverse else reversed(layers):
        changed, kept = layer % 2, 1 - layer % 2
        hidden = torch.baddbmm(
            input_bias[layer],
            halves[kept].expand(2, *halves[kept].shape),
            weights.input_weight[layer, :, :, sides[kept]].mT,
        )
        hidden = torch.baddbmm(
            weights.hidden_bias[layer, :, None],
            functional.leaky_relu(hidden, SLOPE),
            weights.hidden_weight[layer].mT,
        )
        raw, shift = torch.baddbmm(
            weights.output_bias[layer, :, None, sides[changed]],
            functional.leaky_relu(hidden, SLOPE),
            weights.output_weight[layer, :, sides[changed]].mT,
        ).unbind(0)
        log_scale = torch.tanh(raw)
        if inverse:
            halves[changed] = halves[changed] * torch.exp(log_scale) + shift
        else:
            halves[changed] = (halves[changed] - shift) * torch.exp(-log_scale)
        log_scales.append(log_scale if inverse else -log_scale)
    log_abs_det = torch.cat(log_scales, dim=-1).sum(-1)
    return torch.cat(halves, dim=-1).reshape(x.shape), log_abs_det.reshape(x.shape[:-1])


def plain_log_prob(
    x: Float[Tensor, "*batch axes"],
    context: Float[Tensor, "contexts context_dim"] | None,
    weights: CouplingWeights,
) -> Float[Tensor, "*batch"]:
    """Log density of residuals; see `log_prob_of_rows`."""
    z, log_abs_det = plain_map(x, context, weights, inverse=False)
    return log_abs_det - 0.5 * z.square().sum(-1) - 0.5 * x.shape[-1] * math.log(2 * math.pi)


def fused_map(
    x: Float[Tensor, "*batch axes"],
    context: Float[Tensor, "contexts context_dim"] | None,
    weights: CouplingWeights,
    *,
    inverse: bool,
) -> tuple[Float[Tensor, "*batch axes"], Float[Tensor, "*batch"]]:
    """Pass rows through all couplings; see `map_rows`."""
    inputs = (x, context, *weights)
    if _needs_graph(inputs):
        return _FusedMap.apply(inverse, *inputs)
    with torch.no_grad():
        return _shaped(x, *_forward(inverse, *inputs, keep=False)[:2])


def fused_log_prob(
    x: Float[Tensor, "*batch axes"],
    context: Float[Tensor, "contexts context_dim"] | None,
    weights: CouplingWeights,
) -> Float[Tensor, "*batch"]:
    """Log density of residuals; see `log_prob_of_rows`."""
    inputs = (x, context, *weights)
    if _needs_graph(inputs):
        return _FusedLogProb.apply(*inputs)
    with torch.no_grad():
        z, log_abs_det, _ = _forward(False, *inputs, keep=False)
        return _with_normal(z, log_abs_det).view(x.shape[:-1])


def _needs_graph(inputs: Sequence[Tensor | None]) -> bool:
    return torch.is_grad_enabled() and any(
        each is not None and each.requires_grad for each in inputs
    )


def _shaped(x: Tensor, mapped: Tensor, log_abs_det: Tensor) -> tuple[Tensor, Tensor]:
    """What `_forward` found, in the shape of x."""
    return mapped.transpose(0, 1).reshape(x.shape), log_abs_det.view(x.shape[:-1])


def _with_normal(z: Float[Tensor, "axes rows"], log_abs_det: Tensor) -> Float[Tensor, " rows"]:
    """Add the standard normal's log density to the log determinant."""
    constant = torch.full_like(log_abs_det, 0.5 * len(z) * math.log(2 * math.pi))
    return torch.sub(log_abs_det, (z * z).sum(0), alpha=0.5).sub_(constant)


class _FusedMap(torch.autograd.Function):
    """`plain_map` with a gradient written by hand; differentiated twice, it is `plain_map`."""

    @staticmethod
    def forward(ctx: Any, inverse: bool, *inputs: Any) -> tuple[Tensor, Tensor]:
        mapped, log_abs_det, kept = _forward(inverse, *inputs, keep=True)
        ctx.inverse, ctx.num_inputs = inverse, len(inputs)
        ctx.save_for_backward(*inputs, *kept)
        return _shaped(inputs[0], mapped, log_abs_det)

    @staticmethod
    def backward(
        ctx: Any, mapped_gradient: Tensor, log_det_gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        inputs, kept = ctx.saved_tensors[: ctx.num_inputs], ctx.saved_tensors[ctx.num_inputs :]
        needed = ctx.needs_input_grad[1:]
        outer = (mapped_gradient, log_det_gradient)
        with _without_autocast(mapped_gradient):
            if torch.is_grad_enabled():  # create_graph: the gradient must be differentiable
                define = partial(plain_map, inverse=ctx.inverse)
                return None, *_differentiable_gradients(define, inputs, needed, outer)
            rows = mapped_gradient.reshape(-1, mapped_gradient.shape[-1]).transpose(0, 1)
            signed = rows if ctx.inverse else rows.neg()
            return None, *_backward(
                ctx.inverse, inputs, kept, needed, signed, log_det_gradient.reshape(-1)
            )


class _FusedLogProb(torch.autograd.Function):
    """`plain_log_prob`, as `_FusedMap` is `plain_map`."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        z, log_abs_det, kept = _forward(False, *inputs, keep=True)
        ctx.num_inputs = len(inputs)
        ctx.save_for_backward(*inputs, z, *kept)
        return _with_normal(z, log_abs_det).view(inputs[0].shape[:-1])

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        inputs, (z, *kept) = (
            ctx.saved_tensors[: ctx.num_inputs],
            ctx.saved_tensors[ctx.num_inputs :],
        )
        needed = ctx.needs_input_grad
        with _without_autocast(outer):
            if torch.is_grad_enabled():
                return tuple(_differentiable_gradients(plain_log_prob, inputs, needed, (outer,)))
            gradient = outer.reshape(-1)
            # d log N(z) / dz = −z, and `_backward` wants the gradient's negative.
            return tuple(_backward(False, inputs, kept, needed, gradient * z, gradient))


def _without_autocast(like: Tensor) -> Any:
    """A gradient is computed in the precision of its function, also where autocast is on."""
    return torch.autocast(device_type=like.device.type, enabled=False)


def _differentiable_gradients(
    define: Callable[..., Any],
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    outer: tuple[Tensor, ...],
) -> list[Tensor | None]:
    """Gradients of a plain function that carry a graph of their own."""
    # Through aliases: where x was computed from the weights, only the direct part is asked for.
    aliases = [each if each is None else each.view_as(each) for each in inputs]
    x, context, *weights = aliases
    outputs = define(x, context, CouplingWeights(*weights))  # type: ignore[arg-type]
    wanted = [alias for alias, need in zip(aliases, needed, strict=True) if need]
    found = iter(
        torch.autograd.grad(outputs, wanted, outer, create_graph=True, allow_unused=True)  # type: ignore[arg-type]
    )
    return [next(found) if need else None for need in needed]


def _slab(
    stack: Tensor,
    *index: int,
    rows: tuple[int, int] | None = None,
    columns: tuple[int, int] | None = None,
    transposed: bool = False,
) -> Tensor:
    """stack[*index, ..., first:stop, first:stop] in one operator call, its axes swapped or not."""
    depth, all_steps, offset = len(index), stack.stride(), stack.storage_offset()
    for axis, position in enumerate(index):
        offset += position * all_steps[axis]
    sizes, steps = list(stack.shape[depth:]), list(all_steps[depth:])
    for axis, span in ((-2, rows), (-1, columns)):
        if span is not None:
            offset += span[0] * steps[axis]
            sizes[axis] = span[1] - span[0]
    if transposed:
        sizes[-2:], steps[-2:] = sizes[:-3:-1], steps[:-3:-1]
    return stack.as_strided(sizes, steps, offset)


def _forward(
    inverse: bool,
    x: Tensor,
    context: Tensor | None,
    input_weight: Tensor,
    input_bias: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    output_weight: Tensor,
    output_bias: Tensor,
    context_weight: Tensor | None,
    *,
    keep: bool,
) -> tuple[Float[Tensor, "axes rows"], Float[Tensor, " rows"], list[Tensor]]:
    """Map, log determinant, and what the gradient needs (only where `keep`).

    All is laid out with rows along the last axis, so that no product has to transpose.
    """
    num_layers, _, hidden_dim, num_axes = input_weight.shape
    layers = range(num_layers) if inverse else range(num_layers - 1, -1, -1)
    before, after = (0, 1) if inverse else (1, 0)
    # By the parity of the layer, which axes it changes: even ones keep the last.
    spans = ((0, num_axes - 1), (num_axes - 1, num_axes))
    rows = x.reshape(-1, num_axes)
    num_rows = len(rows)
    halves = rows.transpose(0, 1).split([num_axes - 1, 1])
    parity = layers[0] % 2
    changed, kept = halves[parity], halves[1 - parity]
    # Between two layers lies a state, [axes, 1, context], from which the next one reads. What it
    # must not read, the axes it changes, is 0 there: their weights act on nothing.
    pieces = [input_weight, input_bias.unsqueeze(3)]
    if context is not None and context_weight is not None:
        pieces.append(context_weight)
    first_weight = torch.cat(pieces, dim=3)
    states = x.new_zeros(num_layers + 1, first_weight.shape[3], num_rows)
    states.select(1, num_axes).fill_(1)
    if context is not None:
        states[:, num_axes + 1 :] = context.T
    _slab(states, layers[0] + before, rows=spans[1 - parity]).copy_(kept)
    twice = states.unsqueeze(1).expand(-1, 2, -1, -1)
    stacked = num_layers if keep else 1
    hidden = workspace(states, 2, stacked, 2, hidden_dim, num_rows)
    hidden_bias = hidden_bias.unsqueeze(3)
    output_bias = output_bias.unsqueeze(3)
    log_scales, scales, moved, firsts, seconds = [], [], [], [], []
    for layer in layers:
        parity, place = layer % 2, layer if keep else 0
        span = spans[parity]
        first, second = _slab(hidden, 0, place), _slab(hidden, 1, place)
        torch.bmm(_slab(first_weight, layer), _slab(twice, layer + before), out=first)
        functional.leaky_relu_(first, SLOPE)
        second.copy_(_slab(hidden_bias, layer))
        second.baddbmm_(_slab(hidden_weight, layer), first)
        functional.leaky_relu_(second, SLOPE)
        raw = torch.bmm(_slab(output_weight, layer, rows=span), second)
        raw.add_(_slab(output_bias, layer, rows=span))
        log_scale, shift = torch.tanh(_slab(raw, 0)), _slab(raw, 1)
        scale = torch.exp(log_scale)
        target = _slab(states, layer + after, rows=span)
        if inverse:
            torch.addcmul(shift, changed, scale, out=target)
        else:
            torch.div(changed - shift, scale, out=target)
        log_scales.append(log_scale)
        if keep:
            scales.append(scale)
            moved.append(changed if inverse else target)
            firsts.append(first)
            seconds.append(second)
        changed, kept = kept, target
    log_abs_det = torch.cat(log_scales).sum(0)
    halves = (kept, changed) if layers[-1] % 2 == 0 else (changed, kept)
    return (
        torch.cat(halves),
        log_abs_det if inverse else log_abs_det.neg_(),
        [first_weight, states, hidden, *log_scales, *scales, *moved, *firsts, *seconds]
        if keep
        else [],
    )


def _backward(
    inverse: bool,
    inputs: Sequence[Any],
    saved: Sequence[Tensor],
    needed: Sequence[bool],
    gradient: Float[Tensor, "axes rows"],
    log_det_gradient: Float[Tensor, " rows"],
) -> list[Tensor | None]:
    """Gradients of the inputs of `_forward`; None where none is needed.

    From data to base, `gradient` is the negative of that of the mapped rows: what shifts receive.
    """
    x, context, input_weight, _, hidden_weight, _, output_weight, _, context_weight = inputs
    num_layers, _, hidden_dim, num_axes = input_weight.shape
    spans = ((0, num_axes - 1), (num_axes - 1, num_axes))
    first_weight, states, hidden, *lists = saved
    log_scales, scales, moved, firsts, seconds = (
        lists[k * num_layers : (k + 1) * num_layers] for k in range(5)
    )
    num_rows = gradient.shape[1]
    output_gradient = x.new_zeros(num_layers, 2, num_axes, num_rows)
    hidden_gradient = workspace(states, 2, 2, hidden_dim, num_rows)  # of one layer at a time
    first, second = _slab(hidden_gradient, 0), _slab(hidden_gradient, 1)
    # The sum over the networks s and t is part of one product over 2 · hidden.
    joined_weight = first_weight.view(num_layers, 2 * hidden_dim, first_weight.shape[3])
    both_gradients = hidden_gradient.view(2, 2 * hidden_dim, num_rows)
    joined_gradient, both_transposed = _slab(both_gradients, 0), both_gradients.mT
    # What both are multiplied with, as the row of ones makes the gradients of both biases.
    twice = states.unsqueeze(1).expand(-1, 2, -1, -1)
    along_context = None
    along_weights: list[list[Tensor]] = [[], []]
    beyond = (num_axes + 1, first_weight.shape[3])
    halves = list(gradient.split([num_axes - 1, 1]))
    sign = 1 if inverse else -1
    along_log_scale = log_det_gradient if inverse else -log_det_gradient
    layers = range(num_layers) if inverse else range(num_layers - 1, -1, -1)
    for step, layer in reversed(list(enumerate(layers))):
        parity = layer % 2
        span, scale = spans[parity], scales[step]
        raw_gradient = _slab(output_gradient, layer, 0, rows=span)
        shift_gradient = _slab(output_gradient, layer, 1, rows=span)
        if inverse:  # target = changed · scale + shift
            shift_gradient.copy_(halves[parity])
            halves[parity] = halves[parity] * scale
            scale_gradient = torch.addcmul(along_log_scale, halves[parity], moved[step])
        else:  # target = (changed − shift) / scale
            scale_gradient = torch.addcmul(along_log_scale, halves[parity], moved[step])
            halves[parity] = torch.div(halves[parity], scale, out=shift_gradient)
        torch.ops.aten.tanh_backward.grad_input(
            scale_gradient, log_scales[step], grad_input=raw_gradient
        )
        torch.bmm(
            _slab(output_weight, layer, rows=span, transposed=True),
            _slab(output_gradient, layer, rows=span),
            out=second,
        )
        _through_leaky_relu(second, seconds[step])
        torch.bmm(_slab(hidden_weight, layer, transposed=True), second, out=first)
        _through_leaky_relu(first, firsts[step])
        kept_gradient = torch.mm(
            _slab(joined_weight, layer, columns=spans[1 - parity], transposed=True),
            joined_gradient,
        )
        halves[1 - parity] = torch.add(halves[1 - parity], kept_gradient, alpha=sign)
        if context is not None and needed[1]:
            weight = _slab(joined_weight, layer, columns=beyond, transposed=True)
            found = torch.mm(weight, joined_gradient)
            along_context = found if along_context is None else along_context.add_(found)
        if any(needed[2:]):  # at once, while all that is read is still in the cache
            read = _slab(twice, layer + (0 if inverse else 1))
            along_weights[0].append(torch.bmm(read, both_transposed))
            along_weights[1].append(torch.bmm(second, _slab(firsts[step], transposed=True)))
    results: list[Tensor | None] = [None] * len(inputs)
    along_rows = torch.cat(halves)
    results[0] = (along_rows if inverse else along_rows.neg_()).transpose(0, 1).view(x.shape)
    if along_context is not None:
        found = along_context.T
        results[1] = found if len(context) == num_rows else found.sum(0, keepdim=True)
    if any(needed[2:]):
        # In the order of the layers, which this way may have been the reverse.
        order = slice(None, None, -1 if inverse else 1)
        read_found, second_found = (torch.cat(each[order]) for each in along_weights)
        # read_found is [layers · (first, second), what was read, (s, t) · hidden].
        num_read, joined_dim = read_found.shape[1:]
        sizes, steps = (num_layers, 2, hidden_dim), (2 * num_read * joined_dim, hidden_dim, 1)
        bias, beyond_bias = num_axes * joined_dim, (num_axes + 1) * joined_dim

        def of_input(width: int, offset: int) -> Tensor:
            return read_found.as_strided((*sizes, width), (*steps, joined_dim), offset)

        results[2] = of_input(num_axes, 0)
        results[3] = read_found.as_strided(sizes, steps, bias)
        results[5] = read_found.as_strided(sizes, steps, num_read * joined_dim + bias)
        if context_weight is not None:
            results[8] = of_input(context_weight.shape[3], beyond_bias)
        results[4] = second_found.view(hidden_weight.shape)
        kept = hidden.flatten(1, 2)
        found = torch.bmm(output_gradient.flatten(0, 1), _slab(kept, 1, transposed=True))
        results[6] = found.view(output_weight.shape)
        results[7] = output_gradient.sum(3)
    return results


def _through_leaky_relu(gradient: Tensor, result: Tensor) -> None:
    """Multiply, in place, by the slope; LeakyReLU's result has the sign of its argument."""
    torch.ops.aten.leaky_relu_backward.grad_input(
        gradient, result, SLOPE, True, grad_input=gradient
    )
