"""Write a world as photographs with 2-D labels: COCO's and MPII's layouts.

Each photograph shows two people who stand side by side; see `data_prep.readers.coco_json` and
`data_prep.readers.mpii_json`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Int

from data_prep.lookalike.images import JPEG_QUALITY
from data_prep.lookalike.world import Performance, World, world_points
from data_prep.pictures import Image
from data_prep.readers.coco_json import COCO_JOINTS
from data_prep.readers.mpii_json import MPII_JOINTS, PIXEL_STD
from pose3d.geometry.skeleton import HUMAN36M_17

FIRST_IMAGE = 391895
_SIDES = {"left": "L", "right": "R", "l": "L", "r": "R"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Photograph:
    """One image with its people.

    Attributes:
        number: From 0.
        is_test: Whether its people belong to the test set.
        image: BGR.
        people_px: The 17 joints of `HUMAN36M_17` of each person, pixels.
        flags: 0 no label, 1 hidden, 2 visible.
    """

    number: int
    is_test: bool
    image: Image
    people_px: list[Float[np.ndarray, "17 2"]]
    flags: list[Int[np.ndarray, " 17"]]


def photographs(world: World, *, seed: int = 0) -> Iterator[Photograph]:
    """Two performances side by side, frame by frame and camera by camera.

    One joint in six is hidden and one in eight has no label; so has what lies outside the image.

    Args:
        world: Who is photographed.
        seed: Decides about flags.
    """
    rng = np.random.default_rng(seed)
    number = 0
    for is_test in (False, True):
        wanted = [p for p in world.performances if p.is_test == is_test]
        for pair in (wanted[start : start + 2] for start in range(0, len(wanted), 2)):
            for camera_name in world.camera_names:
                for frame in range(min(map(len, pair))):
                    yield _photograph(world, pair, camera_name, frame, number, is_test, rng)
                    number += 1


def _photograph(
    world: World,
    pair: Sequence[Performance],
    camera_name: str,
    frame: int,
    number: int,
    is_test: bool,
    rng: np.random.Generator,
) -> Photograph:
    parts = [world.painter.image(performance, camera_name, frame) for performance in pair]
    height = min(part.shape[0] for part in parts)
    image = np.concatenate([part[:height] for part in parts], axis=1)
    people, flags, left = [], [], 0
    for performance, part in zip(pair, parts, strict=True):
        points = world_points(performance, camera_name, frame) + np.array([left, 0])
        inside = ((points >= 0) & (points < np.array([image.shape[1], height]))).all(-1)
        flag = rng.choice([0, 1, 2], size=17, p=[1 / 8, 1 / 6, 1 - 1 / 8 - 1 / 6])
        people.append(points)
        flags.append(flag * inside)
        left += part.shape[1]
    return Photograph(number=number, is_test=is_test, image=image, people_px=people, flags=flags)


def write_coco_json(world: World, folder: Path, *, seed: int = 0) -> None:
    """Write COCO's layout: two annotation files, whole pixels, and what has to be left out.

    Each photograph also has a crowd, and the first one somebody without labels.

    Args:
        world: Subjects 9 and 11 make val2017, the others train2017.
        folder: The tree's folder.
        seed: Decides which joints are hidden or have no label.

    Raises:
        OSError: If a file cannot be written.
    """
    category = {"supercategory": "person", "id": 1, "name": "person", "keypoints": COCO_JOINTS}
    content = {name: _empty(category) for name in ("train2017", "val2017")}
    number = 100000
    for photograph in photographs(world, seed=seed):
        name = "val2017" if photograph.is_test else "train2017"
        image = _image_entry(photograph, f"{FIRST_IMAGE + photograph.number:012d}.jpg")
        _write_jpeg(folder / name / image["file_name"], photograph.image)
        content[name]["images"].append(image)
        for points, flags in zip(photograph.people_px, photograph.flags, strict=True):
            keypoints = _named(COCO_JOINTS, points.round(), flags)
            entry = _annotation(number, image, keypoints, _tight(points, growth=1.1))
            content[name]["annotations"].append(entry)
            number += 1
        nothing = np.zeros((len(COCO_JOINTS), 3), int)
        crowd = _annotation(number, image, nothing, [0.0, 0.0, 400.0, 90.0])
        content[name]["annotations"].append({**crowd, "iscrowd": 1})
        number += 1
        if photograph.number == 0:
            entry = _annotation(number, image, nothing, [5.0, 5.0, 20.0, 40.0])
            content[name]["annotations"].append(entry)
            number += 1
    for name, values in content.items():
        if values["images"]:
            _write_json(folder / "annotations" / f"person_keypoints_{name}.json", values)


def write_mpii_json(world: World, folder: Path, *, shape: str = "coco", seed: int = 0) -> None:
    """Write MPII's labels in the RLE code's layout or HRNet's.

    Args:
        world: In HRNet's layout subjects 9 and 11 make the validation set.
        folder: The tree's folder.
        shape: "coco": annotations/annot_mpii.json, flags 0 and 1; "hrnet": annot/train.json and
            annot/valid.json, pixels from 1.
        seed: Decides which joints are hidden or have no label.

    Raises:
        ValueError: If the shape is another.
        OSError: If a file cannot be written.
    """
    if shape not in ("coco", "hrnet"):
        raise ValueError(f"shape must be coco or hrnet, got {shape!r}")
    category = {"supercategory": "person", "id": 1, "name": "person", "keypoints": MPII_JOINTS}
    content = _empty(category)
    lists: dict[str, list[dict]] = {"train": [], "valid": []}
    for photograph in photographs(world, seed=seed):
        image = _image_entry(photograph, f"{15601864 + photograph.number:09d}.jpg")
        _write_jpeg(folder / "images" / image["file_name"], photograph.image)
        content["images"].append(image)
        for points, flags in zip(photograph.people_px, photograph.flags, strict=True):
            keypoints = _named(MPII_JOINTS, points, np.minimum(flags, 1))
            number = len(content["annotations"])
            box = _tight(points, growth=1.2)
            content["annotations"].append(_annotation(number, image, keypoints, box))
            name = "valid" if photograph.is_test else "train"
            lists[name].append(_hrnet_entry(image, keypoints, box))
    if shape == "coco":
        _write_json(folder / "annotations" / "annot_mpii.json", content)
        return
    for name, entries in lists.items():
        if entries:
            _write_json(folder / "annot" / f"{name}.json", entries)


def _empty(category: dict[str, Any]) -> dict[str, Any]:
    return {"images": [], "annotations": [], "categories": [category]}


def _named(
    names: Sequence[str], points: Float[np.ndarray, "17 2"], flags: Int[np.ndarray, " 17"]
) -> Float[np.ndarray, "keypoints 3"]:
    """Joints of another set: x, y, flag; 0, 0, 0 without a label."""
    index = HUMAN36M_17.index
    keypoints = np.zeros((len(names), 3))
    for row, name in enumerate(names):
        sources = _sources(name)
        flag = min(flags[index(source)] for source in sources)
        if flag > 0:
            keypoints[row, :2] = np.mean([points[index(source)] for source in sources], axis=0)
            keypoints[row, 2] = flag
    return keypoints


def _sources(name: str) -> tuple[str, ...]:
    """The joints of `HUMAN36M_17` that make another set's joint."""
    side, _, part = name.partition("_")
    if side in _SIDES and part in ("eye", "ear"):
        return ("Nose", "Head")
    if side in _SIDES:
        return (f"{_SIDES[side]}_{part.title()}",)
    others = {"thorax": ("L_Shoulder", "R_Shoulder"), "upper_neck": ("Neck",)}
    return others.get(name, (name.removesuffix("_top").title(),))


