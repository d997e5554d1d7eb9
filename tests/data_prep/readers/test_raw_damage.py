"""Human3.6M's archives with damaged, missing and foreign files: one line that names the file."""

import os
import shutil
import sys

import av
import numpy as np
import pytest

from data_prep import cli
from data_prep.lookalike.raw import write_cdf, write_raw
from data_prep.lookalike.world import make_world
from data_prep.pictures import VideoFrames, video_image
from data_prep.readers.raw import RawReader
from pose3d.data.store import open_store

CAMERA = "54138969"
VIDEO = f"S1/Videos/Greeting.{CAMERA}.mp4"
MONO = f"S1/MyPoseFeatures/D3_Positions_mono/Greeting.{CAMERA}.cdf"
WORLD = "S1/MyPoseFeatures/D3_Positions/Greeting.cdf"
LABELS = f"S1/MyPoseFeatures/D2_Positions/Greeting.{CAMERA}.cdf"
METADATA = "Release-v1.2/metadata.xml"


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path, *, start=0.3, count=300):
    """Random bytes somewhere in the first half."""
    data = bytearray(path.read_bytes())
    first = int(len(data) * start)
    data[first : first + count] = np.random.default_rng(0).bytes(count)
    path.write_bytes(bytes(data))


def in_metres(path):
    write_cdf(path, np.random.default_rng(0).normal(0, 0.5, (2, 32, 3)))


def without_cell(path):
    text = path.read_text()
    row = "<td>5</td>\n      <td>2</td>\n      <td>Greeting</td>"
    assert text.count(row) == 1
    path.write_text(text.replace(row, row.replace("Greeting", "")))


