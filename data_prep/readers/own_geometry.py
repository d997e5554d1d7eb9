"""Labels of people's own data in the camera's frame, and checks of what units and axes mean."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from data_prep.people import NOMINAL_DEPTH_MM, NOMINAL_FOCAL_PX
from data_prep.readers.own_cameras import OwnCamera
from data_prep.readers.own_people import OwnPerson
from pose3d.geometry.camera import Camera

MIN_SHARE_IN_VIEW = 0.5
MIN_PERSON_MM, MAX_PERSON_MM = 100.0, 10000.0
_MIN_JOINTS = 4


def camera_of(
    people: Sequence[OwnPerson], own: OwnCamera | None
) -> tuple[Camera, Int[np.ndarray, "n 2"]]:
    """The camera of people who share one, and the sizes of their images, pixels.

    Where no lens is known it is a nominal one for each: 1500 px, its axis through the middle.
    """
    sizes = np.array([person.size_px for person in people]).reshape(-1, 2)
    if own is not None:
        sizes = np.where(sizes > 0, sizes, own.size_px)
        if own.camera is not None:
            return own.camera, sizes
    focal_px = np.full(sizes.shape, NOMINAL_FOCAL_PX)
    return Camera.from_parameters(focal_px=focal_px, principal_point_px=(sizes - 1) / 2), sizes


def to_camera(
    people: Sequence[OwnPerson], camera: Camera
) -> tuple[Float[np.ndarray, "n 18 3"], Bool[np.ndarray, "n 18"]]:
    """Joints in the camera's frame, millimetres, NaN without a label; and which have a depth.

    A joint without depth lies where the others are on average, or at 5000 mm. A depth that is not
    positive gives a joint that is not in front of the camera, for the caller to refuse.
    """
    joints = np.array([person.values for person in people]).reshape(-1, 18, 3)
    has_depth = np.isfinite(joints[..., 2])
    space = np.array([person.space for person in people])
    if (rows := np.flatnonzero(space == "world")).size:
        joints[rows] = _of(camera, rows).world_to_camera(torch.from_numpy(joints[rows])).numpy()
    in_image = np.flatnonzero(np.char.startswith(space, "image"))
    for row in in_image.tolist():
        depth_mm = joints[row, :, 2]
        if space[row] == "image+relative-depth":
            root_mm = people[row].root_depth_mm
            depth_mm = depth_mm + (NOMINAL_DEPTH_MM if np.isnan(root_mm) else root_mm)
        usual_mm = depth_mm[has_depth[row]].mean() if has_depth[row].any() else NOMINAL_DEPTH_MM
        joints[row, :, 2] = np.where(has_depth[row], depth_mm, usual_mm)
    labelled = np.isfinite(joints[..., 0])
    if in_image.size:
        pixels = np.where(labelled[in_image, :, None], joints[in_image, :, :2], 0)
        rays = _of(camera, in_image).image_to_rays(torch.from_numpy(pixels)).numpy()
        joints[in_image, :, :2] = rays * joints[in_image, :, 2:]
    joints[~labelled] = np.nan
    return joints, has_depth & labelled


def _of(camera: Camera, rows: np.ndarray) -> Camera:
    """The cameras of these rows."""
    return camera[torch.from_numpy(rows)] if camera.batch_shape else camera


def check_units(people: Sequence[OwnPerson]) -> None:
    """Refuse lengths whose unit cannot be the one that is stated.

    Raises:
        ValueError: If people, or their distances, are far too small or too large.
    """
    sizes_mm, depths_mm = [], []
    for person in people:
        labelled = person.values[np.isfinite(person.values).all(1)]
        if person.space in ("world", "camera") and len(labelled) >= _MIN_JOINTS:
            sizes_mm.append(np.ptp(labelled, axis=0).max())
        if person.space == "image+depth" and len(labelled):
            depths_mm.append(labelled[:, 2].mean())
    for values, name in ((sizes_mm, "people are {} mm large"), (depths_mm, "people are {} mm off")):
        if values and not MIN_PERSON_MM <= np.median(np.abs(values)) <= 10 * MAX_PERSON_MM:
            median_mm = float(np.median(values))
            raise ValueError(
                f"{people[0].file}, column unit: {name.format(f'{median_mm:.4g}')} with the "
                "unit that is stated; say m if lengths are metres, mm if they are millimetres"
            )


def check_view(people: Sequence[OwnPerson], cameras: Mapping[str, OwnCamera]) -> None:
    """Refuse labels that lie behind the cameras or outside the images, and say what would not.

    Raises:
        ValueError: If most people of a space are not in view.
    """
    for space in {person.space: None for person in people}:
        group = [person for person in people if person.space == space]
        shown = _share_in_view(group, cameras)
        if shown >= MIN_SHARE_IN_VIEW:
            continue
        hint = _hint(group, cameras, space)
        raise ValueError(
            f"{people[0].file}: of {len(group)} people in space {space} only {shown:.0%} lie "
            f"before their camera and in its image{hint}"
        )


def _hint(group: Sequence[OwnPerson], cameras: Mapping[str, OwnCamera], space: str) -> str:
    """What would put people into their images."""
    if space.startswith("image"):
        largest = np.nanmax([np.nanmax(np.abs(person.values[:, :2])) for person in group])
        return "; x and y must be pixels, not shares of the image" if largest <= 2 else ""
    if space == "world":
        for reading in _READINGS:
            if _share_in_view(group, cameras, reading=reading) >= MIN_SHARE_IN_VIEW:
                return f"; they would with {reading}"
    for reading, signs in _AXES.items():
        if _share_in_view(group, cameras, signs=signs) >= MIN_SHARE_IN_VIEW:
            return f"; they would with {reading} (x right, y down, z forward)"
    return "; check units, axes and which camera belongs to which image"


def _share_in_view(
    group: Sequence[OwnPerson],
    cameras: Mapping[str, OwnCamera],
    *,
    reading: str = "",
    signs: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> float:
    """Share of people of one space in view (pinhole), if need be with cameras read otherwise.

    Args:
        group: The people.
        cameras: By name.
        reading: One of `_READINGS`, or none.
        signs: Put to the axes of the camera's frame.
    """
    in_view = 0
    for name in {person.camera: None for person in group}:
        members = [person for person in group if person.camera == name]
        camera, sizes = camera_of(members, cameras.get(name))
        values = np.array([person.values for person in members])
        labelled = np.isfinite(values[..., 0])
        if not members[0].space.startswith("image"):
            if members[0].space == "world":
                rotation, centre_mm = _place(camera, reading)
                values = (values - centre_mm) @ rotation.T
            values = values * np.array(signs)
            rays = values[..., :2] / np.where(values[..., 2:] > 0, values[..., 2:], np.nan)
            values = rays * camera.focal_px.numpy() + camera.principal_point_px.numpy()
        inside = ((values[..., :2] >= 0) & (values[..., :2] < sizes[:, None])).all(-1) & labelled
        in_view += int((inside.sum(1) >= 0.5 * labelled.sum(1)).sum())
    return in_view / len(group)


_READINGS = (
    "t read as the camera's centre (call its columns centre_x, centre_y, centre_z)",
    "the centre read as t (call its columns t_x, t_y, t_z)",
    "R transposed (R must turn world axes into camera axes)",
    "R transposed (R and t must go from world to camera)",
    "the inverse of R and t (they must go from world to camera)",
    "the cameras' places in metres (column unit of the cameras)",
    "the cameras' places in millimetres (column unit of the cameras)",
)
_AXES = {
    "the camera's y and z turned round": (1.0, -1.0, -1.0),
    "the camera's z turned round": (1.0, 1.0, -1.0),
    "the camera's y turned round": (1.0, -1.0, 1.0),
}


def _place(camera: Camera, reading: str) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and centre, millimetres, of a camera that is read in another way."""
    turn, centre = camera.rotation.numpy(), camera.centre_world_mm.numpy()
    if not reading:
        return turn, centre
    places = (
        (turn, -turn @ centre),
        (turn, -turn.T @ centre),
        (turn.T, centre),
        (turn.T, turn @ turn @ centre),
        (turn.T, -turn @ centre),
        (turn, 1000 * centre),
        (turn, centre / 1000),
    )
    return places[_READINGS.index(reading)]
