"""The store gives back what was put in, tells when it cannot, and its digest is of contents."""

import hashlib
import json
import multiprocessing
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from pose3d.data.shard import temporary_name
from pose3d.data.store import (
    ShardWriter,
    StoreHeader,
    StoreRecord,
    begin_store,
    check_jpeg,
    finalise_store,
    open_store,
)
from pose3d.geometry.camera import Camera

SIZE = 64
HEADER = StoreHeader(
    skeleton="human36m_17", source="test", box_definition="test", crop_size_px=SIZE,
    margin=1.84, jpeg_quality=92,
)  # fmt: skip


def make_jpeg(number):
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.resize(small, (SIZE, SIZE)))[1].tobytes()


def make_record(number, **changes):
    rng = np.random.default_rng(number)
    values = {
        "image_jpeg": make_jpeg(number),
        "joints_camera_mm": rng.normal([0, 0, 5000], 300, (17, 3)),
        "weight": rng.uniform(0, 1, (17, 3)),
        "visibility": rng.integers(0, 2, 17),
        "camera": Camera.from_parameters(
            rotation=np.linalg.qr(np.random.default_rng(number % 2).normal(size=(3, 3)))[0],
            centre_world_mm=[1.0 + number % 2, 2, 3],
            focal_px=[1145.0, 1143 + number % 2],
            principal_point_px=[512, 515],
            radial=[-0.2, 0.24, -0.003],
            tangential=[-0.0014, -0.0009],
        ),
        "camera_name": ("54138969", "ca_07")[number % 2],
        "store_from_image": np.array([[0.1, 0, number], [0, 0.1, 3], [0, 0, 1.0]]),
        "box_image_px": np.array([500.0 + number, 400, 300]),
        "subject": 1 + number % 3,
        "action": ("Walking", "Eating", "Jumping")[number % 3],
        "subaction": 1 + number % 2,
        "frame": 5 * number,
        "split": ("train", "test")[number % 2],
        "source_file": f"Bilder/zähler_{number}.jpg",
        "image_size_px": (1000, 1000 + 2 * (number % 2)),
    }
    return StoreRecord(**{**values, **changes})


def write_shard(directory, name, numbers, *, header=HEADER):
    directory.mkdir(exist_ok=True)
    with ShardWriter(directory / name, header=header) as writer:
        for number in numbers:
            writer.add(make_record(number))


def write_store(directory):
    write_shard(directory, "shard-000.h5", range(5))
    write_shard(directory, "shard-001.h5", range(5, 12))
    finalise_store(directory, HEADER)
    return directory


@pytest.fixture
def path(tmp_path):
    return write_store(tmp_path / "store")


def test_every_field_comes_back_as_it_was_put_in(path):
    store = open_store(path)
    assert len(store) == 12
    for i in range(12):
        record, rows = make_record(i), store.records
        assert store.image_bytes(i) == record.image_jpeg
        assert store.source_file(i) == record.source_file
        np.testing.assert_allclose(rows.joints_camera_mm[i], record.joints_camera_mm, rtol=1e-7)
        np.testing.assert_allclose(rows.weight[i], record.weight, rtol=1e-7)
        np.testing.assert_array_equal(rows.visibility[i], record.visibility)
        for name in ("store_from_image", "box_image_px", "image_size_px"):
            np.testing.assert_array_equal(getattr(rows, name)[i], getattr(record, name))
        for name in ("subject", "action", "subaction", "frame", "split", "camera_name"):
            assert getattr(rows, name)[i] == getattr(record, name), name
        for name in ("rotation", "centre_world_mm", "focal_px", "principal_point_px", "radial",
                     "tangential"):  # fmt: skip
            stored = getattr(store.cameras, name)[rows.camera_index[i]]
            np.testing.assert_array_equal(stored, getattr(record.camera, name))


def test_equal_cameras_of_several_shards_are_one(path):
    assert tuple(open_store(path).cameras.batch_shape) == (2,)


