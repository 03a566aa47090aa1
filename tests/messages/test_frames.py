from __future__ import annotations

import datetime as dt
import json
import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livechannels.exceptions import InvalidFrame
from livechannels.messages.frames import Field, Frame, Schema, infer, merge, tabulate

CPU = {
    "schema": {
        "name": "cpu",
        "fields": [
            {"name": "time", "type": "time"},
            {"name": "usage", "type": "number", "labels": {"cpu": "0"}},
            {"name": "usage", "type": "number", "labels": {"cpu": "1"}},
            {"name": "state", "type": "string"},
            {"name": "up", "type": "boolean"},
        ],
    },
    "data": {"values": [[1700000000000, 1700000001000.5], [1, 2.5], [None, 3], ["a", None], [True, False]]},
}

names = st.text(min_size=1, max_size=6)
fields = st.builds(
    Field,
    names,
    st.sampled_from(["time", "number", "string", "boolean"]),
    st.none() | st.dictionaries(names, names, max_size=2),
)
schemas = st.builds(
    lambda found: Schema("m", tuple({field.key: field for field in found}.values())), st.lists(fields, max_size=6)
)
values = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=4)
rows = st.lists(st.dictionaries(names, values, max_size=5), max_size=8)


def test_json_shape_is_the_one_of_the_design_and_survives_a_round_trip() -> None:
    frame = Frame.from_dict(CPU)
    assert frame.to_dict() == CPU
    assert json.loads(frame.to_json()) == CPU
    assert Frame.from_dict(json.loads(frame.to_json())) == frame
    assert (frame.name, len(frame)) == ("cpu", 2)


def test_columns_keep_their_order_and_give_their_types() -> None:
    frame = Frame.from_columns(
        "m", {"value": [None, 1.5], "time": [1, 2], "ok": [True, None], "note": ["a", "b"], "none": [None, None]}
    )
    assert [(field.name, field.type) for field in frame.schema.fields] == [
        ("value", "number"),
        ("time", "time"),
        ("ok", "boolean"),
        ("note", "string"),
        ("none", "number"),
    ]
    assert frame.column("note") == ["a", "b"]
    with pytest.raises(KeyError):
        frame.column("missing")


def test_rows_become_sorted_columns_with_nulls_where_a_key_is_missing() -> None:
    frame = Frame.from_rows("m", [{"b": 1, "time": 5}, {"a": "x", "labels": "k=v", "time": 6}])
    assert [field.name for field in frame.schema.fields] == ["time", "labels", "a", "b"]
    assert frame.values == [[5, 6], [None, "k=v"], [None, "x"], [1, None]]


def test_numbers_json_cannot_carry_become_null() -> None:
    frame = Frame.from_columns("m", {"v": [math.nan, math.inf, -math.inf, 1.0, Decimal("NaN"), 2**64]})
    assert frame.values == [[None, None, None, 1.0, None, None]]
    assert b"NaN" not in frame.to_json()


def test_times_are_milliseconds() -> None:
    noon = dt.datetime(2026, 1, 2, 12, 0, 0, 250_000, tzinfo=dt.UTC)
    frame = Frame.from_columns("m", {"at": [noon], "time": [1767355200250]})
    assert frame.values == [[1767355200250], [1767355200250]]
    assert [field.type for field in frame.schema.fields] == ["time", "time"]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Frame.from_columns("m", {"time": [1], "load": [1, 2]}), "'load' has 2 values"),
        (lambda: Frame.from_columns("m", {"load": [1, "x"]}), "'load' holds number values, but row 1 is of type str"),
        (lambda: Frame.from_columns("m", {"load": [1, True]}), "'load'"),
        (lambda: Frame.from_columns("m", {"load": [object()]}), "'load': object is no type"),
        (lambda: Frame.from_rows("m", [{"load": 1}, {"load": "x"}]), "'load'"),
        (lambda: Frame(Schema("m", (Field("load", "number"),)), []), "1 fields and 0 columns"),
        (lambda: Schema("m", (Field("load", "number"), Field("load", "string"))), "'load' stands twice"),
        (lambda: Field("load", "float"), "'load': type 'float'"),  # type: ignore[arg-type]
        (lambda: Field("", "number"), "non-empty"),
        (lambda: Field("load", "number", {"a": 1}), "'load': labels"),  # type: ignore[dict-item]
        (lambda: Frame.from_dict([]), "A frame is"),
        (lambda: Frame.from_dict({"data": {"values": [1]}, "schema": {"fields": []}}), '"values"'),
        (lambda: Frame.from_dict({"data": {"values": []}, "schema": None}), "A schema is"),
        (lambda: Frame.from_dict({"data": {"values": [[]]}, "schema": {"fields": ["x"]}}), "Field 0"),
    ],
)
def test_a_bad_frame_is_refused_naming_the_column(make, named: str) -> None:
    with pytest.raises(InvalidFrame) as caught:
        make()
    assert named in str(caught.value)