DAMAGES = {
    "truncated video": (VIDEO, truncate, r"video .* cannot be opened"),
    "empty video": (VIDEO, lambda p: p.write_bytes(b""), "cannot be opened"),
    "text as video": (VIDEO, lambda p: p.write_text("404 not found" * 99), "cannot be opened"),
    "overwritten video": (VIDEO, overwrite, r"video .* is damaged at frame \d"),
    "missing video": (VIDEO, os.remove, "is missing"),
    "truncated CDF": (MONO, truncate, "cannot be read as CDF .* fetch it again"),
    "overwritten CDF": (MONO, overwrite, "cannot be read as CDF .* fetch it again"),
    "empty CDF": (MONO, lambda p: p.write_bytes(b""), "cannot be read as CDF"),
    "text as CDF": (MONO, lambda p: p.write_text("404"), "cannot be read as CDF"),
    "truncated world": (WORLD, truncate, "cannot be read as CDF"),
    "truncated labels": (LABELS, truncate, "cannot be read as CDF"),
    "pixels as poses": (
        MONO,
        lambda p: shutil.copy(p.parents[3] / LABELS, p),
        r"shape \(1, 2, 64\), expected \(1, poses, 96\)",
    ),
    "metres": (MONO, in_metres, "units large in pose file .* expected millimetres"),
    "no cell in the mapping": (METADATA, without_cell, "row 10 of <mapping> .* S1, action 5"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_in_one_line_and_the_rest_can_be_kept(tiny_raw_tree, store_of, damage):
    name, spoil, expected = DAMAGES[damage]
    spoil(tiny_raw_tree / name)
    with pytest.raises(ValueError, match=expected) as caught:
        store_of(RawReader(tiny_raw_tree))
    assert str(tiny_raw_tree / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    store = store_of(RawReader(tiny_raw_tree), on_error="skip")
    assert set(store.records.action[store.records.frame == 1]) >= {"Photo"}


def test_no_frame_after_the_damage_is_taken(tmp_path, store_of):
    world = make_world(
        subjects=(1,), actions=(5,), subactions=(2,), num_poses=40, camera_names=(CAMERA,)
    )
    write_raw(world, tmp_path / "tree", has_masks=False)
    overwrite(tmp_path / "tree" / VIDEO, start=0.5, count=60)
    store = store_of(RawReader(tmp_path / "tree"), on_error="skip")
    assert 0 < len(store) < 40
    np.testing.assert_array_equal(store.records.frame, np.arange(len(store)))
    assert len(store.skipped) == 40 - len(store)
    name, reason = store.skipped[0]
    assert name == f"{VIDEO}#{len(store)}"
    assert f"is damaged at frame {len(store)}" in reason


def test_a_video_that_ends_before_its_header_says_is_told(tiny_raw_tree):
    frames = VideoFrames(folder=tiny_raw_tree, name=VIDEO, position=np.array([0, 99]))
    first, last = frames.frames()
    assert first.shape == (1002, 1000, 3)
    assert "ends before its frame 99" in str(last)


def test_videos_give_the_colours_that_went_in(tiny_raw_tree, tiny_world):
    frames = VideoFrames(folder=tiny_raw_tree, name=VIDEO, position=np.array([1]))
    (image,) = frames.frames()
    painted = tiny_world.painter.image(tiny_world.performances[0], CAMERA, 1).astype(float)
    assert np.abs((image - painted).mean((0, 1))).max() < 0.5
    assert np.abs(image - painted).mean() < 2


def test_colours_follow_bt_601():
    rng = np.random.default_rng(0)
    luma = rng.integers(60, 180, (8, 10)).repeat(4, 0).repeat(4, 1)
    chroma = rng.integers(110, 146, (2, 16, 20))
    planes = np.concatenate([luma.ravel(), chroma.ravel()]).reshape(48, 40).astype(np.uint8)
    image = video_image(av.VideoFrame.from_ndarray(planes, format="yuv420p"))
    cb, cr = (plane.repeat(2, 0).repeat(2, 1) - 128 for plane in chroma)
    grey = (luma - 16) * 255 / 219
    exact = np.stack(
        [
            grey + 1.772 * 255 / 224 * cb,
            grey - (0.114 * 1.772 * cb + 0.299 * 1.402 * cr) / 0.587 * 255 / 224,
            grey + 1.402 * 255 / 224 * cr,
        ],
        axis=-1,
    )
    assert np.abs(image - exact).max() <= 1


def test_every_missing_file_is_listed(tiny_raw_tree):
    for name in (VIDEO, MONO, WORLD):
        (tiny_raw_tree / name).unlink()
    reader = RawReader(tiny_raw_tree)
    assert reader.missing == [
        f"{tiny_raw_tree / MONO} is missing",
        f"{tiny_raw_tree / VIDEO} is missing",
    ]
    assert [unit.action for unit in reader.units()] == ["Photo"]
    assert f"{tiny_raw_tree / WORLD} is missing" in RawReader(tiny_raw_tree, poses="world").missing


def test_a_camera_that_others_have_is_missed(raw_tree, tmp_path):
    tree = shutil.copytree(raw_tree, tmp_path / "tree")
    gone = sorted(tree.glob("S7/*/**/*.55011271.*"))
    assert len(gone) == 5 + 2 * 4  # and those of _ALL
    for path in gone:
        path.unlink()
    reader = RawReader(tree, poses="mono")
    base = "SittingDown 1.55011271"
    assert reader.missing == [
        f"{tree / 'S7/MyPoseFeatures/D3_Positions_mono' / base}.cdf is missing",
        f"{tree / 'S7/Videos' / base}.mp4 is missing",
    ]
    for path in tree.glob("S*/*/**/SittingDown*.55011271.*"):  # and those of _ALL stay
        path.unlink()
    reader = RawReader(tree)
    assert reader.missing == []
    assert "no files of the cameras 55011271" in reader.notes


def test_absent_sequences_and_subjects_without_poses_are_told(tiny_raw_tree):
    (tiny_raw_tree / "S2/Videos").mkdir(parents=True)
    (tiny_raw_tree / "S5/Videos").mkdir(parents=True)
    reader = RawReader(tiny_raw_tree)
    assert "left out S2: its poses are not public" in reader.notes
    assert "S1: no files of 28 sequences (Directions 1, Directions, Discussion 1, ...)" in (
        reader.notes
    )
    folder = tiny_raw_tree / "S5/MyPoseFeatures/D3_Positions_mono"
    assert reader.missing == [f"folder {folder} with poses is missing"]


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no folder S1, S5, .* name the folder"):
        RawReader(tmp_path)
    (tmp_path / "Videos_S1.tgz").write_bytes(b"")
    with pytest.raises(ValueError, match="unpack its archives"):
        RawReader(tmp_path)


def test_metadata_is_found_in_and_beside_the_tree_or_named(tiny_raw_tree, tmp_path):
    file = tiny_raw_tree / METADATA
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(ValueError, match=r"no metadata\.xml in .* name it with --metadata"):
        RawReader(tiny_raw_tree)
    elsewhere = tmp_path / "downloads/metadata.xml"
    places = (
        *("metadata.xml", "code-v1.2/Release-v1.2/metadata.xml", "../Release-v1.2/metadata.xml"),
        *("../metadata.xml", "../code-v1.2/metadata.xml"),
    )
    for place in places:
        path = tiny_raw_tree / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        assert RawReader(tiny_raw_tree).missing == [], place
        path.unlink()
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(content)
    for given in (elsewhere, elsewhere.parent):
        assert RawReader(tiny_raw_tree, metadata=given).missing == []
    with pytest.raises(ValueError, match=r"metadata .*nowhere is missing"):
        RawReader(tiny_raw_tree, metadata=tmp_path / "nowhere")


def test_the_verbs_write_and_read_a_tree(tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pose3d-prep", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    tree, store = tmp_path / "tree", tmp_path / "store"
    few = ("--subjects", "S9", "--actions", "Walking", "--subactions", 2, "--poses", 1)
    code, out, _ = run("lookalike", "raw", tree, *few)
    assert code == 0
    assert f"1 sequences of 4 cameras, 1 poses, in {tree}" in out
    code, out, _ = run("raw", tree, store, "--size", 64, "--jobs", 1)
    assert code == 0
    assert f"4 records in {store}" in out
    assert set(open_store(store).records.action) == {"Walking"}
    for wrong, expected in (
        (("raw", tree), f"{tree} is not empty"),
        (("cooked", tmp_path / "new"), "no look-alike of 'cooked' is known; known: raw"),
        (("raw", tmp_path / "new", "--subjects", "2"), "subject '2' is unknown"),
        (("raw", tmp_path / "new", "--actions", "Sleeping"), "action 'Sleeping' is unknown"),
    ):
        code, _, err = run("lookalike", *wrong)
        assert code == 2
        assert expected in err.replace("\n", "")