def test_images_are_rgb(path):
    store = open_store(path)
    expected = cv2.imdecode(np.frombuffer(make_jpeg(7), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(store.image(7), expected)


def test_a_shard_opens_alone(path):
    store = open_store(path / "shard-001.h5")
    assert len(store) == 7
    assert store.image_bytes(0) == make_jpeg(5)
    store.verify_digest()


def test_the_blob_is_contiguous_and_needs_no_filter(path):
    with h5py.File(path / "shard-000.h5") as file:
        assert file["images/bytes"].chunks is None
        assert file["images/bytes"].compression is None
        assert file["images/bytes"][()].tobytes() == b"".join(make_jpeg(i) for i in range(5))


def test_digest_does_not_depend_on_the_order_or_time_of_writing(path, tmp_path):
    other = tmp_path / "other"
    write_shard(other, "shard-001.h5", range(5, 12))
    write_shard(other, "shard-000.h5", range(5))
    assert finalise_store(other, HEADER) == open_store(path).digest


@pytest.mark.parametrize(
    "change", [{"frame": 1}, {"split": "test"}, {"source_file": "x.jpg"}, {"image_jpeg": None}]
)
def test_digest_depends_on_every_value(path, tmp_path, change):
    if "image_jpeg" in change:
        change = {"image_jpeg": make_jpeg(99)}
    other = tmp_path / "other"
    other.mkdir()
    with ShardWriter(other / "shard-000.h5", header=HEADER) as writer:
        writer.add(make_record(0, **change))
        for number in range(1, 5):
            writer.add(make_record(number))
    write_shard(other, "shard-001.h5", range(5, 12))
    assert finalise_store(other, HEADER) != open_store(path).digest


def test_digest_depends_on_the_header(path, tmp_path):
    header = replace(HEADER, margin=1.5)
    write_shard(tmp_path / "a", "shard-0.h5", range(5), header=header)
    write_shard(tmp_path / "b", "shard-0.h5", range(5))
    assert finalise_store(tmp_path / "a", header) != finalise_store(tmp_path / "b", HEADER)


def test_verify_digest_finds_one_changed_byte(path):
    open_store(path).verify_digest()
    shard = path / "shard-001.h5"
    content = bytearray(shard.read_bytes())
    content[content.find(make_jpeg(9)) + 300] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"shard-001\.h5 has changed"):
        open_store(path).verify_digest()


def test_works_through_pickle_and_threads(path):
    store = open_store(path)
    assert len(store.image(3)) == SIZE  # the map is open before pickling
    again = pickle.loads(pickle.dumps(store))
    expected = [make_jpeg(i) for i in range(12)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(again.image_bytes, range(12))) == expected


def hash_image(store, index):
    return hashlib.sha256(store.image_bytes(index)).hexdigest()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_works_after_a_fork(path):
    store = open_store(path)
    store.image_bytes(0)  # one shard mapped before, one after the fork
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.starmap(hash_image, [(store, i) for i in range(12)])
    assert found == [hashlib.sha256(make_jpeg(i)).hexdigest() for i in range(12)]


def test_select_combines_its_conditions(path):
    store = open_store(path)
    everything = range(12)
    assert store.select().tolist() == list(everything)
    assert store.select(split="test").tolist() == [i for i in everything if i % 2]
    chosen = store.select(split="train", subjects=[1, 3], every=10)
    assert chosen.tolist() == [i for i in everything if i % 2 == 0 and i % 3 != 1]
    assert store.select(actions=["Eating"], cameras=["ca_07"]).tolist() == [1, 7]
    assert store.select(subjects=[11]).tolist() == []


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"split": "val"}, "unknown split val; known: train, test"),
        ({"actions": ["Eatin"]}, "unknown action Eatin; known: Eating, Jumping, Walking"),
        ({"cameras": ["1"]}, "unknown camera 1; known: 54138969, ca_07"),
        ({"every": 0}, "every must be at least 1, got 0"),
    ],
)
def test_select_refuses_unknown_names(path, condition, message):
    with pytest.raises(ValueError, match=message):
        open_store(path).select(**condition)


