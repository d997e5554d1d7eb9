"""One self-contained page from the result files of a run, readable anywhere, offline."""

import base64
import os
from html import escape
from pathlib import Path
from typing import Any

from pose3d.report.plots import DrawnFigure, FigureText, draw_figures
from pose3d.report.results import RunResults, read_results
from pose3d.report.style import with_few_colours

PAGE = "report.html"
METRIC_ROWS = (
    ("mpjpe_mm", "MPJPE", "mm"),
    ("pa_mpjpe_mm", "PA-MPJPE, similarity (rotation, translation, scale)", "mm"),
    ("pa_mpjpe_rigid_mm", "PA-MPJPE, rigid (rotation, translation)", "mm"),
    ("n_mpjpe_mm", "N-MPJPE (scale)", "mm"),
    ("pck150", "3D-PCK at 150 mm", "%"),
    ("auc", "AUC of 3D-PCK, 0–150 mm", "%"),
)
AVERAGES = (
    ("", "mean over records"),
    ("_action_average", "mean over actions"),
    ("_without_root", "records, without root"),
    ("_action_average_without_root", "actions, without root"),
)
WHAT_SIGMA_MEANS = (
    "σ is predicted for every joint and axis: {sigma}. It orders joints and images by how unsure "
    "the model is. It is not yet a calibrated probability: the share of labels within 1σ or 2σ "
    "depends on the learned residual density shown below, and has not been corrected on held-out "
    "people."
)
STYLE = """
:root { color-scheme: light dark; --page: #f7f6f3; --card: #ffffff; --ink: #22262b;
  --muted: #656c75; --line: #e6e4df; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --page: #121418; --card: #1c1f25; --ink: #e9e7e2;
  --muted: #a0a6ae; --line: #343941; --accent: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.55;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 3rem 0 .4rem; }
h3 { font-size: 1.02rem; margin: 0; }
p { margin: .5rem 0; max-width: 46rem; }
.muted, figcaption, dt, .unit { color: var(--muted); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .8rem;
  margin: 1.6rem 0; }
.tile, figure, .card { background: var(--card); border: 1px solid var(--line);
  border-radius: .7rem; }
.tile { padding: .9rem 1.1rem; }
.tile b { display: block; font-size: 1.75rem; font-weight: 650; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.tile b i { font-style: normal; font-size: 1rem; font-weight: 400; color: var(--muted); }
.tile small { color: var(--muted); font-size: .86rem; line-height: 1.35; display: block; }
.card { padding: 1rem 1.2rem; margin: 1rem 0; }
figure { margin: 1rem 0; padding: 1rem 1.2rem 1.1rem; }
figcaption { font-size: .92rem; margin-top: .2rem; max-width: 46rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
figure .scroll { margin-top: .7rem; }
figure img { display: block; width: 100%; min-width: 36rem; height: auto; }
table { border-collapse: collapse; width: 100%; font-size: .94rem; }
th, td { padding: .42rem .7rem .42rem 0; text-align: right; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; }
th { font-weight: 500; color: var(--muted); vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; min-width: 8.5rem; }
tbody tr:last-child td { border-bottom: 0; }
.card h3 { margin-bottom: .5rem; }
tbody tr.main td { font-weight: 650; }
td.unit { text-align: left; padding-left: 0; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .3rem 1.2rem;
  margin: 0; font-size: .94rem; }
dd { margin: 0; overflow-wrap: anywhere; }
.note { border-left: 3px solid var(--accent); padding-left: .9rem; }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--accent); }
pre { overflow-x: auto; font-size: .84rem; line-height: 1.45; }
@media (max-width: 40rem) { main { padding: 1.4rem .8rem 3rem; } h1 { font-size: 1.5rem; }
  .tiles { grid-template-columns: 1fr 1fr; } .tile { padding: .7rem .8rem; }
  .tile b { font-size: 1.4rem; } figure, .card { padding: .8rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(
    run_dir: str | os.PathLike[str], out: str | os.PathLike[str] | None = None
) -> Path:
    """Draw the results of a run: one HTML page and one PNG per figure.

    Reads RUN/results/{predictions.npz, metrics.json} and, where they exist, density.npz and
    examples.npz beside them, RUN/config.yaml and RUN/log.jsonl; needs neither images nor model.

    Args:
        run_dir: Folder of the run.
        out: Folder to write into; RUN/report where it is None.

    Returns:
        Path of the page, `report.html`.

    Raises:
        FileNotFoundError: If there are no results yet.
        ValueError: If a result file is damaged or of another schema version.
    """
    results = read_results(run_dir)
    folder = Path(run_dir) / "report" if out is None else Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    figures = list(draw_figures(results))
    written = {f"{figure.text.name}.png" for figure in figures}
    for old in folder.glob("case_*.png"):
        if old.name not in written:
            old.unlink()
    for figure in figures:
        (folder / f"{figure.text.name}.png").write_bytes(figure.light_png)
    temporary = folder / f".{PAGE}.tmp"
    temporary.write_text(page(results, figures), encoding="utf-8")
    temporary.replace(folder / PAGE)
    return folder / PAGE


def page(results: RunResults, figures: list[DrawnFigure]) -> str:
    """The whole page."""
    name = escape(results.name)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{name} – pose3d report</title>",
            f"<style>{STYLE}</style></head><body><main>",
            f"<h1>{name}</h1>",
            f'<p class="muted">{subtitle(results)}</p>',
            tiles(results.metrics),
            f'<p class="note">{escape(what_sigma_means(results))}</p>',
            "<h2>Metrics</h2>",
            metrics_table(results.metrics),
            "<h2>Protocol</h2>",
            protocol(results.metrics),
            *sections(results, figures),
            "<h2>Numbers behind the figures</h2>",
            joint_table(results.metrics),
            action_table(results.metrics),
            run_facts(results),
            config(results),
            "</main></body></html>",
        ]
    )


def subtitle(results: RunResults) -> str:
    """How much was judged."""
    counts = results.metrics["counts"]
    split = results.predictions.metadata.get("split")
    named = f" of the split {split}" if split else ""
    text = f"{counts['samples']} records{named}, {counts['joints_per_sample']} joints"
    if counts["samples_left_out"]:
        text += f"; {counts['samples_left_out']} records without labels left out"
    if counts["joints_left_out"]:
        text += f"; {counts['joints_left_out']} joints without labels left out"
    return escape(text)


def tiles(metrics: dict[str, Any]) -> str:
    """The numbers to read first."""
    shown = [
        ("mpjpe_mm", "mm", "MPJPE, mean over records; root depth is ground truth"),
        ("pa_mpjpe_mm", "mm", "PA-MPJPE, after similarity alignment"),
        ("baseline_mean_pose_mpjpe_mm", "mm", "MPJPE of always predicting the mean training pose"),
        ("sigma_error_spearman.within_joint", "", "rank correlation of σ and error, within joints"),
    ]
    cells = [
        f'<div class="tile"><b>{number(metrics, key)} <i>{unit}</i></b><small>{label}</small></div>'
        for key, unit, label in shown
        if look_up(metrics, key) is not None
    ]
    return f'<div class="tiles">{"".join(cells)}</div>'


def metrics_table(metrics: dict[str, Any]) -> str:
    """Every headline metric under every average."""
    has_baseline = look_up(metrics, "baseline_mean_pose_mpjpe_mm") is not None
    labels = [label for _, label in AVERAGES] + ["mean pose, records"] * has_baseline
    head = "".join(f"<th>{label}</th>" for label in labels)
    rows = []
    for key, label, unit in METRIC_ROWS:
        keys = [key + suffix for suffix, _ in AVERAGES]
        keys += [f"baseline_mean_pose_{key}"] * has_baseline
        cells = "".join(f"<td>{number(metrics, name)}</td>" for name in keys)
        start = '<tr class="main">' if key == "mpjpe_mm" else "<tr>"
        rows.append(f'{start}<td>{label}</td>{cells}<td class="unit">{unit}</td></tr>')
    return (
        f'<div class="card scroll"><table><thead><tr><th></th>{head}<th></th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        "<p class='muted'>“Without root” leaves the root's zero out of the average. Alignments use "
        "all labelled joints. Mean pose: what always predicting the mean training pose gives.</p>"
    )


def protocol(metrics: dict[str, Any]) -> str:
    """What was measured on what, in full."""
    facts = metrics["protocol"]
    rows = [
        (key.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else value)
        for key, value in facts.items()
        if key not in ("text", "root_depth", "flip_test")
    ]
    rows.insert(0, ("root depth", f"{facts['root_depth']} (given to the model when decoding)"))
    rows.insert(1, ("flip test", "yes" if facts["flip_test"] else "no"))
    return f'<p>{escape(str(facts["text"]))}</p><div class="card">{definitions(rows)}</div>'


def sections(results: RunResults, figures: list[DrawnFigure]) -> list[str]:
    """The figures under their headings."""
    parts, current = [], ""
    for figure in figures:
        if figure.text.section != current:
            current = figure.text.section
            parts.append(f"<h2>{escape(current)}</h2>")
        parts.append(figure_block(figure))
        if figure.text.name == "residual_density":
            parts.append(density_facts(results))
    return parts


def figure_block(figure: DrawnFigure) -> str:
    """A figure with its words; the picture follows the reader's light or dark setting."""
    text: FigureText = figure.text
    light, dark = (
        "data:image/png;base64," + base64.b64encode(with_few_colours(png)).decode()
        for png in (figure.light_png, figure.dark_png)
    )
    return (
        f'<figure id="{escape(text.name)}"><h3>{escape(text.title)}</h3>'
        f"<figcaption>{escape(text.caption)}</figcaption>"
        f'<div class="scroll"><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{escape(text.alternative)}" loading="lazy">'
        "</picture></div></figure>"
    )


