"""Which class answers for a live channel: the list of LIVECHANNELS["CHANNELS"], loaded once and searched in order."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from .channels import LiveChannel
from .conf import settings
from .exceptions import ConfigurationError, UnknownChannel
from .messages.policy import Policy
from .messages.topics import check_live_name
from .paths import LivePath


def _wrong(text: str) -> ConfigurationError:
    return ConfigurationError(f'LIVECHANNELS["CHANNELS"]: {text}', check_id="livechannels.E008")


@lru_cache(maxsize=1)
def live_paths() -> tuple[LivePath, ...]:
    """The declared paths, in order. Raises ConfigurationError if they cannot be loaded."""
    channels: Any = settings.CHANNELS
    if isinstance(channels, str):
        try:
            channels = import_string(channels)
        except ImportError as error:
            raise _wrong(
                f"cannot import {channels!r}: {error}. Give the dotted path of a list, such as "
                '"project.live.live_channels".'
            ) from error
    if not isinstance(channels, (list, tuple)):
        raise _wrong(f"a list of live_path() entries is wanted, not {type(channels).__name__}.")
    for number, entry in enumerate(channels, 1):
        if not isinstance(entry, LivePath):
            raise _wrong(f"entry {number} is {entry!r}, not a live_path().")
    return tuple(channels)


def resolve(channel: str) -> LiveChannel:
    """The object that answers for `channel`. Raises InvalidChannelName or UnknownChannel."""
    path, kwargs = _find(channel)
    return path.channel_class(channel, kwargs)


def class_for(channel: str) -> type[LiveChannel]:
    """The class that answers for `channel`, without making one. Raises InvalidChannelName or UnknownChannel."""
    return _find(channel)[0].channel_class


@lru_cache(maxsize=16384)
def policy_for(channel: str) -> Policy:
    """How the layer treats `channel`. Raises InvalidChannelName or UnknownChannel."""
    return _find(channel)[0].channel_class.policy()


def reverse(channel_class: type[LiveChannel], kwargs: Mapping[str, Any]) -> str:
    """The name of the channel that `kwargs` make in the first path declared for the class."""
    return path_of(channel_class).reverse(kwargs)


def path_of(channel_class: type[LiveChannel]) -> LivePath:
    """The first path declared for the class. Raises UnknownChannel if there is none."""
    for path in live_paths():
        if issubclass(path.channel_class, channel_class):
            return path
    raise UnknownChannel(f'No live_path() in LIVECHANNELS["CHANNELS"] names {channel_class.__qualname__}.')


def _find(channel: str) -> tuple[LivePath, dict[str, Any]]:
    check_live_name(channel)
    for path in live_paths():
        kwargs = path.match(channel)
        if kwargs is not None:
            return path, kwargs
    raise UnknownChannel(f'No live_path() matches {channel!r}; declare one in LIVECHANNELS["CHANNELS"].')


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "LIVECHANNELS":
        live_paths.cache_clear()
        policy_for.cache_clear()


setting_changed.connect(_forget)
