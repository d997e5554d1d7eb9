"""The RLE layout becomes a store whose labels lie on what they name."""

import json

import cv2
import numpy as np
import pytest

from data_prep import convert as conversion
from data_prep import crops
from data_prep.convert import ConversionConfig
from data_prep.lookalike.rle_json import write_rle_json
from data_prep.people import MAX_BONE_MM, camera_name_of, plausible_joints
from data_prep.readers.rle_json import RleJsonReader
from data_prep.verify import check_records
from pose3d.data.store import open_store
from pose3d.geometry.skeleton import HUMAN36M_17

SMALL = {"crop_size_px": 160, "jpeg_quality": 95}
READER_OPTIONS = ("train_annotation", "test_annotation", "translation")


def convert(lookalike, *, name="store", overwrite=False, **settings):
    options = {key: settings.pop(key) for key in READER_OPTIONS if key in settings}
    config = ConversionConfig(**{**SMALL, **settings})
    path = lookalike.folder.parent / name
    reader = RleJsonReader(lookalike.folder, **options)
    result = conversion.convert(reader, path, config=config, overwrite=overwrite)
    return open_store(path), result


def labels_in_crop(store, lookalike, index):
    """The record's true joints in its crop, from the look-alike's own projection."""
    image_px = lookalike.image_px[store.source_file(index)]
    return (store.records.store_from_image[index] @ np.c_[image_px, np.ones(17)].T).T[:, :2]


@pytest.mark.parametrize("distorted", [True, False])
def test_a_dot_drawn_at_a_joint_is_found_at_that_joint_of_the_crop(make_lookalike, distorted):
    lookalike = make_lookalike(distorted=distorted)
    store, _ = convert(lookalike)
    assert len(store) == 8
    for index in range(8):
        joint = store.records.frame[index] % 17
        brightness = store.image(index).astype(float).mean(-1)
        ys, xs = np.nonzero(brightness > 160)
        weight = brightness[ys, xs] - 90
        found = np.average(np.stack([xs, ys], -1), axis=0, weights=weight)
        expected = labels_in_crop(store, lookalike, index)[joint]
        np.testing.assert_allclose(found, expected, atol=0.3)


def test_stored_joints_project_onto_the_drawn_ones(lookalike):
    store, _ = convert(lookalike)
    for index in range(len(store)):
        joints, camera = (
            store.records.joints_camera_mm[index],
            store.cameras[store.records.camera_index[index]],
        )
        world = camera.rotation.numpy().T @ joints.T + camera.centre_world_mm.numpy()[:, None]
        truth = lookalike.joints_world_mm[store.source_file(index)]
        np.testing.assert_allclose(world.T, truth, atol=2e-3)  # float32 at 5 m


def test_metadata_follow_the_layout(lookalike):
    store, result = convert(lookalike)
    rows = store.records
    assert store.header.skeleton == "human36m_17"
    assert (rows.split == "train").sum() == 6
    assert set(rows.subject) == {5}
    assert set(rows.action) == {"Eating"}
    assert set(rows.subaction) == {2}
    assert set(rows.camera_name) == {"ca_01", "ca_02"}
    first = store.select(split="train")[0]
    assert store.record_name(first) == "s_05_act_04_subact_02_ca_01_000001"
    assert store.source_file(first) == lookalike.image(0)["file_name"]
    assert result.num_records == 8
    assert (rows.weight == 1).all()
    assert (rows.visibility == 1).all()


