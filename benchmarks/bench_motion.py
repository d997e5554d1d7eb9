"""The motion model measured: limits, limbs inside one another, feet, floor, speeds, time.

Every action and take is drawn for several subjects. Shares are of frames. `too_deep` are frames in
which a limb is more than 25 mm inside another part of the body; `over_limit` those in which a
joint is more than 1 degree beyond its limit; `under_floor` those in which skin is more than 10 mm
below the floor. A foot is planted where ankle and toes are within 2 mm of their height on the
floor; its drift is in millimetres per frame. Seconds are CPU time per motion.

    python benchmarks/bench_motion.py --out benchmarks/results/motion.json
"""

import argparse
import itertools
import math
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from provenance import provenance, write_result

from data_prep.synthetic.body import Body, PosedSkeletons, load_body_model
from data_prep.synthetic.limits import intersection_mm, limit_excess
from data_prep.synthetic.motion import Motion
from data_prep.synthetic.motion_actions import ACTIONS
from data_prep.synthetic.motion_model import draw_motion
from data_prep.synthetic.subjects import PHENOTYPES

SKIN_EVERY = 10


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=1500)
    parser.add_argument("--subjects", type=int, nargs="+", default=[1, 6, 9])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = provenance(
        subjects=options.subjects,
        motions=len(options.subjects) * 2 * len(ACTIONS),
        frames_per_motion=options.frames,
    )
    model = load_body_model()
    found: defaultdict[str, list[dict]] = defaultdict(list)
    for subject in options.subjects:
        body = Body(model, **PHENOTYPES[subject])
        for action, take in itertools.product(ACTIONS, (1, 2)):
            rng = np.random.default_rng((0, subject, take, list(ACTIONS).index(action)))
            start = time.process_time()
            motion = draw_motion(body, action, take, rng=rng, num_frames=options.frames)
            seconds = np.array([time.process_time() - start])
            found[action].append(judge(body, motion) | {"s": seconds})
    result["all"] = summary([one for many in found.values() for one in many])
    result["by_action"] = {action: summary(many) for action, many in found.items()}
    write_result(result, options.out)


def judge(body: Body, motion: Motion) -> dict[str, np.ndarray]:
    """What is wrong with a motion, frame by frame."""
    frames = body.pose_frames(motion.local, motion.root_mm)
    joints = body.joints_mm(frames)
    inside = intersection_mm(body, frames)
    every = slice(None, None, SKIN_EVERY)
    some = PosedSkeletons(rotations=frames.rotations[every], heads_mm=frames.heads_mm[every])
    per_s = motion.frames_per_s
    pelvis = motion.local["pelvis"]
    return {
        "inside": inside,
        "excess": np.degrees(limit_excess(motion.local)),
        "lowest": body.skin(some)[..., 2].min(axis=1),
        "drift": np.concatenate([drift_mm(body, frames, side) for side in ("l", "r")]),
        "speed": np.linalg.norm(np.diff(joints, axis=0), axis=-1) * per_s / 1e3,
        "acceleration": np.linalg.norm(np.diff(joints, 2, axis=0), axis=-1) * per_s**2 / 1e3,
        "heading": np.arctan2(pelvis[:, 1, 0], pelvis[:, 0, 0]),
    }


def drift_mm(body: Body, frames: PosedSkeletons, side: str) -> np.ndarray:
    """How far a planted foot goes between frames."""
    ankle, toe = (body.point_mm(frames, f"{side}_{end}") for end in ("foot", "toe"))
    sole = ankle[:, 2] - body.ankle_height_mm
    tip = toe[:, 2] - body.ankle_height_mm - body.landmarks_mm["l_toe"][2]
    flat = (np.abs(sole) < 2.0) & (np.abs(tip) < 2.0)
    return np.linalg.norm(np.diff(ankle[:, :2], axis=0), axis=1)[flat[1:] & flat[:-1]]


def summary(found: list[dict]) -> dict:
    """Shares, extremes and seconds of some motions."""
    flat = {key: np.concatenate([np.ravel(one[key]) for one in found]) for key in found[0]}
    octants = np.bincount(np.round(flat["heading"] / (math.pi / 4)).astype(int) % 8, minlength=8)

    def share(flags: np.ndarray) -> float:
        return round(float(flags.mean()), 5)

    def quantile(key: str, part: float) -> float:
        return round(float(np.quantile(flat[key], part)), 3)

    return {
        "too_deep": share(flat["inside"] > 25.0),
        "inside_mm_max": quantile("inside", 1.0),
        "over_limit": share(flat["excess"] > 1.0),
        "excess_deg_max": quantile("excess", 1.0),
        "under_floor": share(flat["lowest"] < -10.0),
        "lowest_mm": quantile("lowest", 0.0),
        "drift_mm_median": quantile("drift", 0.5),
        "drift_mm_p99": quantile("drift", 0.99),
        "drift_mm_max": quantile("drift", 1.0),
        "speed_m_per_s_p99": quantile("speed", 0.99),
        "speed_m_per_s_max": quantile("speed", 1.0),
        "acceleration_m_per_s2_p99": quantile("acceleration", 0.99),
        "acceleration_m_per_s2_max": quantile("acceleration", 1.0),
        "headings_by_octant": [round(float(part), 3) for part in octants / octants.sum()],
        "s_mean": round(float(flat["s"].mean()), 3),
        "s_max": round(float(flat["s"].max()), 3),
    }


if __name__ == "__main__":
    main()
