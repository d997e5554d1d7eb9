"""How well motion capture fits a body: errors after retargeting, in numbers to print and keep."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from data_prep.synthetic.retarget import Retargeted
from pose3d.geometry.skeleton import HUMAN36M_17


@dataclass(frozen=True, kw_only=True, eq=False)
class RetargetingReport:
    """Errors over all frames of some clips, millimetres, by joint of `HUMAN36M_17`."""

    num_clips: int
    num_frames: int
    mean_mm: Float[np.ndarray, "17"]
    percentile95_mm: Float[np.ndarray, "17"]
    raw_mean_mm: Float[np.ndarray, "17"]
    overall_percentile95_mm: float
    beyond_limits_share: float
    """Share of the frames in which the recording exceeds a joint limit by 0.1 rad in sum."""
    worst_clip: str
    """Source of the clip with the largest mean error."""
    worst_clip_mm: float

    def to_json(self) -> dict:
        """Everything, rounded, with the joints' names."""
        joints = {
            name: {
                "mean_mm": round(float(self.mean_mm[joint]), 2),
                "p95_mm": round(float(self.percentile95_mm[joint]), 2),
                "raw_mean_mm": round(float(self.raw_mean_mm[joint]), 2),
            }
            for joint, name in enumerate(HUMAN36M_17.joint_names)
        }
        return {
            "clips": self.num_clips,
            "frames": self.num_frames,
            "mean_mm": round(float(self.mean_mm.mean()), 2),
            "p95_mm": round(self.overall_percentile95_mm, 2),
            "raw_mean_mm": round(float(self.raw_mean_mm.mean()), 2),
            "beyond_limits_share": round(self.beyond_limits_share, 4),
            "worst_clip": {"source": self.worst_clip, "mean_mm": round(self.worst_clip_mm, 2)},
            "joints": joints,
        }

    def text(self) -> str:
        """A table for people."""
        lines = [
            f"{self.num_clips} clips, {self.num_frames} frames retargeted: joint error "
            f"{self.mean_mm.mean():.1f} mm (95 %: {self.overall_percentile95_mm:.1f} mm) against "
            f"the recording in the body's proportions, {self.raw_mean_mm.mean():.1f} mm against "
            "its own",
            f"{'joint':12}{'mean mm':>9}{'95 % mm':>9}{'raw mm':>9}",
        ]
        rows = zip(
            HUMAN36M_17.joint_names,
            self.mean_mm,
            self.percentile95_mm,
            self.raw_mean_mm,
            strict=True,
        )
        lines += [f"{name:12}{mean:9.1f}{high:9.1f}{raw:9.1f}" for name, mean, high, raw in rows]
        lines.append(
            f"{self.beyond_limits_share:.1%} of the frames exceed joint limits; largest mean error "
            f"{self.worst_clip_mm:.1f} mm in {self.worst_clip}"
        )
        return "\n".join(lines)


def retargeting_report(retargeted: Iterable[Retargeted]) -> RetargetingReport:
    """Gather the errors of clips on bodies.

    `mean_mm` and `percentile95_mm` are of `Retargeted.error_mm`, `raw_mean_mm` of `raw_error_mm`;
    every frame counts the same.

    Raises:
        ValueError: If there are no clips.
    """
    errors, raw, excess, means = [], [], [], {}
    for clip in retargeted:
        errors.append(clip.error_mm.astype(np.float32))
        raw.append(clip.raw_error_mm.astype(np.float32))
        excess.append(clip.limit_excess_rad)
        means[clip.motion.source] = float(clip.error_mm.mean())
    if not errors:
        raise ValueError("no clips were retargeted, there is nothing to report")
    error_mm = np.concatenate(errors)
    worst = max(means, key=lambda source: means[source])
    return RetargetingReport(
        num_clips=len(errors),
        num_frames=len(error_mm),
        mean_mm=error_mm.mean(axis=0),
        percentile95_mm=np.percentile(error_mm, 95.0, axis=0),
        raw_mean_mm=np.concatenate(raw).mean(axis=0),
        overall_percentile95_mm=float(np.percentile(error_mm, 95.0)),
        beyond_limits_share=float((np.concatenate(excess) > 0.1).mean()),
        worst_clip=worst,
        worst_clip_mm=means[worst],
    )
