"""Crops show what their maps say, and labels stay on what they name."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from data_prep.crops import Place, check_size, crop_map, cut_crop, make_record
from data_prep.lookalike.world import direct_take, make_world, world_points
from data_prep.people import people_of
from pose3d.data.store import StoreHeader

HEADER = StoreHeader(
    skeleton="human36m_17",
    source="test",
    box_definition="test",
    crop_size_px=200,
    margin=1.5,
    jpeg_quality=95,
)
PLACE = Place(subject=1, action="Walking", subaction=1, split="train")


@pytest.fixture(scope="module")
def world():
    """One person before one camera."""
    return make_world(
        subjects=(1,),
        actions=(14,),
        subactions=(1,),
        num_poses=4,
        camera_names=("54138969",),
    )


@pytest.fixture(scope="module")
def take(world):
    """What the camera saw."""
    return direct_take(world, world.performances[0], "54138969")


def test_a_dot_drawn_at_a_joint_is_found_where_the_record_puts_the_joint(world, take):
    people = people_of(take, box="joints", enlarge=1.0)
    for row in range(len(take)):
        dots = world_points(world.performances[0], "54138969", row)
        image = np.zeros((1002, 1000, 3), np.uint8)
        place = (dots[10] * 16).round().astype(int).tolist()
        cv2.circle(image, place, 6 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
        record = make_record(people, row, image, place=PLACE, header=HEADER)
        crop = cv2.imdecode(np.frombuffer(record.image_jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
        y, x = np.nonzero(crop > 60)
        found = np.average(np.stack([x, y], 1), axis=0, weights=crop[y, x])
        expected = (record.store_from_image @ [*dots[10], 1])[:2]
        np.testing.assert_allclose(found, expected, atol=0.3)
        assert (record.frame, record.split, record.image_size_px) == (row, "train", (1000, 1002))


def test_the_crop_shows_margin_times_the_square(take):
    people = people_of(take, box="joints", enlarge=1.0)
    centre_x, centre_y, side = people.square_box_px[0]
    matrix = crop_map(people, 0, header=HEADER).numpy()
    for sign in (-1, 1):
        edge = [centre_x + sign * side * 1.5 / 2, centre_y, 1]
        np.testing.assert_allclose((matrix @ edge)[0], 99.5 + sign * 100, atol=1e-9)


def test_an_image_of_another_size_is_refused(take):
    people = people_of(take, box="joints", enlarge=1.0)
    image = np.zeros((1000, 1000, 3), np.uint8)  # cropped, as some layouts have it
    with pytest.raises(ValueError, match=r"has 1000×1000 px, its annotation states 1000×1002 px"):
        make_record(people, 0, image, place=PLACE, header=HEADER)
    check_size(image, image_size_px=(1000, 1000), name="a.jpg")


def test_a_box_beside_its_joints_is_refused(take):
    boxes = np.tile([10.0, 10, 40, 80], (len(take), 1))
    people = people_of(replace(take, box_xywh_px=boxes), box="annotation", enlarge=1.0)
    image = np.zeros((1002, 1000, 3), np.uint8)
    with pytest.raises(ValueError, match=r"only 0% of the joints fall into the crop of box centre"):
        make_record(people, 0, image, place=PLACE, header=HEADER)


def test_people_beside_their_image_are_refused(take):
    beside = replace(take, joints_camera_mm=np.add(take.joints_camera_mm, [4000.0, 0, 0]))
    people = people_of(beside, box="joints", enlarge=1.0)
    image = np.zeros((1002, 1000, 3), np.uint8)
    with pytest.raises(ValueError, match=r"none of the labelled joints falls into the image"):
        make_record(people, 0, image, place=PLACE, header=HEADER)
    half = replace(take, joints_camera_mm=np.add(take.joints_camera_mm, [2100.0, 0, 0]))
    make_record(people_of(half, box="joints", enlarge=1.0), 0, image, place=PLACE, header=HEADER)


def test_shrinking_does_not_alias():
    stripes = np.zeros((480, 480, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than the crop can show: it must come out grey
    store_from_image = np.array([[0.37, 0, 0.3], [0, 0.37, 0.3], [0, 0, 1.0]])
    crop = cut_crop(stripes, store_from_image, crop_size_px=170)
    assert np.abs(crop[8:-8, 8:-8].astype(float) - 127.5).max() < 35


def test_what_lies_outside_the_image_is_black():
    white = np.full((50, 50, 3), 255, np.uint8)
    crop = cut_crop(white, np.array([[1.0, 0, 25], [0, 1, 25], [0, 0, 1]]), crop_size_px=100)
    assert crop[:20].max() == 0
    assert crop[30:70, 30:70].min() == 255
