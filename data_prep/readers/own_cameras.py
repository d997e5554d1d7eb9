"""Cameras of people's own data: intrinsics, lens, and where they stand.

Lens models: "pinhole"; "human36m", the store's own formula; "opencv", of which the radial part is
the same and the tangential part is not: OpenCV has twice the cross term. Its p1, p2 are replaced by
those of the store's formula that come nearest within the image, and the error is told.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from data_prep.readers.own_tables import Row, Table
from pose3d.geometry.camera import Camera

MODELS = ("pinhole", "human36m", "opencv")
MM_PER_UNIT = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
RADIAL, TANGENTIAL = ("k1", "k2", "k3"), ("p1", "p2")
INTRINSICS = ("fx", "fy", "cx", "cy")
ROTATION = tuple(f"r{row}{column}" for row in (1, 2, 3) for column in (1, 2, 3))
ROTATION_VECTOR = ("rvec_x", "rvec_y", "rvec_z")
TRANSLATION = ("t_x", "t_y", "t_z")
CENTRE = ("centre_x", "centre_y", "centre_z")
REFUSED = ("k4", "k5", "k6", "s1", "s2", "s3", "s4", "tau_x", "tau_y", "skew")
"""Parameters of OpenCV's that the store's formula does not have."""
COLUMNS = (
    *("camera", "width", "height", *INTRINSICS, "model", *RADIAL, *TANGENTIAL, *REFUSED, "unit"),
    *(*ROTATION, *ROTATION_VECTOR, *TRANSLATION, *CENTRE),
)
MAX_LENS_ERROR_PX = 1.0
_GRID = 25


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnCamera:
    """One camera.

    Attributes:
        name: Its name.
        size_px: Width and height of its images, pixels.
        camera: Its parameters; None where only the size is known.
        has_place: Whether it is known where it stands.
        note: What a person should be told; empty if nothing.
    """

    name: str
    size_px: tuple[int, int]
    camera: Camera | None
    has_place: bool
    note: str = ""


def read_cameras(table: Table) -> dict[str, OwnCamera]:
    """The cameras of a table by name.

    Raises:
        ValueError: Naming file, line and column.
    """
    cameras: dict[str, OwnCamera] = {}
    for row in table.rows:
        camera = read_camera(row)
        if camera.name in cameras:
            raise row.error("camera", f"{camera.name!r} occurs twice")
        cameras[camera.name] = camera
    return cameras


def read_camera(row: Row) -> OwnCamera:
    """The camera of a row.

    Raises:
        ValueError: Naming file, line and column.
    """
    name = row.text("camera")
    if not name:
        raise row.error("camera", "is empty, expected a name")
    width, height = (row.whole(column, default=0) for column in ("width", "height"))
    if not width or not height:
        raise row.error("width" if not width else "height", "expected a size above 0 px")
    if not row.has_any(INTRINSICS):
        spare = [c for c in COLUMNS[7:] if c != "unit" and not row.is_empty(c)]
        if spare:
            raise row.error("fx", f"is empty, but {spare[0]} is given; expected pixels")
        return OwnCamera(name=name, size_px=(width, height), camera=None, has_place=False)
    fx, fy, cx, cy = (row.needed(column) for column in INTRINSICS)
    for column, value in (("fx", fx), ("fy", fy)):
        if not 0.05 * max(width, height) < value < 200 * max(width, height):
            raise row.error(
                column, f"is {value:g} px for images of {width}×{height} px; expected pixels"
            )
    for column in REFUSED:
        if not row.is_empty(column) and row.number(column) != 0:
            raise row.error(
                column,
                "the store's lens has no such term; undistort the images (cv2.undistort) and write "
                "the new fx, fy, cx, cy with model pinhole",
            )
    radial, tangential, note = _lens(row, (fx, fy), (cx, cy), (width, height))
    rotation = _rotation(row)
    centre = _centre(row, rotation)
    try:
        camera = Camera.from_parameters(
            rotation,
            centre,
            focal_px=[fx, fy],
            principal_point_px=[cx, cy],
            radial=radial,
            tangential=tangential,
        )
    except ValueError as error:
        raise row.error(ROTATION[0], str(error)) from error
    return OwnCamera(
        name=name,
        size_px=(width, height),
        camera=camera,
        has_place=centre is not None,
        note=f"camera {name}: {note}" if note else "",
    )


def _lens(
    row: Row,
    focal_px: tuple[float, float],
    point_px: tuple[float, float],
    size_px: tuple[int, int],
) -> tuple[Sequence[float], Sequence[float], str]:
    """Radial and tangential parameters of the store's formula, and what was done."""
    radial = [0.0 if math.isnan(row.number(c)) else row.number(c) for c in RADIAL]
    tangential = [0.0 if math.isnan(row.number(c)) else row.number(c) for c in TANGENTIAL]
    is_bent = any(radial) or any(tangential)
    if is_bent and row.is_empty("model"):
        raise row.error("model", "is empty, but the lens is distorted; expected opencv or human36m")
    model = row.choice("model", MODELS, default="pinhole")
    if model == "pinhole" and is_bent:
        raise row.error("model", "is pinhole, but k1 to p2 are not all 0")
    if model != "opencv" or not any(tangential):
        return radial, tangential, ""
    fitted, error_px = fit_tangential(radial, tangential, focal_px, point_px, size_px)
    if not error_px <= MAX_LENS_ERROR_PX:
        raise row.error(
            "p1",
            f"the store's lens misses OpenCV's by {error_px:.1f} px with these p1, p2; undistort "
            "the images (cv2.undistort) and write the new fx, fy, cx, cy with model pinhole",
        )
    note = (
        f"OpenCV's p1, p2 = {tangential[0]:g}, {tangential[1]:g} became {fitted[0]:.6g}, "
        f"{fitted[1]:.6g} of the store's formula; the two lenses differ by at most "
        f"{error_px:.2f} px within the image"
    )
    return radial, fitted.tolist(), note


