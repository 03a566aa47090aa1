"""One message for many consumers: decoded once, and yet each may change its own as it likes. Pure.

A flat message is handed out as a plain copy, since nothing in it can be changed. Where values are nested, the copy
is a `Message`: the nested values are shared until this consumer first looks at one, and then decoded anew for it.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, ValuesView
from typing import Any, NoReturn

FLAT = frozenset({str, int, float, bool, bytes, type(None)})
NESTED = frozenset({dict, list})


class Shared:
    """An encoded message for several consumers."""

    __slots__ = ("_decoded", "_loads", "body", "nested")

    def __init__(self, body: bytes, loads: Callable[[bytes], Any]) -> None:
        self.body = body
        self.nested: frozenset[Any] = frozenset()
        self._loads = loads
        self._decoded: Any = None

    def message(self) -> Any:
        """The message as one more consumer's own. Raises what the serializer raises."""
        decoded = self._decoded
        if decoded is None:
            decoded = self._decode()
        if type(decoded) is not dict:
            return self.fresh()
        if not self.nested:
            return decoded.copy()
        message = Message(decoded)
        message._source = self
        return message

    def _decode(self) -> Any:
        decoded = self._decoded = self.fresh()
        if type(decoded) is dict:
            self.nested = frozenset(key for key, value in decoded.items() if type(value) not in FLAT)
            for key in self.nested:
                decoded[key] = _fixed(decoded[key])
        return decoded

    def fresh(self) -> Any:
        """The message decoded anew."""
        return self._loads(self.body)

    def shares(self, key: Any, value: Any) -> bool:
        """Whether this is a nested value as all consumers have it."""
        return value is self._decoded[key]


class Message(dict[Any, Any]):
    """A consumer's own message: a dict in every respect, equal to a plain one, pickled and copied as one."""

    __slots__ = ("_source",)
    _source: Shared | None

    def __getattr__(self, name: str) -> None:
        # Only for what has no value yet: one that code made itself, by the class of another, shares nothing.
        if name != "_source":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @classmethod
    def fromkeys(cls, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)

    def _own(self) -> None:
        """Replace what is still shared."""
        source, self._source = self._source, None
        if source is not None:
            fresh = source.fresh()
            for key in source.nested:
                if key in self and source.shares(key, dict.__getitem__(self, key)):
                    self[key] = fresh[key]

    # Whatever hands out a value comes by here. `__iter__` is here for `dict(message)` and `**message`, which look
    # into the storage of a dict that does not define it.

    def __getitem__(self, key: Any) -> Any:
        if self._source is not None and key in self._source.nested:
            self._own()
        return dict.__getitem__(self, key)

    def get(self, key: Any, default: Any = None) -> Any:
        if self._source is not None and key in self._source.nested:
            self._own()
        return dict.get(self, key, default)

    def __iter__(self) -> Iterator[Any]:
        return dict.__iter__(self)

    def items(self) -> ItemsView[Any, Any]:  # type: ignore[override]
        self._own()
        return dict.items(self)

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        self._own()
        return dict.values(self)

    def pop(self, key: Any, *default: Any) -> Any:
        self._own()
        return dict.pop(self, key, *default)

    def popitem(self) -> tuple[Any, Any]:
        self._own()
        return dict.popitem(self)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        self._own()
        return dict.setdefault(self, key, default)

    def copy(self) -> dict[Any, Any]:
        self._own()
        return dict.copy(self)

    __copy__ = copy

    def __or__(self, other: Any) -> Any:
        self._own()
        return dict.__or__(self, other)

    def __ror__(self, other: Any) -> Any:
        self._own()
        return dict.__ror__(self, other)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self.copy(),)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return self.__reduce__()


# What is still shared can only be reached behind a Message's back, by code that reads a dict's storage (as extensions
# written in C may). Should that code go on to change it, it is told, and the other consumers notice nothing.


def _refuse(self: Any, *_: Any, **__: Any) -> NoReturn:
    raise TypeError("This value is shared by all who received the message; take it from the message and change that.")


class _FixedDict(dict[Any, Any]):
    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = update = clear = pop = popitem = setdefault = _refuse

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return dict, (dict(self),)


class _FixedList(list[Any]):
    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = append = extend = insert = _refuse
    clear = pop = remove = reverse = sort = _refuse

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return list, (list(self),)


def _fixed(value: Any) -> Any:
    if type(value) is dict:
        fixed = _FixedDict(value)
        for key, inner in value.items():
            if type(inner) in NESTED:
                dict.__setitem__(fixed, key, _fixed(inner))
        return fixed
    if type(value) is list:
        return _FixedList([_fixed(inner) if type(inner) in NESTED else inner for inner in value])
    return value
