"""What is there is held against the release, sequence by sequence."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep.bones import facing_votes, swapped_sides
from data_prep.human36m import PROTOCOLS, SUBJECTS, action_name, sequences
from data_prep.inventory import (
    absent,
    holding_of,
    is_like_human36m,
    lengths_against_release,
    shifted_notes,
)
from data_prep.tally import ERROR_EDGES_PX, LENGTH_EDGES_MM, Tally
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES
from pose3d.geometry.skeleton import HUMAN36M_17

FULL = PROTOCOLS["full"]


def release(*, step=1, subjects=SUBJECTS):
    """All of Human3.6M, less the one video that is not usable."""
    return [
        holding_of(
            (fact.subject, action_name(fact.action), fact.subaction),
            camera,
            np.arange(0, fact.num_poses, step),
        )
        for fact in sequences().values()
        if fact.subject in subjects
        for camera in HUMAN36M_CAMERA_NAMES
        if (fact.subject, fact.action, fact.subaction, camera) != (11, 2, 2, "54138969")
    ]


@pytest.mark.parametrize("step", [1, 5, 64])
def test_all_of_human36m_is_whole(step):
    holdings = release(step=step)
    assert is_like_human36m(holdings)
    gaps, lengths = (
        absent(holdings, FULL, is_shifted_kept=True),
        lengths_against_release(holdings),
    )
    assert (gaps.odd, gaps.notes, lengths.odd) == ((), (), ())
    every = "all frames" if step == 1 else f"one frame in {step}, none missing"
    assert lengths.notes == (f"839 of 839 sequences of a camera have {every}, as in the release",)


def test_a_missing_sequence_and_a_missing_camera_are_named():
    holdings = [
        holding
        for holding in release()
        if holding.key != (1, "Eating", 1)
        and (holding.key, holding.camera) != ((5, "Photo", 2), "58860488")
    ]
    odd = absent(holdings, FULL, is_shifted_kept=True).odd
    assert odd == (
        "S1 Eating, take 1 (files 'Eating 2') is not there",
        "S5 Photo, take 2 (files 'Photo 2') lacks camera 58860488",
    )


def test_what_a_protocol_leaves_out_is_not_missed():
    blocked = {(9, "Greeting", 2), (9, "SittingDown", 2), (9, "Waiting", 1)}
    holdings = [holding for holding in release() if holding.key not in blocked]
    assert len(absent(holdings, FULL, is_shifted_kept=True).odd) == 3
    assert absent(holdings, FULL, is_shifted_kept=False).odd == ()
    frontal = [holding for holding in release() if holding.camera == "60457274"]
    found = absent(frontal, PROTOCOLS["hmr-2"], is_shifted_kept=True)
    assert (found.odd, found.notes) == ((), ())


def test_a_part_of_the_release_is_described_and_not_counted_as_faults():
    holdings = [holding for holding in release(subjects=(1,)) if holding.subaction == 1][:20]
    found = absent(holdings, FULL, is_shifted_kept=True)
    assert found.odd == ()
    assert found.notes == (
        "there is nothing of S5, S6, S7, S8, S9, S11",
        "of S1's 30 sequences 5 are there",
    )


def test_a_sequence_of_another_length_is_named_with_both_numbers():
    holdings = release(step=5)
    place = next(i for i, h in enumerate(holdings) if h.key == (6, "Posing", 2))
    for i in range(place, place + 4):
        holdings[i] = replace(holdings[i], count=holdings[i].count - 3)
    (line,) = lengths_against_release(holdings).odd
    assert line == (  # 1161 poses: 233 with every fifth
        "S6 Posing, take 2 (files 'Posing'): has 230 frames, 3 fewer than the 233 of the release "
        "(one in 5 of 1161 poses) (camera 54138969, 55011271, 58860488, 60457274)"
    )


def test_frames_beyond_the_end_of_the_release_are_told():
    holdings = release()
    place = next(i for i, h in enumerate(holdings) if h.key == (9, "Waiting", 1))
    holdings[place] = replace(holdings[place], count=3390, last=3389)  # the video's length
    (line,) = lengths_against_release(holdings).odd
    assert "has a frame number 3389, the release ends at 1611" in line


def test_frames_chosen_by_another_rule_are_one_sentence():
    rng = np.random.default_rng(0)
    holdings = [
        holding_of(h.key, h.camera, np.sort(rng.permutation(h.last + 1)[:300])) for h in release()
    ]
    found = lengths_against_release(holdings)
    assert found.odd == ()
    assert len(found.notes) == 1
    assert found.notes[0].startswith("839 of 839 sequences of a camera have other lengths")


def test_shifted_sequences_are_reported_by_name():
    lines = shifted_notes(release(), is_corrected=False)
    assert [line.partition(":")[0] for line in lines] == [
        "S9 Greeting, take 2 (files 'Greeting')",
        "S9 SittingDown, take 2 (files 'SittingDown 1')",
        "S9 Waiting, take 1 (files 'Waiting 1')",
    ]
    assert all("they are kept so" in line for line in lines)
    assert "this is taken off" in shifted_notes(release(), is_corrected=True)[0]
    assert shifted_notes(release(subjects=(1, 11)), is_corrected=False) == []


def test_another_set_is_not_taken_for_human36m():
    holdings = release(subjects=(1,))
    assert not is_like_human36m([*holdings, replace(holdings[0], camera="ca_01")])
    assert not is_like_human36m([*holdings, replace(holdings[0], subject=2)])
    assert not is_like_human36m([*holdings, replace(holdings[0], action="Jumping")])
    assert not is_like_human36m([])


def test_a_tally_has_the_quantiles_of_all_values_whatever_parts_they_come_in():
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(400, 20, 5000), rng.gamma(2, 30, 5000)], axis=1)
    values[::7, 0] = np.nan
    whole = Tally.empty(LENGTH_EDGES_MM, 2).add(values)
    parts = Tally.empty(LENGTH_EDGES_MM, 2)
    for part in np.array_split(values, 13):
        parts.merge(Tally.empty(LENGTH_EDGES_MM, 2).add(part))
    for share in (0.025, 0.5, 0.95):
        expected = np.nanquantile(values, share, axis=0)
        np.testing.assert_allclose(whole.quantile(share), expected, atol=0.6)
        np.testing.assert_array_equal(whole.quantile(share), parts.quantile(share))
    np.testing.assert_array_equal(whole.largest, np.nanmax(values, axis=0))
    np.testing.assert_array_equal(whole.number, np.isfinite(values).sum(0))


def test_a_tally_of_one_value_has_no_spread_and_one_of_none_has_no_quantile():
    constant = Tally.empty(ERROR_EDGES_PX, 1).add(np.full((9, 1), 0.25))
    assert constant.spread() == 0
    assert constant.quantile(0.5) == pytest.approx(0.25, rel=0.04)
    empty = Tally.empty(ERROR_EDGES_PX, 1)
    assert np.isnan(empty.quantile(0.5)).all()
    assert np.isnan(empty.largest).all()
    beyond = Tally.empty(ERROR_EDGES_PX, 1).add(np.array([[0.0], [1e6]]))
    assert beyond.number == 2
    assert beyond.largest == 1e6


def kneeling(*, lie=False):
    """One person facing the camera (towards -z, x right, y down), knees bent by 60 degrees."""
    joints = np.zeros((17, 3))
    index = HUMAN36M_17.index
    for side, x in (("R", -1.0), ("L", 1.0)):  # the right side is left in the image
        joints[index(f"{side}_Hip")] = [130 * x, 0, 0]
        joints[index(f"{side}_Knee")] = [130 * x, 400, -200]
        joints[index(f"{side}_Ankle")] = [130 * x, 700, 200]
        joints[index(f"{side}_Shoulder")] = [160 * x, -480, 0]
    joints[index("Neck")] = [0, -500, 0]
    joints[index("Nose")] = [0, -600, -80]
    joints[index("Head")] = [0, -700, 0]
    if lie:
        joints = joints[:, [1, 0, 2]] * [1, -1, 1]  # turned by 90 degrees in the image
    return np.add(joints, [0.0, 0.0, 4000.0])


@pytest.mark.parametrize("lie", [False, True])
def test_sides_are_told_of_a_person_however_it_lies(lie):
    person = np.repeat(kneeling(lie=lie)[None], 12, axis=0)
    everything = np.ones((12, 17), bool)
    votes = facing_votes(person, everything, HUMAN36M_17)
    np.testing.assert_array_equal(votes, [[24, 0], [12, 0], [12, 0]])
    assert swapped_sides(votes) is None
    mirrored = facing_votes(person * [1, 1, -1], everything, HUMAN36M_17)
    np.testing.assert_array_equal(mirrored, [[0, 24], [0, 12], [12, 0]])
    assert "left and right are swapped, or the space is mirrored" in swapped_sides(mirrored)


def test_straight_knees_and_unknown_depths_have_no_vote():
    person = np.repeat(kneeling()[None], 12, axis=0)
    straight = person.copy()
    straight[:, [2, 5], 2] = 4000 + 200 * 400 / 700  # knees on the line from hip to ankle
    votes = facing_votes(straight, np.ones((12, 17), bool), HUMAN36M_17)
    assert votes[0].sum() == 0
    unknown = facing_votes(person, np.zeros((12, 17), bool), HUMAN36M_17)
    assert unknown.sum() == 0
    assert swapped_sides(unknown) is None


def test_few_or_divided_votes_decide_nothing():
    assert swapped_sides(np.array([[0, 9], [0, 9], [9, 0]])) is None
    assert swapped_sides(np.array([[50, 50], [50, 50], [99, 1]])) is None
