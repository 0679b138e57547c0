"""Damages files: at random, and inside their structure with checksums and lengths made right again."""

import io
import json
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence

PNG = b"\x89PNG\r\n\x1a\n"
_EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)


def damaged(rng: random.Random, content: bytes, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """``content`` after one to four random changes.

    Args:
      rng: decides.
      content: a file, or a part of one.
      others: of its kind, to splice parts of.
      tokens: with a meaning in the format, to insert.
    """
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        a, b = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        b = min(b, a + rng.choice((1, 4, 16, 256, 4096)))
        match rng.randrange(9):
            case 0 if data:
                for _ in range(rng.choice((1, 1, 2, 8))):
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1 if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
            case 2:
                del data[rng.randrange(len(data) + 1) :]
            case 3:
                del data[a:b]
            case 4:
                data[a:a] = data[a:b] * rng.choice((1, 2, 50))
            case 5:
                width = rng.choice((1, 2, 4, 8))
                number = rng.choice(_EXTREMES) % 256**width
                data[a : a + width] = number.to_bytes(width, rng.choice(("little", "big")))
            case 6 if others:
                other = rng.choice(others)
                c = rng.randrange(len(other) + 1)
                data[a:b] = other[c : c + rng.choice((4, 64, 1024, len(other)))]
            case 7 if tokens:
                data[a : rng.choice((a, b))] = rng.choice(tokens)
            case _:
                data[a:b] = rng.randbytes(b - a)
    return bytes(data)


def in_zip(rng: random.Random, content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A zip archive with one member changed, renamed, doubled or left out; checksums are right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    place = rng.randrange(len(members))
    name, data = members[place]
    match rng.randrange(8):
        case 0:
            members.append((name, change(data)))
        case 1:
            del members[place]
        case 2:
            members[place] = (rng.choice(("", "../../x", "/tmp/x", name + "/", "a" * 70000, name.upper())), data)
        case _:
            if rng.random() < 0.5:  # the pickle of a PyTorch file, where it begins
                place, (name, data) = 0, members[0]
            members[place] = (name, change(data))
    return zipped(members, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def zipped(members: Sequence[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive; names may occur twice."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of doubled names
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name[:65535]), data, compression)
    return buffer.getvalue()


def in_png(rng: random.Random, content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A PNG with one chunk changed, doubled, moved or left out; lengths and checksums are right."""
    chunks, start = [], len(PNG)
    while start + 12 <= len(content):
        length = int.from_bytes(content[start : start + 4], "big")
        chunks.append((content[start + 4 : start + 8], content[start + 8 : start + 8 + length]))
        start += 12 + length
    place = rng.randrange(len(chunks))
    kind, data = chunks[place]
    match rng.randrange(6):
        case 0:
            chunks.insert(rng.randrange(len(chunks)), (kind, data))
        case 1:
            del chunks[place]
        case 2:
            rng.shuffle(chunks)
        case _:
            chunks[place] = (kind, change(data))
    return png(chunks)


def png(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A PNG of these chunks: kind and data."""
    return PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def in_safetensors(rng: random.Random, content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A safetensors file with its header changed, as bytes or as JSON, and the header's length made right."""
    length = int.from_bytes(content[:8], "little")
    header, body = content[8 : 8 + length], content[8 + length :]
    header = change(header) if rng.random() < 0.3 else in_json(rng, header)
    return len(header).to_bytes(8, "little") + header + body


def in_json(rng: random.Random, content: bytes) -> bytes:
    """JSON with one to three of its values replaced, doubled or left out."""
    tree = json.loads(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        tree = _changed(rng, tree)
    return json.dumps(tree).encode()


def odd_value(rng: random.Random) -> object:
    """A value of JSON that nobody expects."""
    return rng.choice(
        (
            *(None, True, False, 0, -1, 1, 2, 0.5, -0.0, 255, 256, 2**31, 2**53 + 1, -(2**63), 2**64, 10**100, 1e300),
            *(
                float("nan"),
                float("inf"),
                "",
                "x",
                "1",
                "\0",
                "\x1b[2J",
                "\ud800",
                "é",
                "../x",
                "a" * 5000,
                "/dev/zero",
            ),
            *([], {}, [[]], [{}], {"": {}}, [None], ["x"], [1, 2, 3], {"name": "x"}, [[1.5]], [[-1]]),
        )
    )


def _changed(rng: random.Random, tree: object) -> object:
    """A copy of ``tree`` in which one value, at any depth, is another."""
    if isinstance(tree, dict) and tree and rng.random() < 0.9:
        key = rng.choice(list(tree))
        changed = dict(tree)
        match rng.randrange(8):
            case 0:
                del changed[key]
            case 1:
                changed[str(odd_value(rng))] = changed.pop(key)
            case _:
                changed[key] = _changed(rng, tree[key])
        return changed
    if isinstance(tree, list) and tree and rng.random() < 0.8:
        place, changed = rng.randrange(len(tree)), list(tree)
        match rng.randrange(6):
            case 0:
                del changed[place]
            case 1:
                changed.insert(place, tree[place])
            case _:
                changed[place] = _changed(rng, tree[place])
        return changed
    return odd_value(rng)
