"""Backend streams, one runner in the cluster. Imports the layer and below; knows neither `clients` nor `push`."""

from __future__ import annotations

from .source import Stream, StreamSource
from .supervisor import arestart, restart

__all__ = ["Stream", "StreamSource", "arestart", "restart"]
