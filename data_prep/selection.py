"""What of a source takes part in a conversion: subjects, cameras, frames, known faults, counts."""

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

import numpy as np
import torch

from data_prep.boxes import BOXES
from data_prep.crops import Place
from data_prep.human36m import (
    SHIFTED,
    BenchmarkProtocol,
    action_name,
    action_number,
    expected_counts,
    protocol_by_name,
    sequences,
)
from data_prep.people import LENSES, People, people_of
from data_prep.takes import MaskReader, Reader, Rejection, Take, Unit
from pose3d.data.store import HUMAN36M_ACTIONS

ON_ERROR = ("error", "skip")
MAX_LACKING = 5
"""Performances of Human3.6M that may be missing from a set that is still held against all of it."""
SHIFTED_SEQUENCES = ("protocol", "block", "correct", "keep")


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversionConfig:
    """How a source is chosen from and cropped; what holds for every layout.

    Attributes:
        protocol: Name of a protocol of `data_prep.human36m.PROTOCOLS`; the layout's own if None.
        shifted: What becomes of Human3.6M's three shifted sequences of S9: "block" leaves them
            out, "correct" takes the 200 mm off, "keep" keeps them as they are, "protocol" does as
            the reproduced work.
        box: Person box, one of `data_prep.boxes.BOXES`; the layout's own, or the joints', if None.
        enlarge: Factor on the side of that box's square.
        lens: One of `data_prep.people.LENSES`.
        crop_size_px: Side of the stored crops, pixels.
        margin: What the crop shows over the nominal square; 1.84 = 1.3 × √2 covers a scale of
            ±30 % with any rotation.
        jpeg_quality: Quality of the stored JPEG.
        on_error: "error" ends at a record that cannot be converted, "skip" leaves it out.
        num_jobs: Processes.
    """

    protocol: str | None = None
    shifted: str = "protocol"
    box: str | None = None
    enlarge: float = 1.0
    lens: str = "source"
    crop_size_px: int = 472
    margin: float = 1.84
    jpeg_quality: int = 92
    on_error: str = "error"
    num_jobs: int = 1

    def __post_init__(self) -> None:
        for name, known in (
            ("shifted", SHIFTED_SEQUENCES),
            ("box", (None, *BOXES)),
            ("lens", LENSES),
            ("on_error", ON_ERROR),
        ):
            if getattr(self, name) not in known:
                listed = ", ".join(str(value) for value in known if value)
                raise ValueError(f"{name} must be one of {listed}, got {getattr(self, name)!r}")
        if self.protocol is not None:
            protocol_by_name(self.protocol)
        if not self.enlarge > 0:
            raise ValueError(f"enlarge must be > 0, got {self.enlarge}")
        if self.num_jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {self.num_jobs}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The share of one of several machines that write one store: number of count, from 1."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"--shard must be 1/n to n/n, got {self.number}/{self.count}")

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read "i/n".

        Raises:
            ValueError: If the text is of another form.
        """
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal()):
            raise ValueError(f"--shard must look like 2/8, got {text!r}")
        return cls(number=int(number), count=int(count))


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One unit with what becomes of it.

    Attributes:
        unit: What is read.
        split: "train" or "test".
        protocol: Which frames take part.
        is_shifted: Whether its shift is corrected.
    """

    unit: Unit
    split: str
    protocol: BenchmarkProtocol
    is_shifted: bool

    @property
    def shard_name(self) -> str:
        """The shard's file."""
        return f"shard-{self.split}-{self.unit.name}.h5"

    @property
    def place(self) -> Place:
        """Where the unit's records belong."""
        return Place(
            subject=self.unit.subject,
            action=self.unit.action,
            subaction=self.unit.subaction,
            split=self.split,
        )

    def load(self) -> Take:
        """Read the frames that take part, and their boxes; missing images become rejections.

        Raises:
            ValueError: Naming the file, if a whole file cannot be read.
        """
        return self.choose(self.unit.load())

    def choose(self, take: Take) -> Take:
        """The frames of the unit's take that take part; missing images become rejections."""
        keep = self.protocol.choose(take.frame, still_joints(take), split=self.split)
        take = take.chosen(keep)
        missing = take.pictures.missing()
        if not missing:
            return take.with_boxes()
        is_there = np.array([row not in missing for row in range(len(take))], bool)
        rejections = tuple(
            Rejection(name=take.pictures.names[row], reason=reason, split=self.split)
            for row, reason in missing.items()
        )
        found = take.chosen(is_there).with_boxes()
        return replace(found, rejections=(*take.rejections, *rejections))

    def people(self, take: Take, config: ConversionConfig, *, box: str) -> People:
        """Complete the labels of the frames that take part.

        Args:
            take: What `load` gives.
            config: How they are converted.
            box: The box in force.

        Raises:
            ValueError: If the lens is asked of a camera that is not Human3.6M's.
        """
        return people_of(
            take,
            box=box,
            enlarge=config.enlarge,
            lens=config.lens,
            is_shifted=self.is_shifted,
        )


