"""Governors: an HPA's fields as an HPA's are checked, and those of their own."""

from __future__ import annotations

from flyball.localcluster.schema.kinds import Kind
from flyball.localcluster.schema.validation.autoscalers import check_hpa
from flyball.localcluster.schema.validation.causes import Cause, Object


def check_governor(kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    from flyball.scaling.governor import problems_of

    return check_hpa(kind, obj, old) + [Cause(*problem.split(": ", 2)) for problem in problems_of(obj)]
