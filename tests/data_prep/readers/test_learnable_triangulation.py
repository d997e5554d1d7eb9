"""The labels of learnable-triangulation with a tree of images."""

import shutil

import numpy as np
import pytest

from data_prep.convert import convert
from data_prep.lookalike.learnable_triangulation import write_learnable_triangulation
from data_prep.lookalike.world import make_world
from data_prep.readers.learnable_triangulation import LearnableTriangulationReader

LABELS = "extra/human36m-multiview-labels-GTbboxes.npy"
UNDISTORTED = "imageSequence-undistorted"


@pytest.fixture(scope="module")
def write_tree():
    """Writes a world in this layout."""
    return write_learnable_triangulation


@pytest.fixture(scope="module")
def tiny_tree(tiny_world, tmp_path_factory):
    """The tiny world, its images with and without distortion."""
    folder = tmp_path_factory.mktemp("tiny") / "tree"
    write_learnable_triangulation(tiny_world, folder, sequences=("imageSequence", UNDISTORTED))
    return folder


def rewrite(folder, change):
    """Change the dictionary of the label file."""
    content = np.load(folder / LABELS, allow_pickle=True).item()
    np.save(folder / LABELS, change(content))


def with_entry(**changes):
    """Makes a change of entries by functions of their values."""
    return lambda content: {
        **content,
        **{key: change(content[key].copy()) for key, change in changes.items()},
    }


def test_the_tree_gives_the_direct_store(whole_tree, direct, store_of, assert_same_store):
    reader = LearnableTriangulationReader(whole_tree)
    assert reader.default_protocol == "rle-2"
    assert reader.missing == []
    assert_same_store(store_of(reader), direct)


def test_boxes_are_the_squares_around_the_masks(whole_tree, world):
    units = {unit.name: unit for unit in LearnableTriangulationReader(whole_tree).units()}
    performance = world.performances[1]
    take = units["s_07_act_10_subact_02_ca_03"].load()
    for frame, (left, top, width, height) in zip(take.frame, take.box_xywh_px, strict=True):
        mask = world.painter.mask(performance, "58860488", int(frame))
        rows, columns = np.nonzero(mask)
        extent = np.array([np.ptp(columns) + 1, np.ptp(rows) + 1])
        assert width == height == extent.max()
        middle = np.array([columns.min() + columns.max() + 1, rows.min() + rows.max() + 1]) / 2
        np.testing.assert_allclose([left + width / 2, top + height / 2], middle, atol=1)


def test_boxes_of_the_ground_truth_are_of_masks_others_are_not(tree):
    assert LearnableTriangulationReader(tree).box_kind == "mask"
    other = (tree / LABELS).rename(tree / "extra/human36m-multiview-labels-MRCNNbboxes.npy")
    assert LearnableTriangulationReader(tree).box_kind == "annotation"
    shutil.copy(other, tree / LABELS)
    assert LearnableTriangulationReader(tree).box_kind == "mask"
    with pytest.raises(ValueError, match="hold 0 files"):
        LearnableTriangulationReader(tree / "processed", images=tree / "processed")


def test_undistorted_images_are_seen_without_distortion(
    tree, tiny_world, tmp_path, store_of, make_direct_store, assert_same_store
):
    assert LearnableTriangulationReader(tree).units()[0].load().camera.radial.any()
    reader = LearnableTriangulationReader(tree, undistorted=True)
    assert "undistorted" in reader.units()[0].load().pictures.names[0]
    found = store_of(reader)
    pinhole = make_direct_store(tiny_world, tmp_path / "pinhole", lens="pinhole")
    np.testing.assert_allclose(
        found.records.store_from_image, pinhole.records.store_from_image, atol=1e-3
    )
    assert not found.cameras.radial.any()
    assert not found.cameras.tangential.any()
    assert_same_store(found, pinhole, boxes=False)
    shutil.rmtree(tree / "processed/S1/Greeting-2/imageSequence")
    shutil.rmtree(tree / "processed/S1/TakingPhoto-2/imageSequence")
    assert "undistorted" in LearnableTriangulationReader(tree).units()[0].load().pictures.names[0]


