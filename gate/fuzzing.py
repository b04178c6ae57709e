"""Damage to bytes, and seeds for it. Every parser of what strangers send is fed with both."""

import random
from collections.abc import Sequence

SIZE_MAX = 10 * 1024
_INTERESTING = [
    *(b"{", b"}", b'"', b"\\", b",", b"=", b"#", b"\n", b"\0", b"\xff", b" ", b"\t", b"\r", b"[", b"]", b"(", b")"),
    *(b"NaN", b"+Inf", b"-0", b"1e999", b"0x1p3", b"9" * 40, b"1_0", b"\xed\xa0\x80", b"# EOF\n", b"# TYPE a "),
    *(b"\x80" * 10, b"\xff\xff\xff\xff\x0f", b"__name__", b"le=", b"@", b"offset", b"[5m:]", b" and ", b" bool "),
]


def damaged(seed: bytes, rng: random.Random) -> bytes:
    """The seed with one to eight wounds: bytes flipped, dropped, doubled, moved, or replaced by something nasty."""
    data = bytearray(seed[:SIZE_MAX])
    for _ in range(rng.randint(1, 8)):
        at = rng.randint(0, len(data))
        end = min(len(data), at + rng.choice((1, 1, 2, 8, 64)))
        match rng.randint(0, 5):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randint(0, 7)
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end] * rng.randint(1, 4)
            case 3:
                data[at:at] = rng.choice(_INTERESTING)
            case 4:
                data[at:end] = rng.choice(_INTERESTING)
            case 5:
                other = rng.randint(0, len(data))
                data[at:at] = data[other : other + rng.choice((4, 32, 256))]
    return bytes(data[:SIZE_MAX])


def protobuf_seeds() -> Sequence[bytes]:
    """Pages in protobuf: one of each type, and a native histogram."""
    from flyball.exposition.messages import exposition_types

    t = exposition_types()
    label = [t["Label"](name=b"l", value=b"v")]
    exemplar = t["Exemplar"](label=label, value=1, timestamp=t["Timestamp"](seconds=1))
    span = t["BucketSpan"]
    metrics = {
        0: t["Metric"](label=label, counter=t["Number"](value=1, exemplar=exemplar)),
        1: t["Metric"](label=label, gauge=t["Number"](value=-1), timestamp_ms=5),
        2: t["Metric"](summary=t["Summary"](count=1, sum=2, quantile=[t["Quantile"](quantile=0.5, value=1)])),
        3: t["Metric"](untyped=t["Number"](value=1)),
        4: t["Metric"](histogram=t["Histogram"](count=2, sum=3, bucket=[t["Bucket"](count=1, upper_bound=1)])),
        5: t["Metric"](
            histogram=t["Histogram"](
                count=6, sum=18.5, schema=1, zero_count=1, positive_span=[span(length=2), span(offset=1, length=1)],
                positive_delta=[1, 1, -1], negative_span=[span(length=1)], negative_delta=[2],
            )
        ),
    }  # fmt: skip
    pages = []
    for type_, metric in metrics.items():
        body = t["MetricFamily"](name=b"m", help=b"h", type=type_, metric=[metric]).SerializeToString()
        pages.append(bytes([len(body)]) + body)
    return [*pages, b"".join(pages)]
