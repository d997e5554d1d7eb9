"""Pickles give arrays and plain containers; whatever else they ask for is named and not done."""

import builtins
import copyreg
import datetime
import functools
import io
import os
import pickle
import subprocess
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest

from data_prep.readers.unpickle import load_npz, load_pickle, load_pickled_npy

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def load(tmp_path, data):
    path = tmp_path / "file.pkl"
    path.write_bytes(data)
    return load_pickle(path)


def assert_same(found, expected):
    """Equal values of equal types, arrays included."""
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        if expected.dtype.hasobject:
            assert_same(found.tolist(), expected.tolist())
        else:
            np.testing.assert_array_equal(found, expected)
            assert found.flags.writeable
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        assert_same(list(found.values()), list(expected.values()))
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


def objects(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


TABLE = np.zeros(
    3,
    [
        ("subject_idx", "i1"),
        ("frame_idx", ">i2"),
        ("keypoints", "<f4", (17, 3)),
        ("inner", [("name", "U5"), ("code", "S3")]),
    ],
)
TABLE["keypoints"] = np.random.default_rng(0).normal(size=(3, 17, 3))
TABLE["inner"]["name"] = ["a", "ä", "hello"]
ALIGNED = np.ones(2, np.dtype([("a", "i1"), ("b", "f8")], align=True))
VALUES = {
    "plain": {"a": [1, -(2**80), 2.5, None, True, "ä\n", b"\x00\xff", b""], ("k", 1): (1 + 2j, ())},
    "sets": [{1, 2}, frozenset("ab"), bytearray(b"\x01"), OrderedDict([("b", 1), ("a", [])])],
    "numbers": [np.arange(6, dtype=d).reshape(2, 3) for d in ("i1", "u4", "<i8", ">f4", "c16")],
    "text": [
        np.array(["S1", "Directions 1"]),
        np.array([b"x", b"yz"]),
        np.array([[True], [False]]),
    ],
    "orders": [np.asfortranarray(np.eye(3)[:2]), np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2)],
    "empty": [np.zeros((0, 3)), np.array(5.0), np.array(3, ">i2")],
    "scalars": [np.float32(3), np.int64(-1), np.bool_(True), np.str_("ab"), np.bytes_(b"c")],
    "table": [TABLE, TABLE[1:2], ALIGNED],
    "dtypes": [TABLE.dtype, np.dtype("f8"), np.dtype(">i4")],
    "objects": objects({"R": np.eye(3)}, "x", None, [np.zeros(2), (np.ones(1),)]),
    "grid": np.asfortranarray(objects(1, "b", (np.ones(2),), None, {}, []).reshape(2, 3)),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", VALUES)
def test_what_was_pickled_comes_back(tmp_path, kind, protocol):
    assert_same(load(tmp_path, pickle.dumps(VALUES[kind], protocol)), VALUES[kind])


@pytest.mark.parametrize("protocol", range(4))  # later ones state the length of a name
def test_names_of_older_and_newer_numpy_are_one(tmp_path, protocol):
    plain = pickle.dumps(TABLE["keypoints"].copy(), protocol).replace(b"numpy._core", b"numpy.core")
    for data in (plain, plain.replace(b"numpy.core", b"numpy._core")):
        assert_same(load(tmp_path, data), TABLE["keypoints"].copy())


def test_a_pickle_of_python_2_is_read(tmp_path):
    """As Python 2.7 with NumPy 1.16 writes {"S1": array([[1., 2.]]), "n": 3L, "s": set([1])}."""
    data = (
        b"\x80\x02}q\x00(U\x02S1q\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\n"
        b"q\x03K\x00\x85U\x01b\x87Rq\x04(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x05U\x02f8K\x00K\x01"
        b"\x87Rq\x06(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x10"
        + np.array([1.0, 2.0]).tobytes()
        + b"tbU\x01n\x8a\x01\x03U\x01sc__builtin__\nset\n]K\x01a\x85Ru."
    )
    assert_same(load(tmp_path, data), {"S1": np.array([[1.0, 2.0]]), "n": 3, "s": {1}})


def test_what_is_shared_stays_shared_and_circles_close(tmp_path):
    array, inner = np.ones(2), [1]
    circle = [array, (inner, inner)]
    circle.append(circle)
    grid = objects(None, inner)
    grid[0] = grid
    found, again = load(tmp_path, pickle.dumps((circle, grid)))
    assert found[2] is found
    assert found[1][0] is found[1][1]
    assert again[0] is again
    assert again[1] is found[1][0]


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Own:
    pass


ran = []


def run_me(*arguments):
    ran.append(arguments)


EVIL = {
    "os.system": Call(os.system, "touch pwned"),
    "builtins.eval": Call(eval, "run_me()"),
    "builtins.exec": Call(exec, "open('pwned', 'w')"),
    "builtins.getattr": Call(getattr, "a", "upper"),
    "builtins.open": Call(open, "pwned", "w"),
    "builtins.__import__": Call(builtins.__import__, "os"),
    "subprocess.Popen": Call(subprocess.Popen, ["touch", "pwned"]),
    "test_unpickle.run_me": Call(run_me, 1),
    "numpy.load": Call(np.load, "x.npy", None, True),
    "numpy.frombuffer": Call(np.frombuffer, b"abcdefgh"),
    "numpy.fromfile": Call(np.fromfile, "x"),
    "functools.partial": Call(functools.partial, print),
    "copyreg._reconstructor": Call(copyreg._reconstructor, Own, object, None),
    "datetime.date": datetime.date(2020, 1, 2),
    "collections.defaultdict": defaultdict(list),
    "collections.Counter": Counter("a"),
    "test_unpickle.Own": Own(),
    "numpy.matrix": np.array([[1]]).view(np.matrix),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", EVIL)
def test_another_name_is_refused_and_nothing_runs(tmp_path, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    ran.clear()
    for value in (EVIL[name], {"deep": [(EVIL[name],)]}, objects(EVIL[name])):
        with pytest.raises(ValueError, match=r"file\.pkl asks for \S+, which is neither") as caught:
            load(tmp_path, pickle.dumps(value, protocol))
        told = str(caught.value)
        assert "\n" not in told
        is_old = protocol < 2 and "_reconstructor" in told  # how they write objects
        assert is_old or name.rpartition(".")[2] in told
    assert ran == []
    assert os.listdir(tmp_path) == ["file.pkl"]


def hand(*parts):
    """A pickle of protocol 2 by hand."""
    return b"\x80\x02" + b"".join(parts) + b"."


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
NDARRAY = b"cnumpy\nndarray\n"
FLOATS = b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R"
POINTERS = b"cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R"
TEXT = b"U\x08" + b"A" * 8
MISUSE = {
    "another function in a permitted module": (
        hand(b"cnumpy.core.multiarray\nfromfile\nU\x01x\x85R"),
        "asks for numpy.core.multiarray.fromfile",
    ),
    "a name with a path": (
        hand(b"cnumpy\ncore.multiarray._reconstruct\n", NDARRAY, b"\x85R"),
        "asks for numpy.core.multiarray._reconstruct",
    ),
    "another class to reconstruct": (
        hand(RECONSTRUCT, b"c__builtin__\nset\nK\x00\x85U\x01b\x87R"),
        "holds an array of a class of its own",
    ),
    "an array that is called": (hand(NDARRAY, b"K\x05\x85\x85R"), "calls numpy.ndarray"),
    "an array without pickle's help": (hand(NDARRAY, b"K\x05\x85\x81"), "not readable"),
    "pointers as bytes": (
        hand(RECONSTRUCT, NDARRAY, b"K\x00\x85U\x01b\x87R(K\x01K\x01\x85", POINTERS, b"\x89")[:-1]
        + TEXT
        + b"tb.",
        "holds an array of objects as bytes",
    ),
    "pointers in a field whose flags deny it": (
        hand(
            b"cnumpy\ndtype\nU\x02V8K\x00K\x01\x87R(K\x03U\x01|NU\x01a\x85}U\x01a",
            POINTERS,
            b"K\x00\x86sK\x08K\x08K\x00tb",
        ),
        "holds a structured array of objects",
    ),
    "fields beyond the item": (
        hand(
            b"cnumpy\ndtype\nU\x02V8K\x00K\x01\x87R(K\x03U\x01|NU\x01a\x85}U\x01a",
            FLOATS,
            b"K\x64\x86sK\x08K\x08K\x00tb",
        ),
        "not readable",
    ),
    "a dtype of text that is code": (
        hand(b"cnumpy\ndtype\nU\x03m8,K\x00K\x01\x87R"),
        r"holds a dtype 'm8,'",
    ),
    "more items than bytes": (
        hand(RECONSTRUCT, NDARRAY, b"K\x00\x85U\x01b\x87R(K\x01K\xff\x85", FLOATS, b"\x89")[:-1]
        + TEXT
        + b"tb.",
        "not readable",
    ),
    "a changed builder": (
        hand(b"cnumpy\ndtype\n}U\x06_buildK\x01sb"),
        "wants to change numpy.dtype",
    ),
    "a changed class": (
        hand(b"ccollections\nOrderedDict\n}U\x05itemsK\x01sb"),
        "wants to change collections.OrderedDict",
    ),
    "a dict with attributes": (
        hand(b"ccollections\nOrderedDict\n)R}U\x05itemsK\x01sb"),
        "holds a dict with attributes",
    ),
    "an array as a key": (
        hand(b"}", RECONSTRUCT, NDARRAY, b"K\x00\x85U\x01b\x87RNs"),
        "not readable",
    ),
    "a function as a value": (hand(b"]", NDARRAY, b"a"), "holds a function or class"),
    "an object from elsewhere": (hand(b"U\x01xQ"), "asks for an object from elsewhere"),
    "an extension": (hand(b"\x82\x01"), "not readable"),
    "bytes in another encoding": (
        hand(b"c_codecs\nencode\nX\x01\x00\x00\x00aU\x05rot13\x86R"),
        "holds bytes in the encoding 'rot13'",
    ),
    "a scalar of pointers": (
        hand(b"cnumpy.core.multiarray\nscalar\n", FLOATS, b"U\x01x\x86R"),
        "not readable",
    ),
    "old instances": (b"(i__main__\nOwn\n.", "asks for __main__.Own"),
    "old objects": (b"(cos\nsystem\nS'touch pwned'\no.", "asks for os.system"),
}


@pytest.mark.parametrize("kind", MISUSE)
def test_misuse_of_what_is_permitted_is_refused(tmp_path, kind):
    data, message = MISUSE[kind]
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path, data)
    assert str(caught.value).startswith(str(tmp_path / "file.pkl"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_cut_and_most_flipped_bytes_end_in_one_line(tmp_path, protocol):
    data = pickle.dumps({"table": TABLE[:1], "list": [np.ones(2), ("a", 1)]}, protocol)
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"file\.pkl ") as caught:
            load(tmp_path, data[:length])
        assert "\n" not in str(caught.value)
    rng, told = np.random.default_rng(0), []
    for _ in range(300):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] = rng.integers(256)
        try:
            load(tmp_path, bytes(damaged))
        except ValueError as error:
            told.append(str(error))
    assert len(told) > 50
    assert all("file.pkl " in line and "\n" not in line for line in told)


def test_a_line_end_in_a_name_does_not_split_the_line(tmp_path):
    with pytest.raises(ValueError, match=r"asks for o s\.sys tem, which") as caught:
        load(tmp_path, b"\x80\x04\x8c\x03o\ns\x8c\x07sys\ntem\x93.")
    assert "\n" not in str(caught.value)


def test_a_file_of_another_kind_or_none_is_named(tmp_path):
    for data in (
        b"",
        b"<html>\nQuota exceeded</html>",
        b"version https://git-lfs\noid",
        b"\x89HDF",
    ):
        with pytest.raises(ValueError, match=r"file\.pkl is not readable .*fetch it again"):
            load(tmp_path, data)
    with pytest.raises(ValueError, match=r"nothing\.pkl cannot be read: No such file"):
        load_pickle(tmp_path / "nothing.pkl")


def test_object_arrays_of_npy_and_npz_files_are_read(tmp_path):
    content = {"S1": {"Directions 1": np.ones((2, 32, 3), np.float32)}, "names": ["a"]}
    np.save(tmp_path / "labels.npy", content, allow_pickle=True)
    assert_same(load_pickled_npy(tmp_path / "labels.npy").item(), content)
    np.save(tmp_path / "grid.npy", VALUES["grid"], allow_pickle=True)
    assert_same(load_pickled_npy(tmp_path / "grid.npy"), VALUES["grid"])
    np.save(tmp_path / "plain.npy", TABLE)
    assert_same(load_pickled_npy(tmp_path / "plain.npy"), TABLE)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "all.npz", positions_3d=content, S=np.eye(3), names=np.array(["a", "b"]))
        found = load_npz(tmp_path / "all.npz", ["positions_3d", "S", "names"])
        assert_same(found["positions_3d"].item(), content)
        assert_same(found["S"], np.eye(3))
        assert_same(found["names"], np.array(["a", "b"]))
    with pytest.raises(ValueError, match=r"all\.npz has no array 'part', only S, names, pos"):
        load_npz(tmp_path / "all.npz", ["part"])


def test_npy_and_npz_files_that_do_harm_or_are_damaged_are_refused(tmp_path):
    np.save(tmp_path / "evil.npy", objects(EVIL["os.system"]), allow_pickle=True)
    np.savez(tmp_path / "evil.npz", a=objects(EVIL["numpy.load"]))
    with pytest.raises(ValueError, match=r"evil\.npy asks for \w+\.system, which is neither"):
        load_pickled_npy(tmp_path / "evil.npy")
    with pytest.raises(ValueError, match=r"evil\.npz asks for numpy\S*\.load, which is neither"):
        load_npz(tmp_path / "evil.npz", ["a"])
    wrong = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        wrong, {"descr": "|O", "fortran_order": False, "shape": (7,)}
    )
    (tmp_path / "wrong.npy").write_bytes(wrong.getvalue() + pickle.dumps(objects(1)))
    with pytest.raises(ValueError, match=r"holds no array of the shape \(7,\)"):
        load_pickled_npy(tmp_path / "wrong.npy")
    np.save(tmp_path / "whole.npy", TABLE)
    np.savez(tmp_path / "whole.npz", a=TABLE)
    for name, read in (("npy", load_pickled_npy), ("npz", lambda path: load_npz(path, ["a"]))):
        data = (tmp_path / f"whole.{name}").read_bytes()
        (tmp_path / f"cut.{name}").write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(ValueError, match=rf"cut\.{name} is not readable"):
            read(tmp_path / f"cut.{name}")
