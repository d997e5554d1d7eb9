"""The command line `pose3d-prep`: parse, call, print."""

import inspect
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from rich.console import Console
from rich.markup import escape

from data_prep.convert import ConversionConfig, Part, convert
from data_prep.human36m import PROTOCOLS
from data_prep.measure import measure
from data_prep.sheet import overlay_sheet, write_sheet
from data_prep.summary import print_summary
from data_prep.takes import Reader
from data_prep.verify import check_records, compare_with_release
from pose3d.data.store import open_store

app = typer.Typer(
    help="Turn what people have on disk into a store, and look at it.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

OnError = StrEnum("OnError", ["error", "skip"])
Box = StrEnum("Box", ["annotation", "joints", "posenet", "metric", "mask"])
Lens = StrEnum("Lens", ["source", "distorted", "pinhole"])
Shifted = StrEnum("Shifted", ["protocol", "block", "correct", "keep"])
Protocol: Any = StrEnum("Protocol", {name: name for name in PROTOCOLS})  # type: ignore[misc]
Translation = StrEnum("Translation", {"auto": "auto", "centre": "centre", "minus_rc": "minus-rc"})
Intrinsics = StrEnum("Intrinsics", ["human36m", "estimated"])
Renderer = StrEnum("Renderer", ["auto", "opengl", "numpy"])
Preset = StrEnum("Preset", ["benchmark"])

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


def common(
    store: Annotated[Path | None, typer.Argument(help="The store's folder.")] = None,
    size: Size = 472,
    margin: Margin = 1.84,
    quality: Quality = 92,
    protocol: Annotated[
        Protocol | None,
        typer.Option(help="Which frames of which subjects train and test; the layout's own."),
    ] = None,
    shifted: Annotated[
        Shifted,
        typer.Option("--s9", help="Human3.6M's three shifted sequences of S9."),
    ] = Shifted.protocol,
    box: Annotated[
        Box | None, typer.Option(help="Definition of the person box; the layout's own, or joints.")
    ] = None,
    enlarge: Annotated[float, typer.Option(help="Factor on the square around the box.")] = 1.0,
    lens: Annotated[
        Lens, typer.Option(help="Leave the cameras' distortion, put Human3.6M's, or take it away.")
    ] = Lens.source,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = NUM_CORES,
    shard: Annotated[
        str, typer.Option(help="This machine's share of a store that several write: 2/8.")
    ] = "1/1",
    on_error: Annotated[
        OnError, typer.Option(help="End at a record that cannot be converted, or leave it out.")
    ] = OnError.error,
    overwrite: Overwrite = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what is there and what is missing; write no store."),
    ] = False,
    sheet: Annotated[
        Path | None, typer.Option(help="PNG of labels on images of a dry run; overlay.png.")
    ] = None,
) -> None:
    """Options that all layouts have, in `layout`."""


def layout(name: str) -> Callable[[Callable[..., Reader]], Callable[..., Reader]]:
    """Register the verb of a layout: its own options, then the common ones."""

    def register(make: Callable[..., Reader]) -> Callable[..., Reader]:
        own, shared = inspect.signature(make).parameters, inspect.signature(common).parameters
        source, *options = own.values()
        store, *rest = shared.values()
        hints = {
            **get_type_hints(make, include_extras=True),
            **get_type_hints(common, include_extras=True),
            "return": None,
        }

        def run(**values: Any) -> None:
            reader_values = {key: values.pop(key) for key in own}
            _convert(lambda: make(**reader_values), **values)

        run.__signature__ = inspect.Signature([source, store, *options, *rest])  # type: ignore[attr-defined]
        run.__annotations__ = hints
        app.command(name, help=make.__doc__)(run)
        return make

    return register


