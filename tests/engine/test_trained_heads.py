"""Every head goes the whole way: it fits what it is shown, and a run of it can be judged."""

import numpy as np
import pytest
import torch

from pose3d.data.store import open_store
from pose3d.engine.infer import plain_batch
from pose3d.engine.predict import load_run, predict
from pose3d.engine.session import build_session
from pose3d.engine.train import take_step, train
from pose3d.evaluation.density import ResidualDensity

VARIANTS = {
    "integral-cholesky": (
        *("model.location_head=integral", "model.integral_width=16", "model.depth_bins=8"),
        "model.scale_head=cholesky",
    ),
    "classification-cholesky": (
        *("model.location_head=plain", "model.depth_head=classification", "model.depth_bins=8"),
        "model.scale_head=cholesky",
    ),
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def variant(request):
    return request.param


def test_it_fits_a_batch(dots, small, variant, tmp_path):
    config = small(
        *("train.ema_decay=0", "train.schedule=constant", "train.learning_rate=1e-2"),
        *("likelihood.kind=laplace", "train.location_warmup_fraction=1", *variant),
    )
    session = build_session(config, open_store(dots), run=tmp_path)
    batch = plain_batch(session.training.raw_batch(np.arange(4)), config.data)
    session.network.train()
    labelled = batch.weight > 0
    losses, distances = [], []
    for _ in range(80):
        pose, values = take_step(session, batch)
        losses.append(values["loss"])
        distances.append((pose.mean - batch.target).detach().abs()[labelled].mean().item())
    assert losses[-1] < losses[0] - 2  # nats per joint
    assert distances[-1] < 0.6 * distances[0]
    factor = pose.scale_tril.detach()
    assert factor.tril(-1).abs().max() > 0.01 * factor.abs().max()  # correlations are learnt


def test_its_run_is_judged_from_its_checkpoint(dots, small, variant, tmp_path):
    run = tmp_path / "run"
    config = small("train.epochs=1", "likelihood.kind=laplace", *variant)
    train(config, store=dots, run=run, is_shown=False)
    predictions = predict(run, device="cpu")
    for values in (predictions.mean_uvd, predictions.sigma_mm, predictions.scale_uvd):
        assert np.isfinite(values).all()
    assert (predictions.sigma_mm[:, 1:] > 0).all()
    assert not ResidualDensity.load(run / "results" / "density.npz").available  # none of an axis
    network = load_run(run).network
    assert isinstance(network.predict(torch.zeros(1, 3, 32, 32)).scale_tril, torch.Tensor)
