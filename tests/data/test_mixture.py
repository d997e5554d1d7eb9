"""Stores that train together: who is in which batch, how often, and what their labels weigh."""

import threading
from dataclasses import replace
from fractions import Fraction
from itertools import chain

import cv2
import numpy as np
import pytest
import torch

from pose3d.data import augment
from pose3d.data.augment import AugmentConfig, identity_parameters
from pose3d.data.dataset import BatchLoader, DataConfig, make_dataset
from pose3d.data.mixture import MixtureLoader, batch_counts, make_batch, make_mixture
from pose3d.data.store import ShardWriter, StoreHeader, StoreRecord, finalise_store, open_store
from pose3d.geometry.camera import Camera

UNREADABLE = b"\xff\xd8\xff\xda\x00\x02\xff\xd9"  # markers of a JPEG without anything between
CONFIG = DataConfig(input_size_px=32, num_threads=0)


def write_store(path, count, *, size_px=40, seed=0, has_depth=True, num_test=0, unreadable=()):
    """People of random joints; each image has one grey value of its own."""
    header = StoreHeader(
        skeleton="human36m_17", source=f"made for {path.name}", box_definition="test",
        crop_size_px=size_px, margin=1.0, jpeg_quality=95,
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    path.mkdir()
    with ShardWriter(path / "shard-0.h5", header=header) as writer:
        for number in range(count + num_test):
            image = np.full((size_px, size_px, 3), 8 * number % 256, np.uint8)
            jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
            weight = np.ones((17, 3), np.float32)
            weight[:, 2] = has_depth
            scale = size_px / 800
            writer.add(
                StoreRecord(
                    image_jpeg=UNREADABLE if number in unreadable else jpeg,
                    joints_camera_mm=rng.normal([0, 0, 5000], 200, (17, 3)),
                    weight=weight,
                    visibility=np.ones(17, np.uint8),
                    camera=Camera.from_parameters(
                        focal_px=[1e3, 1e3], principal_point_px=[5e2] * 2
                    ),
                    camera_name="a",
                    store_from_image=np.array([[scale, 0, -5], [0, scale, -5], [0, 0, 1]]),
                    box_image_px=np.array([502.0, 502.0, 800.0]),
                    subject=3 + number % 2,
                    action="Walking",
                    subaction=1,
                    frame=number,
                    split="train" if number < count else "test",
                    source_file=f"{path.name}_{number}.jpg",
                    image_size_px=(1000, 1000),
                )
            )
    finalise_store(path, header)
    return open_store(path)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A main store of 12, a flat one of 7 with larger crops, and one of 3 records."""
    folder = tmp_path_factory.mktemp("stores")
    return [
        write_store(folder / "main", 12, num_test=2),
        write_store(folder / "flat", 7, size_px=56, seed=1, has_depth=False),
        write_store(folder / "third", 3, size_px=48, seed=2),
    ]


def mix(stores, **settings):
    for name in ("store_shares", "store_weights"):
        if name in settings:
            settings[name] = tuple(map(float, settings[name]))
    return make_mixture(stores, replace(CONFIG, **settings))


def make_loader(mixture, **options):
    return MixtureLoader(
        mixture, **{"batch_size": 4, "seed": 1, "epoch": 0, "num_threads": 0, **options}
    )


def rows_of(batches, place):
    """Rows of one store, in the order in which an epoch reads them."""
    parts = [part for part in chain.from_iterable(batches) if part.place == place]
    return list(chain.from_iterable(part.raw.index.tolist() for part in parts))


def seen(parts):
    """All that tells one batch from another."""
    return [(p.place, p.epoch, p.raw.index.tolist(), int(p.raw.images.sum())) for p in parts]


@pytest.mark.parametrize("num_records", [3, 12, 14])
def test_one_store_alone_has_the_batches_of_its_own_loader(tmp_path, num_records):
    store = write_store(tmp_path / "store", num_records)
    dataset = make_dataset(store, CONFIG, role="train")
    for epoch in (0, 3):
        expected = BatchLoader(
            dataset, batch_size=4, seed=1, epoch=epoch, drop_last=num_records >= 4, num_threads=0
        )
        mixed = list(make_loader(mix([store]), epoch=epoch))
        assert [[part.raw.index.tolist() for part in parts] for parts in mixed] == [
            [raw.index.tolist()] for raw in expected
        ]
        assert {part.epoch for parts in mixed for part in parts} == {epoch}


@pytest.mark.parametrize(
    ("shares", "batch_size"),
    [((1, 1), 8), ((1, 1), 5), ((312188, 22246), 32), ((0.7, 0.2, 0.1), 7), ((1, 5, 5, 5), 2),
     ((5, 1, 1, 1, 1), 3)],
)  # fmt: skip
def test_after_every_batch_each_store_has_had_its_share(shares, batch_size):
    fractions = [Fraction(str(share)) for share in shares]
    fractions = [fraction / sum(fractions) for fraction in fractions]
    counts = batch_counts(fractions, num_main=500, batch_size=batch_size)
    assert (counts >= 0).all()
    assert (counts.sum(1) == batch_size).all()
    due = np.outer(np.arange(1, len(counts) + 1) * batch_size, shares) / np.sum(shares)
    assert np.abs(counts.cumsum(0) - due).max() < 1
    missing = 500 - counts[:, 0].sum()
    assert 0 <= missing <= np.ceil(batch_size * shares[0] / np.sum(shares))


def test_shares_of_whole_images_are_the_same_in_every_batch():
    counts = batch_counts([Fraction(3, 8), Fraction(5, 8)], num_main=30, batch_size=8)
    assert counts.tolist() == [[3, 5]] * 10


def test_a_batch_needs_no_more_of_the_main_store_than_there_is():
    assert batch_counts([Fraction(1, 2)] * 2, num_main=3, batch_size=32).tolist() == [[3, 3]]


def test_two_halves_of_one_store_show_each_record_once_per_epoch(tmp_path):
    halves = [write_store(tmp_path / name, 12, seed=seed) for seed, name in enumerate("ab")]
    mixture = mix(halves)
    for epoch in range(3):
        batches = list(make_loader(mixture, epoch=epoch))
        assert len(batches) == 6
        assert all([len(part.raw) for part in parts] == [2, 2] for parts in batches)
        orders = [rows_of(batches, place) for place in (0, 1)]
        assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
        assert orders[0] != orders[1]  # the same row of both does not always meet


def test_other_stores_go_on_where_the_epoch_before_stopped(stores):
    mixture = mix(stores, store_shares=(0.5, 0.25, 0.25))
    epochs = [list(make_loader(mixture, epoch=epoch)) for epoch in range(7)]
    assert [len(batches) for batches in epochs] == [6] * 7
    for batches in epochs:
        assert sorted(rows_of(batches, 0)) == list(range(12))
    for place, size in ((1, 7), (2, 3)):
        rows = list(chain.from_iterable(rows_of(batches, place) for batches in epochs))
        assert len(rows) == 7 * 6
        passes = [rows[start : start + size] for start in range(0, len(rows), size)]
        assert all(sorted(one) == list(range(size)) for one in passes)
        assert len({tuple(one) for one in passes}) > 2


def test_a_cut_epoch_leaves_no_record_of_other_stores_out(stores):
    mixture = mix(stores, store_shares=(0.5, 0.25, 0.25))
    epochs = [make_loader(mixture, epoch=epoch, max_batches=1) for epoch in range(7)]
    rows = list(chain.from_iterable(rows_of(loader, 1) for loader in epochs))
    assert sorted(rows) == list(range(7))


@pytest.mark.parametrize("num_threads", [0, 3])
def test_an_epoch_can_begin_at_any_batch_with_any_number_of_threads(stores, num_threads):
    mixture = mix(stores, store_shares=(2, 1, 2))
    whole = [seen(parts) for parts in make_loader(mixture, epoch=2, batch_size=5)]
    for start in range(len(whole) + 1):
        loader = make_loader(
            mixture, epoch=2, batch_size=5, start_batch=start, num_threads=num_threads
        )
        assert len(loader) == len(whole) - start
        assert [seen(parts) for parts in loader] == whole[start:]
        assert loader.next_batch == len(whole)
    assert not [t for t in threading.enumerate() if t.name.startswith("pose3d-loader")]


def test_a_batch_holds_the_crops_and_labels_of_its_records(stores):
    mixture = mix(stores, store_shares=(1, 1, 2), store_weights=(1, 0.5, 2))
    parts = next(iter(make_loader(mixture, batch_size=8)))
    batch = make_batch(
        parts,
        mixture,
        augmentation=AugmentConfig(enabled=False),
        data=CONFIG,
        seed=0,
        device="cpu",
    )
    assert batch.images.shape == (8, 3, 32, 32)
    places = [part.place for part in parts for _ in range(len(part.raw))]
    assert [places.count(place) for place in (0, 1, 2)] == [2, 2, 4]
    firsts = [0, 14, 21]
    mean, std = (torch.tensor(v) for v in augment.NORMALISATIONS["imagenet"])
    for slot, (place, number) in enumerate(zip(places, batch.index.tolist(), strict=True)):
        row = number - firsts[place]
        store = stores[place]
        grey = batch.images[slot, :, 4:28, 4:28].mean((1, 2)) * std + mean
        torch.testing.assert_close(grey * 255, torch.full((3,), 8.0 * row), atol=1.5, rtol=0)
        joints = store.records.joints_camera_mm[row].astype(float)
        uv = (joints[:, :2] / joints[:, 2:] * 1000 + 500 - 502) / 800 - 0.5 / 32  # pixel centres
        np.testing.assert_allclose(batch.target[slot, :17, :2].numpy(), uv, atol=1e-6)
        expected = torch.full((17, 3), (1, 0.5, 2)[place]) * torch.tensor([1, 1, place != 1])
        expected[0, 2] = 0
        assert torch.equal(batch.weight[slot, :17], expected)
        name = store.record_name(row)
        assert mixture.record_name(number) == f"{('main', 'flat', 'third')[place]}: {name}"


def test_a_record_that_comes_again_is_augmented_anew_and_not_like_its_row_elsewhere(tmp_path):
    main = write_store(tmp_path / "main", 4)
    twin = write_store(tmp_path / "twin", 1, seed=7)
    mixture = mix([main, twin], store_shares=(1, 1))
    assert np.array_equal(main.records.box_image_px[:1], twin.records.box_image_px)
    maps = []
    for parts in make_loader(mixture, batch_size=4):
        options = {"augmentation": AugmentConfig(), "data": CONFIG, "seed": 0, "device": "cpu"}
        batch = make_batch(parts, mixture, **options)
        maps += [m for m, i in zip(batch.crop_from_image, batch.index, strict=True) if i in (0, 4)]
    assert len(maps) == 5  # the twin four times, row 0 of the main store once
    assert len({tuple(m.flatten().tolist()) for m in maps}) == 5


def test_unreadable_records_are_named_with_their_store(stores, tmp_path):
    bad = write_store(tmp_path / "bad", 4, unreadable=(1, 2))
    mixture = mix([stores[0], bad], store_shares=(3, 1))
    with pytest.raises(ValueError, match=r"bad.*bad_(1|2)\.jpg"):
        list(make_loader(mixture))
    loader = make_loader(mixture, bad_records="skip")
    batches = list(loader)
    assert set(loader.skipped_names) == {f"bad: {bad.record_name(row)}" for row in (1, 2)}
    assert sorted(map(len, batches)) == [1, 1, 2, 2]
    assert make_mixture(stores[:1], CONFIG).record_name(3) == stores[0].record_name(3)


def test_settings_of_the_main_store_leave_others_whole(stores):
    mixture = mix(stores, train_subjects=(3,), train_every=4)
    assert mixture.main.indices.tolist() == [0, 4, 8]
    assert [len(dataset) for dataset in mixture.datasets[1:]] == [7, 3]
    assert mixture.shares == (Fraction(3, 13), Fraction(7, 13), Fraction(3, 13))


def test_what_is_told_of_the_stores(stores, tmp_path):
    (tmp_path / "other").mkdir()
    namesake = write_store(tmp_path / "other" / "main", 2, seed=9)
    namesake.records.weight[0, 5, 2] = 0
    mixture = mix([*stores, namesake], store_shares=(4, 3, 2, 1), store_weights=(1, 2, 3, 4))
    told = mixture.describe()
    assert [one["records"] for one in told] == [12, 7, 3, 2]
    assert [one["share"] for one in told] == [0.4, 0.3, 0.2, 0.1]
    assert [one["weight"] for one in told] == [1, 2, 3, 4]
    assert [one["depth_labels"] for one in told] == ["all", "none", "all", "some"]
    assert [one["subjects"] for one in told] == [[3, 4]] * 4
    assert [one["name"] for one in told] == [
        str(stores[0].path), "flat", "third", str(namesake.path)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"store_shares": (1,)},
         r"data\.store_shares must have one number for each of the 3 stores \(main, flat, third\)"),
        ({"store_weights": (1, 1)}, r"data\.store_weights must have one number .*got 2"),
        ({"store_shares": (1, 0, 1)}, r"data\.store_shares must be finite numbers > 0, got 1, 0"),
        ({"store_weights": (1, -1, 1)}, r"data\.store_weights must be finite numbers > 0"),
        ({"store_shares": (1, float("nan"), 1)}, r"data\.store_shares .*got 1, nan, 1"),
        ({"train_split": "test"}, r"store \S*flat has no records of split 'test'"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_the_stores_are_refused(stores, settings, message):
    with pytest.raises(ValueError, match=message):
        mix(stores, **settings)


def test_a_store_that_is_named_twice_is_refused(stores):
    again = open_store(stores[0].path)
    with pytest.raises(ValueError, match=r"store \S*main holds the very records of store \S*main"):
        mix([*stores, again])


def encoded(store, **changes):
    """Target and weight of all training records of a store, upright; weights as changed."""
    dataset = make_dataset(store, CONFIG, role="train")
    raw = dataset.raw_batch(np.arange(len(dataset)))
    raw = replace(raw, **{name: change(raw) for name, change in changes.items()})
    return augment.make_batch(
        raw, identity_parameters(len(raw)), skeleton=dataset.skeleton, input_size_px=32
    )


def test_depth_counts_only_where_the_depth_of_the_root_is_labelled(stores):
    def without_roots_depth(raw):
        weight = raw.weight.clone()
        weight[1, 0, 2] = 0
        return weight

    weight = encoded(stores[0], weight=without_roots_depth).weight
    assert not weight[1, :, 2].any()
    assert weight[1, :, :2].all()
    assert weight[0, 1:, 2].all()


def test_a_depth_without_label_may_be_anything_in_front_of_the_camera(stores):
    """A nominal plane far from the root would else cost labels in the image."""

    def far(raw):
        joints = raw.joints_camera_mm.clone()
        joints[:, 5] *= 3  # the same pixels, 10 m behind the root
        return joints

    flat, whole = (encoded(store, joints_camera_mm=far).weight for store in (stores[1], stores[0]))
    assert flat[:, 5, :2].all()
    assert not whole[:, 5].any()
