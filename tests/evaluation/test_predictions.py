"""Predictions survive their file; their metrics agree with a plain loop and SciPy."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pose3d.evaluation import npz
from pose3d.evaluation.predictions import Predictions, array_fields, evaluate_predictions

NAMES = ("Pelvis", "R_Hip", "R_Knee", "L_Hip", "L_Knee")


def some_predictions(*, num_samples=40, seed=3, **changes):
    """Poses with errors of every size; joint 0 is the root."""
    rng = np.random.default_rng(seed)
    shape = (num_samples, len(NAMES), 3)
    target = rng.normal(0, 300, shape)
    error = rng.normal(0, 1, shape) * rng.gamma(2, 40, (num_samples, len(NAMES), 1))
    for joints in (target, error):
        joints -= joints[:, :1]
    number = np.arange(num_samples)
    fields = {
        "mean_uvd": rng.uniform(-0.4, 0.4, shape),
        "scale_uvd": rng.gamma(3, 0.01, shape),
        "target_uvd": rng.uniform(-0.4, 0.4, shape),
        "weight": np.ones(shape),
        "predicted_root_relative_mm": target + error,
        "target_root_relative_mm": target,
        "sigma_mm": rng.gamma(3, 15, shape),
        "predicted_image_px": rng.uniform(0, 1000, shape)[..., :2],
        "target_image_px": rng.uniform(0, 1000, shape)[..., :2],
        "root_depth_mm": rng.uniform(4000, 6000, num_samples),
        "crop_from_image": np.tile(np.eye(3), (num_samples, 1, 1)),
        "box_image_px": rng.uniform(100, 900, (num_samples, 3)),
        "store_index": number,
        "subject": np.where(number % 3 == 0, 9, 11),
        "action": np.array(["Eating", "Walking", "Sitting"])[(number**2) % 3],
        "subaction": number % 2,
        "camera_name": np.array(["54138969"] * num_samples),
        "frame": number * 64,
        "name": np.array([f"record {i}" for i in number]),
        "source_file": np.array([f"größe/{i}.jpg" for i in number]),
        "metadata": {
            "joint_names": list(NAMES),
            "skeleton": "human36m_17",
            "root": 0,
            "protocol": "five joints",
            "root_depth": "ground truth",
            "flip_test": False,
        },
    }
    return Predictions(**fields | changes)


def without_labels(predictions, where, axes=(0, 1, 2)):
    """The same, with weight 0 and nonsense coordinates for some joints."""
    weight = predictions.weight.copy()
    target = predictions.target_root_relative_mm.copy()
    target[where] = np.nan
    for axis in axes:
        weight[..., axis][where] = 0
    return dataclasses.replace(predictions, weight=weight, target_root_relative_mm=target)


def plain_errors(predicted, target, *, rotate=False, scale=False, rescale=False):
    """Distance of every joint of one pose after the asked-for alignment, by SciPy."""
    p, t = predicted, target
    if rotate:
        p, t = p - p.mean(0), t - t.mean(0)
        p = Rotation.align_vectors(t, p)[0].apply(p)
    if scale or rescale:
        p = p * (p * t).sum() / (p * p).sum()
    return np.sqrt(((p - t) ** 2).sum(-1))


def plain_metrics(predictions):
    """Six metrics for each record, one record after the other."""
    poses = zip(
        predictions.predicted_root_relative_mm, predictions.target_root_relative_mm, strict=True
    )
    rows = []
    for predicted, target in poses:
        error = plain_errors(predicted, target)
        rows.append(
            {
                "mpjpe_mm": error.mean(),
                "pa_mpjpe_mm": plain_errors(predicted, target, rotate=True, scale=True).mean(),
                "pa_mpjpe_rigid_mm": plain_errors(predicted, target, rotate=True).mean(),
                "n_mpjpe_mm": plain_errors(predicted, target, rescale=True).mean(),
                "pck150": 100 * np.mean([e < 150 for e in error]),
                "auc": 100 * np.mean([[e < limit for e in error] for limit in range(0, 151, 5)]),
            }
        )
    return rows


def plain_ranks(values):
    """Rank of each value, all different."""
    ranks = np.empty(len(values))
    ranks[np.argsort(values)] = np.arange(len(values))
    return ranks


def plain_spearman(a, b):
    """1 − 6 Σd² / (n(n² − 1)) for values without ties."""
    difference, n = plain_ranks(a) - plain_ranks(b), len(a)
    return 1 - 6 * (difference**2).sum() / (n * (n**2 - 1))


def test_a_file_gives_back_every_value_and_type(tmp_path):
    predictions = some_predictions()
    path = predictions.save(tmp_path / "new folder" / "predictions.npz")
    loaded = Predictions.load(path)
    for name in array_fields():
        before, after = getattr(predictions, name), getattr(loaded, name)
        np.testing.assert_array_equal(after, before)
        assert after.dtype == before.dtype, name
    assert {key: loaded.metadata[key] for key in predictions.metadata} == predictions.metadata
    assert "millimetres" in loaded.metadata["units"]["*_mm"]


def test_strings_held_as_objects_are_written_without_pickle(tmp_path):
    names = np.array([f"record {i}" for i in range(40)], dtype=object)
    path = some_predictions(name=names).save(tmp_path / "predictions.npz")
    with np.load(path, allow_pickle=False) as file:
        assert file["name"][7] == "record 7"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = some_predictions(seed=1).save(tmp_path / "predictions.npz")
    before = path.read_bytes()

    def stop(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(npz.np, "savez_compressed", stop)
    with pytest.raises(OSError, match="disk full"):
        some_predictions(seed=2).save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["predictions.npz"]


@pytest.mark.parametrize("damage", ["cut", "other", "text"])
def test_a_file_that_is_no_predictions_file_is_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "predictions.npz"
    some_predictions().save(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:2000])
    elif damage == "other":
        np.savez(path, mean_uvd=np.zeros(3))
    else:
        path.write_text("not an archive")
    with pytest.raises(ValueError, match=r"predictions\.npz") as error:
        Predictions.load(path)
    assert "\n" not in str(error.value)


def test_another_schema_version_is_refused(tmp_path, monkeypatch):
    from pose3d.evaluation import predictions

    monkeypatch.setattr(predictions, "SCHEMA_VERSION", 99)
    path = some_predictions().save(tmp_path / "predictions.npz")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="schema version 99"):
        Predictions.load(path)


def test_metrics_agree_with_a_plain_loop_over_records():
    predictions = some_predictions()
    result = evaluate_predictions(predictions)
    rows = plain_metrics(predictions)
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        assert result[name] == pytest.approx(values.mean(), abs=1e-6), name
        by_action = {
            action: values[predictions.action == action].mean()
            for action in ("Eating", "Walking", "Sitting")
            if (predictions.action == action).any()
        }
        assert result[f"{name}_action_average"] == pytest.approx(np.mean(list(by_action.values())))
        for action, value in by_action.items():
            assert result["per_action"][action][name] == pytest.approx(value, abs=1e-6)


def test_leaving_out_the_root_leaves_out_its_zero():
    predictions = some_predictions()
    result = evaluate_predictions(predictions)
    assert result["mpjpe_mm_without_root"] == pytest.approx(result["mpjpe_mm"] * 5 / 4)
    aligned = [
        plain_errors(p, t, rotate=True, scale=True)[1:].mean()
        for p, t in zip(
            predictions.predicted_root_relative_mm,
            predictions.target_root_relative_mm,
            strict=True,
        )
    ]
    assert result["pa_mpjpe_mm_without_root"] == pytest.approx(np.mean(aligned))


def test_joints_and_axes_agree_with_plain_sums():
    predictions = some_predictions()
    result = evaluate_predictions(predictions)
    error = predictions.predicted_root_relative_mm - predictions.target_root_relative_mm
    knee = result["per_joint"]["R_Knee"]
    assert knee["mpjpe_mm"] == pytest.approx(np.sqrt((error[:, 2] ** 2).sum(-1)).mean())
    assert knee["bias_mm"]["y"] == pytest.approx(error[:, 2, 1].mean())
    assert knee["sigma_uvd"]["d"] == pytest.approx(predictions.scale_uvd[:, 2, 2].mean())
    assert result["per_axis"]["z"]["absolute_error_mm"] == pytest.approx(
        np.abs(error[:, 1:, 2]).mean()
    )


def test_rank_correlation_agrees_with_its_definition():
    predictions = some_predictions()
    rank = evaluate_predictions(predictions)["sigma_error_spearman"]
    error = predictions.predicted_root_relative_mm - predictions.target_root_relative_mm
    distance = np.sqrt((error**2).sum(-1))[:, 1:]
    radius = np.sqrt((predictions.sigma_mm**2).sum(-1))[:, 1:]
    assert rank["overall"] == pytest.approx(plain_spearman(radius.ravel(), distance.ravel()))
    each = [plain_spearman(radius[:, j], distance[:, j]) for j in range(4)]
    assert list(rank["per_joint"].values()) == pytest.approx(each)
    assert rank["within_joint"] == pytest.approx(np.mean(each))
    along_x = plain_spearman(
        predictions.sigma_mm[:, 1:, 0].ravel(), np.abs(error[:, 1:, 0]).ravel()
    )
    assert rank["per_axis"]["x"] == pytest.approx(along_x)


def test_a_constant_sigma_has_no_rank_correlation():
    predictions = some_predictions(sigma_mm=np.ones((40, 5, 3)))
    rank = evaluate_predictions(predictions)["sigma_error_spearman"]
    assert rank["overall"] is None
    assert rank["within_joint"] is None


def test_what_has_no_label_does_not_count():
    predictions = some_predictions()
    hidden = np.zeros((40, 5), bool)
    hidden[:10, 4] = True
    result = evaluate_predictions(without_labels(predictions, hidden))
    rows = [
        plain_errors(p[:4] if i < 10 else p, t[:4] if i < 10 else t, rotate=True, scale=True).mean()
        for i, (p, t) in enumerate(
            zip(
                predictions.predicted_root_relative_mm,
                predictions.target_root_relative_mm,
                strict=True,
            )
        )
    ]
    assert result["pa_mpjpe_mm"] == pytest.approx(np.mean(rows), abs=1e-6)
    assert result["counts"]["joints_left_out"] == 10
    assert result["per_joint"]["L_Knee"]["samples"] == 30
    assert "NaN" not in json.dumps(result)


def test_a_record_without_a_root_label_is_left_out_and_counted():
    predictions = some_predictions()
    hidden = np.zeros((40, 5), bool)
    hidden[:7, 0] = True
    result = evaluate_predictions(without_labels(predictions, hidden))
    kept = plain_metrics(predictions)[7:]
    assert result["mpjpe_mm"] == pytest.approx(np.mean([row["mpjpe_mm"] for row in kept]))
    assert result["counts"]["samples_left_out"] == 7
    assert result["counts"]["samples"] == 33


def test_the_roots_depth_needs_no_label_but_other_depths_do():
    predictions = some_predictions()
    root, knee = np.zeros((40, 5), bool), np.zeros((40, 5), bool)
    root[:, 0], knee[:, 2] = True, True
    weight = predictions.weight.copy()
    weight[:, 0, 2] = 0
    given = dataclasses.replace(predictions, weight=weight)
    assert evaluate_predictions(given)["counts"]["joints_left_out"] == 0
    flat = without_labels(predictions, knee, axes=(2,))
    assert evaluate_predictions(flat)["per_joint"]["R_Knee"] == {"samples": 0}


def test_nothing_to_judge_and_values_that_are_no_numbers_are_refused():
    predictions = some_predictions()
    nothing = dataclasses.replace(predictions, weight=np.zeros((40, 5, 3)))
    with pytest.raises(ValueError, match="no record of 40 can be judged"):
        evaluate_predictions(nothing)
    broken = predictions.predicted_root_relative_mm.copy()
    broken[11, 3] = np.nan
    with pytest.raises(ValueError, match=r"record 11, joint L_Hip, is not finite"):
        evaluate_predictions(dataclasses.replace(predictions, predicted_root_relative_mm=broken))


def protocol_of(*, metadata=None, **changes):
    """The protocol of records as Human3.6M's test set has them, apart from the changes."""
    number = np.arange(40)
    human36m = {
        "action": np.array([f"action {i}" for i in number % 15]),
        "camera_name": np.array(["54138969", "55011271", "58860488", "60457274"])[number % 4],
        "metadata": some_predictions().metadata
        | {"source": "rle-json (a.json)", "train_subjects": [1, 5, 6, 7, 8], "train_records": 9}
        | (metadata or {}),
    }
    return evaluate_predictions(some_predictions(**human36m | changes))["protocol"]


