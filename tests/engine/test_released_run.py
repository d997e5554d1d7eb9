"""Published weights as a run: predicted, judged, written back, and what may be wrong with them."""

import dataclasses
import json
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from scipy import ndimage

from pose3d import cli
from pose3d.data.store import open_store
from pose3d.engine.config import TrainConfig, load_config
from pose3d.engine.predict import load_run, predict, read_metrics
from pose3d.engine.released_run import export_released, import_released, released_config
from pose3d.engine.train import train
from pose3d.evaluation.predictions import Predictions
from pose3d.geometry.crop import crop_from_image
from pose3d.model.released import load_released
from pose3d.report.html import write_report


@pytest.fixture(scope="module")
def file(draw_released, tmp_path_factory):
    path = tmp_path_factory.mktemp("released") / "h36m.pth"
    weights = draw_released(18)
    weights["fc_coord.linear.weight"] *= 0.2  # poses within the crop
    torch.save(weights, path)
    return path


@pytest.fixture(scope="module")
def imported(file, dots, tmp_path_factory):
    """A run of imported weights with its results."""
    run = tmp_path_factory.mktemp("runs") / "imported"
    import_released(file, run)
    predict(run, store=dots, flip_test=False, device="cpu")
    return run


@pytest.fixture
def run_cli(monkeypatch, capsys, tmp_path):
    """A function that runs `pose3d ARGUMENTS` and gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pose3d", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        printed = capsys.readouterr()
        return int(exit_.value.code or 0), printed.out, printed.err

    return call


def released_crop(store, row, size=256):
    """A record's crop, sampled one pixel at a time, with the released colours."""
    centre_x, centre_y, side = store.records.box_image_px[row]
    image_x, image_y = (
        (np.arange(size) - (size - 1) / 2) * side / size + centre for centre in (centre_x, centre_y)
    )
    grid_y, grid_x = np.meshgrid(image_y, image_x, indexing="ij")
    points = np.stack([grid_x, grid_y, np.ones_like(grid_x)])
    x, y, _ = np.tensordot(store.records.store_from_image[row], points, axes=1)
    picture = store.image(row).astype(np.float64) / 255
    red, green, blue = (
        (ndimage.map_coordinates(picture[..., c], [y, x], order=1, mode="constant") - mean) / std
        for c, (mean, std) in enumerate(((0.406, 0.225), (0.457, 0.224), (0.480, 0.229)))
    )
    return torch.from_numpy(np.stack([red, green, blue])[None]).float()


def test_predictions_are_those_of_the_released_code(imported, file, dots):
    """Its colours, its joints, and depth less the predicted depth of the root."""
    predictions = Predictions.load(imported / "results" / "predictions.npz")
    regressor, store = load_released(file)[0], open_store(dots)
    assert len(predictions) == 4
    for row, store_row in enumerate(predictions.store_index):
        with torch.no_grad():
            pose = regressor(released_crop(store, int(store_row)))
        expected = pose.mean[0].numpy().copy()
        expected[:, 2] -= expected[0, 2].copy()
        np.testing.assert_allclose(predictions.mean_uvd[row], expected[:17], atol=2e-4)
        np.testing.assert_allclose(predictions.scale_uvd[row], pose.scale[0, :17], atol=2e-4)
    assert abs(float(pose.mean[0, 0, 2])) > 0.01  # the root's depth makes a difference
    assert "less the predicted depth of the root" in predictions.metadata["protocol"]


def test_the_run_is_the_file(imported, file):
    trained = load_run(imported)
    assert trained.config == released_config("resnet18") == load_config(imported / "config.yaml")
    assert trained.config.data.normalisation == "released"
    assert trained.config.data.skeleton == "human36m_18"
    assert (trained.store, trained.digest, trained.mean_pose_mm) == ("", "", None)
    assert re.fullmatch(r"h36m\.pth \(SHA-256 [0-9a-f]{64}\)", trained.imported)
    loaded = dict(zip(("regressor", "likelihood"), load_released(file), strict=True))
    for name, value in trained.network.state_dict().items():
        room, _, rest = name.partition(".")
        assert torch.equal(value, loaded[room].state_dict()[rest])
    last = torch.load(imported / "checkpoints" / "last.pt", weights_only=True)
    assert last["imported"] == trained.imported


def test_results_say_that_the_weights_were_imported(imported):
    metrics = read_metrics(imported)
    assert metrics["checkpoint"].startswith("imported from h36m.pth (SHA-256 ")
    assert "not known" in metrics["protocol"]["checkpoint"]
    assert metrics["protocol"]["train_subjects"] == "not known"
    metadata = Predictions.load(imported / "results" / "predictions.npz").metadata
    assert "no density" in metadata["sigma"]


def test_the_mean_pose_is_that_of_the_given_store(imported, dots, write_dots, tmp_path):
    store = open_store(dots)
    joints = store.records.joints_camera_mm.astype(np.float64)
    relative = joints - joints[:, :1]
    is_training = store.records.split == "train"
    mean = relative[is_training].mean(0)
    expected = np.linalg.norm(relative[~is_training] - mean, axis=-1).mean()
    metrics = read_metrics(imported)
    assert metrics["baseline_mean_pose_mpjpe_mm"] == pytest.approx(expected, rel=1e-5)
    only_test = write_dots(tmp_path / "store", num_train=0, num_test=2, seed=3)
    predict(imported, store=only_test, flip_test=False, out=tmp_path / "out", device="cpu")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["mpjpe_mm"] > 0
    assert not [name for name in metrics if name.startswith("baseline")]


def test_writing_an_imported_run_gives_back_the_very_file(imported, file, tmp_path):
    export_released(imported, tmp_path / "again.pth")
    first, again = (torch.load(path, weights_only=True) for path in (file, tmp_path / "again.pth"))
    assert list(first) == list(again)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_run_of_ours_comes_back_as_the_same_network(dots, tmp_path):
    """Trained on the released settings; the average weights are what is judged and written."""
    settings = TrainConfig(
        epochs=1, batch_size=2, limit_train_batches=2, device="cpu", ema_decay=0.5
    )
    config = dataclasses.replace(released_config("resnet18"), train=settings)
    data = dataclasses.replace(config.data, num_threads=0, test_every=2)
    config = dataclasses.replace(config, data=data)
    train(config, store=dots, run=tmp_path / "run", is_shown=False)
    export_released(tmp_path / "run", tmp_path / "ours.pth")
    import_released(tmp_path / "ours.pth", tmp_path / "again")
    first, again = (load_run(tmp_path / name).network.state_dict() for name in ("run", "again"))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    contents = torch.load(tmp_path / "run" / "checkpoints" / "best.pt", weights_only=True)
    name = "regressor.location_head.weight"
    assert torch.equal(again[name], contents["average"][name])
    assert not torch.equal(again[name], contents["network"][name])


def test_a_run_of_another_form_names_its_settings(small, dots, tmp_path):
    config = small("train.epochs=1", "train.limit_train_batches=1", "likelihood.form=released")
    train(config, store=dots, run=tmp_path / "run", is_shown=False)
    with pytest.raises(ValueError, match=r"data\.input_size_px is 32 and must be 256") as caught:
        export_released(tmp_path / "run", tmp_path / "ours.pth")
    assert "data.normalisation is imagenet and must be released" in str(caught.value)
    contents = torch.load(tmp_path / "run" / "checkpoints" / "best.pt", weights_only=True)
    contents["config"] = json.dumps(
        json.loads(contents["config"])
        | {"data": {"input_size_px": 256, "normalisation": "released"}}
    )
    torch.save(contents, tmp_path / "run" / "checkpoints" / "best.pt")
    (tmp_path / "run" / "config.yaml").unlink()
    with pytest.raises(ValueError, match=r"model\.scale_floor is 0\.001 and must be 1e-09"):
        export_released(tmp_path / "run", tmp_path / "ours.pth")
    assert not (tmp_path / "ours.pth").exists()


