"""Human3.6M's archives: look-alike trees give the direct store, and every known trap is met."""

import pickle
import shutil

import cdflib
import h5py
import numpy as np
import pytest
import torch

from data_prep.convert import ConversionConfig, Part, convert
from data_prep.human36m import sequences
from data_prep.lookalike.raw import write_cdf, write_raw
from data_prep.lookalike.raw_metadata import metadata_xml
from data_prep.lookalike.world import make_world
from data_prep.readers.raw import RawReader
from data_prep.selection import select_jobs
from pose3d.data.store import open_store

CAMERA = "54138969"
METADATA = "Release-v1.2/metadata.xml"


def take_of(reader, name):
    """The take of a unit by its name."""
    (unit,) = [unit for unit in reader.units() if unit.name == name]
    return unit.load()


def change_metadata(tree, old, new):
    path = tree / METADATA
    text = path.read_text()
    assert text.count(old) == 1, text.count(old)
    path.write_text(text.replace(old, new))


def as_fetched(tree, folder):
    """The same files where h36m-fetch unpacks them."""
    folder.mkdir()
    shutil.copy(tree / METADATA, folder / "metadata.xml")
    for subject in tree.glob("S*"):
        new = folder / "extracted" / subject.name
        shutil.copytree(subject / "Videos", new / "Videos")
        for kind in (subject / "MyPoseFeatures").iterdir():
            shutil.copytree(kind, new / f"Poses_{kind.name}")
    return folder


def test_a_native_tree_gives_the_direct_store(raw_tree, direct, store_of, assert_same_store):
    reader = RawReader(raw_tree)
    assert reader.missing == []
    assert_same_store(store_of(reader), direct)


def test_files_lie_where_the_release_has_them(raw_tree):
    for name in (
        "S7/MyPoseFeatures/D3_Positions/SittingDown 1.cdf",
        "S7/MyPoseFeatures/D3_Positions_mono/SittingDown 1.58860488.cdf",
        "S7/MyPoseFeatures/D3_Positions_mono_universal/SittingDown 1.58860488.cdf",
        "S7/MyPoseFeatures/D2_Positions/SittingDown 1.58860488.cdf",
        "S7/Videos/SittingDown 1.58860488.mp4",
        "S7/MySegmentsMat/ground_truth_bb/SittingDown 1.58860488.mat",
        "S7/Videos/_ALL.58860488.mp4",
        METADATA,
    ):
        assert (raw_tree / name).is_file(), name


@pytest.mark.parametrize("source", ["", "extracted"])
def test_a_fetched_tree_gives_the_same_labels(tiny_raw_tree, tmp_path, source):
    reader = RawReader(as_fetched(tiny_raw_tree, tmp_path / "h36m") / source)
    native = RawReader(tiny_raw_tree)
    assert reader.missing == []
    assert [unit.name for unit in reader.units()] == [unit.name for unit in native.units()]
    for ours, theirs in zip(reader.units(), native.units(), strict=True):
        np.testing.assert_array_equal(ours.load().joints_camera_mm, theirs.load().joints_camera_mm)


def test_the_writer_knows_both_arrangements(tiny_world, tiny_raw_tree, tmp_path):
    write_raw(tiny_world, tmp_path / "written", arrangement="extracted", has_masks=False)
    as_fetched(tiny_raw_tree, tmp_path / "moved")
    trees = [
        {
            path.relative_to(tmp_path / name)
            for path in (tmp_path / name).rglob("*")
            if path.suffix in (".cdf", ".mp4", ".xml")
        }
        for name in ("written", "moved")
    ]
    assert trees[0] == trees[1]


def test_the_mapping_alone_tells_which_file_holds_what(tmp_path):
    world = make_world(subjects=(1,), actions=(4,), num_poses=2, camera_names=(CAMERA,))
    write_raw(world, tmp_path, has_masks=False)
    first, second = world.performances
    assert (tmp_path / f"S1/Videos/Eating 2.{CAMERA}.mp4").is_file()
    assert len(take_of(RawReader(tmp_path), "s_01_act_04_subact_01_ca_01")) == len(first)
    text = (tmp_path / METADATA).read_text()
    before, row, after = text.partition("<td>4</td>\n      <td>1</td>\n      <td>Eating 2</td>")
    assert row
    after = after.replace("<td>Eating</td>", "<td>Eating 2</td>", 1)
    (tmp_path / METADATA).write_text(before + row.replace("Eating 2", "Eating") + after)
    assert len(take_of(RawReader(tmp_path), "s_01_act_04_subact_01_ca_01")) == len(second)


