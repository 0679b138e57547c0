"""Pickles as somebody might craft them, in both of PyTorch's file formats."""

import pickle
import pickletools
import random
import struct
from collections.abc import Callable, Sequence

from mutate import zipped

_HEAD = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})


def torch_file(program: bytes, storages: dict[str, bytes], legacy: bool) -> bytes:
    """A file as ``torch.save`` writes it around the pickle ``program``; storages are of float32."""
    if not legacy:
        data = [(f"archive/data/{key}", content) for key, content in storages.items()]
        return zipped([("archive/data.pkl", program), *data])
    head = b"".join(pickle.dumps(part, 2) for part in _HEAD)
    rest = b"".join(struct.pack("<q", len(content) // 4) + content for content in storages.values())
    return head + program + pickle.dumps(list(storages), 2) + rest


def text(value: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    encoded = pickle.encode_long(value)
    return pickle.LONG4 + struct.pack("<i", len(encoded)) + encoded


def name(module: str, attribute: str) -> bytes:
    return b"c" + f"{module}\n{attribute}\n".encode()


def tensor(size: Sequence[int], stride: Sequence[int], key: str = "0", numel: int = 16, offset: int = 0) -> bytes:
    """The pickle of a float32 tensor."""
    storage = b"(" + text("storage") + name("torch", "FloatStorage") + text(key) + text("cpu") + number(numel) + b"tQ"
    shape = [b"(" + b"".join(map(number, values)) + b"t" for values in (size, stride)]
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + number(offset) + b"".join(shape) + b"\x89NtR"


def state_dict(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A whole pickle of a dictionary, whose keys and values are pickled already."""
    return b"\x80\x02}(" + b"".join(key + value for key, value in entries) + b"u."


_VALUE = tensor((4, 4), (4, 1))
_CALLS = (("os", "system"), ("posix", "system"), ("builtins", "eval"), ("builtins", "exec"), ("subprocess", "call"))
_CALLS += (("__builtin__", "eval"), ("importlib", "import_module"), ("torch", "load"), ("builtins", "getattr"))
_CALLS += (("numpy", "load"), ("shutil", "rmtree"), ("torch._utils", "_rebuild_tensor_v2.__globals__"))


def _call(rng: random.Random, _: int) -> bytes:
    """A call of something dangerous, by each opcode that can call."""
    module, attribute = rng.choice(_CALLS)
    argument = text("touch /tmp/sean_jax_fuzz_canary")
    called = name(module, attribute)
    by_text = text(module) + text(attribute) + b"\x93"
    made = (
        *(called + b"(" + argument + b"tR", by_text + b"(" + argument + b"tR", called + argument + b"\x85\x81"),
        *(b"(" + argument + f"i{module}\n{attribute}\n".encode(), b"(" + called + argument + b"o"),
        *(called + argument + b"\x85}\x92", called + b")R" + argument + b"b", called + argument + b"b"),
        *(
            called + b")R}" + argument + called + b"sb",
            b"\x82\x01",
            b"\x84\x01\x00\x00\x00",
            argument + b"Q",
            b"\x97\x98",
        ),
    )
    return state_dict([(text("weight"), rng.choice(made)), (text("x"), _VALUE)])


def _deep(rng: random.Random, size: int) -> bytes:
    opened = (
        (b"]" * size, b"a" * (size - 1)),
        (b"}" * 1, (text("k") + b"}") * size + b"s" * size),
        (b")", b"\x85" * size),
    )
    begin, end = rng.choice(opened)
    if rng.random() < 0.5:
        return b"\x80\x02" + begin + end + b"."
    return state_dict([(begin + end, _VALUE) if begin == b")" else (text("k"), begin + end), (text("x"), _VALUE)])


def _memo(rng: random.Random, _: int) -> bytes:
    index = struct.pack("<I", rng.choice((2**24, 2**28, 2**31, 2**32 - 1)))
    return b"\x80\x02}" + rng.choice((b"r" + index, b"p" + str(10 ** rng.choice((8, 12, 30))).encode() + b"\n")) + b"."


def _length(rng: random.Random, _: int) -> bytes:
    size = struct.pack("<Q", rng.choice((2**31, 2**33, 2**40, 2**62, 2**63 - 1, 2**64 - 1)))
    four = rng.choice((b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x00\x00\x00\x40"))
    return b"\x80\x05" + rng.choice(
        (
            *(code + size for code in (b"\x8d", b"\x8e", b"\x96", b"\x95")),
            *(code + four for code in (b"X", b"B", b"T", b"\x8b")),
        )
    )


def _laughs(rng: random.Random, size: int) -> bytes:
    """A structure in which each level holds the one below twice, or one that holds itself."""
    levels = min(size, 250)
    begin, end = rng.choice(((b"](", b"e"), (b"(", b"t"), (b"}(", b"u")))
    level = b"".join(
        b"q" + bytes([i]) + begin + (text("a") if end == b"u" else b"") + b"h" + bytes([i])
        + (text("b") if end == b"u" else b"") + b"h" + bytes([i]) + end
        for i in range(levels)
    )  # fmt: skip
    return b"\x80\x02" + _VALUE + level + b"."


def _copies(rng: random.Random, size: int) -> bytes:
    """A large object that is copied once for every few bytes."""
    big = rng.choice((b"](" + b"K\x01" * size + b"e", b"(" + b"K\x01" * size + b"t"))
    table = b"}(" + b"".join(b"K" + bytes([i % 256]) + b"N" for i in range(size)) + b"u"
    table = b"}(" + b"".join(number(i) + b"N" for i in range(size)) + b"u" if rng.random() < 0.5 else table
    maker, big = rng.choice(
        (
            *((name("torch", "Size"), big), (name("collections", "OrderedDict"), table), (name("os", "x"), table)),
            (name("builtins", "set"), big),
        )
    )
    use = rng.choice((b"h\x00h\x01\x85R", b"h\x00)Rh\x01b", b"h\x00)Rh\x01\x85b"))
    return b"\x80\x02](" + maker + b"q\x00" + big + b"q\x01" + use * size + b"e."


def _names(rng: random.Random, size: int) -> bytes:
    """State dicts with hostile names of tensors."""
    layer = rng.choice(("conv1_1.weight", "features.0.weight", "0.weight", "features.0.running_mean"))
    digits = "9" * min(size, 60000)
    names = rng.choice(
        (
            *([f"a{i}.{layer}" for i in range(size)], [f"{'a.' * i}{layer}" for i in range(min(size, 900))]),
            *(["module." * size + "x"], ["a." * size + layer], [f"features.{digits}.running_mean"]),
            *(
                [f"features.{digits}.weight"],
                ["\x1b]0;x\x07\x1b[2J.weight"],
                ["\n" * size + layer],
                ["features.٣.weight"],
            ),
            *([f"{i}\x1b[31m.weight" for i in range(min(size, 3000))], ["x" * size]),
        )
    )
    return state_dict([(text(key), _VALUE) for key in names])


def _globals(_: random.Random, size: int) -> bytes:
    return b"\x80\x02](" + b"".join(b"ca\n%x\n" % i for i in range(size)) + b"e."


def _views(rng: random.Random, size: int) -> bytes:
    """Tensors that take more memory than the file holds, or whose sizes are hard to compute with."""
    huge = 1 << rng.choice((62, 64, 8 * size))
    made = rng.choice(
        (
            *(tensor((2**12, 2**12), (0, 0)), tensor((2**24,), (0,)), tensor((huge,), (1,)), tensor((0, huge), (1, 1))),
            *(tensor((4,), (huge,)), tensor((1,), (1,), offset=huge), tensor((1,), (1,), numel=huge)),
            *(tensor((huge,) * 60, (0,) * 60), tensor((1,) * size, (0,) * size), tensor((2**40,), (0,))),
        )
    )
    repeated = min(size, 400)
    return state_dict([(text(f"x{i}"), made) for i in range(repeated if len(made) < 1000 else 1)])


def _random(rng: random.Random, size: int) -> bytes:
    """A program of opcodes whose arguments have the right form, most of which have something to work on."""
    known = [
        ("torch", "Size"),
        ("collections", "OrderedDict"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch", "FloatStorage"),
    ]
    known += [("torch._utils", "_rebuild_parameter"), ("torch._tensor", "_rebuild_from_type_v2"), *_CALLS]
    program = []
    for _ in range(rng.randrange(1, min(size, 60))):
        program.append(
            rng.choice(
                (
                    *(
                        rng.choice(_CODES),
                        rng.choice(_CODES),
                        name(*rng.choice(known)),
                        b")",
                        b"(",
                        b"t",
                        b"R",
                        b"}",
                        b"]",
                    ),
                    *(text(rng.choice(("storage", "0", "weight", "module"))), number(rng.choice((0, 1, 4, -1, 2**40)))),
                    *(b"q" + bytes([rng.randrange(4)]), b"h" + bytes([rng.randrange(4)]), _VALUE),
                )
            )
        )
    return b"\x80\x02" + b"".join(program) + b"."


_CODES = [op.code.encode("latin-1") for op in pickletools.opcodes if op.arg is None and op.name != "STOP"]
_CRAFTED: tuple[Callable[[random.Random, int], bytes], ...] = (
    *(_call, _deep, _memo, _length, _laughs, _copies, _names, _globals, _views, _random, _random, _random),
)


def crafted(rng: random.Random, legacy: bool) -> bytes:
    """A file of PyTorch whose pickle is hostile."""
    size = rng.choice((3, 50, 3000, 60000))
    storages = {"0": bytes(64)} if rng.random() < 0.9 else {}
    return torch_file(rng.choice(_CRAFTED)(rng, size), storages, legacy)
