"""Lines of a text file of motion capture, read with an eye on where the file is damaged."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import Float


class Lines:
    """The lines of a file that say something, one after another.

    Args:
        path: The file.
        comment: What starts a comment; the rest of the line is passed over.
        alone: Characters that count as lines of their own, such as braces.

    Raises:
        ValueError: If the file is not text.
    """

    def __init__(self, path: Path, *, comment: str = "", alone: str = "") -> None:
        self.path = path
        self.line_number = 0
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not a text file: {error}") from error
        lines = text.splitlines()
        if comment:
            lines = [line.partition(comment)[0] for line in lines]
        around = f"([{re.escape(alone)}])" if alone else "$^"
        self._items = [
            (number, part.strip())
            for number, line in enumerate(lines, 1)
            for part in re.split(around, line)
            if part and part.strip()
        ]
        self._position = 0

    def peek(self) -> str | None:
        """The next line without passing it; None at the end."""
        return self._items[self._position][1] if self._position < len(self._items) else None

    def next(self, wanted: str) -> str:
        """The next line.

        Args:
            wanted: What is expected there, for the message where the file ends instead.
        """
        if self._position == len(self._items):
            raise ValueError(f"{self.path} ends after line {self.line_number}, expected {wanted}")
        self.line_number, line = self._items[self._position]
        self._position += 1
        return line

    def expect(self, word: str) -> None:
        """Pass a line that holds one word."""
        line = self.next(word)
        if line.upper() != word.upper():
            self.fail(f"expected {word}, got {line[:40]!r}")

    def number(self, label: str) -> float:
        """The number behind a label."""
        line = self.next(f"{label} and a number")
        words = line[len(label) :].split()
        if not line.lower().startswith(label.lower()) or len(words) != 1:
            self.fail(f"expected {label!r} and a number, got {line[:40]!r}")
        return float(self.floats(words)[0])

    def floats(self, words: Collection[str]) -> Float[np.ndarray, " count"]:
        """Words as finite numbers."""
        try:
            values = np.array([float(word) for word in words])
        except ValueError:
            self.fail(f"expected numbers, got {' '.join(words)[:40]!r}")
        if not np.isfinite(values).all():
            self.fail(f"expected finite numbers, got {' '.join(words)[:40]!r}")
        return values

    def fail(self, message: str) -> NoReturn:
        """Refuse the file, naming the line that was read last."""
        raise ValueError(f"{self.path}, line {self.line_number}: {message}")