@pytest.mark.parametrize("new", ["Photo", "TakingPhoto"])
def test_s1_files_are_found_under_their_name_and_the_name_that_others_give_them(tiny_raw_tree, new):
    for path in tiny_raw_tree.rglob("TakingPhoto*"):
        path.rename(path.with_name(path.name.replace("TakingPhoto", new)))
    reader = RawReader(tiny_raw_tree)
    assert reader.missing == []
    take = take_of(reader, "s_01_act_12_subact_02_ca_01")
    assert take.pictures.names[0] == f"S1/Videos/{new}.{CAMERA}.mp4#0"


def test_blanks_may_have_become_underscores(tmp_path):
    world = make_world(
        subjects=(1,), actions=(4,), subactions=(1,), num_poses=1, camera_names=(CAMERA,)
    )
    write_raw(world, tmp_path, has_masks=False)
    for path in tmp_path.rglob("Eating 2*"):
        path.rename(path.with_name(path.name.replace(" ", "_")))
    reader = RawReader(tmp_path)
    assert reader.missing == []
    assert len(reader.units()) == 1


def test_world_and_mono_are_the_same_and_universal_has_other_limbs(tiny_raw_tree):
    name = "s_01_act_05_subact_02_ca_01"
    joints = {
        poses: take_of(RawReader(tiny_raw_tree, poses=poses), name).joints_camera_mm
        for poses in ("auto", "mono", "world", "universal")
    }
    np.testing.assert_array_equal(joints["auto"], joints["mono"])
    np.testing.assert_allclose(joints["world"], joints["mono"], atol=0.01)
    thigh = {p: np.linalg.norm(j[:, 1] - j[:, 2], axis=-1) for p, j in joints.items()}
    assert (thigh["universal"] > 1.02 * thigh["mono"]).all()
    take = take_of(RawReader(tiny_raw_tree, poses="universal"), name)
    assert "universal skeleton" in take.notes[0]


def test_world_poses_alone_are_enough(tiny_raw_tree, tmp_path):
    expected = take_of(RawReader(tiny_raw_tree), "s_01_act_05_subact_02_ca_01")
    shutil.rmtree(tiny_raw_tree / "S1/MyPoseFeatures/D3_Positions_mono")
    reader = RawReader(tiny_raw_tree)
    assert reader.missing == []
    take = take_of(reader, "s_01_act_05_subact_02_ca_01")
    np.testing.assert_allclose(take.joints_camera_mm, expected.joints_camera_mm, atol=0.01)


@pytest.mark.parametrize("kind", ["D3_Positions_mono_universal", "other sequence"])
def test_poses_that_contradict_each_other_are_refused(tiny_raw_tree, kind):
    folder = tiny_raw_tree / "S1/MyPoseFeatures"
    target = folder / f"D3_Positions_mono/Greeting.{CAMERA}.cdf"
    other = folder / kind / target.name
    if kind == "other sequence":
        other = target.with_name(f"TakingPhoto.{CAMERA}.cdf")
    shutil.copy(other, target)
    with pytest.raises(ValueError, match=r"Greeting.*and.*Greeting\.cdf differ by .* mm in frame"):
        take_of(RawReader(tiny_raw_tree), "s_01_act_05_subact_02_ca_01")
    take_of(RawReader(tiny_raw_tree, poses="world"), "s_01_act_05_subact_02_ca_01")


def test_labels_are_those_of_d2_positions_and_lie_on_the_projection(raw_tree, seen_px):
    take = take_of(RawReader(raw_tree), "s_07_act_10_subact_02_ca_02")
    path = raw_tree / "S7/MyPoseFeatures/D2_Positions/SittingDown 1.55011271.cdf"
    stored = cdflib.CDF(path).varget("Pose")[0].reshape(-1, 32, 2)
    np.testing.assert_array_equal(take.source_px[:, 7], stored[:, 12])  # the torso
    np.testing.assert_allclose(
        seen_px(take.joints_camera_mm, take.camera), take.source_px, atol=0.01
    )


