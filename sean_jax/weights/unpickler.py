"""Runs a pickle of ``torch.save`` without importing, calling or believing anything in it.

A pickle is a program that can import and call anything. Here, the names on a list (:data:`_KNOWN`) resolve to harmless
replacements from this module, and any other name resolves to one whose objects ignore what they are made of
(:class:`Unknown`). So the tensors of a checkpoint are found beside any other objects.

What a pickle makes takes time and memory in proportion to its length: nothing in it is copied twice, and keys of
dictionaries are small. Python's unpickler in C is not used, since it allocates what five bytes ask for (a memo of 2³²
entries), and hashes nested tuples until the stack overflows.
"""

import operator
import pickle
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

# PyTorch's storage classes.
STORAGES = (
    *("FloatStorage", "HalfStorage", "BFloat16Storage", "DoubleStorage", "LongStorage", "IntStorage", "ShortStorage"),
    *("CharStorage", "ByteStorage", "BoolStorage", "ComplexFloatStorage", "ComplexDoubleStorage"),
)
_DTYPES = ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
_MOST_DIMENSIONS = 64  # of a tensor, as in NumPy
_MOST_ARGUMENTS = 16  # of the functions on the list, and elements of a tuple that is a key


class Storage(NamedTuple):
    """The memory of tensors: a storage class's name ("" if unknown), its key in the file, and its elements."""

    kind: str
    key: str
    numel: int


class View(NamedTuple):
    """A tensor that is not read yet: a strided view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Unknown(dict):
    """Replaces an object of a class, or the result of a function, that is not known.

    It keeps items (as of ``defaultdict`` and other subclasses of ``dict``) and, in ``states``, attributes (as of
    ``argparse.Namespace`` and ``torch.nn.Module``), since weights may be among them, and ignores everything else.
    """

    __slots__ = ("origin", "states")

    def __init__(self, origin: str):
        super().__init__()
        self.origin, self.states = origin, []

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return id(self)  # it may be a key of a dictionary

    def __eq__(self, other: object) -> bool:
        return self is other

    def __setstate__(self, state: object) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        self.states += [part for part in parts[:2] if isinstance(part, dict)]

    def append(self, _item: object) -> None:
        """Ignores an item of a list's or a set's subclass."""

    extend = add = append


class _Dict(dict):
    """Replaces ``OrderedDict`` and drops the attributes of a state dict (``_metadata``)."""

    def __setstate__(self, state: object) -> None:
        del state


class _Name:
    """What a name resolves to. A pickle cannot modify it; the BUILD opcode could set attributes of a function."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it modifies a function")


class _UnknownName(_Name):
    """A name that is not on the list; what is called or made by it is :class:`Unknown`."""

    __slots__ = ("origin",)

    def __init__(self, origin: str):
        self.origin = origin


