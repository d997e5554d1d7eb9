"""Training: it learns, repeats itself bit for bit, goes on after any stop, and survives NaN."""

import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pose3d
from pose3d.data.store import open_store
from pose3d.engine import monitor, session
from pose3d.engine import train as train_module
from pose3d.engine.checkpoint import load_checkpoint, save_checkpoint
from pose3d.engine.config import load_config
from pose3d.engine.infer import plain_batch
from pose3d.engine.journal import read_log
from pose3d.engine.predict import load_run, predict
from pose3d.engine.session import build_session
from pose3d.engine.train import take_step, train
from pose3d.evaluation.predictions import evaluate_predictions

WALL_CLOCK = ("images_per_second",)


def fit(config, store, run, **kwargs):
    return train(config, store=store, run=run, is_shown=False, **kwargs)


def assert_same(actual, expected, place="checkpoint"):
    """Bitwise equality of nested values."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(actual, expected), place
    elif isinstance(expected, dict):
        assert list(actual) == list(expected), place
        for name in expected:
            assert_same(actual[name], expected[name], f"{place}.{name}")
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected), place
        for index, pair in enumerate(zip(actual, expected, strict=True)):
            assert_same(*pair, f"{place}.{index}")
    else:
        assert actual == expected or (actual != actual and expected != expected), place


def assert_same_runs(actual, expected):
    for name in ("last.pt", "best.pt"):
        assert_same(*(load_checkpoint(run / "checkpoints" / name) for run in (actual, expected)))
    logs = [
        [{k: v for k, v in line.items() if k not in WALL_CLOCK} for line in read_log(run)]
        for run in (actual, expected)
    ]
    assert logs[0] == logs[1]


@pytest.fixture(scope="module")
def straight(dots, small_overrides, tmp_path_factory):
    """An uninterrupted run of two epochs of four steps."""
    run = tmp_path_factory.mktemp("runs") / "straight"
    threads = torch.get_num_threads()
    fit(load_config(overrides=small_overrides), dots, run)
    torch.set_num_threads(threads)
    return run


def test_overfits_a_batch(dots, small, tmp_path):
    config = small("train.ema_decay=0", "train.schedule=constant", "train.learning_rate=3e-3")
    session = build_session(config, open_store(dots), run=tmp_path)
    batch = plain_batch(session.training.raw_batch(np.arange(4)), config.data)
    session.network.train()
    losses = [take_step(session, batch)[1]["loss"] for _ in range(120)]
    with torch.no_grad():
        pose = session.network.regressor(batch.images)
    error, spread = (
        ((values - batch.target)[:, 1:]).abs().mean()
        for values in (pose.mean, batch.target.mean(0, keepdim=True))
    )
    assert error < 0.2 * spread
    assert losses[-1] < losses[0] - 2


def test_two_runs_are_equal_bit_for_bit(straight, dots, small, tmp_path):
    torch.rand(3)  # whatever was drawn before
    fit(small(), dots, tmp_path / "again")
    assert_same_runs(tmp_path / "again", straight)


def test_another_seed_is_another_run(straight, dots, small, tmp_path):
    fit(small("train.seed=1"), dots, tmp_path / "other")
    losses = [read_log(run)[-1]["loss"] for run in (tmp_path / "other", straight)]
    assert losses[0] != losses[1]


@pytest.fixture
def fit_in_two_parts(dots, monkeypatch):
    """A function that trains, is told to stop within a step, and resumes."""

    def fit_in_two_parts(config, run, *, step):
        original, taken = train_module.make_batch, []

        def interrupting(*args, **kwargs):
            taken.append(1)
            if len(taken) == step:
                signal.raise_signal(signal.SIGTERM)
            return original(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(train_module, "make_batch", interrupting)
            stopped = fit(config, dots, run)
        assert (stopped.is_complete, stopped.step) == (False, step)
        assert fit(config, dots, run, resume=True).is_complete
        return run

    return fit_in_two_parts


@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_stopped_and_resumed_run_equals_the_uninterrupted_one(
    straight, small, tmp_path, fit_in_two_parts, step
):
    """A signal arrives within a step: the first, the last of an epoch, one in the second epoch."""
    assert_same_runs(fit_in_two_parts(small(), tmp_path / "run", step=step), straight)


def test_counters_and_clipping_resume_too(dots, small, tmp_path, fit_in_two_parts):
    """The stop falls between two points of the curves, where a counter could be out of date."""
    config = small(
        *("likelihood.residual_bound=0.05", "train.log_every_steps=3", "train.gradient_clip=1")
    )
    fit(config, dots, tmp_path / "straight")
    resumed = fit_in_two_parts(config, tmp_path / "resumed", step=4)
    assert_same_runs(resumed, tmp_path / "straight")
    first, second = (line["bounded_residuals"] for line in read_log(resumed))
    assert 0 < first < second


def test_a_killed_run_goes_on_from_its_last_checkpoint(dots, small, small_overrides, tmp_path):
    run = tmp_path / "run"
    overrides = [*small_overrides, "train.checkpoint_every_steps=1"]
    program = (
        "import sys, time\n"
        "from pose3d.engine import optimise, train\n"
        "original = train.learning_rate_at\n"
        "def slow(*a, **k):\n    time.sleep(0.2)\n    return original(*a, **k)\n"
        "train.learning_rate_at = slow\n"
        "from pose3d.engine.config import load_config\n"
        "train.train(load_config(overrides=sys.argv[3:]), store=sys.argv[1], run=sys.argv[2])\n"
    )
    command = [sys.executable, "-c", program, str(dots), str(run), *overrides]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        last = run / "checkpoints" / "last.pt"
        while not (last.exists() and load_checkpoint(last)["progress"]["step"] >= 2):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    reached = load_checkpoint(last)["progress"]
    assert 2 <= reached["step"] < 8
    fit(small("train.checkpoint_every_steps=1"), dots, run, resume=True)
    expected = fit_again_with_checkpoints(dots, small, tmp_path / "expected")
    assert_same_runs(run, expected)


def fit_again_with_checkpoints(dots, small, run):
    fit(small("train.checkpoint_every_steps=1"), dots, run)
    return run


def test_checkpoints_between_epochs_do_not_change_the_result(straight, dots, small, tmp_path):
    run = fit_again_with_checkpoints(dots, small, tmp_path / "run")
    weights = [load_checkpoint(r / "checkpoints" / "last.pt")["network"] for r in (run, straight)]
    assert_same(*weights)


def test_resuming_a_complete_run_changes_nothing(dots, small, tmp_path):
    first = fit(small("train.epochs=1"), dots, tmp_path / "run")
    again = fit(small("train.epochs=1"), dots, tmp_path / "run", resume=True)
    assert dataclasses.replace(again, run=first.run) == first


def test_resuming_without_a_checkpoint_starts_afresh(dots, small, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "log.jsonl").write_text('{"event": "epoch", "step": 4, "epoch": 1}\n')
    result = train(small("train.epochs=1"), store=dots, run=run, resume=True)
    assert result.is_complete
    assert "no checkpoint yet, starting afresh" in capsys.readouterr().out
    assert len(read_log(run)) == 1


def test_a_folder_in_use_is_refused_with_advice(dots, small, straight):
    with pytest.raises(ValueError, match="is not empty; add --resume to go on"):
        fit(small(), dots, straight)


def test_resuming_with_other_settings_says_which(dots, small, straight):
    message = r"train\.batch_size was 4 and is now 5, train\.seed was 0 and is now 3"
    with pytest.raises(ValueError, match=message):
        fit(small("train.batch_size=5", "train.seed=3"), dots, straight, resume=True)


def test_settings_that_change_no_result_may_change(dots, small, straight):
    result = fit(small("train.log_every_steps=3"), dots, straight, resume=True)
    assert result.is_complete


def test_resuming_on_another_store_is_refused(small, write_dots, straight, tmp_path):
    other = write_dots(tmp_path / "store", num_train=16, num_test=4, seed=5)
    with pytest.raises(ValueError, match=r"it was trained on store .* with digest"):
        fit(small(), other, straight, resume=True)


def test_the_log_and_the_checkpoint_hold_what_they_promise(straight):
    line = read_log(straight)[-1]
    for name in (
        *("loss", "base", "flow", "log_scale", "log_s", "gradient_norm", "learning_rate"),
        *("mpjpe_mm", "pa_mpjpe_mm", "mean_pose_mpjpe_mm", "sigma_u_median", "images_per_second"),
    ):
        assert math.isfinite(line[name]), name
    parts = [line[name] for name in ("base", "flow", "log_scale", "log_s")]
    assert sum(parts) == pytest.approx(line["loss"], abs=1e-4)
    contents = load_checkpoint(straight / "checkpoints" / "last.pt")
    assert contents["progress"]["epoch"] == 2
    assert contents["progress"]["step"] == 8
    assert contents["skeleton"] == "human36m_18"
    assert json.loads(contents["config"])["train"]["batch_size"] == 4
    assert contents["pose3d"]


def test_the_best_checkpoint_is_that_of_the_lowest_error(straight):
    errors = [line["mpjpe_mm"] for line in read_log(straight)]
    best = load_checkpoint(straight / "checkpoints" / "best.pt")["progress"]
    assert best["best_mpjpe_mm"] == min(errors)
    assert best["epoch"] == 1 + errors.index(min(errors))


def test_validation_during_training_is_what_predict_finds(straight):
    metrics = evaluate_predictions(predict(straight, checkpoint="last", out=straight / "again"))
    assert metrics["mpjpe_mm"] == read_log(straight)[-1]["mpjpe_mm"]


def test_the_average_of_the_weights_is_what_is_judged(straight):
    contents = load_checkpoint(straight / "checkpoints" / "last.pt")
    judged = load_run(straight, checkpoint="last").network.state_dict()
    assert_same(dict(judged), contents["average"])
    name = "regressor.location_head.weight"
    assert not torch.equal(contents["average"][name], contents["network"][name])


@pytest.fixture
def poisoned(monkeypatch):
    """A function that makes the images of chosen batches (counted from 1) NaN."""
    original, made = train_module.make_batch, []

    def poison(*chosen):
        def make_batch(*args, **kwargs):
            batch = original(*args, **kwargs)
            made.append(batch)
            if len(made) in chosen:
                batch.images[0, 0, 0, 0] = math.nan
            return batch

        monkeypatch.setattr(train_module, "make_batch", make_batch)
        return made

    return poison


def test_a_step_that_is_not_finite_is_skipped_and_counted(dots, small, tmp_path, poisoned):
    made = poisoned(2, 3, 6)
    result = fit(small(), dots, tmp_path / "run")
    assert result.skipped_steps == 3
    lines = read_log(tmp_path / "run", event="skipped_step")
    assert [line["step"] for line in lines] == [2, 3, 6]
    assert lines[0]["loss"] is None
    frames = [int(name[-6:]) - 1 for name in lines[0]["records"]]
    assert frames == made[1].index.tolist()
    contents = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    for part in ("network", "average"):
        for name, values in contents[part].items():
            assert values.isfinite().all(), name
    assert contents["network"]["regressor.backbone.bn1.num_batches_tracked"] == 5


def test_every_epoch_has_its_own_order_and_augmentation(dots, small, tmp_path, poisoned):
    made = poisoned()
    fit(small(), dots, tmp_path / "run")
    first, second = (torch.cat([batch.index for batch in made[i : i + 4]]) for i in (0, 4))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(16))
    assert first.tolist() != second.tolist()
    maps = [torch.cat([batch.crop_from_image for batch in made[i : i + 4]]) for i in (0, 4)]
    assert not torch.allclose(maps[0][first.argsort()], maps[1][second.argsort()])


def curves(run):
    return EventAccumulator(str(run / "tensorboard")).Reload()


def test_the_curves_show_all_that_is_needed_to_watch_a_training(dots, small, tmp_path):
    fit(
        small("train.epochs=1", "train.log_every_steps=1", "train.figure_every_epochs=1"),
        dots,
        tmp_path / "run",
    )
    events = curves(tmp_path / "run")
    parts = {"loss/base", "loss/flow", "loss/log_scale", "loss/log_s"}
    by_step = {
        *("loss/total", *parts, "train/gradient_norm", "train/learning_rate"),
        *("train/skipped_steps", "train/bounded_residuals", "train/bounded_records"),
        "train/images_per_second",
        *(f"sigma_{axis}/{name}" for axis in "uvd" for name in ("min", "median", "max")),
    }
    by_epoch = {
        *("validation/mpjpe_mm", "validation/pa_mpjpe_mm", "validation/mean_pose_mpjpe_mm"),
        *(f"validation/sigma_{axis}_median" for axis in "uvd"),
    }
    assert set(events.Tags()["scalars"]) == by_step | by_epoch
    points = {tag: {point.step: point.value for point in events.Scalars(tag)} for tag in by_step}
    for tag in by_step:
        assert list(points[tag]) == [1, 2, 3, 4], tag
    for tag in by_epoch:
        assert [point.step for point in events.Scalars(tag)] == [4], tag
    for step in (1, 2, 3, 4):
        total = sum(points[tag][step] for tag in parts)
        assert points["loss/total"][step] == pytest.approx(total, abs=1e-4)
        for axis in "uvd":
            least, middle, most = (
                points[f"sigma_{axis}/{name}"][step] for name in ("min", "median", "max")
            )
            assert 0 < least < middle < most < 1
    assert events.Tags()["images"] == ["predictions"]
    (image,) = events.Images("predictions")
    assert image.step == 4
    assert min(image.width, image.height) > 100


def test_a_run_shorter_than_the_logging_interval_has_curves(dots, small, tmp_path, poisoned):
    poisoned(1)
    fit(small("train.log_every_steps=100"), dots, tmp_path / "run")
    events = curves(tmp_path / "run")
    assert [point.step for point in events.Scalars("loss/total")] == [2, 5]


def test_a_skipped_step_is_on_the_curve_at_once(dots, small, tmp_path, poisoned):
    poisoned(2, 3)
    fit(small("train.epochs=1", "train.log_every_steps=100"), dots, tmp_path / "run")
    points = curves(tmp_path / "run").Scalars("train/skipped_steps")
    assert [(point.step, point.value) for point in points] == [(1, 0), (2, 1), (3, 2)]


def test_too_many_skipped_steps_in_a_row_end_the_training(dots, small, tmp_path, poisoned):
    poisoned(2, 4, 5, 6)
    with pytest.raises(
        ValueError, match=r"not finite in 3 steps in a row up to step 6.*log\.jsonl"
    ):
        fit(small("train.max_skipped_in_a_row=3"), dots, tmp_path / "run")


def test_unreadable_images_are_left_out_where_asked(small, write_dots, tmp_path):
    store = write_dots(tmp_path / "store", num_train=9, num_test=2)
    (shard,) = store.glob("*.h5")
    data = bytearray(shard.read_bytes())
    place = data.index(b"\xff\xd8\xff")  # the first crop
    data[place : place + 2] = b"\0\0"
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=r"crop of record 0 .* is bad"):
        fit(small(), store, tmp_path / "strict")
    result = fit(small("data.bad_records=skip", "train.epochs=1"), store, tmp_path / "lenient")
    assert result.is_complete
    (line,) = read_log(tmp_path / "lenient", event="unreadable_records")
    assert len(line["records"]) == 1


@pytest.mark.parametrize(
    "overrides",
    [
        ("train.precision=bf16", "train.schedule=cosine", "train.warmup_steps=2"),
        ("likelihood.kind=l1", "train.optimiser=adamw", "train.weight_decay=0.1"),
        ("likelihood.form=released", "train.gradient_clip=1", "train.channels_last=false"),
        ("train.location_warmup_fraction=0.3", "train.location_blend_fraction=0.3"),
        ("train.figure_every_epochs=1", "train.log_every_steps=1", "data.num_threads=2"),
        ("train.limit_train_batches=1", "train.ema_decay=0", "data.skeleton=human36m_17"),
    ],
    ids=lambda overrides: overrides[0].partition(".")[2],
)
def test_other_settings_train_too(dots, small, tmp_path, overrides):
    result = fit(small("train.epochs=1", *overrides), dots, tmp_path / "run")
    assert result.is_complete
    assert result.skipped_steps == 0
    assert math.isfinite(read_log(tmp_path / "run")[0]["loss"])


@pytest.mark.parametrize(
    ("precision", "device_has_it", "expected"),
    [
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
        ("bf16", False, torch.bfloat16),
        ("float32", True, torch.float32),
    ],
)
def test_auto_takes_bf16_where_the_device_has_it(
    dots, small, tmp_path, monkeypatch, precision, device_has_it, expected
):
    for module in (session, monitor):
        monkeypatch.setattr(module, "has_bf16", lambda device: device_has_it)
    seen = []
    original = torch.nn.functional.conv2d

    def spy(images, *args):
        result = original(images, *args)
        seen.append(result.dtype)
        return result

    config = small("train.epochs=1", f"train.precision={precision}", "evaluate.validation_every=64")
    monkeypatch.setattr(torch.nn.functional, "conv2d", spy)
    fit(config, dots, tmp_path / "run")
    assert seen[0] == expected  # the first convolution of the first step


def test_bf16_that_a_device_only_emulates_is_told(dots, small, tmp_path, monkeypatch, capsys):
    for module in (session, monitor):
        monkeypatch.setattr(module, "has_bf16", lambda device: False)
    config = small("train.epochs=1", "train.precision=bf16")
    pose3d.train(config, store=dots, run=tmp_path / "run")
    assert "only emulates bf16" in capsys.readouterr().out


def test_the_gradient_is_clipped_as_a_whole(dots, small, tmp_path, monkeypatch):
    norms = []
    original = torch.optim.Adam.step

    def spy(self, *args, **kwargs):
        grads = [p.grad.flatten() for g in self.param_groups for p in g["params"]]
        norms.append(float(torch.cat(grads).norm()))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    fit(small("train.epochs=1", "train.gradient_clip=0.01"), dots, tmp_path / "run")
    assert norms == pytest.approx([0.01] * len(norms), rel=1e-3)


def test_a_checkpoint_of_another_model_is_refused(dots, small, straight, tmp_path):
    run = tmp_path / "run"
    fit(small("train.epochs=1", "model.width_multiplier=0.25"), dots, run)
    contents, other = (load_checkpoint(r / "checkpoints" / "best.pt") for r in (run, straight))
    weights = {name: other[name] for name in ("network", "average")}
    save_checkpoint(run / "checkpoints" / "best.pt", {**contents, **weights})
    with pytest.raises(ValueError, match=r"best\.pt is of another model: regressor\.\S+ has shape"):
        load_run(run)


def test_the_example_of_the_package_runs(dots, small, tmp_path, monkeypatch, capsys):
    """It trains, predicts and prints the error that the results file holds."""
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "demo").symlink_to(dots)
    monkeypatch.chdir(tmp_path)
    example = textwrap.dedent(pose3d.__doc__.partition("::\n")[2])
    names = {"pose3d": pose3d, "config": small("train.epochs=1")}
    exec(example, names)
    assert names["result"].is_complete
    metrics = json.loads((tmp_path / "runs/demo/results/metrics.json").read_text())
    (printed,) = re.findall(r"^([\d.]+) mm$", capsys.readouterr().out, flags=re.MULTILINE)
    assert float(printed) == pytest.approx(metrics["mpjpe_mm"], abs=1e-3)