def still_joints(take: Take) -> np.ndarray:
    """Joints in a frame that does not move with the body: the camera's, unless cameras differ."""
    if not take.camera.batch_shape:
        return take.joints_camera_mm
    return take.camera.camera_to_world(torch.from_numpy(take.joints_camera_mm)).numpy()


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What of a source takes part.

    Attributes:
        jobs: In the order of the source.
        protocol: The protocol in force.
        notes: What was left out and why, in words.
        is_shifted_kept: Whether S9's shifted sequences take part, corrected or not.
    """

    jobs: list[Job]
    protocol: BenchmarkProtocol
    notes: list[str]
    is_shifted_kept: bool

    @property
    def keys(self) -> set[tuple[int, str, int]]:
        """Subject, action's name and subaction of every performance that takes part."""
        return {(job.unit.subject, job.unit.action, job.unit.subaction) for job in self.jobs}


def select_jobs(reader: Reader, config: ConversionConfig) -> Selection:
    """Choose units by subject, camera and known faults; masks are read only if asked for.

    Raises:
        ValueError: If the source is not of its layout, or nothing of it takes part.
    """
    if config.box == "mask" and isinstance(reader, MaskReader):
        reader.use_masks()
    protocol = protocol_by_name(config.protocol or reader.default_protocol)
    shifted = config.shifted
    if shifted == "protocol":
        shifted = "block" if protocol.blocks_shifted else "keep"
    jobs, notes, left_out = [], [], Counter[str]()
    for unit in reader.units():
        split = unit.split or protocol.split_of(unit.subject)
        is_shifted = reader.is_human36m and is_shifted_unit(unit)
        if split is None:
            left_out[f"S{unit.subject}: takes no part in protocol {protocol.name}"] += 1
        elif reader.is_human36m and _is_other_camera(unit, protocol):
            left_out[f"camera {unit.camera_name}: not in protocol {protocol.name}"] += 1
        elif is_shifted and shifted == "block":
            left_out[
                f"S9 {unit.action}, take {unit.subaction}: its poses are 200 mm off "
                "(--s9 correct mends them, --s9 keep keeps them)"
            ] += 1
        else:
            mend = is_shifted and shifted == "correct"
            jobs.append(Job(unit=unit, split=split, protocol=protocol, is_shifted=mend))
    notes += [f"left out {reason} ({count} sequences)" for reason, count in left_out.items()]
    if not jobs:
        why = [*notes, *reader.missing[:1]]
        raise ValueError(
            f"nothing of {reader.description} takes part"
            + (f": {'; '.join(why)}" if why else "; the source is empty")
        )
    names = Counter(job.shard_name for job in jobs)
    for name, count in names.items():
        assert count == 1, f"{count} units are called {name}"
    return Selection(jobs=jobs, protocol=protocol, notes=notes, is_shifted_kept=shifted != "block")


def is_shifted_unit(unit: Unit) -> bool:
    """Whether a unit of Human3.6M is one of `SHIFTED`."""
    if unit.action not in HUMAN36M_ACTIONS:
        return False
    return (unit.subject, action_number(unit.action), unit.subaction) in SHIFTED


def _is_other_camera(unit: Unit, protocol: BenchmarkProtocol) -> bool:
    """Whether a camera of Human3.6M takes no part; others' cameras always do."""
    return unit.camera_name.isdecimal() and unit.camera_name not in protocol.cameras


def compare_counts(
    keys: Set[tuple[int, str, int]],
    protocol: BenchmarkProtocol,
    found: Mapping[str, int],
    *,
    is_shifted_kept: bool,
    num_skipped: int,
) -> list[str]:
    """Hold the number of images against what all of Human3.6M has, if this is all or most of it.

    Args:
        keys: Subject, action's name and subaction of every performance that takes part.
        protocol: The protocol in force.
        found: Images by split.
        is_shifted_kept: Whether S9's shifted sequences take part, corrected or not.
        num_skipped: Records that were left out.

    Returns:
        Sentences; none for what is only a part of Human3.6M, with more than `MAX_LACKING` of its
        performances missing.
    """
    wanted = {
        key
        for key in sequences()
        if protocol.split_of(key[0]) is not None and (key not in SHIFTED or is_shifted_kept)
    }
    lacking = {key for key in wanted if (key[0], action_name(key[1]), key[2]) not in keys}
    expected = expected_counts(protocol, is_shifted_kept=is_shifted_kept)
    there = expected_counts(protocol, is_shifted_kept=is_shifted_kept, without=lacking)
    if expected is None or there is None or len(lacking) > MAX_LACKING:
        return []
    lines = []
    for split, count in expected.items():
        difference = found.get(split, 0) - count
        if not difference:
            lines.append(f"{split}: {count} images, as all of Human3.6M has")
            continue
        why = f"{abs(difference)} {'fewer' if difference < 0 else 'more'} than"
        hints = []
        if count > there[split]:
            names = ", ".join(
                f"S{key[0]} {sequences()[key].file_name}"
                for key in sorted(lacking)
                if protocol.split_of(key[0]) == split
            )
            hints.append(f"{count - there[split]} of them are of {names}, which is not there")
        if num_skipped and difference < 0:
            hints.append(f"{num_skipped} records were left out, see the manifest")
        elif found.get(split, 0) != there[split]:
            hints.append(
                "sequences are shorter or longer than in the release, or frames were thinned out "
                "before; verify lists them by sequence"
            )
        lines.append(
            f"{split}: {found.get(split, 0)} images, {why} the {count} of all of Human3.6M under "
            f"{protocol.name}; {'; '.join(hints)}"
        )
    return lines


def estimate(job: Job) -> int:
    """About how many images a job has."""
    return -(-job.unit.count // job.protocol.every(job.split))