def test_schema_id_is_stable_over_releases() -> None:
    assert Frame.from_dict(CPU).schema_id == "435db054830d"


def test_schema_id_tells_schemas_apart_and_ignores_data() -> None:
    frame = Frame.from_columns("m", {"time": [1], "a": [1]})
    assert frame.schema_id == Frame.from_columns("m", {"time": [1, 2], "a": [7, None]}).schema_id
    others = [
        Frame.from_columns("n", {"time": [1], "a": [1]}),
        Frame.from_columns("m", {"a": [1], "time": [1]}),
        Frame.from_columns("m", {"time": [1], "a": ["x"]}),
        Frame.from_columns("m", {"time": [1], "b": [1]}),
        Frame(Schema("m", (Field("time", "time"), Field("a", "number", {"k": "v"}))), [[1], [1]]),
    ]
    assert len({frame.schema_id} | {other.schema_id for other in others}) == 6


def test_merge_keeps_the_known_type_and_adds_what_is_new() -> None:
    known = infer("m", [{"time": 1, "b": 1}])
    merged = merge(known, infer("m", [{"time": 1, "labels": "x", "a": "s", "b": "clash"}]))
    assert [(field.name, field.type) for field in merged.fields] == [
        ("time", "time"),
        ("labels", "string"),
        ("a", "string"),
        ("b", "number"),
    ]


def test_a_merge_that_adds_nothing_returns_the_known_schema_itself() -> None:
    known = infer("m", [{"time": 1, "a": 1, "b": 1}])
    assert merge(known, infer("m", [{"b": 2, "time": 3}])) is known


@given(schemas, schemas, schemas)
def test_merge_is_sorted_grow_only_and_indifferent_to_order_of_arrival(a: Schema, b: Schema, c: Schema) -> None:
    one = merge(merge(merge(None, a), b), c)
    two = merge(merge(merge(None, a), c), b)
    assert [field.key for field in one.fields if field.key in a.by_key] == [
        field.key for field in two.fields if field.key in a.by_key
    ]
    assert set(one.by_key) == set(two.by_key) == set(a.by_key) | set(b.by_key) | set(c.by_key)
    assert list(one.fields) == sorted(one.fields, key=lambda field: field.rank)
    assert all(one.by_key[key] == field for key, field in a.by_key.items())
    assert merge(one, b) is one


@given(st.permutations(range(6)))
def test_nodes_that_saw_the_same_fields_in_another_order_have_one_schema_id(order: list[int]) -> None:
    schema = None
    for number in order:
        schema = merge(schema, infer("m", [{"time": 1, f"f{number}": 1.0}]))
    assert schema is not None
    assert schema.id == infer("m", [{"time": 1} | {f"f{number}": 1.0 for number in range(6)}]).id


@given(rows)
def test_tabulating_keeps_every_value_that_fits_and_counts_every_other(given_rows: list[dict[str, object]]) -> None:
    schema = infer("m", given_rows)
    frame, clashes = tabulate(schema, given_rows)
    assert Frame.from_dict(frame.to_dict()) == frame
    assert len(frame) == (len(given_rows) if schema.fields else 0)
    given_values = [
        value
        for row in given_rows
        for value in row.values()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    ]
    kept = sum(value is not None for column in frame.values for value in column)
    lost_nan = sum(
        isinstance(value, float)
        and not math.isfinite(value)
        and next(f.type for f in schema.fields if f.name == key) not in ("number", "time")
        for row in given_rows
        for key, value in row.items()
    )
    assert kept + clashes == len(given_values) + lost_nan


def test_tabulate_fills_what_is_missing_and_what_clashes_with_null() -> None:
    schema = infer("m", [{"time": 1, "a": 1, "b": "x", "c": True}])
    frame, clashes = tabulate(schema, [{"time": 1, "a": "no", "b": "y"}, {"time": 2, "c": 1, "a": 3}])
    assert frame.values == [[1, 2], [None, 3], ["y", None], [None, None]]
    assert clashes == 2
