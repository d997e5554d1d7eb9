"""Reading: order, resuming, threads, bad records, and the same batches through every route."""

import pickle
import threading
from itertools import chain

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from pose3d.data.dataset import (
    BatchLoader,
    DataConfig,
    PoseDataset,
    concatenate,
    epoch_order,
    make_dataset,
)
from pose3d.data.store import ShardWriter, StoreHeader, StoreRecord, finalise_store, open_store
from pose3d.geometry.camera import Camera
from pose3d.geometry.skeleton import HUMAN36M_17, HUMAN36M_18

SIZE, COUNT = 48, 23
UNREADABLE = b"\xff\xd8\xff\xda\x00\x02\xff\xd9"  # markers of a JPEG without anything between


def make_record(number, *, image_jpeg=None):
    if image_jpeg is None:
        image = np.full((SIZE, SIZE, 3), (10 * number, 40, 255 - 10 * number), np.uint8)  # BGR
        image_jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    rng = np.random.default_rng(number)
    return StoreRecord(
        image_jpeg=image_jpeg,
        joints_camera_mm=rng.uniform([-400, -900, 4500], [400, 900, 5500], (17, 3)),
        weight=np.ones((17, 3)),
        visibility=np.ones(17, np.uint8),
        camera=Camera.from_parameters(
            focal_px=[1000.0 + number % 3, 1000.0], principal_point_px=[500.0, 500.0]
        ),
        camera_name=f"c{number % 3}",
        store_from_image=np.diag([0.1 + 0.01 * number, 0.1, 1]),
        box_image_px=np.array([500.0, 500, 400 + number]),
        subject=1 + number % 2,
        action="Walking",
        subaction=1,
        frame=number,
        split="train" if number < 20 else "test",
        source_file=f"photo_{number:02d}.jpg",
        image_size_px=(1000, 1000),
    )


def write_store(path, *, unreadable=()):
    header = StoreHeader(
        skeleton="human36m_17", source="test", box_definition="test", crop_size_px=SIZE,
        margin=1.84, jpeg_quality=95,
    )  # fmt: skip
    path.mkdir()
    for shard, numbers in enumerate((range(9), range(9, COUNT))):
        with ShardWriter(path / f"shard-{shard:03d}.h5", header=header) as writer:
            for number in numbers:
                jpeg = UNREADABLE if number in unreadable else None
                writer.add(make_record(number, image_jpeg=jpeg))
    finalise_store(path, header)
    return open_store(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("stores") / "store")


@pytest.fixture(scope="module")
def damaged_store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("stores") / "damaged", unreadable=(4, 11))


def make_all(store, **options):
    return PoseDataset(store, np.arange(len(store)), skeleton=HUMAN36M_18, **options)


def make_loader(dataset, **options):
    return BatchLoader(dataset, **{"batch_size": 4, "seed": 1, "epoch": 2, **options})


def order_of(loader):
    return [raw.index.tolist() for raw in loader]


def loader_threads():
    return [t.name for t in threading.enumerate() if t.name.startswith("pose3d-loader")]


def assert_same(actual, expected):
    for name in ("images", "index", "joints_camera_mm", "weight", "store_from_image",
                 "box_image_px"):  # fmt: skip
        assert torch.equal(getattr(actual, name), getattr(expected, name)), name
    assert torch.equal(actual.camera.focal_px, expected.camera.focal_px)


def test_a_batch_holds_each_record_with_its_own_labels(store):
    raw = make_all(store).raw_batch(np.array([20, 3, 9]))
    assert raw.index.tolist() == [20, 3, 9]
    for slot, number in enumerate((20, 3, 9)):
        record = make_record(number)
        colour = [max(255 - 10 * number, 0) if number < 26 else 0, 40, 10 * number]
        expected = np.full((SIZE, SIZE, 3), colour)
        assert np.abs(raw.images[slot].numpy().astype(int) - expected).max() <= 4  # JPEG, RGB
        np.testing.assert_allclose(
            raw.joints_camera_mm[slot, :17].numpy(), record.joints_camera_mm, rtol=1e-6
        )
        assert torch.equal(raw.camera.focal_px[slot], record.camera.focal_px)
        np.testing.assert_array_equal(raw.store_from_image[slot].numpy(), record.store_from_image)
        np.testing.assert_array_equal(raw.box_image_px[slot].numpy(), record.box_image_px)
    assert raw.images.dtype == torch.uint8
    assert raw.store_from_image.dtype == raw.camera.focal_px.dtype == torch.float64


