"""The command line: one line for what is wrong, and the way from a store to a report."""

import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pose3d import cli
from pose3d.data.store import ShardWriter, StoreHeader, StoreRecord, finalise_store, open_store
from pose3d.geometry.camera import Camera

SMALL = """
data: {input_size_px: 32, num_threads: 0}
model: {backbone: resnet18, width_multiplier: 0.125}
flow: {hidden_dim: 8}
likelihood: {num_normaliser_samples: 64, num_evaluation_samples: 64}
train: {epochs: 1, batch_size: 4, device: cpu, figure_every_epochs: 0}
evaluate: {density_cells: 6, num_examples: 1}
"""


def write_store(path: Path) -> Path:
    """Eight grey images with random joints in the middle."""
    rng = np.random.default_rng(0)
    header = StoreHeader(
        skeleton="human36m_17",
        source="noise",
        box_definition="fixed",
        crop_size_px=40,
        margin=1.0,
        jpeg_quality=90,
    )
    path.mkdir()
    with ShardWriter(path / "shard-0.h5", header=header) as writer:
        for index in range(8):
            joints = rng.normal([0, 0, 5000], 200, (17, 3)).astype(np.float32)
            image = rng.integers(0, 255, (40, 40, 3), np.uint8)
            store_from_image = np.array([[0.05, 0, -5.6], [0, 0.05, -5.6], [0, 0, 1]])
            writer.add(
                StoreRecord(
                    image_jpeg=cv2.imencode(".jpg", image)[1].tobytes(),
                    joints_camera_mm=joints,
                    weight=np.ones((17, 3), np.float32),
                    visibility=np.ones(17, np.uint8),
                    camera=Camera.from_parameters(
                        focal_px=[1e3, 1e3], principal_point_px=[5e2] * 2
                    ),
                    camera_name="a",
                    store_from_image=store_from_image,
                    box_image_px=np.array([502.0, 502.0, 800.0]),
                    subject=1,
                    action="Walking",
                    subaction=1,
                    frame=index,
                    split="test" if index % 2 else "train",
                    source_file=f"{index}.jpg",
                    image_size_px=(1000, 1000),
                )
            )
    finalise_store(path, header)
    return path


