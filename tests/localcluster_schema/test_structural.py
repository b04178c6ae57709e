"""Schemas of custom resources: what is unknown, what is filled in, and what is refused in which words."""

import copy
from typing import Any

import pytest

from flyball.localcluster.schema import structural

WIDGET: dict[str, Any] = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 10},
                "ratio": {"type": "number", "exclusiveMinimum": True, "minimum": 0, "multipleOf": 0.5},
                "colour": {"type": "string", "default": "red", "enum": ["red", "green"]},
                "name": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 5},
                "when": {"type": "string", "format": "date-time", "nullable": True},
                "port": {"x-kubernetes-int-or-string": True},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 2},
                "parts": {
                    "type": "array",
                    "maxItems": 2,
                    "minItems": 1,
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["id"],
                    "items": {
                        "type": "object",
                        "properties": {"id": {"type": "string"}, "weight": {"type": "integer", "default": 1}},
                    },
                },
                "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                "either": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
                | {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            },
        }
    },
}


def widget(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "e.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 3, **spec}}


def test_unknown_fields_are_found_and_pruned_but_not_where_they_are_preserved() -> None:
    obj = widget(sise=1, free={"any": {"thing": 1}}, labels={"k": "v"}, parts=[{"id": "a", "x": 1}])
    obj["metadata"]["nosuch"] = 1
    assert structural.unknown_fields(WIDGET, obj) == [
        'unknown field "metadata.nosuch"',
        'unknown field "spec.sise"',
        'unknown field "spec.parts[0].x"',
    ]
    structural.prune(WIDGET, obj)
    assert obj == widget(free={"any": {"thing": 1}}, labels={"k": "v"}, parts=[{"id": "a"}])


def test_defaults_fill_in_and_nulls_that_may_not_be_go() -> None:
    obj = widget(parts=[{"id": "a"}, {"id": "b", "weight": None}], name=None, when=None)
    structural.default(WIDGET, obj)
    parts = [{"id": "a", "weight": 1}, {"id": "b", "weight": 1}]
    assert obj == widget(parts=parts, when=None, colour="red")
    before = copy.deepcopy(obj)
    structural.default(WIDGET, obj)
    assert obj == before


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"size": 0}, "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"),
        ({"size": 11}, "spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10"),
        (
            {"size": "3"},
            'spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"',
        ),
        ({"ratio": 0}, "spec.ratio: Invalid value: 0: spec.ratio in body should be greater than 0"),
        ({"ratio": 0.7}, "spec.ratio: Invalid value: 0.7: spec.ratio in body should be a multiple of 0.5"),
        ({"colour": "blue"}, 'spec.colour: Unsupported value: "blue": supported values: "red", "green"'),
        ({"name": "UPPER"}, "spec.name: Invalid value: \"UPPER\": spec.name in body should match '^[a-z]+$'"),
        ({"name": "a"}, 'spec.name: Invalid value: "a": spec.name in body should be at least 2 chars long'),
        ({"name": "abcdef"}, "spec.name: Too long: may not be more than 5 bytes"),
        (
            {"when": "soon"},
            'spec.when: Invalid value: "soon": spec.when in body must be of type date-time: "soon"',
        ),
        (
            {"port": True},
            'spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean"',
        ),
        (
            {"labels": {"a": 1}},
            'spec.labels.a: Invalid value: "integer": spec.labels.a in body must be of type string: "integer"',
        ),
        ({"labels": {"a": "", "b": "", "c": ""}}, "spec.labels: Too many: 3: must have at most 2 items"),
        ({"parts": []}, "spec.parts: Invalid value: 0: spec.parts in body should have at least 1 items"),
        ({"parts": [{"id": "a"}, {"id": "a"}]}, 'spec.parts[1]: Duplicate value: {"id":"a"}'),
        ({"tags": ["x", "x"]}, 'spec.tags[1]: Duplicate value: "x"'),
        (
            {"either": {"a": "", "b": ""}},
            'spec.either: Invalid value: {"a":"","b":""}: spec.either in body must validate one and only one '
            "schema (oneOf)",
        ),
    ],
)
def test_values_are_refused_in_upstreams_words(spec: dict[str, Any], message: str) -> None:
    assert [cause.message for cause in structural.validate(WIDGET, widget(**spec))] == [message]


def test_what_fits_passes_and_what_is_missing_is_named() -> None:
    fine = widget(ratio=1.5, port="http", when=None, labels={}, tags=["x", "y"], either={"b": ""}, name="abc")
    assert structural.validate(WIDGET, fine) == []
    assert [cause.message for cause in structural.validate(WIDGET, {"metadata": {}})] == ["spec: Required value"]


def test_lists_of_custom_resources_merge_by_their_keys() -> None:
    schema = structural.patch_schema(WIDGET)
    parts = schema.property("spec").property("parts")  # type: ignore[union-attr]
    assert parts is not None and parts.associative_keys == ("id",)
    finalizers = schema.property("metadata").property("finalizers")  # type: ignore[union-attr]
    assert finalizers is not None and finalizers.associative_keys == ()
