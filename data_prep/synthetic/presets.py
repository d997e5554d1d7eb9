"""How large a data set is, by number or by name."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from data_prep.synthetic.generate import generate_synthetic


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the contents of a set, its motion and the margin of its crops aside."""

    num_train: int = 10_000
    num_test: int = 1_000
    crop_size_px: int = 256
    seed: int = 0

    @property
    def only_split(self) -> str | None:
        """The one split that has images; None if both have."""
        if self.num_train and self.num_test:
            return None
        return "train" if self.num_train else "test"


PRESETS: dict[str, Settings] = {
    # 150 takes of 5 subjects x 50 instants x 4 cameras; 60 takes of 2 other subjects x 17 x 4.
    "benchmark": Settings(num_train=30_000, num_test=4_080, crop_size_px=256, seed=0),
}


def settings_of(preset: str | None, **given: int | None) -> Settings:
    """Settings of a named set, or of one that is not named.

    Args:
        preset: One of `PRESETS`, or None.
        **given: Fields of `Settings`; None where they are left at their defaults.

    Raises:
        ValueError: If there is no such preset, or something that it fixes is given.
    """
    known = {name: value for name, value in given.items() if value is not None}
    if preset is None:
        return Settings(**known)
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}, known: {', '.join(PRESETS)}")
    if known:
        fixed = ", ".join(field.name for field in fields(Settings))
        raise ValueError(f"preset {preset} fixes {fixed}; leave out {', '.join(known)}")
    return PRESETS[preset]


def generate_preset(
    store_path: Path | str, preset: str, *, share: float = 1.0, **options: Any
) -> str:
    """Render a named set into a store.

    Args:
        store_path: The store's folder.
        preset: One of `PRESETS`.
        share: Renders this part of the images; with fewer of each take it is another data set.
        **options: What a preset leaves open of `generate_synthetic`: renderer, motions, processes.

    Returns:
        The store's digest.

    Raises:
        ValueError: If there is no such set, or for what `generate_synthetic` raises it.
    """
    settings = settings_of(preset)
    return generate_synthetic(
        store_path,
        num_train=round(share * settings.num_train),
        num_test=round(share * settings.num_test),
        crop_size_px=settings.crop_size_px,
        seed=settings.seed,
        **options,
    )