def density_facts(results: RunResults) -> str:
    """The residual density in numbers, or why there is none."""
    density = results.density
    if density is None:
        return '<p class="note">There is no density.npz; the residuals found stand alone.</p>'
    if not density.available:
        return (
            f'<p class="note">There is no learned density to draw: {escape(density.reason)}. '
            "The residuals found stand alone.</p>"
        )
    spread = [density.covariance[axis, axis] ** 0.5 for axis in range(3)]
    rows = [
        ("integral", f"{density.normaliser:.4f} (1 when normalised)"),
        ("mean (u, v, d)", triple(density.mean) + " σ"),
        ("standard deviation", triple(spread) + " σ (1 by the choice of σ)"),
        ("geometric median", triple(density.geometric_median) + " σ"),
    ]
    return f'<div class="card"><h3>The learned density in numbers</h3>{definitions(rows)}</div>'


def what_sigma_means(results: RunResults) -> str:
    """What σ of this run is, in words."""
    meaning = results.predictions.metadata.get("sigma", "the scale of the trained likelihood")
    return WHAT_SIGMA_MEANS.format(sigma=meaning)


def triple(values: Any) -> str:
    """Three numbers with a true minus sign."""
    return ", ".join(f"{round(value, 3) + 0.0:.3f}".replace("-", "−") for value in values)


