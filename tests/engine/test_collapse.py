"""Training does not collapse: each failure is provoked, and what prevents it is seen to matter."""

import copy
import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pose3d.data.store import open_store
from pose3d.engine import train as train_module
from pose3d.engine.checkpoint import load_checkpoint
from pose3d.engine.infer import plain_batch
from pose3d.engine.journal import read_log
from pose3d.engine.optimise import batch_loss
from pose3d.engine.session import build_session
from pose3d.engine.train import take_step, train
from pose3d.geometry.skeleton import HUMAN36M_18

ROOT, DEPTH = 0, 2
LONG = pytest.mark.long
KINDS = {
    "paper": (),
    "paper-gaussian": ("likelihood.base=gaussian",),
    "released": ("likelihood.form=released",),
    "laplace": ("likelihood.kind=laplace",),
    "flow_reparam": ("likelihood.kind=flow_reparam",),
    "flow": ("likelihood.kind=flow",),
}
kinds = pytest.mark.parametrize("kind", KINDS)
kinds_at_length = pytest.mark.parametrize(
    "kind",
    [kind if kind in ("paper", "released") else pytest.param(kind, marks=LONG) for kind in KINDS],
)


@dataclass
class Course:
    """How a few steps went."""

    losses: list[float]
    smallest_scale: torch.Tensor
    """Per joint and axis, over all steps after the first."""
    skipped: int
    session: object


@pytest.fixture
def start(dots, small, tmp_path):
    """A function that gives a session and a batch of eight of its records."""

    def start(kind, *overrides):
        base = ("train.ema_decay=0", "train.schedule=constant", "flow.num_layers=4")
        config = small(*base, *KINDS[kind], *overrides)
        session = build_session(config, open_store(dots), run=tmp_path)
        session.network.train()
        return session, plain_batch(session.training.raw_batch(np.arange(8)), config.data)

    return start


def run_steps(session, batch, num_steps):
    """Steps on the same batch, or on what a function of the step's number gives."""
    losses, scales, skipped = [], [], 0
    for number in range(num_steps):
        this = batch(number) if callable(batch) else batch
        pose, values = take_step(session, this)
        session.progress.step += 1
        losses.append(values["loss"])
        skipped += not math.isfinite(values["loss"] + values["gradient_norm"])
        scales.append(pose.scale.detach().amin(0))
    return Course(losses, torch.stack(scales[1:]).amin(0), skipped, session)


def relative_error(session, batch, *, joints=slice(1, None)):
    """Error on the batch in training mode over that of the batch's mean label; joints but root."""
    with torch.no_grad():
        pose = copy.deepcopy(session.network).regressor(batch.images)
    error, spread = (
        (values - batch.target)[:, joints].abs().mean()
        for values in (pose.mean, batch.target.mean(0, keepdim=True))
    )
    return float(error / spread)


def is_sound(network):
    return all(values.isfinite().all() for values in network.state_dict().values())


def with_changes(batch, **changes):
    return dataclasses.replace(batch, **changes)


# Constant targets, duplicates, the root's depth


@kinds_at_length
def test_constant_targets_stop_at_the_floor_of_the_scale(start, kind):
    """Their likelihood is unbounded as σ → 0; a loss clamped at 0 would not get there at all."""
    floor = 0.02
    settings = ("train.learning_rate=1e-2", f"model.scale_floor={floor}")
    session, batch = start(kind, *settings)
    constant = with_changes(batch, target=batch.target[:1].expand(8, -1, -1).clone())
    course = run_steps(session, constant, 60)
    assert course.skipped == 0
    assert is_sound(session.network)
    labelled = batch.weight[0] > 0
    assert floor <= course.smallest_scale[labelled].min() < 1.5 * floor
    assert course.losses[-1] < -3


@pytest.mark.parametrize("kind", ["paper", pytest.param("laplace", marks=LONG)])
def test_the_depth_of_the_root_would_drive_its_scale_to_the_floor(start, kind):
    """It is 0 by definition, so that its likelihood, too, is unbounded unless it is left out.

    All other labels have fresh noise at every step, which no network can fit.
    """
    smallest = []
    for is_supervised in (False, True):
        session, batch = start(kind, "train.learning_rate=1e-2")
        assert (batch.weight[:, ROOT, DEPTH] == 0).all()
        if is_supervised:
            batch.weight[:, ROOT, DEPTH] = 1
        noise = torch.Generator().manual_seed(0)

        def noisy(number, batch=batch, noise=noise):
            target = batch.target + 0.2 * torch.randn(batch.target.shape, generator=noise)
            target[:, ROOT, DEPTH] = 0
            return with_changes(batch, target=target)

        smallest.append(run_steps(session, noisy, 40).smallest_scale[:, DEPTH])
    masked, supervised = smallest
    assert masked[ROOT] > masked[1:].min()
    assert supervised[ROOT] < 0.3 * supervised[1:].min()


