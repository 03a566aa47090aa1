"""System checks: what is wrong in the settings, in one sentence with the remedy. None of them connects to Redis.

| id | what |
| --- | --- |
| livechannels.E001 | `ha_engine` is neither "redis" nor "memory" |
| livechannels.E002 | `hosts` together with `ha_engine_address` |
| livechannels.E003 | an option of CONFIG that does not exist |
| livechannels.E004 | a Redis address that cannot be read |
| livechannels.E005 | an option of CONFIG with a wrong value |
| livechannels.E006 | a key of LIVECHANNELS that does not exist |
| livechannels.E007 | a key of LIMITS that does not exist, or a wrong value |
| livechannels.E008 | CHANNELS cannot be imported or is no list of live_path() |
| livechannels.E009 | LAYER names no alias, or one with another BACKEND |
| livechannels.E010 | a key of LIVECHANNELS with a wrong value |
| livechannels.E011 | a channel class with a wrong attribute |
| livechannels.E012 | a dashboard pattern with a parameter that is no field of the model |
| livechannels.W001 | the memory engine while DEBUG is off |
| livechannels.W002 | a setting without effect |
| livechannels.W003 | no or short push tokens while DEBUG is off |
| livechannels.W004 | ASGI_APPLICATION is not set |
| livechannels.W005 | a channel class that asks for history and keeps none |
| livechannels.W006 | dashboards without ActingUserMiddleware |
| livechannels.W007 | a DashboardChannel that no live_path() names |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.conf import settings as django_settings
from django.core import checks as django_checks
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import FieldDoesNotExist
from django.utils.module_loading import import_string

from . import conf, registry
from .channels import LiveChannel, ManagedStream
from .dashboards import DashboardChannel, declared_channels
from .engines import options
from .exceptions import ConfigurationError
from .layer import LiveChannelLayer
from .paths import LivePath
from .streams.supervisor import always_on

TAG = "livechannels"
TOKEN_LENGTH = 16
LEASE_TTL_RANGE = (0.5, 60)
ACTING_MIDDLEWARE = "ActingUserMiddleware"

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "recovery": ("stream", "cache"),
    "scope": ("cluster", "node"),
    "durability": ("ack", "replicated"),
}


@register(TAG)
def check_layers(**_: Any) -> list[CheckMessage]:
    """CHANNEL_LAYERS: the CONFIG of every alias that is ours, and the alias that live channels use."""
    found: list[CheckMessage] = []
    layers: Mapping[str, Any] = getattr(django_settings, "CHANNEL_LAYERS", {})
    ours = [alias for alias, layer in layers.items() if _is_ours(layer.get("BACKEND"))]
    for alias in ours:
        found += _check_config(alias, layers[alias].get("CONFIG") or {})
    alias = conf.settings.LAYER
    if alias not in layers:
        found.append(
            _error(
                "E009",
                f'LIVECHANNELS["LAYER"] is {alias!r}, which is not in CHANNEL_LAYERS.'
                f"{options.nearest(str(alias), list(layers))}",
                'Add CHANNEL_LAYERS = {"default": {"BACKEND": "livechannels.layer.LiveChannelLayer", '
                '"CONFIG": {"hosts": ["redis://localhost:6379/0"]}}}.',
            )
        )
    elif alias not in ours:
        found.append(
            _error(
                "E009",
                f"CHANNEL_LAYERS[{alias!r}] has the BACKEND {layers[alias].get('BACKEND')!r}; live channels need ours.",
                'Set its BACKEND to "livechannels.layer.LiveChannelLayer", or name another alias in '
                'LIVECHANNELS["LAYER"].',
            )
        )
    return found


@register(TAG)
def check_settings(**_: Any) -> list[CheckMessage]:
    """LIVECHANNELS: names and values."""
    configured: Any = getattr(django_settings, "LIVECHANNELS", None) or {}
    if not isinstance(configured, Mapping):
        return [_error("E006", f"LIVECHANNELS is a dict, not {type(configured).__name__}.")]
    found: list[CheckMessage] = [
        _error("E006", f'LIVECHANNELS["{key}"] is not a setting.{options.nearest(str(key), conf.KEYS)}')
        for key in configured
        if key not in conf.KEYS
    ]
    found += _check_values(configured)
    found += _check_limits(configured.get("LIMITS", {}))
    if not getattr(django_settings, "ASGI_APPLICATION", None):
        found.append(
            _warning(
                "W004",
                "ASGI_APPLICATION is not set, so runserver and daphne's checks do not know your live application.",
                'Set ASGI_APPLICATION = "project.asgi.application", made with livechannels.asgi.live_application().',
            )
        )
    return found


@register(TAG)
def check_channels(**_: Any) -> list[CheckMessage]:
    """LIVECHANNELS["CHANNELS"]: can it be loaded, and do its classes make sense."""
    try:
        paths = registry.live_paths()
        always_on()
    except ConfigurationError as error:
        return [_error("E008", str(error))]
    except Exception as error:
        # Whatever the project's module raises is one finding.
        return [_error("E008", f'LIVECHANNELS["CHANNELS"]: {conf.settings.CHANNELS!r} fails to load: {error!r}.')]
    found = [message for path in paths for message in _check_path(path)]
    found += _check_dashboards(paths)
    found += _check_tokens(paths)
    return found


def _check_config(alias: str, config: Mapping[str, Any]) -> Iterator[CheckMessage]:
    where = f"CHANNEL_LAYERS[{alias!r}]"
    try:
        parsed = options.parse(config)
    except ConfigurationError as error:
        yield Error(f"{where}: {error}", id=error.check_id)
        return
    for check_id, text in parsed.warnings:
        yield django_checks.Warning(f"{where}: {text}", id=check_id)
    if parsed.engine == "memory" and not django_settings.DEBUG:
        yield _warning(
            "W001",
            f"{where} uses the memory engine while DEBUG is off: what one process sends, others never see.",
            'Say where Redis is: "CONFIG": {"hosts": ["redis://localhost:6379/0"]}. '
            "(Unlike channels_redis, a CONFIG without hosts does not mean localhost.)",
        )


def _check_values(configured: Mapping[str, Any]) -> Iterator[CheckMessage]:
    for key in ("PUSH_TOKENS", "API_KEYS", "ALLOWED_ORIGINS"):
        value = configured.get(key)
        if value is not None and not _is_strings(value):
            yield _error("E010", f'LIVECHANNELS["{key}"] is a list of strings, not {type(value).__name__}.')
    low, high = LEASE_TTL_RANGE
    ttl = configured.get("LEASE_TTL", low)
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)) or not low <= ttl <= high:
        yield _error(
            "E010",
            f'LIVECHANNELS["LEASE_TTL"] is {ttl!r}; it is a number of seconds from {low} to {high}.',
            "After this time a leader that fell silent is replaced; 3 is a good value.",
        )
    if configured.get("JWT") is not None:
        yield _warning("W002", 'LIVECHANNELS["JWT"] has no effect yet: connections are known by their session.')


def _check_limits(limits: Any) -> Iterator[CheckMessage]:
    if not isinstance(limits, Mapping):
        yield _error("E007", f'LIVECHANNELS["LIMITS"] is a dict, not {type(limits).__name__}.')
        return
    for name, value in limits.items():
        if name not in conf.DEFAULT_LIMITS:
            nearest = options.nearest(str(name), list(conf.DEFAULT_LIMITS))
            yield _error("E007", f'LIVECHANNELS["LIMITS"]["{name}"] is not a limit.{nearest}')
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            yield _error("E007", f'LIVECHANNELS["LIMITS"]["{name}"] is {value!r}; it is a number from 0.')


def _check_path(path: LivePath) -> Iterator[CheckMessage]:
    cls = path.channel_class
    for name, choices in _CHOICES.items():
        value = getattr(cls, name)
        if value not in choices:
            nearest = options.nearest(str(value), choices)
            yield _error("E011", f"{path!r}: {name} is {value!r}; it is one of {', '.join(choices)}.{nearest}")
    for name in ("history_size", "history_ttl"):
        value = getattr(cls, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            yield _error("E011", f"{path!r}: {name} is {value!r}; it is a number from 0.")
            return
    if not iscoroutinefunction(cls.on_publish):
        yield _error("E011", f"{path!r}: on_publish must be async.", "Write it as: async def on_publish(self, …).")
    if bool(cls.history_size) != bool(cls.history_ttl):
        yield _warning(
            "W005",
            f"{path!r} keeps no history: history_size is {cls.history_size} and history_ttl is {cls.history_ttl}.",
            "Set both, or neither.",
        )


def _check_dashboards(paths: Sequence[LivePath]) -> Iterator[CheckMessage]:
    classes: list[type[LiveChannel]] = [path.channel_class for path in paths]
    for path in paths:
        if issubclass(path.channel_class, DashboardChannel):
            yield from _check_parameters(path, path.channel_class)
    for declared in declared_channels():
        if not any(issubclass(cls, declared) for cls in classes):
            yield _warning(
                "W007",
                f"{declared.__name__} is declared for {declared.model._meta.label}, but no live_path() names it, so "
                "its changes are announced to nobody.",
            )
    middleware: Iterable[str] = getattr(django_settings, "MIDDLEWARE", ())
    if any(issubclass(cls, DashboardChannel) for cls in classes) and not any(
        name.endswith(ACTING_MIDDLEWARE) for name in middleware
    ):
        yield _warning(
            "W006",
            "Dashboards announce changes without saying whose they are: ActingUserMiddleware is not in MIDDLEWARE.",
            'Add "livechannels.dashboards.ActingUserMiddleware" after AuthenticationMiddleware.',
        )


def _check_parameters(path: LivePath, cls: type[DashboardChannel]) -> Iterator[CheckMessage]:
    if not hasattr(cls, "model"):
        yield _error("E012", f"{path!r} has no model.", f"Use {cls.__name__}.for_model(Model).")
        return
    for name in path.parameters:
        field = name.split("__")[0]
        try:
            _ = field == "pk" or cls.model._meta.get_field(field)
        except FieldDoesNotExist:
            known = ["pk", *(known.name for known in cls.model._meta.get_fields())]
            yield _error(
                "E012", f"{path!r}: {name!r} is no field of {cls.model._meta.label}.{options.nearest(name, known)}"
            )
    if not path.parameters:
        yield _error("E012", f"{path!r} names no object.", 'Add a parameter, such as "dashboard/<int:pk>".')


def _check_tokens(paths: Sequence[LivePath]) -> Iterator[CheckMessage]:
    if django_settings.DEBUG:
        return
    tokens = conf.settings.PUSH_TOKENS
    if not tokens and any(issubclass(path.channel_class, ManagedStream) for path in paths):
        yield _warning(
            "W003",
            'LIVECHANNELS["PUSH_TOKENS"] is empty, so nobody can push to the managed streams.',
            'Make one: python -c "import secrets; print(secrets.token_urlsafe(32))".',
        )
    if _is_strings(tokens) and any(len(token) < TOKEN_LENGTH for token in tokens):
        yield _warning(
            "W003",
            f'LIVECHANNELS["PUSH_TOKENS"] has a token of fewer than {TOKEN_LENGTH} characters, which can be guessed.',
            'Make one: python -c "import secrets; print(secrets.token_urlsafe(32))".',
        )


def _is_ours(backend: Any) -> bool:
    try:
        found = import_string(backend) if isinstance(backend, str) else None
    except ImportError:
        return False
    return isinstance(found, type) and issubclass(found, LiveChannelLayer)


def _is_strings(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(item, str) for item in value)


def _error(number: str, text: str, hint: str | None = None) -> Error:
    return Error(text, hint=hint, id=f"livechannels.{number}")


def _warning(number: str, text: str, hint: str | None = None) -> CheckMessage:
    return django_checks.Warning(text, hint=hint, id=f"livechannels.{number}")
