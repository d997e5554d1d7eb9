"""2-D and 3-D stores in one run: what 2-D labels teach, what stops and goes on, what is told."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pose3d import cli
from pose3d.data.mixture import MixtureLoader, make_batch
from pose3d.data.store import open_store
from pose3d.engine import train as train_module
from pose3d.engine.checkpoint import load_checkpoint, save_checkpoint
from pose3d.engine.config import load_config, save_config
from pose3d.engine.journal import read_log
from pose3d.engine.predict import load_run, predict, read_metrics
from pose3d.engine.session import build_session
from pose3d.engine.train import take_step, train

HALVES = "data.store_shares=[1, 1]"


def fit(config, stores, run, **kwargs):
    return train(config, store=stores, run=run, is_shown=False, **kwargs)


def flatten_store(store):
    """Take the depth of every label away, as stores of 2-D people have it: one plane, weight 0."""
    records = store.records
    records.weight[..., 2] = 0
    joints = records.joints_camera_mm
    joints *= 5000 / joints[..., 2:]
    return store


@pytest.fixture(scope="module")
def paths(write_dots, tmp_path_factory):
    """Folders of a main store of 8 training records and of another one of 12."""
    folder = tmp_path_factory.mktemp("stores")
    return (
        write_dots(folder / "whole", num_train=8, num_test=4),
        write_dots(folder / "flat", num_train=12, num_test=4, seed=5),
    )


@pytest.fixture(scope="module")
def stores(paths):
    """The two, open; the second without depth."""
    return [open_store(paths[0]), flatten_store(open_store(paths[1]))]


@pytest.fixture
def mixed(stores, small, tmp_path):
    """A function that builds a session of both stores and the first batch of its first epoch."""

    def build(*overrides, store_order=(0, 1)):
        main, extra = (stores[place] for place in store_order)
        config = small(HALVES, *overrides)
        session = build_session(config, main, extra_stores=[extra], run=tmp_path / "run")
        loader = MixtureLoader(session.mixture, batch_size=8, seed=0, epoch=0, num_threads=0)
        parts = next(iter(loader))
        return session, parts, batch_of(session, parts)

    return build


def batch_of(session, parts):
    config = session.config
    return make_batch(
        parts, session.mixture, augmentation=config.augment, data=config.data, seed=0, device="cpu"
    )


def location_gradient(session, batch):
    """Gradient of the summed loss with respect to the same predictions for every batch."""
    generator = torch.Generator().manual_seed(3)
    mean = 0.1 * torch.randn(batch.target.shape, generator=generator)
    mean.requires_grad_()
    scale = torch.rand(batch.target.shape, generator=generator) * 0.2 + 0.05
    parts = session.network.likelihood.parts(mean, scale, batch.target, batch.weight)
    torch.stack(list(parts.values())).sum().backward()
    return mean.grad


LOSSES = {
    "paper": ("likelihood.kind=rle", "likelihood.form=paper"),
    "released": ("likelihood.kind=rle", "likelihood.form=released"),
    "laplace": ("likelihood.kind=laplace",),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_labels_without_depth_move_u_and_v_alone(mixed, loss):
    session, parts, batch = mixed(*LOSSES[loss])
    assert [part.place for part in parts] == [0, 1]
    gradient = location_gradient(session, batch)
    whole, flat = gradient.split([4, 4])
    whole_weight, flat_weight = batch.weight.split([4, 4])
    assert not flat_weight[..., 2].any()
    labelled = flat_weight[..., 0] > 0
    assert labelled.sum() > 30
    assert (flat[..., :2][labelled].abs() > 1e-4).all()
    assert not flat[..., 2].any()
    assert (whole[..., 2][whole_weight[..., 2] > 0].abs() > 1e-4).all()
    assert not gradient[batch.weight == 0].any()


@pytest.mark.parametrize("loss", ["paper", "released"])
@pytest.mark.parametrize("places", [(1,), (0, 1)])
def test_steps_on_flat_and_on_mixed_batches_learn(mixed, loss, places):
    session, parts, _ = mixed(*LOSSES[loss], "train.learning_rate=1e-3")
    batch = batch_of(session, [part for part in parts if part.place in places])
    session.network.train()
    losses = [take_step(session, batch)[1]["loss"] for _ in range(12)]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    for name, parameter in session.network.named_parameters():
        assert torch.isfinite(parameter).all(), name


@pytest.mark.parametrize("loss", LOSSES)
def test_a_stores_weight_is_a_factor_on_the_gradient_of_its_records(mixed, loss):
    plain, weighted = (
        location_gradient(session, batch)
        for session, _, batch in (
            mixed(*LOSSES[loss], f"data.store_weights=[1, {factor}]") for factor in (1, 2.5)
        )
    )
    torch.testing.assert_close(weighted[:4], plain[:4])
    torch.testing.assert_close(weighted[4:], 2.5 * plain[4:])


def test_only_labels_without_depth_make_the_likelihood_look_for_them(mixed, stores, small):
    session, *_ = mixed()
    assert session.network.likelihood.planar_joints is None
    alone = build_session(small(), stores[0], run=session.run)
    assert alone.network.likelihood.planar_joints == (0,)


@pytest.fixture
def counted(monkeypatch):
    """A function that calls something with the number, from 1, of each batch that is made."""

    def watch(call):
        original, made = train_module.make_batch, []

        def counting(*args, **kwargs):
            batch = original(*args, **kwargs)
            made.append(batch)
            call(len(made), batch)
            return batch

        monkeypatch.setattr(train_module, "make_batch", counting)
        return made

    return watch


class PowerCutError(Exception):
    """Ends a training between two steps, without a word to it."""


INTERRUPTED = (HALVES, "train.checkpoint_every_steps=1")


@pytest.fixture(scope="module")
def straight(stores, small_overrides, tmp_path_factory):
    """What an uninterrupted run of two epochs, of four steps each, ends with."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    fit(load_config(overrides=[*small_overrides, *INTERRUPTED]), stores, folder)
    return load_checkpoint(folder / "checkpoints" / "last.pt")


