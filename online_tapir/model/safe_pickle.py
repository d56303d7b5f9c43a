"""Reads pickles of arrays, dicts, lists, text, bytes and numbers; refuses any other name, and never runs it.

A pickle reaches nothing of Python or numpy: the few names that arrays need get stand-ins defined here.
"""

import pickle
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray


class RefusedPickleError(ValueError):
    """A pickle holds more than plain data. The message says what, and is meant to follow the file's name."""


def load(file: BinaryIO) -> Any:
    """Loads a pickle, with numpy arrays. Text of Python 2 is read as latin1.

    Raises RefusedPickleError if it names anything but arrays, or contains itself; a damaged pickle may raise any error.
    """
    return _resolved(_DataUnpickler(file, encoding="latin1").load(), {})


class _PickledType:
    """Stand-in for numpy.dtype while a pickle is read: plain numbers, text and bytes, no structured types."""

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
    """Stand-in for numpy.ndarray while a pickle is read; built from its bytes alone."""

    def __init__(self, *_: Any) -> None:  # numpy starts with an empty array and fills it in by __setstate__
        self.array: NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, columns_first, held = state
        self.fill(held, kind, shape, "F" if columns_first else "C")

    def fill(self, held: Any, kind: _PickledType, shape: tuple[int, ...], order: Literal["C", "F"]) -> None:
        if kind.dtype.kind == "O":
            flat = np.empty(len(held), object)
            for index, item in enumerate(held):  # one by one: numpy would make axes of nested lists
                flat[index] = item
        else:
            flat = np.frombuffer(_raw(held), kind.dtype)
        self.array = flat.reshape(shape, order=order)


def _array_from_buffer(
    buffer: Any, kind: _PickledType, shape: tuple[int, ...], order: Literal["C", "F"], *_: Any
) -> Any:
    """Builds an array as pickle protocol 5 stores it."""
    pickled = _PickledArray()
    pickled.fill(buffer, kind, shape, order)
    return pickled


def _scalar(kind: _PickledType, raw: Any) -> Any:
    return np.frombuffer(_raw(raw), kind.dtype)[0]


def _raw(held: Any) -> Any:
    """Bytes; a pickle of Python 2 stores them as text."""
    return held.encode("latin1") if isinstance(held, str) else held


def _latin1(text: str, encoding: str) -> bytes:
    """Builds bytes as pickle protocols before 3 store them."""
    if encoding != "latin1":
        raise RefusedPickleError(f"it holds text encoded as {encoding}; only latin1 is read")
    return text.encode("latin1")


def _stand_ins() -> dict[tuple[str, str], Any]:
    """The names that a pickle may use, each with its stand-in: nothing of numpy or Python itself."""
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
                f"it names {module}.{name}; only arrays, text and numbers are read, as pickles can run code"
            ) from None


_UNFINISHED = object()


def _resolved(value: Any, done: dict[int, Any]) -> Any:
    """`value` with every stand-in replaced by its numpy array; a shared container is rebuilt once."""
    if not isinstance(value, _PickledArray | dict | list | tuple):
        return value
    key = id(value)
    if key not in done:
        done[key] = _UNFINISHED
        done[key] = _rebuilt(value, done)
    if done[key] is _UNFINISHED:
        raise RefusedPickleError("it holds a container that contains itself; only plain data are read")
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
