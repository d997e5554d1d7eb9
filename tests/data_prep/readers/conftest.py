"""Worlds that look-alike trees are written from, and what a converted tree must equal."""

import os
import pickle
import shutil

import numpy as np
import pytest
import torch

from data_prep.convert import ConversionConfig, convert
from data_prep.lookalike.raw import write_raw
from data_prep.lookalike.world import WorldReader, make_world
from pose3d.data.store import open_store

CROP_SIZE_PX = 96
TREE = "processed"
"""Readers that take the folder above a tree as well know it by this name."""
NEAR_MM = 0.01
NEAR_PX = 0.01
NEAR_GREY = 6.0
"""Mean difference of grey levels that JPEG at a quality of 95 may make."""


def place(store, row):
    """Where a record belongs, whatever its source calls it."""
    records = store.records
    return (
        *(str(records.split[row]), int(records.subject[row]), str(records.action[row])),
        *(int(records.subaction[row]), str(records.camera_name[row]), int(records.frame[row])),
    )


def crop_px(store, rows, seen_px):
    """Joints of records in their crops."""
    records = store.records
    camera = store.cameras[torch.from_numpy(records.camera_index[rows])]
    image_px = seen_px(records.joints_camera_mm[rows], camera)
    matrix = records.store_from_image[rows]
    return np.einsum("nij,nkj->nki", matrix[:, :2, :2], image_px) + matrix[:, None, :2, 2]


@pytest.fixture(scope="session")
def assert_same_store(seen_px):
    """Hold a store against the direct one of the same world: labels, places, cameras, images."""

    def check(found, direct, *, whole=True, extrinsics=True, boxes=True, near_mm=NEAR_MM):
        rows_by_place = {place(direct, row): row for row in range(len(direct))}
        places = [place(found, row) for row in range(len(found))]
        assert len(set(places)) == len(places) > 0
        assert set(places) <= set(rows_by_place)
        assert not whole or len(places) == len(direct)
        own = np.arange(len(found))
        same = np.array([rows_by_place[key] for key in places])
        assert found.skeleton.name == direct.skeleton.name
        for name in ("image_size_px", "visibility"):
            ours, theirs = getattr(found.records, name), getattr(direct.records, name)
            np.testing.assert_array_equal(ours, theirs[same], err_msg=name)
        np.testing.assert_allclose(
            found.records.joints_camera_mm, direct.records.joints_camera_mm[same], atol=near_mm
        )
        np.testing.assert_allclose(found.records.weight, direct.records.weight[same])
        if extrinsics:
            world = [
                store.cameras[torch.from_numpy(store.records.camera_index[rows])].camera_to_world(
                    torch.from_numpy(store.records.joints_camera_mm[rows].astype(np.float64))
                )
                for store, rows in ((found, own), (direct, same))
            ]
            np.testing.assert_allclose(*world, atol=max(near_mm, 0.02))
        if boxes:
            crops = [crop_px(found, own, seen_px), crop_px(direct, same, seen_px)]
            np.testing.assert_allclose(*crops, atol=NEAR_PX)
            np.testing.assert_allclose(
                found.records.box_image_px, direct.records.box_image_px[same], atol=0.05
            )
            _assert_same_images(found, direct, places, rows_by_place)

    return check


def _assert_same_images(found, direct, places, rows_by_place):
    """Images equal up to JPEG noise, and resemble their own frame more than the next one's."""
    nearer = []
    for row, key in enumerate(places):
        image = found.image(row).astype(float)
        difference = np.abs(image - direct.image(rows_by_place[key])).mean()
        assert difference < NEAR_GREY, key
        next_row = rows_by_place.get((*key[:-1], key[-1] + 1))
        if next_row is not None:
            nearer.append(difference < np.abs(image - direct.image(next_row)).mean())
    assert all(nearer)


@pytest.fixture(scope="session")
def world():
    """Three subjects before four cameras; file names, lengths and image sizes differ."""
    return make_world(subjects=(1, 7, 9), actions=(10,), subactions=(2,), num_poses=4)