@kinds_at_length
def test_a_batch_of_one_record_repeated(start, kind):
    session, batch = start(kind, "train.learning_rate=3e-3")
    row = torch.zeros(8, dtype=torch.int64)
    repeated = with_changes(
        batch, images=batch.images[row], target=batch.target[row], weight=batch.weight[row]
    )
    course = run_steps(session, repeated, 30)
    assert course.skipped == 0
    assert is_sound(session.network)
    assert course.losses[-1] < course.losses[0] - 1


# Labels that are missing or wrong


@kinds
def test_a_joint_that_is_never_labelled_leaves_no_trace(start, kind):
    """Its labels are NaN; what predicts it stays as it was drawn, the others learn."""
    session, batch = start(kind)
    joint = HUMAN36M_18.index("L_Wrist")
    batch.weight[:, joint], batch.target[:, joint] = 0, math.nan
    rows = slice(3 * joint, 3 * joint + 3)
    heads = dict(session.network.regressor.named_parameters())
    names = ["location_head.weight", "location_head.bias", "scale_head.weight", "scale_head.bias"]
    before = {name: heads[name].detach().clone() for name in names}
    course = run_steps(session, batch, 8)
    assert course.skipped == 0
    assert is_sound(session.network)
    for name in names:
        assert torch.equal(heads[name][rows], before[name][rows]), name
        assert not torch.equal(heads[name][: rows.start], before[name][: rows.start]), name


@pytest.mark.parametrize("share", [pytest.param(0.01, marks=LONG), 0.05])
@kinds_at_length
def test_garbage_among_the_labels_does_not_keep_the_rest_from_being_learnt(start, kind, share):
    session, clean = start(kind, "train.learning_rate=3e-3")
    rng = np.random.default_rng(0)
    is_garbage = torch.from_numpy(rng.permutation(8 * 17) < math.ceil(share * 8 * 17))
    is_garbage = torch.cat([torch.zeros(8, 1, dtype=torch.bool), is_garbage.reshape(8, 17)], 1)
    garbage = torch.from_numpy(rng.uniform(-0.5, 0.5, clean.target.shape)).float()
    target = torch.where(is_garbage[..., None], garbage, clean.target)
    course = run_steps(session, with_changes(clean, target=target), 80)
    assert course.skipped == 0
    assert relative_error(session, clean) < 0.75


SWAMPED = {
    "paper": ("likelihood.form=paper",),
    "gaussian": ("likelihood.kind=gaussian",),
    "paper-gaussian": ("likelihood.base=gaussian",),
    "released": ("likelihood.form=released",),
    "flow_reparam": ("likelihood.kind=flow_reparam",),
}
"""Not laplace, whose gradient of μ is bounded already, nor flow, whose location is f(μ)."""


@pytest.mark.parametrize(
    "kind",
    [kind if kind in ("paper", "gaussian") else pytest.param(kind, marks=LONG) for kind in SWAMPED],
)
def test_one_wrong_label_does_not_stop_the_learning_of_its_joint(start, kind):
    """Its gradient would stay in Adam's second moments for a thousand steps and freeze what it hit.

    Judged, in all other records, by nats of a Laplace density of μ and σ, against the other joints:
    what is read from features that hardly move still learns 8 records by heart.
    """
    joint, excess = HUMAN36M_18.index("L_Knee"), {}
    for name, remedies in (
        ("as it stands", ("likelihood.residual_bound=10",)),
        ("bound alone", ("likelihood.residual_bound=10", "train.gradient_clip=0")),
        ("off", ("train.gradient_clip=0", "likelihood.residual_bound=1e12")),
    ):
        if name == "bound alone" and kind == "gaussian":  # has no bound
            continue
        session, batch = start("paper", "train.learning_rate=3e-3", *SWAMPED[kind], *remedies)
        wrong = with_changes(batch, target=batch.target.clone())
        wrong.target[0, joint] = 1e4
        run_steps(session, lambda number, w=wrong, b=batch: w if number == 5 else b, 40)
        with torch.no_grad():
            pose = copy.deepcopy(session.network).regressor(batch.images)
        nats = (2 * pose.scale).log() + (pose.mean - batch.target).abs() / pose.scale
        by_joint = nats[1:, 1:].mean((0, 2))
        rest = torch.cat([by_joint[: joint - 1], by_joint[joint:]])
        excess[name] = float(by_joint[joint - 1] - rest.mean())
    assert excess.pop("off") > 0.3
    assert max(excess.values()) < 0.3, excess


