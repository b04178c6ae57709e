"""What the suite does, by scenario. A scenario's name is its namespace; ``$NS`` in a step stands for it."""

from tests.cluster.scenarios import (
    cluster,
    defaults,
    definitions,
    imperative,
    kinds,
    objects,
    patching,
    reading,
    rights,
    validation,
)
from tests.cluster.steps import Step

SCENARIOS: dict[str, list[Step]] = {
    name: steps
    for module in (objects, patching, validation, defaults, kinds, reading, imperative, cluster, definitions, rights)
    for name, steps in module.SCENARIOS.items()
}
