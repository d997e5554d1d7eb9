"""The tree of metro and MeTRAbs."""

import shutil
from functools import partial

import numpy as np
import pytest

from data_prep.convert import convert
from data_prep.lookalike.metro import write_metro
from data_prep.lookalike.world import make_world
from data_prep.readers.metro import MetroReader, read_boxes

IMAGES = "S1/Images/Greeting.54138969"
BOXES = "S1/BBoxes/Greeting.54138969.npy"
POSES = "S1/MyPoseFeatures/D3_Positions/Greeting.cdf"
METADATA = "Release-v1.2/metadata.xml"


@pytest.fixture(scope="module")
def write_tree():
    """Writes a world in this layout."""
    return partial(write_metro, every=(1,))


@pytest.fixture(scope="module")
def long_world():
    """One performance that is long enough to be thinned out."""
    return make_world(
        subjects=(1,), actions=(5,), subactions=(2,), num_poses=13, camera_names=("54138969",)
    )


def test_the_tree_gives_the_direct_store(whole_tree, direct, store_of, assert_same_store):
    reader = MetroReader(whole_tree)
    assert reader.missing == []
    assert reader.default_protocol == "rle-2"
    assert_same_store(store_of(reader), direct)
    assert MetroReader(whole_tree.parent).units()  # the folder that holds it


def test_boxes_are_those_of_the_masks(whole_tree, world):
    units = {unit.name: unit for unit in MetroReader(whole_tree).units()}
    performance = world.performances[2]
    take = units["s_09_act_10_subact_02_ca_04"].load()
    for frame, box in zip(take.frame, take.box_xywh_px, strict=True):
        y, x = np.nonzero(world.painter.mask(performance, "60457274", int(frame)))
        assert box.tolist() == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]


@pytest.mark.parametrize("rows", ["frames", "images"])
def test_rows_of_boxes_belong_to_frames_or_to_images(long_world, tmp_path, rows):
    write_metro(long_world, tmp_path, boxes=rows)
    (unit,) = MetroReader(tmp_path).units()
    take = unit.load()
    assert take.frame.tolist() == [0, 5, 10]
    assert take.pictures.names[1] == "S1/Images/Greeting.54138969/frame_000005.jpg"
    y, x = np.nonzero(long_world.painter.mask(long_world.performances[0], "54138969", 10))
    assert take.box_xywh_px[2].tolist() == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]


def test_another_number_of_boxes_is_refused(tmp_path):
    frames = np.array([0, 5, 10])
    np.save(tmp_path / "b.npy", np.ones((4, 4)))
    with pytest.raises(ValueError, match=r"b\.npy has 4 rows, .* 11\) or one per image \(3\)"):
        read_boxes(tmp_path / "b.npy", frames, frames)


def test_an_empty_mask_is_no_box(tmp_path):
    boxes = np.arange(1.0, 13).reshape(3, 4)
    boxes[1] = 0
    np.save(tmp_path / "b.npy", boxes.astype(np.float32))
    frames = np.arange(3)
    found = read_boxes(tmp_path / "b.npy", frames, frames)
    assert np.isnan(found[1]).all()
    assert found[2].tolist() == [9, 10, 11, 12]


def test_a_tree_without_boxes_takes_those_of_the_joints(tiny_world, tmp_path):
    write_metro(tiny_world, tmp_path, boxes="none")
    reader = MetroReader(tmp_path)
    assert reader.box_kind == "none"
    assert reader.units()[0].load().box_xywh_px is None
    assert any("BBoxes" in note for note in reader.notes)


def test_images_of_frames_beyond_the_poses_are_left_out(tree):
    shutil.copy(tree / IMAGES / "frame_000001.jpg", tree / IMAGES / "frame_000002.jpg")
    assert MetroReader(tree).units()[0].load().frame.tolist() == [0, 1]


def test_shifted_sequences_are_mended_with_their_boxes(
    tmp_path, store_of, make_direct_store, assert_same_store
):
    world = make_world(subjects=(9,), actions=(10,), subactions=(2,), num_poses=2)
    write_metro(world, tmp_path / "shifted", every=(1,), is_shifted=True)
    write_metro(world, tmp_path / "right", every=(1,))
    mended = store_of(MetroReader(tmp_path / "shifted"), shifted="correct", box="mask")
    right = store_of(MetroReader(tmp_path / "right"), shifted="keep", box="mask")
    assert_same_store(mended, make_direct_store(world, tmp_path / "direct"), boxes=False)
    np.testing.assert_allclose(mended.records.box_image_px, right.records.box_image_px, atol=6)
    kept = store_of(MetroReader(tmp_path / "shifted"), shifted="keep", box="mask")
    assert np.abs(kept.records.box_image_px - right.records.box_image_px).max() > 20


