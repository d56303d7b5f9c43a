"""What differs between versions of the rerun package that all are to work."""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any


def known(function: Any, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the wanted arguments that this version's function takes."""
    return {name: value for name, value in wanted.items() if name in _parameters(function)}


@cache
def _parameters(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)
