"""live_path(): a pattern of live channel names and the class behind it, as path() is for URLs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.urls.resolvers import RoutePattern

from .channels import LiveChannel
from .engines.options import nearest
from .exceptions import ConfigurationError, InvalidChannelName
from .messages.topics import check_live_name

_PARAMETER = re.compile(r"<(?:[^>:]+:)?([^>]+)>")


class LivePath:
    """One entry of the list LIVECHANNELS["CHANNELS"] points to. Made by `live_path`."""

    def __init__(self, pattern: str, channel_class: type[LiveChannel]) -> None:
        self.pattern = pattern
        self.channel_class = channel_class
        try:
            self._route = RoutePattern(pattern, is_endpoint=True)
        except ImproperlyConfigured as error:
            raise ConfigurationError(f"live_path({pattern!r}): {error}", check_id="livechannels.E008") from error

    def __repr__(self) -> str:
        return f"live_path({self.pattern!r}, {self.channel_class.__name__})"

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names between angle brackets."""
        return tuple(self._route.converters)

    def match(self, channel: str) -> dict[str, Any] | None:
        """The converted parameters if the whole name fits the pattern, else None."""
        found = self._route.match(channel)
        return None if found is None else found[2]

    def reverse(self, kwargs: Mapping[str, Any]) -> str:
        """The channel name for these parameters. Raises InvalidChannelName if they make none that fits."""

        def text(found: re.Match[str]) -> str:
            name = found[1]
            return str(self._route.converters[name].to_url(kwargs[name]))

        try:
            channel = check_live_name(_PARAMETER.sub(text, self.pattern))
        except KeyError as error:
            raise InvalidChannelName(f"{self!r} needs the parameter {error}.") from None
        if self.match(channel) is None:
            raise InvalidChannelName(f"{channel!r}, made from {dict(kwargs)!r}, does not fit {self!r}.")
        return channel


def live_path(pattern: str, channel_class: type[LiveChannel], **attributes: Any) -> LivePath:
    """Declare live channels: `pattern` as in django.urls.path(), converters included.

    `attributes` replace class attributes for these channels only, e.g. `history_size=50`. The first path
    that matches a name decides. Raises ConfigurationError for a pattern no legal name can match, for a
    class that is no LiveChannel, and for an unknown attribute.
    """
    where = f"live_path({pattern!r})"
    if not (isinstance(channel_class, type) and issubclass(channel_class, LiveChannel)):
        raise ConfigurationError(
            f"{where} needs a subclass of LiveChannel, not {channel_class!r}.", check_id="livechannels.E008"
        )
    literal = _PARAMETER.sub("x", pattern)
    try:
        check_live_name(literal)
    except InvalidChannelName as error:
        raise ConfigurationError(f"{where} matches no legal name: {error}", check_id="livechannels.E008") from None
    for name in attributes:
        if name.startswith("_") or not hasattr(channel_class, name):
            known = [known for known in dir(channel_class) if not known.startswith("_")]
            raise ConfigurationError(
                f"{where}: {channel_class.__name__} has no attribute {name!r}.{nearest(name, known)}",
                check_id="livechannels.E008",
            )
    if attributes:
        body = {**attributes, "__module__": channel_class.__module__, "__qualname__": channel_class.__qualname__}
        channel_class = type(channel_class.__name__, (channel_class,), body)
    return LivePath(pattern, channel_class)
