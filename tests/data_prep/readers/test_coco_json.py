import json
import re
import shutil
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

from data_prep.convert import ConversionConfig, convert
from data_prep.lookalike.flat_json import write_coco_json
from data_prep.lookalike.world import make_world
from data_prep.readers.coco_json import CocoJsonReader
from pose3d.data.augment import draw_parameters, make_batch
from pose3d.data.dataset import make_dataset
from pose3d.data.store import open_store
from pose3d.engine.config import load_config
from pose3d.engine.session import build_session
from pose3d.engine.train import take_step

PLACES = {  # of COCO's 17 joints, by hand
    **{"R_Hip": 12, "R_Knee": 14, "R_Ankle": 16, "L_Hip": 11, "L_Knee": 13, "L_Ankle": 15},
    **{"Nose": 0, "L_Shoulder": 5, "L_Elbow": 7, "L_Wrist": 9},
    **{"R_Shoulder": 6, "R_Elbow": 8, "R_Wrist": 10},
}
SMALL = (
    *("data.input_size_px=32", "data.num_threads=0", "model.backbone=resnet18"),
    *("model.width_multiplier=0.125", "flow.hidden_dim=8", "train.num_threads=1"),
    *("likelihood.num_normaliser_samples=64", "train.batch_size=4", "train.device=cpu"),
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    world = make_world(
        subjects=(1, 9), actions=(2,), num_poses=2, camera_names=("54138969", "60457274")
    )
    write_coco_json(world, folder)
    return folder


@pytest.fixture(scope="module")
def store(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "coco"
    convert(CocoJsonReader(source), path, config=ConversionConfig(crop_size_px=96))
    return open_store(path)


def content(source, name="train2017"):
    return json.loads((source / "annotations" / f"person_keypoints_{name}.json").read_text())


def annotation_of(store, row, source):
    """What the source says about a record, found by the number in its name."""
    split = {"train": "train2017", "test": "val2017"}[str(store.records.split[row])]
    file, number = re.fullmatch(r"(.+)#annotation (\d+)", store.source_file(row)).groups()
    values = content(source, split)
    found = next(a for a in values["annotations"] if a["id"] == int(number))
    image = next(i for i in values["images"] if i["id"] == found["image_id"])
    assert image["file_name"] == file
    return found, source / split / file


def projected_px(store, row):
    """Pinhole projection of a record's joints into the full image."""
    camera = store.cameras[int(store.records.camera_index[row])]
    joints = store.records.joints_camera_mm[row].astype(float)
    return joints[:, :2] / joints[:, 2:] * camera.focal_px.numpy() + (
        camera.principal_point_px.numpy()
    )


def test_a_joint_projects_onto_its_label_and_flags_become_weight_and_visibility(store, source):
    for row in range(len(store)):
        annotation, _ = annotation_of(store, row, source)
        keypoints = np.array(annotation["keypoints"]).reshape(17, 3)
        image_px, records = projected_px(store, row), store.records
        for joint, place in PLACES.items():
            index = store.skeleton.index(joint)
            x, y, flag = keypoints[place]
            assert records.weight[row, index].tolist() == [flag > 0, flag > 0, 0]
            if flag > 0:
                np.testing.assert_allclose(image_px[index], [x, y], atol=0.01)
                assert records.visibility[row, index] == (flag == 2)
            else:
                assert records.visibility[row, index] == 0


def test_pelvis_and_thorax_are_midpoints_and_count_only_where_both_sides_are_labelled(
    store, source
):
    counted = []
    for row in range(len(store)):
        keypoints = np.array(annotation_of(store, row, source)[0]["keypoints"]).reshape(17, 3)
        for joint, places in (("Pelvis", (11, 12)), ("Thorax", (5, 6))):
            index = store.skeleton.index(joint)
            both = bool((keypoints[list(places), 2] > 0).all())
            counted.append(both)
            assert store.records.weight[row, index].tolist() == [both, both, 0]
            if both:
                middle = keypoints[list(places), :2].mean(0)
                np.testing.assert_allclose(projected_px(store, row)[index], middle, atol=0.01)
        for joint in ("Torso", "Neck", "Head"):
            assert not store.records.weight[row, store.skeleton.index(joint)].any()
    assert set(counted) == {True, False}


def test_crops_show_the_pixels_around_the_labels(store, source):
    num_knees = 0
    for row in range(0, len(store), 3):
        annotation, path = annotation_of(store, row, source)
        image, crop = cv2.imread(str(path))[..., ::-1], store.image(row)
        matrix = store.records.store_from_image[row]
        joint = store.skeleton.index("R_Knee")
        if store.records.weight[row, joint, 0]:
            at = projected_px(store, row)[joint]
            inside = matrix[:2, :2] @ at + matrix[:2, 2]
            x, y = at.round().astype(int)
            i, j = inside.round().astype(int)
            around = image[y - 4 : y + 5, x - 4 : x + 5].astype(float).mean((0, 1))
            assert np.abs(crop[j, i].astype(float) - around).mean() < 25
            num_knees += 1
        left, top, width, height = annotation["bbox"]
        centre = [left + width / 2, top + height / 2, max(width, height)]
        np.testing.assert_allclose(store.records.box_image_px[row], centre, atol=1e-6)
    assert num_knees > 0


def test_crowds_and_people_without_labels_are_left_out_and_counted(source, store):
    reader = CocoJsonReader(source)
    kept = crowds = empty = 0
    for name in ("train2017", "val2017"):
        for annotation in content(source, name)["annotations"]:
            crowds += annotation["iscrowd"]
            empty += annotation["num_keypoints"] == 0 and not annotation["iscrowd"]
            kept += annotation["num_keypoints"] > 0
    assert len(store) == kept
    assert empty == 1
    told = " ".join(reader.notes)
    assert sum(map(int, re.findall(r"(\d+) annotations of crowds", told))) == crowds
    assert "1 annotations without labelled joints" in told


def test_everybody_has_a_name_of_their_own_also_where_two_share_an_image(store):
    names = {store.record_name(row) for row in range(len(store))}
    assert len(names) == len(store)
    assert set(store.records.subject.tolist()) == {0}
    assert set(store.records.action.tolist()) == {"COCO"}
    assert set(store.records.camera_name.tolist()) == {"coco"}
    files = [store.source_file(row).partition("#")[0] for row in range(len(store))]
    assert len(set(files)) * 2 == len(files)


def test_blocks_are_small_and_keep_people_of_an_image_together(source, tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.readers.flat.BLOCK_SIZE", 4)

    def part_people_of_one_image(values):
        people = values["annotations"]
        values["annotations"] = people[::2] + people[1::2]

    units = damaged(source, tmp_path, part_people_of_one_image).units()
    assert len({unit.name for unit in units}) == len(units) > 1
    for unit in units:
        take = unit.load()
        assert len(take) == unit.count <= 4
        files = take.pictures.files
        assert sum(a != b for a, b in pairwise(files)) == len(set(files)) - 1 < len(files) - 1


def test_a_box_of_two_metres_is_refused_without_depth(source, tmp_path):
    with pytest.raises(ValueError, match="the root's depth is not labelled; choose --box joints"):
        convert(CocoJsonReader(source), tmp_path / "store", config=ConversionConfig(box="metric"))


def test_splits_follow_the_file_or_the_option(source, store):
    tested = [annotation_of(store, row, source)[1].parent.name for row in range(len(store))]
    expected = ["test" if name == "val2017" else "train" for name in tested]
    assert store.records.split.tolist() == expected
    assert {unit.split for unit in CocoJsonReader(source, split="train").units()} == {"train"}


def test_joints_are_found_by_name_in_any_order(source, store, tmp_path):
    values = content(source)
    order = np.random.default_rng(0).permutation(17)
    category = values["categories"][0]
    category["keypoints"] = [category["keypoints"][i].upper().replace("_", " ") for i in order]
    for annotation in values["annotations"]:
        keypoints = np.array(annotation["keypoints"]).reshape(17, 3)
        annotation["keypoints"] = keypoints[order].ravel().tolist()
    (tmp_path / "people.json").write_text(json.dumps(values))
    reader = CocoJsonReader(tmp_path / "people.json", images=source / "train2017")
    take = reader.units()[0].load()
    same = CocoJsonReader(source).units()[0].load()
    np.testing.assert_array_equal(take.joints_camera_mm, same.joints_camera_mm)
    np.testing.assert_array_equal(take.weight, same.weight)


def test_batches_have_no_weight_on_depth_and_steps_stay_finite(store, tmp_path):
    config = load_config(overrides=SMALL)
    session = build_session(config, store, run=tmp_path, load_pretrained=False)
    dataset = make_dataset(store, config.data, role="train")
    for step in range(2):
        raw = dataset.raw_batch(np.arange(4))
        parameters = draw_parameters(config.augment, raw.index, seed=0, epoch=step)
        batch = make_batch(raw, parameters, skeleton=dataset.skeleton, input_size_px=32)
        assert not batch.weight[..., 2].any()
        assert batch.weight[..., 0].sum() > 10
        assert torch.isfinite(batch.target).all()
        session.network.train()
        _, values = take_step(session, batch)
        assert np.isfinite(values["loss"])
    for parameter in session.network.parameters():
        assert torch.isfinite(parameter).all()


def damaged(source, tmp_path, change):
    """The training set with its content changed."""
    values = content(source)
    change(values)
    path = tmp_path / "person_keypoints_train2017.json"
    path.write_text(json.dumps(values))
    return CocoJsonReader(path, images=source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(image_id=7), "is of image 7, which `images` has not"),
        (lambda a: a.update(keypoints=a["keypoints"][:-3]), "48 keypoint numbers, expected 51"),
        (lambda a: a["keypoints"].__setitem__(2, 3), r"flags .*expected 0, 1, 2"),
        (lambda a: a["keypoints"].__setitem__(0, None), "labelled keypoint that is no number"),
        (lambda a: a.update(keypoints="none"), "is not of this layout|could not convert"),
        (lambda a: a.pop("bbox"), r"is not of this layout \(KeyError: 'bbox'\)"),
        (lambda a: a["bbox"].__setitem__(2, 0), "has bbox"),
    ],
)
def test_a_bad_annotation_is_named_and_can_be_skipped(source, tmp_path, change, message):
    number = content(source)["annotations"][1]["id"]

    def spoil(values):
        values["annotations"][1]["keypoints"][2] = 2
        change(values["annotations"][1])

    reader = damaged(source, tmp_path, spoil)
    pattern = rf"person_keypoints_train2017.json annotation {number}.*{message}"
    with pytest.raises(ValueError, match=pattern):
        convert(reader, tmp_path / "strict", config=ConversionConfig(crop_size_px=32))
    config = ConversionConfig(crop_size_px=32, on_error="skip")
    result = convert(reader, tmp_path / "store", config=config)
    assert len(result.skipped) == 1
    assert result.num_records == len(reader.units()[0].load())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("images"), r"has the keys .*expected"),
        (lambda v: v.update(annotations=[]), "no annotations"),
        (lambda v: v["categories"][0].update(keypoints=["wing", "tail"]), "no keypoint.*wing"),
        (
            lambda v: [a.update(keypoints=[0] * 51) for a in v["annotations"]],
            "nobody with labelled joints",
        ),
        (lambda v: v["images"][0].update(file_name="gone.jpg"), "gone.jpg .*--images"),
    ],
)
def test_a_foreign_file_ends_in_one_line_that_names_it(source, tmp_path, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        damaged(source, tmp_path, change)
    assert "person_keypoints_train2017.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_and_a_missing_one_are_named(source, tmp_path):
    path = tmp_path / "person_keypoints_train2017.json"
    text = json.dumps(content(source))
    path.write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=rf"{path}.*fetch it again"):
        CocoJsonReader(tmp_path)
    with pytest.raises(ValueError, match=r"holds none of .*person_keypoints"):
        CocoJsonReader(source / "train2017")
    with pytest.raises(ValueError, match=r"annotations/own.json is missing"):
        CocoJsonReader(source, annotations=["own.json"])


def test_a_missing_image_is_named_and_can_be_skipped(source, tmp_path):
    gone = content(source)["images"][1]["file_name"]
    shutil.copytree(source, tmp_path / "tree")
    (tmp_path / "tree" / "train2017" / gone).unlink()
    reader = CocoJsonReader(tmp_path / "tree")
    with pytest.raises(ValueError, match=f"{gone} is missing"):
        convert(reader, tmp_path / "strict", config=ConversionConfig(crop_size_px=32))
    config = ConversionConfig(crop_size_px=32, on_error="skip")
    assert len(convert(reader, tmp_path / "store", config=config).skipped) == 2
