"""Reading a comparison: what it may say, and that budgets are equal."""

from pathlib import Path

import pytest

from pose3d.engine.config import load_config
from pose3d.engine.variants import load_plan

COMPARISONS = Path(__file__).parents[2] / "configs" / "comparisons"
BASE = """
base:
  train: {epochs: 3, batch_size: 8}
  data: {input_size_px: 64}
seeds: [0, 2]
"""


@pytest.fixture
def plan_of(tmp_path):
    def read(text):
        path = tmp_path / "compare.yaml"
        path.write_text(BASE + text, encoding="utf-8")
        return load_plan(path)

    return read


def test_variants_are_the_base_but_for_what_they_say(plan_of):
    plan = plan_of(
        "reference: b\n"
        "variants:\n"
        "  a: {title: Plain, likelihood: {kind: l1}}\n"
        "  b: [likelihood.form=released, train.learning_rate=2e-3]\n"
        "  c:\n"
    )
    common = ["train.epochs=3", "train.batch_size=8", "data.input_size_px=64"]
    assert plan.seeds == (0, 2)
    assert plan.reference == "b"
    assert [v.name for v in plan.variants] == ["a", "b", "c"]
    assert [v.title for v in plan.variants] == ["Plain", "b", "c"]
    assert plan.variant("a").config == load_config(overrides=[*common, "likelihood.kind=l1"])
    assert plan.variant("b").changes == {
        "likelihood.form": "released",
        "train.learning_rate": 2e-3,
    }
    assert plan.variant("c").config == load_config(overrides=common)
    seeded = plan.variant("c").at_seed(2)
    assert seeded == load_config(overrides=[*common, "train.seed=2"])


def test_base_may_be_a_file_beside_it(tmp_path):
    (tmp_path / "shared.yaml").write_text("train:\n  epochs: 7\n")
    path = tmp_path / "compare.yaml"
    path.write_text("base: shared.yaml\nvariants:\n  a:\n")
    assert load_plan(path).variant("a").config.train.epochs == 7


@pytest.mark.parametrize(
    "setting",
    [
        *("train.epochs=4", "train.batch_size=4", "train.limit_train_batches=9"),
        *("data.train_every=2", "data.input_size_px=96", "data.test_subjects=[9]"),
        *("augment.rotation_std_deg=1", "evaluate.flip_test=false", "train.num_threads=3"),
        "model.pretrained=resnet18.pth",
    ],
)
def test_unequal_budgets_are_refused_unless_allowed(plan_of, setting):
    name = setting.partition("=")[0]
    text = f"variants:\n  a:\n  b: ['{setting}']\n"
    with pytest.raises(ValueError, match=rf"variants a and b differ in {name} .*allow"):
        plan_of(text)
    assert plan_of(f"allow: [{name}]\n{text}").allow == (name,)


def test_speed_and_recipe_may_differ(plan_of):
    plan = plan_of(
        "variants:\n  a: ['data.num_threads=0', 'train.learning_rate=1']\n"
        "  b: ['model.width_multiplier=0.5']\n"
    )
    assert len(plan.variants) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("variants: {}", "variants must map names"),
        ("variants: {a: 3}", "variant a must hold sections"),
        ("variants: {a: {likelihood: {kynd: l1}}}", "variant a: unknown setting likelihood.kynd"),
        ("variants: {a: ['train.lr=1']}", "variant a: unknown setting train.lr"),
        ("variants: {a: ['train.seed=1']}", "list seeds under 'seeds:'"),
        ("variants: {'a/b': null}", "becomes a file's name"),
        ("variants: {a: null}\nreference: b", "no variant 'b'; there are a"),
        ("variants: {a: null}\nallow: [train.epoch]", "did you mean train.epochs"),
        ("variants: {a: null}\nvariant: {}", "unknown key 'variant'"),
        ("variants: {a: {likelihood: {kind: l3}}}", "variant a: likelihood.kind must be one of"),
    ],
)
def test_what_is_wrong_is_named(plan_of, text, message):
    with pytest.raises(ValueError, match=message):
        plan_of(text)


@pytest.mark.parametrize("seeds", ["[0, 0]", "[-1]", "[]", "[a]", "[true]", "1.5"])
def test_seeds_are_distinct_whole_numbers(tmp_path, seeds):
    path = tmp_path / "compare.yaml"
    path.write_text(f"seeds: {seeds}\nvariants:\n  a:\n")
    with pytest.raises(ValueError, match=r"compare.yaml: seeds must be distinct whole numbers"):
        load_plan(path)


@pytest.mark.parametrize("path", sorted(COMPARISONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_comparison_is_a_plan_with_a_reference(path):
    plan = load_plan(path)
    assert plan.reference in [variant.name for variant in plan.variants]


def test_the_shipped_example_reads():
    plan = load_plan(COMPARISONS / "small.yaml")
    assert plan.reference == "l1"
    assert plan.variant("rle-warm").changes == {
        "train.location_warmup_fraction": 0.5,
        "train.location_blend_fraction": 0.1,
    }
