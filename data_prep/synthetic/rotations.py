"""Rotations, two-bone reach and distances between limbs (NumPy, float64), for one pose or many.

Axes of a neutral standing body: x to its left, y backward, z up; limbs hang along -z.
Rotation about x by a positive angle bends the trunk forward, flexes a knee and extends a hip.
Every function takes leading axes, such as frames, and broadcasts over them.
"""

import numpy as np
from jaxtyping import Float

Angle = float | Float[np.ndarray, "*batch"]
Vector = Float[np.ndarray, "*batch 3"]
Matrix = Float[np.ndarray, "*batch 3 3"]


def rotation_x(angle_rad: Angle) -> Matrix:
    """Rotation about x."""
    return _about(0, angle_rad)


def rotation_y(angle_rad: Angle) -> Matrix:
    """Rotation about y."""
    return _about(1, angle_rad)


def rotation_z(angle_rad: Angle) -> Matrix:
    """Rotation about z."""
    return _about(2, angle_rad)


def _about(axis: int, angle_rad: Angle) -> Matrix:
    angle = np.asarray(angle_rad, dtype=np.float64)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.zeros((*angle.shape, 3, 3))
    rotation[..., axis, axis] = 1.0
    rotation[..., i, i] = rotation[..., j, j] = np.cos(angle)
    rotation[..., j, i] = np.sin(angle)
    rotation[..., i, j] = -rotation[..., j, i]
    return rotation


def transposed(rotation: Matrix) -> Matrix:
    """The inverse of a rotation."""
    return np.swapaxes(rotation, -1, -2)


def apply(rotation: Matrix, vector: Vector) -> Vector:
    """Turn a vector."""
    return (rotation @ np.asarray(vector)[..., None])[..., 0]


def dot(a: Vector, b: Vector) -> Float[np.ndarray, "*batch"]:
    """Inner product over the last axis."""
    return (np.asarray(a) * b).sum(axis=-1)


def unit(vector: Vector) -> Vector:
    """The vector at length 1; zero stays zero."""
    length = np.sqrt(dot(vector, vector))[..., None]
    return vector / np.where(length > 0, length, 1.0)


def shortest_rotation(start: Vector, end: Vector) -> Matrix:
    """The smallest rotation that turns direction `start` into direction `end`."""
    a, b = np.broadcast_arrays(unit(np.asarray(start)), unit(np.asarray(end)))
    cosine = dot(a, b)[..., None, None]
    cross = np.zeros((*a.shape, 3))
    x, y, z = np.moveaxis(np.cross(a, b), -1, 0)
    cross[..., 2, 1], cross[..., 0, 2], cross[..., 1, 0] = x, y, z
    cross -= transposed(cross)
    is_opposite = cosine < -0.999999
    turn = np.eye(3) + cross + cross @ cross / np.where(is_opposite, 1.0, 1.0 + cosine)
    if not is_opposite.any():
        return turn
    # Half a turn about any perpendicular axis.
    helper = np.where(np.abs(a[..., :1]) < 0.9, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    axis = unit(np.cross(a, helper))
    return np.where(is_opposite, 2.0 * axis[..., :, None] * axis[..., None, :] - np.eye(3), turn)


def limited_turn(start: Vector, end: Vector, *, limit_rad: float) -> Matrix:
    """Turn direction `start` towards direction `end`, by no more than a limit."""
    a, b = unit(np.asarray(start)), unit(np.asarray(end))
    cosine = dot(a, b)[..., None]
    across = unit(b - a * cosine)
    nearest = np.cos(limit_rad) * a + np.sin(limit_rad) * across
    return shortest_rotation(a, np.where(cosine >= np.cos(limit_rad), b, nearest))


def twist_angle(rotation: Matrix) -> Float[np.ndarray, "*batch"]:
    """Angle of the turn about z that precedes the swing, radians: rotation = swing @ twist."""
    # The quaternion's (w, z) up to a common factor.
    w = 1.0 + np.trace(rotation, axis1=-2, axis2=-1)
    z = rotation[..., 1, 0] - rotation[..., 0, 1]
    return np.where(w > 1e-9, 2.0 * np.arctan2(z, w), np.pi)


def frame_of(direction: Vector, side: Vector) -> Matrix:
    """Orthonormal columns: direction, the part of `side` across it, and their cross product."""
    first = unit(direction)
    second = unit(side - first * dot(first, side)[..., None])
    first, second = np.broadcast_arrays(first, second)
    return np.stack([first, second, np.cross(first, second)], axis=-1)


def reach(
    target: Vector,
    upper_mm: float,
    lower_mm: float,
    *,
    pole: Vector,
    bend_sign: float,
    limit_rad: float,
) -> tuple[Matrix, Float[np.ndarray, "*batch"]]:
    """Turn a two-bone limb so that its end comes to the target, or as near as it reaches.

    Args:
        target: From the limb's root to the wanted end, millimetres.
        upper_mm: Length of the first bone, along -z when neutral.
        lower_mm: Length of the second bone.
        pole: Direction to which elbow or knee points.
        bend_sign: -1 where the second bone bends forward (elbow), +1 backward (knee).
        limit_rad: Largest bend.

    Returns:
        Rotation of the first bone and the bend, radians >= 0; the second bone's rotation in the
        first's frame is `rotation_x(bend_sign * bend)`.
    """
    folded = np.sqrt(upper_mm**2 + lower_mm**2 + 2 * upper_mm * lower_mm * np.cos(limit_rad))
    distance = np.clip(np.sqrt(dot(target, target)), folded, 0.9995 * (upper_mm + lower_mm))
    cosine = (distance**2 - upper_mm**2 - lower_mm**2) / (2 * upper_mm * lower_mm)
    bend = np.arccos(np.clip(cosine, -1.0, 1.0))
    middle = np.array([0.0, 0.0, -upper_mm])
    end = middle + apply(rotation_x(bend_sign * bend), np.array([0.0, 0.0, -lower_mm]))
    # The least bend is that of 0.9995 of the full length: the middle is always off the line.
    out = middle - end * (dot(end, middle) / dot(end, end))[..., None]
    return frame_of(target, pole) @ transposed(frame_of(end, out)), bend


def segment_gaps(
    start_a: Float[np.ndarray, "*n 3"],
    end_a: Float[np.ndarray, "*n 3"],
    start_b: Float[np.ndarray, "*n 3"],
    end_b: Float[np.ndarray, "*n 3"],
) -> Float[np.ndarray, "*n 3"]:
    """Shortest way from the second line segment to the first, pair by pair.

    Source: Ericson (2005), Real-Time Collision Detection, section 5.1.9.
    """
    u, v, r = end_a - start_a, end_b - start_b, start_a - start_b
    a, e, f = dot(u, u), dot(v, v), dot(v, r)
    b, c = dot(u, v), dot(u, r)
    denominator = a * e - b * b
    parallel = denominator < 1e-9 * a * e
    s = np.where(parallel, 0.0, (b * f - c * e) / np.where(parallel, 1.0, denominator))
    s = np.clip(s, 0.0, 1.0)
    t = np.clip((b * s + f) / e, 0.0, 1.0)
    s = np.clip((b * t - c) / a, 0.0, 1.0)
    return r + u * s[..., None] - v * t[..., None]