def test_the_thorax_is_midway_between_the_shoulders_and_labelled_only_if_both_are(tmp_path):
    store = write_store(tmp_path / "store")
    right, left = HUMAN36M_17.index("R_Shoulder"), HUMAN36M_17.index("L_Shoulder")
    store.records.weight[1, left, 2] = 0
    raw = make_all(store).raw_batch(np.array([0, 1]))
    joints = raw.joints_camera_mm
    torch.testing.assert_close(joints[:, 17], (joints[:, left] + joints[:, right]) / 2)
    assert raw.weight[:, 17].tolist() == [[1, 1, 1], [1, 1, 0]]


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_an_epoch_holds_every_record_once_in_the_order_of_seed_and_epoch(store, num_threads):
    order = epoch_order(COUNT, seed=1, epoch=2)
    batches = order_of(make_loader(make_all(store), num_threads=num_threads))
    assert list(chain.from_iterable(batches)) == order.tolist()
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 3]
    assert sorted(order.tolist()) == list(range(COUNT))


def test_orders_differ_between_epochs_and_seeds_and_are_uniform():
    orders = {tuple(epoch_order(50, seed=s, epoch=e)) for s in range(3) for e in range(3)}
    assert len(orders) == 9
    assert epoch_order(5, seed=0, epoch=0, shuffle=False).tolist() == [0, 1, 2, 3, 4]
    first = [int(epoch_order(4, seed=0, epoch=e)[0]) for e in range(1000)]
    assert np.abs(np.bincount(first) - 250).max() < 4 * np.sqrt(1000 * 0.25 * 0.75)


@pytest.mark.parametrize("num_threads", [0, 2])
def test_starting_at_a_batch_continues_the_epoch(store, num_threads):
    dataset = make_all(store)
    whole = make_loader(dataset, num_threads=num_threads, drop_last=True)
    expected = list(whole)
    assert (len(whole), whole.num_batches, whole.next_batch) == (5, 5, 5)
    tail = make_loader(dataset, num_threads=num_threads, drop_last=True, start_batch=3)
    assert len(tail) == 2
    for actual, raw in zip(tail, expected[3:], strict=True):
        assert_same(actual, raw)
    assert order_of(make_loader(dataset, start_batch=6)) == []


def test_next_batch_counts_what_was_handed_out(store):
    loader = make_loader(make_all(store), start_batch=1)
    batches = iter(loader)
    next(batches)
    next(batches)
    assert loader.next_batch == 3


def test_threads_end_when_the_loop_is_left(store):
    for raw in make_loader(make_all(store), num_threads=3):
        assert len(raw) == 4
        assert loader_threads()
        break
    assert not loader_threads()


def test_threads_end_when_the_caller_fails(store):
    def consume():
        for _ in make_loader(make_all(store), num_threads=3):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        consume()
    assert not loader_threads()


@pytest.mark.parametrize("num_threads", [0, 2])
def test_a_bad_image_is_named_with_store_record_and_source(damaged_store, num_threads):
    loader = make_loader(make_all(damaged_store), num_threads=num_threads)
    with pytest.raises(ValueError, match=r"damaged.*photo_(04|11)\.jpg"):
        list(loader)
    assert not loader_threads()


@pytest.mark.parametrize("num_threads", [0, 2])
def test_bad_images_are_left_out_and_counted(store, damaged_store, num_threads):
    dataset, store_dataset = make_all(damaged_store), make_all(store)
    loader = make_loader(dataset, num_threads=num_threads, bad_records="skip")
    for _ in range(2):  # counts start again with each iteration
        batches = order_of(loader)
        expected = [i for i in epoch_order(COUNT, seed=1, epoch=2) if i not in (4, 11)]
        assert list(chain.from_iterable(batches)) == expected
        for raw in loader:  # the images left still stand beside their own labels
            assert_same(raw, store_dataset.raw_batch(raw.index.numpy()))
        assert loader.num_skipped == 2
        assert sorted(loader.skipped_names) == [damaged_store.record_name(i) for i in (4, 11)]