def test_numbers_come_from_the_file_name_where_the_keys_are_missing(lookalike):
    expected = convert(lookalike)[0].records
    for content in lookalike.content.values():
        for image in content["images"]:
            for key in ("subject", "action_idx", "subaction_idx", "cam_idx", "frame_idx"):
                del image[key]
    lookalike.save()
    found = convert(lookalike, name="other")[0].records
    for name in ("subject", "action", "subaction", "camera_name", "frame"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_human36m_cameras_are_named_by_the_size_of_their_images():
    assert camera_name_of(1, image_size_px=(1000, 1002)) == "54138969"
    assert camera_name_of(4, image_size_px=(1000, 1002)) == "60457274"
    assert camera_name_of(1, image_size_px=(540, 960)) == "ca_01"
    assert camera_name_of(5, image_size_px=(1000, 1000)) == "ca_05"


def test_translation_given_as_minus_rc_is_told_and_gives_the_same_store(lookalike):
    expected, _ = convert(lookalike)
    for content in lookalike.content.values():
        for image in content["images"]:
            camera = image["cam_param"]
            camera["t"] = (-np.array(camera["R"]) @ camera["t"]).tolist()
    lookalike.save()
    for translation in ("auto", "minus-rc"):
        found, _ = convert(lookalike, name=translation, translation=translation)
        np.testing.assert_allclose(
            found.records.joints_camera_mm, expected.records.joints_camera_mm, atol=1e-2
        )
    with pytest.raises(ValueError, match=r"depth -\d+ mm \(behind the camera\)"):
        convert(lookalike, name="wrong", translation="centre")


def test_a_translation_that_fits_neither_reading_is_refused(lookalike):
    for content in lookalike.content.values():
        for image in content["images"]:
            image["cam_param"]["t"] = [90000.0, 90000.0, 0.0]
    lookalike.save()
    with pytest.raises(ValueError, match=r"no reading of cam_param\.t .*centre C: 0%"):
        convert(lookalike)


@pytest.mark.parametrize("kind", ["annotation", "joints", "metric"])
def test_boxes_follow_their_definitions(lookalike, kind):
    store, _ = convert(lookalike, box=kind, enlarge=1.1)
    for index in range(len(store)):
        image_px = lookalike.image_px[store.source_file(index)]
        low, high = image_px.min(0), image_px.max(0)
        centre, side = (low + high) / 2, 1.2 * (high - low).max()
        if kind == "metric":
            camera = store.cameras[store.records.camera_index[index]]
            depth = store.records.joints_camera_mm[index, 0, 2]
            centre, side = image_px[0], (2000 * camera.focal_px.numpy() / depth).max()
        np.testing.assert_allclose(
            store.records.box_image_px[index], [*centre, 1.1 * side], rtol=1e-5
        )
        corners = store.records.store_from_image[index] @ [*centre, 1]
        np.testing.assert_allclose(corners[:2], (160 - 1) / 2, atol=1e-3)
    assert "1.1" in store.header.box_definition


def test_a_joint_with_impossible_bones_gets_no_weight_and_no_say_in_the_box(lookalike):
    expected, _ = convert(lookalike, box="joints")
    annotation = lookalike.annotation(2)
    annotation["keypoints_world"][13] = [2500.0, 900, 840]  # the left wrist
    annotation["bbox"] = [0, 0, 399, 299]
    lookalike.save()
    store, _ = convert(lookalike, name="other")
    row = store.select(split="train", every=2)[1]
    assert store.records.frame[row] == 2
    assert np.flatnonzero(store.records.weight[row].sum(-1) == 0).tolist() == [13]
    assert np.flatnonzero(store.records.visibility[row] == 0).tolist() == [13]
    assert (np.delete(store.records.weight, row, axis=0) == 1).all()
    ratio = store.records.box_image_px[row, 2] / expected.records.box_image_px[row, 2]
    assert 0.9 < ratio < 1.1


@pytest.mark.parametrize("joint", range(17))
def test_the_joint_that_was_moved_away_is_the_one_found(lookalike, joint):
    joints = lookalike.joints_world_mm[lookalike.image(0)["file_name"]].copy()
    counted = np.ones(17, bool)
    assert plausible_joints(joints, HUMAN36M_17, counted=counted).all()
    joints[joint] += [2 * MAX_BONE_MM, 500, 0]
    found = plausible_joints(joints, HUMAN36M_17, counted=counted)
    assert np.flatnonzero(~found).tolist() == [joint]


def set_value(lookalike, key, value, *, of="annotation"):
    getattr(lookalike, of)(3)[key] = value
    lookalike.save()


def truncate_image(lookalike):
    path = lookalike.image_path(3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def nan_joint(lookalike):
    lookalike.annotation(3)["keypoints_world"][5][1] = float("nan")
    lookalike.save()


def null_joint(lookalike):
    lookalike.annotation(3)["keypoints_world"][5] = [None, None, None]
    lookalike.save()


def behind_the_camera(lookalike):
    joints = np.array(lookalike.annotation(3)["keypoints_world"])
    joints[:, :2] += -9000, 3000
    set_value(lookalike, "keypoints_world", joints.tolist())


def another_size(lookalike):
    path = lookalike.image_path(3)
    cv2.imwrite(str(path), cv2.imread(str(path))[:, :-10])


def change_camera(lookalike, **values):
    lookalike.image(3)["cam_param"].update(values)
    lookalike.save()


BAD_RECORDS = {
    "missing image": (lambda s: s.image_path(3).unlink(), r"image .*000004\.jpg is missing"),
    "truncated JPEG": (truncate_image, "is bad: truncated JPEG"),
    "empty image": (lambda s: s.image_path(3).write_bytes(b""), "is bad: not a JPEG"),
    "text as image": (lambda s: s.image_path(3).write_text("no"), "is bad: not a JPEG"),
    "another image size": (another_size, r"has 390×300 px, its annotation states 400×300 px"),
    "NaN joint": (nan_joint, "keypoints_world of L_Knee is not finite"),
    "null joint": (null_joint, "keypoints_world of L_Knee is not finite"),
    "too few joints": (
        lambda s: set_value(s, "keypoints_world", [[0, 0, 0]] * 16),
        r"keypoints_world has shape \(16, 3\), expected \(17, 3\)",
    ),
    "box without area": (
        lambda s: set_value(s, "bbox", [10, 10, 0, 50]),
        r"bbox \[10\.0, 10\.0, 0\.0, 50\.0\] has no area",
    ),
    "box of corners elsewhere": (
        lambda s: set_value(s, "bbox", [350, 250, 20, 30]),
        "of the joints fall into the crop",
    ),
    "behind the camera": (behind_the_camera, r"depth -\d+ mm \(behind the camera\)"),
    "no rotation": (lambda s: change_camera(s, R=[[1, 0, 0]] * 3), "cam_param.R is not a rotation"),
    "infinite centre": (lambda s: change_camera(s, t=[1e400, 0, 0]), "t is not finite"),
    "negative focal length": (lambda s: change_camera(s, f=[-5, 5]), r"f is \[-5\.0, 5\.0\] px"),
    "missing key": (lambda s: s.annotation(3).pop("bbox") and s.save(), "KeyError: 'bbox'"),
    "no camera": (lambda s: s.image(3).update(cam_param=None) or s.save(), "not of this layout"),
    "shifted pairs": (lambda s: set_value(s, "image_id", 4), "paired by position"),
    "twice the same": (
        lambda s: set_value(s, "file_name", s.image(1)["file_name"], of="image"),
        "file_name occurs twice",
    ),
    "unknown action": (lambda s: set_value(s, "action_idx", 1, of="image"), "action_idx 1"),
    "text as number": (lambda s: set_value(s, "width", "wide", of="image"), "invalid literal"),
    "infinite number": (lambda s: set_value(s, "frame_idx", 1e400, of="image"), "infinity"),
    "frame beyond 32 bits": (
        lambda s: set_value(s, "frame_idx", 2**31, of="image"),
        "frame_idx is 2147483648, must be 0 to 2147483647",
    ),
    "coordinate beyond floats": (lambda s: set_value(s, "bbox", [10**400, 0, 9, 9]), "too large"),
    "image without height": (
        lambda s: set_value(s, "height", 0, of="image"),
        r"is of an image of 400×0 px, expected sizes above 0",
    ),
    "width beyond 32 bits": (
        lambda s: set_value(s, "width", 10**30, of="image"),
        "is of an image of 10{30}×300 px",
    ),
}


@pytest.mark.parametrize("kind", BAD_RECORDS)
def test_a_bad_record_ends_in_one_line_or_is_left_out_and_listed(lookalike, kind):
    damage, message = BAD_RECORDS[kind]
    damage(lookalike)
    with pytest.raises(ValueError, match=message) as caught:
        convert(lookalike)
    assert "\n" not in str(caught.value)
    assert lookalike.image(3)["file_name"] in str(caught.value)
    store, result = convert(lookalike, on_error="skip")  # goes on where the error ended it
    assert len(store) == result.num_records == 7
    assert 3 not in store.records.frame[store.records.split == "train"]
    ((name, reason),) = result.skipped
    assert name == lookalike.image(3)["file_name"]
    assert store.skipped == list(result.skipped)
    with pytest.raises(ValueError, match=message):
        raise ValueError(reason)


def test_what_was_skipped_is_not_forgotten_when_skipping_ends(lookalike):
    path = lookalike.image_path(3)
    path.write_bytes(path.read_bytes()[:1000])  # found when crops are cut, not before
    convert(lookalike, on_error="skip")
    with pytest.raises(ValueError, match=r"made earlier with --on-error skip, lacks record"):
        convert(lookalike)


def rewrite(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s, p: rewrite(p, "{'images'"), "is not readable JSON"),
        (lambda s, p: rewrite(p, [1, 2]), "holds a list; expected"),
        (lambda s, p: rewrite(p, {"0": {}}), r"has the keys \['0'\]; expected"),
        (
            lambda s, p: rewrite(p, {"images": [{}], "annotations": []}),
            "1 images and 0 annotations",
        ),
        (lambda s, p: rewrite(p, {"images": [], "annotations": []}), "0 images"),
        (
            lambda s, p: rewrite(p.with_name("Sample_trainmin_train_2_protocol_2.json"), {}),
            "several",
        ),
        (lambda s, p: p.write_bytes(b"\xff\xfe{"), "is not readable JSON"),
    ],
)
def test_a_file_of_another_layout_ends_in_one_line(lookalike, damage, message):
    damage(lookalike, lookalike.annotation_path("train"))
    with pytest.raises(ValueError, match=message) as caught:
        convert(lookalike)
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(lookalike, tmp_path):
    with pytest.raises(ValueError, match=r"annotation file .*mine\.json is missing"):
        convert(lookalike, train_annotation="mine.json")
    for split in ("train", "test"):
        lookalike.annotation_path(split).unlink()
    with pytest.raises(ValueError, match="holds no Sample_trainmin_train_"):
        convert(lookalike)
    with pytest.raises(ValueError, match=r"no folder .*annotations; SOURCE must hold"):
        RleJsonReader(tmp_path / "nowhere")