def test_the_pinhole_choice_takes_the_lens_from_labels_and_cameras(tiny_raw_tree, store_of):
    stores = {
        lens: store_of(RawReader(tiny_raw_tree), lens=lens)
        for lens in ("source", "distorted", "pinhole")
    }
    boxes = {lens: store.records.box_image_px for lens, store in stores.items()}
    np.testing.assert_allclose(boxes["source"], boxes["distorted"], atol=1e-3)
    assert float(stores["pinhole"].cameras.radial.abs().max()) == 0
    assert float(stores["source"].cameras.radial.abs().max()) > 0.1
    assert 1 < np.abs(boxes["distorted"] - boxes["pinhole"]).max() < 40


def test_the_last_frames_of_a_longer_video_are_left_out(raw_tree, world):
    reader = RawReader(raw_tree)
    for performance in world.performances:
        take = take_of(reader, f"s_{performance.subject:02d}_act_10_subact_02_ca_03")
        assert len(take) == len(performance)
        assert take.notes == ()
    assert [unit.count for unit in reader.units()] == [
        len(performance) for performance in world.performances for _ in range(4)
    ]


@pytest.mark.parametrize(("extra", "words"), [(-1, "fewer than the 3 poses"), (7, "many more")])
def test_other_lengths_of_videos_are_cut_to_the_shorter_and_told(tmp_path, extra, words):
    world = make_world(
        subjects=(9,), actions=(5,), subactions=(2,), num_poses=3, camera_names=(CAMERA,)
    )
    write_raw(world, tmp_path, has_masks=False, extra_frames=lambda *_: extra)
    take = take_of(RawReader(tmp_path), "s_09_act_05_subact_02_ca_01")
    assert len(take) == 3 + min(extra, 0)
    (note,) = take.notes
    assert note.startswith(f"S9 Greeting.{CAMERA}: the video has {3 + extra} frames, ")
    assert words in note
    np.testing.assert_array_equal(take.frame, np.arange(len(take)))


def test_poses_that_are_not_as_many_as_the_metadata_states_are_told(tiny_raw_tree, tiny_world):
    count = len(tiny_world.performances[0])
    path = tiny_raw_tree / f"S1/MyPoseFeatures/D3_Positions_mono/Greeting.{CAMERA}.cdf"
    poses = cdflib.CDF(path).varget("Pose")[0].reshape(-1, 32, 3)
    write_cdf(path, poses[:-1])
    take = take_of(RawReader(tiny_raw_tree), "s_01_act_05_subact_02_ca_01")
    assert len(take) == count - 1
    assert f"holds {count - 1} poses, metadata.xml states {count}" in take.notes[0]


def test_the_unusable_video_of_s11_is_left_out_and_told(tmp_path):
    world = make_world(
        subjects=(11,),
        actions=(2,),
        subactions=(2,),
        num_poses=1,
        camera_names=(CAMERA, "55011271"),
    )
    write_raw(world, tmp_path, has_masks=False)
    for is_there in (True, False):
        reader = RawReader(tmp_path)
        assert [unit.camera_name for unit in reader.units()] == ["55011271"]
        assert reader.missing == []
        told = f"left out S11 Directions.{CAMERA}: the release has no usable video of it"
        assert told in reader.notes
        if is_there:
            (tmp_path / f"S11/Videos/Directions.{CAMERA}.mp4").unlink()


def test_videos_of_another_size_than_stated_are_refused(raw_tree, tmp_path):
    tree = shutil.copytree(raw_tree, tmp_path / "tree")
    text = (tree / METADATA).read_text()
    assert text.count("[1002 1000;1002 1000;1002 1000;1002 1000]") == 3  # S4, S7, S10
    usual = "[1002 1000;1000 1000;1000 1000;1002 1000]"
    (tree / METADATA).write_text(text.replace("[1002 1000;1002 1000;1002 1000;1002 1000]", usual))
    reader = RawReader(tree)
    expected = r"SittingDown 1\.55011271\.mp4 has 1000×1002 px, metadata\.xml states 1000×1000 px"
    with pytest.raises(ValueError, match=expected):
        take_of(reader, "s_07_act_10_subact_02_ca_02")
    take = take_of(reader, "s_07_act_10_subact_02_ca_01")
    assert take.image_size_px[0].tolist() == [1000, 1002]


