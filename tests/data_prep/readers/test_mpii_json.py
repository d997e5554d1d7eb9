import json
import re

import numpy as np
import pytest

from data_prep.convert import ConversionConfig, convert
from data_prep.lookalike.flat_json import photographs, write_mpii_json
from data_prep.lookalike.world import make_world
from data_prep.readers.mpii_json import MpiiJsonReader
from pose3d.data.store import open_store

HUMAN36M_FROM_MPII = (6, 2, 1, 0, 3, 4, 5, -1, 8, -1, 9, 13, 14, 15, 12, 11, 10, 7)
"""MPII's joint for each joint of human36m_18, as the RLE code has it."""


@pytest.fixture(scope="module")
def world():
    return make_world(subjects=(1, 9), actions=(2,), num_poses=2, camera_names=("55011271",))


@pytest.fixture(scope="module")
def source(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mpii")
    write_mpii_json(world, folder)
    return folder


@pytest.fixture(scope="module")
def hrnet_source(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hrnet")
    write_mpii_json(world, folder, shape="hrnet")
    return folder


def labels_of(source):
    content = json.loads((source / "annotations" / "annot_mpii.json").read_text())
    return [np.array(a["keypoints"]).reshape(16, 3) for a in content["annotations"]]


def projected_px(take):
    """Pinhole projection of joints into the full images."""
    joints = take.joints_camera_mm
    rays = joints[..., :2] / joints[..., 2:]
    return (
        rays * take.camera.focal_px.numpy()[:, None]
        + (take.camera.principal_point_px.numpy()[:, None])
    )


def takes(reader):
    return [unit.load() for unit in reader.units()]


def test_joints_go_where_the_rle_code_has_them_and_unlabelled_ones_have_no_weight(source):
    (take,) = takes(MpiiJsonReader(source))
    labels = labels_of(source)
    image_px = projected_px(take)
    num_unlabelled = 0
    for row, number in enumerate(take.frame):
        keypoints = labels[number]
        for joint, place in enumerate(HUMAN36M_FROM_MPII):
            labelled = place >= 0 and keypoints[place, 2] > 0
            if joint == 0:
                labelled = labelled or bool((keypoints[[2, 3], 2] > 0).all())
            if joint == 17:
                labelled = labelled or bool((keypoints[[12, 13], 2] > 0).all())
            assert take.weight[row, joint].tolist() == [labelled, labelled, 0]
            if place >= 0 and keypoints[place, 2] > 0:
                np.testing.assert_allclose(image_px[row, joint], keypoints[place, :2], atol=0.01)
            num_unlabelled += place >= 0 and not labelled
    assert num_unlabelled > 5


def test_a_flag_of_one_is_visible_where_no_flag_is_two_and_hidden_otherwise(source, tmp_path):
    (take,) = takes(MpiiJsonReader(source))
    labelled = take.weight[..., 0] > 0
    np.testing.assert_array_equal(take.visibility > 0, labelled)
    content = json.loads((source / "annotations" / "annot_mpii.json").read_text())
    content["annotations"][0]["keypoints"][-1] = 2  # one wrist
    path = tmp_path / "annot_mpii.json"
    path.write_text(json.dumps(content))
    (take,) = takes(MpiiJsonReader(path, images=source / "images"))
    assert take.visibility.sum() == 1


def test_the_same_people_are_read_from_hrnets_list(source, hrnet_source):
    (coco_shape,) = takes(MpiiJsonReader(source))
    lists = takes(MpiiJsonReader(hrnet_source))
    assert [unit.split for unit in MpiiJsonReader(hrnet_source).units()] == ["train", "test"]
    for name in ("joints_camera_mm", "weight", "image_size_px"):
        found = np.concatenate([getattr(take, name) for take in lists])
        np.testing.assert_allclose(found, getattr(coco_shape, name), atol=1e-6)
    files = [file for take in lists for file in take.pictures.files]
    assert files == list(coco_shape.pictures.files)


def test_hrnets_square_has_its_centre_and_side(hrnet_source, world):
    entry = json.loads((hrnet_source / "annot" / "train.json").read_text())[0]
    take = takes(MpiiJsonReader(hrnet_source))[0]
    left, top, width, height = take.box_xywh_px[0]
    assert width == height == pytest.approx(250 * entry["scale"])
    assert left + width / 2 == pytest.approx(entry["center"][0] - 1)
    assert top + height / 2 == pytest.approx(entry["center"][1] - 1 + 15 * entry["scale"])
    points = next(iter(photographs(world))).people_px[0]
    low, high = points.min(0), points.max(0)
    np.testing.assert_allclose([left + width / 2, top + height / 2], (low + high) / 2, atol=0.01)


@pytest.mark.parametrize(("first_pixel", "moved"), [(None, 0), (0, 0), (1, -1)])
def test_the_first_pixel_can_be_called_one(source, first_pixel, moved):
    (plain,) = takes(MpiiJsonReader(source))
    (take,) = takes(MpiiJsonReader(source, first_pixel=first_pixel))
    labelled = plain.weight[..., 0] > 0
    difference = (projected_px(take) - projected_px(plain))[labelled]
    np.testing.assert_allclose(difference, moved, atol=1e-6)
    box = take.box_xywh_px - plain.box_xywh_px
    np.testing.assert_allclose(box, [[moved, moved, 0, 0]] * len(plain), atol=1e-6)


@pytest.mark.parametrize("shape", ["coco", "hrnet"])
def test_the_store_has_everybody_with_labels_inside_the_crop(source, hrnet_source, shape, tmp_path):
    folder = {"coco": source, "hrnet": hrnet_source}[shape]
    convert(MpiiJsonReader(folder), tmp_path / "store", config=ConversionConfig(crop_size_px=64))
    store = open_store(tmp_path / "store")
    assert len(store) == len(labels_of(source))
    assert len({store.record_name(row) for row in range(len(store))}) == len(store)
    assert set(store.records.action.tolist()) == {"MPII"}
    assert not store.records.weight[..., 2].any()


def test_few_labels_can_be_left_out(source):
    reader = MpiiJsonReader(source, min_joints=14)
    (take,) = takes(reader)
    counts = np.array([(keypoints[:, 2] > 0).sum() for keypoints in labels_of(source)])
    assert 0 < len(take) == (counts >= 14).sum() < len(counts)
    assert any(
        re.search(rf"left out .*{(counts < 14).sum()} with fewer than 14", note)
        for note in reader.notes
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.pop("scale"), "KeyError: 'scale'"),
        (lambda e: e.update(joints=e["joints"][:-1]), r"joints of shape \(15, 2\)"),
        (lambda e: e.update(scale=0), "scale 0"),
        (lambda e: e.update(center=[float("nan"), 3]), "center"),
    ],
)
def test_a_bad_entry_is_named(hrnet_source, tmp_path, change, message):
    entries = json.loads((hrnet_source / "annot" / "train.json").read_text())
    change(entries[1])
    path = tmp_path / "train.json"
    path.write_text(json.dumps(entries))
    reader = MpiiJsonReader(path, images=hrnet_source / "images")
    with pytest.raises(ValueError, match=rf"train.json entry 1.*{message}"):
        convert(reader, tmp_path / "store", config=ConversionConfig(crop_size_px=32))


def test_a_foreign_list_and_an_unreadable_image_are_named(hrnet_source, tmp_path):
    path = tmp_path / "train.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match=rf"{path} holds no people"):
        MpiiJsonReader(path)
    path.write_text("3")
    with pytest.raises(ValueError, match=rf"{path} holds a int; expected"):
        MpiiJsonReader(path)
    entries = json.loads((hrnet_source / "annot" / "train.json").read_text())
    path.write_text(json.dumps(entries[:2]))
    (tmp_path / "images").mkdir()
    image = tmp_path / "images" / entries[0]["image"]
    image.write_bytes(b"no image")
    with pytest.raises(ValueError, match=image.name):
        convert(MpiiJsonReader(tmp_path / "train.json"), tmp_path / "store")
