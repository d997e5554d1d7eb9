"""Trees of images are told apart, their sequences found and their numbers read from 0."""

import numpy as np
import pytest

from data_prep.lookalike.image_trees import PLACES, VIDEO_SURPLUS, write_image_tree
from data_prep.lookalike.world import make_world
from data_prep.readers.image_trees import open_image_tree

KINDS = (*PLACES, "videos")


@pytest.fixture(scope="module")
def small_world():
    """Names that are traps: S1's first Eating is "Eating 2", its Photo "TakingPhoto 1"."""
    return make_world(
        subjects=(1, 11),
        actions=(4, 12),
        subactions=(1,),
        num_poses=2,
        camera_names=("55011271", "60457274"),
    )


@pytest.fixture(scope="module", params=KINDS)
def tree(request, small_world, tmp_path_factory):
    """A tree of every kind, with files that do not belong in it."""
    folder = tmp_path_factory.mktemp("tree")
    write_image_tree(small_world, folder, kind=request.param)
    for path in list(folder.rglob("*.*")):
        if path.is_file():
            (path.parent / "Thumbs.db").write_text("")
            (path.parent / f"._{path.name}").write_text("")
    (folder / "S1" / "Images" / "_ALL 1.54138969").mkdir(parents=True)
    return request.param, folder


def test_every_frame_is_found_under_its_own_name(tree, small_world):
    kind, folder = tree
    found = open_image_tree(folder)
    assert found.kind.name == kind
    assert found.kind.is_undistorted == (kind == "h36m-fetch, undistorted")
    keys = {(s, a, 1, c) for s in (1, 11) for a in (4, 12) for c in small_world.camera_names}
    assert set(found.sequences) == keys
    for performance in small_world.performances:
        name = small_world.camera_names[1]
        images = found.find(performance.subject, performance.action, 1, name)
        count = len(performance)
        rows, pictures = images.match(np.arange(count + 5))
        surplus = VIDEO_SURPLUS if kind == "videos" else 0
        assert rows.tolist() == list(range(count + surplus))
        assert pictures.missing() == {}
        painted = small_world.painter.image(performance, name, 1).astype(float)
        drawn = list(pictures.chosen(np.array([0, 1])).frames())
        assert np.abs(drawn[1] - painted).mean() < 6
        assert np.abs(drawn[1] - painted).mean() < np.abs(drawn[0] - painted).mean()


def test_what_is_not_there_is_none(tree):
    found = open_image_tree(tree[1])
    assert found.find(1, 4, 2, "55011271") is None
    assert found.find(5, 4, 1, "55011271") is None


@pytest.fixture
def one_sequence(tmp_path):
    """Makes a folder of empty files in metro's manner."""

    def make(*names, sequence="Walking 1.54138969"):
        folder = tmp_path / "S5" / "Images" / sequence
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).write_bytes(b"")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("names", "frames"),
    [
        (["frame_000000.jpg", "frame_000005.jpg"], [0, 5]),
        (["frame_000001.jpg", "frame_000006.jpg"], [0, 5]),
        (["frame_000064.jpg", "frame_000128.jpg"], [64, 128]),
        (["9.png", "0.png", "10.png"], [0, 9, 10]),
    ],
)
def test_numbers_count_from_where_the_first_one_says(one_sequence, names, frames):
    images = open_image_tree(one_sequence(*names)).find(5, 14, 1, "54138969")
    assert images.frame.tolist() == frames
    rows, pictures = images.match(np.array(frames))
    assert rows.tolist() == list(range(len(frames)))
    assert {name.rsplit("/", 1)[1] for name in pictures.names} == set(names)


def test_one_sequence_decides_for_those_whose_first_image_is_lost(one_sequence):
    one_sequence("frame_000001.jpg", "frame_000002.jpg")
    folder = one_sequence("frame_000003.jpg", sequence="Walking.54138969")
    found = open_image_tree(folder)
    assert found.first_number == 1
    assert found.find(5, 14, 2, "54138969").frame.tolist() == [2]


@pytest.mark.parametrize("names", [["a_01.jpg", "b_02.jpg"], ["a_01.jpg", "a_001.jpg"]])
def test_names_of_several_forms_are_refused(one_sequence, names):
    folder = one_sequence(*names)
    with pytest.raises(ValueError, match=r"Walking 1\.54138969 has images whose names differ"):
        open_image_tree(folder)


def test_a_folder_of_something_else_names_the_trees_it_could_be(tmp_path):
    (tmp_path / "S1" / "Holidays").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"holds no images of Human3\.6M; .*frame_000000\.jpg"):
        open_image_tree(tmp_path)
    with pytest.raises(ValueError, match=r"image folder .*nowhere is missing"):
        open_image_tree(tmp_path / "nowhere")


def test_a_video_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "S1" / "Videos").mkdir(parents=True)
    (tmp_path / "S1" / "Videos" / "Eating 2.54138969.mp4").write_bytes(b"no video")
    images = open_image_tree(tmp_path).find(1, 4, 1, "54138969")
    with pytest.raises(ValueError, match=r"Eating 2\.54138969\.mp4"):
        images.match(np.arange(3))
