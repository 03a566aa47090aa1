"""Data frames: columns with a schema, in Grafana's JSON shape. Pure.

    {"schema": {"name": "cpu", "fields": [{"name": "time", "type": "time"}, {"name": "usage", "type": "number"}]},
     "data": {"values": [[1700000000000], [42.5]]}}

Times are milliseconds since the Unix epoch, as numbers. NaN, infinities and integers beyond 64 bits
become null. Each field may carry labels, which tell columns of one name apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from math import isfinite
from numbers import Integral, Real
from typing import Any, Literal, get_args

import msgspec

from ..exceptions import InvalidFrame

FieldType = Literal["time", "number", "string", "boolean"]
FIELD_TYPES: tuple[str, ...] = get_args(FieldType)
TIME, LABELS = "time", "labels"

_WIDEST = 2**64  # JSON readers take a longer integer for an error

FieldKey = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Field:
    """One column's name, type and, where several columns share a name, labels."""

    name: str
    type: FieldType
    labels: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        name: Any = self.name
        if not isinstance(name, str) or not name:
            raise InvalidFrame(f"A field's name is a non-empty str, not {name!r}.")
        if self.type not in FIELD_TYPES:
            raise InvalidFrame(f"Field {self.name!r}: type {self.type!r} is none of {', '.join(FIELD_TYPES)}.")
        labels: Any = self.labels
        if labels is not None and not (
            isinstance(labels, Mapping) and all(isinstance(x, str) for pair in labels.items() for x in pair)
        ):
            raise InvalidFrame(f"Field {self.name!r}: labels map str to str, not {labels!r}.")

    @cached_property
    def key(self) -> FieldKey:
        """What identifies the column in its schema."""
        return self.name, tuple(sorted(self.labels.items())) if self.labels else ()

    @property
    def rank(self) -> tuple[int, FieldKey]:
        """Sorts columns as a merged schema has them: time first, then labels, then the others by name."""
        return (0 if self.type == "time" else 1 if self.name == LABELS else 2), self.key

    def to_dict(self) -> dict[str, Any]:
        described: dict[str, Any] = {"name": self.name, "type": self.type}
        if self.labels:
            described["labels"] = dict(sorted(self.labels.items()))
        return described


@dataclass(frozen=True)
class Schema:
    """The name of a frame and its fields in column order. Raises InvalidFrame for two fields with one key."""

    name: str
    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        name: Any = self.name
        if not isinstance(name, str):
            raise InvalidFrame(f"A frame's name is a str, not {type(name).__name__}.")
        if len(self.by_key) != len(self.fields):
            keys = [field.key for field in self.fields]
            twice = next(field.name for field in self.fields if keys.count(field.key) > 1)
            raise InvalidFrame(f"Field {twice!r} stands twice in frame {self.name!r}; rename it or give it labels.")

    @cached_property
    def by_key(self) -> dict[FieldKey, Field]:
        return {field.key: field for field in self.fields}

    @cached_property
    def json(self) -> bytes:
        return msgspec.json.encode(self.to_dict())

    @cached_property
    def id(self) -> str:
        """12 characters that are equal for equal schemas, on every node and in every release."""
        return hashlib.blake2b(self.json, digest_size=6).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "fields": [field.to_dict() for field in self.fields]}

    @classmethod
    def from_dict(cls, raw: Any) -> Schema:
        """The schema in `raw`, the decoded JSON object. Raises InvalidFrame."""
        if not isinstance(raw, Mapping) or not isinstance(raw.get("fields"), Sequence):
            raise InvalidFrame('A schema is {"name": str, "fields": [{"name", "type"}]}.')
        fields = []
        for number, field in enumerate(raw["fields"]):
            if not isinstance(field, Mapping) or "name" not in field or "type" not in field:
                raise InvalidFrame(f'Field {number} of the schema is not {{"name", "type"}}: {field!r}.')
            fields.append(Field(field["name"], field["type"], field.get("labels") or None))
        return cls(raw.get("name", ""), tuple(fields))


