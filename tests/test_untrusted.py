"""Archives of arrays and text files that anybody may have made."""

import io
import struct
import zipfile

import numpy as np
import pytest

from sean_jax import npz
from sean_jax.errors import UserError
from sean_jax.untrusted import parse_json


def header(text: str, data: bytes = bytes(16)) -> bytes:
    """An ``.npy`` file with that header."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data


def described(**changes: object) -> bytes:
    return header(str({"descr": "<f4", "fortran_order": False, "shape": (4,)} | changes))


def archive(*members: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as opened:
        for number, member in enumerate(members):
            opened.writestr(f"x{number}.npy", member)
    return buffer.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_as_numpy_reads_them(tmp_path, save):
    arrays = {
        "float": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
        "empty": np.zeros((0, 5), np.int64),
        "scalar": np.array(7),
        "text": np.array("größe"),
        "bool": np.array([True, False]),
    }
    save(tmp_path / "x.npz", **arrays)
    found = npz.read(tmp_path / "x.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def object_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive(object_array()), "Python objects"),
        (archive(described(shape=(2**40,))), "damaged"),
        (archive(described(shape=(2**40, 2**40))), "damaged"),
        (archive(described(shape=(-1,))), "shape"),
        (archive(described(descr="|S1000000000")), "damaged"),
        (archive(described(descr="|V0")), "damaged"),
        (archive(header("(" * 5000)), "damaged"),
        (archive(header("{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': ()}")), "damaged"),
        (archive(described(), compression=zipfile.ZIP_LZMA), "NumPy does not write"),
        (archive(described(shape=(2**25,)) + bytes(2**27), compression=zipfile.ZIP_DEFLATED), "it unpacks to 13421"),
        (described(), "not an .npz file"),
        (b"", "not an .npz file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_archives_are_refused(tmp_path, content, message):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.npz is damaged or not an \.npz file \(.*{message}|{message}"):
        npz.read(tmp_path / "x.npz")


def test_declared_sizes_are_compared_with_the_file(tmp_path):
    content = bytearray(archive(described()))
    entry = content.rfind(b"PK\x01\x02")
    content[entry + 20 : entry + 24] = struct.pack("<I", 2**31 - 1)
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match="it declares more than it holds"):
        npz.read(tmp_path / "x.npz")


def test_json_is_read_unless_it_is_deep_or_cannot_be_printed():
    assert parse_json('{"a": [1, 2.5, null, "x"], "b": 18446744073709551615}') == {
        "a": [1, 2.5, None, "x"],
        "b": 2**64 - 1,
    }
    assert parse_json("[" * 20 + "]" * 20)
    for text in ("[" * 22 + "]" * 22, "[" * 100_000, '{"a":' * 100_000):
        with pytest.raises(ValueError, match="more than 20 deep"):
            parse_json(text)
    for text in ('"\\ud800"', '{"a": {"\\udfff": 1}}'):
        with pytest.raises(ValueError, match="surrogate"):
            parse_json(text)
    for text in (f"[{2**64}]", "9" * 4000):
        with pytest.raises(ValueError, match="64 bits"):
            parse_json(text)