def test_one_split_alone_is_enough_and_names_can_be_given(lookalike):
    lookalike.annotation_path("test").unlink()
    lookalike.annotation_path("train").rename(lookalike.folder / "annotations" / "mine.json")
    store, _ = convert(lookalike, train_annotation="mine.json")
    assert set(store.records.split) == {"train"}


def test_metres_are_refused(lookalike):
    for content in lookalike.content.values():
        for image, annotation in zip(content["images"], content["annotations"], strict=True):
            scaled = np.array(annotation["keypoints_world"]) / 1000
            annotation["keypoints_world"] = scaled.tolist()
            image["cam_param"]["t"] = (np.array(image["cam_param"]["t"]) / 1000).tolist()
    lookalike.save()
    with pytest.raises(ValueError, match="expected millimetres"):
        convert(lookalike)


def count_records(monkeypatch, *, limit=None):
    """The source files whose crops are cut from now on; interrupts the run after so many."""
    made = []
    make_record = crops.make_record

    def counted(people, row, *rest, **options):
        if len(made) == limit:
            raise KeyboardInterrupt
        made.append(people.take.pictures.names[row])
        return make_record(people, row, *rest, **options)

    monkeypatch.setattr(conversion, "make_record", counted)
    return made


def test_an_interrupted_conversion_goes_on_and_equals_an_uninterrupted_one(lookalike, monkeypatch):
    whole, _ = convert(lookalike, name="whole")
    with monkeypatch.context() as patch:
        count_records(patch, limit=5)
        with pytest.raises(KeyboardInterrupt):
            convert(lookalike, name="part")
    with pytest.raises(ValueError, match="is an unfinished store"):
        open_store(lookalike.folder.parent / "part")
    made = count_records(monkeypatch)
    again, result = convert(lookalike, name="part")
    assert result.num_resumed == 3
    assert len(made) == 3  # of the takes' 1, 1, 3 and 3 records three takes were finished
    assert again.digest == whole.digest


