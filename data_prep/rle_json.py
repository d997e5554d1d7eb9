"""Read the annotation layout of the released RLE code (PoseNet's first JSON layout).

    SOURCE/annotations/Sample_trainmin_train_Human36M_protocol_2.json   training set
    SOURCE/annotations/Sample_64_test_Human36M_protocol_2.json          test set
    SOURCE/images/<file_name>

Each file holds {"images": [...], "annotations": [...]}, paired by position. Read from an image:
file_name, width, height, cam_param {R, t, f, c and, if there, k (k1 k2 k3), p (p1 p2)} and, if
there, subject, action_idx, subaction_idx, cam_idx, frame_idx (else from the file's name); from an
annotation: bbox (x, y, width, height, pixels) and keypoints_world (17 joints, millimetres).

`cam_param.t` is the camera's centre C in this layout, X_camera = R (X_world − C), while other files
of the same shape hold −R C; "auto" takes the reading that puts people before the cameras and into
the images, for the source as a whole.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.console import Console

from data_prep.crops import Conversion, Rejection, rejected, write_store
from data_prep.people import (
    BOXES,
    MAX_BONE_MM,
    TRANSLATIONS,
    Label,
    PersonBuilder,
    box_definition,
    check_unit,
    decide_translation,
)
from pose3d.data.store import INT32_MAX, StoreHeader
from pose3d.geometry.skeleton import HUMAN36M_17

TRAIN_PATTERN = "Sample_trainmin_train_*protocol_2.json"
TEST_PATTERN = "Sample_64_test_*protocol_2.json"
_FILE_NAME = re.compile(r"s_(\d+)_act_(\d+)_subact_(\d+)_ca_(\d+)_(\d+)\.\w+$")


@dataclass(frozen=True, kw_only=True, slots=True)
class RleJsonConfig:
    """How a source in this layout is read and cropped.

    Attributes:
        crop_size_px: Side of the stored crops, pixels.
        margin: What the crop shows over the nominal square; 1.84 = 1.3 × √2 covers a scale of
            ±30 % with any rotation.
        jpeg_quality: Quality of the stored JPEG.
        box: "annotation": the JSON's box; "joints": the projected joints' tight box × 1.2;
            "metric": 2000 mm at the root's depth around the root.
        enlarge: Factor on the side of the square around that box; 1 as the released RLE code has it
            for Human3.6M, 1.25 as PoseNet has it.
        translation: Reading of cam_param.t: "centre", "minus-rc" or "auto".
        on_error: "error" or "skip" records that cannot be converted.
        train_annotation: File name in SOURCE/annotations; found by pattern if None.
        test_annotation: The same for the test set.
        num_threads: Threads that decode, warp and encode.
        shard_size: Records per shard.
    """

    crop_size_px: int = 472
    margin: float = 1.84
    jpeg_quality: int = 92
    box: str = "annotation"
    enlarge: float = 1.0
    translation: str = "auto"
    on_error: str = "error"
    train_annotation: str | None = None
    test_annotation: str | None = None
    num_threads: int = 1
    shard_size: int = 512

    def __post_init__(self) -> None:
        for name, value, known in (
            ("box", self.box, BOXES),
            ("translation", self.translation, TRANSLATIONS),
            ("on_error", self.on_error, ("error", "skip")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if not self.enlarge > 0:
            raise ValueError(f"enlarge must be > 0, got {self.enlarge}")


def convert_rle_json(
    source: Path | str,
    store: Path | str,
    *,
    config: RleJsonConfig | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> Conversion:
    """Convert a source in this layout to a store.

    Args:
        source: Folder with annotations/ and images/.
        store: The store's folder; made, continued, or left alone if it is complete.
        config: Settings; the defaults if None.
        overwrite: Make the store anew if there is one.
        console: Where findings and the progress bar go; nowhere if None.

    Raises:
        ValueError: If a file is missing, not of this layout, or a record cannot be converted.
        OSError: If the store cannot be written.
    """
    config = config or RleJsonConfig()
    say = partial(console.print, soft_wrap=True, markup=False) if console else _silent
    paths = find_annotations(Path(source), config=config)
    for split, path in paths.items():
        say(f"{split} set: {path}")
    items = [
        _parse(image, annotation, split=split)
        for split, path in paths.items()
        for image, annotation in load_pairs(path)
    ]
    _refuse_rejections(items, on_error=config.on_error)
    labels = [item for item in items if isinstance(item, Label)]
    check_unit(labels)
    translation = decide_translation(labels, asked=config.translation, say=say)
    builder = PersonBuilder(
        Path(source) / "images",
        translation=translation,
        box=config.box,
        enlarge=config.enlarge,
    )
    entries = [builder.build(item) if isinstance(item, Label) else item for item in items]
    _refuse_rejections(entries, on_error=config.on_error)
    for joint, count in builder.num_implausible.items():
        say(
            f"weight 0: {joint} of {count} records, since its bones are longer than "
            f"{MAX_BONE_MM:.0f} mm"
        )
    plan = {
        "annotations": {split: _sha256(path) for split, path in paths.items()},
        "translation": translation,
    }
    return write_store(
        store,
        entries,
        header=StoreHeader(
            skeleton=HUMAN36M_17.name,
            source=f"rle-json ({', '.join(path.name for path in paths.values())})",
            box_definition=box_definition(config.box, enlarge=config.enlarge),
            crop_size_px=config.crop_size_px,
            margin=config.margin,
            jpeg_quality=config.jpeg_quality,
        ),
        plan=plan,
        on_error=config.on_error,
        num_threads=config.num_threads,
        shard_size=config.shard_size,
        overwrite=overwrite,
        console=console,
    )


def find_annotations(source: Path, *, config: RleJsonConfig) -> dict[str, Path]:
    """The annotation file of each split; a split is left out only if nothing fits its pattern.

    Raises:
        ValueError: If the folder or every file is missing, a named file is, or a pattern fits two.
    """
    folder = source / "annotations"
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; SOURCE must hold annotations/ and images/")
    found = {}
    for split, name, pattern in (
        ("train", config.train_annotation, TRAIN_PATTERN),
        ("test", config.test_annotation, TEST_PATTERN),
    ):
        paths = [folder / name] if name else sorted(folder.glob(pattern))
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            raise ValueError(f"{folder} holds several {split} sets ({names}); name one by option")
        if paths and not paths[0].is_file():
            raise ValueError(f"annotation file {paths[0]} is missing")
        if paths:
            found[split] = paths[0]
    if not found:
        raise ValueError(
            f"{folder} holds no {TRAIN_PATTERN} and no {TEST_PATTERN}; name the files with "
            "--train-annotation and --test-annotation"
        )
    return found


def load_pairs(path: Path) -> list[tuple[Any, Any]]:
    """Pairs of image and annotation of one file.

    Raises:
        ValueError: If the file is not JSON of this layout.
    """
    expected = 'expected {"images": [...], "annotations": [...]} of equal lengths'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"annotation file {path} is not readable JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; {expected}")
    images, annotations = content.get("images"), content.get("annotations")
    if not (isinstance(images, list) and isinstance(annotations, list)):
        raise ValueError(f"{path} has the keys {sorted(content)[:8]}; {expected}")
    if len(images) != len(annotations) or not images:
        raise ValueError(
            f"{path} has {len(images)} images and {len(annotations)} annotations; {expected}, "
            "paired by position"
        )
    return list(zip(images, annotations, strict=True))


def _parse(image: Any, annotation: Any, *, split: str) -> Label | Rejection:
    """Read one pair."""
    name = str(image.get("file_name", "?")) if isinstance(image, Mapping) else "?"
    try:
        return parse_pair(image, annotation, split=split)
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"is not of this layout ({type(error).__name__}: {error})"
    except (ValueError, OverflowError) as error:  # numbers like 1e400 or NaN where whole ones go
        reason = str(error)
    return Rejection(name=name, reason=reason, split=split)


def parse_pair(image: Mapping, annotation: Mapping, *, split: str) -> Label:
    """Read and check one pair; raises what `_parse` makes a rejection of."""
    camera = image["cam_param"]
    if "id" in image and annotation.get("image_id", image["id"]) != image["id"]:
        raise ValueError(
            f"is paired by position with the annotation of image {annotation['image_id']}, "
            f"not {image['id']}; bring both lists into the same order"
        )
    joints = _array(annotation, "keypoints_world", (17, 3), finite=False)
    bad = np.flatnonzero(~np.isfinite(joints).all(1))
    if len(bad):
        names = ", ".join(HUMAN36M_17.joint_names[j] for j in bad)
        raise ValueError(f"keypoints_world of {names} is not finite")
    box = _array(annotation, "bbox", (4,))
    if not (box[2:] > 0).all():
        raise ValueError(f"bbox {box.tolist()} has no area; expected x, y, width, height in pixels")
    rotation = _array(camera, "R", (3, 3))
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise ValueError("cam_param.R is not a rotation")
    focal = _array(camera, "f", (2,))
    if not (focal > 0).all():
        raise ValueError(f"cam_param.f is {focal.tolist()} px, must be > 0")
    return Label(
        file_name=str(image["file_name"]),
        split=split,
        image_size_px=(int(image["width"]), int(image["height"])),
        rotation=rotation,
        translation_mm=_array(camera, "t", (3,)),
        focal_px=focal,
        principal_point_px=_array(camera, "c", (2,)),
        radial=_array(camera, "k", (3,)) if "k" in camera else np.zeros(3),
        tangential=_array(camera, "p", (2,)) if "p" in camera else np.zeros(2),
        box_xywh_px=box,
        joints_world_mm=joints,
        numbers=_numbers(image),
    )


def _array(
    values: Mapping, key: str, shape: tuple[int, ...], *, finite: bool = True
) -> Float[np.ndarray, "..."]:
    """A float array of this shape; null becomes NaN."""
    array = np.array(values[key], dtype=np.float64)
    if array.size == np.prod(shape):
        array = array.reshape(shape)
    if array.shape != shape:
        raise ValueError(f"{key} has shape {array.shape}, expected {shape}")
    if finite and not np.isfinite(array).all():
        raise ValueError(f"{key} is not finite: {array.tolist()}")
    return array


def _numbers(image: Mapping) -> tuple[int, int, int, int, int]:
    """Subject, action, subaction, camera and frame, from the keys or the file's name."""
    keys = ("subject", "action_idx", "subaction_idx", "cam_idx", "frame_idx")
    if all(key in image for key in keys):
        subject, action, subaction, camera, frame = (int(image[key]) for key in keys)
    elif match := _FILE_NAME.search(image["file_name"]):
        subject, action, subaction, camera, frame = map(int, match.groups())
        frame -= 1
    else:
        raise ValueError(f"has neither the keys {', '.join(keys)} nor a file name that holds them")
    for key, number in zip(keys, (subject, action, subaction, camera, frame), strict=True):
        if not 0 <= number <= INT32_MAX:
            raise ValueError(f"{key} is {number}, must be 0 to {INT32_MAX}")
    return subject, action, subaction, camera, frame


def _refuse_rejections(items: Sequence[object], *, on_error: str) -> None:
    """Raise for the first rejection unless skipping is asked for."""
    if on_error == "error":
        for item in items:
            if isinstance(item, Rejection):
                raise rejected(item)


def _sha256(path: Path) -> str:
    """Digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _silent(_: str) -> None:
    """Say nothing."""
