"""Predicting with a finished run: the files, their contents, and what may be wrong."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pose3d.data.store import open_store
from pose3d.engine.config import load_config, save_config
from pose3d.engine.network import Network
from pose3d.engine.predict import (
    choose_examples,
    load_run,
    predict,
    read_metrics,
    results_are_current,
    sigma_in_words,
)
from pose3d.engine.train import train
from pose3d.evaluation.density import ResidualDensity
from pose3d.evaluation.npz import read_npz
from pose3d.evaluation.predictions import Predictions
from pose3d.report.html import METRIC_ROWS


@pytest.fixture(scope="module")
def trained(dots, small_overrides, tmp_path_factory):
    """A run of one epoch with its results."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    threads = torch.get_num_threads()
    config = load_config(overrides=[*small_overrides, "train.epochs=1"])
    train(config, store=dots, run=run, is_shown=False)
    predict(run)
    torch.set_num_threads(threads)
    return run


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_all_result_files_can_be_read_back(trained):
    predictions = Predictions.load(trained / "results" / "predictions.npz")
    assert len(predictions) == 4
    assert ResidualDensity.load(trained / "results" / "density.npz").available
    examples = read_npz(trained / "results" / "examples.npz")
    assert examples["images"].shape == (8, 32, 32, 3)
    assert examples["images"].dtype == np.uint8
    assert set(examples["kind"]) == {"worst", "typical", "best", "random"}
    assert set(examples["rows"]) <= set(range(4))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("likelihood.kind=laplace", "predicted standard deviation: scale of the likelihood times"),
        ("likelihood.kind=flow", "predicted standard deviation: that of the normal before"),
        ("flow.condition=feature", "differs from image to image: no standard deviation"),
        ("likelihood.form=released", "has no density: no standard deviation"),
        ("likelihood.kind=l1", "has no density: no standard deviation"),
    ],
)
def test_results_say_what_sigma_is(small, override, words):
    assert words in sigma_in_words(Network(small(override)).likelihood)


def test_metrics_are_json_with_baseline_and_protocol(trained):
    metrics = json.loads((trained / "results" / "metrics.json").read_text())
    assert metrics == read_metrics(trained)
    assert metrics["baseline_mean_pose_mpjpe_mm"] > 0
    assert metrics["protocol"]["root_depth"] == "ground truth"
    assert "ground truth" in metrics["protocol"]["text"]
    assert metrics["checkpoint"] == "best (epoch 1, step 4)"
    assert metrics["images_per_second"] > 0


def test_every_metric_of_the_report_has_a_baseline(trained):
    predictions = Predictions.load(trained / "results" / "predictions.npz")
    constant = load_run(trained).mean_pose_mm[:17].numpy()
    target = predictions.target_root_relative_mm.astype(np.float64)
    distance = np.linalg.norm(constant - target, axis=-1)
    metrics = read_metrics(trained)
    assert metrics["baseline_mean_pose_mpjpe_mm"] == pytest.approx(distance.mean(), rel=1e-6)
    assert metrics["baseline_mean_pose_pck150"] == pytest.approx(100 * (distance < 150).mean())
    share = [(distance < limit).mean() for limit in range(0, 151, 5)]
    assert metrics["baseline_mean_pose_auc"] == pytest.approx(100 * np.mean(share))
    missing = [row[0] for row in METRIC_ROWS if f"baseline_mean_pose_{row[0]}" not in metrics]
    assert not missing


def test_metadata_say_how_the_numbers_came_about(trained, dots):
    metadata = Predictions.load(trained / "results" / "predictions.npz").metadata
    assert metadata["store_digest"] == json.loads((dots / "store.json").read_text())["digest"]
    assert metadata["flip_test"] is True
    assert metadata["crop_size_px"] == 32
    assert metadata["split"] == "test"
    assert len(metadata["joint_names"]) == 17
    assert metadata["frames"] == "every record given"
    assert metadata["test_subjects"] == [9]
    assert (metadata["train_subjects"], metadata["train_records"]) == ([1], 16)


def test_the_protocol_says_how_the_checkpoint_was_chosen(copied, write_dots, tmp_path):
    def choice(**arguments):
        predict(copied, **arguments)
        return read_metrics(copied)["protocol"]["checkpoint"]

    assert choice() == "best of 1 epoch by MPJPE on this same split"
    assert choice(checkpoint="last") == "last, of epoch 1"
    elsewhere = "best of 1 epoch by MPJPE on split test of the store it was trained on"
    assert choice(split="train") == elsewhere
    store = write_dots(tmp_path / "another", num_train=1, num_test=3, seed=7)
    assert choice(store=store) == elsewhere
    (copied / "checkpoints" / "last.pt").unlink()
    assert choice() == "best of all epochs by MPJPE on this same split"


