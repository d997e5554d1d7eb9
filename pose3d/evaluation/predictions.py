"""What a run says about a test set: one file of predictions and the metrics that follow from it.

`Predictions` holds, for every record and evaluation joint, the predicted location and scale in
normalised (u, v, d) and in millimetres, the label, and where the record came from. It is written
as one npz without pickled objects: anything that reads NumPy arrays can read it.
`evaluate_predictions` turns it into a dictionary that JSON can hold.

Which joints count. `weight` is the weight of the *label* as the store has it (0 where there is no
label), not the training weight, which is also 0 for the root's depth and for labels outside the
depth box: those have millimetres and are judged. A joint is left out where its u or v weight is 0,
or its depth weight is 0 and it is not the root (the root's depth is given, never predicted). A
record whose root has no label, or with fewer than three labelled joints, is left out as a whole.
Both are counted in the result. So are records that could not be read and are not among the
predictions; metadata["unreadable_records"] names them.

σ is the standard deviation that the model predicts, axis by axis, propagated to millimetres to
first order: the scale of the likelihood times the standard deviation of its residual density, where
it has one (metadata["sigma"] says so). It is not yet a calibrated probability.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from pose3d.evaluation import tables
from pose3d.evaluation.npz import read_npz, write_npz
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES

FORMAT = "pose3d-predictions"
SCHEMA_VERSION = 1
REQUIRED_METADATA = ("joint_names", "skeleton", "root", "protocol", "root_depth", "flip_test")
"""Metadata that the metrics and the report cannot do without."""
UNITS = {
    "mean_uvd, scale_uvd, target_uvd": "1 (u, v: crop sides; d: depth ranges)",
    "*_mm": "millimetres, camera frame, x right, y down, z forward",
    "*_image_px": "pixels of the full image, x right, y down, centres at integers",
    "frame": "0-based",
}
WORDS_FOR_DEPTH = {"all": "", "some": " (some joints without depth)", "none": " without depth"}
"""What follows the number of a training store's records."""
MINIMUM_LABELLED_JOINTS = 3
HUMAN36M_TEST_SUBJECTS = (9, 11)
HUMAN36M_TRAIN_SUBJECTS = (1, 5, 6, 7, 8)
HUMAN36M_NUM_ACTIONS = 15
SYNTHETIC_SOURCE = "synthetic Human3.6M"
"""How the source of a synthetic look-alike begins."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Predictions and labels of N records over J evaluation joints, as NumPy arrays.

    Attributes:
        mean_uvd: Predicted location, normalised crop coordinates and depth.
        scale_uvd: Predicted σ, same units, > 0 (see the module).
        target_uvd: Label in the same units.
        weight: Weight of the label per axis, 0 where there is no label (see the module).
        predicted_root_relative_mm: Prediction less the predicted root, camera axes.
        target_root_relative_mm: Label less the labelled root, camera axes.
        sigma_mm: σ in millimetres along the camera axes, first order, of the absolute joint.
        predicted_image_px: Prediction in the full image.
        target_image_px: Label in the full image.
        root_depth_mm: Depth of the root that was used for decoding (see metadata["root_depth"]).
        crop_from_image: Map from full-image pixels to crop pixels.
        box_image_px: Centre x, centre y and side of the person's square, full image.
        store_index: Position of the record in its store.
        subject: Subject number.
        action: Action name.
        subaction: Sub-action number.
        camera_name: Camera name.
        frame: 0-based frame number.
        name: Name of the record.
        source_file: File the record was made from.
        metadata: What JSON can hold; `REQUIRED_METADATA` must be there.
    """

    mean_uvd: Float[np.ndarray, "samples joints 3"]
    scale_uvd: Float[np.ndarray, "samples joints 3"]
    target_uvd: Float[np.ndarray, "samples joints 3"]
    weight: Float[np.ndarray, "samples joints 3"]
    predicted_root_relative_mm: Float[np.ndarray, "samples joints 3"]
    target_root_relative_mm: Float[np.ndarray, "samples joints 3"]
    sigma_mm: Float[np.ndarray, "samples joints 3"]
    predicted_image_px: Float[np.ndarray, "samples joints 2"]
    target_image_px: Float[np.ndarray, "samples joints 2"]
    root_depth_mm: Float[np.ndarray, " samples"]
    crop_from_image: Float[np.ndarray, "samples 3 3"]
    box_image_px: Float[np.ndarray, "samples 3"]
    store_index: Int[np.ndarray, " samples"]
    subject: Int[np.ndarray, " samples"]
    action: Shaped[np.ndarray, " samples"]
    subaction: Int[np.ndarray, " samples"]
    camera_name: Shaped[np.ndarray, " samples"]
    frame: Int[np.ndarray, " samples"]
    name: Shaped[np.ndarray, " samples"]
    source_file: Shaped[np.ndarray, " samples"]
    metadata: dict[str, Any]

    def __post_init__(self) -> None:
        missing = [key for key in REQUIRED_METADATA if key not in self.metadata]
        if missing:
            raise ValueError(f"metadata of predictions lacks {', '.join(missing)}")
        samples, joints, _ = self.mean_uvd.shape
        if len(self.joint_names) != joints:
            raise ValueError(
                f"metadata names {len(self.joint_names)} joints, the predictions hold {joints}"
            )
        for field in array_fields():
            rows = len(getattr(self, field))
            if rows != samples:
                raise ValueError(f"predictions.{field} has {rows} rows, mean_uvd has {samples}")

    def __len__(self) -> int:
        """Number of records."""
        return len(self.mean_uvd)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the evaluation joints, in the order of the arrays."""
        return tuple(self.metadata["joint_names"])

    @property
    def root(self) -> int:
        """Position of the root among the evaluation joints."""
        return int(self.metadata["root"])

    @property
    def labelled(self) -> Bool[np.ndarray, "samples joints"]:
        """Joints that are judged: labelled, in a record whose root is labelled."""
        has_label = (self.weight[..., :2] > 0).all(-1)
        has_depth = self.weight[..., 2] > 0
        has_depth[:, self.root] = True
        labelled = has_label & has_depth
        usable = labelled[:, self.root] & (labelled.sum(-1) >= MINIMUM_LABELLED_JOINTS)
        return labelled & usable[:, None]

    @property
    def standardised_residual(self) -> Float[np.ndarray, "samples joints 3"]:
        """(label − location)/σ per axis; NaN where there is no label, and for the root's depth."""
        residual = (self.target_uvd - self.mean_uvd) / self.scale_uvd
        residual = np.where(self.labelled[..., None], residual, np.nan)
        residual[:, self.root, 2] = np.nan
        return residual

    @property
    def sample_mpjpe_mm(self) -> Float[np.ndarray, " samples"]:
        """Mean error of each record over its labelled joints, root's zero included; else NaN."""
        error = self.predicted_root_relative_mm.astype(np.float64) - self.target_root_relative_mm
        labelled = self.labelled
        total = np.linalg.norm(error, axis=-1).sum(-1, where=labelled)
        count = labelled.sum(-1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything to one compressed npz without pickled objects, atomically.

        Args:
            path: File to write; its folder is made where it is missing.

        Returns:
            The path written.
        """
        arrays = {name: plain_array(getattr(self, name)) for name in array_fields()}
        header = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "units": UNITS}
        metadata = {**self.metadata, **header}
        return write_npz(path, {**arrays, "metadata": np.array(json.dumps(metadata))})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Predictions":
        """Read what `save` wrote.

        Raises:
            ValueError: If the file is no predictions file, lacks an array, or is of another
                schema version.
            FileNotFoundError: If there is no such file.
        """
        arrays = read_npz(path)
        missing = [name for name in (*array_fields(), "metadata") if name not in arrays]
        if missing:
            raise ValueError(f"{path}: not a predictions file, it lacks {', '.join(missing)}")
        metadata = json.loads(str(arrays["metadata"]))
        if metadata.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(
                f"{path}: predictions of schema version {metadata.get('schema_version')}, "
                f"this release reads version {SCHEMA_VERSION}; run the prediction again"
            )
        return cls(**{name: arrays[name] for name in array_fields()}, metadata=metadata)


def array_fields() -> tuple[str, ...]:
    """Names of the arrays of `Predictions`, in the order of the class."""
    return tuple(f.name for f in dataclasses.fields(Predictions) if f.name != "metadata")


def plain_array(values: np.ndarray) -> np.ndarray:
    """The array itself, or its strings where they came as Python objects."""
    return values.astype(np.str_) if values.dtype == object else values


def evaluate_predictions(predictions: Predictions) -> dict[str, Any]:
    """Judge predictions; everything in millimetres unless its name says otherwise.

    Each metric M comes four times: `M` (mean over records, root's zero included: the usual number),
    `M_action_average` (mean of the action means), and both `…_without_root`. Alignments always use
    all labelled joints; "without root" leaves the root out of the average that follows.

    Args:
        predictions: Any number of records, at least one of them judged.

    Returns:
        A dictionary that `json.dumps` accepts: headline metrics, `per_action`, `per_joint`,
        `per_axis`, `sigma_error_spearman`, `counts`, `protocol`, `units`. What is undefined (a rank
        correlation of constants) is None.

    Raises:
        ValueError: If there is nothing to judge, or a joint that counts is not finite.

    Source:
        MPJPE, PA-MPJPE, N-MPJPE as in Martinez et al. (ICCV 2017) and Rhodin et al. (CVPR 2018);
        3D-PCK and AUC as in Mehta et al. (3DV 2017); the rigid alignment without scale is
        Protocol 1 of Sun et al. (ECCV 2018) and its descendants.
    """
    poses = judged_poses(predictions)
    judged = poses.labelled.any(-1)
    if not judged.any():
        raise ValueError(
            f"no record of {len(predictions)} can be judged: the root and at least "
            f"{MINIMUM_LABELLED_JOINTS} joints need labels"
        )
    values = tables.sample_values(poses)
    actions = tables.action_rows(predictions.action, poses.labelled)
    aligned = values.aligned_errors_mm
    return {
        **tables.headline(values, actions),
        "per_action": {name: tables.action_row(values, rows) for name, rows in actions.items()},
        "per_joint": {
            name: tables.joint_row(poses, joint, aligned_errors_mm=aligned)
            for joint, name in enumerate(predictions.joint_names)
        },
        "per_axis": tables.axis_rows(poses),
        "sigma_error_spearman": tables.sigma_error_spearman(
            poses, joint_names=predictions.joint_names
        ),
        "counts": {
            "samples": int(judged.sum()),
            "samples_left_out": int((~judged).sum()),
            "unreadable": len(predictions.metadata.get("unreadable_records", [])),
            "joints_per_sample": poses.labelled.shape[1],
            "joints": int(poses.labelled.sum()),
            "joints_left_out": int((~poses.labelled[judged]).sum()),
            "actions": len(actions),
        },
        "protocol": describe_protocol(predictions),
        "units": {"*_mm": "millimetres", "pck150": "percent", "auc": "percent", "*_uvd": "1"},
    }


def judged_poses(predictions: Predictions) -> tables.JudgedPoses:
    """The part of the predictions that the tables look at.

    Raises:
        ValueError: If a joint that counts is not finite.
    """
    labelled = predictions.labelled
    for name in ("predicted_root_relative_mm", "target_root_relative_mm", "sigma_mm"):
        bad = labelled & ~np.isfinite(getattr(predictions, name)).all(-1)
        if bad.any():
            row, joint = np.argwhere(bad)[0]
            raise ValueError(
                f"{name} of record {predictions.name[row]}, joint "
                f"{predictions.joint_names[joint]}, is not finite ({int(bad.sum())} such joints)"
            )
    return tables.JudgedPoses(
        predicted_mm=predictions.predicted_root_relative_mm,
        target_mm=predictions.target_root_relative_mm,
        sigma_mm=predictions.sigma_mm,
        scale_uvd=predictions.scale_uvd,
        labelled=labelled,
        root=predictions.root,
    )


def describe_protocol(predictions: Predictions) -> dict[str, Any]:
    """Name in full what was measured on what, so that nobody compares unlike numbers.

    Source:
        The two clashing numberings: Protocol 1/2 of Sun et al. (ECCV 2018) and Moon et al. (ICCV
        2019); Protocol #1/#2/#3 of Martinez et al. (ICCV 2017) and Pavllo et al. (CVPR 2019).
    """
    metadata, labelled = predictions.metadata, predictions.labelled.any(-1)
    subjects = [int(subject) for subject in np.unique(predictions.subject[labelled])]
    actions = [str(name) for name in np.unique(predictions.action[labelled])]
    cameras = [str(name) for name in np.unique(predictions.camera_name[labelled])]
    train_subjects, unknown = metadata.get("train_subjects"), "not known"
    extra_stores = metadata.get("extra_stores", [])
    extra_words = [_name_store(store) for store in extra_stores]
    trained_beside = f"; trained also on {', '.join(extra_words)}" if extra_words else ""
    return {
        "text": f"{metadata['protocol']}{trained_beside}",
        "numbering": numbering(
            subjects,
            source=str(metadata.get("source", "")),
            train_subjects=train_subjects,
            actions=actions,
            cameras=cameras,
            extra_stores=extra_stores,
        ),
        "source": str(metadata.get("source", "not stated")),
        "subjects": subjects,
        "train_subjects": unknown if train_subjects is None else list(train_subjects),
        "train_records": metadata.get("train_records") or unknown,
        "extra_stores": extra_words,
        "actions": actions,
        "cameras": cameras,
        "frames": str(metadata.get("frames", "not stated")),
        "checkpoint": str(metadata.get("checkpoint_choice", "not stated")),
        "box": str(metadata.get("box_definition", "not stated")),
        "root_depth": str(metadata["root_depth"]),
        "flip_test": bool(metadata["flip_test"]),
        "joints": list(predictions.joint_names),
        "root": predictions.joint_names[predictions.root],
        "averages": "mean over records; *_action_average: mean of the action means",
    }


def numbering(
    subjects: Sequence[int],
    *,
    source: str,
    train_subjects: Sequence[int] | None,
    actions: Sequence[str],
    cameras: Sequence[str],
    extra_stores: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Where each metric stands in the two numberings in use, or why it stands in neither.

    Args:
        subjects: Those tested on, ascending.
        source: Where the store's records come from, "" where that is not stated.
        train_subjects: Those trained on, ascending; None where that is not known.
        actions: Names of the actions tested on.
        cameras: Names of the cameras tested on.
        extra_stores: What the run knows of stores that trained beside the main one; people with
            labels in the image alone are usual, further 3-D labels are not.
    """
    if source.startswith(SYNTHETIC_SOURCE):
        details = source.removeprefix(SYNTHETIC_SOURCE)
        return (
            f"synthetic look-alike of Human3.6M{details}: not comparable with numbers on Human3.6M"
        )
    reasons = [
        reason
        for is_unlike, reason in (
            (not source, "the source of the records is not stated"),
            (tuple(subjects) != HUMAN36M_TEST_SUBJECTS, f"tested on {name_subjects(subjects)}"),
            (
                train_subjects is not None and tuple(train_subjects) != HUMAN36M_TRAIN_SUBJECTS,
                f"trained on {name_subjects(train_subjects or ())}",
            ),
            *(
                (store["depth_labels"] != "none", f"trained also on 3-D labels of {store['name']}")
                for store in extra_stores
            ),
            (
                len(actions) != HUMAN36M_NUM_ACTIONS,
                f"{len(actions)} actions instead of {HUMAN36M_NUM_ACTIONS}",
            ),
            (
                set(cameras) != set(HUMAN36M_CAMERA_NAMES),
                f"cameras {', '.join(cameras)} instead of Human3.6M's four",
            ),
        )
        if is_unlike
    ]
    if reasons:
        return (
            f"not comparable with the literature on Human3.6M: {'; '.join(reasons)}. Its protocols "
            "train on S1, S5, S6, S7, S8 and test on S9, S11 (Protocol 1 of Sun et al.: on S11 "
            "alone), all actions and cameras"
        )
    trained = "S1, S5, S6, S7, S8" if train_subjects else "subjects that are not known here"
    trained += "".join(f" and {_name_store(store)}" for store in extra_stores)
    return (
        f"taking the source ({source}) for Human3.6M, trained on {trained}, tested on S9, S11. "
        "MPJPE: Protocol 2 of Sun et al., Moon et al. and RLE (every 64th frame) = Protocol #1 of "
        "Martinez et al. and Pavllo et al. (all frames); PA-MPJPE with scale: Protocol #2 of the "
        "latter; N-MPJPE: Protocol #3 of the latter. PA-MPJPE without scale is the metric of "
        "Protocol 1 of the former, which however trains on S9 and tests on S11 alone"
    )


def _name_store(store: Mapping[str, Any]) -> str:
    """576 records of mpii (mpii-json (…); S0) without depth, 50.0% of each batch."""
    depth = WORDS_FOR_DEPTH[store["depth_labels"]]
    weight = "" if store["weight"] == 1 else f", labels weighted {store['weight']:g}"
    return (
        f"{store['records']} records of {store['name']} ({store['source']}; "
        f"{name_subjects(store['subjects'])}){depth}, {store['share']:.1%} of each batch{weight}"
    )


def name_subjects(subjects: Sequence[int]) -> str:
    """S9, S11."""
    return ", ".join(f"S{subject}" for subject in subjects) or "no subject"