def test_record_names_follow_human36m_and_count_frames_from_one(path):
    store = open_store(path)
    assert store.record_name(0) == "s_01_act_14_subact_01_ca_01_000001"
    assert store.record_name(5) == "s_03_act_Jumping_subact_02_ca_07_000026"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"joints_camera_mm": np.full((17, 3), np.nan)}, "joint Pelvis, .* is not finite"),
        ({"joints_camera_mm": np.full((17, 3), -1.0)}, "depth -1.0 mm, must be > 0"),
        (
            {
                "joints_camera_mm": np.ones((4, 3)),
                "weight": np.ones((4, 3)),
                "visibility": np.ones(4),
            },
            r"must be \(17, 3\), got \(4, 3\)",
        ),
        ({"weight": np.full((17, 3), -1.0)}, "weights must be finite and >= 0"),
        ({"box_image_px": np.array([5.0, 5, 0])}, "has no area"),
        ({"store_from_image": np.zeros((3, 3))}, "map has no inverse"),
        ({"split": "val"}, "split must be one of"),
        ({"frame": 2**31}, "frame 2147483648 does not fit into 32 bits"),
        ({"subject": -(2**40)}, "subject -1099511627776 does not fit"),
        ({"image_size_px": (2**31, 9)}, "image_size_px 2147483648 does not fit"),
        ({"image_size_px": (1000, 0)}, "image_size_px is 1000 x 0, must be > 0"),
        ({"image_jpeg": make_jpeg(0)[:-2]}, "crop is truncated JPEG"),
        ({"image_jpeg": b"\x89PNG"}, "crop is not a JPEG"),
    ],
)
def test_writer_refuses_a_bad_record_and_names_it(tmp_path, changes, message):
    writer = ShardWriter(tmp_path / "shard-0.h5", header=HEADER)
    with pytest.raises(ValueError, match=message) as caught:
        writer.add(make_record(0, **changes))
    assert "zähler_0.jpg" in str(caught.value)
    assert len(writer) == 0


def test_an_exception_leaves_no_shard_behind(tmp_path):
    def interrupt():
        with ShardWriter(tmp_path / "shard-0.h5", header=HEADER) as writer:
            writer.add(make_record(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write the store .*file/store"):
        begin_store(tmp_path / "file" / "store", plan={})
    writer = ShardWriter(tmp_path / "nowhere" / "shard-0.h5", header=HEADER)
    with pytest.raises(OSError, match=r"cannot write .*nowhere/shard-0\.h5"):
        writer.add(make_record(0))
    with pytest.raises(OSError, match=r"cannot write .*nowhere/shard-0\.h5"):
        writer.close()


def test_a_store_that_another_machine_is_just_beginning_is_begun_too(tmp_path):
    (tmp_path / ".plan.json.other-host.17.0a1b2c3d").write_text("{")
    assert begin_store(tmp_path, plan={"source": "same"}) == set()
    assert (tmp_path / "plan.json").is_file()


def change_manifest(path, **changes):
    manifest = json.loads((path / "store.json").read_text())
    (path / "store.json").write_text(json.dumps({**manifest, **changes}))


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: truncate(p / "shard-001.h5"), r"shard-001\.h5 has \d+ bytes, .* truncated"),
        (lambda p: (p / "shard-000.h5").unlink(), r"lacks its shard shard-000\.h5"),
        (lambda p: change_manifest(p, schema_version=2), "version 2; this release reads version 1"),
        (lambda p: change_manifest(p, format="zip"), "is not part of a pose3d-store"),
        (lambda p: change_manifest(p, skeleton="human37m"), "human37m"),
        (lambda p: change_manifest(p, joint_names=["Nose"]), "not those of human36m_17"),
        (lambda p: change_manifest(p, shards=[{}]), "is not a store's manifest"),
        (lambda p: change_manifest(p, crop_size_px=float("inf")), "is not a store's manifest"),
        (lambda p: (p / "store.json").write_text("{"), "is not a store's manifest"),
        (lambda p: (p / "store.json").write_text("[1]"), "is not a store's manifest"),
        (lambda p: (p / "store.json").unlink(), "is not a store"),
        (lambda p: [f.unlink() for f in p.iterdir()], "is not a store"),
    ],
)
def test_a_damaged_store_ends_in_one_line(path, damage, message):
    damage(path)
    with pytest.raises(ValueError, match=message) as caught:
        open_store(path)
    assert "\n" not in str(caught.value)


def test_a_swapped_shard_of_equal_size_is_noticed(tmp_path):
    write_shard(tmp_path, "shard-0.h5", [1])
    finalise_store(tmp_path, HEADER)
    size = (tmp_path / "shard-0.h5").stat().st_size
    with ShardWriter(tmp_path / "shard-0.h5", header=HEADER) as writer:
        writer.add(make_record(1, frame=77))
    assert (tmp_path / "shard-0.h5").stat().st_size == size
    with pytest.raises(ValueError, match="is not the shard that the manifest names"):
        open_store(tmp_path)


def test_a_lone_truncated_or_foreign_shard_ends_in_one_line(path):
    truncate(path / "shard-001.h5")
    (path / "shard-002.h5").write_text("hello")
    for name in ("shard-001.h5", "shard-002.h5"):
        with pytest.raises(ValueError, match="is not a whole shard") as caught:
            open_store(path / name)
        assert "\n" not in str(caught.value)


