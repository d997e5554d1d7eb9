"""The README's tree names every module, and its Python example uses names that exist."""

import re
from pathlib import Path

import pose3d

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_tree_names_every_module_and_no_other():
    _, tree = README.split("\n## The house\n")
    named = sorted(re.findall(r"^\s+(\w+\.py)\s", tree, re.MULTILINE))
    packages = (REPOSITORY / "pose3d", REPOSITORY / "data_prep")
    paths = [path for package in packages for path in package.rglob("*.py")]
    assert named == sorted(path.name for path in paths if path.name != "__init__.py")


def test_python_example_uses_the_public_names():
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = set(re.findall(r"pose3d\.(\w+)", example))
    assert names
    assert names <= set(pose3d.__all__)


def test_linked_files_exist():
    links = re.findall(r"\]\(((?!https?:)[^)#]+)\)", README)
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []
