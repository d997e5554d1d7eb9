"""A tiny store of dots, and settings that fit it in seconds."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pose3d.data.store import ShardWriter, StoreHeader, StoreRecord, finalise_store
from pose3d.engine.config import load_config
from pose3d.geometry.camera import Camera
from pose3d.geometry.crop import box_from_joints, crop_from_image, square_box, transform_points

STORED_PX = 72
SMALL = (
    *("data.input_size_px=32", "data.num_threads=0", "evaluate.density_cells=4"),
    *("model.backbone=resnet18", "model.width_multiplier=0.125", "flow.hidden_dim=8"),
    *("likelihood.num_normaliser_samples=64", "likelihood.num_evaluation_samples=64"),
    *("train.batch_size=4", "train.epochs=2", "train.num_threads=1", "train.device=cpu"),
    *("train.figure_every_epochs=0", "train.ema_decay=0.9", "evaluate.num_examples=2"),
)


def random_joints(rng: np.random.Generator) -> np.ndarray:
    joints = rng.normal([rng.normal(0, 200), 0, 4500], [150, 400, 150], (17, 3))
    joints[0] = [joints[1:, 0].mean(), 0, 4500]
    return joints


def dots_record(index: int, *, split: str, rng: np.random.Generator) -> StoreRecord:
    """A person of coloured dots, one per joint, before Human3.6M's focal length."""
    camera = Camera.from_parameters(focal_px=[1145.0, 1144.0], principal_point_px=[512.0, 515.0])
    joints = random_joints(rng)
    image_px = camera.camera_to_image(torch.from_numpy(joints))
    box = square_box(box_from_joints(image_px, enlarge=1.0), enlarge=1.1)
    shown = torch.cat([box[:2], box[2:] * 1.84])
    store_from_image = crop_from_image(shown, crop_size_px=STORED_PX)
    image = np.full((STORED_PX, STORED_PX, 3), 60, np.uint8)
    for joint, centre in enumerate(transform_points(store_from_image, image_px).numpy()):
        colour = cv2.applyColorMap(np.uint8([[joint * 15]]), cv2.COLORMAP_JET)[0, 0]
        cv2.circle(image, tuple(map(int, centre.round())), 3, tuple(map(int, colour)), -1)
    return StoreRecord(
        image_jpeg=cv2.imencode(".jpg", image)[1].tobytes(),
        joints_camera_mm=joints.astype(np.float32),
        weight=np.ones((17, 3), np.float32),
        visibility=np.ones(17, np.uint8),
        camera=camera,
        camera_name="54138969",
        store_from_image=store_from_image.numpy(),
        box_image_px=box.numpy(),
        subject=1 if split == "train" else 9,
        action="Walking" if index % 2 else "Eating",
        subaction=1,
        frame=index,
        split=split,
        source_file=f"dots/{index}.jpg",
        image_size_px=(1000, 1000),
    )


def write_dots_store(path: Path, *, num_train: int, num_test: int, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    header = StoreHeader(
        skeleton="human36m_17",
        source="random dots",
        box_definition="around the joints",
        crop_size_px=STORED_PX,
        margin=1.84,
        jpeg_quality=90,
    )
    path.mkdir(parents=True)
    with ShardWriter(path / "shard-00000.h5", header=header) as writer:
        for index in range(num_train + num_test):
            split = "train" if index < num_train else "test"
            writer.add(dots_record(index, split=split, rng=rng))
    finalise_store(path, header)
    return path


@pytest.fixture(scope="session")
def dots(tmp_path_factory) -> Path:
    """Folder of a store of 16 training and 4 test records."""
    return write_dots_store(tmp_path_factory.mktemp("dots") / "store", num_train=16, num_test=4)


@pytest.fixture(scope="session")
def write_dots():
    """A function that writes other stores of dots."""
    return write_dots_store


@pytest.fixture(scope="session")
def small_overrides() -> tuple[str, ...]:
    """Overrides that make a run small."""
    return SMALL


@pytest.fixture
def small():
    """A function that gives small settings with more overrides."""
    return lambda *overrides: load_config(overrides=[*SMALL, *overrides])


@pytest.fixture(autouse=True)
def _keep_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
