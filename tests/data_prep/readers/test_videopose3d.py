"""VideoPose3D's poses find their images, their cameras and their unit."""

import os
import shutil

import numpy as np
import pytest

from data_prep.convert import ConversionConfig, convert
from data_prep.lookalike.image_trees import PLACES, write_image_tree
from data_prep.lookalike.videopose3d import write_videopose3d
from data_prep.lookalike.world import make_world
from data_prep.readers.videopose3d import VideoPose3dReader
from pose3d.data.store import open_store


@pytest.fixture(scope="module")
def tiny_world():
    """S1's Photo is TakingPhoto in the release; S11's second Directions is left out."""
    return make_world(
        subjects=(1, 11), actions=(2, 12), subactions=(2,), num_poses=2, camera_names=("60457274",)
    )


@pytest.fixture(scope="module")
def write_tree():
    """Writes a world in this layout."""
    return write_videopose3d


def test_poses_and_images_give_the_direct_store(
    few, few_direct, store_of, assert_same_store, tmp_path
):
    write_videopose3d(few, tmp_path / "tree")
    reader = VideoPose3dReader(tmp_path / "tree")
    assert reader.missing == []
    assert reader.default_protocol == "rle-2"
    assert_same_store(store_of(reader), few_direct)


@pytest.mark.parametrize("kind", [*PLACES, "videos"])
def test_every_tree_of_images_will_do(
    kind, tiny_world, tiny_tree, tiny_direct, store_of, assert_same_store, tmp_path
):
    write_image_tree(tiny_world, tmp_path / "images", kind=kind)
    reader = VideoPose3dReader(tiny_tree / "data_3d_h36m.npz", images=tmp_path / "images")
    store = store_of(reader)
    is_undistorted = kind == "h36m-fetch, undistorted"
    assert bool(store.cameras.radial.any()) != is_undistorted
    assert_same_store(store, tiny_direct, whole=False, boxes=not is_undistorted)
    names = {(1, "Directions"), (1, "Photo"), (11, "Photo")}
    assert set(zip(store.records.subject, store.records.action, strict=True)) == names


def test_two_dimensional_labels_lie_where_the_joints_are_projected(tiny_tree, seen_px):
    for unit in VideoPose3dReader(tiny_tree).units():
        take = unit.load()
        image_px = seen_px(take.joints_camera_mm, take.camera)
        np.testing.assert_allclose(take.source_px, image_px, atol=0.01)


