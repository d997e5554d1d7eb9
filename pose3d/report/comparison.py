"""The table and the figure of a comparison, from its comparison.json alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pose3d.report.style import LIGHT, Theme, drawing, grid_along, new_figure, png_bytes

MISSING = "–"
LINE_COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7"),
    *("#22262b", "#56b4e9", "#a67c00", "#656c75"),
)
"""After Okabe and Ito, told apart with any colour vision and dark enough on white."""
LINE_STYLES = ("-", "--", ":")


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A metric as it stands in table and figure."""

    name: str
    title: str
    unit: str
    digits: int
    centred: str = ""
    """Name of the same metric at the centred estimate."""


COLUMNS = (
    Column(name="mpjpe_mm", title="MPJPE", unit="mm", digits=1, centred="mpjpe_mm_centred"),
    Column(
        name="pa_mpjpe_mm", title="PA-MPJPE", unit="mm", digits=1, centred="pa_mpjpe_mm_centred"
    ),
    Column(name="nats_per_joint", title="NLL", unit="nats per joint, uvd", digits=2),
    Column(name="sigma_error_spearman", title="σ–error Spearman", unit="within joint", digits=2),
)
COVERAGES = ("coverage_50", "coverage_80", "coverage_90", "coverage_95")


def write_comparison(numbers: Mapping[str, Any], out: str | Path) -> list[Path]:
    """Write comparison.md, comparison.png and comparison.svg into the comparison's folder.

    Args:
        numbers: As read_comparison gives them.
        out: The folder.

    Returns:
        The files written.
    """
    out = Path(out)
    table, png, svg = (out / f"comparison.{ending}" for ending in ("md", "png", "svg"))
    table.write_text(markdown(numbers), encoding="utf-8")
    with drawing(LIGHT):
        figure = comparison_figure(numbers, LIGHT)
        png.write_bytes(png_bytes(figure))
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return [table, png, svg]


def markdown(numbers: Mapping[str, Any]) -> str:
    """The table with its heading: what was trained, how it was judged, by which command."""
    rows = numbers["variants"]
    reference = _title(numbers, numbers["reference"])
    against = f" less {reference}" if reference else ""
    heads = ["variant", "seeds"]
    for column in COLUMNS:
        heads.append(f"{column.title} ({column.unit})")
        if column.centred:
            heads.append("centred")
    heads += ["coverage 50/80/90/95 % (%)", "images/s", "parameters (M)"]
    if reference:
        heads.insert(3, f"MPJPE{against} (mm)")
    lines = [*_preamble(numbers), "", _line(heads), _line(["---", *["---:"] * (len(heads) - 1)])]
    lines += [_line(_cells(row, has_reference=bool(reference))) for row in rows]
    lines += ["", *_by_seed(numbers), "", *_footnotes(numbers)]
    return "\n".join(lines).rstrip() + "\n"


def _preamble(numbers: Mapping[str, Any]) -> list[str]:
    budget, runs = numbers["budget"], numbers["runs"]
    steps = budget["limit_train_batches"]
    length = f"{budget['epochs']} epochs" + (f" of {steps} steps" if steps else "")
    allowed = budget["allowed_to_differ"]
    return [
        f"Equal budgets: {length}, {budget['batch_size']} images per step, input "
        f"{budget['input_size_px']} px"
        + (f" ({', '.join(allowed)} may differ)" if allowed else "")
        + f". Judged on {numbers['records']} test records of {numbers['sequences']} sequences by "
        "the last checkpoint (average weights where there are such), not the best on the test "
        "split. Brackets: 95 % bootstrap interval over whole sequences, seeds averaged; the seeds' "
        "own scatter is in the second table. Mean pose: "
        f"{_number(numbers['baseline_mean_pose_mpjpe_mm'], 1)} mm.",
        "",
        f"`{numbers['command']}`; {', '.join(runs['device']) or MISSING} "
        f"({'; '.join(runs['machine'])}; {'/'.join(runs['threads'])} threads each, "
        f"{'/'.join(runs['jobs'])} side by side), {numbers['date'][:10]}, trained at commit "
        f"{', '.join(map(_short, runs['commit'])) or MISSING}, store "
        f"{(numbers['store_digest'] or MISSING)[:12]}.",
    ]


