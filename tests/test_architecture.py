"""The order of the house: a module imports only from modules before it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "pose3d"
ORDER = (
    *("geometry.skeleton", "geometry.camera", "geometry.crop", "geometry.uvd"),
    *("data.shard", "data.store", "data.augment", "data.dataset", "data.mixture"),
    *("model.weights_file", "model.backbone", "model.timm_backbone", "model.heads"),
    *(
        "model.workspace",
        "model.coupling",
        "model.flow_base",
        "model.zuko_flow",
        "model.flow",
        "model.flow_context",
        "model.base_density",
    ),
    *("model.proposal", "model.normaliser", "model.marginal", "model.standardise"),
    *("model.pushforward", "model.likelihood_config", "model.planar", "model.residual_law"),
    *("model.likelihood", "model.regressor"),
    "model.released",
    *("evaluation.metrics", "evaluation.npz", "evaluation.quadrature", "evaluation.density"),
    *("evaluation.sampled", "evaluation.calibration", "evaluation.tables", "evaluation.ranking"),
    *("evaluation.predictions", "evaluation.bootstrap"),
    *("engine.config", "engine.network", "engine.checkpoint", "engine.optimise", "engine.infer"),
    *("engine.bounded", "engine.session", "engine.journal", "engine.monitor", "engine.train"),
    *("engine.predict", "engine.released_run"),
    *("engine.variants", "engine.judge", "engine.scoreboard", "engine.compare"),
    *("report.style", "report.results", "report.charts", "report.residuals", "report.poses"),
    *("report.plots", "report.html", "report.comparison"),
    "cli",
)
"""Every module of pose3d, rooms from left to right and files from first to last."""
OPEN_TO_PREPARATION = ("geometry.", "data.store")
"""What data_prep may import of pose3d."""


def imported_names(path: Path) -> Iterator[str]:
    """Full dotted names that a file imports, at any depth of nesting."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(path: Path) -> Iterator[str]:
    """Modules of pose3d, without the package's name, that a file imports."""
    for name in imported_names(path):
        if name == "pose3d" or name.startswith("pose3d."):
            inside = name.removeprefix("pose3d").removeprefix(".")
            known = [module for module in ORDER if f"{inside}.".startswith(f"{module}.")]
            yield known[0] if known else inside


def modules() -> dict[str, Path]:
    """Every module by its name without the package's."""
    paths = (path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    return {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in paths}


def test_every_module_has_its_place_in_the_order():
    assert set(modules()) == set(ORDER)


def test_imports_only_look_back():
    forward = [
        f"{name} imports {other}"
        for name, path in modules().items()
        for other in imported_modules(path)
        if name in ORDER and (other not in ORDER or ORDER.index(other) >= ORDER.index(name))
    ]
    assert not forward


@pytest.mark.parametrize("room", [p.parent for p in sorted(PACKAGE.glob("*/__init__.py"))])
def test_rooms_re_export_nothing(room):
    assert not list(imported_names(room / "__init__.py"))


def test_preparation_sees_only_geometry_and_the_store():
    foreign = [
        f"{path.relative_to(REPOSITORY)} imports {other}"
        for path in (REPOSITORY / "data_prep").rglob("*.py")
        for other in imported_modules(path)
        if not other.startswith(OPEN_TO_PREPARATION)
    ]
    assert not foreign


def test_the_package_never_imports_the_preparation():
    backward = [
        f"{name}: {imported}"
        for name, path in modules().items()
        for imported in imported_names(path)
        if imported.startswith("data_prep")
    ]
    assert not backward


@pytest.mark.parametrize("path", sorted([*PACKAGE.rglob("*.py")]), ids=lambda p: p.stem)
def test_every_file_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