@pytest.mark.parametrize("has_depth", [False, True], ids=["2-D", "3-D"])
@kinds
def test_a_batch_in_which_no_joint_or_every_joint_has_a_depth(start, kind, has_depth):
    """A flow of its own for joints without depth sees an empty batch in one of the cases."""
    session, batch = start(kind)
    session.network.likelihood.planar_joints = None
    if has_depth:
        batch.weight[:, ROOT] = 0  # the only joint without depth
    else:
        batch.weight[..., DEPTH], batch.target[..., DEPTH] = 0, math.nan
    scales = session.network.regressor.scale_head.weight
    before = scales.detach().clone()
    course = run_steps(session, batch, 8)
    assert course.skipped == 0
    assert is_sound(session.network)
    moved = (scales != before).any(-1).reshape(-1, 3)
    assert moved[1:, :DEPTH].all()
    assert bool(moved[1:, DEPTH].all()) == has_depth
    assert bool(moved[1:, DEPTH].any()) == has_depth


# Steps that are not finite, large steps, low precision


@kinds
def test_a_picture_that_is_not_a_number_leaves_no_trace(start, kind):
    """Neither in the weights, nor in the statistics of the norms, nor in any counter."""
    session, batch = start(kind, "likelihood.residual_bound=0.05")
    run_steps(session, batch, 3)
    before = copy.deepcopy((session.network.state_dict(), session.optimiser.state_dict()))
    counted = int(session.network.likelihood.num_bounded)
    images = batch.images.clone()
    images[3, 1, 5, 5] = math.nan
    assert run_steps(session, with_changes(batch, images=images), 2).skipped == 2
    weights, moments = session.network.state_dict(), session.optimiser.state_dict()["state"]
    assert all(torch.equal(weights[name], value) for name, value in before[0].items())
    for number, state in before[1]["state"].items():
        assert all(torch.equal(moments[number][name], value) for name, value in state.items())
    assert int(session.network.likelihood.num_bounded) == counted
    assert run_steps(session, batch, 2).skipped == 0


@pytest.mark.parametrize("rate", [pytest.param(3e-3, marks=LONG), 1e-2])
@kinds_at_length
def test_three_and_ten_times_the_learning_rate(start, kind, rate):
    session, batch = start(kind, f"train.learning_rate={rate}")
    course = run_steps(session, batch, 80)
    assert course.skipped == 0
    assert is_sound(session.network)
    assert relative_error(session, batch) < 0.75


@kinds
def test_under_autocast_the_loss_is_computed_in_float32(start, kind):
    session, batch = start(kind, "train.precision=bf16")
    course = run_steps(session, batch, 3)
    assert course.skipped == 0
    assert is_sound(session.network)
    session.network.eval()  # fixed points for log s
    settings = {"location_share": 1.0, "location_scale": 0.05, "reduction": "per_joint"}
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        pose = session.network.regressor(batch.images)
        under = batch_loss(pose, batch, session.network.likelihood, **settings)
    with torch.no_grad():
        outside = batch_loss(pose, batch, session.network.likelihood, **settings)
    assert {value.dtype for value in (pose.mean, pose.scale, *under.values())} == {torch.float32}
    assert all(torch.equal(under[name], value) for name, value in outside.items())


# What was bounded is told


@pytest.fixture
def watched(monkeypatch):
    """Bounded joints of every step by record and step, recomputed from labels and predictions."""
    counts: list[dict[int, int]] = []
    original = train_module.take_step

    def spy(session, batch):
        pose, values = original(session, batch)
        target, mean, scale, weight = (
            tensor.detach().numpy()
            for tensor in (batch.target, pose.mean, pose.scale, batch.weight)
        )
        with np.errstate(invalid="ignore"):
            is_beyond = (np.abs(target - mean) > 0.3 * scale) & (weight > 0)
        joints = is_beyond.any(-1).sum(-1)
        is_good = math.isfinite(values["loss"])
        pairs = zip(batch.index.tolist(), joints.tolist(), strict=True)
        counts.append(dict(pairs) if is_good else {})
        return pose, values

    monkeypatch.setattr(train_module, "take_step", spy)
    return counts


