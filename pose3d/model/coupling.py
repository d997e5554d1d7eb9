"""Affine couplings of stacked weights: one readable implementation, one of few operator calls.

`plain_map` is the definition, and differentiable as often as one likes. `fused_map` computes the
same and its gradient by hand: one node in autograd's graph, about a fifth of the operator calls.

Each layer keeps some axes and changes the others: even layers keep the last axis, odd ones all
but the last. Only what is kept enters the networks s and t, whose weights lie stacked as
[layer, s or t, out, in], and only the outputs of changed axes are computed.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

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
    x: Float[Tensor, "rows axes"],
    context: Float[Tensor, "contexts context_dim"] | None,
    weights: CouplingWeights,
    *,
    inverse: bool,
) -> tuple[Float[Tensor, "rows axes"], Float[Tensor, " rows"]]:
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
    if (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    ):
        return plain_map(x, context, weights, inverse=inverse)
    return fused_map(x, context, weights, inverse=inverse)


def plain_map(
    x: Float[Tensor, "rows axes"],
    context: Float[Tensor, "contexts context_dim"] | None,
    weights: CouplingWeights,
    *,
    inverse: bool,
) -> tuple[Float[Tensor, "rows axes"], Float[Tensor, " rows"]]:
    """Pass rows through all couplings; see `map_rows`."""
    head = x.shape[1] - 1
    sides = (slice(0, head), slice(head, None))
    halves = [x[:, side] for side in sides]
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
    return torch.cat(halves, dim=-1), torch.cat(log_scales, dim=-1).sum(-1)


def fused_map(
    x: Float[Tensor, "rows axes"],
    context: Float[Tensor, "contexts context_dim"] | None,
    weights: CouplingWeights,
    *,
    inverse: bool,
) -> tuple[Float[Tensor, "rows axes"], Float[Tensor, " rows"]]:
    """Pass rows through all couplings; see `map_rows`."""
    inputs = (x, context, *weights)
    if torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in inputs):
        return _FusedMap.apply(inverse, *inputs)
    with torch.no_grad():
        mapped, log_abs_det, _ = _forward(inverse, *inputs, keep=False)
    return mapped, log_abs_det


class _FusedMap(torch.autograd.Function):
    """`plain_map` with a gradient written by hand; differentiated twice, it is `plain_map`."""

    @staticmethod
    def forward(ctx: Any, inverse: bool, *inputs: Any) -> tuple[Tensor, Tensor]:
        mapped, log_abs_det, kept = _forward(inverse, *inputs, keep=True)
        ctx.inverse, ctx.num_inputs = inverse, len(inputs)
        ctx.save_for_backward(*inputs, *kept)
        return mapped, log_abs_det

    @staticmethod
    def backward(
        ctx: Any, mapped_gradient: Tensor, log_det_gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        inputs, kept = ctx.saved_tensors[: ctx.num_inputs], ctx.saved_tensors[ctx.num_inputs :]
        needed = ctx.needs_input_grad[1:]
        outer = (mapped_gradient, log_det_gradient)
        if torch.is_grad_enabled():  # create_graph: the gradient itself must be differentiable
            return None, *_differentiable_gradients(ctx.inverse, inputs, needed, outer)
        return None, *_backward(ctx.inverse, inputs, kept, needed, *outer)


def _differentiable_gradients(
    inverse: bool,
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    outer: tuple[Tensor, Tensor],
) -> list[Tensor | None]:
    """Gradients of `plain_map` that carry a graph of their own."""
    # Through aliases: where x was computed from the weights, only the direct part is asked for.
    aliases = [each if each is None else each.view_as(each) for each in inputs]
    x, context, *weights = aliases
    assert x is not None
    outputs = plain_map(x, context, CouplingWeights(*weights), inverse=inverse)  # type: ignore[arg-type]
    wanted = [alias for alias, need in zip(aliases, needed, strict=True) if need]
    found = iter(
        torch.autograd.grad(outputs, wanted, outer, create_graph=True, allow_unused=True)  # type: ignore[arg-type]
    )
    return [next(found) if need else None for need in needed]


def _slab(
    stack: Tensor, *index: int, span: tuple[int, int] | None = None, transposed: bool = False
) -> Tensor:
    """stack[*index, ..., first:stop, :] in one operator call; the last two axes may be swapped."""
    strides, sizes = stack.stride(), list(stack.shape)
    offset = stack.storage_offset() + sum(i * s for i, s in zip(index, strides, strict=False))
    if span is not None:
        offset += span[0] * strides[-2]
        sizes[-2] = span[1] - span[0]
    number = len(index)
    sizes, steps = sizes[number:], list(strides[number:])
    if transposed:
        sizes[-2:], steps[-2:] = sizes[:-3:-1], steps[:-3:-1]
    return stack.as_strided(sizes, steps, offset)


class _Spans:
    """Where, among the rows of the states, each layer finds what it keeps and what it changes.

    A state has the rows [all axes but the last | 1, context | last axis]: what a layer keeps and,
    beside it, the 1 that carries the bias and the context, lie in one piece in either case. The
    rows of what it changes are 0.
    """

    def __init__(self, num_axes: int, context_dim: int) -> None:
        head, last = num_axes - 1, num_axes + context_dim
        self.num_rows = last + 1
        self.one = head
        self.context = slice(head + 1, last)
        # By the parity of the layer: even ones keep the last axis.
        self.kept_with_one = ((head, last + 1), (0, last))
        self.kept = ((last, last + 1), (0, head))
        self.changed = ((0, head), (last, last + 1))
        self.outputs = ((0, head), (head, num_axes))


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
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Map, log determinant, and what the gradient needs (only where `keep`)."""
    num_layers, _, hidden_dim, num_axes = input_weight.shape
    num_rows, head = len(x), num_axes - 1
    spans = _Spans(num_axes, 0 if context_weight is None else context_weight.shape[-1])
    layers = range(num_layers) if inverse else range(num_layers - 1, -1, -1)
    before, after = (0, 1) if inverse else (1, 0)
    # Between two layers lies a state, from which the next one reads what it keeps.
    halves = x.transpose(0, 1).split([head, 1])
    parity = layers[0] % 2
    changed, kept = halves[parity], halves[1 - parity]
    states = x.new_zeros(num_layers + 1, spans.num_rows, num_rows)
    states.select(1, spans.one).fill_(1)
    _slab(states, layers[0] + before, span=spans.kept[parity]).copy_(kept)
    # The first layers' weights in the order of the states' rows, [layers 2 in out].
    axes_weight = input_weight.transpose(2, 3).split([head, 1], dim=2)
    pieces = [axes_weight[0], input_bias.unsqueeze(2), axes_weight[1]]
    if context is not None and context_weight is not None:
        pieces.insert(2, context_weight.transpose(2, 3))
        states[:, spans.context] = context.T
    first_weight = torch.cat(pieces, dim=2)
    twice = states.unsqueeze(1).expand(-1, 2, -1, -1)
    output_bias = output_bias.unsqueeze(3)
    stacked = num_layers if keep else 1
    first_hidden = x.new_empty(stacked, 2, num_rows, hidden_dim)
    second_hidden = x.new_empty(stacked, 2, num_rows, hidden_dim)
    if keep:
        second_hidden.copy_(hidden_bias.unsqueeze(2))
    log_scales, scales, moved = [], [], []
    firsts, seconds, last_weights = [], [], []
    for layer in layers:
        parity, place = layer % 2, layer if keep else 0
        with_one, outputs = spans.kept_with_one[parity], spans.outputs[parity]
        first, second = _slab(first_hidden, place), _slab(second_hidden, place)
        torch.bmm(
            _slab(twice, layer + before, span=with_one, transposed=True),
            _slab(first_weight, layer, span=with_one),
            out=first,
        )
        functional.leaky_relu_(first, SLOPE)
        if not keep:
            second.copy_(hidden_bias[layer].unsqueeze(1))
        second.baddbmm_(first, _slab(hidden_weight, layer, transposed=True))
        functional.leaky_relu_(second, SLOPE)
        last_weight = _slab(output_weight, layer, span=outputs)
        raw = torch.bmm(last_weight, _slab(second, transposed=True))
        raw.add_(_slab(output_bias, layer, span=outputs))
        log_scale, shift = torch.tanh(_slab(raw, 0)), _slab(raw, 1)
        scale = torch.exp(log_scale)
        target = _slab(states, layer + after, span=spans.changed[parity])
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
            last_weights.append(last_weight)
        changed, kept = kept, target
    log_abs_det = torch.cat(log_scales).sum(0)
    halves = (kept, changed) if layers[-1] % 2 == 0 else (changed, kept)
    saved = [first_weight, states, first_hidden, second_hidden]
    return (
        torch.cat(halves).transpose(0, 1),
        log_abs_det if inverse else log_abs_det.neg_(),
        [*saved, *log_scales, *scales, *moved, *firsts, *seconds, *last_weights] if keep else [],
    )


