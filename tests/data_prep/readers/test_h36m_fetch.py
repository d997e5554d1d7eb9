"""The processed tree of h36m-fetch."""

import shutil

import h5py
import numpy as np
import pytest

from data_prep.convert import convert
from data_prep.lookalike.h36m_fetch import write_h36m_fetch
from data_prep.lookalike.world import make_world
from data_prep.readers.h36m_fetch import H36mFetchReader, opened


@pytest.fixture(scope="module")
def write_tree():
    """Writes a world in this layout."""
    return write_h36m_fetch


@pytest.fixture(scope="module")
def small_tree(tmp_path_factory):
    """Subject 11 with the unusable view, S1 with the names that only it has."""
    folder = tmp_path_factory.mktemp("h36m-fetch") / "processed"
    subjects = make_world(subjects=(11,), actions=(2,), subactions=(2,), num_poses=2)
    write_h36m_fetch(subjects, folder)
    names = make_world(subjects=(1,), actions=(12, 15, 16), num_poses=1, subactions=(1,))
    write_h36m_fetch(names, folder)
    return folder


def test_the_tree_gives_the_direct_store(whole_tree, direct, store_of, assert_same_store):
    reader = H36mFetchReader(whole_tree)
    assert reader.missing == []
    assert_same_store(store_of(reader), direct)


def test_a_thinned_tree_gives_some_of_the_records(
    world, direct, tmp_path, store_of, assert_same_store
):
    write_h36m_fetch(world, tmp_path / "processed", every_frame=False)
    store = store_of(H36mFetchReader(tmp_path / "processed"))
    assert_same_store(store, direct, whole=False)
    assert set(store.records.frame[store.records.subject == 9]) == {0}
    assert max(store.records.frame[store.records.subject != 9]) > 0


def test_a_tree_is_thinned_out_by_default_if_it_holds_the_frames_for_it(whole_tree, tree):
    assert H36mFetchReader(whole_tree).default_protocol == "rle-2"
    with h5py.File(tree / "S1/Greeting-2/annot.h5", "r+") as file:
        file["frame"][...] = [1, 9]
    assert H36mFetchReader(tree).default_protocol == "full"


def test_own_labels_lie_where_the_joints_are_projected(whole_tree, seen_px):
    for unit in H36mFetchReader(whole_tree).units():
        take = unit.load()
        image_px = seen_px(take.joints_camera_mm, take.camera)
        np.testing.assert_allclose(take.source_px, image_px, atol=0.01)
        assert take.camera.radial.abs().max() > 0.1


def test_estimated_intrinsics_have_no_distortion_and_stay_near(whole_tree, seen_px):
    for unit in H36mFetchReader(whole_tree, intrinsics="estimated").units():
        take = unit.load()
        assert not take.camera.radial.any()
        assert not take.camera.tangential.any()
        image_px = seen_px(take.joints_camera_mm, take.camera)
        assert np.median(np.linalg.norm(take.source_px - image_px, axis=-1)) < 3


def test_names_of_folders_tell_action_and_subaction(small_tree):
    reader = H36mFetchReader(small_tree)
    assert (small_tree / "S1" / "TakingPhoto-1").is_dir()
    found = {(u.subject, u.action, u.subaction) for u in reader.units()}
    assert found == {
        (1, "Photo", 1),
        (1, "WalkDog", 1),
        (1, "WalkTogether", 1),
        (11, "Directions", 2),
    }


def test_the_unusable_view_is_left_out_with_a_note(small_tree):
    reader = H36mFetchReader(small_tree)
    cameras = [unit.camera_name for unit in reader.units() if unit.subject == 11]
    assert cameras == ["55011271", "58860488", "60457274"]
    assert reader.missing == []
    assert any("54138969" in note and "S11" in note for note in reader.notes)


def test_a_view_that_the_tool_skipped_is_missing_by_name(world, tmp_path):
    one_action = make_world(subjects=(1,), actions=(5, 12), subactions=(2,), num_poses=1)
    write_h36m_fetch(one_action, tmp_path, without=[(1, 5, 2, "58860488")])
    reader = H36mFetchReader(tmp_path)
    assert len(reader.missing) == 1
    assert "Greeting-2" in reader.missing[0]
    assert "58860488" in reader.missing[0]
    assert len(reader.units()) == 7