def fit_tangential(
    radial: Sequence[float],
    tangential: Sequence[float],
    focal_px: tuple[float, float],
    point_px: tuple[float, float],
    size_px: tuple[int, int],
) -> tuple[Float[np.ndarray, " 2"], float]:
    """The store's p1, p2 that come nearest to OpenCV's lens over the image.

    OpenCV moves a ray by (2 p1 x y + p2 (r² + 2 x²), p1 (r² + 2 y²) + 2 p2 x y), the store's
    formula by (p1 x y + p2 (r² + x²), p1 (r² + y²) + p2 x y); the fit is linear least squares.

    Returns:
        p1, p2, and the largest distance between both lenses, pixels.

    Source:
        OpenCV's documentation of its calibration module.
    """
    p1, p2 = tangential
    matrix = np.array([[focal_px[0], 0, point_px[0]], [0, focal_px[1], point_px[1]], [0, 0, 1]])
    axes = (np.linspace(0, size - 1, _GRID) for size in size_px)
    pixels = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 1, 2)
    lens = np.array([radial[0], radial[1], p1, p2, radial[2]])
    rays = cv2.undistortPoints(pixels, matrix, lens)[:, 0]
    x, y = rays.T
    square = x * x + y * y
    wanted = np.concatenate(
        [2 * p1 * x * y + p2 * (square + 2 * x * x), p1 * (square + 2 * y * y) + 2 * p2 * x * y]
    )
    columns = np.stack(
        [np.concatenate([x * y, square + y * y]), np.concatenate([square + x * x, x * y])], axis=1
    )
    scale = np.repeat(focal_px, len(x))
    fitted = np.linalg.lstsq(columns * scale[:, None], wanted * scale, rcond=None)[0]
    errors_px = ((columns @ fitted - wanted) * scale).reshape(2, -1)
    return fitted, float(np.hypot(*errors_px).max())


def _rotation(row: Row) -> np.ndarray | None:
    """Camera from world; None where it is not given."""
    has_matrix, has_vector = row.has_any(ROTATION), row.has_any(ROTATION_VECTOR)
    if has_matrix and has_vector:
        raise row.error("rvec_x", "is given besides r11 to r33; give one of them")
    if has_matrix:
        return np.array([row.needed(column) for column in ROTATION]).reshape(3, 3)
    if has_vector:
        return cv2.Rodrigues(np.array([row.needed(column) for column in ROTATION_VECTOR]))[0]
    return None


def _centre(row: Row, rotation: np.ndarray | None) -> np.ndarray | None:
    """Optical centre in the world, millimetres; None where it is not given."""
    has_translation, has_centre = row.has_any(TRANSLATION), row.has_any(CENTRE)
    if has_translation and has_centre:
        raise row.error("t_x", "is given besides centre_x to centre_z; give one of them")
    if not (has_translation or has_centre):
        if rotation is not None:
            raise row.error("t_x", "is empty, but a rotation is given; give t or centre as well")
        return None
    if rotation is None:
        raise row.error("r11", "is empty, but t or centre is given; give r11 to r33 or rvec")
    columns = TRANSLATION if has_translation else CENTRE
    given_mm = np.array([row.needed(column) for column in columns])
    given_mm *= MM_PER_UNIT[row.choice("unit", tuple(MM_PER_UNIT))]
    return -rotation.T @ given_mm if has_translation else given_mm
