"""What the YAML loader refuses, and that refusing is cheap."""

import pytest

from flyball.errors import ConfigError
from flyball.model.yaml_loader import load_yaml


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "- " * 100_000 + "x"])
def test_what_would_crash_the_composer_is_refused_before(text: str) -> None:
    with pytest.raises(ConfigError, match="nested deeper than 100 levels"):
        load_yaml(text)


def test_a_long_text_that_is_flat_is_read() -> None:
    assert load_yaml("- {a: [1]}\n" * 2_000) == [{"a": [1]}] * 2_000