def _cells(row: Mapping[str, Any], *, has_reference: bool) -> list[str]:
    metrics = row["metrics"]
    cells = [row["title"], _seeds(row)]
    for column in COLUMNS:
        cells.append(_with_interval(metrics.get(column.name), column.digits))
        if column.centred:
            cells.append(_with_interval(metrics.get(column.centred), column.digits))
    shares = [_percent(_value(row, name)) for name in COVERAGES]
    cells.append("/".join(shares) if set(shares) != {MISSING} else MISSING)
    cells.append(_number(row["images_per_second"], 0))
    millions = None if row["parameters"] is None else row["parameters"] / 1e6
    cells.append(_number(millions, 2))
    if has_reference:
        cells.insert(3, _with_interval(row["difference"].get("mpjpe_mm"), 1, signed=True))
    return cells


def _by_seed(numbers: Mapping[str, Any]) -> list[str]:
    """MPJPE of every seed, and at the centred estimate where there is one."""
    seeds = sorted({int(s) for row in numbers["variants"] for s in row["seeds"]})
    if not seeds:
        return []
    lines = [
        _line(["MPJPE (mm) by seed", *map(str, seeds)]),
        _line(["---", *["---:"] * len(seeds)]),
    ]
    for row in numbers["variants"]:
        for name, suffix in (("mpjpe_mm", ""), ("mpjpe_mm_centred", ", centred")):
            values = row["metrics"].get(name, {}).get("by_seed", {})
            if values:
                cells = [_number(values.get(str(seed)), 1) for seed in seeds]
                lines.append(_line([row["title"] + suffix, *cells]))
    return lines


def _footnotes(numbers: Mapping[str, Any]) -> list[str]:
    definitions = numbers["definitions"]
    notes = [
        f"NLL: {definitions['nats_per_joint']}; {MISSING} where the loss is no density. "
        f"Centred: {definitions['mpjpe_mm_centred']}. Coverage: {definitions['coverage']}. "
        f"Spearman: {definitions['sigma_error_spearman']}."
    ]
    for row in numbers["variants"]:
        notes += [f"{row['title']}, seed {s}: failed, {m}" for s, m in row["failed"].items()]
        if row["missing"]:
            absent = ", ".join(map(str, row["missing"]))
            notes.append(f"{row['title']}: seed {absent} not trained yet")
    return [line for note in notes for line in (note, "")]