def test_a_training_store_that_has_gone_leaves_its_records_unknown(
    small_overrides, write_dots, tmp_path
):
    store = write_dots(tmp_path / "store", num_train=4, num_test=2)
    config = load_config(overrides=[*small_overrides, "train.epochs=1"])
    train(config, store=store, run=tmp_path / "run", is_shown=False)
    store.rename(tmp_path / "moved")
    metadata = predict(tmp_path / "run", store=tmp_path / "moved").metadata
    assert (metadata["train_subjects"], metadata["train_records"]) == ([1], 4)
    shutil.rmtree(tmp_path / "moved")
    other = write_dots(tmp_path / "other", num_train=1, num_test=2, seed=7)
    predictions = predict(tmp_path / "run", store=other)
    assert predictions.metadata["train_subjects"] is None
    assert read_metrics(tmp_path / "run")["protocol"]["train_records"] == "not known"


def test_sigma_is_the_standard_deviation_of_drawn_labels(trained):
    predictions = Predictions.load(trained / "results" / "predictions.npz")
    network = load_run(trained).network
    drawn = network.likelihood.sample_residual(
        40_000, generator=torch.Generator().manual_seed(0)
    ).numpy()
    given = predictions.metadata["deviation_of_residual"]
    np.testing.assert_allclose(drawn.std(0), given, rtol=0.05)
    density = ResidualDensity.load(trained / "results" / "density.npz")
    np.testing.assert_allclose(np.diag(density.covariance), 1, rtol=1e-5)
    assert "standard deviation" in predictions.metadata["sigma"]


def test_sigma_of_a_loss_without_density_stays_as_it_is(small_overrides, dots, tmp_path):
    overrides = [*small_overrides, "train.epochs=1", "likelihood.form=released"]
    run = tmp_path / "run"
    train(load_config(overrides=overrides), store=dots, run=run, is_shown=False)
    predictions = predict(run)
    assert predictions.metadata["deviation_of_residual"] == [1, 1, 1]
    assert "no density" in predictions.metadata["sigma"]


def test_the_flip_test_is_the_mean_over_both_images(trained, tmp_path):
    """Without the flip test on the same store, predictions differ; twice with it, they do not."""
    with_flip = predict(trained, out=tmp_path / "a")
    again = predict(trained, out=tmp_path / "b", batch_size=1)
    without = predict(trained, out=tmp_path / "c", flip_test=False)
    np.testing.assert_allclose(with_flip.mean_uvd, again.mean_uvd, atol=1e-5)
    assert not np.allclose(with_flip.mean_uvd, without.mean_uvd, atol=1e-5)
    assert without.metadata["flip_test"] is False


def test_a_split_can_be_chosen(trained, tmp_path):
    predictions = predict(trained, split="train", out=tmp_path)
    assert len(predictions) == 16
    assert set(predictions.subject) == {1}


def test_another_store_can_be_chosen(trained, write_dots, tmp_path):
    store = write_dots(tmp_path / "store", num_train=1, num_test=3, seed=7)
    predictions = predict(trained, store=store, out=tmp_path / "results")
    assert len(predictions) == 3
    again = predict(trained, store=open_store(store), out=tmp_path / "again")
    assert np.array_equal(again.mean_uvd, predictions.mean_uvd)


def test_an_unknown_split_is_refused(trained, tmp_path):
    with pytest.raises(ValueError, match="unknown split dev; known: train, test"):
        predict(trained, split="dev", out=tmp_path)