def _convert(
    make: Callable[[], Reader],
    *,
    store: Path | None,
    size: int,
    margin: float,
    quality: int,
    protocol: Protocol | None,
    shifted: Shifted,
    box: Box | None,
    enlarge: float,
    lens: Lens,
    jobs: int,
    shard: str,
    on_error: OnError,
    overwrite: bool,
    dry_run: bool,
    sheet: Path | None,
) -> None:
    """Convert a source, or look through it."""
    if store is None and not dry_run:
        raise ValueError("name the store's folder after the source, or pass --dry-run")
    config = ConversionConfig(
        protocol=None if protocol is None else protocol.value,
        shifted=shifted.value,
        box=None if box is None else box.value,
        enlarge=enlarge,
        lens=lens.value,
        crop_size_px=size,
        margin=margin,
        jpeg_quality=quality,
        on_error=on_error.value,
        num_jobs=jobs,
    )
    part = Part.parse(shard)
    if dry_run:
        from data_prep.survey import survey

        problems = survey(
            make(), config=config, sheet=sheet or Path("overlay.png"), console=Console()
        )
        if problems:
            typer.echo(f"{len(problems)} problems:")
            _list(problems, most=len(problems))
            raise typer.Exit(1)
        typer.echo("no problems; no store was written")
        return
    assert store is not None
    result = convert(
        make(),
        store,
        config=config,
        part=part,
        overwrite=overwrite,
        console=Console(stderr=True),
    )
    resumed = f", {result.num_resumed} shards were there already" if result.num_resumed else ""
    if result.digest is None:
        typer.echo(
            f"part {shard} of {result.path} is written: {result.num_records} records{resumed}; "
            f"{result.num_missing} shards of other parts are missing"
        )
        return
    typer.echo(f"{result.num_records} records in {result.path}{resumed}, digest {result.digest}")
    if result.skipped:
        typer.echo(f"left out {len(result.skipped)} records:")
        _list([f"{name}: {reason}" for name, reason in result.skipped])


Poses = StrEnum("Poses", ["auto", "mono", "world", "universal"])


@layout("raw")
def raw(
    source: Annotated[
        Path, typer.Argument(help="Folder of S1, S5, ..., or what holds it as extracted/.")
    ],
    metadata: Annotated[
        Path | None,
        typer.Option(help="metadata.xml; looked for in and beside the source if not given."),
    ] = None,
    poses: Annotated[
        Poses,
        typer.Option(
            help="D3_Positions_mono, D3_Positions, or D3_Positions_mono_universal (the same limb "
            "lengths for everybody); auto: mono or world, compared where both are there."
        ),
    ] = Poses.auto,
) -> Reader:
    """Convert Human3.6M's own archives (CDF, mp4, metadata.xml); a stopped run goes on."""
    from data_prep.readers.raw import RawReader

    return RawReader(source, metadata=metadata, poses=poses.value)


@layout("rle-json")
def rle_json(
    source: Annotated[Path, typer.Argument(help="Folder with annotations/ and images/.")],
    train_annotation: Annotated[
        str | None, typer.Option(help="Training set's file in annotations/; found if not given.")
    ] = None,
    test_annotation: Annotated[
        str | None, typer.Option(help="Test set's file in annotations/; found if not given.")
    ] = None,
    translation: Annotated[
        Translation, typer.Option(help="Reading of cam_param.t.")
    ] = Translation.auto,
    detector_boxes: Annotated[
        Path | None,
        typer.Option(help="JSON of {image_id: file name, bbox} that replaces annotated boxes."),
    ] = None,
) -> Reader:
    """Convert the annotation layout of the released RLE code; a stopped run goes on."""
    from data_prep.readers.rle_json import RleJsonReader

    return RleJsonReader(
        source,
        train_annotation=train_annotation,
        test_annotation=test_annotation,
        translation=translation.value,
        detector_boxes=detector_boxes,
    )


@layout("h36m-fetch")
def h36m_fetch(
    source: Annotated[Path, typer.Argument(help="Folder 'processed', with S1/Directions-1/.")],
    intrinsics: Annotated[
        Intrinsics,
        typer.Option(help="Human3.6M's cameras with distortion, or the files' estimates without."),
    ] = Intrinsics.human36m,
) -> Reader:
    """Convert the tree that h36m-fetch makes of Human3.6M's archives; a stopped run goes on."""
    from data_prep.readers.h36m_fetch import H36mFetchReader

    return H36mFetchReader(source, intrinsics=intrinsics.value)


