"""What a training survives: bad conditions, with the remedies against collapse and without; JSON.

Every condition is trained with every seed by `pose3d.train`, once as it stands and once with the
remedies off: scale floor 1e-9, no bound on the residual, no clipping, no step left out, no buffers
put back, and the root's depth, which is always 0, supervised like any other label.

A run has diverged if a weight or the last epoch's mean loss is not finite, if training gave up, or
if its error after the last epoch is not below that of the mean training pose. The store is small
enough to be learnt by heart, and the error is the MPJPE of half of its training records, with their
true labels, over the joints that were labelled; under constant targets it is the mean distance from
that constant in (u, v, d), that of the mean label of the records being the bar.

    pose3d-prep synthetic STORE --train 64 --test 16 --size 48
    python benchmarks/bench_collapse.py STORE --runs runs.jsonl --out collapse.json
"""

import argparse
import dataclasses
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from provenance import provenance, write_result

from pose3d.data.augment import TrainingBatch
from pose3d.data.store import Store, open_store
from pose3d.engine import train as train_module
from pose3d.engine.config import RunConfig, load_config
from pose3d.engine.infer import infer, with_constant_pose
from pose3d.engine.journal import read_log
from pose3d.engine.optimise import batch_loss, learning_rate_at
from pose3d.engine.session import Session
from pose3d.engine.train import take_step, train
from pose3d.evaluation.predictions import Predictions
from pose3d.geometry.skeleton import skeleton_by_name
from pose3d.model.regressor import PoseDistribution

BASE = (
    *("data.input_size_px=32", "data.num_threads=0", "data.cache_gib=1", "data.test_split=train"),
    *("augment.enabled=false", "model.backbone=resnet18", "model.width_multiplier=0.25"),
    *("flow.hidden_dim=16", "likelihood.num_normaliser_samples=128"),
    *("likelihood.num_evaluation_samples=128", "train.batch_size=8", "train.epochs=40"),
    *("train.schedule=cosine", "train.warmup_steps=10", "train.learning_rate=1e-3"),
    *("train.location_beta=1", "train.num_threads=1", "train.figure_every_epochs=0"),
    *("train.device=cpu", "evaluate.flip_test=false", "evaluate.validation_every=2"),
)
WITHOUT_REMEDIES = (
    *("model.scale_floor=1e-9", "likelihood.residual_bound=1e9", "train.gradient_clip=0"),
    "train.max_skipped_in_a_row=1000000",
)
KINDS = {
    "paper": (),
    "paper-gaussian": ("likelihood.base=gaussian",),
    "released": ("likelihood.form=released", "likelihood.residual_bound=10"),
    "laplace": ("likelihood.kind=laplace",),
    "gaussian": ("likelihood.kind=gaussian",),
    "flow_reparam": ("likelihood.kind=flow_reparam",),
    "flow": ("likelihood.kind=flow",),
}
UNLABELLED_JOINT = "L_Wrist"
GROSS_SHARE, GROSS_OFFSET = 0.05, 100.0
"""Records of which one joint's label is off by so many sides of the crop, in u and v."""
STEPS_BETWEEN_NAN = 25
STEPS_BETWEEN_EXCEPTIONS = 25

Step = Callable[[Session, TrainingBatch], tuple[PoseDistribution, dict[str, float]]]


class Spoiler:
    """Changes the batches of one run.

    Args:
        condition: Its name in CONDITIONS.
        config: Of the run.
        seed: Of the garbage.
    """

    def __init__(self, condition: str, config: RunConfig, *, seed: int) -> None:
        self.condition = condition
        self.skeleton = skeleton_by_name(config.data.skeleton)
        self.seed = seed
        self.first: TrainingBatch | None = None
        self.num_batches = 0

    def __call__(self, batch: TrainingBatch) -> TrainingBatch:
        """The batch as the condition has it."""
        self.num_batches += 1
        if self.first is None:
            self.first = dataclasses.replace(
                batch, **{name: getattr(batch, name).clone() for name in ("images", "target")}
            )
        match self.condition:
            case "garbage 1 %":
                return self._with_garbage(batch, share=0.01)
            case "garbage 5 %":
                return self._with_garbage(batch, share=0.05)
            case "gross labels 5 %":
                return self._with_gross_labels(batch)
            case "constant targets" | "constant targets, exceptions":
                exception = batch.target[0].clone()
                batch.target[:] = self.first.target[0]
                if "exceptions" in self.condition and not (
                    self.num_batches % STEPS_BETWEEN_EXCEPTIONS
                ):
                    batch.target[0] = exception
            case "half duplicates":
                half = len(batch.index) // 2
                for name in ("images", "target", "weight"):
                    getattr(batch, name)[:half] = getattr(self.first, name)[0]
            case "joint never labelled":
                joint = self.skeleton.joint_names.index(UNLABELLED_JOINT)
                batch.weight[:, joint] = 0
                batch.target[:, joint] = math.nan
            case "NaN images" if self.num_batches % STEPS_BETWEEN_NAN == 0:
                batch.images[0, 0, 0, 0] = math.nan
        return batch

    def _with_garbage(self, batch: TrainingBatch, *, share: float) -> TrainingBatch:
        """Replace this share of the joints, always the same ones, by points of the whole range."""
        for row, index in enumerate(batch.index.tolist()):
            rng = np.random.default_rng([self.seed, index])
            num_joints = batch.target.shape[1]
            is_garbage = torch.from_numpy(rng.random(num_joints) < share)
            garbage = torch.from_numpy(rng.uniform(-0.5, 0.5, (num_joints, 3))).float()
            batch.target[row, is_garbage] = garbage[is_garbage]
        return batch

    def _with_gross_labels(self, batch: TrainingBatch) -> TrainingBatch:
        """Move one joint of this share of the records, always the same, far out of the crop."""
        for row, index in enumerate(batch.index.tolist()):
            rng = np.random.default_rng([self.seed, index])
            if rng.random() < GROSS_SHARE:
                joint = int(rng.integers(1, batch.target.shape[1]))
                batch.target[row, joint, :2] += GROSS_OFFSET * float(rng.choice([-1, 1]))
        return batch


