"""Memory that is used again: never while anything refers to it, and only a few buffers of it."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pose3d.model import workspace as module
from pose3d.model.coupling import CouplingWeights, fused_log_prob, plain_log_prob
from pose3d.model.flow import FlowConfig, ResidualFlow
from pose3d.model.workspace import MAX_BYTES, MIN_BYTES, workspace

LIKE = torch.zeros(1)
SHAPE = (3, MIN_BYTES // 4)
NUM_ROWS = 700
"""Enough for the memory of a flow of width 16 to be one that is used again."""


@pytest.fixture(autouse=True)
def no_buffers():
    module._BUFFERS.clear()
    yield
    module._BUFFERS.clear()


def test_memory_is_given_out_again_once_nothing_refers_to_it():
    first = workspace(LIKE, *SHAPE)
    address = first.data_ptr()
    assert first.shape == SHAPE
    assert first.is_contiguous()
    assert first.dtype == LIKE.dtype
    del first
    fewer = workspace(LIKE, 2, SHAPE[1])
    assert fewer.data_ptr() == address
    assert fewer.shape == (2, SHAPE[1])
    assert fewer.is_contiguous()


@pytest.mark.parametrize("hold", [lambda t: t, lambda t: t[0], lambda t: t.detach().mT])
def test_memory_in_use_is_left_alone(hold):
    first = workspace(LIKE, *SHAPE)
    held, address = hold(first), first.data_ptr()
    del first
    assert workspace(LIKE, *SHAPE).data_ptr() != address
    assert held is not None


def test_memory_saved_by_a_graph_alone_is_left_alone():
    factor = workspace(LIKE, *SHAPE).fill_(2)
    address = factor.data_ptr()
    leaf = torch.ones(SHAPE, requires_grad=True)
    product = leaf * factor
    del factor
    other = workspace(LIKE, *SHAPE).fill_(5)
    assert other.data_ptr() != address
    product.sum().backward()
    assert (leaf.grad == 2).all()
    assert workspace(LIKE, *SHAPE).data_ptr() == address


@pytest.mark.parametrize("dtype", [torch.double, torch.half])
def test_another_dtype_gets_memory_of_its_own(dtype):
    workspace(LIKE, *SHAPE)
    other = workspace(LIKE.to(dtype), *SHAPE)
    assert other.dtype == dtype
    assert len(module._BUFFERS) == 2


def test_what_is_small_or_large_or_no_plain_tensor_is_not_kept():
    workspace(LIKE, MIN_BYTES // 4 - 1)
    workspace(LIKE, MAX_BYTES // 4 + 1)
    workspace(LIKE, 0, 5)
    workspace(torch.zeros(1, device="meta"), *SHAPE)
    workspace(torch.nn.Parameter(LIKE), *SHAPE)
    with torch.inference_mode():
        workspace(torch.zeros(1), *SHAPE)
    assert not module._BUFFERS


def flow_and_rows(num_rows=NUM_ROWS):
    torch.manual_seed(0)
    flow = ResidualFlow(FlowConfig(num_layers=3, hidden_dim=16)).double()
    torch.nn.init.normal_(flow.output_weight)
    return flow, torch.randn(num_rows, 3, dtype=torch.double)


def gradients(flow, rows, function=fused_log_prob):
    weights = list(flow.parameters())
    value = function(rows, None, CouplingWeights(*weights)).square().sum()
    return torch.autograd.grad(value, weights)


def test_few_buffers_are_kept_whatever_was_done():
    flow, rows = flow_and_rows()
    for number in range(12):
        flow.log_prob(rows)  # a graph that is dropped
        flow.log_prob(rows[: NUM_ROWS - 50 * number]).sum().backward()
        with torch.no_grad():
            flow.log_prob(rows)
            flow.sample((NUM_ROWS,))
    held = [flow.log_prob(rows) for _ in range(9)]
    assert 1 <= len(module._BUFFERS) <= 4
    del held
    assert sum(each.numel() * each.element_size() for each in module._BUFFERS) <= 4 * MAX_BYTES


def test_a_training_step_finds_the_memory_of_the_last_one():
    flow, rows = flow_and_rows()
    flow.log_prob(rows).sum().backward()
    before = {each.data_ptr() for each in module._BUFFERS}
    for _ in range(5):
        flow.log_prob(rows).sum().backward()
    assert before
    assert {each.data_ptr() for each in module._BUFFERS} == before


def test_graphs_alive_at_once_and_walked_twice_have_their_own_values():
    flow, rows = flow_and_rows()
    weights = list(flow.parameters())
    inputs = [rows * (1 + 0.1 * number) for number in range(7)]
    values = [flow.log_prob(each).square().sum() for each in inputs]
    first = [torch.autograd.grad(each, weights, retain_graph=True) for each in values]
    second = [torch.autograd.grad(each, weights) for each in reversed(values)]
    for each, once, again in zip(inputs, first, reversed(second), strict=True):
        expected = gradients(flow, each, plain_log_prob)
        torch.testing.assert_close(once, expected)
        torch.testing.assert_close(again, expected)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(values[0], weights)


def test_threads_do_not_share_memory():
    flow, rows = flow_and_rows()
    inputs = [rows * (1 + 0.1 * number) for number in range(4)]
    expected = [gradients(flow, each, plain_log_prob) for each in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(8):
            found = pool.map(gradients, [flow] * 4, inputs)
            for actual, each in zip(found, expected, strict=True):
                torch.testing.assert_close(actual, each)


def test_a_flow_is_copied_and_pickled_without_its_memory():
    flow, rows = flow_and_rows()
    value = flow.log_prob(rows)
    for each in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert torch.equal(each.log_prob(rows), value)
    assert len(pickle.dumps(flow)) < MIN_BYTES


def test_inference_before_training_leaves_nothing_that_training_cannot_write_to():
    flow, rows = flow_and_rows()
    with torch.inference_mode():
        expected = flow.log_prob(rows).clone()
    value = flow.log_prob(rows)
    value.sum().backward()
    with torch.inference_mode():
        torch.testing.assert_close(flow.log_prob(rows), expected)
    torch.testing.assert_close(value.detach(), expected.clone())
