"""Sources become stores: choose, read, cut and write takes, one shard each, in several processes.

A run that was stopped goes on with the first missing shard, several machines may each write a part
of one store (`Part`), and the store's digest is that of one uninterrupted run.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from data_prep.boxes import BOXES, box_definition
from data_prep.crops import Place, make_record
from data_prep.human36m import (
    SHIFTED,
    BenchmarkProtocol,
    action_number,
    expected_counts,
    protocol_by_name,
    sequences,
)
from data_prep.people import LENSES, MAX_BONE_MM, people_of
from data_prep.progress import work_through
from data_prep.takes import MaskReader, Reader, Rejection, Take, Unit
from pose3d.data.store import (
    HUMAN36M_ACTIONS,
    ShardWriter,
    StoreHeader,
    begin_store,
    finalise_store,
    open_store,
)

ON_ERROR = ("error", "skip")
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

    def load(self) -> Take:
        """Read the frames that take part, and their boxes; missing images become rejections.

        Raises:
            ValueError: Naming the file, if a whole file cannot be read.
        """
        take = self.unit.load()
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
        raise ValueError(
            f"nothing of {reader.description} takes part"
            + (f": {'; '.join(notes)}" if notes else "; the source is empty")
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What a conversion made.

    Attributes:
        path: The store's folder.
        digest: The store's digest; None while other parts of it are missing.
        num_records: Records in the store, or, while parts are missing, in this run's part.
        num_resumed: Shards of this run that were there already.
        num_missing: Shards that other parts have yet to write.
        skipped: Name and reason of each source record that was left out.
        notes: What a person should be told, e.g. what was left out and how counts compare.
    """

    path: Path
    digest: str | None
    num_records: int
    num_resumed: int
    num_missing: int
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Work:
    """What a process needs to write one shard."""

    job: Job
    path: Path
    header: StoreHeader
    config: ConversionConfig
    box: str


@dataclass(frozen=True, kw_only=True, eq=False)
class _Done:
    """What one shard gave."""

    num_records: int
    implausible: Counter[str]
    notes: tuple[str, ...]


