"""Handles differences between the supported versions of the rerun package."""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any


def known(function: Any, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The wanted arguments that this version's function accepts."""
    return {name: value for name, value in wanted.items() if name in _parameters(function)}


@cache
def _parameters(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)