def test_a_store_that_has_gone_is_asked_for(trained, dots, tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.exists", lambda path: False)
    with pytest.raises(FileNotFoundError, match=r"the store .* is not there; name one by --store"):
        predict(trained, out=tmp_path)


def test_a_run_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run at"):
        predict(tmp_path / "none")


def test_a_checkpoint_of_another_model_names_its_parameters(copied):
    path = copied / "checkpoints" / "best.pt"
    contents = torch.load(path, weights_only=True)
    for part in ("network", "average"):
        weight = contents[part]["likelihood.flow.input_weight"]
        contents[part]["likelihood.flow.input_weight"] = weight[:1]
    torch.save(contents, path)
    with pytest.raises(ValueError, match=r"other model: likelihood\.flow\.input_weight has shape"):
        load_run(copied)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.normalisation=released", r"data\.normalisation is released there and imagenet in"),
        ("data.depth_range_mm=1000", r"data\.depth_range_mm is 1000\.0 there and 2000\.0 in"),
        ("model.scale_floor=0.5", r"model\.scale_floor is 0\.5 there and 0\.001 in"),
        ("flow.hidden_dim=4", r"flow\.hidden_dim is 4 there and 8 in .*best\.pt; put back"),
        ("likelihood.base=gaussian", r"likelihood\.base is gaussian there and laplace in"),
    ],
)
def test_settings_that_the_network_was_not_trained_with_are_refused(
    copied, small, override, message
):
    save_config(small("train.epochs=1", override), copied / "config.yaml")
    with pytest.raises(ValueError, match=message) as caught:
        load_run(copied)
    assert "\n" not in str(caught.value)


def test_what_is_tested_and_how_may_change_after_the_training(copied, small):
    overrides = ("data.test_every=2", "data.cache_gib=0.1", "evaluate.num_examples=1")
    save_config(small(*overrides, "train.precision=bf16"), copied / "config.yaml")
    config = load_run(copied).config
    assert (config.data.test_every, config.evaluate.num_examples) == (2, 1)
    assert (config.train.epochs, config.train.precision) == (1, "float32")
    predictions = predict(copied)
    assert len(predictions) == 2
    assert predictions.metadata["frames"] == "every 2nd frame"


def test_a_damaged_checkpoint_ends_in_one_line(copied):
    path = copied / "checkpoints" / "best.pt"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ValueError, match=r"best\.pt is damaged") as caught:
        predict(copied)
    assert "\n" not in str(caught.value)


def test_the_settings_in_the_checkpoint_suffice(copied, small):
    (copied / "config.yaml").unlink()
    assert load_run(copied).config == small("train.epochs=1")


def test_results_are_old_once_the_checkpoint_is_newer(copied):
    assert results_are_current(copied)
    later = (copied / "results" / "metrics.json").stat().st_mtime + 5
    os.utime(copied / "checkpoints" / "best.pt", (later, later))
    assert not results_are_current(copied)


@pytest.mark.parametrize(
    "request_",
    [{"split": "train"}, {"checkpoint": "last"}, {"flip_test": False}, {"store": "another"}],
    ids=lambda request_: next(iter(request_)),
)
def test_results_of_another_request_are_not_taken(copied, write_dots, dots, tmp_path, request_):
    if "store" in request_:
        path = write_dots(tmp_path / "another", num_train=1, num_test=3, seed=7)
        request_ = {"store": path}
    predict(copied, **request_)
    assert results_are_current(copied, **request_)
    assert not results_are_current(copied)
    predict(copied, store=dots, split="test", flip_test=True)  # the defaults, spelt out
    assert results_are_current(copied)
    assert not results_are_current(copied, **request_)


def test_results_of_other_test_records_are_not_taken(copied, small):
    save_config(small("train.epochs=1", "data.test_every=2"), copied / "config.yaml")
    assert not results_are_current(copied)
    predict(copied)
    assert results_are_current(copied)
    (copied / "config.yaml").unlink()
    assert not results_are_current(copied)


def test_results_outlive_the_store(copied, monkeypatch):
    is_there = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name != "store" and is_there(path))
    assert results_are_current(copied)
    assert not results_are_current(copied, split="train")


def test_a_prediction_that_was_cut_short_leaves_no_metrics(copied, monkeypatch):
    def stop(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(Predictions, "save", stop)
    with pytest.raises(OSError, match="disk full"):
        predict(copied, split="train")
    assert not results_are_current(copied)
    assert not (copied / "results" / "metrics.json").exists()


def test_missing_metrics_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="run `pose3d evaluate"):
        read_metrics(tmp_path)


def test_examples_are_ordered_by_error(trained):
    predictions = Predictions.load(trained / "results" / "predictions.npz")
    difference = predictions.predicted_root_relative_mm - predictions.target_root_relative_mm
    error = np.linalg.norm(difference, axis=-1).mean(-1)
    rows, kind = choose_examples(predictions, count=1)
    chosen = dict(zip(kind, rows, strict=True))
    assert chosen["worst"] == error.argmax()
    assert chosen["best"] == error.argmin()
    assert len(choose_examples(predictions, count=99)[0]) == 16
