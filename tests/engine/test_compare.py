"""Comparing variants: resumed equals uninterrupted, and the numbers are those of other sources."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from pose3d import cli
from pose3d.data.dataset import make_dataset
from pose3d.data.store import open_store
from pose3d.engine import compare as compare_module
from pose3d.engine import train as train_module
from pose3d.engine.compare import compare, read_comparison
from pose3d.engine.infer import plain_batch
from pose3d.engine.journal import read_log
from pose3d.engine.judge import centred_predictions, coverage_counts, describes_axes
from pose3d.engine.network import Network
from pose3d.engine.predict import load_run, predict, read_metrics
from pose3d.evaluation.density import ResidualDensity
from pose3d.evaluation.npz import read_npz, write_npz

NAMES = ("l1-seed0", "wide-seed0", "l1-seed1", "wide-seed1")


def write_plan(path: Path, small_overrides, *, variants: str, more: str = "") -> Path:
    """A comparison over small settings; two epochs of four steps, a checkpoint at each."""
    sections: dict[str, list[str]] = {}
    for override in (*small_overrides, "train.checkpoint_every_steps=1"):
        section, _, rest = override.partition(".")
        sections.setdefault(section, []).append(rest.replace("=", ": "))
    base = "".join(f"  {name}: {{{', '.join(rows)}}}\n" for name, rows in sections.items())
    path.write_text(f"base:\n{base}seeds: [0, 1]\n{more}variants:\n{variants}", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def plan(small_overrides, tmp_path_factory):
    """ℓ1 against a Laplace likelihood, two seeds."""
    return write_plan(
        tmp_path_factory.mktemp("plan") / "compare.yaml",
        small_overrides,
        variants="  l1: {likelihood: {kind: l1}}\n  wide: [likelihood.kind=laplace]\n",
        more="reference: l1\n",
    )


@pytest.fixture(scope="module")
def finished(plan, dots, tmp_path_factory):
    """The folder of that comparison, trained without interruption."""
    out = tmp_path_factory.mktemp("compare") / "out"
    threads = torch.get_num_threads()
    assert compare(plan, store=dots, out=out, is_shown=False).is_complete
    torch.set_num_threads(threads)
    return out


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "out")


def kept(out: Path) -> dict[str, dict[str, np.ndarray]]:
    return {path.stem: read_npz(path) for path in (out / "results").glob("*.npz")}


def variant_rows(out: Path) -> list[dict]:
    """What the table says, less the speeds."""
    rows = read_comparison(out)["variants"]
    for row in rows:
        del row["images_per_second"]
        for curve in row["curves"].values():
            del curve["images_per_second"]
    return rows


def assert_same_results(out: Path, other: Path) -> None:
    ours, theirs = kept(out), kept(other)
    assert set(ours) == set(theirs) == set(NAMES)
    for name, arrays in theirs.items():
        assert set(ours[name]) == set(arrays)
        for key, values in arrays.items():
            np.testing.assert_array_equal(ours[name][key], values, err_msg=f"{name} {key}")
    assert variant_rows(out) == variant_rows(other)


def test_killed_at_any_point_and_called_again_it_equals_an_uninterrupted_one(
    finished, plan, dots, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    true_step, true_judge = train_module.take_step, compare_module.judge_run
    steps, judged, fatal_steps, fatal_judgements = [0], [0], {3, 14, 29}, {2}

    def mortal_step(session, batch):
        steps[0] += 1
        if steps[0] in fatal_steps:
            raise KeyboardInterrupt
        return true_step(session, batch)

    def mortal_judge(run, **arguments):
        judged[0] += 1
        if judged[0] in fatal_judgements:
            raise KeyboardInterrupt
        return true_judge(run, **arguments)

    monkeypatch.setattr(train_module, "take_step", mortal_step)
    monkeypatch.setattr(compare_module, "judge_run", mortal_judge)
    calls = 0
    while (result := compare(plan, store=dots, out=out, is_shown=False)).was_stopped:
        calls += 1
        assert not result.is_complete
    assert calls == 4
    assert result.is_complete
    assert_same_results(out, finished)


def test_a_second_call_trains_nothing(copied, plan, dots, monkeypatch):
    monkeypatch.setattr(compare_module, "train", None)
    before = {path: path.stat().st_mtime_ns for path in (copied / "results").iterdir()}
    assert compare(plan, store=dots, out=copied, is_shown=False).is_complete
    assert before == {path: path.stat().st_mtime_ns for path in (copied / "results").iterdir()}


def test_the_table_can_be_made_without_the_runs_and_the_store(copied, plan, finished):
    shutil.rmtree(copied / "runs")
    (copied / "comparison.json").unlink()
    assert compare(plan, store=None, out=copied, table_only=True, is_shown=False).is_complete
    assert variant_rows(copied) == variant_rows(finished)


def test_partial_results_are_a_table_with_gaps(copied, plan, finished):
    for label in ("l1-seed0", "l1-seed1", "wide-seed0"):
        for file in (copied / "results").glob(f"{label}.*"):
            file.unlink()
    result = compare(plan, store=None, out=copied, table_only=True, is_shown=False)
    assert not result.is_complete
    l1, wide = result.numbers["variants"]
    assert (l1["seeds"], l1["missing"], l1["metrics"]) == ([], [0, 1], {})
    assert (wide["seeds"], wide["missing"]) == ([1], [0])
    assert wide["difference"] == {}
    whole = read_comparison(finished)["variants"][1]
    by_seed = wide["metrics"]["mpjpe_mm"]["by_seed"]
    assert by_seed == {"1": whole["metrics"]["mpjpe_mm"]["by_seed"]["1"]}
    assert wide["metrics"]["mpjpe_mm"]["value"] == by_seed["1"]


def test_the_command_is_the_one_that_makes_the_whole_table(copied, plan, dots):
    expected = f"pose3d compare {plan} --store {dots} --out {copied}"
    given = {"store": dots, "out": copied, "is_shown": False}
    compare(plan, only=["wide"], seeds=[1], **given)
    assert read_comparison(copied)["command"] == expected
    compare(plan, **{**given, "store": None}, table_only=True)
    assert read_comparison(copied)["command"] == expected


def test_a_metric_that_one_seed_lacks_is_left_out(copied, plan):
    path = copied / "results" / "wide-seed1.npz"
    arrays = {n: v for n, v in read_npz(path).items() if n not in ("covered", "coverable")}
    write_npz(path, arrays)
    result = compare(plan, store=None, out=copied, table_only=True, is_shown=False)
    metrics = result.numbers["variants"][1]["metrics"]
    assert "coverage_50" not in metrics
    assert set(metrics["mpjpe_mm"]["by_seed"]) == {"0", "1"}


def test_settings_that_do_not_fit_the_store_are_refused_before_any_training(
    plan, dots, tmp_path, monkeypatch
):
    monkeypatch.setattr(compare_module, "train", None)
    changed = tmp_path / "changed.yaml"
    shares = "num_threads: 0, store_shares: [1, 1]"
    changed.write_text(plan.read_text().replace("num_threads: 0", shares, 1))
    with pytest.raises(ValueError, match=r"data\.store_shares must have one number"):
        compare(changed, store=dots, out=tmp_path / "out", is_shown=False)
    assert not list(tmp_path.glob("out/results/*"))


def test_one_that_breaks_off_stops_no_other(plan, dots, tmp_path, monkeypatch):
    trained = []

    def breaks(job, store, **arguments):
        if job.label == "wide-seed0":
            raise RuntimeError("out of\nmemory")
        trained.append(job.label)
        return 0

    monkeypatch.setattr(compare_module, "finish_run", breaks)
    result = compare(plan, store=dots, out=tmp_path / "out", is_shown=False)
    assert trained == ["l1-seed0", "l1-seed1", "wide-seed1"]
    assert result.unfinished == {"wide-seed0": "out of memory"}
    assert not result.was_stopped


def test_no_table_is_made_where_nothing_was_compared(plan, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was compared at"):
        compare(plan, store=None, out=tmp_path / "typo", table_only=True, is_shown=False)
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, [*NAMES]),
        ({"seeds": [1]}, ["l1-seed1", "wide-seed1"]),
        ({"only": ["wide"], "seeds": [0, 5]}, ["wide-seed0", "wide-seed5"]),
    ],
)
def test_what_is_chosen_is_trained_seed_by_seed(
    plan, dots, tmp_path, monkeypatch, chosen, expected
):
    trained = []

    def note(job, store, **arguments):
        trained.append(job.label)
        assert job.config.train.seed == job.seed
        return 0

    monkeypatch.setattr(compare_module, "finish_run", note)
    compare(plan, store=dots, out=tmp_path / "out", is_shown=False, **chosen)
    assert trained == expected


def test_errors_are_those_of_validation_and_of_evaluate(finished):
    rows = {row["name"]: row for row in read_comparison(finished)["variants"]}
    for label in NAMES:
        name, _, seed = label.partition("-seed")
        found = {m: v["by_seed"][seed] for m, v in rows[name]["metrics"].items()}
        run = finished / "runs" / label
        last = read_log(run)[-1]
        assert found["mpjpe_mm"] == pytest.approx(last["mpjpe_mm"], rel=1e-9)
        assert found["pa_mpjpe_mm"] == pytest.approx(last["pa_mpjpe_mm"], rel=1e-9)
        assert rows[name]["curves"][seed]["mpjpe_mm"] == [x["mpjpe_mm"] for x in read_log(run)]
        if name == "wide":
            evaluated = read_metrics(run)["sigma_error_spearman"]["within_joint"]
            assert found["sigma_error_spearman"] == pytest.approx(evaluated, abs=1e-9)


def test_runs_of_one_seed_see_the_same_images_and_begin_alike(finished):
    """Before the first step nothing but the loss differs, and data hang on seed and epoch."""
    first = {
        label: torch.load(finished / "runs" / label / "checkpoints" / "last.pt", weights_only=True)[
            "random"
        ]["torch"]
        for label in NAMES
    }
    assert torch.equal(first["l1-seed0"], first["wide-seed0"])
    assert not torch.equal(first["l1-seed0"], first["l1-seed1"])


def test_average_and_difference_are_over_seeds(finished):
    l1, wide = read_comparison(finished)["variants"]
    values = [row["metrics"]["mpjpe_mm"]["by_seed"] for row in (l1, wide)]
    means = [np.mean(list(by_seed.values())) for by_seed in values]
    assert wide["metrics"]["mpjpe_mm"]["value"] == pytest.approx(means[1])
    assert wide["difference"]["mpjpe_mm"]["value"] == pytest.approx(means[1] - means[0])
    assert l1["difference"]["mpjpe_mm"] == {"value": 0, "low": 0, "high": 0, "seeds": [0, 1]}


def test_nats_are_scipys_of_the_regressors_own_answer(finished, dots):
    trained = load_run(finished / "runs" / "wide-seed0", checkpoint="last")
    dataset = make_dataset(open_store(dots), trained.config.data, role="test")
    batch = plain_batch(dataset.raw_batch(np.arange(len(dataset))), trained.config.data)
    with torch.no_grad():
        pose = trained.network.regressor(batch.images)
    mean, scale, target, weight = (
        x.double().numpy() for x in (pose.mean, pose.scale, batch.target, batch.weight)
    )
    assert set(np.unique(weight)) == {0, 1}
    nats = -(stats.laplace.logpdf(target, mean, scale) * weight).sum((1, 2))
    joints = (weight > 0).any(-1).sum(1)
    arrays = kept(finished)["wide-seed0"]
    assert arrays["nats"] == pytest.approx(nats, rel=1e-5)
    assert arrays["nats_joints"].tolist() == joints.tolist()
    row = read_comparison(finished)["variants"][1]
    found = row["metrics"]["nats_per_joint"]["by_seed"]["0"]
    assert found == pytest.approx(nats.sum() / joints.sum(), rel=1e-5)


def test_what_a_loss_has_not_is_left_out(finished):
    l1, wide = read_comparison(finished)["variants"]
    assert set(l1["metrics"]) == {"mpjpe_mm", "pa_mpjpe_mm"}
    assert {"nats_per_joint", "sigma_error_spearman", "mpjpe_mm_centred"} <= set(wide["metrics"])


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("likelihood.kind=laplace", True),
        ("likelihood.kind=rle", True),
        ("model.scale_head=cholesky", False),
        ("flow.condition=joint", False),
        ("flow.condition=feature", False),
    ],
)
def test_one_density_for_all_axes_is_not_claimed_where_there_is_none(small, setting, expected):
    assert describes_axes(Network(small(setting))) is expected


def skewed_log_density(points):
    """Independent axes: v of a gamma density shifted to begin at −1, u and d normal."""
    u, v, d = points.T
    with np.errstate(divide="ignore"):
        gamma = np.maximum(stats.gamma.logpdf(v + 1, 3, scale=0.7), -200)
    return stats.norm.logpdf(u, 0.4) + gamma + stats.norm.logpdf(d, -0.2)


@pytest.fixture(scope="module")
def predicted(finished):
    """Predictions of a run and a skewed density, the image alone."""
    run = finished / "runs" / "wide-seed0"
    predictions = predict(run, checkpoint="last", flip_test=False, out=run.parent / "alone")
    return predictions, ResidualDensity.from_log_density(skewed_log_density, num_cells=12)


@pytest.mark.parametrize("flip_test", [False, True])
def test_centred_estimate_is_decoded_by_hand(predicted, dots, flip_test):
    predictions, density = predicted
    predictions = dataclasses.replace(
        predictions, metadata={**predictions.metadata, "flip_test": flip_test}
    )
    store = open_store(dots)
    found = centred_predictions(predictions, density, store=store, depth_range_mm=2000.0)
    centre = density.geometric_median * [0 if flip_test else 1, 1, 1]
    assert abs(centre[1]) > 0.2
    uvd = predictions.mean_uvd + predictions.scale_uvd * centre
    uvd[:, 0, 2] = 0
    pixels = np.concatenate([(uvd[..., :2] + 0.5) * 32, np.ones_like(uvd[..., :1])], -1)
    image = np.einsum("nij,nkj->nki", np.linalg.inv(predictions.crop_from_image), pixels)
    depth = uvd[..., 2:] * 2000 + predictions.root_depth_mm[:, None, None]
    # The camera of the dots: no distortion.
    rays = (image[..., :2] - [512.0, 515.0]) / [1145.0, 1144.0]
    camera_mm = np.concatenate([rays * depth, depth], -1)
    relative = camera_mm - camera_mm[:, :1]
    assert found.predicted_root_relative_mm == pytest.approx(relative, abs=0.02)
    assert np.array_equal(found.target_root_relative_mm, predictions.target_root_relative_mm)


def test_coverage_counts_labels_between_quantiles(predicted):
    predictions, density = predicted
    rng = np.random.default_rng(0)
    shape = predictions.mean_uvd.shape
    residual = np.stack(
        [
            rng.normal(0.4, 1, shape[:2]),
            rng.gamma(3, 0.7, shape[:2]) - 1,
            rng.normal(-0.2, 1, shape[:2]),
        ],
        -1,
    )
    target = predictions.mean_uvd + predictions.scale_uvd * residual
    weight = np.ones(shape, np.float32)
    weight[1, 5] = 0
    predictions = dataclasses.replace(
        predictions, target_uvd=target.astype(np.float32), weight=weight
    )
    counts = coverage_counts(predictions, density)
    exact = (stats.norm(0.4), stats.gamma(3, loc=-1, scale=0.7), stats.norm(-0.2))
    for axis, distribution in enumerate(exact):
        for number, level in enumerate((0.5, 0.8, 0.9, 0.95)):
            low, high = distribution.interval(level)
            inside = (residual[..., axis] > low) & (residual[..., axis] < high)
            inside &= weight[..., axis] > 0
            if axis == 2:
                inside[:, 0] = False  # the root's depth is given
            assert abs(counts["covered"][:, axis, number] - inside.sum(1)).max() <= 1
    assert counts["coverable"].tolist() == [[17, 17, 16], [16, 16, 15], *[[17, 17, 16]] * 2]


def test_a_variant_that_fails_is_recorded_and_stops_no_other(small_overrides, dots, tmp_path):
    plan = write_plan(
        tmp_path / "compare.yaml",
        small_overrides,
        variants="  wild: [train.learning_rate=1e30, train.max_skipped_in_a_row=1]\n"
        "  l1: [likelihood.kind=l1]\n",
    )
    out = tmp_path / "out"
    result = compare(plan, store=dots, out=out, seeds=[0], is_shown=False)
    wild, l1 = result.numbers["variants"]
    assert "not finite" in wild["failed"]["0"]
    assert (wild["seeds"], wild["metrics"]) == ([], {})
    assert l1["seeds"] == [0]
    assert not result.is_complete
    before = (out / "results" / "wild-seed0.json").stat().st_mtime_ns
    compare(plan, store=dots, out=out, seeds=[0], is_shown=False)
    assert (out / "results" / "wild-seed0.json").stat().st_mtime_ns == before
    compare(plan, store=dots, out=out, seeds=[0], retry=True, is_shown=False)
    assert (out / "results" / "wild-seed0.json").stat().st_mtime_ns > before


def test_a_finished_run_of_other_settings_is_refused_by_name(copied, plan, dots, tmp_path):
    changed = tmp_path / "changed.yaml"
    changed.write_text(plan.read_text().replace("epochs: 2", "epochs: 3"))
    with pytest.raises(ValueError, match=r"l1-seed0 .*train\.epochs was 2 and is now 3.*remove"):
        compare(changed, store=dots, out=copied, is_shown=False)
    (copied / "results" / "l1-seed0.json").unlink()  # and one that is half done
    with pytest.raises(ValueError, match=r"l1-seed0 .*train\.epochs was 2 and is now 3"):
        compare(changed, store=dots, out=copied, is_shown=False)


def test_another_store_is_refused(copied, plan, write_dots, tmp_path):
    other = write_dots(tmp_path / "store", num_train=16, num_test=4, seed=1)
    with pytest.raises(ValueError, match="l1-seed0 was trained on another store"):
        compare(plan, store=other, out=copied, is_shown=False)


def test_threads_that_only_read_may_change(copied, plan, dots, tmp_path):
    changed = tmp_path / "changed.yaml"
    changed.write_text(plan.read_text().replace("num_threads: 0", "num_threads: 1", 1))
    assert changed.read_text() != plan.read_text()
    assert compare(changed, store=dots, out=copied, is_shown=False).is_complete


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"only": ["l2"]}, "no variant 'l2'; there are l1, wide"),
        ({"seeds": [0, 0]}, "seeds must be distinct"),
        ({"jobs": 0}, "jobs must be >= 1"),
        ({"store": None}, "name the store"),
    ],
)
def test_wrong_arguments_are_named(plan, dots, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        compare(plan, **{"store": dots, "out": tmp_path / "out", **arguments}, is_shown=False)


def test_a_missing_file_names_the_shipped_comparisons(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pose3d", "compare", "small.yaml", "--out", "out"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 2
    assert "did you mean" in (error := capsys.readouterr().err)
    assert "comparisons/small.yaml?" in error


def test_numbers_say_where_they_come_from(finished):
    numbers = json.loads((finished / "comparison.json").read_text())
    assert numbers["command"].startswith("pose3d compare")
    assert numbers["records"] == 4
    assert numbers["sequences"] == 2
    assert numbers["budget"]["epochs"] == 2
    for name in ("device", "machine", "commit", "threads", "jobs"):
        assert numbers["runs"][name]
    assert "last" in numbers["definitions"]["checkpoint"]


@pytest.mark.long
def test_killed_with_its_children_and_called_again_side_by_side(finished, plan, dots, tmp_path):
    out = tmp_path / "out"
    code = "from pose3d.cli import main; main()"
    command = [sys.executable, "-c", code, "compare", str(plan), "--store", str(dots)]
    command += ["--out", str(out), "--jobs", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for number, deadly in ((signal.SIGKILL, 1), (signal.SIGINT, 3)):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 600
        while len(list(out.glob("runs/*/checkpoints/last.pt"))) < deadly:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(timeout=600) in (-signal.SIGKILL, 130)
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert_same_results(out, finished)