def replace_dataset(name, change):
    """A damage: the dataset is gone (None) or has other values."""

    def damage(file):
        values = file[name][()]
        del file[name]
        if change is not None:
            file[name] = change(values)

    return damage


def set_at(position, value):
    def change(values):
        values[position] = value
        return values

    return change


EVERY_DATASET = (
    *("images/bytes", "images/offsets", "names/actions", "skipped", "cameras/name"),
    *(f"cameras/{name}" for name in ("rotation", "centre_world_mm", "focal_px", "radial")),
    *(f"cameras/{name}" for name in ("principal_point_px", "tangential", "image_size_px")),
    *(f"records/{name}" for name in ("camera_index", "joints_camera_mm", "weight", "visibility")),
    *(f"records/{name}" for name in ("store_from_image", "box_image_px", "subject", "action")),
    *(f"records/{name}" for name in ("subaction", "frame", "split", "source_file")),
)
DAMAGES = {
    **{f"no {name}": replace_dataset(name, None) for name in EVERY_DATASET},
    **{
        f"one row less in {name}": replace_dataset(name, lambda values: values[:-1])
        for name in EVERY_DATASET
        if name != "skipped"
    },
    "camera beyond the table": replace_dataset("records/camera_index", set_at(1, 2)),
    "camera below 0": replace_dataset("records/camera_index", set_at(1, -1)),
    "action beyond the names": replace_dataset("records/action", set_at(0, 3)),
    "split of no name": replace_dataset("records/split", set_at(4, 2)),
    "offsets that descend": replace_dataset("images/offsets", set_at(2, 0)),
    "offsets from 1": replace_dataset("images/offsets", set_at(0, 1)),
    "offsets of floats": replace_dataset("images/offsets", lambda v: v.astype(float)),
    "names that are no UTF-8": replace_dataset("names/actions", set_at(0, b"\xff\xfe")),
    "joints of text": replace_dataset("records/joints_camera_mm", lambda v: v.astype("S9")),
    "joints of another skeleton": replace_dataset("records/joints_camera_mm", lambda v: v[:, :16]),
    "a group among the columns": lambda file: file.create_group("records/more"),
    "a dataset for a group": lambda file: (file.pop("records"), file.update(records=[1.0])),
    "no header": lambda file: file.attrs.pop("margin"),
    "no digest": lambda file: file.attrs.pop("digest"),
    "a margin of text": lambda file: file.attrs.update(margin="wide"),
    "a version of text": lambda file: file.attrs.update(schema_version="one"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_shard_whose_datasets_do_not_fit_together_ends_in_one_line(path, kind):
    shard = path / "shard-000.h5"
    with h5py.File(shard, "r+") as file:
        DAMAGES[kind](file)
    with pytest.raises(ValueError, match=r"shard-000\.h5 is not a whole shard") as caught:
        open_store(shard)
    assert "\n" not in str(caught.value)


def test_a_shard_of_another_version_says_so(path):
    with h5py.File(path / "shard-000.h5", "r+") as file:
        file.attrs["schema_version"] = 2
    with pytest.raises(ValueError, match=r"schema version 2; this release reads version 1: conv"):
        open_store(path / "shard-000.h5")


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("No space")]
)
def test_a_full_disk_ends_in_one_line_and_leaves_nothing(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(h5py.File, "create_dataset", fail)
    with pytest.raises(OSError, match=r"cannot write .*shard-0\.h5: No space"):
        write_shard(tmp_path, "shard-0.h5", [1])
    assert list(tmp_path.iterdir()) == []


def test_nothing_at_the_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="no store at"):
        open_store(tmp_path / "missing")


def test_a_bad_crop_is_named_with_store_record_and_source(tmp_path):
    empty = b"\xff\xd8\xff\xda\x00\x02\xff\xd9"
    with ShardWriter(tmp_path / "shard-0.h5", header=HEADER) as writer:
        writer.add(make_record(1, image_jpeg=empty))
        writer.add(make_record(2, image_jpeg=cv2.imencode(".jpg", np.ones((8, 8)))[1].tobytes()))
    finalise_store(tmp_path, HEADER)
    store = open_store(tmp_path)
    for index, number in enumerate((1, 2)):
        with pytest.raises(ValueError, match=f"record {index} .*zähler_{number}.jpg.* is bad"):
            store.image(index)


def test_finalise_refuses_shards_of_another_header_and_no_records(tmp_path):
    with pytest.raises(ValueError, match="holds no records"):
        finalise_store(tmp_path, HEADER)
    write_shard(tmp_path, "shard-0.h5", [1])
    with pytest.raises(ValueError, match="has another header"):
        finalise_store(tmp_path, replace(HEADER, jpeg_quality=50))