@pytest.fixture(scope="module")
def shifted_source(tmp_path_factory):
    """S9's Waiting 1, whose poses lie 200 mm off, and the world as it really was."""
    world = make_world(
        subjects=(9,), actions=(13,), subactions=(1,), num_poses=3, camera_names=(CAMERA,)
    )
    folder = tmp_path_factory.mktemp("shifted") / "tree"
    write_raw(world, folder, is_shifted=True)
    return folder, world


def test_s9_shift_is_corrected_kept_or_blocked(
    shifted_source, store_of, make_direct_store, assert_same_store, tmp_path
):
    folder, world = shifted_source
    direct = make_direct_store(world, tmp_path / "direct")
    corrected = store_of(RawReader(folder), shifted="correct")
    assert_same_store(corrected, direct)
    kept = store_of(RawReader(folder), shifted="keep")
    moved = [
        store.cameras[torch.from_numpy(store.records.camera_index)].camera_to_world(
            torch.from_numpy(store.records.joints_camera_mm.astype(np.float64))
        )
        for store in (kept, direct)
    ]
    np.testing.assert_allclose(
        (moved[0] - moved[1]).numpy(), np.broadcast_to([200.0, 0, 0], moved[0].shape), atol=0.01
    )
    with pytest.raises(ValueError, match=r"nothing of raw .* takes part: .*200 mm off"):
        store_of(RawReader(folder), shifted="block")
    with pytest.raises(ValueError, match="200 mm off"):  # the default, as in the paper
        store_of(RawReader(folder), protocol=None)


def mask_extent(world, performance, frame):
    """Left, top, width, height of what the painter drew."""
    rows, columns = np.where(world.painter.mask(performance, CAMERA, frame))
    return [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]


def test_boxes_of_masks_are_moved_with_s9_shift(shifted_source, store_of):
    folder, world = shifted_source
    store = store_of(RawReader(folder), shifted="correct", box="mask")
    for frame in range(3):
        left, top, width, height = mask_extent(world, world.performances[0], frame)
        centre = np.array([left + width / 2, top + height / 2])
        np.testing.assert_allclose(store.records.box_image_px[frame, :2], centre, atol=4)
        side = 1.5 * max(width, height)
        np.testing.assert_allclose(store.records.box_image_px[frame, 2], side, rtol=0.01)


def test_boxes_of_masks_span_the_ones(tiny_raw_tree, tiny_world, store_of):
    store = store_of(RawReader(tiny_raw_tree), box="mask")
    assert "mask, squared × 1.5" in store.header.box_definition
    row = 0
    for performance in tiny_world.performances:
        for frame in range(len(performance)):
            left, top, width, height = mask_extent(tiny_world, performance, frame)
            square = [left + width / 2, top + height / 2, 1.5 * max(width, height)]
            np.testing.assert_allclose(store.records.box_image_px[row], square, atol=1e-3)
            row += 1
    assert row == len(store)


def mask_path(tree, base="Greeting"):
    return tree / f"S1/MySegmentsMat/ground_truth_bb/{base}.{CAMERA}.mat"


def test_masks_are_read_for_the_frames_that_take_part_and_only_if_asked_for(
    tiny_raw_tree, store_of
):
    with h5py.File(mask_path(tiny_raw_tree), "r+") as file:
        del file["#refs#/000001"]
    mask_path(tiny_raw_tree, "TakingPhoto").write_bytes(b"")
    reader = RawReader(tiny_raw_tree)
    assert reader.box_kind == "none"
    assert "joints" in store_of(reader, box=None).header.box_definition
    mask_path(tiny_raw_tree, "TakingPhoto").unlink()
    store = store_of(RawReader(tiny_raw_tree), box="mask", protocol="rle-2", on_error="skip")
    assert store.skipped == []
    assert store.records.frame.tolist() == [0]
    shutil.copy(mask_path(tiny_raw_tree), mask_path(tiny_raw_tree, "TakingPhoto"))
    with pytest.raises(ValueError, match=r"Greeting.*\.mat cannot be read as MATLAB v7\.3"):
        store_of(RawReader(tiny_raw_tree), box="mask")


def test_an_empty_mask_is_no_box(tiny_raw_tree, store_of):
    with h5py.File(mask_path(tiny_raw_tree), "r+") as file:
        file["#refs#/000000"][...] = 0
    with pytest.raises(ValueError, match=r"mp4#0: has no mask box; choose --box joints"):
        store_of(RawReader(tiny_raw_tree), box="mask")


