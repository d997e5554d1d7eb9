"""The examples in the docstrings of the geometry are true."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["skeleton", "camera", "crop", "uvd"])
def test_examples_hold(name):
    result = doctest.testmod(importlib.import_module(f"pose3d.geometry.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