def test_the_protocol_is_named_in_full():
    protocol = protocol_of(metadata={"frames": "every 64th frame", "checkpoint_choice": "last"})
    assert "Protocol 2 of Sun" in protocol["numbering"]
    assert "not comparable" not in protocol["numbering"]
    assert (protocol["subjects"], protocol["train_subjects"]) == ([9, 11], [1, 5, 6, 7, 8])
    assert (protocol["train_records"], protocol["frames"]) == (9, "every 64th frame")
    assert (protocol["checkpoint"], protocol["root_depth"]) == ("last", "ground truth")


def test_unknown_training_subjects_are_called_unknown():
    protocol = protocol_of(metadata={"train_subjects": None, "train_records": None})
    assert "trained on subjects that are not known here" in protocol["numbering"]
    assert protocol["train_subjects"] == protocol["train_records"] == "not known"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"subject": np.ones(40, int)}, "tested on S1"),
        ({"subject": np.full(40, 11)}, "tested on S11"),
        ({"metadata": {"train_subjects": [1]}}, "trained on S1"),
        ({"metadata": {"train_subjects": [1, 5, 6, 7, 8, 9]}}, "trained on S1, S5, S6, S7, S8, S9"),
        ({"metadata": {"source": ""}}, "the source of the records is not stated"),
        ({"action": np.array(["Eating"] * 40)}, "1 actions instead of 15"),
        ({"camera_name": np.array(["54138969"] * 40)}, "cameras 54138969 instead of"),
    ],
)
def test_what_is_unlike_the_literature_claims_none_of_its_protocols(changes, reason):
    text = protocol_of(**changes)["numbering"]
    assert text.startswith("not comparable with the literature on Human3.6M: ")
    assert reason in text
    assert "MPJPE: Protocol" not in text