def of_epoch(counts):
    """Sums by record over the steps of an epoch, without records that were never bounded."""
    total: dict[int, int] = {}
    for step in counts:
        for row, count in step.items():
            total[row] = total.get(row, 0) + count
    return {row: count for row, count in total.items() if count}


def test_bounded_joints_are_told_by_record(dots, small, tmp_path, watched, monkeypatch):
    """At each point of the curves, and in one line of the log at each epoch's end."""
    made = []
    original = train_module.make_batch

    def poison(*args, **kwargs):
        batch = original(*args, **kwargs)
        made.append(batch)
        if len(made) == 3:
            batch.images[0, 0, 0, 0] = math.nan
        return batch

    monkeypatch.setattr(train_module, "make_batch", poison)
    config = small("likelihood.residual_bound=0.3", "train.log_every_steps=2")
    train(config, store=dots, run=tmp_path / "run", is_shown=False)
    store = open_store(dots)
    lines = read_log(tmp_path / "run", event="bounded_records")
    epochs = read_log(tmp_path / "run")
    assert [line["epoch"] for line in lines] == [1, 2]
    for line, steps in zip(lines, (watched[:4], watched[4:]), strict=True):
        expected = of_epoch(steps)
        assert line["num_records"] == len(expected) > 3
        assert line["num_joints"] == sum(expected.values())
        named = {entry["record"]: entry["joints"] for entry in line["most"]}
        assert named == {store.record_name(row): count for row, count in expected.items()}
        assert [e["joints"] for e in line["most"]] == sorted(named.values(), reverse=True)
    so_far = np.cumsum([sum(step.values()) for step in watched])
    assert [line["bounded_residuals"] for line in epochs] == [so_far[3], so_far[7]]
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    for tag, expected in (
        ("train/bounded_residuals", so_far),
        (
            "train/bounded_records",
            [len(of_epoch(watched[n - n % 4 : n + 1])) for n in range(8)],
        ),
    ):
        points = {point.step: point.value for point in events.Scalars(tag)}
        assert points == {step: expected[step - 1] for step in (1, 2, 4, 5, 6, 8)}


def test_the_log_names_no_more_than_the_most_bounded_records(dots, small, tmp_path, monkeypatch):
    monkeypatch.setattr("pose3d.engine.monitor.NUM_BOUNDED_NAMED", 3)
    config = small("likelihood.residual_bound=0.01", "train.epochs=1")
    train(config, store=dots, run=tmp_path / "run", is_shown=False)
    (line,) = read_log(tmp_path / "run", event="bounded_records")
    assert line["num_records"] == 16
    assert len(line["most"]) == 3


def test_a_run_that_bounds_nothing_says_nothing(dots, small, tmp_path):
    train(small("likelihood.kind=l1"), store=dots, run=tmp_path / "run", is_shown=False)
    assert read_log(tmp_path / "run", event="bounded_records") == []


@pytest.mark.parametrize("step", [2, 5, 7])
def test_a_run_that_was_killed_counts_no_joint_twice(dots, small, tmp_path, monkeypatch, step):
    """It dies within a step, after points of the curves that no checkpoint holds."""
    config = small(
        *("likelihood.residual_bound=0.3", "train.log_every_steps=1"),
        *("train.checkpoint_every_steps=3", "data.cache_gib=0"),
    )
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    train(config, store=dots, run=straight, is_shown=False)
    original, taken = train_module.take_step, []

    def deadly(*args):
        taken.append(1)
        if len(taken) == step:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "take_step", deadly)
        with pytest.raises(KeyboardInterrupt):
            train(config, store=dots, run=killed, is_shown=False)
    train(config, store=dots, run=killed, is_shown=False, resume=True)
    lines = [read_log(run, event="bounded_records") for run in (killed, straight)]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 2
    last = [
        load_checkpoint(run / "checkpoints" / "last.pt")["progress"] for run in (killed, straight)
    ]
    for name in ("bounded", "bounded_by_row"):
        assert last[0][name] == last[1][name]
