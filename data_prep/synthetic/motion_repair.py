"""Push hands and forearms out of the body where a motion runs them into it."""

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from data_prep.synthetic.body import Body, PosedSkeletons
from data_prep.synthetic.limits import ELBOW_LIMIT_RAD, overlaps
from data_prep.synthetic.rotations import reach, rotation_x, transposed

NUM_ROUNDS = 5
TOLERATED_MM = 4.0
SPREAD_FRAMES = 5.0


def part_limbs(
    body: Body,
    local: dict[str, Float[np.ndarray, "frames 3 3"]],
    root_mm: Float[np.ndarray, "frames 3"],
) -> None:
    """Move wrists out of trunk, head, legs and the other arm, smoothly in time; in place."""
    for _ in range(NUM_ROUNDS):
        skeleton = body.pose_frames(local, root_mm)
        pushes = _pushes(body, skeleton)
        if not any(np.any(push) for push in pushes.values()):
            return
        for side, push in pushes.items():
            wrist = body.point_mm(skeleton, f"{side}_hand") + _spread(push)
            move_wrist(body, local, skeleton, side, wrist)


def _pushes(body: Body, skeleton: PosedSkeletons) -> dict[str, Float[np.ndarray, "frames 3"]]:
    """The way out of the deepest overlap, for each wrist."""
    found = overlaps(body, skeleton)
    depth = np.maximum(0.0, found.depth_mm - TOLERATED_MM)
    pushes = {}
    for side in ("l", "r"):
        signs = np.array([_sign(side, pair) for pair in found.pairs])
        deepest = np.argmax(depth * np.abs(signs), axis=1)
        rows = np.arange(len(depth))
        way = depth[rows, deepest] * signs[deepest]
        pushes[side] = way[:, None] * found.apart[rows, deepest]
    return pushes


def _sign(side: str, pair: tuple[str, str]) -> float:
    """How much of a pair's overlap an arm gives way, with the sign of its place in the pair."""
    arm = (f"{side}_forearm", f"{side}_hand", f"{side}_upperarm")
    other = {"l": "r", "r": "l"}[side]
    share = 0.6 if all(limb.endswith(("arm", "hand")) for limb in pair) else 1.0
    if pair[0] in arm and not pair[1].startswith(f"{other}_upper"):
        return share
    return -share if pair[1] in arm else share * float(pair[0] in arm)


def _spread(push_mm: Float[np.ndarray, "frames 3"]) -> Float[np.ndarray, "frames 3"]:
    """The same push over neighbouring frames, so that it comes and goes smoothly."""
    smoothed = gaussian_filter1d(push_mm, SPREAD_FRAMES, axis=0, mode="nearest")
    size = np.sqrt((push_mm**2).sum(axis=1))
    after = np.sqrt((smoothed**2).sum(axis=1))
    half = int(2 * SPREAD_FRAMES)
    wanted = maximum_filter1d(size, 2 * half + 1, mode="nearest")
    reached = maximum_filter1d(after, 2 * half + 1, mode="nearest")
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
    before = skeleton.rotations[:, body.index[f"{side}_upperarm"]]
    upper, bend = reach(
        wrist_mm - body.point_mm(skeleton, f"{side}_upperarm"),
        body.length_mm(f"{side}_forearm"),
        body.length_mm(f"{side}_hand"),
        pole=before[:, :, 1],  # an elbow bends forward, so it points backward
        bend_sign=-1.0,
        limit_rad=ELBOW_LIMIT_RAD,
    )
    local[f"{side}_upperarm"] = transposed(girdle) @ upper
    local[f"{side}_forearm"] = rotation_x(-bend)