def _backward(
    inverse: bool,
    inputs: Sequence[Any],
    saved: Sequence[Tensor],
    needed: Sequence[bool],
    mapped_gradient: Tensor,
    log_det_gradient: Tensor,
) -> list[Tensor | None]:
    """Gradients of the inputs of `_forward`; None where none is needed."""
    x, context, input_weight, _, hidden_weight, _, output_weight, _, context_weight = inputs
    num_layers, _, hidden_dim, num_axes = input_weight.shape
    spans = _Spans(num_axes, 0 if context_weight is None else context_weight.shape[-1])
    first_weight, states, first_hidden, second_hidden, *lists = saved
    log_scales, scales, moved, firsts, seconds, last_weights = (
        lists[k * num_layers : (k + 1) * num_layers] for k in range(6)
    )
    output_gradient = x.new_zeros(num_layers, 2, num_axes, len(x))
    second_gradient, first_gradient = torch.empty_like(first_hidden), torch.empty_like(first_hidden)
    halves = list(mapped_gradient.transpose(0, 1).split([num_axes - 1, 1]))
    along_log_scale = log_det_gradient if inverse else -log_det_gradient
    layers = range(num_layers) if inverse else range(num_layers - 1, -1, -1)
    for step, layer in reversed(list(enumerate(layers))):
        parity = layer % 2
        outputs, gradient, scale = spans.outputs[parity], halves[parity], scales[step]
        raw_gradient = _slab(output_gradient, layer, 0, span=outputs)
        shift_gradient = _slab(output_gradient, layer, 1, span=outputs)
        if inverse:  # target = changed · scale + shift
            shift_gradient.copy_(gradient)
            halves[parity] = gradient * scale
            scale_gradient = torch.addcmul(along_log_scale, halves[parity], moved[step])
        else:  # target = (changed − shift) / scale
            halves[parity] = gradient / scale
            torch.neg(halves[parity], out=shift_gradient)
            scale_gradient = torch.addcmul(along_log_scale, gradient, moved[step], value=-1)
        torch.ops.aten.tanh_backward.grad_input(
            scale_gradient, log_scales[step], grad_input=raw_gradient
        )
        second, first = _slab(second_gradient, layer), _slab(first_gradient, layer)
        torch.bmm(
            _slab(output_gradient, layer, span=outputs, transposed=True),
            last_weights[step],
            out=second,
        )
        _through_leaky_relu(second, seconds[step])
        torch.bmm(second, _slab(hidden_weight, layer), out=first)
        _through_leaky_relu(first, firsts[step])
        kept_gradient = torch.bmm(
            _slab(first_weight, layer, span=spans.kept[parity]), _slab(first, transposed=True)
        )
        halves[1 - parity] = halves[1 - parity] + kept_gradient.sum(0)
    results: list[Tensor | None] = [None] * len(inputs)
    results[0] = torch.cat(halves).transpose(0, 1)
    flat = (2 * num_layers, -1, hidden_dim)
    first_flat = first_gradient.view(flat)
    if context is not None and needed[1]:
        weight = first_weight[:, :, spans.context].flatten(0, 1)
        gradient = torch.bmm(weight, first_flat.mT).sum(0).T
        results[1] = gradient if len(context) == len(x) else gradient.sum(0, keepdim=True)
    if any(needed[2:]):
        read = states[:-1] if inverse else states[1:]
        read = read.repeat_interleave(2, dim=0)
        found = torch.bmm(read, first_flat).view(first_weight.shape)
        axes, one, *others = found.split(
            [num_axes - 1, 1, spans.num_rows - num_axes - 1, 1]
            if context_weight is not None
            else [num_axes - 1, 1, 1],
            dim=2,
        )
        results[2] = torch.cat([axes, others[-1]], dim=2).transpose(2, 3)
        results[3] = one.squeeze(2)
        second_flat = second_gradient.view(flat).transpose(1, 2)
        found = torch.bmm(second_flat, first_hidden.view(flat))
        results[4] = found.view(hidden_weight.shape)
        results[5] = second_gradient.sum(2)
        found = torch.bmm(output_gradient.view(flat[0], num_axes, -1), second_hidden.view(flat))
        results[6] = found.view(output_weight.shape)
        results[7] = output_gradient.sum(3)
        if context_weight is not None:
            results[8] = others[0].transpose(2, 3)
    return results


def _through_leaky_relu(gradient: Tensor, result: Tensor) -> None:
    """Multiply, in place, by the slope; LeakyReLU's result has the sign of its argument."""
    torch.ops.aten.leaky_relu_backward.grad_input(
        gradient, result, SLOPE, True, grad_input=gradient
    )
