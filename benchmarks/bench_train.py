"""Images per second of a whole training step and of its parts, alone and together; JSON.

Rows: `loader`, `augmentation`, `backbone` (regressor, forward and backward), `flow_and_likelihood`
(forward and backward), `optimiser` (clip, Adam, moving average), `step` (all but loader and
augmentation), `together` (an epoch as training runs it), `evaluation` (flip-averaged prediction of
a data set with decoding to millimetres, and the metrics). Each of --variants is measured anew, so
that bf16 and channels_last can be compared with float32 in rows.

    python benchmarks/bench_train.py --set model.backbone=resnet18 --out train.json
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from bench_data import MARGIN, describe, rate, write_random_store
from provenance import write_result

from pose3d.data.augment import RawBatch, draw_parameters, make_batch
from pose3d.data.dataset import BatchLoader
from pose3d.data.store import Store, open_store
from pose3d.engine.config import RunConfig, load_config
from pose3d.engine.infer import infer
from pose3d.engine.optimise import batch_loss
from pose3d.engine.session import Session, build_session
from pose3d.engine.train import take_step
from pose3d.evaluation.predictions import evaluate_predictions
from pose3d.model.regressor import PoseDistribution

VARIANTS = {
    "float32": ("train.precision=float32", "train.channels_last=false"),
    "float32_channels_last": ("train.precision=float32", "train.channels_last=true"),
    "bf16": ("train.precision=bf16", "train.channels_last=false"),
    "bf16_channels_last": ("train.precision=bf16", "train.channels_last=true"),
}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--store", type=Path, help="default: random crops of margin 1.84")
    parser.add_argument("--config", type=Path, help="YAML file; default: the defaults")
    parser.add_argument("--set", nargs="*", default=[], metavar="section.name=value")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seconds", type=float, default=5.0, help="time given to each row")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    configs = {
        name: load_config(
            options.config,
            [
                *("train.ema_decay=0.999", "train.gradient_clip=5", *options.set),
                *("data.test_split=train", *VARIANTS[name]),
            ],
        )
        for name in options.variants
    }
    config = next(iter(configs.values()))
    with tempfile.TemporaryDirectory() as folder:
        size_px = round(MARGIN * config.data.input_size_px)
        count = max(256, 4 * config.train.batch_size)
        path = options.store or write_random_store(
            Path(folder) / "store", size_px=size_px, count=count
        )
        store = open_store(path)
        device = build_session(config, store, run=Path()).device
        options.device, options.loader_threads = str(device), config.data.num_threads
        options.input_size = config.data.input_size_px
        result = describe(options)
        rows = {
            name: measure(config, store, run=Path(folder), seconds=options.seconds)
            for name, config in configs.items()
        }
    result |= {
        "benchmark": "train",
        "backbone": config.model.backbone,
        "width_multiplier": config.model.width_multiplier,
        "stored_size_px": store.header.crop_size_px,
        "batch_size": config.train.batch_size,
        "images_per_second": rows,
    }
    write_result(result, options.out)


def measure(config: RunConfig, store: Store, *, run: Path, seconds: float) -> dict[str, float]:
    """Images per second of each row, the best repeat."""
    session = build_session(config, store, run=run)
    size = config.train.batch_size
    host = session.training.raw_batch(np.arange(size))
    raw = host.to(session.device)
    batch = augmented(session, raw)
    session.network.train()
    images = batch.images
    if config.train.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        pose = session.network.regressor(images)
    records = len(session.training)

    def backbone() -> None:
        with torch.autocast(session.device.type, dtype=torch.bfloat16, enabled=session.uses_bf16):
            predicted = session.network.regressor(images)
        (predicted.mean.sum() + predicted.scale.sum()).backward()

    def flow_and_likelihood() -> None:
        leaf = PoseDistribution(
            pose.mean.clone().requires_grad_(), pose.scale.clone().requires_grad_()
        )
        parts = batch_loss(
            leaf,
            batch,
            session.network.likelihood,
            location_share=1.0,
            location_scale=config.train.location_scale,
            reduction="per_joint",
        )
        sum(parts.values()).backward()

    def optimiser() -> None:
        torch.nn.utils.clip_grad_norm_(session.network.parameters(), 5.0)
        session.optimiser.step()
        session.average.update(session.network, step=0)

    def loader() -> None:
        for _ in load(session):
            pass

    def together() -> None:
        for loaded in load(session):
            take_step(session, augmented(session, loaded.to(session.device)))

    def evaluation() -> None:
        predictions = infer(
            session.network,
            session.validation,
            config,
            flip_test=True,
            batch_size=config.evaluate.batch_size,
            device=session.device,
        )
        evaluate_predictions(predictions)

    whole = size * (records // size)
    rows = {
        "loader": (loader, whole),
        "augmentation": (lambda: augmented(session, raw), size),
        "backbone": (backbone, size),
        "flow_and_likelihood": (flow_and_likelihood, size),
        "optimiser": (optimiser, size),
        "step": (lambda: take_step(session, batch), size),
        "together": (together, whole),
        "evaluation": (evaluation, records),
    }
    return {n: rate(row, count, seconds, session.device) for n, (row, count) in rows.items()}


def load(session: Session) -> BatchLoader:
    """An epoch of raw batches as training reads them."""
    return BatchLoader(
        session.training,
        batch_size=session.config.train.batch_size,
        seed=0,
        epoch=0,
        drop_last=True,
        num_threads=session.config.data.num_threads,
        prefetch=session.config.data.prefetch,
        pin_memory=session.device.type == "cuda",
    )


def augmented(session: Session, raw: RawBatch):
    """The batch that the network sees."""
    data = session.config.data
    return make_batch(
        raw,
        draw_parameters(session.config.augment, raw.index, seed=0, epoch=0),
        skeleton=session.training.skeleton,
        input_size_px=data.input_size_px,
        normalisation=data.normalisation,
    )


if __name__ == "__main__":
    main()
