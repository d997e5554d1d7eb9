"""Full images of a take: image files, or frames of a video; decoded one after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from jaxtyping import Int, Shaped, UInt8

from pose3d.data.store import check_jpeg

Image = UInt8[np.ndarray, "height width 3"]


class Pictures(Protocol):
    """The full images of a take, in order; small enough to be sent to another process."""

    def __len__(self) -> int: ...

    @property
    def names(self) -> Sequence[str]:
        """The source file of each image, relative to the source."""
        ...

    def chosen(self, rows: Int[np.ndarray, " k"]) -> "Pictures":
        """The images of these positions."""
        ...

    def missing(self) -> dict[int, str]:
        """Why an image cannot be had, by position, as far as can be told without decoding."""
        ...

    def frames(self) -> Iterator[Image | ValueError]:
        """Every image in order, BGR as OpenCV has it, or what is wrong with it."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFiles:
    """One file per image.

    Attributes:
        folder: What the names are relative to.
        names: The files, e.g. "S1/Images/Directions 1.54138969/frame_000000.jpg".
    """

    folder: Path
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def chosen(self, rows: Int[np.ndarray, " k"]) -> "ImageFiles":
        """The images of these positions."""
        return replace(self, names=tuple(self.names[row] for row in rows))

    def missing(self) -> dict[int, str]:
        """Files that are not there."""
        return {
            row: f"image {self.folder / name} is missing"
            for row, name in enumerate(self.names)
            if not (self.folder / name).is_file()
        }

    def frames(self) -> Iterator[Image | ValueError]:
        """Decode file after file."""
        for name in self.names:
            try:
                yield read_image(self.folder / name)
            except ValueError as error:
                yield error


def read_image(path: Path) -> Image:
    """Decode an image file, BGR.

    Raises:
        ValueError: If the file is missing, truncated or no image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"image {path} cannot be read: {error.strerror}") from error
    try:
        if path.suffix.lower() in (".jpg", ".jpeg"):
            check_jpeg(data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except (ValueError, cv2.error) as error:
        raise ValueError(f"image {path} is bad: {error}; fetch it again") from error
    if image is None:
        raise ValueError(f"image {path} cannot be decoded; fetch it again")
    return image


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoFrames:
    """Frames of one video file, decoded from its start to the last frame that is asked for.

    Attributes:
        folder: What the name is relative to.
        name: The file.
        position: Number of each frame in the video, from 0, ascending.
    """

    folder: Path
    name: str
    position: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.position)

    @cached_property
    def names(self) -> Sequence[str]:
        """The file and the frame's number from 0, e.g. "S1/Videos/Directions 1.54138969.mp4#7"."""
        return tuple(f"{self.name}#{position}" for position in self.position)

    def chosen(self, rows: Int[np.ndarray, " k"]) -> "VideoFrames":
        """The frames of these positions."""
        return replace(self, position=self.position[rows])

    def missing(self) -> dict[int, str]:
        """All frames, if the file is not there."""
        path = self.folder / self.name
        if path.is_file():
            return {}
        return dict.fromkeys(range(len(self)), f"video {path} is missing")

    def frames(self) -> Iterator[Image | ValueError]:
        """Decode the video; after a place that cannot be decoded every frame is an error."""
        path = self.folder / self.name
        row, frame = 0, None
        for number, frame in enumerate(decode_video(path)):
            if isinstance(frame, ValueError):
                break
            while row < len(self) and self.position[row] == number:
                yield video_image(frame)
                row += 1
            if row == len(self):
                break
        for position in self.position[row:]:
            short = f"video {path} ends before its frame {position}; fetch it again"
            yield frame if isinstance(frame, ValueError) else ValueError(short)


def open_video(path: Path) -> Any:
    """Open a video with PyAV.

    Raises:
        ValueError: If PyAV is missing, or the file is or holds no video.
    """
    try:
        import av
    except ImportError as error:
        raise ValueError(
            "reading videos needs PyAV; install it with pip install 'pose3d[human36m]'"
        ) from error
    try:
        container = av.open(str(path))
    except (OSError, ValueError) as error:  # PyAV's errors are both kinds
        raise ValueError(
            f"video {path} cannot be opened ({_reason(error)}); fetch it again"
        ) from error
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path} holds no video; fetch it again")
    return container


