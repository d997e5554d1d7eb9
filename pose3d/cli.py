"""The command line `pose3d`: parse, call, print."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pose3d.engine.compare import compare as compare_variants
from pose3d.engine.config import load_config
from pose3d.engine.predict import CheckpointName, read_metrics, results_are_current
from pose3d.engine.predict import predict as predict_run
from pose3d.engine.released_run import export_released as export_run
from pose3d.engine.released_run import import_released as import_file
from pose3d.engine.train import train as train_run
from pose3d.report.comparison import write_comparison
from pose3d.report.html import write_report

app = typer.Typer(
    help="Train, judge and trust a 3-D human pose regressor.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Checkpoint = StrEnum("Checkpoint", ["best", "last"])
EXIT_STOPPED = 130
"""Exit code of a training that was asked to stop, as shells give for SIGINT."""

RunArgument = Annotated[Path, typer.Argument(help="The run's folder.")]
StoreOption = Annotated[
    Path | None, typer.Option(help="The store's folder; else the (main) one it was trained on.")
]
SplitOption = Annotated[str | None, typer.Option(help="train or test; else data.test_split.")]
CheckpointOption = Annotated[Checkpoint, typer.Option(help="Which weights.")]
FlipOption = Annotated[
    bool | None,
    typer.Option("--flip-test/--no-flip-test", help="Else evaluate.flip_test of the run."),
]
BatchOption = Annotated[int | None, typer.Option(min=1, help="Images per forward pass.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, …")]
OutOption = Annotated[Path | None, typer.Option(help="Else a folder in the run.")]


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML file, e.g. configs/demo.yaml.")],
    store: Annotated[
        list[Path],
        typer.Option(
            help="The store's folder. Repeated: more stores train beside the first, which alone "
            "validates; see data.store_shares."
        ),
    ],
    run: Annotated[Path, typer.Option(help="Folder for the run; new or empty.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that differ: section.name=value …", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run there.")] = False,
) -> None:
    """Fit a regressor to stores; Ctrl-C stops it after the step, --resume goes on exactly."""
    settings = load_config(_config_file(config), overrides or [])
    result = train_run(settings, store=store, run=run, resume=resume)
    if not result.is_complete:
        raise typer.Exit(EXIT_STOPPED)
    print(
        f"done: best validation MPJPE {result.best_mpjpe_mm:.1f} mm in epoch {result.best_epoch} "
        f"(mean pose {result.mean_pose_mpjpe_mm:.1f} mm), run in {run}"
    )


@app.command()
def predict(
    run: RunArgument,
    store: StoreOption = None,
    split: SplitOption = None,
    checkpoint: CheckpointOption = Checkpoint.best,
    flip_test: FlipOption = None,
    batch_size: BatchOption = None,
    device: DeviceOption = "auto",
    out: OutOption = None,
) -> None:
    """Predict a split and write predictions, metrics, residual density and example crops."""
    predictions = predict_run(
        run,
        store=store,
        split=split,
        checkpoint=_name(checkpoint),
        flip_test=flip_test,
        batch_size=batch_size,
        device=device,
        out=out,
    )
    unreadable = len(predictions.metadata["unreadable_records"])
    left_out = f" ({unreadable} unreadable left out)" if unreadable else ""
    print(f"{len(predictions)} records predicted{left_out}, results in {out or run / 'results'}")


@app.command()
def evaluate(
    run: RunArgument,
    store: StoreOption = None,
    split: SplitOption = None,
    checkpoint: CheckpointOption = Checkpoint.best,
    flip_test: FlipOption = None,
    batch_size: BatchOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Print the metrics of a run; predicts first unless these very results are there."""
    if not results_are_current(
        run, store=store, split=split, checkpoint=_name(checkpoint), flip_test=flip_test
    ):
        predict(
            run,
            store=store,
            split=split,
            checkpoint=checkpoint,
            flip_test=flip_test,
            batch_size=batch_size,
            device=device,
        )
    console = Console(width=None if sys.stdout.isatty() else 120)
    metrics = read_metrics(run)
    for part in (_protocol_table(metrics), _headline_table(metrics), _action_table(metrics)):
        console.print(part)


@app.command()
def report(run: RunArgument, out: OutOption = None) -> None:
    """Draw the figures of a run from its result files, as PNG and one HTML page."""
    print(f"report: {write_report(run, out)}")


@app.command("import-released")
def import_released(
    file: Annotated[Path, typer.Argument(help="Published weights, e.g. h36m-laplace-rle.pth.")],
    run: Annotated[Path, typer.Argument(help="Folder for the run; new or empty.")],
) -> None:
    """Make a run of the published Human3.6M weights, for predict and evaluate with --store."""
    config = import_file(file, run)
    print(f"{config.model.backbone} imported; next: pose3d evaluate {run} --store STORE")


@app.command("export-released")
def export_released(
    run: RunArgument,
    file: Annotated[Path, typer.Argument(help="Where the weights go; must not be there yet.")],
    checkpoint: CheckpointOption = Checkpoint.best,
) -> None:
    """Write a run's weights under the published names, if its network is of the published form."""
    export_run(run, file, checkpoint=_name(checkpoint))
    print(f"weights in {file}")


