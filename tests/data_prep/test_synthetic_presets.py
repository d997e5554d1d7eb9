"""The benchmark set, pinned at small size, and sets from motion capture."""

import hashlib

import cv2
import numpy as np
import pytest

from data_prep.synthetic import performances
from data_prep.synthetic.body import Body, load_body_model
from data_prep.synthetic.generate import generate_synthetic
from data_prep.synthetic.mocap_clips import Clip, Clips
from data_prep.synthetic.motion_model import draw_motion
from data_prep.synthetic.performances import PERFORMERS, ClipMotions
from data_prep.synthetic.presets import PRESETS, Settings, generate_preset, settings_of
from data_prep.synthetic.slots import model_performances, plan_sequences
from data_prep.verify import check_records
from pose3d.data.store import open_store

SHARE = 1 / 3000
PINNED_LABELS = "66cbf44f0d8c81502ea58e04c09b8cb63aa56440dc9240342b1f0afd7c1eeb55"
PINNED_IMAGES = "c3bab7365f26f1e008cf266cc5416a9646c1691bc8841f984f98bb9f0a4034e0"
PINNED_OPENCV = "5.0.0"
PIN_AGAIN = (
    "if the change is meant, raise GENERATOR_VERSION in data_prep/synthetic/generate.py, and "
    "write this digest into the test"
)


