"""The typed settings of a run: defaults, YAML file and command line merged, unknown names refused.

Every component owns its section's dataclass; this module adds those of training and evaluation and
merges them. A YAML file or an override says only what differs from the defaults.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pose3d.data.augment import AugmentConfig
from pose3d.data.dataset import DataConfig
from pose3d.model.flow import FlowConfig
from pose3d.model.likelihood_config import KINDS_WITH_FLOW, LikelihoodConfig
from pose3d.model.regressor import ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How the network is fitted; the defaults are the recipe of the RLE paper on one device."""

    epochs: int = 140
    """Passes over the training split."""
    batch_size: int = 32
    """Images per step; the last incomplete batch of an epoch is left out."""
    seed: int = 0
    """Fixes the initial weights, the order of the images and every augmentation."""
    optimiser: Literal["adam", "adamw"] = "adam"
    """adam adds weight_decay to the gradient, adamw decays the weights themselves."""
    learning_rate: float = 1e-3
    """Of the first step after the warm-up."""
    weight_decay: float = 0.0
    """Not applied to biases, norms and the flow."""
    schedule: Literal["step", "cosine", "constant"] = "step"
    """step multiplies by decay_factor at each milestone, cosine falls to 0 at the last step."""
    milestones: tuple[int, ...] = (90, 120)
    """Epochs at which schedule step decays."""
    decay_factor: float = 0.1
    """Of schedule step."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    gradient_clip: float = 50.0
    """Largest global ℓ2 norm of the gradient; 0 = no clipping. A few times the usual norm of the
    exact form (about 10): a clip that cuts every step costs accuracy (EXPERIMENTS.md)."""
    loss_reduction: Literal["per_joint", "per_image"] = "per_joint"
    """per_joint: mean over labelled joints, nats per joint whatever the joint set and batch size;
    per_image: sum over joints / batch size, as released. Adam hardly sees the difference."""
    location_warmup_fraction: float = 0.0
    """Share of all steps in which μ learns by ℓ1 while σ and flow see residuals of a detached μ."""
    location_blend_fraction: float = 0.0
    """Share of all steps, after the warm-up, over which μ goes over from ℓ1 to the likelihood."""
    location_scale: float = 0.05
    """Constant scale, in uvd, of the Laplace density whose ℓ1 moves μ in the warm-up and blend, and
    the σ at which location_beta changes nothing."""
    location_beta: float = 0.0
    """The gradient of μ is multiplied by (σ / location_scale) to this power, axis by axis. 0: the
    likelihood's own, in which unsure joints hardly move; 1: all have the same voice, as under ℓ1.
    From scratch 1 is as accurate as ℓ1, 0 far behind (EXPERIMENTS.md)."""
    precision: Literal["auto", "float32", "bf16"] = "float32"
    """bf16 runs the backbone under autocast; heads, flow and likelihood stay in float32. auto takes
    bf16 where the device computes in it and float32 elsewhere: emulated, bf16 is many times slower
    than float32."""
    channels_last: bool = True
    """Memory layout of images and convolutions; the same numbers, faster on CPU and GPU."""
    ema_decay: float = 0.0
    """Of the exponential average of weights and buffers that is validated and saved; 0 = none."""
    device: str = "auto"
    """auto takes cuda where there is one, else cpu."""
    num_threads: int = 0
    """Threads of torch on the CPU; 0 leaves torch's own choice."""
    checkpoint_every_steps: int = 0
    """Also write checkpoints/last.pt every so many steps; 0 = after each epoch only."""
    log_every_steps: int = 20
    """Steps between two points of the training curves."""
    max_skipped_in_a_row: int = 20
    """Training stops with an error after so many non-finite steps one after the other."""
    figure_every_epochs: int = 1
    """Epochs between two TensorBoard figures of predictions; 0 = none."""
    limit_train_batches: int = 0
    """Cuts every epoch to so many batches; 0 = the whole split."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "log_every_steps", "max_skipped_in_a_row"):
            _require(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), ">= 1")
        for name in (
            *("weight_decay", "warmup_steps", "gradient_clip", "num_threads"),
            *("checkpoint_every_steps", "figure_every_epochs", "limit_train_batches"),
        ):
            _require(getattr(self, name) >= 0, f"train.{name}", getattr(self, name), ">= 0")
        for name in ("learning_rate", "location_scale"):
            _require(getattr(self, name) > 0, f"train.{name}", getattr(self, name), "> 0")
        _require(0 <= self.seed < 2**63, "train.seed", self.seed, "0 to 2^63 - 1")
        _require(0 <= self.ema_decay < 1, "train.ema_decay", self.ema_decay, "0 to below 1")
        _require(0 <= self.location_beta <= 1, "train.location_beta", self.location_beta, "0 to 1")
        _require(0 < self.decay_factor <= 1, "train.decay_factor", self.decay_factor, "in (0, 1]")
        fractions = (self.location_warmup_fraction, self.location_blend_fraction)
        if min(fractions) < 0 or sum(fractions) > 1:
            raise ValueError(
                "train.location_warmup_fraction and train.location_blend_fraction must be >= 0 "
                f"and at most 1 together, got {fractions[0]} and {fractions[1]}"
            )
        if (
            list(self.milestones) != sorted(set(self.milestones))
            or min(self.milestones, default=1) < 1
        ):
            raise ValueError(
                "train.milestones must be rising epochs >= 1, got "
                f"{', '.join(map(str, self.milestones))}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """How a split is predicted, in the validation of training and by the predict verb."""

    batch_size: int = 64
    """Images per forward pass."""
    flip_test: bool = True
    """Average the prediction of the image with the mirrored one of its mirror image."""
    subtract_root_depth: bool = False
    """Take the predicted d of the root from that of every joint, as the released code does: for
    imported weights, whose training had the root's depth as a label; ours leaves it out."""
    validation_every: int = 1
    """Validation during training looks at one in so many records of the test split, drawn once."""
    num_examples: int = 8
    """Image crops kept in examples.npz for each of the worst, best and random records."""
    density_cells: int = 32
    """Cells per axis of the grid on which the learnt residual density is tabulated."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "validation_every", "num_examples"):
            _require(getattr(self, name) >= 1, f"evaluate.{name}", getattr(self, name), ">= 1")
        _require(self.density_cells >= 4, "evaluate.density_cells", self.density_cells, ">= 4")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """All settings of a run, one section per component."""

    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    likelihood: LikelihoodConfig = field(default_factory=LikelihoodConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        if self.likelihood.is_released and self.model.scale_head == "cholesky":
            raise ValueError(
                "likelihood.form=released is a sum over axes, each with its own σ, and has no full "
                "covariance: set model.scale_head=diagonal or likelihood.form=paper"
            )
        if self.flow.condition != "none" and not self.likelihood.has_flow:
            raise ValueError(
                f"flow.condition={self.flow.condition} conditions a flow, and "
                f"likelihood.kind={self.likelihood.kind} has none: set flow.condition=none, or "
                f"likelihood.kind to one of {', '.join(KINDS_WITH_FLOW)}"
            )


RENAMED = {"model.normalise_feature": ("model.location_head", {True: "released", False: "plain"})}
"""Settings of older files and checkpoints: what they are called now, and their values."""


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Merge the defaults with a YAML file and then with overrides.

    Args:
        path: YAML file of sections with the settings that differ from the defaults; None = none.
        overrides: Strings of the form ``section.name=value``, the value in YAML's grammar.

    Returns:
        The complete, checked, immutable settings.

    Raises:
        ValueError: For an unknown name (naming the nearest known one), a value of the wrong type
            or out of its range, or a file that is not YAML of this form.
        FileNotFoundError: If there is no file at ``path``.

    Example:
        >>> load_config(overrides=["train.epochs=3"]).train.epochs
        3
    """
    settings = [] if path is None else list(_flatten(read_yaml(Path(path))))
    settings += [_parse_override(override) for override in overrides]
    return _merge(settings)