def test_the_undistorted_image_shows_joints_where_a_pinhole_puts_them(tree, tiny_world):
    take = LearnableTriangulationReader(tree, undistorted=True).units()[0].load()
    plain = LearnableTriangulationReader(tree).units()[0].load()
    x, y, z = np.moveaxis(take.joints_camera_mm, -1, 0)
    focal, point = take.camera.focal_px.numpy(), take.camera.principal_point_px.numpy()
    pinhole_px = np.stack([x / z, y / z], -1) * focal + point
    distorted_px = plain.camera.camera_to_image(
        plain.camera.radial.new_tensor(plain.joints_camera_mm)
    ).numpy()
    for row, (image, source) in enumerate(
        zip(take.pictures.frames(), plain.pictures.frames(), strict=True)
    ):
        for joint in (3, 6, 10):  # the ends of limbs
            ours, theirs = (
                picture[tuple(np.round(px[row, joint, ::-1]).astype(int))].astype(int)
                for picture, px in ((image, pinhole_px), (source, distorted_px))
            )
            assert np.abs(ours - theirs).max() < 25


def test_thinned_labels_are_taken_as_they_are(tmp_path):
    world = make_world(
        subjects=(1,), actions=(5,), subactions=(2,), num_poses=12, camera_names=("54138969",)
    )
    write_learnable_triangulation(world, tmp_path, every=5)
    take = LearnableTriangulationReader(tmp_path).units()[0].load()
    assert take.frame.tolist() == [0, 5, 10]
    assert take.pictures.names[1].endswith("img_000006.jpg")


def test_every_fifth_frame_of_a_test_subject_is_all_that_there_is(tree):
    def every_fifth(table):
        rows = np.repeat(table[:1], 200)
        rows["frame_idx"] = 5 * np.arange(len(rows))
        rows["subject_idx"] = 5  # S9
        return np.concatenate([table, rows])

    rewrite(tree, with_entry(table=every_fifth))
    assert LearnableTriangulationReader(tree).default_protocol == "full"


def test_missing_views_have_boxes_of_zeros(tmp_path):
    world = make_world(subjects=(11,), actions=(2, 3), subactions=(2,), num_poses=1)
    write_learnable_triangulation(
        world, tmp_path, without=[(11, 2, 2, "54138969"), (11, 3, 2, "60457274")]
    )
    rewrite(tmp_path, with_entry(table=_without_first_box))
    reader = LearnableTriangulationReader(tmp_path)
    counts = {unit.name: unit.count for unit in reader.units()}
    assert len(counts) == 6
    assert "s_11_act_02_subact_02_ca_01" not in counts
    assert counts["s_11_act_03_subact_02_ca_01"] == 1
    assert any("Directions.54138969" in note for note in reader.notes)
    assert any("ca_01: 1 of 2 frames" in note for note in reader.notes)
    assert any("ca_04: 2 of 2 frames" in note for note in reader.notes)


def _without_first_box(table):
    table["bbox_by_camera_tlbr"][1, 0] = 0
    return table


