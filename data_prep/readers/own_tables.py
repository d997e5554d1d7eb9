"""Tables of people's own data as rows whose cells say where they stand, and how CSV is read.

A CSV file has a header line; cells are separated by commas, semicolons or tabs, and where that is
not the comma a decimal comma is understood.
"""

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pose3d.data.store import INT32_MAX
from pose3d.geometry.skeleton import did_you_mean

_TRUE = ("1", "true", "yes")
_FALSE = ("0", "false", "no")
_EMPTY = ("", "nan", "none", "null")


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Row:
    """One line of a table.

    Attributes:
        file: The file.
        place: Where in it, e.g. "line 7" or "people[3]".
        cells: Values by column; text from CSV, anything from JSON.
        paths: Where a JSON value stands below the place, by column, e.g. "joints.L_Hip[0]".
        has_decimal_comma: Whether 1,5 may stand for 1.5.
    """

    file: Path
    place: str
    cells: Mapping[str, Any]
    paths: Mapping[str, str] | None = None
    has_decimal_comma: bool = False

    def at(self, column: str) -> str:
        """Where a cell stands, for messages about a record that names the line already."""
        return f"column {column}" if self.paths is None else self.paths.get(column, column)

    def error(self, column: str, what: str) -> ValueError:
        """What is wrong with a cell, in full."""
        return ValueError(f"{self.file}, {self.place}, {self.at(column)}: {what}")

    def is_empty(self, column: str) -> bool:
        """Whether there is nothing in a cell."""
        value = self.cells.get(column)
        if isinstance(value, float):
            return math.isnan(value)
        return value is None or (isinstance(value, str) and value.strip().lower() in _EMPTY)

    def text(self, column: str, *, default: str = "") -> str:
        """A cell's text."""
        return default if self.is_empty(column) else str(self.cells[column]).strip()

    def number(self, column: str) -> float:
        """A cell's number; NaN where it is empty.

        Raises:
            ValueError: If it holds anything else.
        """
        if self.is_empty(column):
            return math.nan
        value = self.cells[column]
        text = str(value).strip()
        if self.has_decimal_comma and text.count(",") == 1:
            text = text.replace(",", ".")
        try:
            number = math.nan if isinstance(value, bool | list | dict) else float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self.error(column, f"expected a number, got {value!r}")
        return number

    def needed(self, column: str) -> float:
        """A cell's number.

        Raises:
            ValueError: If it is empty or holds anything else.
        """
        if self.is_empty(column):
            raise self.error(column, "is empty, expected a number")
        return self.number(column)

    def whole(self, column: str, *, default: int) -> int:
        """A cell's whole number, 0 or more.

        Raises:
            ValueError: If it holds anything else.
        """
        if self.is_empty(column):
            return default
        number = self.number(column)
        if number != int(number) or not 0 <= number <= INT32_MAX:
            raise self.error(column, f"expected a whole number from 0, got {self.cells[column]!r}")
        return int(number)

    def truth(self, column: str, *, default: bool) -> bool:
        """A cell's 1 or 0, true or false, yes or no.

        Raises:
            ValueError: If it holds anything else.
        """
        if self.is_empty(column):
            return default
        text = str(self.cells[column]).strip().lower()
        if text not in (*_TRUE, *_FALSE):
            raise self.error(column, f"expected 1 or 0, got {self.cells[column]!r}")
        return text in _TRUE

    def choice(self, column: str, known: Sequence[str], *, default: str = "") -> str:
        """A cell's word, one of those known.

        Raises:
            ValueError: If it is another; the nearest known one is given.
        """
        word = self.text(column, default=default).lower()
        if word not in known:
            given = f"unknown value {word!r}" if word else "is empty"
            raise self.error(column, f"{given}; expected one of {', '.join(known)}")
        return word

    def has_any(self, columns: Sequence[str]) -> bool:
        """Whether any of these cells is filled."""
        return not all(self.is_empty(column) for column in columns)


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A file's rows.

    Attributes:
        file: The file.
        columns: In the order of the file.
        rows: Lines that are not empty; to be gone through once.
    """

    file: Path
    columns: tuple[str, ...]
    rows: Iterable[Row]


def read_csv(path: Path, *, known: Callable[[str], bool], name: str, some: Sequence[str]) -> Table:
    """Read a CSV file.

    Args:
        path: The file.
        known: Whether a column is one that may be there; columns that start with _ always may.
        name: What the file is called in messages.
        some: Some known columns, for messages.

    Raises:
        ValueError: Naming file, line and column, if it cannot be read, is not UTF-8, a line is
            longer than the header, or a column is unknown or occurs twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} {path} is not UTF-8 text; save it as CSV UTF-8") from error
    except OSError as error:
        raise ValueError(f"{name} {path} cannot be read: {error.strerror}") from error
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    lines = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
    try:
        columns = tuple(column.strip() for column in next(lines))
    except (StopIteration, csv.Error) as error:
        raise ValueError(f"{name} {path} has no header") from error
    check_columns(columns, path, known=known, some=some)
    rows = _rows(lines, columns, path, has_decimal_comma=delimiter != ",")
    return Table(file=path, columns=columns, rows=rows)


def _rows(
    lines: Any, columns: tuple[str, ...], path: Path, *, has_decimal_comma: bool
) -> Iterator[Row]:
    """The lines of a CSV file that are not empty, one by one: text takes much memory."""
    try:
        for cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                raise ValueError(
                    f"{path}, line {lines.line_num} has {len(cells)} cells, the header "
                    f"{len(columns)} columns"
                )
            yield Row(
                file=path,
                place=f"line {lines.line_num}",
                cells=dict(zip(columns, cells, strict=True)),
                has_decimal_comma=has_decimal_comma,
            )
    except csv.Error as error:
        raise ValueError(f"{path}, line {lines.line_num} is no CSV ({error})") from error


def check_columns(
    columns: Sequence[str], path: Path, *, known: Callable[[str], bool], some: Sequence[str]
) -> None:
    """Refuse columns that are unknown or occur twice.

    Raises:
        ValueError: Naming file and column.
    """
    for number, column in enumerate(columns, start=1):
        if columns.index(column) != number - 1:
            raise ValueError(f"{path}, line 1: column {column} occurs twice")
        if not (column.startswith("_") or known(column)):
            raise ValueError(
                f"{path}, line 1: unknown column {column!r}{did_you_mean(column, tuple(some))} "
                "(columns that start with _ are left alone)"
            )