CONDITIONS: dict[str, tuple[str, ...]] = {
    "clean": (),
    "learning rate × 3": ("train.learning_rate=3e-3",),
    "learning rate × 10": ("train.learning_rate=1e-2",),
    "garbage 1 %": (),
    "garbage 5 %": (),
    "gross labels 5 %": (),
    "constant targets": (),
    "constant targets, exceptions": (),
    "half duplicates": (),
    "joint never labelled": (),
    "NaN images": (),
    "bf16": ("train.precision=bf16",),
}
"""Settings of each condition; what else it does is in Spoiler."""
CONDITIONS_OF_KIND = {
    "paper": tuple(CONDITIONS),
    "released": ("constant targets", "gross labels 5 %"),
}
OTHER_CONDITIONS = ("gross labels 5 %",)


def main() -> None:
    """Parse, train, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument(
        "--conditions", nargs="+", choices=CONDITIONS, help="standard: see CONDITIONS_OF_KIND"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--set", nargs="*", default=[], metavar="section.name=value")
    parser.add_argument(
        "--runs", type=Path, help="file that every finished run goes to; those in it are not redone"
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    store = open_store(options.store)
    result = {
        "benchmark": "collapse",
        **provenance(store=store.header.source, store_digest=store.digest),
        "settings": [*BASE, *options.set],
        "without_remedies": [*WITHOUT_REMEDIES, "no step guard", "root depth supervised"],
    }
    runs = read_runs(options.runs)
    done = [identity(run) for run in runs]
    for kind in options.kinds:
        for condition in conditions_of(kind, options.conditions):
            for seed in options.seeds:
                for has_remedies in (True, False):
                    if (kind, condition, seed, has_remedies) in done:
                        continue
                    run = run_once(
                        store,
                        kind=kind,
                        condition=condition,
                        seed=seed,
                        has_remedies=has_remedies,
                        overrides=options.set,
                    )
                    runs.append(run)
                    if options.runs is not None:
                        with options.runs.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(run) + "\n")
    result["summary"] = {
        kind: {
            condition: summary(runs, kind, condition)
            for condition in conditions_of(kind, options.conditions)
        }
        for kind in options.kinds
    }
    write_result({**result, "runs": runs}, options.out)


def conditions_of(kind: str, chosen: list[str] | None) -> Sequence[str]:
    """Those asked for, or those of the kind."""
    return chosen or CONDITIONS_OF_KIND.get(kind, OTHER_CONDITIONS)


def read_runs(path: Path | None) -> list[dict[str, Any]]:
    """The finished runs of an earlier, interrupted call."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def identity(run: dict[str, Any]) -> tuple[str, str, int, bool]:
    """What tells a run from the others."""
    return run["kind"], run["condition"], run["seed"], run["remedies"]


@dataclass
class Watch:
    """What is noted while a run goes on."""

    session: Session | None = None
    smallest_scale: float = math.inf
    largest_loss: float = 0.0
    """Largest |loss| of the steps in which it was finite."""
    not_finite: int = 0


