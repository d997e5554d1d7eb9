"""Motion capture on synthetic bodies: joint errors, what feet do, and seconds it takes.

Errors are of `Retargeted.error_mm` (against the recording with the body's bone lengths) and
`raw_error_mm` (against the recording's own). Sliding is of ankles that stand where a flat foot's
ankle does; the sole's depth is that of the lowest point of the skin, in every tenth frame.

    python benchmarks/bench_retarget.py MOCAP.npz --out benchmarks/results/retarget.json
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from provenance import provenance, write_result

from data_prep.synthetic.body import Body, load_body_model
from data_prep.synthetic.limits import intersection_mm
from data_prep.synthetic.mocap import load_clips
from data_prep.synthetic.retarget import retarget
from data_prep.synthetic.retarget_area import AREA_HALF_MM, cut_to_area
from data_prep.synthetic.retarget_report import retargeting_report

BODIES = {
    "woman_166_cm": {"gender": 0.95, "muscle": 0.45, "weight": 0.35, "height": 0.4},
    "man_189_cm": {"gender": 0.1, "muscle": 0.6, "weight": 0.6, "height": 0.5},
}
FLAT_MM = 12.0
STILL_MM_PER_FRAME = 1.0


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("poses", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    start = time.process_time()
    clips = load_clips(options.poses)
    result = provenance() | {"load_cpu_s": round(time.process_time() - start, 2)}
    usable = cut_to_area(clips.usable())
    result["clips"] = {
        "all": {"clips": len(clips), "frames": clips.num_frames},
        "usable": {"clips": len(clips.usable()), "frames": clips.usable().num_frames},
        "usable_pieces": len(usable),
    }
    model = load_body_model()
    for name, phenotypes in BODIES.items():
        body = Body(model, **phenotypes)
        leg_mm = body.length_mm("l_shank") + body.length_mm("l_foot")
        result[name] = {
            "body": phenotypes | {"leg_mm": round(leg_mm)},
            "usable": measure(usable, body),
            "all": measure(cut_to_area(clips), body),
        }
    write_result(result, options.out)


def measure(clips, body) -> dict:
    """All clips on one body."""
    start = time.process_time()
    retargeted = [retarget(clip, body) for clip in clips]
    seconds = time.process_time() - start
    report = retargeting_report(retargeted)
    print(report.text(), file=sys.stderr)
    steps, depths, inside, speeds, outside = [], [], [], [], 0
    for clip in retargeted:
        motion = clip.motion
        outside += bool((np.abs(motion.root_mm[:, :2]) > AREA_HALF_MM + 50.0).any())
        skeleton = body.pose_frames(motion.local, motion.root_mm)
        joints = body.joints_mm(skeleton)
        speeds.append(np.linalg.norm(np.diff(joints, axis=0), axis=-1).max() * 50.0 / 1e3)
        for side in ("l", "r"):
            ankle = body.point_mm(skeleton, f"{side}_foot")
            move = np.diff(ankle, axis=0)
            stands = ankle[1:, 2] < body.ankle_height_mm + FLAT_MM
            stands &= np.abs(move[:, 2]) < STILL_MM_PER_FRAME
            steps.append(np.linalg.norm(move[stands, :2], axis=1))
        some = {name: turns[::10] for name, turns in motion.local.items()}
        posed = body.pose_frames(some, motion.root_mm[::10])
        depths.append(-body.skin(posed)[..., 2].min(axis=1))
        inside.append(intersection_mm(body, posed))
    step, depth, deep = (np.concatenate(parts) for parts in (steps, depths, inside))
    return report.to_json() | {
        "cpu_s": round(seconds, 2),
        "frames_per_cpu_s": round(report.num_frames / seconds),
        "pieces_that_leave_the_area": outside,
        "seats": sum(clip.motion.seat is not None for clip in retargeted),
        "sliding_mm_per_frame": {
            "median": round(float(np.median(step)), 2),
            "p95": round(float(np.percentile(step, 95)), 2),
            "share_above_5": round(float((step > 5.0).mean()), 4),
        },
        "sole_depth_mm": {
            "median": round(float(np.median(depth)), 1),
            "p99": round(float(np.percentile(depth, 99)), 1),
            "largest": round(float(depth.max()), 1),
        },
        "share_of_frames_with_limbs_inside_by_25_mm": round(float((deep > 25.0).mean()), 4),
        "fastest_joint_m_per_s": {
            "median_clip": round(float(np.median(speeds)), 1),
            "fastest_clip": round(float(np.max(speeds)), 1),
        },
    }


if __name__ == "__main__":
    main()
