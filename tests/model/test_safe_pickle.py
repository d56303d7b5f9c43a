"""Plain data comes out of a pickle as it went in; whatever else one holds is refused."""

import io
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from online_tapir.model import safe_pickle


def read(held: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> Any:
    return safe_pickle.load(io.BytesIO(pickle.dumps(held, protocol)))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_come_out_wherever_they_were(protocol: int) -> None:
    array = np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))
    found = read({"a": [array, (array,)], "b": np.array([{"c": array}, None], object), "d": np.float64(2)}, protocol)
    for copy in (found["a"][0], found["a"][1][0], found["b"][0]["c"]):
        assert np.array_equal(copy, array)
    assert found["b"][1] is None
    assert found["d"] == 2


def test_a_pickle_of_one_list_many_times_is_built_once() -> None:
    held: list[Any] = [1]
    for _ in range(60):  # 2 ** 60 items, were each copied out
        held = [held, held]
    assert len(read(held)) == 2


def test_a_list_that_holds_itself_is_refused() -> None:
    held: list[Any] = []
    held.append(held)
    with pytest.raises(safe_pickle.RefusedPickleError, match="contains itself"):
        read(held)


@pytest.mark.parametrize("held", [OrderedDict(), print, np.dtype("f4,f4"), np.zeros(2, "M8[s]"), 1j, slice(3)])
def test_whatever_else_is_no_plain_data_and_refused(held: Any) -> None:
    with pytest.raises(safe_pickle.RefusedPickleError, match="only"):
        read(held)
