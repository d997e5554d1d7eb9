"""What `pose3d compare` compares: a base, variants of it and seeds, under equal budgets.

A YAML file of this form, where ``base`` may also be the path of a config file:

    base:
      train: {epochs: 40, batch_size: 32}
    seeds: [0, 1, 2]
    reference: l1
    variants:
      l1: {likelihood: {kind: l1}}
      exact: {title: RLE, likelihood: {form: paper}}
      released: [likelihood.form=released]
"""

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pose3d.engine.config import (
    RunConfig,
    config_differences,
    config_from_dict,
    load_config,
    override_config,
    read_yaml,
    setting_types,
)

KEYS = ("base", "seeds", "variants", "reference", "allow")
BUDGET_SETTINGS = (
    *("train.epochs", "train.batch_size", "train.limit_train_batches", "train.device"),
    *("train.num_threads", "evaluate.flip_test", "evaluate.validation_every", "model.pretrained"),
)
"""Settings, besides sections data and augment, in which variants may not differ."""
BUDGET_SECTIONS = ("data", "augment")
FREE_SETTINGS = ("data.num_threads", "data.prefetch", "data.cache_gib")
"""Settings of those sections that change nothing but the speed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One of the things compared."""

    name: str
    """Also in file names."""
    title: str
    """For readers."""
    config: RunConfig
    """All settings, but train.seed, which each run sets."""
    changes: dict[str, Any]
    """Dotted names of the settings that differ from the base, with their values."""

    def at_seed(self, seed: int) -> RunConfig:
        """The settings of one run."""
        return dataclasses.replace(
            self.config, train=dataclasses.replace(self.config.train, seed=seed)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to be trained."""

    source: Path
    """The file."""
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    reference: str | None
    """Name of the variant that the others are set against."""
    allow: tuple[str, ...]
    """Settings of the budget that may differ nevertheless."""

    def variant(self, name: str) -> Variant:
        """The variant of a name; raises ValueError if there is none."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = ", ".join(v.name for v in self.variants)
        raise ValueError(f"{self.source} has no variant {name!r}; there are {names}")


def load_plan(path: str | Path) -> Plan:
    """Read a comparison and check that its variants are comparable.

    Args:
        path: YAML file, see the module.

    Raises:
        FileNotFoundError: If the file, or the base that it names, is not there.
        ValueError: If it is not of this form, a setting is unknown or wrong, or two variants
            differ in a setting of the budget that `allow` does not list.
    """
    path = Path(path)
    values = read_yaml(path)
    unknown = [str(key) for key in values if key not in KEYS]
    if unknown:
        raise ValueError(f"{path}: unknown key {unknown[0]!r}; there are {', '.join(KEYS)}")
    base = _base(values.get("base"), source=path)
    plan = Plan(
        source=path,
        variants=tuple(_variants(values.get("variants"), base, source=path)),
        seeds=check_seeds(values.get("seeds", [0]), source=f"{path}: seeds"),
        reference=values.get("reference"),
        allow=tuple(values.get("allow") or ()),
    )
    if plan.reference is not None:
        plan.variant(plan.reference)
    for name in plan.allow:
        _check_setting(name, source=f"{path}: allow")
    _check_budgets(plan)
    return plan


def check_seeds(seeds: object, *, source: str) -> tuple[int, ...]:
    """The seeds themselves if they are distinct whole numbers >= 0; raises ValueError else."""
    if not isinstance(seeds, Sequence) or isinstance(seeds, str):
        seeds = [seeds]
    are_good = all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds)
    if not are_good or not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ValueError(f"{source} must be distinct whole numbers >= 0, got {list(seeds)}")
    return tuple(seeds)


def _base(values: object, *, source: Path) -> RunConfig:
    if values is None:
        return load_config()
    if isinstance(values, str):
        beside = source.parent / values
        return load_config(beside if beside.is_file() else values)
    if not isinstance(values, Mapping):
        raise ValueError(f"{source}: base must be sections or the path of a config, got {values!r}")
    try:
        return config_from_dict(values)
    except ValueError as error:
        raise ValueError(f"{source}: base: {error}") from error


def _variants(values: object, base: RunConfig, *, source: Path) -> Iterator[Variant]:
    if not isinstance(values, Mapping) or not values:
        raise ValueError(f"{source}: variants must map names to settings, got {values!r}")
    for key, given in values.items():
        name = str(key)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise ValueError(
                f"{source}: the variant's name {name!r} becomes a file's name: use letters, "
                "digits, '_', '.' and '-'"
            )
        settings = {} if given is None else given
        title = name
        if isinstance(settings, Mapping):
            title = str(settings.get("title", name))
            settings = {key: value for key, value in settings.items() if key != "title"}
        elif not isinstance(settings, list) or not all(isinstance(s, str) for s in settings):
            raise ValueError(
                f"{source}: variant {name} must hold sections or a list of section.name=value, "
                f"got {settings!r}"
            )
        try:
            config = override_config(base, settings)
        except ValueError as error:
            raise ValueError(f"{source}: variant {name}: {error}") from error
        if config.train.seed != base.train.seed:
            raise ValueError(f"{source}: variant {name} sets train.seed; list seeds under 'seeds:'")
        changes = {name: new for name, _, new in config_differences(base, config)}
        yield Variant(name=name, title=title, config=config, changes=changes)


def _check_budgets(plan: Plan) -> None:
    first = plan.variants[0]
    for other in plan.variants[1:]:
        for name, ours, theirs in config_differences(first.config, other.config):
            if is_budget(name) and name not in plan.allow:
                raise ValueError(
                    f"{plan.source}: variants {first.name} and {other.name} differ in {name} "
                    f"({ours} and {theirs}), which belongs to the budget that all must share; "
                    f"set it in base, or put {name} under 'allow:' if it is what you compare"
                )


def is_budget(name: str) -> bool:
    """Whether variants may not differ in a setting unless it is allowed."""
    in_section = name.partition(".")[0] in BUDGET_SECTIONS and name not in FREE_SETTINGS
    return in_section or name in BUDGET_SETTINGS


def _check_setting(name: object, *, source: str) -> None:
    known = list(setting_types())
    if name not in known:
        nearest = difflib.get_close_matches(str(name), known, n=1)
        advice = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ValueError(f"{source}: unknown setting {name}{advice}")
