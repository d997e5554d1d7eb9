"""How images are spread over subjects, actions, takes, cameras and time."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from data_prep.synthetic.slots import (
    Performance,
    model_performances,
    plan_sequences,
    views_of,
)
from data_prep.synthetic.subjects import SPLIT_SUBJECTS
from pose3d.data.store import HUMAN36M_ACTIONS
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES


def records_of(split, count):
    """Subject, action, take, camera and frame of every record where all frames fit."""
    return [
        (s.performance.subject, s.performance.action, s.performance.take, camera, frame)
        for s in plan_sequences(split, count, model_performances(split))
        for frame, camera in views_of(s, np.ones(s.num_frames, bool))
    ]


@pytest.mark.parametrize(("split", "count"), [("train", 601), ("test", 601), ("train", 30000)])
def test_records_are_balanced_and_no_two_are_the_same(split, count):
    records = records_of(split, count)
    assert len(records) == len(set(records)) == count
    values = (SPLIT_SUBJECTS[split], HUMAN36M_ACTIONS, (1, 2), HUMAN36M_CAMERA_NAMES)
    for place, expected in enumerate(values):
        counts = Counter(record[place] for record in records)
        assert set(counts) == set(expected)
        assert max(counts.values()) - min(counts.values()) <= 0.1 * count / len(expected) + 2


@pytest.mark.parametrize(("split", "count"), [("train", 7), ("train", 150), ("test", 600)])
def test_small_sets_show_each_instant_once(split, count):
    instants = [(*record[:3], record[4]) for record in records_of(split, count)]
    assert len(set(instants)) == count


@pytest.mark.parametrize(("split", "count"), [("train", 30000), ("test", 4080)])
def test_large_sets_show_each_instant_by_all_four_cameras(split, count):
    instants = Counter((*record[:3], record[4]) for record in records_of(split, count))
    assert set(instants.values()) == {4}


@pytest.mark.parametrize(("split", "step", "apart"), [("train", 5, 10), ("test", 64, 64)])
def test_frames_are_multiples_of_the_customary_step_and_evenly_apart(split, step, apart):
    for count in (600, 8000):
        for sequence in plan_sequences(split, count, model_performances(split))[::7]:
            views = views_of(sequence, np.ones(sequence.num_frames, bool))
            frames = sorted({frame for frame, _ in views})
            assert all(frame % step == 0 for frame in frames)
            gaps = [b - a for a, b in pairwise(frames)]
            assert not gaps or (min(gaps) >= apart and max(gaps) - min(gaps) <= step)


def test_numbers_of_records_follow_one_another():
    sequences = plan_sequences("test", 131, model_performances("test"))
    assert [s.first_record for s in sequences] == np.cumsum(
        [0] + [s.num_records for s in sequences[:-1]]
    ).tolist()
    assert sum(s.num_records for s in sequences) == 131


def test_frames_in_which_the_person_leaves_an_image_are_left_out():
    sequence = plan_sequences("train", 150 * 20, model_performances("train"))[3]
    fits = np.ones(sequence.num_frames, bool)
    fits[: len(fits) // 2] = False
    assert min(frame for frame, _ in views_of(sequence, fits)) >= len(fits) // 2


def test_clips_get_images_by_their_length_and_too_short_ones_are_refused():
    clips = [
        Performance(subject=1, action="jump", take=i, num_frames=n)
        for i, n in enumerate((100, 400, 200))
    ]
    sequences = plan_sequences("train", 70, clips)
    assert [s.num_records for s in sequences] == [10, 40, 20]
    assert [s.num_frames for s in sequences] == [100, 400, 200]
    views = views_of(sequences[0], np.ones(100, bool))
    assert len({frame for frame, _ in views}) == 10
    crowded = plan_sequences("train", 2900, clips)
    with pytest.raises(ValueError, match="a take of 100 frames cannot show 104 instants"):
        views_of(crowded[0], np.ones(100, bool))
    with pytest.raises(ValueError, match="no motion for the split test; give more clips"):
        plan_sequences("test", 1, [])