def decode_video(path: Path) -> Iterator[Any]:
    """Every frame of a video as PyAV has it, and an error in the place of the first bad one.

    A decoder makes up what damaged bytes do not tell and says so: such a frame is bad, and so are
    those after it, which are made from it.
    """
    try:
        container = open_video(path)
    except ValueError as error:
        yield error
        return
    with container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"  # takes are converted side by side, one process each
        frames = container.decode(stream)
        number = 0
        while True:
            try:
                frame = next(frames)
            except StopIteration:
                return
            except (OSError, ValueError) as error:
                yield ValueError(
                    f"video {path} is damaged at frame {number} ({_reason(error)}); fetch it again"
                )
                return
            if frame.is_corrupt:
                yield ValueError(f"video {path} is damaged at frame {number}; fetch it again")
                return
            yield frame
            number += 1


_BT_601 = (2, 5, 6)
"""FFmpeg's numbers of colour spaces with BT.601's matrix; 2 where the file does not say."""
_LIMITED_RANGE = (0, 1)
"""FFmpeg's numbers of the range 16 to 235; 0 where the file does not say."""


def video_image(frame: Any) -> Image:
    """A frame as PyAV has it, as BGR; costs about as much as decoding it.

    OpenCV's conversion is exact to rounding and takes half the time of FFmpeg's, which darkens
    images by 1.5 grey levels.
    """
    is_usual = (
        frame.format.name == "yuv420p"
        and int(frame.colorspace) in _BT_601
        and int(frame.color_range) in _LIMITED_RANGE
        and frame.width % 2 == frame.height % 2 == 0
    )
    if is_usual:
        return cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2BGR_I420)
    return frame.to_ndarray(format="bgr24")


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFacts:
    """What a video's header states.

    Attributes:
        num_frames: Frames; 0 where the header does not say.
        frames_per_s: Rate.
        size_px: Width and height, pixels.
    """

    num_frames: int
    frames_per_s: Fraction
    size_px: tuple[int, int]


def video_facts(path: Path) -> VideoFacts:
    """Read a video's header.

    Raises:
        ValueError: If the file cannot be opened or holds no video.
    """
    with open_video(path) as container:
        stream = container.streams.video[0]
        return VideoFacts(
            num_frames=int(stream.frames),
            frames_per_s=Fraction(stream.average_rate or 0),
            size_px=(int(stream.width), int(stream.height)),
        )


def header_problems(pictures: Pictures, image_size_px: Int[np.ndarray, "n 2"]) -> list[str]:
    """What a video's header shows to be wrong without decoding; nothing for image files.

    Args:
        pictures: The full images of a take.
        image_size_px: Width and height that the labels were made for.
    """
    if not isinstance(pictures, VideoFrames) or not len(pictures) or pictures.missing():
        return []
    path = pictures.folder / pictures.name
    try:
        facts = video_facts(path)
    except ValueError as error:
        return [str(error)]
    problems = []
    last = int(pictures.position[-1])
    if 0 < facts.num_frames <= last:
        problems.append(
            f"video {path} has {facts.num_frames} frames, but its labels go on to frame {last} "
            "(from 0); fetch it again"
        )
    width, height = image_size_px[0].tolist()
    if facts.size_px != (width, height):
        problems.append(
            f"video {path} has {facts.size_px[0]}×{facts.size_px[1]} px, its labels were made for "
            f"{width}×{height} px; both must be of one release"
        )
    return problems


def _reason(error: BaseException) -> str:
    """What a library says, in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())


@dataclass(frozen=True, kw_only=True, eq=False)
class ImagesInMemory:
    """Images that are at hand; for synthetic takes and tests.

    Attributes:
        images: BGR.
        names: What the source file of each is called.
    """

    images: Sequence[Image]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def chosen(self, rows: Shaped[np.ndarray, " k"]) -> "ImagesInMemory":
        """The images of these positions."""
        return ImagesInMemory(
            images=tuple(self.images[row] for row in rows),
            names=tuple(self.names[row] for row in rows),
        )

    def missing(self) -> dict[int, str]:
        """None is missing."""
        return {}

    def frames(self) -> Iterator[Image | ValueError]:
        """Every image."""
        yield from self.images
