"""Facts of Human3.6M: sequences, names, protocols, counts."""

import numpy as np
import pytest

from data_prep.human36m import (
    PROTOCOLS,
    SHIFTED,
    UNUSABLE_VIDEO,
    action_name,
    action_number,
    expected_counts,
    find_sequence,
    has_moved,
    protocol_by_name,
    sequences,
)


@pytest.mark.parametrize(
    ("protocol", "shifted", "video", "expected"),
    [
        ("full", True, False, {"train": 1_559_752, "test": 548_819}),
        ("full", True, True, {"train": 1_559_752, "test": 550_644}),
        ("rle-2", False, False, {"train": 312_188, "test": 8_399}),
        ("posenet-2", True, False, {"train": 312_188, "test": 8_695}),
    ],
)
def test_counts_are_those_that_the_works_report(protocol, shifted, video, expected):
    found = expected_counts(PROTOCOLS[protocol], is_shifted_kept=shifted, has_unusable_video=video)
    assert found == expected


def test_protocol_1_tests_on_subject_11_alone():
    for name in ("rle-1", "posenet-1"):
        counts = expected_counts(PROTOCOLS[name], is_shifted_kept=True)
        assert counts["test"] == 3_683


def test_unique_poses_of_every_fifth_frame_are_those_of_learnable_triangulation():
    poses = sum(
        len(range(0, fact.num_poses, 5))
        for key, fact in sequences().items()
        if fact.subject in (9, 11) and key not in SHIFTED
    )
    assert poses == 26_634


def test_counts_that_depend_on_movement_are_not_guessed():
    assert expected_counts(PROTOCOLS["metro"], is_shifted_kept=True) is None


def test_every_subject_has_each_action_twice():
    keys = set(sequences())
    assert len(keys) == 210
    assert keys == {(s, a, t) for s in (1, 5, 6, 7, 8, 9, 11) for a in range(2, 17) for t in (1, 2)}


@pytest.mark.parametrize(
    ("subject", "name", "place"),
    [
        (1, "Eating 2", (4, 1)),
        (6, "Eating 2", (4, 2)),  # the same name, another take
        (5, "Discussion 2", (3, 1)),
        (11, "Phoning 3", (6, 1)),
        (9, "SittingDown 1", (10, 2)),
        (6, "SittingDown 1", (10, 1)),
        (1, "SittingDown", (10, 2)),
        (5, "Sitting", (9, 2)),
        (1, "TakingPhoto 1", (12, 1)),
        (1, "Photo 1", (12, 1)),  # as many layouts rename it
        (5, "TakingPhoto 2", (12, 2)),
        (1, "WalkDog", (15, 2)),
        (8, "WalkingDog 1", (15, 1)),
        (1, "Walking_1", (14, 1)),
        (8, "WalkTogether 2", (16, 2)),
        (8, "WalkingTogether 2", (16, 2)),
    ],
)
def test_a_name_means_another_take_with_another_subject(subject, name, place):
    fact = find_sequence(subject, name)
    assert (fact.subject, fact.action, fact.subaction) == (subject, *place)


@pytest.mark.parametrize(
    ("subject", "name", "message"),
    [
        (1, "Eating 1", "S1 has no sequence 'Eating 1'; expected one of Directions 1, Directions"),
        (1, "Walk", "S1 has no sequence 'Walk'"),
        (1, "_ALL", "S1 has no sequence '_ALL'"),
        (2, "Walking", "subject S2 is not one of S1, S5, S6, S7, S8, S9, S11"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(subject, name, message):
    with pytest.raises(ValueError, match="S") as caught:
        find_sequence(subject, name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_faults_have_the_names_that_papers_give_them():
    assert [sequences()[key].file_name for key in SHIFTED] == [
        "Greeting",
        "SittingDown 1",
        "Waiting 1",
    ]
    assert sequences()[UNUSABLE_VIDEO[:3]].file_name == "Directions"


def test_actions_are_numbered_from_two():
    assert (action_name(2), action_name(12), action_name(16)) == (
        "Directions",
        "Photo",
        "WalkTogether",
    )
    assert [action_number(action_name(number)) for number in range(2, 17)] == list(range(2, 17))
    assert action_number("WalkingDog") == 15
    for number in (1, 17):
        with pytest.raises(ValueError, match=f"action_idx {number} is unknown"):
            action_name(number)
    with pytest.raises(ValueError, match="action 'Dancing' is unknown"):
        action_number("Dancing")


def test_frames_are_kept_by_their_number_and_not_by_their_place():
    protocol = PROTOCOLS["rle-2"]
    frames = np.array([3, 5, 64, 65, 127, 128, 130])
    joints = np.zeros((7, 17, 3))
    train = protocol.choose(frames, joints, split="train")
    np.testing.assert_array_equal(frames[train], [5, 65, 130])
    test = protocol.choose(frames, joints, split="test")
    np.testing.assert_array_equal(frames[test], [64, 128])


def test_a_frame_is_kept_once_a_joint_has_moved_far_enough_from_the_last_one_kept():
    joints = np.zeros((8, 17, 3))
    joints[:, 4, 0] = [0, 30, 60, 99, 100, 150, 199, 205]  # slow steps count from the last kept
    np.testing.assert_array_equal(np.flatnonzero(has_moved(joints, limit_mm=100)), [0, 4, 7])
    np.testing.assert_array_equal(np.flatnonzero(has_moved(joints[:0], limit_mm=100)), [])


def test_movement_thins_out_training_frames_only_and_after_every_fifth():
    frames, joints = np.arange(130), np.zeros((130, 17, 3))
    joints[:, 0, 0] = 30.0 * frames  # 150 mm in five frames
    metro = PROTOCOLS["metro"]
    train = metro.choose(frames, joints, split="train")
    np.testing.assert_array_equal(frames[train], np.arange(0, 130, 5))
    still = metro.choose(frames, joints * 0, split="train")
    np.testing.assert_array_equal(frames[still], [0])
    np.testing.assert_array_equal(
        frames[metro.choose(frames, joints * 0, split="test")], [0, 64, 128]
    )


def test_subjects_are_parted_as_the_protocols_say():
    split = {s: PROTOCOLS["rle-2"].split_of(s) for s in (1, 2, 5, 6, 7, 8, 9, 11)}
    assert [s for s, name in split.items() if name == "train"] == [1, 5, 6, 7, 8]
    assert [s for s, name in split.items() if name == "test"] == [9, 11]
    assert split[2] is None
    assert PROTOCOLS["rle-1"].split_of(9) == "train"
    assert PROTOCOLS["hmr-2"].cameras == ("60457274",)
    with pytest.raises(ValueError, match="unknown protocol 'rle'; known: full, "):
        protocol_by_name("rle")