@pytest.fixture
def run_cli(monkeypatch, capsys, tmp_path):
    """A function that runs `pose3d ARGUMENTS` and gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pose3d", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        printed = capsys.readouterr()
        return int(exit_.value.code or 0), printed.out, printed.err

    return call


@pytest.fixture
def place(tmp_path):
    """A folder with a store and a config."""
    write_store(tmp_path / "store")
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path


def test_from_store_to_report(place, run_cli):
    code, out, err = run_cli(
        *("train", "small.yaml", "--store", "store", "--run", "run", "train.seed=3")
    )
    assert code == 0, err
    assert "mean pose" in out
    assert "seed: 3" in Path("run/config.yaml").read_text()
    code, out, err = run_cli("evaluate", "run")
    assert code == 0, err
    for text in ("MPJPE (mm)", "PA-MPJPE, rigid", "mean pose", "ground truth", "Walking"):
        assert text in out
    code, out, err = run_cli("predict", "run", "--split", "train", "--no-flip-test", "--out", "o")
    assert code == 0, err
    assert "4 records predicted, results in o" in out
    assert sorted(p.name for p in Path("o").iterdir()) == [
        *("density.npz", "examples.npz", "metrics.json", "predictions.npz")
    ]
    code, out, err = run_cli("evaluate", "run")
    assert "records predicted" not in out  # the same results are there


def test_evaluate_never_prints_the_results_of_another_request(place, run_cli):
    assert run_cli("train", "small.yaml", "--store", "store", "--run", "run")[0] == 0

    def printed(*arguments: str) -> tuple[bool, list[str]]:
        """Whether it predicted, and the lines without the speed."""
        code, out, err = run_cli("evaluate", "run", *arguments)
        assert code == 0, err
        is_new = "records predicted" in out
        return is_new, [line for line in out.splitlines()[is_new:] if "speed" not in line]

    is_new, expected = printed()
    assert is_new
    for arguments in (("--split", "train"), ("--checkpoint", "last"), ("--no-flip-test",)):
        assert run_cli("predict", "run", *arguments)[0] == 0
        is_new, lines = printed(*arguments)
        assert not is_new
        assert lines != expected
        assert printed() == (True, expected)
        assert printed() == (False, expected)


def test_evaluate_counts_what_it_could_not_read(place, run_cli):
    train = ("train", "small.yaml", "--store", "store", "--run", "run")
    assert run_cli(*train, "data.bad_records=skip", "evaluate.num_examples=9")[0] == 0
    jpeg = open_store("store").image_bytes(1)
    shard = Path("store/shard-0.h5")
    shard.write_bytes(shard.read_bytes().replace(jpeg, bytes(len(jpeg))))
    code, out, err = run_cli("evaluate", "run")
    assert code == 0, err
    assert "3 records predicted (1 unreadable left out)" in out
    assert "3 (0 without labels and 1 unreadable left out)" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train none.yaml --store store --run r", r"no config file at none\.yaml"),
        ("train demo --store store --run r", r"no config file at demo; did you mean .*demo\.yaml"),
        ("train small.yaml --store none --run r", "none"),
        ("train small.yaml --store store --run store", "is not empty; add --resume"),
        ("train small.yaml --store store --run small.yaml", "is a file"),
        ("train small.yaml --store store --run r train.epoch=3", r"did you mean train\.epochs\?"),
        ("train small.yaml --store store --run r train.epochs=x", r"train\.epochs: got 'x'"),
        ("train small.yaml --store store --run r train.device=toaster", "toaster cannot be used"),
        ("train small.yaml --store store --run r data.train_subjects=[3]", "no records of split"),
        ("train small.yaml --store store --run r model.pretrained=w.pth", r"w\.pth"),
        ("predict none", "no run at none"),
        ("predict store", r"no checkpoint at store/checkpoints/best\.pt; train the run first"),
        ("evaluate none", "no run at none"),
        ("report none", "none"),
    ],
)
def test_wrong_input_ends_in_one_line(place, run_cli, arguments, message):
    code, _, err = run_cli(*arguments.split())
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line)


def test_a_store_of_another_schema_is_refused(place, run_cli):
    manifest = place / "store" / "store.json"
    text = manifest.read_text().replace('"schema_version": 1', '"schema_version": 9')
    manifest.write_text(text)
    code, _, err = run_cli("train", "small.yaml", "--store", "store", "--run", "r")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "schema version 9; this release reads version 1" in err


def test_a_truncated_store_is_refused(place, run_cli):
    shard = place / "store" / "shard-0.h5"
    shard.write_bytes(shard.read_bytes()[:-1000])
    code, _, err = run_cli("train", "small.yaml", "--store", "store", "--run", "r")
    assert (code, len(err.splitlines())) == (2, 1)


def test_a_stopped_training_says_how_to_go_on(place, run_cli, monkeypatch):
    from pose3d.engine import train

    original = train.make_batch

    def interrupting(*args, **kwargs):
        import signal

        signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)

    monkeypatch.setattr(train, "make_batch", interrupting)
    arguments = ("train", "small.yaml", "--store", "store", "--run", "run", "train.epochs=2")
    code, out, _ = run_cli(*arguments)
    assert code == cli.EXIT_STOPPED
    assert "go on with --resume" in out
    monkeypatch.setattr(train, "make_batch", original)
    code, out, err = run_cli(*arguments, "--resume")
    assert code == 0, err
    assert "resuming after step 1 of 2" in out


def test_the_example_of_the_package_runs():
    import doctest

    import pose3d

    torch.manual_seed(0)
    assert doctest.testmod(pose3d).failed == 0


def test_the_public_names_are_there():
    import pose3d

    assert set(pose3d.__all__) >= {
        *("load_config", "open_store", "Camera", "encode_uvd", "decode_uvd", "PoseRegressor"),
        *("PoseDistribution", "ResidualFlow", "Likelihood", "train", "predict"),
        *("mpjpe", "pa_mpjpe", "n_mpjpe"),
    }
    for name in pose3d.__all__:
        assert getattr(pose3d, name).__doc__
    assert re.fullmatch(r"\d+\.\d+\.\d+", pose3d.__version__)
