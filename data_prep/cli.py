"""The command line `pose3d-prep`: parse, call, print."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from data_prep.rle_json import RleJsonConfig, convert_rle_json
from data_prep.verify import check_records, print_summary, write_sheet
from pose3d.data.store import open_store

app = typer.Typer(
    help="Turn what people have on disk into a store, and look at it.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

OnError = StrEnum("OnError", ["error", "skip"])
Box = StrEnum("Box", ["annotation", "joints", "metric"])
Translation = StrEnum("Translation", {"auto": "auto", "centre": "centre", "minus_rc": "minus-rc"})
Renderer = StrEnum("Renderer", ["auto", "opengl", "numpy"])

NUM_CORES = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
)
MAX_LISTED = 20

StoreArgument = Annotated[Path, typer.Argument(help="The store's folder.")]
Size = Annotated[int, typer.Option(min=16, help="Side of the stored crops, pixels.")]
Margin = Annotated[
    float, typer.Option(min=1, help="What a crop shows over the person square's side.")
]
Quality = Annotated[int, typer.Option(min=1, max=100, help="JPEG quality of the crops.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Make the store anew if it exists.")]


@app.command("rle-json")
def rle_json(
    source: Annotated[Path, typer.Argument(help="Folder with annotations/ and images/.")],
    store: StoreArgument,
    size: Size = 472,
    margin: Margin = 1.84,
    quality: Quality = 92,
    train_annotation: Annotated[
        str | None, typer.Option(help="Training set's file in annotations/; found if not given.")
    ] = None,
    test_annotation: Annotated[
        str | None, typer.Option(help="Test set's file in annotations/; found if not given.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Threads.")] = NUM_CORES,
    on_error: Annotated[
        OnError, typer.Option(help="End at a record that cannot be converted, or leave it out.")
    ] = OnError.error,
    box: Annotated[Box, typer.Option(help="Definition of the person box.")] = Box.annotation,
    enlarge: Annotated[float, typer.Option(help="Factor on the square around the box.")] = 1.0,
    translation: Annotated[
        Translation, typer.Option(help="Reading of cam_param.t.")
    ] = Translation.auto,
    overwrite: Overwrite = False,
) -> None:
    """Convert the annotation layout of the released RLE code; a stopped run goes on."""
    console = Console(stderr=True)
    config = RleJsonConfig(
        crop_size_px=size,
        margin=margin,
        jpeg_quality=quality,
        train_annotation=train_annotation,
        test_annotation=test_annotation,
        num_threads=jobs,
        on_error=on_error.value,
        box=box.value,
        enlarge=enlarge,
        translation=translation.value,
    )
    result = convert_rle_json(source, store, config=config, overwrite=overwrite, console=console)
    resumed = f", {result.num_resumed} shards were there already" if result.num_resumed else ""
    typer.echo(f"{result.num_records} records in {result.path}{resumed}, digest {result.digest}")
    if result.skipped:
        typer.echo(f"left out {len(result.skipped)} records:")
        _list([f"{name}: {reason}" for name, reason in result.skipped])


@app.command()
def synthetic(
    store: StoreArgument,
    train: Annotated[int, typer.Option(min=0, help="Training images.")] = 10000,
    test: Annotated[int, typer.Option(min=0, help="Test images.")] = 1000,
    size: Size = 256,
    margin: Margin = 1.84,
    quality: Quality = 92,
    seed: Annotated[int, typer.Option(help="Everything follows from it.")] = 0,
    renderer: Annotated[Renderer, typer.Option(help="What draws the images.")] = Renderer.auto,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = NUM_CORES,
    overwrite: Overwrite = False,
) -> None:
    """Render a synthetic Human3.6M; a stopped run goes on where it was."""
    from data_prep.synthetic.generate import generate_synthetic

    digest = generate_synthetic(
        store,
        num_train=train,
        num_test=test,
        crop_size_px=size,
        margin=margin,
        jpeg_quality=quality,
        seed=seed,
        renderer=renderer.value,
        num_workers=jobs,
        overwrite=overwrite,
    )
    typer.echo(f"{train + test} records in {store}, digest {digest}")


@app.command()
def verify(
    store: StoreArgument,
    sheet: Annotated[
        Path | None,
        typer.Option(help="PNG of labels on images; STORE/overlay.png if not given."),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of the sheet.")] = 5,
    columns: Annotated[int, typer.Option(min=1, help="Columns of the sheet.")] = 6,
) -> None:
    """Check every record, draw labels on images; ends with 1 and a list if anything is wrong."""
    console = Console()
    opened = open_store(store)
    problems = []
    try:
        opened.verify_digest()
    except ValueError as error:
        problems.append(str(error))
    problems += check_records(opened)
    print_summary(opened, console)
    if sheet is None:
        sheet = store / "overlay.png" if store.is_dir() else store.with_suffix(".overlay.png")
    write_sheet(opened, sheet, rows=rows, columns=columns)
    typer.echo(f"labels on images: {sheet}")
    if problems:
        typer.echo(f"{len(problems)} problems:")
        _list(problems)
        raise typer.Exit(1)
    typer.echo(f"no problems in {len(opened)} records")


def _list(lines: list[str]) -> None:
    """Print the first lines and how many there are more."""
    for line in lines[:MAX_LISTED]:
        typer.echo(f"  {line}")
    if len(lines) > MAX_LISTED:
        typer.echo(f"  and {len(lines) - MAX_LISTED} more")


def main() -> None:
    """Run the command line; an error ends in one line and exit code 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        Console(stderr=True, soft_wrap=True).print(f"[red]error:[/red] {escape(str(error))}")
        sys.exit(2)


if __name__ == "__main__":
    main()