def test_a_translation_that_is_the_centre_is_recognised(tiny_world, tree, tmp_path):
    write_learnable_triangulation(tiny_world, tmp_path / "centre", translation="centre")
    shutil.copy(tmp_path / "centre" / LABELS, tree / LABELS)
    expected = tiny_world.camera(1, "54138969").centre_world_mm
    found = LearnableTriangulationReader(tree).units()[0].load().camera.centre_world_mm
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_labels_without_an_image_are_left_out_and_counted(tree, store_of, tmp_path):
    (tree / "processed/S1/Greeting-2/imageSequence/54138969/img_000001.jpg").unlink()
    take = LearnableTriangulationReader(tree).units()[0].load()
    assert take.frame.tolist() == [1]
    assert take.notes == ("s_01_act_05_subact_02_ca_01: 1 of 2 labels have no image",)
    (tree / "processed/S1/Greeting-2/imageSequence/54138969/img_000002.jpg").unlink()
    with pytest.raises(ValueError, match="none of the 2 images"):
        convert(LearnableTriangulationReader(tree), tmp_path / "strict")
    assert set(store_of(LearnableTriangulationReader(tree), on_error="skip").records.action) == {
        "Photo"
    }


def test_images_may_lie_beside_extra_without_processed(tree):
    expected = LearnableTriangulationReader(tree).units()
    shutil.move(tree / "processed/S1", tree / "S1")
    (tree / "processed").rmdir()
    units = LearnableTriangulationReader(tree).units()
    assert [unit.name for unit in units] == [unit.name for unit in expected]
    assert not units[0].load().pictures.missing()


def test_a_sequence_without_folder_is_missing(tree):
    shutil.rmtree(tree / "processed/S1/Greeting-2")
    reader = LearnableTriangulationReader(tree)
    assert reader.missing == [
        f"{tree / 'processed'} has no images of S1, action 5, take 2, 54138969"
    ]
    assert len(reader.units()) == 1


def test_labels_are_unpickled_with_care(tree, attack):
    np.save(tree / LABELS, {"table": attack})
    with pytest.raises(ValueError, match=r"GTbboxes\.npy"):
        LearnableTriangulationReader(tree)


def _change_names(content):
    return {**content, "action_names": [name.replace("G", "X") for name in content["action_names"]]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: {k: v for k, v in c.items() if k != "cameras"}, "lacks cameras"),
        (lambda c: np.zeros(3), "expected a dictionary"),
        (with_entry(table=lambda t: t[["subject_idx", "action_idx"]]), "frame_idx of table"),
        (with_entry(cameras=lambda c: c[:3]), r"cameras has shape \(3, 4\)"),
        (with_entry(table=lambda t: t[:0]), "expected rows"),
        (_change_names, "Xreeting"),
        (lambda c: {**c, "subject_names": ["S2", *c["subject_names"][1:]]}, "S2"),
        (lambda c: {**c, "camera_names": ["1", "2", "3", "4"]}, "camera 1 is unknown"),
        (lambda c: {**c, "action_names": c["action_names"][:3]}, "refers to number"),
    ],
)
def test_foreign_labels_are_named(tree, change, words):
    rewrite(tree, change)
    with pytest.raises(ValueError, match=words) as caught:
        LearnableTriangulationReader(tree)
    assert "GTbboxes.npy" in str(caught.value)
    assert "\n" not in str(caught.value)


def _scaled(name, factor):
    def change(values):
        values[name] = values[name] * factor
        return values

    return change


def _first_frame_twice(table):
    table["frame_idx"] = 0
    return table


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"table": _scaled("keypoints", 0.001)}, "expected millimetres"),
        ({"cameras": _scaled("t", 1.1)}, "mm from where"),
        ({"cameras": _scaled("R", 0)}, "neither R nor its transpose"),
        ({"table": _first_frame_twice}, "twice"),
    ],
)
def test_wrong_numbers_are_named(tree, changes, words):
    rewrite(tree, with_entry(**changes))
    with pytest.raises(ValueError, match=words) as caught:
        LearnableTriangulationReader(tree)
    assert "GTbboxes.npy" in str(caught.value)


def test_a_cut_off_file_is_named(tree):
    data = (tree / LABELS).read_bytes()
    (tree / LABELS).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"GTbboxes\.npy"):
        LearnableTriangulationReader(tree)


def test_units_can_be_sent_to_other_processes(tree, assert_units_travel):
    assert_units_travel(LearnableTriangulationReader(tree))
