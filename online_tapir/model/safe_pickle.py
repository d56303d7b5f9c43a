"""Reads pickles of arrays, dicts, lists, text, bytes and numbers; whatever else one names is refused, and never run.

Nothing of Python or numpy is looked up for a pickle: the few names that arrays are told by get stand-ins of our own.
"""

import pickle
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray


class RefusedPickleError(ValueError):
    """A pickle holds more than plain data; the message says what, to follow the file's name."""


def load(file: BinaryIO) -> Any:
    """What a pickle holds, arrays as numpy's. Text of Python 2 is read as latin1.

    Raises RefusedPickleError where it names anything but arrays, or holds itself; a damaged pickle raises whatever its
    bytes happen to ask for.
    """
    return _resolved(_DataUnpickler(file, encoding="latin1").load(), {})


class _PickledType:
    """Stands for numpy.dtype while a pickle is read: plain numbers, text and bytes, nothing made of parts."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        self.dtype = np.dtype(code)
        if self.dtype.kind not in "biufSUO":
            raise RefusedPickleError(f"it holds an array of type {code}; only plain numbers, text and bytes are read")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *parts = state
        if any(part is not None for part in parts[:3]):
            raise RefusedPickleError("it holds an array of records; only plain numbers, text and bytes are read")
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class _PickledArray:
    """Stands for numpy.ndarray while a pickle is read, and is built from its bytes alone."""

    def __init__(self, *_: Any) -> None:  # numpy starts with an empty array and fills it in by __setstate__
        self.array: NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, columns_first, held = state
        self.fill(held, kind, shape, "F" if columns_first else "C")

    def fill(self, held: Any, kind: _PickledType, shape: tuple[int, ...], order: Literal["C", "F"]) -> None:
        if kind.dtype.kind == "O":
            flat = np.empty(len(held), object)
            for index, item in enumerate(held):  # one by one: numpy would spread a list of lists
                flat[index] = item
        else:
            flat = np.frombuffer(_raw(held), kind.dtype)
        self.array = flat.reshape(shape, order=order)


def _array_from_buffer(
    buffer: Any, kind: _PickledType, shape: tuple[int, ...], order: Literal["C", "F"], *_: Any
) -> Any:
    """How numpy's arrays are told in pickle protocol 5."""
    pickled = _PickledArray()
    pickled.fill(buffer, kind, shape, order)
    return pickled


def _scalar(kind: _PickledType, raw: Any) -> Any:
    return np.frombuffer(_raw(raw), kind.dtype)[0]


def _raw(held: Any) -> Any:
    """Bytes; a pickle of Python 2 tells them as text."""
    return held.encode("latin1") if isinstance(held, str) else held


def _latin1(text: str, encoding: str) -> bytes:
    """How bytes are told in pickle protocols before 3."""
    if encoding != "latin1":
        raise RefusedPickleError(f"it holds text encoded as {encoding}; only latin1 is read")
    return text.encode("latin1")


def _stand_ins() -> dict[tuple[str, str], Any]:
    """What a pickle may name, and what it gets instead: nothing of numpy or Python itself."""
    names: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _PickledType,
        ("_codecs", "encode"): _latin1,
    }
    for core in ("numpy.core", "numpy._core"):  # before and since numpy 2
        names[f"{core}.multiarray", "_reconstruct"] = _PickledArray
        names[f"{core}.multiarray", "scalar"] = _scalar
        names[f"{core}.numeric", "_frombuffer"] = _array_from_buffer
    return names


class _DataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _stand_ins()[module, name]
        except KeyError:
            raise RefusedPickleError(
                f"it names {module}.{name}, and only arrays, text and numbers are read, as pickles can run code"
            ) from None


_UNFINISHED = object()


def _resolved(value: Any, done: dict[int, Any]) -> Any:
    """`value` with numpy's arrays where their stand-ins are, each container built once however often it is held."""
    if not isinstance(value, _PickledArray | dict | list | tuple):
        return value
    key = id(value)
    if key not in done:
        done[key] = _UNFINISHED
        done[key] = _rebuilt(value, done)
    if done[key] is _UNFINISHED:
        raise RefusedPickleError("it holds a container that holds itself; only plain data are read")
    return done[key]


def _rebuilt(value: Any, done: dict[int, Any]) -> Any:
    if isinstance(value, dict):
        return {name: _resolved(item, done) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_resolved(item, done) for item in value)
    array = value.array
    if array.dtype.kind != "O":
        return array
    objects = np.empty(array.shape, object)
    for index in np.ndindex(array.shape):
        objects[index] = _resolved(array[index], done)
    return objects