class Frame:
    """Columns of equal length under a schema; immutable by custom. Raises InvalidFrame naming the bad column."""

    __slots__ = ("schema", "values")

    def __init__(self, schema: Schema, values: Sequence[Iterable[Any]]) -> None:
        if len(schema.fields) != len(values):
            raise InvalidFrame(f"Frame {schema.name!r} has {len(schema.fields)} fields and {len(values)} columns.")
        self.schema = schema
        self.values = [_checked(field, column) for field, column in zip(schema.fields, values, strict=True)]
        for field, column in zip(schema.fields, self.values, strict=True):
            if len(column) != len(self.values[0]):
                raise InvalidFrame(
                    f"Column {field.name!r} has {len(column)} values, {schema.fields[0].name!r} has "
                    f"{len(self.values[0])}; columns are equally long."
                )

    @classmethod
    def from_columns(cls, name: str, columns: Mapping[str, Sequence[Any]]) -> Frame:
        """A frame of the given columns, in their order.

        The type of a column is that of its first value that is not None ("number" if there is none);
        datetimes, and the numbers of a column called "time", are times.
        """
        fields = tuple(Field(key, _column_type(key, column)) for key, column in columns.items())
        return cls(Schema(name, fields), list(columns.values()))

    @classmethod
    def from_rows(cls, name: str, rows: Sequence[Mapping[str, Any]]) -> Frame:
        """A frame of the given rows, columns in stable order (see `merge`); a key missing in a row is null there."""
        schema = infer(name, rows)
        return cls(schema, [[row.get(field.name) for row in rows] for field in schema.fields])

    @classmethod
    def from_dict(cls, raw: Any) -> Frame:
        """The frame in `raw`, the decoded JSON object."""
        if not isinstance(raw, Mapping) or not isinstance(raw.get("data"), Mapping):
            raise InvalidFrame()
        values = raw["data"].get("values")
        if not isinstance(values, list) or not all(isinstance(column, list) for column in values):
            raise InvalidFrame('The "values" of a frame are a list of columns, each a list.')
        return cls(Schema.from_dict(raw.get("schema")), values)

    def __len__(self) -> int:
        """How many rows."""
        return len(self.values[0]) if self.values else 0

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and self.schema == other.schema and self.values == other.values

    __hash__ = None  # type: ignore[assignment] # compared by its columns, which are lists

    def __repr__(self) -> str:
        return f"<Frame {self.name} {len(self.values)}x{len(self)}>"

    @property
    def name(self) -> str:
        return self.schema.name

    @property
    def schema_id(self) -> str:
        """Equal for frames with equal schemas; goes into the publication's tags as "schema"."""
        return self.schema.id

    def column(self, name: str) -> list[Any]:
        """The values of the first column called `name`. Raises KeyError."""
        for field, values in zip(self.schema.fields, self.values, strict=True):
            if field.name == name:
                return values
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        return {"schema": self.schema.to_dict(), "data": {"values": self.values}}

    def to_json(self) -> bytes:
        return b'{"schema":%b,"data":{"values":%b}}' % (self.schema.json, msgspec.json.encode(self.values))


def infer(name: str, rows: Iterable[Mapping[str, Any]]) -> Schema:
    """The schema of rows, columns in stable order; a column's first value that is not None gives its type."""
    types: dict[str, FieldType] = {}
    empty: dict[str, FieldType] = {}
    for row in rows:
        for key, value in row.items():
            if key in types:
                continue
            if value is None:
                empty[key] = "time" if key == TIME else "number"
            else:
                types[key] = _type_of(key, value)
    fields = [Field(key, kind) for key, kind in (empty | types).items()]
    return Schema(name, tuple(sorted(fields, key=lambda field: field.rank)))


def merge(known: Schema | None, new: Schema) -> Schema:
    """The schema with every field of both, in stable order; where types differ the known one stays.

    Stable means that it depends on the fields only, not on the order they came in: time first, then
    "labels", then by name. Merging only ever adds fields, so nodes that merge what they see agree.
    """
    if known is None:
        return Schema(new.name, tuple(sorted(new.fields, key=lambda field: field.rank)))
    if known.name == new.name and all(key in known.by_key for key in new.by_key):
        return known
    fields = (new.by_key | known.by_key).values()
    return Schema(new.name, tuple(sorted(fields, key=lambda field: field.rank)))


def tabulate(schema: Schema, rows: Sequence[Mapping[str, Any]]) -> tuple[Frame, int]:
    """Rows as a frame of exactly this schema, and how many values were left out because their type clashes.

    Absent and clashing values are null; keys that the schema does not have are ignored.
    """
    clashes = 0
    columns = []
    for field in schema.fields:
        convert = _CONVERT[field.type]
        column = []
        for row in rows:
            value = row.get(field.name)
            if value is not None:
                try:
                    value = convert(value)
                except TypeError:
                    value = None
                    clashes += 1
            column.append(value)
        columns.append(column)
    frame = Frame.__new__(Frame)
    frame.schema, frame.values = schema, columns
    return frame, clashes


def _number(value: Any) -> float | None:
    kind = type(value)
    if kind is float:
        return value if isfinite(value) else None
    if kind is int:
        return value if -_WIDEST < value < _WIDEST else None
    if kind is bool or not isinstance(value, (Real, Decimal)):
        raise TypeError
    return _number(int(value) if isinstance(value, Integral) else float(value))


def _time(value: Any) -> float | None:
    if isinstance(value, datetime):
        value = value.timestamp() * 1000
        return int(value) if value.is_integer() else value
    return _number(value)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


_CONVERT: dict[str, Callable[[Any], Any]] = {"number": _number, "time": _time, "string": _string, "boolean": _boolean}


def _type_of(name: str, value: Any) -> FieldType:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, datetime):
        return "time"
    if isinstance(value, (Real, Decimal)):
        return "time" if name == TIME else "number"
    raise InvalidFrame(f"Column {name!r}: {type(value).__name__} is no type a frame can carry.")


def _column_type(name: str, column: Sequence[Any]) -> FieldType:
    first = next((value for value in column if value is not None), None)
    if first is None:
        return "time" if name == TIME else "number"
    return _type_of(name, first)


def _checked(field: Field, column: Iterable[Any]) -> list[Any]:
    convert = _CONVERT[field.type]
    checked = []
    for row, value in enumerate(column):
        try:
            checked.append(None if value is None else convert(value))
        except TypeError:
            raise InvalidFrame(
                f"Column {field.name!r} holds {field.type} values, but row {row} is of type {type(value).__name__}."
            ) from None
    return checked
