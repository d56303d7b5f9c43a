"""Makes values representable in JSON."""

import math
from typing import Any


def without_nan(value: Any, digits: int | None = None) -> Any:
    """A copy of `value` (dicts, lists, numbers) with None for NaN and infinities, and floats rounded to `digits`."""
    if isinstance(value, dict):
        return {key: without_nan(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item, digits) for item in value]
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return value if digits is None else round(value, digits)
