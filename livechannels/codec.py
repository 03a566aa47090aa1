"""The old name of `serializers`: still imports, and warns."""

from __future__ import annotations

import warnings
from typing import Any

from . import serializers


def __getattr__(name: str) -> Any:
    found = getattr(serializers, name)
    warnings.warn(
        f"livechannels.codec.{name} is now livechannels.serializers.{name}.", DeprecationWarning, stacklevel=2
    )
    return found
