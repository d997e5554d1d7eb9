"""PoseNet's layout of three JSON files per subject, and its first one."""

import json

import numpy as np
import pytest

from data_prep.convert import ConversionConfig, convert
from data_prep.lookalike.posenet_json import write_posenet_json
from data_prep.lookalike.world import make_world
from data_prep.readers.posenet_json import PosenetJsonReader
from pose3d.data.store import open_store


@pytest.fixture(scope="module")
def two():
    """One view each of two subjects."""
    return make_world(
        subjects=(5, 9), actions=(5,), subactions=(1,), num_poses=3, camera_names=("58860488",)
    )


@pytest.fixture(scope="module")
def tiny_tree(two, tmp_path_factory):
    """Their tree, t = −R·C."""
    folder = tmp_path_factory.mktemp("posenet-json") / "Human36M"
    write_posenet_json(two, folder, bbox_root=True)
    return folder


def label_file(tree, kind="data", subject=5):
    return tree / "annotations" / f"Human36M_subject{subject}_{kind}.json"


def change(path, edit):
    """Edit a JSON file's content in place."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_the_tree_gives_the_direct_store(few, few_direct, store_of, assert_same_store, tmp_path):
    write_posenet_json(few, tmp_path / "Human36M")
    reader = PosenetJsonReader(tmp_path / "Human36M")
    assert reader.missing == []
    assert_same_store(store_of(reader, lens="distorted"), few_direct)


@pytest.fixture(scope="module")
def two_direct(two, make_direct_store, tmp_path_factory):
    """The store that their trees must give; labels of cameras without distortion."""
    return make_direct_store(two, tmp_path_factory.mktemp("two") / "pinhole", lens="pinhole")


def test_its_own_labels_are_those_of_cameras_without_distortion(
    tiny_tree, two_direct, store_of, assert_same_store
):
    store = store_of(PosenetJsonReader(tiny_tree))
    assert not store.cameras.radial.any()
    assert_same_store(store, two_direct)


def test_the_centre_as_translation_is_told_for_each_subject(
    two, tree, two_direct, store_of, assert_same_store
):
    centre = two.camera(9, "58860488").centre_world_mm.tolist()
    change(label_file(tree, "camera", 9), lambda content: content["3"].update(t=centre))
    reader = PosenetJsonReader(tree)
    said = " ".join(reader.notes)
    assert "t of S5's cameras is read as −R·C" in said
    assert "t of S9's cameras is the camera's centre" in said
    assert_same_store(store_of(reader), two_direct)
    with pytest.raises(ValueError, match="of the labelled joints falls into the image"):
        store_of(PosenetJsonReader(tree, translation="centre"), box="annotation")


def test_the_published_script_gives_the_same(
    two, two_direct, store_of, assert_same_store, tmp_path
):
    write_posenet_json(two, tmp_path / "script", translation="centre")
    assert_same_store(store_of(PosenetJsonReader(tmp_path / "script")), two_direct)


def test_the_first_layout_gives_the_same(two, two_direct, store_of, assert_same_store, tmp_path):
    write_posenet_json(two, tmp_path / "first", is_first_layout=True)
    assert_same_store(store_of(PosenetJsonReader(tmp_path / "first")), two_direct)


def test_own_boxes_are_kept_and_a_detectors_take_their_place(tiny_tree, store_of):
    own = store_of(PosenetJsonReader(tiny_tree), box="annotation")
    path = tiny_tree / "bbox_root" / "bbox_root_human36m_output.json"
    detected = json.loads(path.read_text())
    by_file = {}
    for path_of_labels in (tiny_tree / "annotations").glob("*_data.json"):
        content = json.loads(path_of_labels.read_text())
        for image, annotation in zip(content["images"], content["annotations"], strict=True):
            by_file[image["file_name"]] = (image["id"], annotation["bbox"])
    for row in range(len(own)):
        x, y, width, height = by_file[own.source_file(row)][1]
        expected = [x + width / 2, y + height / 2, max(width, height)]
        np.testing.assert_allclose(own.records.box_image_px[row], expected, rtol=1e-5)
    theirs = store_of(PosenetJsonReader(tiny_tree, bbox_root=path), box="annotation")
    for row in range(len(theirs)):
        x, y, side, _ = detected[by_file[theirs.source_file(row)][0]]["bbox"]
        expected = [x + side / 2, y + side / 2, side]
        np.testing.assert_allclose(theirs.records.box_image_px[row], expected, rtol=1e-5)


def test_boxes_by_file_name_are_taken_where_there_are_any(tree, store_of, tmp_path):
    name = json.loads(label_file(tree).read_text())["images"][1]["file_name"]
    (tmp_path / "boxes.json").write_text(
        json.dumps([{"image_id": name, "bbox": [400, 400, 300, 200]}])
    )
    plain = store_of(PosenetJsonReader(tree), box="annotation")
    store = store_of(PosenetJsonReader(tree, bbox_root=tmp_path / "boxes.json"), box="annotation")
    differs = (store.records.box_image_px != plain.records.box_image_px).any(1)
    assert [store.source_file(row) for row in np.flatnonzero(differs)] == [name]
    assert store.records.box_image_px[differs].tolist() == [[550, 500, 300]]


def test_frames_need_not_be_contiguous(tmp_path, make_direct_store, store_of, assert_same_store):
    world = make_world(
        subjects=(6, 11), actions=(2,), subactions=(1,), num_poses=11, camera_names=("55011271",)
    )
    write_posenet_json(world, tmp_path / "every", every=5)
    reader = PosenetJsonReader(tmp_path / "every")
    assert reader.default_protocol == "rle-2"
    store = store_of(reader, lens="distorted")
    assert_same_store(store, make_direct_store(world, tmp_path / "direct"), whole=False)
    found = list(zip(store.records.subject.tolist(), store.records.frame.tolist(), strict=True))
    assert sorted(found) == [(subject, 5 * k) for subject in (6, 11) for k in range(3)]


def test_a_tree_thinned_out_by_another_rule_is_taken_whole(tmp_path):
    world = make_world(
        subjects=(6,), actions=(2,), subactions=(1,), num_poses=11, camera_names=("55011271",)
    )
    write_posenet_json(world, tmp_path / "every", every=3)
    assert PosenetJsonReader(tmp_path / "every").default_protocol == "full"


def test_takes_are_the_same_in_another_process(tree, assert_units_travel):
    assert_units_travel(PosenetJsonReader(tree))


def remove(subject, kind):
    return lambda tree: label_file(tree, kind, subject).unlink()


def cut(kind):
    def damage(tree):
        text = label_file(tree, kind).read_text()
        label_file(tree, kind).write_text(text[: len(text) // 2])

    return damage


def edit(kind, function):
    return lambda tree: change(label_file(tree, kind), function)


def metres(content):
    for pose in content["5"]["1"].values():
        for joint in pose:
            joint[:] = [value / 1000 for value in joint]


BAD_FILES = {
    "no joints": (remove(5, "joint_3d"), r"subject5_joint_3d\.json is missing"),
    "no camera": (remove(5, "camera"), r"subject5_camera\.json is missing"),
    "no data": (remove(5, "data"), r"subject5_data\.json is missing"),
    "joints cut off": (cut("joint_3d"), r"subject5_joint_3d\.json is not readable JSON .*again"),
    "camera cut off": (cut("camera"), r"subject5_camera\.json is not readable JSON"),
    "data cut off": (cut("data"), r"subject5_data\.json is not readable JSON"),
    "another camera": (edit("camera", lambda c: c.pop("3")), r"_camera\.json has no camera 3"),
    "turned camera": (
        edit("camera", lambda c: c["3"].update(R=[[1, 0, 0]] * 3)),
        r"_camera\.json: camera '3' is not of this layout .*R is not a rotation",
    ),
    "camera without t": (edit("camera", lambda c: c["3"].pop("t")), r"camera '3' .*KeyError: 't'"),
    "camera far away": (
        edit("camera", lambda c: c["3"].update(t=[9e4, 9e4, 0])),
        r"no reading of t of S5's cameras puts the people before the cameras",
    ),
    "metres": (edit("joint_3d", metres), "in the joints of S5; expected millimetres"),
    "a list of joints": (
        edit("joint_3d", lambda c: c.update({"5": [1, 2]})),
        r"subject5_joint_3d\.json is not of this layout .*action_idx",
    ),
    "other keys": (edit("data", lambda c: c.pop("images")), r"has the keys \['annotations'\]"),
    "another subject": (
        edit("data", lambda c: [image.update(subject=6) for image in c["images"]]),
        r"no record that can be used; .*000001\.jpg: is of subject 6 in the file of subject 5",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_ends_in_one_line_or_its_subject_is_left_out(tree, tmp_path, kind):
    damage, message = BAD_FILES[kind]
    damage(tree)
    options = {"protocol": "full", "crop_size_px": 96}
    with pytest.raises(ValueError, match=message) as caught:
        convert(PosenetJsonReader(tree), tmp_path / "s", config=ConversionConfig(**options))
    assert "\n" not in str(caught.value)
    config = ConversionConfig(**options, on_error="skip")
    convert(PosenetJsonReader(tree), tmp_path / "s", config=config)
    assert set(open_store(tmp_path / "s").records.subject) == {9}


BAD_RECORDS = {
    "no joints of a frame": (edit("joint_3d", lambda c: c["5"]["1"].pop("1")), "has no joints of"),
    "joints of another shape": (
        edit("joint_3d", lambda c: c["5"]["1"]["1"].pop()),
        r"has no joints of 17×3 in Human36M_subject5_joint_3d\.json",
    ),
    "no pose": (edit("joint_3d", lambda c: c["5"]["1"].update({"1": None})), "has no joints of"),
    "a joint of null": (
        edit("joint_3d", lambda c: c["5"]["1"]["1"].__setitem__(3, [None] * 3)),
        "the position of R_Ankle is not finite",
    ),
    "no annotation": (edit("data", lambda c: c["annotations"].pop(1)), "has no annotation"),
    "two annotations": (
        edit("data", lambda c: c["annotations"].append(c["annotations"][1])),
        "has no annotation, or several",
    ),
    "no box": (edit("data", lambda c: c["annotations"][1].pop("bbox")), "KeyError: 'bbox'"),
    "box without area": (
        edit("data", lambda c: c["annotations"][1].update(bbox=[1, 1, 0, 9])),
        r"bbox \[1\.0, 1\.0, 0\.0, 9\.0\] has no area",
    ),
    "no frame": (edit("data", lambda c: c["images"][1].pop("frame_idx")), "'frame_idx'"),
    "frame below 0": (
        edit("data", lambda c: c["images"][1].update(frame_idx=-1)),
        "frame_idx is -1, must be 0 to",
    ),
    "unknown action": (
        edit("data", lambda c: c["images"][1].update(action_idx=1)),
        "action_idx 1 is unknown",
    ),
    "width beyond 32 bits": (
        edit("data", lambda c: c["images"][1].update(width=10**30)),
        "is of an image of 10{30}×",
    ),
    "a list as image id": (
        edit("data", lambda c: c["annotations"][1].update(image_id=[1])),
        "has no annotation",
    ),
    "flags of another count": (
        edit("data", lambda c: c["annotations"][1].update(keypoints_vis=[True])),
        r"keypoints_vis has shape \(1,\)",
    ),
    "missing image": (
        lambda tree: next((tree / "images").glob("s_05*/*_000002.jpg")).unlink(),
        r"000002\.jpg is missing",
    ),
}


@pytest.mark.parametrize("kind", BAD_RECORDS)
def test_a_bad_record_ends_in_one_line_or_is_left_out_and_listed(tree, tmp_path, kind):
    damage, message = BAD_RECORDS[kind]
    damage(tree)
    options = {"protocol": "full", "crop_size_px": 96}
    with pytest.raises(ValueError, match=message) as caught:
        convert(PosenetJsonReader(tree), tmp_path / "s", config=ConversionConfig(**options))
    assert "\n" not in str(caught.value)
    assert "000002.jpg" in str(caught.value)
    config = ConversionConfig(**options, on_error="skip")
    result = convert(PosenetJsonReader(tree), tmp_path / "s", config=config)
    records = open_store(tmp_path / "s").records
    assert sorted(records.frame[records.subject == 5]) == [0, 2]
    ((name, _),) = result.skipped
    assert name.endswith("_000002.jpg")


def test_a_frame_that_occurs_twice_is_found(tree, store_of):
    change(label_file(tree), lambda c: c["images"][1].update(frame_idx=0))
    with pytest.raises(ValueError, match=r"000002\.jpg: occurs twice"):
        store_of(PosenetJsonReader(tree))


def test_subjects_that_are_not_there_are_said(tree):
    notes = " ".join(PosenetJsonReader(tree).notes)
    assert "there is nothing of S1, S6, S7, S8, S11 in" in notes


def test_folders_of_something_else_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no folder .*annotations; SOURCE must hold"):
        PosenetJsonReader(tmp_path)
    (tmp_path / "annotations").mkdir()
    with pytest.raises(ValueError, match=r"annotations holds no Human36M_subject1_data\.json"):
        PosenetJsonReader(tmp_path)


@pytest.mark.parametrize("content", ["{", "[1]", '[{"image_id": 1, "bbox": [1, 2, 0, 4]}]'])
def test_a_bad_file_of_boxes_is_named(tree, tmp_path, content):
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(ValueError, match=r"boxes\.json") as caught:
        PosenetJsonReader(tree, bbox_root=tmp_path / "boxes.json")
    assert "\n" not in str(caught.value)