def test_a_synthetic_look_alike_is_not_called_human36m():
    protocol = protocol_of(metadata={"source": "synthetic Human3.6M, version 2, seed 5"})
    assert protocol["numbering"] == (
        "synthetic look-alike of Human3.6M, version 2, seed 5: not comparable with numbers on "
        "Human3.6M"
    )


def test_residuals_are_in_units_of_the_scale_and_missing_where_labels_are():
    predictions = some_predictions()
    hidden = np.zeros((40, 5), bool)
    hidden[3, 2] = True
    residual = without_labels(predictions, hidden).standardised_residual
    expected = (
        predictions.target_uvd[5, 4, 1] - predictions.mean_uvd[5, 4, 1]
    ) / predictions.scale_uvd[5, 4, 1]
    assert residual[5, 4, 1] == pytest.approx(expected)
    assert np.isnan(residual[3, 2]).all()
    assert np.isnan(residual[:, 0, 2]).all()


def test_error_of_a_record_is_the_mean_over_its_labels():
    predictions = some_predictions()
    expected = [row["mpjpe_mm"] for row in plain_metrics(predictions)]
    np.testing.assert_allclose(predictions.sample_mpjpe_mm, expected)


def test_metadata_that_metrics_need_are_asked_for():
    with pytest.raises(ValueError, match="lacks skeleton, root"):
        some_predictions(metadata={"joint_names": list(NAMES)})