@pytest.mark.parametrize("step", [3, 6])
def test_a_run_that_was_cut_off_and_resumed_equals_the_uninterrupted_one(
    straight, stores, small, tmp_path, monkeypatch, counted, step
):
    """Once in the first pass over the second store, once after the second pass has begun."""

    def cut(number, batch):
        if number == step + 1:
            raise PowerCutError

    config, run = small(*INTERRUPTED), tmp_path / "run"
    counted(cut)
    with pytest.raises(PowerCutError):
        fit(config, stores, run)
    monkeypatch.undo()
    assert load_checkpoint(run / "checkpoints" / "last.pt")["progress"]["step"] == step
    fit(config, stores, run, resume=True)
    resumed = load_checkpoint(run / "checkpoints" / "last.pt")
    assert resumed["progress"]["step"] == straight["progress"]["step"] == 8
    for part in ("network", "average"):
        for name, values in straight[part].items():
            assert torch.equal(resumed[part][name], values), name
    for name in ("config", "extra_stores", "store", "digest"):
        assert resumed[name] == straight[name]


def test_a_list_of_one_store_is_that_store(stores, small, tmp_path):
    config = small("train.epochs=1")
    fit(config, stores[0], tmp_path / "one")
    fit(config, [str(stores[0].path)], tmp_path / "list")
    first, second = (
        load_checkpoint(tmp_path / run / "checkpoints" / "last.pt") for run in ("one", "list")
    )
    for name, values in first["network"].items():
        assert torch.equal(second["network"][name], values), name
    assert first["extra_stores"] == second["extra_stores"] == []