Images = Annotated[Path | None, typer.Option(help="Folder of the images; found if not given.")]
Annotation = Annotated[
    list[str] | None,
    typer.Option("--annotation", help="Annotation file; found if not given. May be repeated."),
]
Split = StrEnum("Split", ["auto", "train", "test"])
SplitOption = Annotated[
    Split, typer.Option(help="Set of the records; auto: files named val or test make the test set.")
]
MinJoints = Annotated[int, typer.Option(min=1, help="Leave out people with fewer labelled joints.")]


@layout("coco-json")
def coco_json(
    source: Annotated[Path, typer.Argument(help="Folder of annotations and images, or a file.")],
    images: Images = None,
    annotation: Annotation = None,
    split: SplitOption = Split.auto,
    min_joints: MinJoints = 1,
) -> Reader:
    """Convert people with 2-D joints in COCO's layout; depth gets no weight."""
    from data_prep.readers.coco_json import CocoJsonReader

    return CocoJsonReader(
        source,
        images=images,
        annotations=annotation or (),
        split=split.value,
        min_joints=min_joints,
    )


@layout("mpii-json")
def mpii_json(
    source: Annotated[Path, typer.Argument(help="Folder of annotations and images, or a file.")],
    images: Images = None,
    annotation: Annotation = None,
    split: SplitOption = Split.auto,
    min_joints: MinJoints = 1,
    first_pixel: Annotated[
        int | None,
        typer.Option(
            min=0, max=1, help="What labels call the first pixel; 0, and 1 in HRNet's lists."
        ),
    ] = None,
) -> Reader:
    """Convert MPII's people, annot_mpii.json or HRNet's lists; depth gets no weight."""
    from data_prep.readers.mpii_json import MpiiJsonReader

    return MpiiJsonReader(
        source,
        images=images,
        annotations=annotation or (),
        split=split.value,
        min_joints=min_joints,
        first_pixel=first_pixel,
    )


Drawn = StrEnum("Drawn", ["figure", "synthetic"])


@app.command()
def lookalike(
    layout_name: Annotated[
        str, typer.Argument(metavar="FORMAT", help="The verb that reads the layout, e.g. raw.")
    ],
    tree: Annotated[Path, typer.Argument(help="New folder that the files go to.")],
    subjects: Annotated[str, typer.Option(help="Of 1,5,6,7,8,9,11.")] = "1,5,6,7,8,9,11",
    actions: Annotated[
        str, typer.Option(help="Names, or Human3.6M's numbers from 2 to 16.")
    ] = "Directions,Walking",
    subactions: Annotated[str, typer.Option(help="1, 2, or both.")] = "1,2",
    poses: Annotated[
        int, typer.Option(min=1, help="Poses of the first sequence; others have a few more.")
    ] = 12,
    pictures: Annotated[
        Drawn,
        typer.Option(help="A figure of coloured limbs, or the synthetic data set's photographs."),
    ] = Drawn.figure,
    seed: Annotated[int, typer.Option(help="Everything follows from it.")] = 0,
) -> None:
    """Write synthetic people as files of a layout, to try its verb and to see what it expects."""
    from data_prep.lookalike.formats import write_lookalike
    from data_prep.lookalike.world import parse_world

    world = parse_world(
        subjects=subjects, actions=actions, subactions=subactions, num_poses=poses, seed=seed
    )
    if pictures is Drawn.synthetic:
        from data_prep.lookalike.photographs import photographed

        world = photographed(world, seed=seed)
    write_lookalike(layout_name, world, tree)
    count = sum(len(performance) for performance in world.performances)
    typer.echo(
        f"{len(world.performances)} sequences of {len(world.camera_names)} cameras, {count} poses, "
        f"in {tree}"
    )


@layout("mmpose")
def mmpose(
    source: Annotated[Path, typer.Argument(help="Folder with annotation_body3d/ and images/.")],
    fps: Annotated[
        int | None,
        typer.Option(help="50 or 10: which annotations; those there are, 50 of both."),
    ] = None,
) -> Reader:
    """Convert Human3.6M as mmpose lays it out; a stopped run goes on."""
    from data_prep.readers.mmpose import MmposeReader

    return MmposeReader(source, frames_per_s=fps)


