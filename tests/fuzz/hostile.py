"""Files of the other formats as somebody might craft them."""

import io
import json
import random
import struct
import zipfile
import zlib

from mutate import png, zipped
from PIL import Image

_HUGE = (2**15, 100_000, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def safetensors(rng: random.Random) -> bytes:
    """Headers with offsets that overlap, leave gaps or lie outside, with huge shapes, or that are no such thing."""
    big = rng.choice((2**31, 2**40, 2**62, 2**63, 2**64 - 1, 10**30))
    dtype = rng.choice(("F32", "F64", "BF16", "F8_E4M3", "F4", "I64", "BOOL", "C64", "x", 1))
    entry = {"dtype": dtype, "shape": [4, 4], "data_offsets": [0, 64]}
    count = rng.choice((1, 100, 20000))
    header = rng.choice(
        (
            *({"a": entry, "b": entry}, {"a": entry | {"data_offsets": [0, big]}}, {"a": entry | {"shape": [big]}}),
            *(
                {"a": entry | {"shape": [0, big]}},
                {"a": entry | {"shape": [1] * 100 + [16]}},
                {"a": entry | {"shape": -1}},
            ),
            *({"a": entry | {"data_offsets": [64, 0]}}, {"a": entry | {"data_offsets": [8, 72]}}, {"a": []}, [], "x"),
            *({"a": entry, "__metadata__": {"sean_jax": metadata(rng)}}, {"a": entry, "__metadata__": {"sean_jax": 1}}),
            *({f"a{i}.features.0.weight": entry | {"shape": [0], "data_offsets": [0, 0]} for i in range(count)},),
            *({"features." + "9" * count + ".weight": entry}, {"\x1b[2J" * count: entry}, {"": entry}),
        )
    )
    text = json.dumps(header).encode()
    if rng.random() < 0.1:
        text = rng.choice((b"[" * 100_000, b'{"a":' * 100_000, b"{" + b" " * 10**6 + b"}", b"\xff" * 10))
    length = len(text) if rng.random() < 0.85 else rng.choice((0, 2**31, 2**63, 2**64 - 1, len(text) + 1))
    return struct.pack("<Q", length) + text + bytes(64)


def metadata(rng: random.Random) -> str:
    """What stands beside the tensors, in a form that this project did not write."""
    deep = rng.choice(("[", '{"a":')) * rng.choice((100, 100_000))
    return rng.choice(
        (deep, "1", "null", "{", '{"architecture": {"name": []}}', '{"input_convention": {}}', "1" * 5000)
    )


def npz(rng: random.Random) -> bytes:
    """Arrays of objects, declared shapes that no file could fill, and members that unpack to far more."""
    shape = rng.choice(((2**40,), (2**20, 2**20), (0, 2**62), (-1,), (-2, -8), (4,) * 70, (10**40,), (True, 16), ()))
    dtype = rng.choice(
        ("<f4", "|O", "|V0", "<U0", ">f8", "<c16", "|S1000000000", "[('a', '<f4')]", "<M8[s]", "x", "<f2")
    )
    head = {"descr": dtype, "fortran_order": rng.choice((True, False, 1)), "shape": shape}
    made = rng.choice(
        (
            *(_npy(str(head)), _npy(str(head | {"shape": (4, 4), "descr": "<f4"})), _npy("(" * 5000), _npy("9" * 9000)),
            *(_npy("{" * 200 + "}" * 200), _npy(str(head), version=rng.randrange(5)), b"\x93NUMPY", b""),
            *(_npy("-" * 9000 + "1"), _npy(str(head), length=rng.choice(_HUGE))),
            _npy("{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': ()}"),
            _npy(str({"descr": "<f4", "fortran_order": False, "shape": (10**7,)}), bytes(4 * 10**7)),
        )
    )
    name = rng.choice(
        ("features.0.weight.npy", "seed.npy", "__sean_jax__.npy", "../../x.npy", "/tmp/x.npy", "x", "x.npy")
    )
    members = [(name, made)] * rng.choice((1, 1, 2))
    compression = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    if rng.random() < 0.1:
        members = [("a.npz", zipped([("b.npz", zipped(members, compression))], compression))]
    content = zipped(members, compression)
    if rng.random() < 0.2:
        return made  # not in an archive
    return _declared(rng, content) if rng.random() < 0.2 else content


def _npy(header: str, data: bytes = bytes(64), version: int = 1, length: int | None = None) -> bytes:
    text = header.encode() + b"\n"
    length = len(text) if length is None else length
    size = struct.pack("<H", length % 2**16) if version == 1 else struct.pack("<I", length % 2**32)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def _declared(rng: random.Random, archive: bytes) -> bytes:
    """An archive whose directory declares other sizes."""
    changed = bytearray(archive)
    place = archive.rfind(b"PK\x01\x02")
    for field in rng.sample((20, 24, 42, 8, 10), 2):  # compressed and whole size, offset, flags, method
        width = 4 if field in (20, 24, 42) else 2
        changed[place + field : place + field + width] = (rng.choice(_HUGE) % 256**width).to_bytes(width, "little")
    return bytes(changed)


def image(rng: random.Random) -> bytes:
    """Sizes that no pixels follow, texts and profiles that unpack to far more, formats that call other programs."""
    width, height = rng.choice(_HUGE), rng.choice((1, 8, *_HUGE))
    match rng.randrange(9):
        case 0 | 1:
            depth, colors = rng.choice(
                ((1, 0), (8, 0), (16, 0), (8, 2), (16, 2), (8, 3), (8, 4), (8, 6), (16, 6), (3, 9))
            )
            side = rng.choice(((width, height), (20000, 20000), (23000, 23000), (12000, 12000)))
            header = struct.pack(">IIBBBBB", *side, depth, colors, 0, 0, rng.choice((0, 1)))
            rows = zlib.compress(bytes(rng.choice((10, 10**6))))
            return png([(b"IHDR", header), (b"PLTE", bytes(768)), (b"IDAT", rows), (b"IEND", b"")])
        case 2 | 3:
            bomb = zlib.compress(bytes(rng.choice((10**6, 5 * 10**7))))
            text = rng.choice(
                ((b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iTXt", b"a\0\0\0\0\0"))
            )
            kind, head = text
            header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
            rows = zlib.compress(bytes(72))
            repeated = [(kind, head + bomb)] * rng.choice((1, 20, 200))
            return png([(b"IHDR", header), *repeated, (b"IDAT", rows), (b"IEND", b"")])
        case 4:
            return b"P%d\n%d %d\n%d\n" % (
                rng.choice((1, 4, 5, 6, 7)),
                width,
                height,
                rng.choice((1, 255, 65535)),
            ) + bytes(99)
        case 5:
            return b"BM" + struct.pack(
                "<IIIIiiHHIIiiII", 99, 0, 54, 40, width % 2**31, height % 2**31, 1, 24, 0, 0, 1, 1, 0, 0
            )
        case 6:
            return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(x) print\nshowpage\n%%EOF\n"
        case 7:
            tags = [
                (256, 4, 1, width),
                (257, 4, 1, height),
                (258, 3, 1, 8),
                (259, 3, 1, rng.choice((1, 5, 8, 4, 34712))),
            ]
            tags += [(262, 3, 1, 1), (273, 4, rng.choice((1, *_HUGE)), 8), (277, 3, 1, 1), (278, 4, 1, height)]
            tags += [(279, 4, 1, 16), (274, rng.choice((3, 5, 7)), rng.choice((1, *_HUGE)), 6), (320, 3, 768, 0)]
            entries = b"".join(
                struct.pack("<HHII", tag, kind, count, value) for tag, kind, count, value in sorted(tags)
            )
            return b"II*\0\x18\0\0\0" + bytes(16) + struct.pack("<H", len(tags)) + entries + bytes(4)
        case _:
            plain = io.BytesIO()
            kind = rng.choice(("WEBP", "TIFF", "PNG", "GIF", "AVIF"))
            mode, side = rng.choice((("1", 9000), ("L", 9000), ("RGB", 3000), ("P", 5000)))
            side = side if kind in ("TIFF", "PNG", "GIF") else 3000  # others have no bound but that of all images
            options = {
                "TIFF": {"compression": "group4" if mode == "1" else "tiff_adobe_deflate"},
                "WEBP": {"lossless": True},
            }
            Image.new(mode, (side, side)).save(plain, kind, **options.get(kind, {}))
            return plain.getvalue()


def toml(rng: random.Random) -> bytes:
    """Deep nesting, numbers too long to print, patterns that match in exponentially many ways."""
    size = rng.choice((100, 3000, 100_000))
    digits = min(size, 30_000)
    name, classes = 'name = "x"\n', '[[classes]]\nname = "a"\nid = 1\n'
    split = '[splits.train]\nimages = "images/*.png"\nlabels = "labels/*.png"\n'
    stars = "*a" * rng.choice((3, 20, 100))
    return rng.choice(
        (
            *("x = " + "[" * size, "x = " + "[" * size + "]" * size, "x = " + "{a=" * size + "1" + "}" * size),
            *(".".join("a" * min(size, 20000)) + " = 1", "[" + ".".join("a" * min(size, 20000)) + "]"),
            *(
                name + split + classes.replace("1", "0x" + "f" * digits),
                name + split + classes.replace("1", "9" * digits),
            ),
            *(
                name + split + f"frames = [0, 0x{'f' * digits}]\n" + classes,
                name + split + classes.replace("1", "[1, 1e400]"),
            ),
            *(name + split.replace("*", stars) + classes, name + split.replace("*", "?" * size) + classes),
            *(name + split + classes * min(size, 3000), name + split + classes + f"x.y = {'[' * 50}{']' * 50}\n"),
            *(
                name + split.replace("labels/", "/proc/self/") + classes,
                name + split.replace("images", "\\u0000") + classes,
            ),
            *('x = """' + '\\"' * size, "x = '''" + "'" * size, 'x = "' + "\\u001b" * 50 + '"', "# " + "x" * size),
            *(name + split + classes.replace('"a"', '"\\u001b[2J"') * 2, "x = 1979-05-27T25:61:00Z", "\0", "\xff"),
            *(
                "".join(f"[a{i}]\n" for i in range(min(size, 5000))),
                "".join(f"a.b{i} = 1\n" for i in range(min(size, 5000))),
            ),
            *(name + split + classes.replace('"a"', f'"{"a" * size}"') * 2, name + f"[splits.{'a' * size}]\nimages=1"),
        )
    ).encode("latin-1")


def json_text(rng: random.Random) -> bytes:
    """JSON that is deep, long, or of values out of range."""
    size = rng.choice((100, 3000, 100_000))
    return rng.choice(
        (
            *("[" * size, "[" * size + "]" * size, '{"a":' * size + "1" + "}" * size, "9" * min(size, 50_000), "1e999"),
            *('"' + "\\ud800" * 9 + '"', '{"confusion_matrix": ' + "[" * size + "]" * size + ', "network": "x"}'),
            *("{}", "[]", "null", "NaN", '{"version": 1, "settings": ' + "[" * size, "", "\0", '{"a": 1, "a": 2}'),
        )
    ).encode()
