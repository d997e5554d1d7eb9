"""What is written comes back; a damaged file ends in one line that names it, never a traceback."""

import io
import zipfile

import numpy as np
import pytest

from pose3d.evaluation.npz import read_npz, write_npz


def test_arrays_come_back_and_no_temporary_is_left(tmp_path):
    arrays = {"mean": np.arange(6.0).reshape(2, 3), "name": np.array(["größer", "a"])}
    path = write_npz(tmp_path / "folder" / "results.npz", arrays)
    again = read_npz(path)
    assert set(again) == set(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(again[name], values)
    assert [file.name for file in path.parent.iterdir()] == ["results.npz"]


def npy(header, data=b""):
    """An array's file with this header."""
    text = header.encode("latin1")
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def archive(path, content, *, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("mean.npy", content)


def damage_bytes(path, find, change):
    content = bytearray(path.read_bytes())
    start = content.find(find)
    assert start >= 0
    content[start : start + len(change)] = change
    path.write_bytes(content)


def break_packing(path):
    archive(path, np.random.default_rng(0).bytes(5000))
    damage_bytes(path, b"mean.npy", b"mean.npy" + b"\xff" * 60)


def unknown_packing(path):
    archive(path, npy("{}"), compression=zipfile.ZIP_STORED)
    content = path.read_bytes()
    content = content.replace(b"PK\x03\x04\x14\0\0\0\0\0", b"PK\x03\x04\x14\0\0\0\x63\0")
    central = content.index(b"PK\x01\x02")
    path.write_bytes(content[: central + 10] + b"\x63\0" + content[central + 12 :])


def save_objects(path):
    np.savez(path, mean=np.array([{}, []], dtype=object))


def save_single(path):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    path.write_bytes(buffer.getvalue())


HEADER = "{'descr': '<f8', 'fortran_order': False, 'shape': (%s,), }\n"
DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello"),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "broken packing": break_packing,
    "unknown packing": unknown_packing,
    "header of no Python": lambda path: archive(path, npy("{'descr': '<f8', (((\n")),
    "header that ends": lambda path: archive(path, npy('{"""\n')),
    "header of no dictionary": lambda path: archive(path, npy("1 2\n")),
    "header of too much": lambda path: archive(path, npy(HEADER % 10**17)),
    "header of far too much": lambda path: archive(path, npy(HEADER % 10**30)),
    "type unknown": lambda path: archive(path, npy(HEADER.replace("<f8", "<q9") % 3)),
    "too little data": lambda path: archive(path, npy(HEADER % 3, b"\0" * 8)),
    "objects": save_objects,
    "a single array": save_single,
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_file_ends_in_one_line_that_names_it(tmp_path, kind):
    path = write_npz(tmp_path / "results.npz", {"mean": np.arange(600.0)})
    DAMAGES[kind](path)
    with pytest.raises(ValueError, match=r"results\.npz: not a readable npz") as caught:
        read_npz(path)
    assert "\n" not in str(caught.value)


def test_any_single_damaged_byte_is_read_or_refused(tmp_path):
    path = write_npz(tmp_path / "results.npz", {"mean": np.arange(20.0), "a": np.array("text")})
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = []
    for position in range(len(whole)):
        content = bytearray(whole)
        content[position] ^= int(rng.integers(1, 256))
        path.write_bytes(content)
        try:
            read_npz(path)
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > len(whole) / 3
    assert all("results.npz: not a readable npz" in message for message in refused)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "nothing.npz")
