"""Push hands and forearms out of body and floor where a motion runs them into it."""

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from data_prep.synthetic.body import Body, PosedSkeletons
from data_prep.synthetic.limits import ELBOW_LIMIT_RAD, overlaps
from data_prep.synthetic.rotations import apply, dot, reach, rotation_x, transposed

NUM_ROUNDS = 9
TOLERATED_MM = 4.0
LONGEST_PUSH_MM = 45.0
SPREAD_FRAMES = 5.0
HAND_OVER_FLOOR_MM = 3.0


def part_limbs(
    body: Body,
    local: dict[str, Float[np.ndarray, "frames 3 3"]],
    root_mm: Float[np.ndarray, "frames 3"],
) -> None:
    """Move wrists out of trunk, head, legs, the other arm and the floor, smoothly; in place."""
    for i in range(NUM_ROUNDS):
        skeleton = body.pose_frames(local, root_mm)
        # The floor has the last word: nothing may be seen under it.
        pushes = _out_of_body(body, skeleton) if i < NUM_ROUNDS - 3 else {}
        for side in ("l", "r"):
            pushes[side] = pushes.get(side, 0.0) + _off_floor(body, skeleton, side)
        if not any(np.any(push) for push in pushes.values()):
            return
        for side, push in pushes.items():
            wrist = body.point_mm(skeleton, f"{side}_hand") + _spread(push)
            move_wrist(body, local, skeleton, side, wrist)


def _off_floor(body: Body, skeleton: PosedSkeletons, side: str) -> Float[np.ndarray, "frames 3"]:
    """The way up for a wrist whose hand is in the floor."""
    depth = HAND_OVER_FLOOR_MM - body.hand_height_mm(skeleton, side)
    return np.clip(depth, 0.0, LONGEST_PUSH_MM)[:, None] * [0.0, 0.0, 1.0]


def _out_of_body(body: Body, skeleton: PosedSkeletons) -> dict[str, Float[np.ndarray, "frames 3"]]:
    """The way out of the deepest overlap, for each wrist."""
    found = overlaps(body, skeleton)
    depth = np.clip(found.depth_mm - TOLERATED_MM, 0.0, LONGEST_PUSH_MM)
    rows = np.arange(len(depth))
    pushes = {}
    for side in ("l", "r"):
        signs = np.array([_sign(side, pair) for pair in found.pairs])
        deepest = np.argmax(depth * np.abs(signs), axis=1)
        way = depth[rows, deepest] * signs[deepest]
        pushes[side] = way[:, None] * found.apart[rows, deepest]
    return pushes


def _sign(side: str, pair: tuple[str, str]) -> float:
    """How much of a pair's overlap an arm gives way, with the sign of its place in the pair."""
    arm = (f"{side}_forearm", f"{side}_hand", f"{side}_upperarm")
    share = 0.6 if all(limb.endswith(("arm", "hand")) for limb in pair) else 1.0
    return share * (float(pair[0] in arm) - float(pair[1] in arm))


def _spread(push_mm: Float[np.ndarray, "frames 3"]) -> Float[np.ndarray, "frames 3"]:
    """The same push over neighbouring frames, so that it comes and goes smoothly."""
    smoothed = gaussian_filter1d(push_mm, SPREAD_FRAMES, axis=0, mode="nearest")
    half = int(2 * SPREAD_FRAMES)
    wanted, reached = (
        maximum_filter1d(np.sqrt(dot(push, push)), 2 * half + 1, mode="nearest")
        for push in (push_mm, smoothed)
    )
    gain = np.clip(wanted / np.maximum(reached, 1e-6), 1.0, 4.0)
    return smoothed * gaussian_filter1d(gain, SPREAD_FRAMES, mode="nearest")[:, None]


def move_wrist(
    body: Body,
    local: dict[str, Float[np.ndarray, "frames 3 3"]],
    skeleton: PosedSkeletons,
    side: str,
    wrist_mm: Float[np.ndarray, "frames 3"],
) -> None:
    """Bring a wrist to a place with the elbow on the side where it is; in place."""
    girdle = skeleton.rotations[:, body.index[f"{side}_clavicle"]]
    upper = skeleton.rotations[:, body.index[f"{side}_upperarm"]]
    upper_mm, lower_mm = body.length_mm(f"{side}_forearm"), body.length_mm(f"{side}_hand")
    middle = np.array([0.0, 0.0, -upper_mm])
    end = middle + local[f"{side}_forearm"] @ [0.0, 0.0, -lower_mm]
    # An elbow bends forward: nearly straight, it still points backward.
    out = middle - end * (dot(end, middle) / dot(end, end))[:, None] + [0.0, 2.0, 0.0]
    turned, bend = reach(
        wrist_mm - body.point_mm(skeleton, f"{side}_upperarm"),
        upper_mm,
        lower_mm,
        pole=apply(upper, out),
        bend_sign=-1.0,
        limit_rad=ELBOW_LIMIT_RAD,
    )
    local[f"{side}_upperarm"] = transposed(girdle) @ turned
    local[f"{side}_forearm"] = rotation_x(-bend)