@pytest.fixture(scope="module")
def run(stores, small_overrides, tmp_path_factory):
    """A run of one epoch on both stores."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    overrides = [*small_overrides, "data.store_shares=[1, 3]", "data.store_weights=[1, 0.5]"]
    fit(load_config(overrides=[*overrides, "train.epochs=1"]), stores, folder)
    return SimpleNamespace(folder=folder, config=load_run(folder).config)


def test_the_checkpoint_knows_all_stores(run, stores):
    contents = load_checkpoint(run.folder / "checkpoints" / "last.pt")
    assert contents["store"] == str(stores[0].path.resolve())
    assert contents["digest"] == stores[0].digest
    assert contents["progress"]["step"] == 8  # one of the main store's 8 records in each batch
    assert contents["extra_stores"] == [
        {
            "path": str(stores[1].path.resolve()),
            "name": "flat",
            "digest": stores[1].digest,
            "source": "random dots",
            "records": 12,
            "subjects": [1],
            "depth_labels": "none",
            "share": 0.75,
            "weight": 0.5,
        }
    ]


def test_other_stores_or_another_order_cannot_resume(run, stores, write_dots, tmp_path):
    other = open_store(write_dots(tmp_path / "other", num_train=4, num_test=4, seed=8))
    for given, message in (
        (stores[:1], r"stores \S*whole, \S*flat, not on store \S*whole; name the same"),
        ([*stores, other], r"stores \S*whole, \S*flat, not on stores .*other"),
        (stores[::-1], r"store \S*whole with digest \w+…, in this order, \S*flat has \w+…"),
        ([stores[0], other], r"store \S*flat with digest \w+…, in this order, \S*other has"),
    ):
        match = rf"cannot resume \S*run: it was trained on {message}"
        with pytest.raises(ValueError, match=match):
            fit(run.config, given, run.folder, resume=True)
    assert fit(run.config, stores, run.folder, resume=True).is_complete


def test_a_checkpoint_of_one_store_that_knows_of_no_others_is_read(stores, small, tmp_path):
    config, folder = small("train.epochs=1"), tmp_path / "run"
    fit(config, stores[0], folder)
    for name in ("last.pt", "best.pt"):
        path = folder / "checkpoints" / name
        contents = load_checkpoint(path)
        del contents["extra_stores"]
        save_checkpoint(path, contents)
    assert load_run(folder).extra_stores == ()
    assert fit(config, stores[0], folder, resume=True).is_complete
    with pytest.raises(ValueError, match=r"cannot resume .*not on stores"):
        fit(config, stores, folder, resume=True)


def test_the_protocol_names_every_store_that_was_trained_on(run, stores, tmp_path):
    predict(run.folder, store=stores[0])
    protocol = read_metrics(run.folder)["protocol"]
    words = (
        "12 records of flat (random dots; S1) without depth, 75.0% of each batch, labels "
        "weighted 0.5"
    )
    assert protocol["extra_stores"] == [words]
    assert protocol["text"].endswith(f"; trained also on {words}")
    assert (protocol["train_subjects"], protocol["train_records"]) == ([1], 8)
    assert "trained also on 3-D" not in protocol["numbering"]


def test_the_first_store_must_have_labels_to_validate_with(stores, small, tmp_path):
    message = r"store \S*flat: none of its 4 records of split 'test' has 3-D labels.*name a store"
    with pytest.raises(ValueError, match=message):
        fit(small(), stores[::-1], tmp_path / "run")
    with pytest.raises(ValueError, match="no store is named"):
        fit(small(), [], tmp_path / "run")


def test_the_log_names_records_with_their_store(stores, small, tmp_path, counted):
    def poison(number, batch):
        if number == 2:
            batch.images[0, 0, 0, 0] = math.nan

    made = counted(poison)
    fit(small(HALVES, "train.epochs=1"), stores, tmp_path / "run")
    (line,) = read_log(tmp_path / "run", event="skipped_step")
    names = line["records"]
    assert [name.partition(": ")[0] for name in names] == ["whole"] * 2 + ["flat"] * 2
    frames = [int(name[-6:]) - 1 for name in names]
    assert frames == [*made[1].index[:2].tolist(), *(made[1].index[2:] - len(stores[0])).tolist()]


def test_the_command_line_trains_on_several_stores(paths, small, tmp_path, monkeypatch, capsys):
    save_config(small("train.epochs=1"), tmp_path / "small.yaml")
    run = tmp_path / "run"

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["pose3d", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        printed = capsys.readouterr()
        return int(exit_.value.code or 0), printed.out, printed.err

    named = ["train", tmp_path / "small.yaml", "--store", paths[0], "--store", paths[1]]
    code, _, errors = call(*named, "--run", run, "data.store_shares=[1]")
    assert code == 2
    assert errors.startswith("error: data.store_shares must have one number for each of the 2 sto")
    assert len(errors.splitlines()) == 1
    code, printed, errors = call(*named, "--run", run, HALVES)
    assert (code, errors) == (0, "")
    assert "20 training and 4 validation records" in printed
    told = [line for line in printed.splitlines() if line.startswith("store ")]
    share = "50.0% of each batch, weight of its labels 1"
    assert told[0].endswith(f"whole: 8 training records, {share}")
    assert told[1].endswith(f"flat: 12 training records, {share}")
    code, printed, errors = call("evaluate", run)
    assert (code, errors) == (0, "")
    words = "12 records of flat (random dots; S1), 50.0% of each batch"
    assert f"8 records of S1; {words}" in " ".join(printed.replace("│", " ").split())
    protocol = read_metrics(run)["protocol"]
    assert protocol["text"].endswith(f"; trained also on {words}")
    assert "trained also on 3-D labels of flat" in protocol["numbering"]
