"""Sources become stores: choose, read, cut and write takes, one shard each, in several processes.

A run that was stopped goes on with the first missing shard, several machines may each write a part
of one store (`Part`), and the store's digest is that of one uninterrupted run.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from data_prep.boxes import box_definition
from data_prep.crops import make_record
from data_prep.people import MAX_BONE_MM
from data_prep.progress import work_through
from data_prep.selection import (
    ConversionConfig,
    Job,
    Part,
    compare_counts,
    estimate,
    select_jobs,
)
from data_prep.takes import Reader, Rejection
from pose3d.data.store import (
    ShardWriter,
    StoreHeader,
    begin_store,
    finalise_store,
    open_store,
)


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
    if overwrite and part.count > 1:
        raise ValueError(
            f"--overwrite with --shard {part.number}/{part.count} would remove what other machines "
            f"write; empty {store} first, or name another folder"
        )
    say = partial(console.print, soft_wrap=True, markup=False) if console else _silent
    selection = select_jobs(reader, config)
    for note in (*reader.notes, *selection.notes):
        say(note)
    refuse_missing(reader, on_error=config.on_error, say=say)
    header = store_header(reader, config)
    directory = Path(store)
    plan = {
        **reader.identity(),
        **_header_plan(header),
        "protocol": selection.protocol.name,
        "shifted": selection.is_shifted_kept and config.shifted,
        "lens": config.lens,
        "human36m": reader.is_human36m,
        "shards": _digest_of_names(selection.jobs),
    }
    finished = begin_store(directory, plan=plan, overwrite=overwrite)
    own = selection.jobs[part.number - 1 :: part.count]
    if config.on_error == "error":
        for job in own:
            if job.shard_name in finished:
                _refuse_skipped(directory / job.shard_name)
    work = [
        _Work(
            job=job,
            path=directory / job.shard_name,
            header=header,
            config=config,
            box=chosen_box(reader, config),
        )
        for job in own
        if job.shard_name not in finished
    ]
    results: list[_Done] = []
    work_through(
        work,
        write_shard,
        jobs=config.num_jobs,
        description="cutting crops",
        total=sum(estimate(job) for job in own),
        done=sum(estimate(job) for job in own if job.shard_name in finished),
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
    counts: list[str] = []
    if reader.is_human36m:
        counts = compare_counts(
            selection.keys,
            selection.protocol,
            Counter(opened.records.split.tolist()),
            is_shifted_kept=selection.is_shifted_kept,
            num_skipped=len(opened.skipped),
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
    job, place, is_strict = work.job, work.job.place, work.config.on_error == "error"
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
        people = job.people(take, work.config, box=work.box)
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


def chosen_box(reader: Reader, config: ConversionConfig) -> str:
    """The box that a conversion uses.

    Raises:
        ValueError: If the layout has no boxes of the kind that is asked for.
    """
    box = config.box or ("joints" if reader.box_kind == "none" else reader.box_kind)
    if box == "mask" and reader.box_kind != "mask":
        raise ValueError("this layout has no boxes of masks; choose another --box")
    if box == "annotation" and reader.box_kind == "none":
        raise ValueError("this layout has no boxes; choose --box joints, posenet or metric")
    return box


def store_header(reader: Reader, config: ConversionConfig) -> StoreHeader:
    """The header of the store that a conversion makes."""
    definition = box_definition(chosen_box(reader, config), enlarge=config.enlarge)
    return StoreHeader(
        skeleton=reader.skeleton,
        source=reader.description,
        box_definition=definition,
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