def run_once(
    store: Store,
    *,
    kind: str,
    condition: str,
    seed: int,
    has_remedies: bool,
    overrides: list[str],
) -> dict[str, Any]:
    """Train once; what came of it."""
    config = load_config(
        overrides=[
            *(*BASE, f"train.seed={seed}", *KINDS[kind], *CONDITIONS[condition], *overrides),
            *(() if has_remedies else WITHOUT_REMEDIES),
        ]
    )
    watch, spoiler = Watch(), Spoiler(condition, config, seed=seed)
    result: dict[str, Any] = {
        **{"kind": kind, "condition": condition, "seed": seed},
        "remedies": has_remedies,
        "gave_up": None,
    }
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, _patched(spoiler, watch, has_remedies):
        run = Path(folder) / "run"
        try:
            train(config, store=store, run=run, is_shown=False)
        except ValueError as refusal:
            result["gave_up"] = str(refusal)[:120]
        result["seconds"] = round(time.perf_counter() - started, 1)
        epochs = read_log(run) if (run / "log.jsonl").exists() else []
        session = watch.session
        assert session is not None
        loss = epochs[-1].get("loss") if epochs else None
        result["last_loss"] = loss
        result["weights_are_finite"] = all(
            bool(weight.isfinite().all()) for weight in session.network.state_dict().values()
        )
        result["steps"], result["steps_not_finite"] = session.progress.step, watch.not_finite
        result["bounded_joints"] = int(session.network.likelihood.num_bounded)
        result["smallest_scale"] = number(watch.smallest_scale)
        result["largest_loss"] = number(watch.largest_loss)
        error, bar = judged_error(session, spoiler, condition=condition)
        result["error"], result["mean_pose_error"] = number(error), number(bar)
        result["diverged"] = (
            loss is None
            or result["gave_up"] is not None
            or not result["weights_are_finite"]
            or not error < bar
        )
    return result


@contextmanager
def _patched(spoiler: Spoiler, watch: Watch, has_remedies: bool) -> Iterator[None]:
    """Let `train` see spoilt batches, and take the plain step where remedies are off."""
    make_batch = train_module.make_batch
    step = take_step if has_remedies else plain_step

    def spoilt(*arguments: Any, **named: Any) -> TrainingBatch:
        batch = spoiler(make_batch(*arguments, **named))
        if not has_remedies:
            batch.weight[:, spoiler.skeleton.root, 2] = 1
        return batch

    def watched(
        session: Session, batch: TrainingBatch
    ) -> tuple[PoseDistribution, dict[str, float]]:
        pose, values = step(session, batch)
        watch.session = session
        labelled = pose.scale.detach()[batch.weight > 0]
        watch.smallest_scale = min(watch.smallest_scale, float(labelled.min()))
        finite = math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])
        watch.not_finite += not finite
        if math.isfinite(values["loss"]):
            watch.largest_loss = max(watch.largest_loss, abs(values["loss"]))
        return pose, values

    with (
        mock.patch.object(train_module, "make_batch", spoilt),
        mock.patch.object(train_module, "take_step", watched),
    ):
        yield


def plain_step(session: Session, batch: TrainingBatch) -> tuple[PoseDistribution, dict[str, float]]:
    """The step of a training loop without any guard."""
    config = session.config.train
    rate = learning_rate_at(config, session.progress.step, steps_per_epoch=session.steps_per_epoch)
    for group in session.optimiser.param_groups:
        group["lr"] = rate
    session.optimiser.zero_grad()
    with torch.autocast(session.device.type, dtype=torch.bfloat16, enabled=session.uses_bf16):
        pose = session.network.regressor(batch.images)
    parts = batch_loss(
        pose,
        batch,
        session.network.likelihood,
        location_share=1.0,
        location_scale=config.location_scale,
        location_beta=config.location_beta,
        reduction=config.loss_reduction,
    )
    loss = torch.stack(list(parts.values())).sum()
    loss.backward()
    session.optimiser.step()
    values = {name: part.item() for name, part in parts.items()}
    return pose, {"loss": loss.item(), "gradient_norm": 0.0, "learning_rate": rate, **values}


def judged_error(session: Session, spoiler: Spoiler, *, condition: str) -> tuple[float, float]:
    """Error of the network and that of the mean pose, see the module; NaN is no number."""
    predictions = infer(
        session.judged_network,
        session.validation,
        session.config,
        flip_test=False,
        batch_size=session.config.evaluate.batch_size,
        device=session.device,
    )
    skeleton = spoiler.skeleton
    if condition.startswith("constant targets"):
        assert spoiler.first is not None
        constant = spoiler.first.target[0][list(skeleton.evaluation_joints)].numpy()
        labels = predictions.target_uvd
        return (
            float(np.linalg.norm(predictions.mean_uvd - constant, axis=-1).mean()),
            float(np.linalg.norm(labels - labels.mean(0), axis=-1).mean()),
        )
    if condition == "joint never labelled":
        predictions.weight[:, predictions.joint_names.index(UNLABELLED_JOINT)] = 0
    mean_pose = with_constant_pose(predictions, session.mean_pose_mm, skeleton=skeleton)
    return mpjpe(predictions), mpjpe(mean_pose)


def mpjpe(predictions: Predictions) -> float:
    """In millimetres; NaN where a prediction is."""
    return float(predictions.sample_mpjpe_mm.mean())


def number(value: float) -> float | None:
    """What JSON can hold, to five digits."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def summary(runs: list[dict[str, Any]], kind: str, condition: str) -> dict[str, str]:
    """Diverged n of m, with and without remedies."""
    words = {}
    for name, has_remedies in (("with", True), ("without", False)):
        chosen = [
            run["diverged"]
            for run in runs
            if (run["kind"], run["condition"], run["remedies"]) == (kind, condition, has_remedies)
        ]
        words[name] = f"diverged {sum(chosen)} of {len(chosen)}"
    return words


if __name__ == "__main__":
    main()