def test_a_finished_store_is_not_made_again_unless_asked(lookalike, monkeypatch):
    store, _ = convert(lookalike)
    made = count_records(monkeypatch)
    again, result = convert(lookalike)
    assert (len(made), result.num_resumed, again.digest) == (0, 4, store.digest)
    with pytest.raises(ValueError, match="quality: 95 there, 50 asked"):
        convert(lookalike, jpeg_quality=50)
    other, _ = convert(lookalike, jpeg_quality=50, overwrite=True)
    assert len(made) == 8
    assert other.digest != store.digest


def test_takes_are_the_same_in_another_process(lookalike, assert_units_travel):
    assert_units_travel(RleJsonReader(lookalike.folder))


@pytest.mark.parametrize("settings", [{"box": "tight"}, {"on_error": "ignore"}, {"enlarge": 0}])
def test_unknown_settings_are_refused(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=name):
        ConversionConfig(**settings)


def test_an_unknown_reading_of_the_translation_is_refused(lookalike):
    with pytest.raises(ValueError, match="translation must be auto, centre or minus-rc, got 't'"):
        RleJsonReader(lookalike.folder, translation="t")


@pytest.mark.parametrize("sequence", [(9, 5, 2), (9, 10, 2), (9, 13, 1)])
def test_the_block_list_holds_in_both_sets_unless_asked_otherwise(lookalike, sequence):
    subject, action, subaction = sequence
    for content in lookalike.content.values():
        for image in content["images"][::2]:
            image.update(subject=subject, action_idx=action, subaction_idx=subaction)
    lookalike.save()
    blocked, _ = convert(lookalike)
    assert (len(blocked), set(blocked.records.subject)) == (4, {5})
    assert set(blocked.records.split) == {"train", "test"}
    kept, _ = convert(lookalike, name="kept", shifted="keep")
    mended, _ = convert(lookalike, name="mended", shifted="correct")
    assert len(kept) == len(mended) == 8
    rows = np.flatnonzero(kept.records.subject == 9)
    moved = kept.records.joints_camera_mm[rows] - mended.records.joints_camera_mm[rows]
    np.testing.assert_allclose(np.linalg.norm(moved, axis=-1), 200, atol=1e-2)


