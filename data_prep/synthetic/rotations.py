"""Rotations, two-bone reach and distances between limbs, for single poses (NumPy, float64).

Axes of a neutral standing body: x to its left, y backward, z up; limbs hang along -z.
Rotation about x by a positive angle bends the trunk forward, flexes a knee and extends a hip.
"""

import math

import numpy as np
from jaxtyping import Float

Vector = Float[np.ndarray, "3"]
Matrix = Float[np.ndarray, "3 3"]


def rotation_x(angle_rad: float) -> Matrix:
    """Rotation about x."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def rotation_y(angle_rad: float) -> Matrix:
    """Rotation about y."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def rotation_z(angle_rad: float) -> Matrix:
    """Rotation about z."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def unit(vector: Vector) -> Vector:
    """The vector at length 1; zero stays zero."""
    length = math.sqrt(float(vector @ vector))
    return vector / length if length > 0 else vector


def shortest_rotation(start: Vector, end: Vector) -> Matrix:
    """The smallest rotation that turns direction `start` into direction `end`."""
    a, b = unit(start), unit(end)
    cosine = float(a @ b)
    if cosine < -0.999999:  # opposite: half a turn about any perpendicular axis
        axis = unit(np.cross(a, [1.0, 0.0, 0.0] if abs(a[0]) < 0.9 else [0.0, 1.0, 0.0]))
        return 2.0 * np.outer(axis, axis) - np.eye(3)
    x, y, z = np.cross(a, b)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + cross + cross @ cross / (1.0 + cosine)


def limited_turn(start: Vector, end: Vector, *, limit_rad: float) -> Matrix:
    """Turn direction `start` towards direction `end`, by no more than a limit."""
    a, b = unit(start), unit(end)
    angle = math.acos(min(1.0, max(-1.0, float(a @ b))))
    if angle <= limit_rad:
        return shortest_rotation(a, b)
    across = unit(b - a * float(a @ b))
    return shortest_rotation(a, math.cos(limit_rad) * a + math.sin(limit_rad) * across)


def twist_angle(rotation: Matrix) -> float:
    """Angle of the turn about z that precedes the swing, radians: rotation = swing @ twist."""
    # The quaternion's (w, z) up to a common factor.
    w = 1.0 + rotation[0, 0] + rotation[1, 1] + rotation[2, 2]
    z = rotation[1, 0] - rotation[0, 1]
    return 2.0 * math.atan2(z, w) if w > 1e-9 else math.pi


def frame_of(direction: Vector, side: Vector) -> Matrix:
    """Orthonormal columns: direction, the part of `side` across it, and their cross product."""
    first = unit(direction)
    second = unit(side - first * float(first @ side))
    return np.stack([first, second, np.cross(first, second)], axis=1)


def reach(
    target: Vector,
    upper_mm: float,
    lower_mm: float,
    *,
    pole: Vector,
    bend_sign: float,
    limit_rad: float,
) -> tuple[Matrix, float]:
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
    folded = upper_mm**2 + lower_mm**2 + 2 * upper_mm * lower_mm * math.cos(limit_rad)
    distance = math.sqrt(float(target @ target))
    distance = min(max(distance, math.sqrt(folded)), 0.9995 * (upper_mm + lower_mm))
    cosine = (distance**2 - upper_mm**2 - lower_mm**2) / (2 * upper_mm * lower_mm)
    bend = math.acos(min(1.0, max(-1.0, cosine)))
    middle = np.array([0.0, 0.0, -upper_mm])
    end = middle + rotation_x(bend_sign * bend) @ np.array([0.0, 0.0, -lower_mm])
    # A straight limb still needs to know its front: its middle joint bends to -bend_sign y.
    out = middle if bend > 1e-3 else np.array([0.0, bend_sign, 0.0])
    if bend > 1e-3:
        out = middle - end * float(middle @ end) / float(end @ end)
    return frame_of(target, pole) @ frame_of(end, out).T, bend


def segment_distances(
    start_a: Float[np.ndarray, "n 3"],
    end_a: Float[np.ndarray, "n 3"],
    start_b: Float[np.ndarray, "n 3"],
    end_b: Float[np.ndarray, "n 3"],
) -> Float[np.ndarray, " n"]:
    """Distance between line segments, pair by pair.

    Source: Ericson (2005), Real-Time Collision Detection, section 5.1.9.
    """
    u, v, r = end_a - start_a, end_b - start_b, start_a - start_b
    a, e, f = (u * u).sum(1), (v * v).sum(1), (v * r).sum(1)
    b, c = (u * v).sum(1), (u * r).sum(1)
    denominator = a * e - b * b
    parallel = denominator < 1e-9 * a * e
    s = np.where(parallel, 0.0, (b * f - c * e) / np.where(parallel, 1.0, denominator))
    s = np.clip(s, 0.0, 1.0)
    t = np.clip((b * s + f) / e, 0.0, 1.0)
    s = np.clip((b * t - c) / a, 0.0, 1.0)
    gap = r + u * s[:, None] - v * t[:, None]
    return np.sqrt((gap * gap).sum(1))