def comparison_figure(numbers: Mapping[str, Any], theme: Theme) -> Figure:
    """Dots with intervals for each metric, coverage, and the learning curves of all variants.

    Filled dots are means over seeds with their intervals, open ones the centred estimate, small
    ticks single seeds; the dashed line is the reference.
    """
    rows = numbers["variants"]
    height = 0.34 * len(rows) + 1.2
    figure = new_figure(12.5, height + 4.2)
    above, below = np.ravel(figure.subfigures(2, 1, height_ratios=(height, 4.2)))  # type: ignore[arg-type]
    panels = np.ravel(above.subplots(1, len(COLUMNS), sharey=True))
    for axes, column in zip(panels, COLUMNS, strict=True):
        _draw_metric(axes, numbers, column, theme)
    panels[0].set_yticks(range(len(rows)), [f"{row['title']}  ({_seeds(row)})" for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    curves, coverage = np.ravel(below.subplots(1, 2, width_ratios=(2.2, 1)))
    _draw_curves(curves, numbers, theme)
    _draw_coverage(coverage, rows, theme)
    return figure


def _draw_metric(axes: Axes, numbers: Mapping[str, Any], column: Column, theme: Theme) -> None:
    drawn = False
    for place, row in enumerate(numbers["variants"]):
        colour, _ = _look(place)
        for name, is_centred in ((column.name, False), (column.centred, True)):
            metric = row["metrics"].get(name)
            if metric is None or metric["value"] is None:
                continue
            drawn = True
            height = place + (0.2 if is_centred else 0.0)
            if metric["low"] is not None:
                ends = [metric["low"], metric["high"]]
                axes.plot(ends, [height] * 2, color=colour, lw=1.8 if not is_centred else 1)
            seeds = [value for value in metric["by_seed"].values() if value is not None]
            if not is_centred and len(seeds) > 1:
                axes.plot(seeds, [height] * len(seeds), "|", color=colour, ms=8, mew=1)
            face = theme.surface if is_centred else colour
            axes.plot(metric["value"], height, "o", color=colour, mfc=face, ms=6, mew=1.3)
        value = _value(row, column.name)
        if row["name"] == numbers["reference"] and value is not None:
            axes.axvline(value, color=theme.muted, lw=1, ls="--", zorder=0)
    axes.set_title(column.title)
    axes.set_xlabel(f"{column.title} ({column.unit})")
    axes.margins(x=0.08)
    if not drawn:
        axes.text(0.5, 0.5, "nothing yet", transform=axes.transAxes, ha="center")
    grid_along(axes, "x")


def _draw_curves(axes: Axes, numbers: Mapping[str, Any], theme: Theme) -> None:
    """Validation MPJPE by epoch, mean over the seeds that have reached it."""
    lowest, highest = np.inf, 0.0
    for place, row in enumerate(numbers["variants"]):
        epochs, mean = mean_curve(row["curves"])
        if not len(epochs):
            continue
        colour, style = _look(place)
        axes.plot(epochs, mean, style, color=colour, lw=1.6, label=row["title"])
        later = mean[len(mean) // 8 :]
        lowest, highest = min(lowest, later.min()), max(highest, later.max())
    if np.isfinite(lowest):
        axes.set_ylim(
            lowest - 0.05 * (highest - lowest + 1), highest + 0.1 * (highest - lowest + 1)
        )
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), handlelength=2.2)
    axes.set_title("Learning curves")
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation MPJPE (mm)")
    axes.grid(visible=True)


def _draw_coverage(axes: Axes, rows: Sequence[Mapping[str, Any]], theme: Theme) -> None:
    """Coverage of central intervals less their probability, in percentage points."""
    levels = [float(name.removeprefix("coverage_")) for name in COVERAGES]
    axes.axhline(0, color=theme.muted, lw=1, ls="--")
    for place, row in enumerate(rows):
        shares = [_value(row, name) for name in COVERAGES]
        if None in shares:
            continue
        colour, style = _look(place)
        gaps = [100 * share - level for share, level in zip(shares, levels, strict=True)]
        axes.plot(levels, gaps, style, color=colour, lw=1.6, marker="o", ms=4)
    axes.set_xticks(levels)
    axes.set_title("Calibration")
    axes.set_xlabel("predicted central interval (%)")
    axes.set_ylabel("coverage less predicted (% points)")
    axes.grid(visible=True)


def mean_curve(curves: Mapping[str, Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and the mean over seeds of the validation MPJPE there, mm."""
    by_epoch: dict[int, list[float]] = {}
    for curve in curves.values():
        for epoch, value in zip(curve["epoch"], curve["mpjpe_mm"], strict=True):
            if value is not None:
                by_epoch.setdefault(epoch, []).append(value)
    epochs = sorted(by_epoch)
    return np.array(epochs), np.array([np.mean(by_epoch[epoch]) for epoch in epochs])


def _look(place: int) -> tuple[str, str]:
    """Colour and style of the line of a variant."""
    number, turn = place % len(LINE_COLOURS), place // len(LINE_COLOURS)
    return LINE_COLOURS[number], LINE_STYLES[turn % len(LINE_STYLES)]


def _value(row: Mapping[str, Any], name: str) -> Any:
    """A metric of a variant; None where it has none, or the metric is undefined."""
    return row["metrics"].get(name, {}).get("value")


def _title(numbers: Mapping[str, Any], name: str | None) -> str:
    return next((row["title"] for row in numbers["variants"] if row["name"] == name), "")


def _seeds(row: Mapping[str, Any]) -> str:
    """How many seeds are done, of how many where some are not."""
    done, other = len(row["seeds"]), len(row["missing"]) + len(row["failed"])
    return str(done) if not other else f"{done} of {done + other}"


def _with_interval(metric: Mapping[str, Any] | None, digits: int, *, signed: bool = False) -> str:
    if metric is None or metric["value"] is None:
        return MISSING
    sign = "+" if signed else ""
    text = f"{metric['value']:{sign}.{digits}f}"
    if metric["low"] is None:
        return text
    return f"{text} [{metric['low']:{sign}.{digits}f}, {metric['high']:{sign}.{digits}f}]"


def _percent(share: float | None) -> str:
    return _number(None if share is None else 100 * share, 0)


def _number(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def _short(commit: str) -> str:
    """The beginning of a commit, with the + that tells of changes."""
    return commit[:10] + ("+" if commit.endswith("+") else "")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
