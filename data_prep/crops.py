"""Full images become crops: warp, encode, and make the store's record."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from data_prep.people import People
from pose3d.data.store import StoreHeader, StoreRecord
from pose3d.geometry.crop import crop_from_image, transform_points

MIN_SHARE_IN_CROP = 0.5


def check_size(
    image: UInt8[np.ndarray, "height width 3"], *, image_size_px: tuple[int, int], name: str
) -> None:
    """Refuse an image of another size than its label was made for."""
    found = (image.shape[1], image.shape[0])
    if found != tuple(image_size_px):
        is_turned = found == tuple(image_size_px)[::-1]
        raise ValueError(
            f"{name} has {found[0]}×{found[1]} px, its annotation states "
            f"{image_size_px[0]}×{image_size_px[1]} px; "
            + (
                "labels must be those of the image as its EXIF orientation turns it"
                if is_turned
                else "both must be of one release"
            )
        )


def cut_crop(
    image: UInt8[np.ndarray, "height width 3"],
    store_from_image: Float[np.ndarray, "3 3"],
    *,
    crop_size_px: int,
) -> UInt8[np.ndarray, "size size 3"]:
    """Warp a frame to a square crop; what lies outside the frame is black.

    Where the crop is smaller than what it shows by a factor f > 1, the frame is warped to ceil(f)
    times the crop's size and averaged down, since warping straight would alias.
    """
    shrink = 1 / math.sqrt(abs(np.linalg.det(store_from_image[:2, :2])))
    factor = min(max(math.ceil(shrink - 0.05), 1), 8)
    offset = (factor - 1) / 2  # pixel centres are at integers
    large_from_store = np.array([[factor, 0, offset], [0, factor, offset], [0, 0, 1.0]])
    size = crop_size_px * factor
    interpolation = cv2.INTER_LINEAR if factor > 1 else cv2.INTER_CUBIC
    matrix = (large_from_store @ store_from_image)[:2]
    crop = cv2.warpAffine(image, matrix, (size, size), flags=interpolation)
    if factor > 1:
        crop = cv2.resize(crop, (crop_size_px, crop_size_px), interpolation=cv2.INTER_AREA)
    return crop


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a record belongs; fields as in `pose3d.data.store.StoreRecord`."""

    subject: int
    action: str
    subaction: int
    split: str


def make_record(
    people: People,
    row: int,
    image: UInt8[np.ndarray, "height width 3"],
    *,
    place: Place,
    header: StoreHeader,
) -> StoreRecord:
    """Cut and encode the crop of one person.

    Args:
        people: Labels of the take.
        row: Position of the frame in it.
        image: The full image, BGR.
        place: Whose record it is.
        header: The store's header.

    Raises:
        ValueError: If the image has another size, all labelled joints miss it (a wrong camera), or
            most of them miss the crop (a wrong box).
    """
    take, size = people.take, header.crop_size_px
    image_size_px = (int(take.image_size_px[row, 0]), int(take.image_size_px[row, 1]))
    check_size(image, image_size_px=image_size_px, name=f"image {take.pictures.names[row]}")
    camera = take.camera[row] if take.camera.batch_shape else take.camera
    matrix = crop_map(people, row, header=header)
    joints = take.joints_camera_mm[row]
    image_px = people.image_px[row]
    counted = (people.weight[row] > 0).any(-1)
    inside = ((image_px >= -0.5) & (image_px < np.array(image_size_px) - 0.5)).all(-1)
    if not inside[counted].any():
        raise ValueError(
            "none of the labelled joints falls into the image; camera (its rotation and whether "
            "t is its centre, too) and joints must belong together"
        )
    crop_px = transform_points(matrix, torch.from_numpy(image_px)).numpy()[counted]
    share = (
        float(((crop_px >= -0.5) & (crop_px < size - 0.5)).all(-1).mean()) if len(crop_px) else 0.0
    )
    if share < MIN_SHARE_IN_CROP:
        raise ValueError(
            f"only {share:.0%} of the joints fall into the crop of box centre and side "
            f"{people.square_box_px[row].round(1).tolist()} px; boxes must be x, y, width, height "
            "and belong to the joints"
        )
    crop = cut_crop(image, matrix.numpy(), crop_size_px=size)
    _, jpeg = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, header.jpeg_quality])
    return StoreRecord(
        image_jpeg=jpeg.tobytes(),
        joints_camera_mm=joints,
        weight=people.weight[row],
        visibility=people.visibility[row].astype(np.uint8),
        camera=camera,
        camera_name=take.camera_name,
        store_from_image=matrix.numpy(),
        box_image_px=people.square_box_px[row],
        subject=place.subject,
        action=place.action,
        subaction=place.subaction,
        frame=int(take.frame[row]),
        split=place.split,
        source_file=take.pictures.names[row],
        image_size_px=image_size_px,
    )


def crop_map(people: People, row: int, *, header: StoreHeader) -> Float[torch.Tensor, "3 3"]:
    """The map from the full image's pixels to the stored crop's."""
    shown = torch.from_numpy(people.square_box_px[row] * [1, 1, header.margin])
    return crop_from_image(shown, crop_size_px=header.crop_size_px)