def _tight(points: Float[np.ndarray, "17 2"], *, growth: float) -> list[float]:
    """Box around all joints: left, top, width, height."""
    low, high = points.min(0), points.max(0)
    size = growth * (high - low)
    return [*((low + high) / 2 - size / 2).tolist(), *size.tolist()]


def _image_entry(photograph: Photograph, file_name: str) -> dict[str, Any]:
    height, width = photograph.image.shape[:2]
    number = FIRST_IMAGE + photograph.number
    return {"id": number, "file_name": file_name, "width": width, "height": height}


def _annotation(
    number: int, image: dict[str, Any], keypoints: np.ndarray, box: list[float]
) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image["id"],
        "category_id": 1,
        "iscrowd": 0,
        "bbox": box,
        "area": box[2] * box[3],
        "num_keypoints": int((keypoints[:, 2] > 0).sum()),
        "keypoints": keypoints.ravel().tolist(),
    }


def _hrnet_entry(image: dict[str, Any], keypoints: np.ndarray, box: list[float]) -> dict[str, Any]:
    """One entry of HRNet's list; its scale is the person's height over 200 px."""
    left, top, width, height = box
    scale = max(width, height) / PIXEL_STD
    return {
        "image": image["file_name"],
        "joints": (keypoints[:, :2] + 1).tolist(),
        "joints_vis": (keypoints[:, 2] > 0).astype(int).tolist(),
        "center": [left + width / 2 + 1, top + height / 2 + 1 - 15 * scale],
        "scale": scale,
    }


def _write_jpeg(path: Path, image: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    path.write_bytes(jpeg.tobytes())


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