def joint_table(metrics: dict[str, Any]) -> str:
    """Errors and σ of every joint."""
    columns = (
        ("mpjpe_mm", "error (mm)"),
        ("median_error_mm", "median (mm)"),
        ("pa_mpjpe_mm", "PA (mm)"),
        ("absolute_error_mm.x", "|x| (mm)"),
        ("absolute_error_mm.y", "|y| (mm)"),
        ("absolute_error_mm.z", "|z| (mm)"),
        ("sigma_mm.x", "σ x (mm)"),
        ("sigma_mm.y", "σ y (mm)"),
        ("sigma_mm.z", "σ z (mm)"),
    )
    return table(metrics, "per_joint", "joint", columns, title="Every joint")


def action_table(metrics: dict[str, Any]) -> str:
    """Errors of every action."""
    columns = (
        ("samples", "records"),
        ("mpjpe_mm", "MPJPE (mm)"),
        ("pa_mpjpe_mm", "PA (mm)"),
        ("pa_mpjpe_rigid_mm", "PA rigid (mm)"),
        ("n_mpjpe_mm", "N-MPJPE (mm)"),
        ("pck150", "PCK (%)"),
        ("auc", "AUC (%)"),
    )
    return table(metrics, "per_action", "action", columns, title="Every action")


def table(
    metrics: dict[str, Any],
    part: str,
    kind: str,
    columns: tuple[tuple[str, str], ...],
    *,
    title: str,
) -> str:
    """One row for each entry of a part of the metrics, folded away."""
    head = "".join(f"<th>{label}</th>" for _, label in columns)
    rows = [
        f"<tr><td>{escape(name.replace('_', ' '))}</td>"
        + "".join(
            f"<td>{number(metrics[part][name], key, prefix=f'{part}.{name}.')}</td>"
            for key, _ in columns
        )
        + "</tr>"
        for name in metrics[part]
    ]
    return (
        f'<details><summary>{title}</summary><div class="card scroll"><table><thead><tr>'
        f"<th>{kind}</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def run_facts(results: RunResults) -> str:
    """Single facts about the run that stand nowhere else."""
    known = {key + suffix for key, _, _ in METRIC_ROWS for suffix, _ in AVERAGES}
    rows = [
        (key.replace("_", " "), f"{value:g}" if isinstance(value, float) else str(value))
        for key, value in results.metrics.items()
        if key not in known
        and not key.startswith("baseline_mean_pose_")
        and isinstance(value, int | float | str)
    ]
    rows += [
        (key.replace("_", " "), str(value))
        for key in ("checkpoint", "store_digest", "skeleton")
        if isinstance(value := results.predictions.metadata.get(key), int | float | str)
    ]
    if not rows:
        return ""
    return (
        f'<details><summary>The run</summary><div class="card">{definitions(rows)}</div></details>'
    )


def config(results: RunResults) -> str:
    """The run's configuration, folded away."""
    if results.config is None:
        return ""
    return (
        "<details><summary>Configuration</summary>"
        f'<div class="card"><pre>{escape(results.config)}</pre></div></details>'
    )


def definitions(rows: list[tuple[str, Any]]) -> str:
    """A list of names and values."""
    items = [f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>" for name, value in rows]
    return f"<dl>{''.join(items)}</dl>"


def look_up(metrics: dict[str, Any], key: str) -> int | float | None:
    """A number of the metrics by its dotted name; None where it is missing or undefined."""
    value: Any = metrics
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, int | float) else None


def number(metrics: dict[str, Any], key: str, *, prefix: str = "") -> str:
    """A number as shown, marked with where it stands in metrics.json; a dash where undefined."""
    value = look_up(metrics, key)
    if value is None:
        return "–"
    digits = 0 if isinstance(value, int) else (3 if "spearman" in key else 1)
    return f'<span data-metric="{escape(prefix + key)}">{value:.{digits}f}</span>'