def test_cameras_are_those_of_metadata_or_the_known_ones(tree, tmp_path):
    stated = MetroReader(tree).units()[0].load().camera
    moved = (tree / METADATA).rename(tmp_path / "elsewhere.xml")
    reader = MetroReader(tree)
    assert any("metadata.xml is missing" in note for note in reader.notes)
    known = reader.units()[0].load().camera
    np.testing.assert_allclose(stated.rotation, known.rotation, atol=1e-6)
    np.testing.assert_allclose(stated.centre_world_mm, known.centre_world_mm, atol=0.01)
    assert MetroReader(tree, metadata=moved).notes == [
        MetroReader(tree).notes[0],
        f"cameras: {moved}",
    ]


def test_names_of_another_release_are_refused(tree):
    path = tree / METADATA
    path.write_text(path.read_text().replace("<td>Greeting</td>", "<td>Greeting 7</td>"))
    with pytest.raises(ValueError, match=r"metadata\.xml calls S1.*'Greeting 7'"):
        MetroReader(tree)


def test_renamed_files_of_the_first_subject_are_found(tree):
    (tree / "S1/Images/TakingPhoto.54138969").rename(tree / "S1/Images/Photo.54138969")
    (tree / "S1/BBoxes/TakingPhoto.54138969.npy").rename(tree / "S1/BBoxes/Photo.54138969.npy")
    reader = MetroReader(tree)
    assert reader.missing == []
    assert {unit.action for unit in reader.units()} == {"Greeting", "Photo"}


def test_the_unusable_view_is_left_out_with_a_note(tmp_path):
    world = make_world(subjects=(11,), actions=(2, 3), subactions=(2,), num_poses=1)
    write_metro(world, tmp_path, boxes="none")
    reader = MetroReader(tmp_path)
    assert len(reader.units()) == 7
    assert reader.missing == []
    assert any("Directions.54138969" in note for note in reader.notes)


def test_missing_files_are_named(tmp_path):
    world = make_world(
        subjects=(1,),
        actions=(5,),
        subactions=(1, 2),
        num_poses=1,
        camera_names=("54138969", "55011271"),
    )
    write_metro(world, tmp_path)
    (tmp_path / POSES).unlink()
    (tmp_path / "S1/BBoxes/Greeting 1.54138969.npy").unlink()
    shutil.rmtree(tmp_path / "S1/Images/Greeting 1.55011271")
    reader = MetroReader(tmp_path)
    assert [line.split(f"{tmp_path}/")[1] for line in reader.missing] == [
        "S1/BBoxes/Greeting 1.54138969.npy is missing",
        "S1/Images/Greeting 1.55011271 is missing, of camera 54138969 it is there",
        f"{POSES} is missing",
        f"{POSES} is missing",
    ]
    with pytest.raises(ValueError, match=r"takes part: .*Greeting 1\.54138969\.npy is missing"):
        convert(reader, tmp_path / "store")


def _damage_poses(tree):
    path = tree / POSES
    path.write_bytes(path.read_bytes()[:200])


def _damage_boxes(tree):
    path = tree / BOXES
    path.write_bytes(path.read_bytes()[:140])


def _boxes_of_two_corners(tree):
    np.save(tree / BOXES, np.ones((2, 2, 2)))


def _boxes_of_objects(tree):
    np.save(tree / BOXES, np.array([{}] * 2))


def _no_image_of_any_pose(tree):
    for number in range(2):
        name = tree / IMAGES / f"frame_{number:06d}.jpg"
        name.rename(name.with_name(f"frame_{number + 90:06d}.jpg"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_damage_poses, r"Greeting\.cdf"),
        (_damage_boxes, r"Greeting\.54138969\.npy cannot be read"),
        (_boxes_of_two_corners, "expected rows of left"),
        (_boxes_of_objects, r"Greeting\.54138969\.npy cannot be read"),
        (_no_image_of_any_pose, "has no image of the 2 poses"),
    ],
)
def test_a_damaged_file_is_one_line_and_the_rest_is_kept(tree, tmp_path, store_of, damage, words):
    damage(tree)
    with pytest.raises(ValueError, match=words) as caught:
        convert(MetroReader(tree), tmp_path / "strict", config=None)
    assert "\n" not in str(caught.value)
    store = store_of(MetroReader(tree), on_error="skip")
    assert set(store.records.action) == {"Photo"}
    assert len(store.skipped) == 1


def test_another_folder_is_refused_with_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match=r"frame_000000\.jpg"):
        MetroReader(tmp_path)


def test_units_can_be_sent_to_other_processes(tree, assert_units_travel):
    assert_units_travel(MetroReader(tree))
