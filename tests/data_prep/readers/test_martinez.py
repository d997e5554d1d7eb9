"""The poses and cameras of Martinez et al.'s h36m.zip find their images."""

import h5py
import numpy as np
import pytest

from data_prep.convert import ConversionConfig, convert
from data_prep.lookalike.image_trees import write_image_tree
from data_prep.lookalike.martinez import write_martinez
from data_prep.lookalike.world import make_world
from data_prep.readers.martinez import MartinezReader
from pose3d.data.store import open_store

OPTIONS = {"protocol": "full", "crop_size_px": 96}


@pytest.fixture(scope="module")
def tiny_world():
    """Names that are traps, and the view without a usable video."""
    return make_world(
        subjects=(1, 11), actions=(2, 15), subactions=(2,), num_poses=2, camera_names=("54138969",)
    )


@pytest.fixture(scope="module")
def write_tree():
    """Writes a world in this layout."""
    return write_martinez


def test_poses_and_images_give_the_direct_store(
    few, few_direct, store_of, assert_same_store, tmp_path
):
    write_martinez(few, tmp_path / "tree", images="metro")
    reader = MartinezReader(tmp_path / "tree", images=tmp_path / "tree")
    assert reader.missing == []
    assert reader.default_protocol == "rle-2"
    assert_same_store(store_of(reader), few_direct)


def test_the_unusable_view_is_left_out(tiny_tree, tiny_direct, store_of, assert_same_store):
    reader = MartinezReader(tiny_tree)
    assert any("Directions.54138969" in note for note in reader.notes)
    store = store_of(reader)
    assert_same_store(store, tiny_direct, whole=False)
    names = {(1, "Directions"), (1, "WalkDog"), (11, "WalkDog")}
    assert set(zip(store.records.subject, store.records.action, strict=True)) == names


def test_rotations_are_read_whichever_way_they_lie_on_disk(
    tiny_world, tiny_tree, tiny_direct, store_of, assert_same_store, tmp_path
):
    assert any("world from camera" in note for note in MartinezReader(tiny_tree).notes)
    write_martinez(tiny_world, tmp_path / "turned", is_transposed=False, images=None)
    reader = MartinezReader(tmp_path / "turned", images=tiny_tree)
    assert any("camera from world" in note for note in reader.notes)
    assert_same_store(store_of(reader), tiny_direct, whole=False)


def test_the_known_cameras_stand_in_for_the_file(tree, tiny_direct, store_of, assert_same_store):
    (tree / "h36m" / "cameras.h5").unlink()
    reader = MartinezReader(tree)
    assert any("known cameras are taken" in note for note in reader.notes)
    assert_same_store(store_of(reader), tiny_direct, whole=False)


def test_videos_will_do(tiny_world, tiny_tree, tiny_direct, store_of, assert_same_store, tmp_path):
    write_image_tree(tiny_world, tmp_path / "videos", kind="videos")
    store = store_of(MartinezReader(tiny_tree / "h36m", images=tmp_path / "videos"))
    assert_same_store(store, tiny_direct, whole=False)


def test_takes_are_the_same_in_another_process(tiny_tree, assert_units_travel):
    assert_units_travel(MartinezReader(tiny_tree))


def poses_file(tree):
    return tree / "h36m" / "S1" / "MyPoses" / "3D_positions" / "WalkDog.h5"


def replace_poses(function):
    def damage(tree):
        with h5py.File(poses_file(tree), "r+") as file:
            values = function(file["3D_positions"][:])
            del file["3D_positions"]
            file["3D_positions"] = values

    return damage


def cut_off(path_of):
    def damage(tree):
        data = path_of(tree).read_bytes()
        path_of(tree).write_bytes(data[: len(data) // 2])

    return damage


BAD_POSES = {
    "cut off": (cut_off(poses_file), r"WalkDog\.h5 is not readable"),
    "no HDF5": (lambda t: poses_file(t).write_text("<html>"), r"WalkDog\.h5 is not readable"),
    "rows as columns": (replace_poses(np.transpose), r"WalkDog\.h5: 3D_positions has the shape"),
    "metres": (replace_poses(lambda v: v / 1000), r"WalkDog\.h5; expected millimetres"),
    "another dataset": (
        lambda t: h5py.File(poses_file(t), "r+").move("3D_positions", "poses"),
        r"WalkDog\.h5: 3D_positions has the shape None",
    ),
}


@pytest.mark.parametrize("kind", BAD_POSES)
def test_a_bad_file_of_poses_ends_in_one_line_or_is_left_out(tree, tmp_path, kind):
    damage, message = BAD_POSES[kind]
    damage(tree)
    with pytest.raises(ValueError, match=message) as caught:
        convert(MartinezReader(tree), tmp_path / "s", config=ConversionConfig(**OPTIONS))
    assert "\n" not in str(caught.value)
    config = ConversionConfig(**OPTIONS, on_error="skip")
    convert(MartinezReader(tree), tmp_path / "s", config=config)
    records = open_store(tmp_path / "s").records
    names = {(1, "Directions"), (11, "WalkDog")}
    assert set(zip(records.subject, records.action, strict=True)) == names


def set_camera(**values):
    def damage(tree):
        with h5py.File(tree / "h36m" / "cameras.h5", "r+") as file:
            group = file["subject1/camera1"]
            for key, value in values.items():
                del group[key]
                if value is not None:
                    group[key] = value

    return damage


BAD_CAMERAS = {
    "cut off": (cut_off(lambda t: t / "h36m" / "cameras.h5"), r"cameras\.h5 is not readable"),
    "no focal length": (set_camera(f=None), r"subject1/camera1/f has the shape \(0,\)"),
    "another size": (set_camera(k=np.zeros(5)), r"camera1/k has the shape \(5,\), expected"),
    "another place": (set_camera(T=np.zeros((3, 1))), r"subject1/camera1: as .* mm from where"),
    "another rotation": (set_camera(R=np.eye(3)), r"camera1: neither R nor its transpose"),
    "another name": (
        set_camera(Name=np.array([ord(letter) for letter in "55011271"])),
        r"subject1/camera1 is called '55011271', expected 54138969",
    ),
}


@pytest.mark.parametrize("kind", BAD_CAMERAS)
def test_a_bad_camera_ends_in_one_line_that_names_it(tree, kind):
    damage, message = BAD_CAMERAS[kind]
    damage(tree)
    with pytest.raises(ValueError, match=message) as caught:
        MartinezReader(tree)
    assert "\n" not in str(caught.value)


def test_a_camera_that_is_not_there_is_missing(tree):
    with h5py.File(tree / "h36m" / "cameras.h5", "r+") as file:
        del file["subject1/camera3"]
    (line,) = MartinezReader(tree).missing
    assert line.endswith("cameras.h5 has no subject1/camera3")


def test_folders_of_something_else_are_refused(tree, tmp_path):
    with pytest.raises(ValueError, match=r"holds no S1/MyPoses/3D_positions/Directions 1\.h5"):
        MartinezReader(tmp_path / "nowhere")
    poses_file(tree).rename(poses_file(tree).with_name("Dancing.h5"))
    with pytest.raises(ValueError, match=r"Dancing\.h5: S1 has no sequence 'Dancing'"):
        MartinezReader(tree)


def test_a_file_without_any_camera_of_the_subjects_is_named(tree):
    with h5py.File(tree / "h36m" / "cameras.h5", "r+") as file:
        file.clear()
    with pytest.raises(ValueError, match=r"cameras\.h5 has no subject11/camera4, nor any other"):
        MartinezReader(tree)