@pytest.fixture(scope="module")
def small_benchmark(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "store"
    options = {"renderer": "numpy", "num_workers": 1, "progress": False}
    generate_preset(path, "benchmark", share=SHARE, **options)
    return open_store(path)


def test_labels_of_the_benchmark_are_the_pinned_ones(small_benchmark):
    """Rounded, so that another processor's last bits do not count."""
    records = small_benchmark.records
    digest = hashlib.sha256()
    for values, digits in (
        (records.joints_camera_mm, 1),
        (records.box_image_px, 1),
        (records.store_from_image, 3),
    ):
        rounded = np.round(values.astype(np.float64), digits) + 0.0  # no negative zero
        digest.update(rounded.astype("<f4").tobytes())
    for values in (records.visibility, records.subject, records.subaction, records.frame):
        digest.update(values.astype("<i8").tobytes())
    digest.update("\n".join([*records.action, *records.camera_name]).encode())
    found = digest.hexdigest()
    assert found == PINNED_LABELS, f"the labels have changed, digest {found}; {PIN_AGAIN}"


@pytest.mark.skipif(
    cv2.__version__ != PINNED_OPENCV,
    reason=f"JPEG files are pinned for OpenCV {PINNED_OPENCV}, this is {cv2.__version__}",
)
def test_images_of_the_benchmark_are_the_pinned_ones(small_benchmark):
    digest = hashlib.sha256()
    for index in range(len(small_benchmark)):
        digest.update(small_benchmark.image_bytes(index))
    found = digest.hexdigest()
    assert found == PINNED_IMAGES, f"the images have changed, digest {found}; {PIN_AGAIN}"


def test_the_benchmark_has_30000_and_4080_images_each_instant_by_four_cameras():
    settings = PRESETS["benchmark"]
    train = plan_sequences("train", settings.num_train, model_performances("train"))
    test = plan_sequences("test", settings.num_test, model_performances("test"))
    assert sum(s.num_records for s in train) == 30000
    assert sum(s.num_records for s in test) == 4080
    assert {s.num_records for s in train} == {200}
    assert {s.num_records for s in test} == {68}
    assert all(s.shows_all_cameras for s in (*train, *test))
    people = [{s.performance.subject for s in split} for split in (train, test)]
    assert people == [{1, 5, 6, 7, 8}, {9, 11}]


def test_a_preset_fixes_its_numbers():
    assert settings_of("benchmark") == PRESETS["benchmark"]
    assert settings_of(None, num_train=3, seed=None) == Settings(num_train=3)
    with pytest.raises(ValueError, match=r"preset benchmark fixes .*; leave out num_test, seed"):
        settings_of("benchmark", num_train=None, num_test=5, seed=1)
    with pytest.raises(ValueError, match="unknown preset 'bench', known: benchmark"):
        settings_of("bench")


@pytest.fixture(scope="module")
def clips():
    """Ten short recordings of two people: what the motion model does, as mere joints."""
    body = Body(load_body_model(), gender=0.2)
    made = []
    for number in range(10):
        action = ("Walking", "Greeting")[number % 2]
        rng = np.random.default_rng(number)
        motion = draw_motion(body, action, 1, rng=rng, num_frames=80)
        made.append(
            Clip(
                joints_mm=body.joints_mm(body.pose_frames(motion.local, motion.root_mm)),
                frames_per_s=50.0,
                name=f"recording {number}",
                action=("walk", "hello")[number % 2],
                subject=f"actor {number % 3}",
                rig="body",
                recording=f"recording {number}",
            )
        )
    return Clips(made)


@pytest.fixture
def clip_motions(clips, monkeypatch, tmp_path):
    monkeypatch.setattr(performances, "load_clips", lambda path: clips)
    return ClipMotions(tmp_path / "clips.npz", seed=0)


def test_neither_subjects_nor_clips_are_in_both_splits(clip_motions):
    body = Body(load_body_model())
    sources = {}
    for split in ("train", "test"):
        found = [
            clip_motions.motion(
                body, p.subject, p.action, p.take, rng=np.random.default_rng(0), num_frames=1
            )
            for p in clip_motions.performances(split)
        ]
        sources[split] = [motion.source for motion in found]
        assert [m.num_frames for m in found] == [
            p.num_frames for p in clip_motions.performances(split)
        ]
        assert all(sources[split].count(s) == PERFORMERS for s in sources[split])
    assert not set(sources["train"]) & set(sources["test"])
    assert len({*sources["train"], *sources["test"]}) == 10
    subjects = [{p.subject for p in clip_motions.performances(s)} for s in ("train", "test")]
    assert subjects[0] <= {1, 5, 6, 7, 8}
    assert subjects[1] <= {9, 11}
    with pytest.raises(ValueError, match="subject 1 has no clip of action 'fly', take 1"):
        clip_motions.motion(body, 1, "fly", 1, rng=np.random.default_rng(0), num_frames=1)


def test_a_lone_recording_serves_a_set_of_one_split(clips, monkeypatch, tmp_path):
    monkeypatch.setattr(performances, "load_clips", lambda path: Clips([clips["recording 0"]]))
    with pytest.raises(ValueError, match="one recording cannot be divided"):
        ClipMotions(tmp_path / "clip.bvh", seed=0)
    for split, subjects in (("train", {1, 5, 6, 7, 8}), ("test", {9, 11})):
        motions = ClipMotions(tmp_path / "clip.bvh", seed=0, split=split)
        other = {"train": "test", "test": "train"}[split]
        assert motions.performances(other) == []
        assert {p.subject for p in motions.performances(split)} <= subjects
        assert len(motions.performances(split)) == PERFORMERS
    assert Settings(num_train=3, num_test=0).only_split == "train"
    assert Settings(num_train=0, num_test=2).only_split == "test"
    assert Settings().only_split is None


def test_a_store_from_clips_has_their_actions_and_says_how_well_they_fit(clip_motions, tmp_path):
    options = {"renderer": "numpy", "num_workers": 1, "progress": False, "crop_size_px": 64}
    path = tmp_path / "store"
    generate_synthetic(path, num_train=4, num_test=2, motions=clip_motions, **options)
    store = open_store(path)
    assert check_records(store) == []
    assert set(store.records.action) <= {"walk", "hello"}
    error = clip_motions.report.mean_mm.mean()
    assert 0 < error < 25
    assert f"joint error after retargeting {error:.1f} mm" in store.header.source
    assert "clips.npz" in store.header.source