@layout("learnable-triangulation")
def learnable_triangulation(
    source: Annotated[
        Path, typer.Argument(help="The labels' .npy file, or the folder that holds extra/ with it.")
    ],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images; processed/ beside the labels.")
    ] = None,
    undistorted: Annotated[
        bool,
        typer.Option("--undistorted", help="Take the undistorted images if there are both."),
    ] = False,
) -> Reader:
    """Convert the labels of learnable-triangulation with their images; a stopped run goes on."""
    from data_prep.readers.learnable_triangulation import LearnableTriangulationReader

    return LearnableTriangulationReader(source, images=images, undistorted=undistorted)


@layout("csv")
def own_csv(
    source: Annotated[Path, typer.Argument(help="Folder with people.csv and cameras.csv.")],
    cameras: Annotated[
        Path | None, typer.Option(help="Table of cameras; cameras.csv beside the people.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images; that of people.csv if not given.")
    ] = None,
) -> Reader:
    """Convert data of your own from two CSV tables, people.csv and cameras.csv."""
    from data_prep.readers.own import CsvReader

    return CsvReader(source, cameras=cameras, images=images)


@layout("json")
def own_json(
    source: Annotated[Path, typer.Argument(help="Folder with people.json, or the file.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images; that of the file if not given.")
    ] = None,
) -> Reader:
    """Convert data of your own from one JSON file, people.json."""
    from data_prep.readers.own import JsonReader

    return JsonReader(source, images=images)


@layout("h36m-toolbox")
def h36m_toolbox(
    source: Annotated[Path, typer.Argument(help="Folder with annot/ and images/.")],
) -> Reader:
    """Convert the labels of H36M-Toolbox with their images; a stopped run goes on."""
    from data_prep.readers.h36m_toolbox import H36mToolboxReader

    return H36mToolboxReader(source)


@layout("metro")
def metro(
    source: Annotated[Path, typer.Argument(help="Folder with S1/Images/ and so on.")],
    metadata: Annotated[
        Path | None, typer.Option(help="The release's metadata.xml; looked for in SOURCE.")
    ] = None,
) -> Reader:
    """Convert the tree that metro and MeTRAbs train on; a stopped run goes on."""
    from data_prep.readers.metro import MetroReader

    return MetroReader(source, metadata=metadata)


@layout("posenet-json")
def posenet_json(
    source: Annotated[Path, typer.Argument(help="Folder with annotations/ and images/.")],
    translation: Annotated[
        Translation, typer.Option(help="Reading of the cameras' t; told for each subject if auto.")
    ] = Translation.auto,
    bbox_root: Annotated[
        Path | None,
        typer.Option(help="Boxes of a detector that take the place of the annotated ones."),
    ] = None,
) -> Reader:
    """Convert PoseNet's JSON layout, three files per subject; a stopped run goes on."""
    from data_prep.readers.posenet_json import PosenetJsonReader

    return PosenetJsonReader(source, translation=translation.value, bbox_root=bbox_root)


@layout("videopose3d")
def videopose3d(
    source: Annotated[Path, typer.Argument(help="data_3d_h36m.npz, or the folder that holds it.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of images or videos; looked for in SOURCE.")
    ] = None,
    keypoints: Annotated[
        Path | None,
        typer.Option(help="data_2d_h36m_gt.npz, to compare with; looked for beside the poses."),
    ] = None,
) -> Reader:
    """Convert VideoPose3D's poses with a tree of images; a stopped run goes on."""
    from data_prep.readers.videopose3d import VideoPose3dReader

    return VideoPose3dReader(source, images=images, keypoints=keypoints)


@layout("martinez")
def martinez(
    source: Annotated[Path, typer.Argument(help="The folder h36m of h36m.zip.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of images or videos; looked for in SOURCE.")
    ] = None,
) -> Reader:
    """Convert the poses and cameras of Martinez et al. with images; a stopped run goes on."""
    from data_prep.readers.martinez import MartinezReader

    return MartinezReader(source, images=images)


