"""Unpickle NumPy arrays and plain containers, and nothing else.

A pickle is a programme: it names functions and calls them. Here a name is looked up in a short
table of builders of this module's own, so that no function or class of any library can be reached,
whatever the file asks for; NumPy's own restoring functions are not called either, since they trust
flags and pointers that a file states. What can be built: None, numbers, str, bytes, list, tuple,
dict, OrderedDict, set, frozenset, arrays, scalars and dtypes, as pickled by Python 2 and 3 in
protocols 0 to 5 and by NumPy 1 and 2.
"""

import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

_PLAIN_TYPES = frozenset(
    (type(None), bool, int, float, complex, str, bytes, bytearray, set, frozenset)
)
_DTYPE_SPEC = re.compile(r"[|<>=]?([biufcSUV][0-9]+|O[48]?)")
_STATE_VERSION = 3
"""How NumPy has written a dtype's state since 2006; 4 adds metadata."""


class RefusedError(ValueError):
    """A file asks for something that must not be built."""


def load_pickle(path: Path) -> Any:
    """What a pickle holds.

    Raises:
        ValueError: Naming the file, if it is missing, damaged, or asks for anything but arrays
            and plain containers; nothing that it asks for is executed.
    """
    with _reading(path) as file:
        return _unpickle(file)


def load_pickled_npy(path: Path) -> np.ndarray:
    """The array of a .npy file, one of Python objects included.

    Raises:
        ValueError: As `load_pickle`.
    """
    with _reading(path) as file:
        return _read_npy(file)


def load_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of a .npz file by their names, those of Python objects included.

    Raises:
        ValueError: As `load_pickle`; or if an array is not there.
    """
    with _reading(path) as file, zipfile.ZipFile(file) as archive:
        members = set(archive.namelist())
        for name in names:
            if f"{name}.npy" not in members:
                known = sorted(member.removesuffix(".npy") for member in members)[:10]
                raise RefusedError(f"has no array {name!r}, only {', '.join(known)}")
        found = {}
        for name in names:
            with archive.open(f"{name}.npy") as member:
                found[name] = _read_npy(member)
        return found


@contextmanager
def _reading(path: Path) -> Iterator[IO[bytes]]:
    """Open a file; whatever goes wrong with it becomes one line that names it."""
    try:
        with path.open("rb") as file:
            yield file
    except RefusedError as error:
        said = " ".join(str(error).split())  # names in the file may hold line ends
        raise ValueError(f"{path} {said}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle or archive may raise anything
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(
            f"{path} is not readable ({said}); it is damaged, cut off or of another kind: fetch it "
            "again"
        ) from error


def _read_npy(file: Any) -> np.ndarray:
    """An array of NumPy's own format; its header is a literal, objects follow as a pickle."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise RefusedError(f"is a .npy file of version {version}; expected 1.0 or 2.0")
    is_first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        array = _unpickle(file)
        if not isinstance(array, np.ndarray) or array.size != math.prod(shape):
            raise RefusedError(f"holds no array of the shape {shape} that its header states")
        return array.reshape(shape)
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _unpickle(file: Any) -> Any:
    """The object that a pickle describes."""
    return _Finish().finish(_Unpickler(file, encoding="latin1").load())


class _Unpickler(pickle.Unpickler):
    """Looks names up in `_BUILDERS` alone."""

    def find_class(self, module: str, name: str) -> Any:
        """The builder that stands for a name.

        Raises:
            RefusedError: If there is none.
        """
        builder = _BUILDERS.get((module, name))
        if builder is None:
            raise RefusedError(
                f"asks for {module}.{name}, which is neither an array nor a plain container; it "
                "was not executed: use a file that holds arrays, lists and dicts only"
            )
        return builder

    def persistent_load(self, pid: Any) -> Any:
        """Nothing lies outside the file."""
        raise RefusedError(f"asks for an object from elsewhere ({str(pid)[:40]!r})")