def test_poses_without_an_image_are_left_out_and_counted(
    tiny_world, tiny_tree, tiny_direct, store_of, assert_same_store, tmp_path
):
    write_image_tree(tiny_world, tmp_path / "images", kind="metro", every=2)
    shutil.rmtree(tmp_path / "images" / "S11")
    reader = VideoPose3dReader(tiny_tree, images=tmp_path / "images")
    said = " ".join(reader.notes)
    lengths = [len(p) for p in tiny_world.performances if p.subject == 1]
    lost = sum(length // 2 for length in lengths)
    assert f"left out {lost} of {sum(lengths)} poses before a camera" in said
    assert "sequences that have no images: S1 Directions.54138969" in said
    store = store_of(reader)
    assert_same_store(store, tiny_direct, whole=False)
    assert len(store) == sum(lengths) - lost
    assert not (store.records.frame % 2).any()


def test_no_image_at_all_is_an_error(tiny_tree, tmp_path):
    other = make_world(
        subjects=(5,), actions=(2,), subactions=(1,), num_poses=1, camera_names=("60457274",)
    )
    write_image_tree(other, tmp_path / "images", kind="mmpose")
    with pytest.raises(ValueError, match=r"no pose has an image in .*images"):
        VideoPose3dReader(tiny_tree, images=tmp_path / "images")


def test_a_folder_without_images_names_the_option(tiny_world, tmp_path):
    write_videopose3d(tiny_world, tmp_path / "tree", images=None)
    with pytest.raises(ValueError, match=r"holds no images .*with --images"):
        VideoPose3dReader(tmp_path / "tree")


def test_a_video_shorter_than_its_poses_cuts_them(tmp_path):
    long = make_world(
        subjects=(1,), actions=(12,), subactions=(2,), num_poses=6, camera_names=("60457274",)
    )
    write_videopose3d(long, tmp_path / "long", images=None)
    short = make_world(
        subjects=(1,), actions=(12,), subactions=(2,), num_poses=2, camera_names=("60457274",)
    )
    write_image_tree(short, tmp_path / "images", kind="videos")
    (unit,) = VideoPose3dReader(tmp_path / "long", images=tmp_path / "images").units()
    take = unit.load()
    assert take.frame.tolist() == [0, 1, 2, 3]  # two poses and what videos have more
    assert "TakingPhoto.60457274.mp4 has 4 frames for 6 poses" in take.notes[0]


def test_takes_are_the_same_in_another_process(tiny_tree, assert_units_travel):
    assert_units_travel(VideoPose3dReader(tiny_tree))


def edit(tree, name, key, function):
    """Change the dict of a file."""
    with np.load(tree / name, allow_pickle=True) as file:
        content = {other: file[other] for other in file.files}
    content[key] = np.array(function(content[key].item()), object)
    np.savez(tree / name, **content)


def edit_poses(function):
    return lambda tree: edit(tree, "data_3d_h36m.npz", "positions_3d", function)


def edit_points(function):
    return lambda tree: edit(tree, "data_2d_h36m_gt.npz", "positions_2d", function)


def times_1000(content):
    return {
        subject: {action: 1000 * poses for action, poses in actions.items()}
        for subject, actions in content.items()
    }


def without_a_joint(content):
    return {"S1": {"Photo": content["S1"]["Photo"][:, :31]}}


def sixteen_joints(content):
    content["S1"]["Photo"] = [points[:, :16] for points in content["S1"]["Photo"]]
    return content


def cut_off(name):
    def damage(tree):
        data = (tree / name).read_bytes()
        (tree / name).write_bytes(data[: len(data) // 2])

    return damage


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


BAD_FILES = {
    "millimetres": (edit_poses(times_1000), r"'Directions': people are .* expected metres"),
    "31 joints": (edit_poses(without_a_joint), r"S1 'TakingPhoto' has the shape \(\d, 31, 3\)"),
    "unknown subject": (edit_poses(lambda c: {"S2": c["S1"]}), "subject S2 is not one of S1"),
    "unknown action": (
        edit_poses(lambda c: {"S1": {"Dancing": c["S1"]["Photo"]}}),
        r"data_3d_h36m\.npz: S1 has no sequence 'Dancing'; expected one of Directions 1",
    ),
    "no subjects": (edit_poses(lambda c: {"all": {}}), "got 'all': dict"),
    "a list": (edit_poses(lambda c: [1, 2, 3]), r"got an array of the shape \(3,\)"),
    "not arrays": (edit_poses(lambda c: {"S1": {"Photo": "x"}}), "has the shape None"),
    "missing": (lambda t: (t / "data_3d_h36m.npz").unlink(), r"data_3d_h36m\.npz cannot be read"),
    "cut off": (cut_off("data_3d_h36m.npz"), r"data_3d_h36m\.npz is not readable"),
    "evil": (edit_poses(lambda c: {"S1": {"Photo": Evil()}}), r"asks for \w+\.system, which"),
    "16 joints": (edit_points(sixteen_joints), r"_gt\.npz: S1 'TakingPhoto', camera 54138969 has"),
    "2-D labels cut off": (cut_off("data_2d_h36m_gt.npz"), r"_gt\.npz is not readable"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_ends_in_one_line_that_names_it(tree, kind, monkeypatch, tmp_path):
    damage, message = BAD_FILES[kind]
    damage(tree)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        VideoPose3dReader(tree)
    assert "\n" not in str(caught.value)
    assert "_h36m" in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_2d_labels_that_are_too_short_are_not_compared(tree):
    def shorten(content):
        content["S1"]["Photo"] = [points[:1] for points in content["S1"]["Photo"]]
        return content

    edit_points(shorten)(tree)
    reader = VideoPose3dReader(tree)
    assert any("has 1 2-D labels for" in note for note in reader.notes)
    units = {(unit.subject, unit.action): unit.load().source_px for unit in reader.units()}
    assert units[1, "Photo"] is None
    assert units[1, "Directions"] is not None


def test_a_missing_or_truncated_image_is_left_out_if_asked(tree, tmp_path):
    paths = sorted((tree / "images").glob("s_01_act_12*/*.jpg"))
    paths[0].write_bytes(paths[0].read_bytes()[:500])
    options = {"protocol": "full", "crop_size_px": 96}
    with pytest.raises(ValueError, match="truncated JPEG"):
        convert(VideoPose3dReader(tree), tmp_path / "s", config=ConversionConfig(**options))
    config = ConversionConfig(**options, on_error="skip")
    result = convert(VideoPose3dReader(tree), tmp_path / "s", config=config)
    assert len(result.skipped) == 1
    assert len(open_store(tmp_path / "s")) == result.num_records > 0
