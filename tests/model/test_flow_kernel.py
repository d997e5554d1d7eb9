"""The kernel written by hand against its readable definition: values, gradients, and theirs."""

import subprocess
import sys

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from pose3d.model.coupling import (
    CouplingWeights,
    fused_log_prob,
    fused_map,
    plain_log_prob,
    plain_map,
)
from pose3d.model.flow import FlowConfig, ResidualFlow


def inputs(*, num_rows=7, num_axes=3, context_rows=0, num_layers=4, dtype=torch.double):
    """Rows, context and weights drawn at random, all asking for gradients."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        value = 0.5 * torch.randn(*shape, generator=generator, dtype=torch.double)
        return value.to(dtype).requires_grad_()

    hidden = 5
    weights = [
        *(draw(num_layers, 2, hidden, num_axes), draw(num_layers, 2, hidden)),
        *(draw(num_layers, 2, hidden, hidden), draw(num_layers, 2, hidden)),
        *(draw(num_layers, 2, num_axes, hidden), draw(num_layers, 2, num_axes)),
    ]
    context = draw(context_rows, 2) if context_rows else None
    if context_rows:
        weights.append(draw(num_layers, 2, hidden, 2))
    return draw(num_rows, num_axes), context, weights


CASES = [
    {"num_layers": 4},
    {"num_layers": 3},
    {"num_axes": 2},
    {"context_rows": 7},
    {"context_rows": 1},
    {"num_rows": 1, "context_rows": 1},
]


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_values_and_both_gradients_are_those_of_the_definition(case, inverse):
    x, context, weights = inputs(**case)
    leaves = [x, *([context] if context is not None else []), *weights]
    found = []
    for function in (fused_map, plain_map):
        z, log_det = function(x, context, CouplingWeights(*weights), inverse=inverse)
        objective = (z.sin().sum(-1) * log_det.exp()).sum()
        plain = torch.autograd.grad(objective, leaves, retain_graph=True)
        first = torch.autograd.grad(objective, leaves, create_graph=True)
        second = torch.autograd.grad(sum(each.square().sum() for each in first), leaves)
        found.append([z, log_det, *plain, *first, *second])
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("inverse", [False, True])
def test_finite_differences_agree(inverse):
    x, context, weights = inputs(num_rows=2, num_layers=2, context_rows=2)

    def function(x, context, *weights):
        return fused_map(x, context, CouplingWeights(*weights), inverse=inverse)

    assert torch.autograd.gradcheck(function, (x, context, *weights))


def test_rows_computed_from_the_weights_are_differentiated_twice():
    """The gradient's own graph must not count a path through the rows a second time."""
    found = []
    for function in (fused_map, plain_map):
        x, _, weights = inputs()
        rows = x * weights[0].sum()
        z, log_det = function(rows, None, CouplingWeights(*weights), inverse=False)
        objective = z.square().sum() + log_det.sum()
        (first,) = torch.autograd.grad(objective, weights[0], create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), weights[0])
        found.append((first, second))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("wanted", range(9))
def test_any_one_input_may_ask_for_its_gradient_alone(wanted):
    gradients = []
    for function in (fused_map, plain_map):
        x, context, weights = inputs(context_rows=7)
        leaves = [x, context, *weights]
        for number, leaf in enumerate(leaves):
            leaf.requires_grad_(number == wanted)
        z, log_det = function(x, context, CouplingWeights(*weights), inverse=False)
        gradients += torch.autograd.grad(z.sin().sum() + log_det.sum(), leaves[wanted])
    torch.testing.assert_close(*gradients)


def test_without_gradient_the_same_values():
    x, context, weights = inputs(context_rows=7)
    expected = plain_map(x, context, CouplingWeights(*weights), inverse=False)
    with torch.no_grad():
        actual = fused_map(x, context, CouplingWeights(*weights), inverse=False)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("context_rows", [0, 1])
def test_no_rows_have_gradients_of_zero(context_rows):
    x, context, weights = inputs(num_rows=0, context_rows=context_rows)
    z, log_det = fused_map(x, context, CouplingWeights(*weights), inverse=False)
    gradients = torch.autograd.grad(z.sum() + log_det.sum(), weights)
    assert all((gradient == 0).all() for gradient in gradients)


def test_per_sample_gradients_of_torch_func(sharpen):
    flow = sharpen(ResidualFlow(FlowConfig(num_layers=2, hidden_dim=4)).double(), seed=1)
    x = torch.randn(5, 3, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    actual = torch.func.vmap(torch.func.grad(flow.log_prob))(x)
    rows = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(flow.log_prob(rows).sum(), rows)
    torch.testing.assert_close(actual, expected)
    _, tangent = torch.func.jvp(flow.log_prob, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(tangent, expected.sum(-1))


COMPILED = """
import torch
from pose3d.model.flow import FlowConfig, ResidualFlow

torch.manual_seed(0)
flow = ResidualFlow(FlowConfig(num_layers=2, hidden_dim=4))
x = torch.randn(5, 3).requires_grad_()
compiled = torch.compile(flow.log_prob, fullgraph=True, backend="eager")
(actual,) = torch.autograd.grad(compiled(x).sum(), x)
(expected,) = torch.autograd.grad(flow.log_prob(x).sum(), x)
torch.testing.assert_close(actual, expected)
"""


def test_the_whole_flow_is_one_graph_to_a_compiler():
    """In a process of its own: the checks of shapes, of tests only, cannot be compiled."""
    subprocess.run([sys.executable, "-c", COMPILED], check=True)


@pytest.mark.parametrize("case", CASES)
def test_log_density_and_both_gradients_are_those_of_the_definition(case):
    x, context, weights = inputs(**case)
    leaves = [x, *([context] if context is not None else []), *weights]
    found = []
    for function in (fused_log_prob, plain_log_prob):
        value = function(x, context, CouplingWeights(*weights))
        objective = (value * value).sum()
        plain = torch.autograd.grad(objective, leaves, retain_graph=True)
        first = torch.autograd.grad(objective, leaves, create_graph=True)
        second = torch.autograd.grad(sum(each.square().sum() for each in first), leaves)
        with torch.no_grad():
            again = function(x, context, CouplingWeights(*weights))
        found.append([value, again, *plain, *first, *second])
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected)


def test_gradients_asked_for_under_autocast_are_in_full_precision(sharpen):
    flow = sharpen(ResidualFlow(), seed=1)
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(2)).requires_grad_()
    (expected,) = torch.autograd.grad(flow.log_prob(x).sum(), x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (actual,) = torch.autograd.grad(flow.log_prob(x).sum(), x)
    assert torch.equal(actual, expected)


def test_a_quarter_of_the_operator_calls_of_the_plain_loop(loop_flow):
    """Counts of all calls that the profiler sees, views and nested ones included."""
    flow = ResidualFlow()
    loop = loop_flow(flow)
    x = torch.randn(128, 18, 3, requires_grad=True)
    calls = []
    for each in (flow, loop):
        each.log_prob(x).sum().backward()  # what is done once only does not count
        each.zero_grad()
        x.grad = None
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            each.log_prob(x).sum().backward()
        rows = profiler.key_averages()
        calls.append(sum(row.count for row in rows if row.key.startswith("aten::")))
    assert 4 * calls[0] <= calls[1]


@pytest.mark.long
def test_the_standard_compiler_makes_one_graph_of_the_same_values():
    """With its own code generator, which takes a minute."""
    command = COMPILED.replace(', backend="eager"', "")
    assert "backend" not in command
    subprocess.run([sys.executable, "-c", command], check=True)