class _Builder:
    """Stands for a name of a pickle; can be called and nothing else."""

    __slots__ = ("_build", "_name")
    __hash__ = None  # type: ignore[assignment]  # no key of a dict, no member of a set

    def __init__(self, name: str, build: Callable[..., Any]) -> None:
        self._name, self._build = name, build

    def __call__(self, *arguments: Any) -> Any:
        return self._build(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise RefusedError(f"wants to change {self._name}")


class _Dtype:
    """A dtype in the making."""

    __slots__ = ("value",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, spec: Any) -> None:
        if not isinstance(spec, str) or not _DTYPE_SPEC.fullmatch(spec):
            raise RefusedError(f"holds a dtype {str(spec)[:40]!r} that is not known")
        self.value = np.dtype(object if spec.lstrip("|<>=").startswith("O") else spec)

    def __setstate__(self, state: tuple) -> None:
        """Take byte order, subarray or fields from what NumPy pickled.

        The flags, by which NumPy would tell pointers from numbers, are not taken.
        """
        version, order, subarray, names, fields, itemsize = state[:6]
        if version < _STATE_VERSION:
            raise RefusedError(f"holds a dtype in NumPy's form {version}, expected 3 or later")
        if subarray is not None:
            base, shape = subarray
            self.value = np.dtype((_without_objects(base), shape))
        elif fields is not None:
            self.value = np.dtype(
                {
                    "names": list(names),
                    "formats": [_without_objects(fields[name][0]) for name in names],
                    "offsets": [int(fields[name][1]) for name in names],
                    "itemsize": int(itemsize),
                }
            )
        elif order in ("<", ">"):
            self.value = self.value.newbyteorder(order)


def _without_objects(dtype: Any) -> np.dtype:
    """A part of a dtype; numbers and text only."""
    if not isinstance(dtype, _Dtype) or dtype.value.hasobject:
        raise RefusedError("holds a structured array of objects; expected numbers and text")
    return dtype.value


class _Array:
    """An array in the making."""

    __slots__ = ("value", "waiting")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.value = np.empty(0, np.int8)
        self.waiting: list[Any] = []
        """Objects that go into the array when all of them are there."""

    def __setstate__(self, state: tuple) -> None:
        """Take shape, dtype and content from what NumPy pickled."""
        shape, dtype, is_fortran, data = state[-4:]
        self.fill(data, dtype, shape, "F" if is_fortran else "C")

    def fill(self, data: Any, dtype: Any, shape: Any, order: str) -> None:
        """Make the array."""
        if not isinstance(dtype, _Dtype):
            raise RefusedError("holds an array without a dtype")
        if dtype.value.hasobject:
            if not isinstance(data, list):
                raise RefusedError("holds an array of objects as bytes; such pointers are not read")
            self.waiting = data
            self.value = np.empty(len(data), object).reshape(shape)  # listed in order C always
            return
        flat = _numbers(data, dtype.value)
        self.value = flat.reshape(shape, order="F" if order == "F" else "C")


def _numbers(data: Any, dtype: np.dtype) -> np.ndarray:
    """A flat array of bytes, which Python 2 wrote as text; one that can be written to."""
    if isinstance(data, str):
        data = data.encode("latin1")
    return np.frombuffer(bytearray(data), dtype)


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _NDARRAY:
        raise RefusedError("holds an array of a class of its own; expected numpy.ndarray")
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: str, axis_order: Any = None) -> "_Array":
    array = _Array()
    array.fill(data, dtype, shape, order)
    if order == "K" and axis_order is not None:
        array.value = array.value.transpose(axis_order)
    return array


def _scalar(dtype: Any, data: Any = None) -> Any:
    if not isinstance(dtype, _Dtype):
        raise RefusedError("holds a scalar without a dtype")
    return data if dtype.value.hasobject else _numbers(data, dtype.value)[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):  # how protocols 0 to 2 write bytes
        raise RefusedError(f"holds bytes in the encoding {encoding!r}, expected latin1")
    return str.encode(text, "latin1")


def _bytes(*parts: Any) -> bytes:
    if parts:  # only empty bytes are written so
        raise RefusedError("holds bytes in a form that is not known")
    return b""


def _bytearray(data: bytes | str = b"", encoding: str = "latin1") -> bytearray:
    return bytearray(_encode(data, encoding) if isinstance(data, str) else memoryview(data))


def _never(*_: Any) -> Any:
    raise RefusedError("calls numpy.ndarray; expected an array as NumPy pickles it")


_NDARRAY = _Builder("numpy.ndarray", _never)
_BUILDERS: dict[tuple[str, str], _Builder] = {
    (module, name): _NDARRAY if name == "ndarray" else _Builder(f"{module}.{name}", build)
    for modules, name, build in (
        (("numpy",), "ndarray", _never),
        (("numpy",), "dtype", lambda spec, align=0, copy=1: _Dtype(spec)),
        (("numpy.core.multiarray", "numpy._core.multiarray"), "_reconstruct", _reconstruct),
        (("numpy.core.multiarray", "numpy._core.multiarray"), "scalar", _scalar),
        (("numpy.core.numeric", "numpy._core.numeric"), "_frombuffer", _from_buffer),
        (("collections",), "OrderedDict", OrderedDict),
        (("_codecs",), "encode", _encode),
        (("builtins", "__builtin__"), "bytes", _bytes),
        (("builtins", "__builtin__"), "bytearray", _bytearray),
        (("builtins", "__builtin__"), "set", set),
        (("builtins", "__builtin__"), "frozenset", frozenset),
        (("builtins", "__builtin__"), "complex", complex),
    )
    for module in modules
}


class _Finish:
    """Puts finished arrays into the place of those in the making, wherever they lie."""

    def __init__(self) -> None:
        self._done: dict[int, Any] = {}
        """What every container became, by its identity: things may hold each other."""
        self._tuples: list[tuple] = []
        """Tuples that were replaced; kept, so that no identity is given twice."""

    def finish(self, value: Any) -> Any:
        """The value with everything inside it finished; lists and dicts are changed in place."""
        kind = type(value)
        if kind in _PLAIN_TYPES:
            return value
        if kind is _Array:
            return self._array(value)
        if isinstance(value, np.generic):
            return value
        if kind is _Dtype:
            return value.value
        if id(value) in self._done:
            return self._done[id(value)]
        self._done[id(value)] = value
        if kind is list:
            value[:] = [self.finish(item) for item in value]
        elif kind is dict or kind is OrderedDict:
            if kind is OrderedDict and vars(value):
                raise RefusedError("holds a dict with attributes")
            for key, item in kind.items(value):
                value[key] = self.finish(item)
        elif kind is tuple:
            self._tuples.append(value)
            self._done[id(value)] = tuple([self.finish(item) for item in value])
        else:
            raise RefusedError("holds a function or class; expected arrays and plain containers")
        return self._done[id(value)]

    def _array(self, array: _Array) -> np.ndarray:
        """Fill an array of objects."""
        waiting, array.waiting = array.waiting, []
        if waiting:
            flat = array.value.reshape(-1)
            for row, item in enumerate(waiting):
                flat[row] = self.finish(item)
        return array.value
