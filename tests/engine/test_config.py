"""Settings: what is merged, what is refused and in which words."""

import dataclasses
from pathlib import Path

import pytest

from pose3d.engine.config import (
    RunConfig,
    config_differences,
    config_from_dict,
    config_to_dict,
    load_config,
    save_config,
    setting_types,
)

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))


@pytest.fixture
def write(tmp_path):
    def to_file(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return to_file


def test_defaults_are_complete():
    assert load_config() == RunConfig()


def test_overrides_win_over_the_file_and_the_file_over_the_defaults(write):
    path = write("train:\n  epochs: 3\n  batch_size: 5\n")
    config = load_config(path, ["train.epochs=7"])
    assert (config.train.epochs, config.train.batch_size, config.train.seed) == (7, 5, 0)


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("train.learning_rate=1e-3", 1e-3),
        ("train.learning_rate=2", 2.0),
        ("train.milestones=[3, 5]", (3, 5)),
        ("train.milestones=[]", ()),
        ("train.channels_last=false", False),
        ("train.device=cpu", "cpu"),
        ("data.train_subjects=[1, 5]", (1, 5)),
        ("data.train_subjects=null", None),
        ("model.pretrained=weights/a=b.pth", "weights/a=b.pth"),
    ],
)
def test_override_values_follow_yaml(override, read):
    section, name = override.partition("=")[0].split(".")
    value = getattr(getattr(load_config(overrides=[override]), section), name)
    assert value == read
    assert type(value) is type(read)


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("train.epoch=3", "train.epochs"),
        ("trian.epochs=3", "train.epochs"),
        ("epochs=3", "train.epochs"),
        ("model.learning_rate=3", "train.learning_rate"),
        ("augment.scale_sd=3", "augment.scale_std"),
    ],
)
def test_unknown_name_is_answered_with_the_nearest(override, nearest):
    name = override.partition("=")[0]
    with pytest.raises(ValueError, match=f"^unknown setting {name}; did you mean {nearest}\\?$"):
        load_config(overrides=[override])


def test_unknown_name_in_a_file_is_refused(write):
    with pytest.raises(ValueError, match=r"unknown setting train\.epoch; did you mean"):
        load_config(write("train: {epoch: 3}"))


def test_unknown_section_is_refused(write):
    with pytest.raises(ValueError, match="unknown setting optimizer"):
        load_config(write("optimizer:\n"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=many", r"train\.epochs: got 'many' \(str\), expected int"),
        ("train.epochs=2.5", r"train\.epochs: got 2\.5 \(float\), expected int"),
        ("train.epochs=null", r"train\.epochs: got None \(NoneType\), expected int"),
        ("train.epochs=[1]", r"train\.epochs: got \[1\] \(list\), expected int"),
        ("train.channels_last=perhaps", "expected true or false"),
        ("train.optimiser=sgd", "expected one of adam, adamw"),
        ("train.milestones=[x]", "expected a list of int"),
        ("train.milestones=3", "expected a list of int"),
        ("data.train_subjects=[x]", "expected a list of int or null"),
        ("train=3", "train is a section"),
        ("train.epochs", "must have the form section.name=value"),
        ("train.epochs=[1", "cannot read the value"),
        ("train.device=${nowhere}", "nowhere"),
    ],
)
def test_wrong_type_names_setting_got_and_expected(override, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_config(overrides=[override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=0", r"train\.epochs must be >= 1, got 0"),
        ("train.learning_rate=0", r"train\.learning_rate must be > 0"),
        ("train.learning_rate=.nan", r"train\.learning_rate must be > 0, got nan"),
        ("train.ema_decay=1", r"train\.ema_decay"),
        ("train.milestones=[5, 3]", r"train\.milestones must be rising epochs >= 1, got 5, 3"),
        ("train.location_warmup_fraction=1.5", "at most 1 together"),
        ("flow.num_layers=1", r"flow\.num_layers"),
        ("evaluate.batch_size=0", r"evaluate\.batch_size"),
        ("likelihood.residual_bound=.inf", r"likelihood\.residual_bound must be finite"),
        ("likelihood.residual_bound=.nan", r"likelihood\.residual_bound must be > 0, got nan"),
    ],
)
def test_values_out_of_range_are_refused(override, message):
    with pytest.raises(ValueError, match=message):
        load_config(overrides=[override])


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (
            ["likelihood.form=released", "model.scale_head=cholesky"],
            ["likelihood.form=released", "model.scale_head=diagonal"],
        ),
        (
            ["likelihood.kind=laplace", "flow.condition=joint"],
            ["likelihood.kind=laplace", "flow.condition=joint"],
        ),
    ],
)
def test_settings_that_exclude_each_other_are_refused_by_name(overrides, names):
    with pytest.raises(ValueError, match=r"^(likelihood|flow)") as caught:
        load_config(overrides=overrides)
    assert all(name in str(caught.value) for name in names)
    assert "\n" not in str(caught.value)
    for override in overrides:  # either alone is fine
        load_config(overrides=[override])


@pytest.mark.parametrize("text", ["train: [", "- 1\n", "train: 3\n", "a: b: c", "\x00"])
def test_a_file_that_is_no_config_ends_in_one_line(write, text):
    with pytest.raises(ValueError, match=r".") as caught:
        load_config(write(text))
    assert "\n" not in str(caught.value)


def test_empty_files_and_sections_change_nothing(write):
    assert load_config(write("")) == RunConfig()
    assert load_config(write("train:\n  # epochs: 3\n")) == RunConfig()


@pytest.mark.parametrize(("old", "new"), [(True, "released"), (False, "plain")])
def test_a_setting_of_older_checkpoints_is_read_under_its_new_name(old, new):
    assert config_from_dict({"model": {"normalise_feature": old}}).model.location_head == new


def test_an_impossible_value_of_an_older_setting_is_refused():
    with pytest.raises(ValueError, match=r"model\.location_head: got \[1\] \(list\)"):
        config_from_dict({"model": {"normalise_feature": [1]}})


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no config file at"):
        load_config(tmp_path / "none.yaml")


def test_saved_settings_are_read_back_the_same(tmp_path):
    config = load_config(overrides=["train.milestones=[1, 2]", "data.test_subjects=[9]"])
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_plain_values_are_turned_back_the_same():
    config = load_config(overrides=["train.milestones=[1, 2]"])
    assert config_from_dict(config_to_dict(config)) == config


def test_differences_name_both_values():
    other = load_config(overrides=["train.epochs=3", "train.seed=4"])
    changed = config_differences(RunConfig(), other, ignore=["train.seed"])
    assert changed == [("train.epochs", RunConfig().train.epochs, 3)]


def test_settings_cannot_be_changed_after_loading():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_config().train.epochs = 3  # type: ignore[misc]


def test_every_setting_is_explained_in_its_class():
    for section in dataclasses.fields(RunConfig):
        source = Path(__import__("inspect").getsourcefile(section.type)).read_text()
        body = source.split(f"class {section.type.__name__}")[1].split("\nclass ")[0]
        lines = body.splitlines()
        for name in section.type.__dataclass_fields__:
            place = next(i for i, line in enumerate(lines) if line.startswith(f"    {name}:"))
            assert lines[place + 1].strip().startswith('"""'), f"{section.name}.{name}"


def test_setting_names_are_dotted():
    assert "train.epochs" in setting_types()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_shipped_configs_are_valid(path):
    assert isinstance(load_config(path), RunConfig)