def test_skipped_records_are_kept_with_their_reasons(tmp_path):
    with ShardWriter(tmp_path / "shard-0.h5", header=HEADER) as writer:
        writer.add(make_record(1))
        writer.skip("b.jpg", reason="größer")
    write_shard(tmp_path, "shard-1.h5", [])
    finalise_store(tmp_path, HEADER)
    store = open_store(tmp_path)
    assert store.skipped == [("b.jpg", "größer")]
    assert len(store) == 1
    store.verify_digest()


def test_a_store_is_taken_up_only_with_its_own_plan(tmp_path):
    path = tmp_path / "store"
    assert begin_store(path, plan={"seed": 1, "pair": (1, 2)}) == set()
    write_shard(path, "shard-0.h5", [1])
    assert begin_store(path, plan={"seed": 1, "pair": (1, 2)}) == {"shard-0.h5"}
    with pytest.raises(ValueError, match=r"seed: 1 there, 2 asked.*--overwrite"):
        begin_store(path, plan={"seed": 2, "pair": (1, 2)})
    with pytest.raises(ValueError, match=r"is an unfinished store .*run the same conversion again"):
        open_store(path)
    assert begin_store(path, plan={"seed": 2}, overwrite=True) == set()


def begin_and_be_killed(path):
    (path / temporary_name("shard-2.h5")).write_text("half a shard")
    os._exit(9)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_temporaries_of_dead_processes_are_cleared_away_and_no_others(tmp_path):
    begin_store(tmp_path, plan={})
    killed = multiprocessing.get_context("fork").Process(
        target=begin_and_be_killed, args=(tmp_path,)
    )
    killed.start()
    killed.join()
    (dead,) = tmp_path.glob(".shard-2*")
    mine = tmp_path / temporary_name("shard-1.h5")
    elsewhere = tmp_path / f".shard-1.h5.no-such-host.{killed.pid}.0123abcd"
    old = tmp_path / ".shard-3.h5.no-such-host.1.0123abcd"
    nameless = tmp_path / ".shard-4.h5.0123abcd"
    for path in (mine, elsewhere, old, nameless):
        path.write_text("half a shard")
    two_days_ago = time.time() - 2 * 86400
    os.utime(old, (two_days_ago, two_days_ago))
    begin_store(tmp_path, plan={}, overwrite=True)
    assert not dead.exists()
    assert not old.exists()
    assert mine.exists()
    assert elsewhere.exists()
    assert nameless.exists()


def test_overwriting_that_is_interrupted_leaves_what_is_still_a_store(path, monkeypatch):
    begin_store(path, plan={"seed": 1}, overwrite=True)
    write_store(path)
    unlink, gone = Path.unlink, []

    def interrupted(self, **options):
        if self.name.startswith("shard-"):
            gone.append(self.name)
            return unlink(self, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", interrupted)
    with pytest.raises(KeyboardInterrupt):
        begin_store(path, plan={"seed": 2}, overwrite=True)
    monkeypatch.undo()
    assert len(gone) == 2
    assert begin_store(path, plan={"seed": 2}, overwrite=True) == set()


def test_contents_are_on_the_disk_before_a_file_gets_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace_file = os.fsync, os.replace

    def noted_fsync(handle):
        done.append(os.fstat(handle).st_ino)
        fsync(handle)

    def noted_replace(source, target):
        assert os.stat(source).st_ino in done, target
        replace_file(source, target)
        done.append(target.name)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write_shard(tmp_path, "shard-0.h5", [1])
    finalise_store(tmp_path, HEADER)
    assert [name for name in done if isinstance(name, str)] == ["shard-0.h5", "store.json"]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="exists and is not a store"):
            begin_store(tmp_path, plan={}, overwrite=overwrite)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_end_marker_of_a_thumbnail_does_not_make_a_jpeg_whole():
    whole, thumbnail = make_jpeg(1), make_jpeg(2)
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    nested = whole[:2] + segment + whole[2:]
    assert cv2.imdecode(np.frombuffer(nested, np.uint8), cv2.IMREAD_COLOR).shape[0] == SIZE
    check_jpeg(nested)
    check_jpeg(nested + b"\0" * 10)
    for length in (1, 2, 50, len(thumbnail), len(nested) - 1, len(nested) - 2):
        with pytest.raises(ValueError, match=r"truncated|not a JPEG"):
            check_jpeg(nested[:length])
