"""Images come in order, each at its own number, and a damaged one says what it is."""

import sys

import cv2
import numpy as np
import pytest

from data_prep.lookalike.video import write_video
from data_prep.pictures import (
    ImageFiles,
    VideoFrames,
    header_problems,
    open_video,
    read_image,
    video_facts,
)

SIZE = (96, 64)
NUM_FRAMES = 30


def picture(number):
    """A grey picture whose grey is its number's."""
    return np.full((SIZE[1], SIZE[0], 3), 20 + 7 * number, np.uint8)


def number_of(image):
    return (image.astype(float).mean() - 20) / 7


@pytest.fixture
def files(tmp_path):
    """Five images."""
    names = tuple(f"s/{number}.jpg" for number in range(5))
    (tmp_path / "s").mkdir()
    for number, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), picture(number))
    return ImageFiles(folder=tmp_path, names=names)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A video of 30 frames."""
    pytest.importorskip("av")
    path = tmp_path_factory.mktemp("video") / "Walking 1.mp4"
    write_video(path, (picture(number) for number in range(NUM_FRAMES)), size_px=SIZE)
    return path


def frames_of(path, positions):
    return VideoFrames(folder=path.parent, name=path.name, position=np.array(positions))


def one_line(error):
    assert isinstance(error, ValueError)
    assert "\n" not in str(error)
    return str(error)


def test_files_come_in_the_order_asked_for(files):
    chosen = files.chosen(np.array([3, 0, 4]))
    assert chosen.names == ("s/3.jpg", "s/0.jpg", "s/4.jpg")
    found = [number_of(image) for image in chosen.frames()]
    np.testing.assert_allclose(found, [3, 0, 4], atol=0.2)


def test_a_missing_file_is_told_before_decoding_and_when_decoding(files):
    (files.folder / "s/2.jpg").unlink()
    assert files.missing() == {2: f"image {files.folder}/s/2.jpg is missing"}
    images = list(files.frames())
    assert one_line(images[2]) == (
        f"image {files.folder}/s/2.jpg cannot be read: No such file or directory"
    )
    np.testing.assert_allclose(number_of(images[3]), 3, atol=0.2)  # the rest goes on


@pytest.mark.parametrize("keep", [0, 3, 300, -2])
def test_a_truncated_jpeg_is_refused_and_not_filled_with_grey(files, keep):
    path = files.folder / "s/1.jpg"
    path.write_bytes(path.read_bytes()[:keep])
    error = one_line(list(files.frames())[1])
    assert str(path) in error
    assert error.endswith("fetch it again")


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_text_is_no_image(tmp_path, name):
    (tmp_path / name).write_text("<html>404</html>")
    with pytest.raises(ValueError, match=rf"image .*{name} (is bad: not a JPEG|cannot be decoded)"):
        read_image(tmp_path / name)


def test_frames_of_a_video_are_found_at_their_numbers(video):
    frames = frames_of(video, [0, 4, 5, 29])
    assert frames.names[1] == "Walking 1.mp4#4"
    assert frames.names is frames.names, "every record of a long video asks for its own"
    found = [number_of(image) for image in frames.frames()]
    np.testing.assert_allclose(found, [0, 4, 5, 29], atol=0.4)
    later = frames.chosen(np.array([1, 3]))
    assert later.names == ("Walking 1.mp4#4", "Walking 1.mp4#29")
    np.testing.assert_allclose([number_of(i) for i in later.frames()], [4, 29], atol=0.4)


def test_a_video_header_states_size_rate_and_length(video):
    facts = video_facts(video)
    assert (facts.num_frames, facts.size_px, float(facts.frames_per_s)) == (30, SIZE, 50.0)


def test_a_missing_video_makes_all_its_frames_missing(tmp_path):
    frames = frames_of(tmp_path / "a.mp4", [0, 7])
    assert frames.missing() == dict.fromkeys((0, 1), f"video {tmp_path}/a.mp4 is missing")
    assert "cannot be opened (No such file" in one_line(next(iter(frames.frames())))


def test_a_video_that_is_too_short_gives_what_it_has(video):
    images = list(frames_of(video, [28, 30, 31]).frames())
    np.testing.assert_allclose(number_of(images[0]), 28, atol=0.4)
    assert len(images) == 3
    for error, number in zip(images[1:], (30, 31), strict=True):
        text = f"video {video} ends before its frame {number}; fetch it again"
        assert one_line(error) == text


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "text"])
def test_a_damaged_video_gives_an_error_for_every_frame(video, tmp_path, damage):
    content = {
        "truncated": video.read_bytes()[: video.stat().st_size // 2],
        "garbage": np.random.default_rng(0).bytes(5000),
        "empty": b"",
        "text": b"<html>404</html>",
    }[damage]
    (tmp_path / "a.mp4").write_bytes(content)
    images = list(frames_of(tmp_path / "a.mp4", [0, 7, 29]).frames())
    assert len(images) == 3
    for error in images:
        assert str(tmp_path / "a.mp4") in one_line(error)
        assert one_line(error).endswith("fetch it again")


def test_damage_within_a_video_ends_in_errors_and_never_in_other_pictures(video, tmp_path):
    content = bytearray(video.read_bytes())
    start = content.find(b"mdat") + 4
    middle = start + (content.find(b"moov") - start) * 2 // 3
    content[middle : middle + 400] = bytes(400)
    (tmp_path / "a.mp4").write_bytes(content)
    images = list(frames_of(tmp_path / "a.mp4", range(NUM_FRAMES)).frames())
    assert len(images) == NUM_FRAMES
    num_shown = 0
    for number, image in enumerate(images):
        if not isinstance(image, ValueError):
            np.testing.assert_allclose(number_of(image), number, atol=0.4)
            num_shown += 1
    assert 10 <= num_shown < NUM_FRAMES


def test_a_sound_file_that_holds_no_video_is_refused(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(ValueError, match=r"a\.wav holds no video; fetch it again"):
        open_video(tmp_path / "a.wav")


def test_without_pyav_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"needs PyAV; install it with pip install 'pose3d\["):
        open_video(tmp_path / "a.mp4")


def test_a_header_shows_a_video_that_is_short_or_of_another_size(video, files):
    size = np.tile(SIZE, (3, 1))
    assert header_problems(frames_of(video, [0, 5, 29]), size) == []
    (short,) = header_problems(frames_of(video, [0, 5, 30]), size)
    assert "has 30 frames, but its labels go on to frame 30 (from 0)" in short
    (other,) = header_problems(frames_of(video, [0, 5, 29]), size + np.array([0, 2]))
    assert "has 96×64 px, its labels were made for 96×66 px" in other
    assert header_problems(files, size) == []
