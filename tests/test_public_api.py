"""What `import pose3d` offers: it is documented in full, and the examples hold."""

import ast
import dataclasses
import doctest
import importlib
import inspect
import itertools
import re
import textwrap

import pytest

import pose3d

PROMISED = (
    *("load_config", "open_store", "Camera", "encode_uvd", "decode_uvd", "PoseRegressor"),
    *("PoseDistribution", "ResidualFlow", "Likelihood", "train", "predict"),
    *("mpjpe", "pa_mpjpe", "n_mpjpe"),
)
PUBLISHED_ELSEWHERE = set(PROMISED) - {"load_config", "open_store", "predict"}
"""What follows a paper or a data set, and must name it."""
MODULES = sorted({"pose3d"} | {getattr(pose3d, name).__module__ for name in PROMISED})
NEED_A_STORE = {"pose3d.data.store", "pose3d.engine.train", "pose3d.engine.predict"}
"""Their example is the package's second one, which is run where there is a store to train on."""


def sections(thing) -> dict[str, str]:
    """The titled parts of a Google docstring."""
    parts = re.split(r"^(\w+):$", inspect.getdoc(thing) or "", flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented_fields(thing) -> set[str]:
    """Fields of a dataclass that a string follows in the source."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(thing))).body
    statements = definition.body
    return {
        statement.target.id
        for statement, follower in itertools.pairwise(statements)
        if isinstance(statement, ast.AnnAssign)
        and isinstance(follower, ast.Expr)
        and isinstance(follower.value, ast.Constant)
    }


def test_the_package_offers_what_it_promises():
    assert set(pose3d.__all__) == set(PROMISED)


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
    assert result.attempted > 0 or name in NEED_A_STORE


@pytest.mark.parametrize("name", PROMISED)
def test_every_argument_is_documented(name):
    thing = getattr(pose3d, name)
    if dataclasses.is_dataclass(thing):
        assert {field.name for field in dataclasses.fields(thing)} <= documented_fields(thing)
        return
    parameters = inspect.signature(thing.__init__ if inspect.isclass(thing) else thing).parameters
    told = re.findall(r"^    (\w+): ", sections(thing)["Args"], flags=re.MULTILINE)
    assert told == [parameter for parameter in parameters if parameter != "self"]


@pytest.mark.parametrize("name", PROMISED)
def test_answers_errors_and_sources_are_documented(name):
    thing = getattr(pose3d, name)
    told = sections(thing)
    assert "Error: " in told["Raises"]
    assert inspect.isclass(thing) or told["Returns"].strip()
    if name in PUBLISHED_ELSEWHERE:
        assert re.search(r"(19|20)\d\d|As in ``\w+``", told["Source"])
