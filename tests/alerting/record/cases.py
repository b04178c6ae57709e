"""Prints the cases that main.go answers: inputs of upstream's parser tests, and random ones of our own seed.

Usage: python cases.py SOURCE >cases.json; (cd SOURCE && go run ./cmd/record) <cases.json >golden.json
"""

import json
import random
import re
import sys
from pathlib import Path

import yaml

SOURCES = ("matcher/parse/parse_test.go", "matcher/compliance/compliance_test.go", "pkg/labels/parse_test.go")
WORDS = [
    "foo",
    "bar",
    "Σ",
    "🙂",
    "a b",
    '"a b"',
    '"\\x41"',
    '"\\u00e9"',
    "a:b",
    "1x",
    "",
    '"',
    "\\",
    "'q'",
    "a\\nb",
    '"\\""',
]
MARKS = ["=", "!=", "=~", "!~", ",", "{", "}", " ", "\n", "~", "!"]


def matchers(source: Path) -> list[str]:
    rng, found = random.Random(7), []
    for name in SOURCES:
        text = (source / name).read_text()
        for quoted in re.findall(r'(?:input|in):\s*("(?:[^"\\\n]|\\.)*"|`[^`]*`)', text):
            found.append(quoted[1:-1] if quoted[0] == "`" else json.loads(re.sub(r"\\x..", "", quoted)))
    for _ in range(400):
        count = rng.randint(1, 3)
        found.append(",".join(rng.choice(WORDS) + rng.choice(MARKS[:4]) + rng.choice(WORDS) for _ in range(count)))
    found += ["".join(rng.choice(WORDS + MARKS) for _ in range(rng.randint(1, 7))) for _ in range(400)]
    return list(dict.fromkeys(found))


def intervals() -> list[dict[str, object]]:
    rng, found = random.Random(8), []
    days = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]
    months = ["january", "february", "march", "june", "december", "1", "2", "7", "12"]
    zones = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Sydney", "Asia/Kolkata"]

    def pair(values: list[str]) -> str:
        return rng.choice(values) if rng.random() < 0.4 else f"{rng.choice(values)}:{rng.choice(values)}"

    for _ in range(400):
        one: dict[str, object] = {}
        if rng.random() < 0.5:
            hours = sorted(rng.sample(range(25), 2)) if rng.random() < 0.9 else [9, 9]
            one["times"] = [{"start_time": f"{hours[0]:02d}:00", "end_time": f"{hours[1]:02d}:00"}]
        if rng.random() < 0.5:
            one["weekdays"] = [pair(days)]
        if rng.random() < 0.4:
            one["days_of_month"] = [pair([str(day) for day in (-31, -5, -1, 1, 7, 15, 28, 30, 31, 0, 32)])]
        if rng.random() < 0.4:
            one["months"] = [pair(months)]
        if rng.random() < 0.2:
            one["years"] = [pair(["2023", "2024", "2026"])]
        if rng.random() < 0.5:
            one["location"] = rng.choice(zones)
        times = [rng.randint(1_672_531_200, 1_798_761_600) for _ in range(12)]
        found.append({"yaml": yaml.safe_dump(one), "times": times})
    return found


def routing() -> dict[str, object]:
    rng = random.Random(9)
    names, values = ["team", "severity", "zone", "Σ"], ["a", "b", "c"]

    def route(depth: int) -> dict[str, object]:
        matcher = f"{rng.choice(names)}{rng.choice(['=', '!=', '=~', '!~'])}{rng.choice(['a', 'b', '[ab]', '.+', 'c'])}"
        if "[" in matcher or "+" in matcher:
            matcher = re.sub(r"(=~|!~|!=|=)(.*)", r'\1"\2"', matcher)
        one: dict[str, object] = {"matchers": [matcher], "continue": rng.random() < 0.3}
        if rng.random() < 0.7:
            one["receiver"] = rng.choice(["r1", "r2", "r3"])
        if depth < 3:
            one["routes"] = [route(depth + 1) for _ in range(rng.randint(0, 3))]
        return one

    config = {
        "route": {"receiver": "r0", "routes": [route(0) for _ in range(6)]},
        "receivers": [{"name": f"r{number}"} for number in range(4)],
    }
    labels = [
        {name: rng.choice(values) for name in names if rng.random() < 0.7} | {"alertname": f"x{rng.randint(0, 99)}é"}
        for _ in range(200)
    ]
    return {"yaml": yaml.safe_dump(config, allow_unicode=True), "labels": labels}


if __name__ == "__main__":
    json.dump({"matchers": matchers(Path(sys.argv[1])), "intervals": intervals(), "routing": routing()}, sys.stdout)
