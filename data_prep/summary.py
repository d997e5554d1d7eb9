"""Numbers of a source or a store in tables, for a person to read."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool
from rich.console import Console
from rich.table import Table

from data_prep.bones import FACING_TESTS, BoneTally, bone_names, shares_right
from data_prep.inventory import subject_table
from data_prep.measure import Measurements
from data_prep.verify import compare_with_release
from pose3d.data.store import Store

MAX_SUBJECTS = 8
MAX_VALUES = 16
MAX_IMAGES_SIZED = 500


def print_summary(store: Store, console: Console, *, measured: Measurements) -> None:
    """Print what a store holds: counts, ranges, bones and sides per subject.

    Args:
        store: An open store.
        console: Where to.
        measured: What `data_prep.measure.measure` gives.
    """
    records, header = store.records, store.header
    geometry = measured.geometry
    weighted = geometry.weighted
    depth_m = records.joints_camera_mm[..., 2][geometry.has_depth] / 1000
    step = max(len(store) // MAX_IMAGES_SIZED, 1)
    sizes = [len(store.image_bytes(i)) for i in range(0, len(store), step)]
    trip_mm = geometry.round_trip_mm[np.isfinite(geometry.round_trip_mm)]
    console.print(
        facts_table(
            {
                "records": f"{len(store)} ({counted(records.split)})",
                "subjects": counted(records.subject),
                "actions": counted(records.action),
                "cameras": f"{counted(records.camera_name)}; "
                f"{len(np.unique(records.camera_index))} poses",
                "source": header.source,
                "box": header.box_definition,
                "crops": f"{header.crop_size_px} px, margin {header.margin:g}, JPEG quality "
                f"{header.jpeg_quality}, mean {np.mean(sizes) / 1000:.1f} kB",
                "left out": f"{len(store.skipped)} source records",
                "depth": f"{depth_m.min():.2f} to {depth_m.max():.2f} m"
                if len(depth_m)
                else "not known (2-D labels)",
                "round trip": f"at most {trip_mm.max():.2g} mm" if len(trip_mm) else "-",
                "joints in the square": _share(geometry.in_square[weighted]),
                "joints in the crop": _share(geometry.in_crop[weighted]),
                "joints of weight 0": _withheld(store, weighted),
                "joints without depth": _withheld(store, geometry.has_depth | ~weighted),
                "digest": store.digest,
            }
        )
    )
    console.print(subject_table(measured.holdings))
    console.print(bone_table(measured.bones))
    print_lines(compare_with_release(store, measured=measured).notes, console)


def print_lines(lines: tuple[str, ...] | list[str], console: Console) -> None:
    """Print sentences as they are."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def facts_table(facts: Mapping[str, str]) -> Table:
    """Names and what is to be said of them."""
    table = Table(show_header=False, box=None)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value)
    return table


def counted(values: np.ndarray) -> str:
    """Distinct values and how often each occurs."""
    names, counts = np.unique(values, return_counts=True)
    listed = zip(names[:MAX_VALUES], counts, strict=False)
    shown = ", ".join(f"{name}: {count}" for name, count in listed)
    return shown + (f" and {len(names) - MAX_VALUES} more" if len(names) > MAX_VALUES else "")


def bone_table(bones: Mapping[int, BoneTally]) -> Table:
    """Median and spread of each bone by subject, and how many frames have their sides right."""
    known = {subject: tally for subject, tally in bones.items() if tally.lengths.number.any()}
    shown = dict(list(known.items())[:MAX_SUBJECTS])
    table = Table(
        "bone length / mm (± half of the middle 95 %)",
        *(f"S{subject}" for subject in shown),
        box=None,
    )
    if not shown:
        table.add_row("no joint's depth is known: bones have no lengths")
        return table
    medians = {subject: tally.lengths.quantile(0.5) for subject, tally in shown.items()}
    spreads = {subject: tally.lengths.spread() for subject, tally in shown.items()}
    for bone, name in enumerate(bone_names(next(iter(shown.values())).skeleton)):
        table.add_row(
            name,
            *(
                f"{medians[subject][bone]:.0f} ± {spreads[subject][bone]:.0f}"
                if np.isfinite(medians[subject][bone])
                else "-"
                for subject in shown
            ),
        )
    meanings = ("knees bend forwards", "noses point forwards", "hips run as shoulders do")
    for test, meaning in enumerate(meanings[: len(FACING_TESTS)]):
        shares = [shares_right(tally.votes)[test] for tally in shown.values()]
        table.add_row(meaning, *(f"{s:.0%}" if np.isfinite(s) else "-" for s in shares))
    return table


def _share(values: Bool[np.ndarray, " n"]) -> str:
    return f"{values.mean():.2%}" if len(values) else "-"


def _withheld(store: Store, kept: Bool[np.ndarray, "n joints"]) -> str:
    """Joints that are not kept, by name."""
    counts = (~kept).sum(0)
    names = store.skeleton.joint_names
    return ", ".join(f"{names[j]}: {counts[j]}" for j in np.flatnonzero(counts)) or "none"