@app.command()
def synthetic(
    store: StoreArgument,
    train: Annotated[
        int | None, typer.Option(min=0, help="Training images.", show_default="10000")
    ] = None,
    test: Annotated[
        int | None, typer.Option(min=0, help="Test images.", show_default="1000")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=16, help="Side of the crops, pixels.", show_default="256")
    ] = None,
    margin: Margin = 1.84,
    quality: Quality = 92,
    seed: Annotated[
        int | None, typer.Option(help="Everything follows from it.", show_default="0")
    ] = None,
    preset: Annotated[
        Preset | None, typer.Option(help="A named set, with all numbers fixed.")
    ] = None,
    poses: Annotated[
        Path | None,
        typer.Option(help="Motion capture instead of the motion model: NPZ, BVH, AMC or a folder."),
    ] = None,
    exclude_action: Annotated[
        list[str] | None,
        typer.Option(help="Action of the motion capture to leave out; repeatable."),
    ] = None,
    jitter: Annotated[bool, typer.Option("--jitter", help="Move cameras a little.")] = False,
    renderer: Annotated[Renderer, typer.Option(help="What draws the images.")] = Renderer.auto,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = NUM_CORES,
    overwrite: Overwrite = False,
) -> None:
    """Render a synthetic Human3.6M; a stopped run goes on where it was."""
    from data_prep.synthetic.generate import generate_synthetic
    from data_prep.synthetic.performances import ClipMotions
    from data_prep.synthetic.presets import settings_of

    settings = settings_of(
        preset and preset.value, num_train=train, num_test=test, crop_size_px=size, seed=seed
    )
    motions = None
    if poses is not None:
        motions = ClipMotions(
            poses,
            seed=settings.seed,
            exclude_actions=exclude_action or (),
            split=settings.only_split,
        )
        typer.echo(motions.report.text())
        if motions.left_out:
            typer.echo(f"left out {len(motions.left_out)} clips:")
            _list([f"{name} {fault}" for name, fault in motions.left_out.items()])
    digest = generate_synthetic(
        store,
        num_train=settings.num_train,
        num_test=settings.num_test,
        crop_size_px=settings.crop_size_px,
        margin=margin,
        jpeg_quality=quality,
        seed=settings.seed,
        renderer=renderer.value,
        motions=motions,
        has_jitter=jitter,
        num_workers=jobs,
        overwrite=overwrite,
    )
    count = settings.num_train + settings.num_test
    typer.echo(f"{count} records in {store}, digest {digest}")


@app.command()
def verify(
    store: StoreArgument,
    sheet: Annotated[
        Path | None,
        typer.Option(help="PNG of labels on images; STORE/overlay.png if not given."),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of the sheet.")] = 5,
    columns: Annotated[int, typer.Option(min=1, help="Columns of the sheet.")] = 6,
    jobs: Annotated[int, typer.Option(min=1, help="Threads that decode.")] = NUM_CORES,
    decode: Annotated[bool, typer.Option(help="Decode every image, and check the digest.")] = True,
) -> None:
    """Check every record, draw labels on images; ends with 1 and a list if anything is wrong."""
    console = Console()
    opened = open_store(store)
    problems = []
    try:
        if decode:
            opened.verify_digest()
    except ValueError as error:
        problems.append(str(error))
    measured = measure(opened)
    bar = Console(stderr=True)
    problems += check_records(
        opened,
        decode=decode,
        measured=measured,
        num_jobs=jobs,
        console=bar if bar.is_terminal else None,
    )
    problems += compare_with_release(opened, measured=measured).odd
    print_summary(opened, console, measured=measured)
    if sheet is None:
        sheet = store / "overlay.png" if store.is_dir() else store.with_suffix(".overlay.png")
    write_sheet(overlay_sheet(opened, rows=rows, columns=columns), sheet)
    typer.echo(f"labels on images: {sheet}")
    if problems:
        typer.echo(f"{len(problems)} problems:")
        _list(problems)
        raise typer.Exit(1)
    typer.echo(f"no problems in {len(opened)} records")


def _list(lines: list[str], *, most: int = MAX_LISTED) -> None:
    """Print the first lines and how many there are more."""
    for line in lines[:most]:
        typer.echo(f"  {line}")
    if len(lines) > most:
        typer.echo(f"  and {len(lines) - most} more")


def main() -> None:
    """Run the command line; an error ends in one line and exit code 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        Console(stderr=True, soft_wrap=True).print(f"[red]error:[/red] {escape(str(error))}")
        sys.exit(2)


if __name__ == "__main__":
    main()