def convert(
    reader: Reader,
    store: Path | str,
    *,
    config: ConversionConfig | None = None,
    part: Part | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> Conversion:
    """Turn a source into a store.

    Args:
        reader: The source.
        store: The store's folder; one that a stopped run of the same conversion left is finished.
        config: How; the defaults if None.
        part: This run's share of the shards; all of them if None.
        overwrite: Make the store anew if there is one.
        console: Where notes and the progress bar go; nowhere if None.

    Raises:
        ValueError: Naming file and record, if the source is not of its layout or a record cannot
            be converted and `on_error` is "error".
        OSError: If the folder cannot be written.
    """
    config, part = config or ConversionConfig(), part or Part()
    say = partial(console.print, soft_wrap=True, markup=False) if console else _silent
    selection = select_jobs(reader, config)
    for note in (*reader.notes, *selection.notes):
        say(note)
    refuse_missing(reader, on_error=config.on_error, say=say)
    box = config.box or ("joints" if reader.box_kind == "none" else reader.box_kind)
    header = _header(reader, config, box=box)
    directory = Path(store)
    plan = {
        **reader.identity(),
        **_header_plan(header),
        "protocol": selection.protocol.name,
        "shifted": selection.is_shifted_kept and config.shifted,
        "lens": config.lens,
        "shards": _digest_of_names(selection.jobs),
    }
    finished = begin_store(directory, plan=plan, overwrite=overwrite)
    own = selection.jobs[part.number - 1 :: part.count]
    if config.on_error == "error":
        for job in own:
            if job.shard_name in finished:
                _refuse_skipped(directory / job.shard_name)
    work = [
        _Work(job=job, path=directory / job.shard_name, header=header, config=config, box=box)
        for job in own
        if job.shard_name not in finished
    ]
    results: list[_Done] = []
    work_through(
        work,
        write_shard,
        jobs=config.num_jobs,
        description="cutting crops",
        total=sum(_estimate(job) for job in own),
        done=sum(_estimate(job) for job in own if job.shard_name in finished),
        console=console,
        take=results.append,
    )
    notes = _notes(results)
    for note in notes:
        say(note)
    missing = [job for job in selection.jobs if not (directory / job.shard_name).is_file()]
    num_resumed = len(own) - len(work)
    if missing:
        return Conversion(
            path=directory,
            digest=None,
            num_records=sum(result.num_records for result in results),
            num_resumed=num_resumed,
            num_missing=len(missing),
            skipped=(),
            notes=notes,
        )
    digest = finalise_store(directory, header)
    opened = open_store(directory)
    counts = compare_counts(
        reader, selection, Counter(opened.records.split.tolist()), num_skipped=len(opened.skipped)
    )
    for line in counts:
        say(line)
    return Conversion(
        path=directory,
        digest=digest,
        num_records=len(opened),
        num_resumed=num_resumed,
        num_missing=0,
        skipped=tuple(opened.skipped),
        notes=(*notes, *counts),
    )


def refuse_missing(reader: Reader, *, on_error: str, say: Callable[[str], Any]) -> None:
    """End at the first file that should be there and is not, or say which are left out.

    Raises:
        ValueError: If a file is missing and `on_error` is "error".
    """
    if reader.missing and on_error == "error":
        others = len(reader.missing) - 1
        more = f" (and {others} more; --dry-run lists them)" if others else ""
        raise ValueError(f"{reader.missing[0]}{more} (--on-error skip converts what is there)")
    for line in reader.missing:
        say(f"left out: {line}")


def write_shard(work: _Work, advance: Callable[[int], None]) -> _Done:
    """Read one unit, cut its crops and write its shard; the work of one process.

    Raises:
        ValueError: Naming the record, if one cannot be converted and `on_error` is "error".
        OSError: If the shard cannot be written.
    """
    job, is_strict = work.job, work.config.on_error == "error"
    place = Place(
        subject=job.unit.subject,
        action=job.unit.action,
        subaction=job.unit.subaction,
        split=job.split,
    )
    with ShardWriter(work.path, header=work.header) as shard:

        def leave_out(name: str, reason: str) -> None:
            rejection = Rejection(name=name, reason=reason, split=job.split)
            if is_strict:
                raise rejected(rejection)
            shard.skip(rejection.name, reason=rejection.reason)
            advance(1)

        try:
            take = job.load()
        except ValueError as error:
            leave_out(job.unit.name, str(error))
            return _Done(num_records=0, implausible=Counter(), notes=())
        people = people_of(
            take,
            box=work.box,
            enlarge=work.config.enlarge,
            lens=work.config.lens,
            is_shifted=job.is_shifted,
        )
        names = take.pictures.names
        for rejection in take.rejections:
            leave_out(rejection.name, rejection.reason)
        if is_strict:
            for row, reason in people.faults.items():
                leave_out(names[row], reason)
        for row, image in enumerate(take.pictures.frames()):
            if row in people.faults:
                leave_out(names[row], people.faults[row])
                continue
            try:
                if isinstance(image, ValueError):
                    raise image
                shard.add(make_record(people, row, image, place=place, header=work.header))
            except ValueError as error:
                leave_out(names[row], str(error))
                continue
            advance(1)
        num_records = len(shard)
    return _Done(num_records=num_records, implausible=people.implausible, notes=take.notes)


def rejected(rejection: Rejection) -> ValueError:
    """The error that a rejection is where skipping was not asked for."""
    return ValueError(
        f"{rejection.split} record {rejection.name}: {rejection.reason} "
        "(--on-error skip leaves such records out)"
    )


def compare_counts(
    reader: Reader, selection: Selection, found: Counter[str], *, num_skipped: int
) -> list[str]:
    """Hold the number of images against what all of Human3.6M has, if this is all of it.

    Returns:
        Sentences; none for a source that is not, or only a part of, Human3.6M.
    """
    keys = {(job.unit.subject, job.unit.action, job.unit.subaction) for job in selection.jobs}
    if not reader.is_human36m or not _is_whole(keys, selection):
        return []
    expected = expected_counts(selection.protocol, is_shifted_kept=selection.is_shifted_kept)
    if expected is None:
        return []
    lines = []
    for split, count in expected.items():
        difference = found[split] - count
        if not difference:
            lines.append(f"{split}: {found[split]} images, as all of Human3.6M has")
            continue
        why = f"{abs(difference)} {'fewer' if difference < 0 else 'more'} than"
        hint = (
            f"{num_skipped} records were left out, see the manifest"
            if num_skipped and difference < 0
            else "sequences are shorter or longer than in the release, or frames were thinned out "
            "before; verify lists them by sequence"
        )
        lines.append(
            f"{split}: {found[split]} images, {why} the {count} of all of Human3.6M under "
            f"{selection.protocol.name}; {hint}"
        )
    return lines


def _is_whole(keys: set[tuple[int, str, int]], selection: Selection) -> bool:
    """Whether every performance of the release that takes part is there."""
    wanted = {
        (subject, HUMAN36M_ACTIONS[action - 2], subaction)
        for subject, action, subaction in sequences()
        if selection.protocol.split_of(subject) is not None
        and ((subject, action, subaction) not in SHIFTED or selection.is_shifted_kept)
    }
    return wanted <= keys


def _estimate(job: Job) -> int:
    """About how many images a job has."""
    return -(-job.unit.count // job.protocol.every(job.split))


def _notes(results: Sequence[_Done]) -> tuple[str, ...]:
    """What reading and completing the takes brought up."""
    implausible: Counter[str] = sum((result.implausible for result in results), Counter())
    notes = [note for result in results for note in result.notes]
    notes += [
        f"weight 0: {joint} of {count} records, since its bones are longer than "
        f"{MAX_BONE_MM:.0f} mm"
        for joint, count in implausible.items()
    ]
    return tuple(notes)


def _header(reader: Reader, config: ConversionConfig, *, box: str) -> StoreHeader:
    if box == "mask" and reader.box_kind != "mask":
        raise ValueError("this layout has no boxes of masks; choose another --box")
    if box == "annotation" and reader.box_kind == "none":
        raise ValueError("this layout has no boxes; choose --box joints, posenet or metric")
    return StoreHeader(
        skeleton=reader.skeleton,
        source=reader.description,
        box_definition=box_definition(box, enlarge=config.enlarge),
        crop_size_px=config.crop_size_px,
        margin=config.margin,
        jpeg_quality=config.jpeg_quality,
    )


def _header_plan(header: StoreHeader) -> dict[str, Any]:
    """The header's fields that change what shards hold."""
    return {
        "skeleton": header.skeleton,
        "source": header.source,
        "box": header.box_definition,
        "size": header.crop_size_px,
        "margin": header.margin,
        "quality": header.jpeg_quality,
    }


def _digest_of_names(jobs: Sequence[Job]) -> str:
    """SHA-256 of all shards' names: machines that see other sources must not share a store."""
    return hashlib.sha256("\n".join(job.shard_name for job in jobs).encode()).hexdigest()


def _refuse_skipped(path: Path) -> None:
    """End at what an earlier run, which was to skip, left out of a shard."""
    for name, reason in open_store(path).skipped:
        raise ValueError(
            f"{path}, made earlier with --on-error skip, lacks record {name}: {reason}; "
            "go on with --on-error skip, or mend the record and pass --overwrite"
        )


def _silent(_: str) -> None:
    """Say nothing."""