class _Function(_Name):
    """A function on the list."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., object]):
        self.call = call


def _ordered_dict(pairs: object = None) -> _Dict:
    """From the pairs by which Python 2 pickled it: they are taken over, so that nothing can be made of them twice."""
    made = _Dict()
    if isinstance(pairs, list):
        for key, value in pairs:
            made[_key(key)] = value
        pairs.clear()
    return made


def _size(sizes: object) -> tuple[Any, ...]:
    if not isinstance(sizes, tuple) or len(sizes) > _MOST_DIMENSIONS:
        raise pickle.UnpicklingError("a size that no tensor has")
    return sizes


def _rebuild_tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> View:
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    numbers = tuple(tuple(map(_index, part)) for part in (_size(size), _size(stride)))
    return View(storage, _index(offset), *numbers)


def _index(number: Any) -> int:
    index = operator.index(number)
    if not 0 <= index < 1 << 62:
        raise pickle.UnpicklingError("a size, stride or offset out of range")
    return index


def _rebuild_parameter(data: object, *_: object) -> object:
    return data


def _rebuild_from_type(rebuild: object, _type: object, arguments: object, *_: object) -> object:
    """A tensor with attributes, or of a subclass."""
    return _called(rebuild, arguments) if isinstance(rebuild, _Function) else None


def _called(function: object, arguments: object) -> object:
    if isinstance(function, _UnknownName):
        return Unknown(function.origin)
    if not isinstance(function, _Function):
        raise pickle.UnpicklingError("it calls what is not a function")
    if not isinstance(arguments, tuple) or len(arguments) > _MOST_ARGUMENTS:
        raise pickle.UnpicklingError("a call with other arguments than torch.save writes")
    return function.call(*arguments)


def _key(key: Any) -> Any:
    """A key of a dictionary, if hashing it takes little time: tuples and long numbers are hashed anew for each use."""
    parts = key if isinstance(key, tuple) and len(key) <= _MOST_ARGUMENTS else (key,)
    if any(isinstance(part, tuple) or (isinstance(part, int) and part.bit_length() > 64) for part in parts):
        raise pickle.UnpicklingError("a key of a dictionary that is not a name or a number")
    return key


# The names that have a meaning here. Storage classes and dtypes resolve to strings, which cannot be called or modified.
_KNOWN: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): _Function(_ordered_dict),
    ("torch", "Size"): _Function(_size),
    ("torch._utils", "_rebuild_tensor"): _Function(_rebuild_tensor),  # up to PyTorch 0.3
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _Function(_rebuild_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): _Function(_rebuild_parameter),
    ("torch._tensor", "_rebuild_from_type_v2"): _Function(_rebuild_from_type),
    **{("torch", name): name for name in (*STORAGES, *_DTYPES)},
}


# torch.save needs neither buffers beside the pickle nor names by number.
_REFUSED_OPCODES = (
    *(pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.EXT1, pickle.EXT2, pickle.EXT4),
)
# The one in Python, of which tools know only that it is like the one in C.
_PythonsUnpickler: Any = pickle._Unpickler


class Unpickler(_PythonsUnpickler):
    """Python's own unpickler, with opcodes left out or replaced that make, call or hash something.

    Its file's ``read`` must return no more than there is, and not allocate more (:class:`io.BytesIO`, ``mmap``).

    Attributes:
      storages: those that tensors referred to, by key.
    """

    def __init__(self, file: Any):
        super().__init__(file, encoding="utf-8")  # for byte strings written by Python 2
        self.storages: dict[str, Storage] = {}
        self._unknown: dict[tuple[str, str], _UnknownName] = {}

    def find_class(self, module: str, name: str) -> Any:
        # Looks up the name as a whole: the attributes of a dotted name ("FloatStorage.__init__") are not followed.
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        return self._unknown.setdefault((module, name), _UnknownName(f"{module}.{name}"))

    def persistent_load(self, pid: Any) -> Any:
        match pid:
            case ("storage", kind, str(key), _, int(numel), *view) if view in ([], [None]):
                # A tensor of an unknown element type may lie beside the weights.
                storage = Storage(kind if isinstance(kind, str) else "", key, _index(numel))
                return self.storages.setdefault(key, storage)
            case ("module", module, *_):  # with the module's source code, which older versions stored
                return module
        raise pickle.UnpicklingError("a storage of an unknown type")

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _called(self.stack[-1], arguments)

    def _new_with_keywords(self) -> None:
        self.stack.pop()
        self._reduce()

    def _instantiate(self, klass: object, args: list[object]) -> None:  # for the opcodes INST and OBJ
        self.append(_called(klass, tuple(args)))

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _set_items(self) -> None:
        self._set(self.pop_mark())

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set(items)

    def _set(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict):
            raise pickle.UnpicklingError("items of what is not a dictionary")
        self.stack[-1].update({_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)})

    def _set_of_anything(self) -> None:  # no weights lie in it
        self.append(Unknown("builtins.set"))

    def _frozenset(self) -> None:
        self.pop_mark()
        self._set_of_anything()

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **{code: run for code, run in _PythonsUnpickler.dispatch.items() if bytes([code]) not in _REFUSED_OPCODES},
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _reduce,
        pickle.NEWOBJ_EX[0]: _new_with_keywords,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.DICT[0]: _dict,
        pickle.EMPTY_SET[0]: _set_of_anything,
        pickle.FROZENSET[0]: _frozenset,
    }