def test_missing_labels_and_folders_are_named(tree):
    shutil.copytree(tree / "S1/Greeting-2", tree / "S1/Greeting-1")
    shutil.rmtree(tree / "S1/Greeting-2/imageSequence/54138969")
    (tree / "S1/Greeting-1/annot.h5").unlink()
    reader = H36mFetchReader(tree)
    assert sorted(line.split("/processed/")[1] for line in reader.missing) == [
        "S1/Greeting-1/annot.h5 is missing",
        "S1/Greeting-2/imageSequence/54138969 is missing",
    ]


def _truncate(path):
    path.write_bytes(path.read_bytes()[:3000])


def _metres(path):
    with h5py.File(path, "r+") as file:
        file["pose/3d"][...] = file["pose/3d"][...] / 1000


def _without_poses(path):
    with h5py.File(path, "r+") as file:
        del file["pose/3d"]


def _of_another_subject(path):
    with h5py.File(path, "r+") as file:
        file["subject"][...] = 5


def _from_zero(path):
    with h5py.File(path, "r+") as file:
        file["frame"][...] = file["frame"][...] - 1


def _twice(path):
    with h5py.File(path, "r+") as file:
        file["frame"][...] = 1


def _of_seventeen_joints(path):
    with h5py.File(path, "r+") as file:
        poses = file["pose/3d"][...]
        del file["pose/3d"]
        file["pose/3d"] = poses[:, :17]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_truncate, "damaged or cut off"),
        (_metres, "expected millimetres"),
        (_without_poses, "no dataset pose/3d"),
        (_of_another_subject, "the folder says 1"),
        (_from_zero, "count from 1"),
        (_twice, "occurs twice"),
        (_of_seventeen_joints, "shape"),
    ],
)
def test_a_damaged_file_is_one_line_and_the_rest_is_kept(tree, tmp_path, store_of, damage, words):
    damage(tree / "S1/Greeting-2/annot.h5")
    with pytest.raises(ValueError, match=words) as caught:
        convert(H36mFetchReader(tree), tmp_path / "strict")
    assert "S1/Greeting-2/annot.h5" in str(caught.value)
    assert "\n" not in str(caught.value)
    store = store_of(H36mFetchReader(tree), on_error="skip")
    assert len(store.skipped) == 1
    assert set(store.records.action) == {"Photo"}


def test_a_damaged_object_header_names_the_file(tree):
    path = tree / "S1/Greeting-2/annot.h5"
    with pytest.raises(ValueError, match=r"annot\.h5 cannot be read"), opened(path):
        raise KeyError("Unable to synchronously open object")  # as h5py has it for damaged bytes


def test_a_missing_image_is_named(tree, tmp_path):
    (tree / "S1/Greeting-2/imageSequence/54138969/img_000001.jpg").unlink()
    with pytest.raises(ValueError, match=r"img_000001\.jpg is missing"):
        convert(H36mFetchReader(tree), tmp_path / "store")


def test_the_folder_that_holds_processed_does_as_well(tree):
    units = H36mFetchReader(tree.parent).units()
    assert [unit.name for unit in units] == [unit.name for unit in H36mFetchReader(tree).units()]
    assert not units[0].load().pictures.missing()


def test_another_folder_is_refused_with_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match="processed"):
        H36mFetchReader(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("S1/Directions", "early h36m-fetch"),
        ("S1/Dancing-1", "Dancing"),
        ("S2/Directions-1", "S2"),
        ("S1/Directions-3", "subaction 3"),
    ],
)
def test_foreign_folders_are_named(tree, name, words):
    shutil.copytree(tree / "S1/Greeting-2", tree / name)
    with pytest.raises(ValueError, match=words) as caught:
        H36mFetchReader(tree)
    assert f"{name}/annot.h5" in str(caught.value)


def test_units_can_be_sent_to_other_processes(tree, assert_units_travel):
    assert_units_travel(H36mFetchReader(tree))