@pytest.fixture(scope="session")
def tiny_world():
    """Two performances of one subject before one camera, to be damaged."""
    return make_world(
        subjects=(1,), actions=(5, 12), subactions=(2,), num_poses=2, camera_names=("54138969",)
    )


@pytest.fixture(scope="session")
def direct(world, tmp_path_factory):
    """The store that every look-alike of the world must give, with boxes of the joints."""
    return direct_store(world, tmp_path_factory.mktemp("direct") / "store")


def direct_store(world, path, **options):
    """A world's own store."""
    config = ConversionConfig(
        **{"protocol": "full", "box": "joints", "crop_size_px": CROP_SIZE_PX, **options}
    )
    convert(WorldReader(world), path, config=config)
    return open_store(path)


@pytest.fixture(scope="session")
def make_direct_store():
    """Makes a world's own store with options of `ConversionConfig`."""
    return direct_store


@pytest.fixture
def store_of(tmp_path):
    """Converts a reader as the direct store was made, and opens the store."""

    def make(reader, **options):
        config = ConversionConfig(
            **{"protocol": "full", "box": "joints", "crop_size_px": CROP_SIZE_PX, **options}
        )
        number = len(list(tmp_path.glob("store-*")))
        path = tmp_path / f"store-{number}"
        convert(reader, path, config=config)
        return open_store(path)

    return make


@pytest.fixture(scope="session")
def raw_tree(world, tmp_path_factory):
    """The world as Human3.6M's archives unpack, masks included; not to be changed."""
    folder = tmp_path_factory.mktemp("raw") / "tree"
    write_raw(world, folder)
    return folder


@pytest.fixture(scope="session")
def _tiny_raw_tree(tiny_world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw") / "tiny"
    write_raw(tiny_world, folder)
    return folder


@pytest.fixture
def tiny_raw_tree(_tiny_raw_tree, tmp_path):
    """A copy of the tiny world's archives, to be damaged."""
    return shutil.copytree(_tiny_raw_tree, tmp_path / "tree")


@pytest.fixture(scope="session")
def few():
    """Three poses before each of the four cameras: the least that shows all sizes and names."""
    return make_world(subjects=(7, 9), actions=(10,), subactions=(2,), num_poses=1)


@pytest.fixture(scope="session")
def few_direct(few, tmp_path_factory):
    """The store that every look-alike of them must give, with boxes of the joints."""
    return direct_store(few, tmp_path_factory.mktemp("few") / "store")


@pytest.fixture(scope="module")
def whole_tree(world, write_tree, tmp_path_factory):
    """All frames of the world as the module's `write_tree` lays them out; not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / TREE
    write_tree(world, folder)
    return folder


@pytest.fixture(scope="module")
def tiny_tree(tiny_world, write_tree, tmp_path_factory):
    """The tiny world as the module's `write_tree` lays it out; not to be changed."""
    folder = tmp_path_factory.mktemp("tiny") / TREE
    write_tree(tiny_world, folder)
    return folder


@pytest.fixture
def tree(tiny_tree, tmp_path):
    """A copy of the tiny tree that a test may damage."""
    return shutil.copytree(tiny_tree, tmp_path / TREE)


@pytest.fixture(scope="module")
def tiny_direct(tiny_world, tmp_path_factory):
    """The store that every look-alike of the tiny world must give, with boxes of the joints."""
    return direct_store(tiny_world, tmp_path_factory.mktemp("tiny") / "store")


@pytest.fixture(scope="session")
def assert_units_travel():
    """Hold units that went to another process, as far as pickle goes, against those that stayed."""

    def check(reader):
        units = reader.units()
        assert units
        for unit in units:
            here, there = unit.load(), pickle.loads(pickle.dumps(unit)).load()
            assert list(there.pictures.names) == list(here.pictures.names)
            np.testing.assert_array_equal(there.joints_camera_mm, here.joints_camera_mm)

    return check


class Attack:
    """Makes a folder when it is unpickled without care."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def attack(tmp_path):
    """What must not be unpickled without care: it would make the folder `attacked`."""
    yield Attack(tmp_path / "attacked")
    assert not (tmp_path / "attacked").exists()
