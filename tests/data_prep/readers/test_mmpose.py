"""mmpose's layout of Human3.6M."""

import pickle
import shutil

import numpy as np
import pytest

from data_prep.convert import convert
from data_prep.lookalike.mmpose import write_mmpose
from data_prep.lookalike.world import make_world
from data_prep.readers.mmpose import MmposeReader

TRAIN = "annotation_body3d/fps50/h36m_train.npz"
CAMERAS = "annotation_body3d/cameras.pkl"
GREETING_TWICE = ("Greeting.54138969_000002", "Greeting.54138969_000001")
GREETING_FROM_0 = ("Greeting.54138969_000001", "Greeting.54138969_000000")


@pytest.fixture(scope="module")
def write_tree():
    """Writes a world in this layout."""
    return write_mmpose


def rewrite(path, **changes):
    """Change arrays of a .npz file by functions of their values; None takes one away."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    for name, change in changes.items():
        values = arrays.pop(name)
        if change is not None:
            arrays[name] = change(values)
    np.savez(path, **arrays)


def rewrite_cameras(path, change):
    """Change each camera of cameras.pkl."""
    content = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps({key: {**c, **change(c)} for key, c in content.items()}))


def test_the_tree_gives_the_direct_store(whole_tree, direct, store_of, assert_same_store):
    reader = MmposeReader(whole_tree)
    assert reader.default_protocol == "rle-2"
    store = store_of(reader, box=None)  # its boxes are those of the joints
    assert_same_store(store, direct)
    assert "annotated" in store.header.box_definition
    seventh = store.records.subject == 7
    assert (store.records.image_size_px[seventh] == [1000, 1002]).all()


def test_own_labels_lie_where_the_joints_are_projected(whole_tree, seen_px):
    for unit in MmposeReader(whole_tree).units():
        take = unit.load()
        image_px = seen_px(take.joints_camera_mm, take.camera)
        np.testing.assert_allclose(take.source_px, image_px, atol=0.01)


def test_ten_frames_a_second_are_every_fifth(tmp_path):
    world = make_world(
        subjects=(1,), actions=(5,), subactions=(2,), num_poses=12, camera_names=("54138969",)
    )
    write_mmpose(world, tmp_path, every=5)
    reader = MmposeReader(tmp_path)
    assert reader.default_protocol == "full"
    take = reader.units()[0].load()
    assert take.frame.tolist() == [0, 5, 10]
    assert take.pictures.names[1].endswith("_000006.jpg")
    assert not take.pictures.missing()


def test_of_two_rates_the_one_asked_for_is_read(tree):
    shutil.copytree(tree / "annotation_body3d/fps50", tree / "annotation_body3d/fps10")
    assert "fps50" in MmposeReader(tree).description
    assert "fps10" in MmposeReader(tree, frames_per_s=10).description
    with pytest.raises(ValueError, match="fps25"):
        MmposeReader(tree, frames_per_s=25)


def test_labels_without_names_of_the_unusable_view_do_not_shift_the_others(
    tmp_path, store_of, make_direct_store, assert_same_store
):
    world = make_world(subjects=(11,), actions=(2, 3), subactions=(2,), num_poses=2)
    write_mmpose(world, tmp_path / "h36m", labels_of_unusable_video=True)
    reader = MmposeReader(tmp_path / "h36m")
    assert sum("Directions.54138969" in note for note in reader.notes) == 1
    store = store_of(reader)
    assert_same_store(store, make_direct_store(world, tmp_path / "direct"), whole=False)
    assert len(store) == 3 * 2 + 4 * 3


@pytest.mark.parametrize(
    "change",
    [
        lambda c: {"R": c["R"].T},
        lambda c: {"T": c["T"] * 1000},
        lambda c: {"T": -c["R"].T @ c["T"]},
    ],
    ids=["camera from world", "millimetres", "minus RC"],
)
def test_other_conventions_of_cameras_are_recognised(tree, change):
    expected = [unit.load().camera for unit in MmposeReader(tree).units()]
    rewrite_cameras(tree / CAMERAS, change)
    for unit, camera in zip(MmposeReader(tree).units(), expected, strict=True):
        found = unit.load().camera
        np.testing.assert_allclose(found.rotation, camera.rotation, atol=1e-12)
        np.testing.assert_allclose(found.centre_world_mm, camera.centre_world_mm, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: {"R": np.eye(3)}, "neither R nor its transpose"),
        (lambda c: {"T": c["T"] + 0.5}, "mm from where"),
        (lambda c: {"f": c["f"][:1]}, "f is missing or not of shape"),
    ],
)
def test_foreign_cameras_are_refused(tree, change, words):
    rewrite_cameras(tree / CAMERAS, change)
    with pytest.raises(ValueError, match=words) as caught:
        MmposeReader(tree)
    assert "cameras.pkl, camera 54138969 of S1" in str(caught.value)


def test_a_missing_camera_is_named(tree):
    (tree / CAMERAS).write_bytes(pickle.dumps({("S5", "54138969"): {}}))
    with pytest.raises(ValueError, match=r"cameras\.pkl, camera 54138969 of S1 is missing"):
        MmposeReader(tree)


def test_without_cameras_the_known_ones_are_put_in(tree):
    expected = MmposeReader(tree).units()[0].load().camera
    (tree / CAMERAS).unlink()
    reader = MmposeReader(tree)
    assert any("cameras.pkl is missing" in note for note in reader.notes)
    found = reader.units()[0].load().camera
    np.testing.assert_allclose(found.centre_world_mm, expected.centre_world_mm, atol=0.01)


def test_cameras_are_unpickled_with_care(tree, attack):
    (tree / CAMERAS).write_bytes(pickle.dumps(attack))
    with pytest.raises(ValueError, match=r"cameras\.pkl"):
        MmposeReader(tree)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"S": None}, "no array S, only"),
        ({"S": lambda s: s[:-1]}, "different lengths"),
        ({"part": lambda p: p[..., :2]}, r"part has shape \(5, 17, 2\)"),
        ({"imgname": lambda n: n[:-1]}, "4 image names but labels of 5"),
        ({"imgname": lambda n: n.astype(object)}, "not plain rows"),
        ({"imgname": lambda n: np.array(["1.jpg"] * len(n))}, "is not like S1/"),
        ({"imgname": lambda n: np.char.replace(n, "S1_", "S2_")}, "S2"),
        ({"imgname": lambda n: np.char.replace(n, "Greeting", "Dancing")}, "Dancing"),
        ({"imgname": lambda n: np.char.replace(n, "54138969", "54138968")}, "54138968"),
    ],
)
def test_a_foreign_annotation_file_is_named(tree, changes, words):
    rewrite(tree / TRAIN, **changes)
    with pytest.raises(ValueError, match=words) as caught:
        MmposeReader(tree)
    assert "h36m_train.npz" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"S": lambda s: s * np.r_[1000, 1000, 1, 1, 1][:, None, None]}, "expected metres"),
        ({"imgname": lambda n: np.char.replace(n, *GREETING_TWICE)}, "occurs twice"),
        ({"imgname": lambda n: np.char.replace(n, *GREETING_FROM_0)}, "from 1"),
    ],
)
def test_wrong_labels_of_a_sequence_are_one_line_and_the_rest_is_kept(
    tree, tmp_path, store_of, changes, words
):
    rewrite(tree / TRAIN, **changes)
    with pytest.raises(ValueError, match=words) as caught:
        convert(MmposeReader(tree), tmp_path / "store")
    assert "h36m_train.npz" in str(caught.value)
    assert "\n" not in str(caught.value)
    store = store_of(MmposeReader(tree), on_error="skip")
    assert len(store.skipped) == 1
    assert set(store.records.action) == {"Photo"}


def test_a_cut_off_file_is_named(tree):
    path = tree / TRAIN
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"h36m_train\.npz cannot be read"):
        MmposeReader(tree)


def test_a_damaged_array_is_named(tree):
    path = tree / TRAIN
    data = bytearray(path.read_bytes())
    data[-3000:-2400] = bytes(600)  # within the last array
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"h36m_train\.npz cannot be read: Bad CRC"):
        MmposeReader(tree)


def test_a_compressed_file_reads_alike(tree):
    expected = [unit.load().joints_camera_mm for unit in MmposeReader(tree).units()]
    with np.load(tree / TRAIN) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez_compressed(tree / TRAIN, **arrays)
    for unit, joints in zip(MmposeReader(tree).units(), expected, strict=True):
        np.testing.assert_array_equal(unit.load().joints_camera_mm, joints)


def test_arrays_that_lie_column_by_column_read_alike(tree):
    expected = [unit.load() for unit in MmposeReader(tree).units()]
    rewrite(tree / TRAIN, **dict.fromkeys(("center", "part", "S"), np.asfortranarray))
    for unit, take in zip(MmposeReader(tree).units(), expected, strict=True):
        found = unit.load()
        np.testing.assert_array_equal(found.joints_camera_mm, take.joints_camera_mm)
        np.testing.assert_array_equal(found.source_px, take.source_px)
        np.testing.assert_array_equal(found.box_xywh_px, take.box_xywh_px)


def test_a_split_may_be_alone_and_none_is_refused(tree, tmp_path):
    assert {unit.split for unit in MmposeReader(tree).units()} == {"train"}
    (tree / TRAIN).unlink()
    with pytest.raises(ValueError, match="neither"):
        MmposeReader(tree)
    with pytest.raises(ValueError, match="annotation_body3d"):
        MmposeReader(tmp_path)


def test_units_can_be_sent_to_other_processes(tree, assert_units_travel):
    assert_units_travel(MmposeReader(tree))