def test_from_a_file_to_a_table_and_back(run_cli, file, dots, tmp_path):
    code, out, err = run_cli("import-released", file, "run")
    assert code == 0, err
    assert "resnet18 imported; next: pose3d evaluate run --store STORE" in out
    code, _, err = run_cli("evaluate", "run")
    assert code == 2
    assert re.fullmatch(r"error: .*imported weights.*name one by --store\n", err)
    code, out, err = run_cli("predict", "run", "--store", dots, "--no-flip-test")
    assert code == 0, err
    assert "4 records predicted" in out
    code, out, err = run_cli("evaluate", "run", "--store", dots, "--no-flip-test")
    assert code == 0, err
    assert "records predicted" not in out  # the same results are there
    for text in ("MPJPE (mm)", "imported from", "not known"):
        assert text in out
    code, out, err = run_cli("export-released", "run", "back.pth", "--checkpoint", "last")
    assert code == 0, err
    assert "weights in back.pth" in out
    assert load_released(tmp_path / "back.pth")[0].config.backbone == "resnet18"


@pytest.mark.long
def test_an_imported_run_has_a_report(imported, tmp_path):
    page = write_report(imported, tmp_path / "report").read_text()
    assert "imported from h36m.pth" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("import-released none.pth run", r"no weights file at none\.pth"),
        ("import-released cut.pth run", r"cut\.pth is not a readable weights file"),
        ("import-released flipped.pth run", r"flipped\.pth .*checksum of .* does not match"),
        ("import-released text.pth run", r"text\.pth is not a readable weights file"),
        ("import-released other.pth run", r"fc_coord\.linear\.bias.* missing"),
        ("import-released good.pth full", "full is not empty; name another folder"),
        ("import-released good.pth good.pth", "is a file; name a folder"),
        ("export-released none new.pth", "no run at none"),
        ("export-released full new.pth", "no checkpoint at"),
        ("export-released imported good.pth", r"good\.pth is there already; name another file"),
        ("train c.yaml --store S --run imported --resume", "cannot resume .* imported weights"),
    ],
)
def test_wrong_input_ends_in_one_line(run_cli, file, imported, dots, tmp_path, arguments, message):
    whole = file.read_bytes()
    shutil.copy(file, tmp_path / "good.pth")
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :]
    (tmp_path / "flipped.pth").write_bytes(flipped)
    (tmp_path / "text.pth").write_text("not weights\n" * 99)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    places = {"S": str(dots), "imported": str(imported), "c.yaml": str(imported / "config.yaml")}
    before = sorted(tmp_path.rglob("*"))
    code, _, err = run_cli(*(places.get(word, word) for word in arguments.split()))
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line)
    assert sorted(tmp_path.rglob("*")) == before


def released_map(box, size):
    """Crop pixels from image pixels as the released code has it: the box centre goes to W/2."""
    centre_x, centre_y, side = box
    zoom = size / side
    return np.array(
        [
            [zoom, 0, size / 2 - zoom * centre_x],
            [0, zoom, size / 2 - zoom * centre_y],
            [0, 0, 1],
        ]
    )


def test_our_crop_is_the_released_one_of_a_box_half_a_crop_pixel_away():
    """So the network sees what it was trained on; no coordinate is off by anything."""
    box = np.array([510.0, 480.0, 437.0])
    ours = crop_from_image(torch.from_numpy(box), crop_size_px=256).numpy()
    moved = box + np.array([0.5, 0.5, 0]) * box[2] / 256
    np.testing.assert_allclose(ours, released_map(moved, 256), atol=1e-9)


def test_a_network_that_reads_pixels_is_right_under_both_conventions():
    """u = x/W − ½ names a pixel of the crop that was seen, whatever box it was cut by."""
    box, point = np.array([510.0, 480.0, 437.0]), np.array([601.5, 322.25, 1.0])
    ours = crop_from_image(torch.from_numpy(box), crop_size_px=256).numpy()
    for image_to_crop in (ours, released_map(box, 256)):
        uv = (image_to_crop @ point)[:2] / 256 - 0.5  # what training asks for
        back = np.linalg.inv(image_to_crop) @ [*(uv + 0.5) * 256, 1]
        np.testing.assert_allclose(back, point, atol=1e-9)
