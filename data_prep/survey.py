"""The dry run: what a source holds, what is missing, and whether its labels can be right.

Labels of every sequence that takes part are read, images only looked for, except a few that are
decoded for the overlay sheet, the one file that is written.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from data_prep.bones import BoneTally, subject_problems
from data_prep.convert import chosen_box, store_header
from data_prep.examine import MAX_ERROR_PX, Examination, Findings, Sketch, examine, sketch
from data_prep.inventory import Holding, against_release, is_like_human36m, subject_table
from data_prep.progress import work_through
from data_prep.selection import ConversionConfig, Selection, select_jobs
from data_prep.sheet import Cell, draw_sheet, write_sheet
from data_prep.summary import bone_table, facts_table, print_lines
from data_prep.takes import Reader
from data_prep.tally import ERROR_EDGES_PX, Tally
from pose3d.data.store import StoreHeader

SHEET_ROWS, SHEET_COLUMNS = 5, 6


@dataclass(kw_only=True, eq=False)
class _Total:
    """What all units together show; its size does not depend on the number of frames.

    Attributes:
        findings: By shard, without their tallies.
        bones: By subject.
        error_px: Of the layout's 2-D labels, by camera.
    """

    findings: dict[str, Findings] = field(default_factory=dict)
    bones: dict[int, BoneTally] = field(default_factory=dict)
    error_px: dict[str, Tally] = field(default_factory=dict)

    def add(self, found: Findings) -> None:
        """Take up the findings of one unit."""
        self.findings[found.shard] = replace(found, bones=None, error_px=None)
        if found.bones is not None:
            subject = found.holding.subject
            if subject not in self.bones:
                self.bones[subject] = BoneTally(skeleton=found.bones.skeleton)
            self.bones[subject].merge(found.bones)
        if found.error_px is not None:
            camera = found.holding.camera
            if camera not in self.error_px:
                self.error_px[camera] = Tally.empty(ERROR_EDGES_PX, 1)
            self.error_px[camera].merge(found.error_px)

    def sort(self, shards: Iterable[str]) -> None:
        """Bring findings into the order of the source; they came in that of the processes."""
        self.findings = {shard: self.findings[shard] for shard in shards}

    @property
    def holdings(self) -> list[Holding]:
        """What there is of which sequence and camera."""
        return [found.holding for found in self.findings.values()]

    @property
    def chosen(self) -> Counter[str]:
        """Images by split."""
        counts = Counter[str]()
        for found in self.findings.values():
            counts[found.split] += found.num_chosen
        return counts

    @property
    def num_left_out(self) -> int:
        """Images that would take part but cannot."""
        return sum(found.num_left_out for found in self.findings.values())


def survey(reader: Reader, *, config: ConversionConfig, sheet: Path, console: Console) -> list[str]:
    """Look through a source as it would be converted, print what it holds, draw the sheet.

    Args:
        reader: The source.
        config: How it would be converted.
        sheet: Where the overlay sheet goes.
        console: Where the tables go.

    Returns:
        One line per problem, each naming the file, sequence, camera or subject.

    Raises:
        ValueError: If the source is not of its layout, or nothing of it takes part.
        OSError: If the sheet cannot be written.
    """
    selection = select_jobs(reader, config)
    print_lines([*reader.notes, *selection.notes], console)
    box, header = chosen_box(reader, config), store_header(reader, config)
    tasks = [Examination(job=job, config=config, box=box) for job in selection.jobs]
    total = _Total()
    errors = Console(stderr=True)
    bar = errors if errors.is_terminal else None
    work_through(
        tasks,
        examine,
        jobs=config.num_jobs,
        description="reading labels",
        total=sum(job.unit.count for job in selection.jobs),
        console=bar,
        take=total.add,
    )
    total.sort(job.shard_name for job in selection.jobs)
    is_release = reader.is_human36m and is_like_human36m(total.holdings)
    findings = total.findings.values()
    notes = list(dict.fromkeys(note for found in findings for note in found.notes))
    problems = list(reader.missing)
    for found in findings:
        problems += [line for line in found.problems if not line.startswith(tuple(reader.missing))]
    problems += _unlike_projection(findings)
    problems += subject_problems(total.bones, is_constant=is_release)
    if is_release:
        comparison = against_release(
            total.holdings,
            selection.protocol,
            total.chosen,
            is_shifted_kept=selection.is_shifted_kept,
            is_corrected=config.shifted == "correct",
            num_skipped=total.num_left_out,
            is_whole=not reader.missing,
        )
        problems += comparison.odd
        notes += comparison.notes
    _print_facts(reader, selection, total, box=header.box_definition, console=console)
    print_lines(notes, console)
    cells, damaged = _cells(tasks, header=header, config=config, bar=bar)
    title = f"{reader.description}: {sum(total.chosen.values())} records"
    write_sheet(draw_sheet(cells, header=header, title=title, columns=SHEET_COLUMNS), sheet)
    console.print(f"labels on images: {sheet}", markup=False, highlight=False, soft_wrap=True)
    return list(dict.fromkeys([*problems, *damaged]))


def _unlike_projection(findings: Collection[Findings]) -> list[str]:
    """Sequences whose 2-D labels are off the projection; one line where most are."""
    off = [found.off for found in findings if found.off is not None]
    if 2 * len(off) < len(findings) or len(off) < 3:
        return off
    return [
        f"in {len(off)} of {len(findings)} sequences the layout's 2-D labels are more than "
        f"{MAX_ERROR_PX:g} px off the joints' projection, e.g. {off[0]}"
    ]


def _print_facts(
    reader: Reader, selection: Selection, total: _Total, *, box: str, console: Console
) -> None:
    """What the source holds and what of it takes part, in tables."""
    protocol = selection.protocol
    console.print(
        facts_table(
            {
                "source": reader.description,
                "protocol": f"{protocol.name}: {protocol.meaning}",
                "take part": ", ".join(
                    f"{split}: {count} images" for split, count in sorted(total.chosen.items())
                ),
                "cannot": f"{total.num_left_out} images, see the problems"
                if total.num_left_out
                else "none",
                "files missing": str(len(reader.missing)),
                "box": box,
            }
        )
    )
    console.print(subject_table(total.holdings))
    if total.error_px:
        console.print(_error_table(total.error_px))
    console.print(bone_table(dict(sorted(total.bones.items()))))


def _error_table(errors: dict[str, Tally]) -> Table:
    """Distance of the layout's 2-D labels from the projection, by camera."""
    table = Table("re-projection error / px", "joints", "median", "95 %", "largest", box=None)
    for camera, tally in sorted(errors.items()):
        values = (tally.quantile(0.5)[0], tally.quantile(0.95)[0], tally.largest[0])
        shown = (f"{value:.2g}" if np.isfinite(value) else "-" for value in values)
        table.add_row(camera, str(tally.number[0]), *shown)
    return table


def _cells(
    tasks: Sequence[Examination],
    *,
    header: StoreHeader,
    config: ConversionConfig,
    bar: Console | None,
) -> tuple[list[Cell], list[str]]:
    """Crops of frames spread over the source, and what was wrong with others."""
    num_cells = SHEET_ROWS * SHEET_COLUMNS
    places = np.arange(num_cells) * len(tasks) // num_cells
    chosen, counts = np.unique(places, return_counts=True)
    sketches = [
        Sketch(examination=tasks[place], header=header, count=int(count))
        for place, count in zip(chosen, counts, strict=True)
    ]
    results: list[tuple[list[Cell], list[str]]] = []
    work_through(
        sketches,
        sketch,
        jobs=config.num_jobs,
        description="drawing labels",
        total=num_cells,
        console=bar,
        take=results.append,
    )
    cells = sorted((cell for part, _ in results for cell in part), key=lambda cell: cell.name)
    return cells, sorted(line for _, lines in results for line in lines)