def test_a_batch_without_any_readable_record_is_passed_over(damaged_store):
    dataset = PoseDataset(damaged_store, np.array([3, 4, 5]), skeleton=HUMAN36M_17)
    loader = BatchLoader(dataset, batch_size=1, seed=0, epoch=0, shuffle=False, bad_records="skip")
    assert order_of(loader) == [[3], [5]]
    assert loader.next_batch == 3


def test_labels_that_cannot_be_right_are_named_or_left_out(tmp_path):
    store = write_store(tmp_path / "store")
    store.records.joints_camera_mm[5, 3, 1] = np.nan
    store.records.joints_camera_mm[6, 3, 1] = np.nan
    store.records.weight[6, 3] = 0  # no label, so it does not matter
    store.records.box_image_px[7, 2] = 0
    with pytest.raises(ValueError, match=r"2 records .*photo_05\.jpg"):
        make_all(store)
    dataset = make_all(store, bad_records="skip")
    assert len(dataset) == COUNT - 2
    assert dataset.skipped_names == (store.record_name(5), store.record_name(7))


@pytest.mark.parametrize("kept", [0.4, 5])
def test_a_cache_changes_nothing(store, kept):
    dataset = make_all(store, cache_gib=kept * COUNT * 3 * SIZE**2 / 2**30)
    expected = list(make_loader(make_all(store), num_threads=0))
    for _ in range(2):
        for actual, raw in zip(make_loader(dataset, num_threads=3), expected, strict=True):
            assert_same(actual, raw)
    pickled = pickle.dumps(dataset)
    assert len(pickled) < len(pickle.dumps(make_all(store))) + 1000  # without the cache
    copy = pickle.loads(pickled)
    assert_same(copy.raw_batch(np.arange(3)), dataset.raw_batch(np.arange(3)))


def test_a_full_cache_needs_no_file(tmp_path):
    store = write_store(tmp_path / "store")
    dataset = make_all(store, cache_gib=1.0)
    expected = dataset.raw_batch(np.arange(COUNT))
    store.image_bytes = None
    assert_same(dataset.raw_batch(np.arange(COUNT)), expected)


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_worker_processes_read_the_same(store, context):
    dataset = make_all(store)
    dataset.raw_batch(np.arange(2))  # the parent has opened the files before the fork
    workers = DataLoader(
        dataset,
        batch_size=8,
        num_workers=2,
        collate_fn=concatenate,
        multiprocessing_context=context,
    )
    expected = BatchLoader(dataset, batch_size=8, seed=0, epoch=0, shuffle=False)
    for actual, raw in zip(workers, expected, strict=True):
        assert_same(actual, raw)


def test_a_configuration_chooses_split_subjects_and_frames(store):
    config = DataConfig(train_subjects=(1,), train_every=4)
    assert make_dataset(store, config, role="train").indices.tolist() == [0, 4, 8, 12, 16]
    assert make_dataset(store, config, role="test").indices.tolist() == [20, 21, 22]
    with pytest.raises(ValueError, match=r"data\.train_subjects=\(9,\).*'train': 20, 'test': 3"):
        make_dataset(store, DataConfig(train_subjects=(9,)), role="train")


def test_settings_merge_as_typed_yaml_and_are_checked():
    merged = OmegaConf.merge(
        OmegaConf.structured(DataConfig), {"train_subjects": [1, 5], "bad_records": "skip"}
    )
    config = OmegaConf.to_object(merged)
    assert list(config.train_subjects) == [1, 5]
    assert config.bad_records == "skip"
    with pytest.raises(ValueError, match=r"data\.input_size_px must be >= 32, got 8"):
        DataConfig(input_size_px=8)
    with pytest.raises(ValueError, match="did you mean human36m_1"):
        DataConfig(skeleton="human36m_71")


def test_loader_settings_are_checked(store):
    with pytest.raises(ValueError, match="start_batch must be 0 to 6, got 7"):
        make_loader(make_all(store), start_batch=7)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        make_loader(make_all(store), batch_size=0)