def override_config(config: RunConfig, settings: Mapping[str, Any] | Sequence[str]) -> RunConfig:
    """The same settings but for some.

    Args:
        config: Stays as it is.
        settings: Sections with the settings that differ, or strings ``section.name=value``.

    Raises:
        ValueError: As load_config does.
    """
    given = list(_flatten(config_to_dict(config)))
    if isinstance(settings, Mapping):
        return _merge([*given, *_flatten(settings)])
    return _merge([*given, *(_parse_override(setting) for setting in settings)])


def save_config(config: RunConfig, path: str | Path) -> None:
    """Write all settings as YAML that load_config reads back to an equal config."""
    text = yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True)
    Path(path).write_text(text, encoding="utf-8")


def config_to_dict(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Nested plain values (tuples become lists), ready for JSON or YAML."""
    return {
        section: {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }
        for section, values in dataclasses.asdict(config).items()
    }


def config_from_dict(values: Mapping[str, Any]) -> RunConfig:
    """The inverse of config_to_dict; raises ValueError like load_config."""
    return _merge(list(_flatten(values)))


def config_differences(
    config: RunConfig, other: RunConfig, *, ignore: Sequence[str] = ()
) -> list[tuple[str, Any, Any]]:
    """Dotted names whose values differ, each with both values, apart from those in ``ignore``."""
    ours, theirs = dict(_flatten(config_to_dict(config))), dict(_flatten(config_to_dict(other)))
    return [
        (name, value, theirs[name])
        for name, value in ours.items()
        if value != theirs[name] and name not in ignore
    ]


def setting_types() -> dict[str, Any]:
    """Every setting's dotted name with its annotated type."""
    return {
        f"{section.name}.{name}": annotation
        for section in dataclasses.fields(RunConfig)
        for name, annotation in typing.get_type_hints(section.type).items()
    }


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {expected}, got {value}")


def read_yaml(path: Path) -> Mapping[str, Any]:
    """The mapping in a YAML file, plain values.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is not YAML, or holds something else than a mapping.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no config file at {path}")
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} is not a readable YAML config: {_one_line(error)}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold sections like 'train:', got a {type(values).__name__}")
    return typing.cast(Mapping[str, Any], values)


def _parse_override(override: str) -> tuple[str, Any]:
    name, equals, text = override.partition("=")
    if not equals:
        raise ValueError(f"override {override!r} must have the form section.name=value")
    try:
        holder = OmegaConf.from_dotlist([f"value={text}"])
        value = OmegaConf.to_container(holder)["value"]  # type: ignore[call-overload, index]
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{name}: cannot read the value {text!r}: {_one_line(error)}") from error
    return name.strip(), value


def _flatten(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for section, settings in values.items():
        if settings is None:  # a section with all its lines commented out
            settings = {}
        if not isinstance(settings, Mapping):
            yield str(section), settings  # refused by _check_name
            continue
        if not settings and section not in RunConfig.__dataclass_fields__:
            raise ValueError(_unknown(str(section)))
        for name, value in settings.items():
            yield f"{section}.{name}", value


def _merge(settings: Sequence[tuple[str, Any]]) -> RunConfig:
    expected = setting_types()
    merged = OmegaConf.structured(RunConfig)
    OmegaConf.set_readonly(merged, False)
    for section in merged:
        OmegaConf.set_readonly(merged[section], False)
    for name, value in settings:
        if name in RENAMED:
            name, values = RENAMED[name]
            value = values[value] if isinstance(value, bool) else value
        if name in RunConfig.__dataclass_fields__:
            raise ValueError(f"{name} is a section; set one of its names, {name}.…, got {value!r}")
        if name not in expected:
            raise ValueError(_unknown(name))
        try:
            OmegaConf.update(merged, name, value, merge=False)
        except (OmegaConfBaseException, TypeError) as error:
            raise ValueError(
                f"{name}: got {value!r} ({type(value).__name__}), expected "
                f"{_type_in_words(expected[name])}"
            ) from error
    try:
        return typing.cast(RunConfig, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ValueError(f"config: {_one_line(error)}") from error


def _unknown(name: str) -> str:
    known = list(setting_types())
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not nearest:  # the section may be wrong or left out
        last = {full.rpartition(".")[2]: full for full in known}
        nearest = [last[n] for n in difflib.get_close_matches(name.rpartition(".")[2], last, n=1)]
    return f"unknown setting {name}" + (f"; did you mean {nearest[0]}?" if nearest else "")


def _type_in_words(annotation: Any) -> str:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(map(str, parts))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_type_in_words, parts))
    if origin in (tuple, list):
        return f"a list of {_type_in_words(parts[0])}"
    return {type(None): "null", bool: "true or false"}.get(annotation, annotation.__name__)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