def test_an_empty_matrix_of_matlab_is_an_empty_mask(tiny_raw_tree, store_of):
    with h5py.File(mask_path(tiny_raw_tree), "r+") as file:
        del file["#refs#/000000"]
        file["#refs#/000000"] = np.zeros(2, np.uint64)  # its shape, as MATLAB writes it
        file["#refs#/000000"].attrs["MATLAB_empty"] = np.uint8(1)
        file["Masks"][0, 0] = file["#refs#/000000"].ref
    with pytest.raises(ValueError, match=r"mp4#0: has no mask box; choose --box joints"):
        store_of(RawReader(tiny_raw_tree), box="mask")


def test_masks_that_are_not_there_are_named(tiny_raw_tree, store_of):
    mask_path(tiny_raw_tree).unlink()
    with pytest.raises(ValueError, match=rf"ground_truth_bb/Greeting\.{CAMERA}\.mat is missing"):
        store_of(RawReader(tiny_raw_tree), box="mask")
    shutil.rmtree(tiny_raw_tree / "S1/MySegmentsMat")
    with pytest.raises(ValueError, match=r"no S\*/MySegmentsMat/ground_truth_bb in .* --box"):
        store_of(RawReader(tiny_raw_tree), box="mask")


def test_masks_of_another_size_are_refused(tiny_raw_tree, store_of):
    with h5py.File(mask_path(tiny_raw_tree), "r+") as file:
        del file["#refs#/000000"]
        file["#refs#/000000"] = np.ones((50, 60), np.uint8)
        file["Masks"][0, 0] = file["#refs#/000000"].ref
    expected = r"mask 0 of .*Greeting.*\.mat has 50×60 px, its images have 1000×1002 px"
    with pytest.raises(ValueError, match=expected):
        store_of(RawReader(tiny_raw_tree), box="mask")


def test_parts_of_one_store_make_the_digest_of_a_single_run(tiny_raw_tree, tmp_path):
    config = ConversionConfig(crop_size_px=48, protocol="posenet-2")
    whole = convert(RawReader(tiny_raw_tree), tmp_path / "whole", config=config)
    results = [
        convert(
            RawReader(tiny_raw_tree),
            tmp_path / "parts",
            config=config,
            part=Part(number=number, count=2),
        )
        for number in (2, 1)
    ]
    assert [result.digest for result in results] == [None, whole.digest]
    assert len(open_store(tmp_path / "parts")) == whole.num_records


def test_units_go_to_other_processes(raw_tree):
    for unit in RawReader(raw_tree).units()[:2]:
        sent = pickle.loads(pickle.dumps(unit))
        assert len(pickle.dumps(unit)) < 20_000
        np.testing.assert_array_equal(sent.load().joints_camera_mm, unit.load().joints_camera_mm)


def test_a_source_is_known_by_its_files_and_the_choice_of_poses(tiny_raw_tree):
    first = RawReader(tiny_raw_tree).identity()
    assert first == RawReader(tiny_raw_tree).identity()
    assert first != RawReader(tiny_raw_tree, poses="world").identity()
    change_metadata(tiny_raw_tree, "Phoning 3", "Phoning 4")
    assert first != RawReader(tiny_raw_tree).identity()
    again = RawReader(tiny_raw_tree).identity()
    with (tiny_raw_tree / f"S1/Videos/Greeting.{CAMERA}.mp4").open("ab") as file:
        file.write(b"x")
    assert again != RawReader(tiny_raw_tree).identity()


def test_the_whole_release_is_listed_with_its_known_number_of_frames(tmp_path):
    for fact in sequences().values():
        for number in ("54138969", "55011271", "58860488", "60457274"):
            for name in (
                f"MyPoseFeatures/D3_Positions_mono/{fact.file_name}.{number}.cdf",
                f"Videos/{fact.file_name}.{number}.mp4",
            ):
                path = tmp_path / f"S{fact.subject}" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    (tmp_path / "metadata.xml").write_bytes(metadata_xml({}))
    reader = RawReader(tmp_path)
    assert reader.missing == []
    units = reader.units()
    assert len(units) == len({unit.name for unit in units}) == 839
    assert sum(unit.count for unit in units if unit.subject in (1, 5, 6, 7, 8)) == 1_559_752
    assert sum(unit.count for unit in units if unit.subject in (9, 11)) == 548_819
    selection = select_jobs(reader, ConversionConfig())
    assert len(selection.jobs) == 839 - 3 * 4