def test_a_tree_of_human36m_gives_the_direct_store(
    few, few_direct, store_of, assert_same_store, tmp_path
):
    write_rle_json(few, tmp_path / "h36m", train_every=1, test_every=1)
    store = store_of(RleJsonReader(tmp_path / "h36m"), lens="distorted")
    assert_same_store(store, few_direct)


def test_nothing_is_thinned_out_a_second_time(lookalike):
    store, _ = convert(lookalike)
    assert sorted(store.records.frame) == list(range(8))


def test_the_block_list_is_of_subject_9_alone(lookalike):
    for content in lookalike.content.values():
        for image in content["images"]:
            image.update(subject=1, action_idx=5, subaction_idx=2)
    lookalike.save()
    assert len(convert(lookalike)[0]) == 8


def test_shrinking_does_not_alias():
    stripes = np.zeros((480, 480, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than the crop can show: it must come out grey
    store_from_image = np.array([[0.37, 0, 0.3], [0, 0.37, 0.3], [0, 0, 1.0]])
    crop = crops.cut_crop(stripes, store_from_image, crop_size_px=170)
    assert np.abs(crop[8:-8, 8:-8].astype(float) - 127.5).max() < 35
    straight = cv2.warpAffine(stripes, store_from_image[:2], (170, 170))
    assert np.abs(straight[8:-8, 8:-8].astype(float) - 127.5).max() > 100


@pytest.mark.real
def test_real_photographs(real_data, tmp_path):
    config = ConversionConfig(crop_size_px=96)
    result = conversion.convert(RleJsonReader(real_data), tmp_path / "store", config=config)
    store = open_store(result.path)
    assert (result.num_records, result.skipped) == (200, ())
    assert check_records(store) == []
    assert (store.records.split == "test").sum() == 40
    nose = store.skeleton.index("Nose")
    without = (store.records.weight == 0).all(-1)
    assert without.sum() == without[:, nose].sum() == 24  # six frames of a lost nose, four cameras


def test_boxes_of_a_detector_take_the_place_of_the_annotated_ones(lookalike, tmp_path):
    take = RleJsonReader(lookalike.folder).units()[0].load()
    name, box = take.pictures.names[0], [300.0, 310.0, 320.0, 330.0]
    path = tmp_path / "boxes_protocol_2.json"
    path.write_text(json.dumps([{"image_id": name, "bbox": box}]))
    reader = RleJsonReader(lookalike.folder, detector_boxes=path)
    found = reader.units()[0].load()
    assert found.box_xywh_px[0].tolist() == box
    np.testing.assert_array_equal(found.box_xywh_px[1:], take.box_xywh_px[1:])
    assert any(f"are those of {path}" in note for note in reader.notes)
    assert reader.identity() != RleJsonReader(lookalike.folder).identity()
    path.write_text(json.dumps([{"image_id": "another.jpg", "bbox": box}]))
    with pytest.raises(ValueError, match=r"boxes_protocol_2\.json has no box of any image"):
        RleJsonReader(lookalike.folder, detector_boxes=path)