@app.command()
def compare(
    config: Annotated[Path, typer.Argument(help="YAML file, e.g. configs/comparisons/small.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder of the comparison; the same to go on.")],
    store: Annotated[Path | None, typer.Option(help="The store's folder.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Train only this variant; again.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Train these, e.g. 0,1; else all.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings side by side.")] = 1,
    table_only: Annotated[bool, typer.Option("--table-only", help="Train nothing.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Train what failed again.")] = False,
) -> None:
    """Train variants under equal budgets and set their numbers side by side; resumable."""
    comparison = compare_variants(
        _config_file(config, shipped_in="configs/comparisons"),
        store=store,
        out=out,
        only=only or [],
        seeds=None if seeds is None else _whole_numbers(seeds),
        jobs=jobs,
        table_only=table_only,
        retry=retry,
    )
    table, figure, _ = write_comparison(comparison.numbers, out)
    print(table.read_text(encoding="utf-8"))
    print(f"table: {table}, figure: {figure}")
    for label, reason in comparison.unfinished.items():
        print(f"not finished: {label} {reason}", file=sys.stderr)
    if comparison.was_stopped:
        print("stopped; the same command goes on")
        raise typer.Exit(EXIT_STOPPED)
    if comparison.unfinished:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; what is wrong with the input ends in one line and exit code 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def _config_file(path: Path, *, shipped_in: str = "configs") -> Path:
    """The path itself if it is there, else an error that lists what is."""
    if path.is_file():
        return path
    folders = [Path(shipped_in), Path(__file__).resolve().parent.parent / shipped_in]
    shipped = next((sorted(f.glob("*.yaml")) for f in folders if f.is_dir()), [])
    same = [file for file in shipped if file.stem == path.stem]
    advice = f"did you mean {same[0]}?" if same else f"there are {', '.join(map(str, shipped))}"
    raise FileNotFoundError(f"no config file at {path}" + (f"; {advice}" if shipped else ""))


def _whole_numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--seeds must be whole numbers like 0,1,2, got {text!r}") from error


def _name(checkpoint: Checkpoint) -> CheckpointName:
    return "best" if checkpoint is Checkpoint.best else "last"


def _protocol_table(metrics: dict[str, Any]) -> Table:
    protocol, counts = metrics["protocol"], metrics["counts"]
    table = Table(title="Protocol", show_header=False, title_justify="left")
    rows = {
        "protocol": protocol["text"],
        "numbering": protocol["numbering"],
        "records": f"{counts['samples']} ({counts['samples_left_out']} without labels and "
        f"{counts['unreadable']} unreadable left out), split {metrics['split']}, subjects "
        f"{', '.join(f'S{s}' for s in protocol['subjects'])}",
        "frames": protocol["frames"],
        "trained on": _trained_on(protocol),
        "depth of the root": protocol["root_depth"],
        "box": protocol["box"],
        "flip test": "yes" if protocol["flip_test"] else "no",
        "checkpoint": f"{metrics['checkpoint']}: {protocol['checkpoint']}",
        "speed": f"{metrics['images_per_second']:.0f} images/s",
    }
    for name, text in rows.items():
        table.add_row(name, str(text))
    return table


def _trained_on(protocol: dict[str, Any]) -> str:
    subjects = protocol["train_subjects"]
    if isinstance(subjects, str):
        return subjects
    main = f"{protocol['train_records']} records of {', '.join(f'S{s}' for s in subjects)}"
    return "; ".join([main, *protocol["extra_stores"]])


_HEADLINE = {
    "mpjpe_mm": "MPJPE (mm)",
    "pa_mpjpe_mm": "PA-MPJPE, similarity (mm)",
    "pa_mpjpe_rigid_mm": "PA-MPJPE, rigid (mm)",
    "n_mpjpe_mm": "N-MPJPE (mm)",
    "pck150": "3D-PCK at 150 mm (%)",
    "auc": "AUC, 0 to 150 mm (%)",
}


def _headline_table(metrics: dict[str, Any]) -> Table:
    table = Table(title="Metrics", title_justify="left")
    for name in ("metric", "records", "actions", "records, no root", "actions, no root"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    table.add_column("mean pose, records", justify="right")
    for name, title in _HEADLINE.items():
        kinds = ("", "_action_average", "_without_root", "_action_average_without_root")
        cells = [_number(metrics.get(f"{name}{kind}")) for kind in kinds]
        table.add_row(title, *cells, _number(metrics.get(f"baseline_mean_pose_{name}")))
    return table


def _action_table(metrics: dict[str, Any]) -> Table:
    table = Table(title="Per action, records' average", title_justify="left")
    table.add_column("action")
    columns = {"mpjpe_mm": "MPJPE (mm)", "pa_mpjpe_mm": "PA-MPJPE (mm)", "samples": "records"}
    for title in columns.values():
        table.add_column(title, justify="right")
    for action, row in metrics["per_action"].items():
        table.add_row(action, *(_number(row.get(name)) for name in columns))
    return table


def _number(value: int | float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.1f}"
