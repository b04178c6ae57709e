"""Protobuf messages from a table instead of generated code: only the fields that are read."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from flyball.errors import ScrapeError

_NUMBERS = {
    "double": 1,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "string": 9,
    "bytes": 12,
    "uint32": 13,
    "sint32": 17,
    "sint64": 18,
}

#: ``{message: "field=number type; field=number type*; ..."}``; a star is a repeated field.
Table = Mapping[str, str]


def message_types(package: str, table: Table) -> dict[str, Any]:
    """The message classes of a table; a type that is no scalar is another message of it. Unknown fields are skipped."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # here: 20 ms that few processes need

    file = descriptor_pb2.FileDescriptorProto(name=f"flyball/{package}.proto", package=package, syntax="proto2")
    for message, fields in table.items():
        described = file.message_type.add(name=message)
        for text in fields.split(";"):
            name, _, rest = text.strip().partition("=")
            number, kind = rest.split()
            field = described.field.add(name=name, number=int(number), label=3 if kind.endswith("*") else 1)
            kind = kind.rstrip("*")
            if kind in _NUMBERS:
                field.type = _NUMBERS[kind]
            else:
                field.type, field.type_name = 11, f".{package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{message}"))
        for message in table
    }


def decode(message: Any, data: bytes | memoryview, what: str) -> Any:
    """One message.

    Raises:
        ScrapeError: the bytes are not such a message.
    """
    from google.protobuf.message import DecodeError

    found = message()
    try:
        found.ParseFromString(bytes(data))
    except (DecodeError, RecursionError) as exc:
        raise ScrapeError(f"the body is not a {what} message: {exc}") from exc
    return found


@cache
def write_types() -> dict[str, Any]:
    """Remote write 1.0. Labels stay bytes: a series that is known by its bytes is not read again."""
    return message_types(
        "flyball.prometheus",
        {
            "WriteRequest": "timeseries=1 TimeSeries*; metadata=3 MetricMetadata*",
            "TimeSeries": "labels=1 bytes*; samples=2 Sample*; exemplars=3 Exemplar*; histograms=4 Histogram*",
            "Label": "name=1 bytes; value=2 bytes",
            "Sample": "value=1 double; timestamp=2 int64",
            "Exemplar": "labels=1 Label*; value=2 double; timestamp=3 int64",
            "MetricMetadata": "type=1 int32; metric_family_name=2 string; help=4 string; unit=5 string",
            "BucketSpan": "offset=1 sint32; length=2 uint32",
            "Histogram": (
                "count_int=1 uint64; count_float=2 double; sum=3 double; schema=4 sint32; zero_threshold=5 double; "
                "zero_count_int=6 uint64; zero_count_float=7 double; negative_spans=8 BucketSpan*; "
                "negative_deltas=9 sint64*; negative_counts=10 double*; positive_spans=11 BucketSpan*; "
                "positive_deltas=12 sint64*; positive_counts=13 double*; reset_hint=14 int32; timestamp=15 int64; "
                "custom_values=16 double*"
            ),
        },
    )


@cache
def exposition_types() -> dict[str, Any]:
    """``io.prometheus.client``: the protobuf exposition format."""
    return message_types(
        "flyball.io.prometheus.client",
        {
            "MetricFamily": "name=1 bytes; help=2 bytes; type=3 int32; metric=4 Metric*; unit=5 bytes",
            "Label": "name=1 bytes; value=2 bytes",
            "Metric": (
                "label=1 Label*; gauge=2 Number; counter=3 Number; summary=4 Summary; untyped=5 Number; "
                "timestamp_ms=6 int64; histogram=7 Histogram"
            ),
            "Number": "value=1 double; exemplar=2 Exemplar; created=3 Timestamp",
            "Quantile": "quantile=1 double; value=2 double",
            "Summary": "count=1 uint64; sum=2 double; quantile=3 Quantile*; created=4 Timestamp",
            "Bucket": "count=1 uint64; upper_bound=2 double; exemplar=3 Exemplar; count_float=4 double",
            "Exemplar": "label=1 Label*; value=2 double; timestamp=3 Timestamp",
            "Timestamp": "seconds=1 int64; nanos=2 int32",
            "BucketSpan": "offset=1 sint32; length=2 uint32",
            "Histogram": (
                "count=1 uint64; sum=2 double; bucket=3 Bucket*; count_float=4 double; schema=5 sint32; "
                "zero_threshold=6 double; zero_count=7 uint64; zero_count_float=8 double; "
                "negative_span=9 BucketSpan*; negative_delta=10 sint64*; negative_count=11 double*; "
                "positive_span=12 BucketSpan*; positive_delta=13 sint64*; positive_count=14 double*; "
                "created=15 Timestamp; exemplars=16 Exemplar*"
            ),
        },
    )
