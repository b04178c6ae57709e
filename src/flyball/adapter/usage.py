"""Resource metrics: cpu and memory of pods and nodes, as metrics-server serves them."""

import asyncio
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from flyball.adapter.evaluation import VALUE_MAX, Dated, Evaluation, Limits
from flyball.adapter.sharing import shared_resource
from flyball.adapter.values import ObjectUsage, Usage
from flyball.errors import FlyballError
from flyball.metricrules import GroupResource, ResourceConverter, ResourceRule, ResourceRules, RestMapper
from flyball.metricrules.queries import resource_query
from flyball.metricrules.resources import NODES, PODS

NAMESPACES_AT_ONCE = 8

#: (object, container) -> (value, newest sample's time)
Measured = dict[tuple[str, str], tuple[float, int]]


class ResourceUsage:
    """Asks the resource rules.

    Args:
        rules: those in force.
        gaps_are_zero: upstream's way with a container of which one figure is missing, NaN or negative.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        rules: ResourceRules,
        mapper: RestMapper,
        limits: Limits,
        *,
        gaps_are_zero: bool = False,
    ) -> None:
        self._evaluation, self._rules, self._mapper, self._limits = evaluation, rules, mapper, limits
        self._gaps_are_zero = gaps_are_zero

    async def of_pods(self, pods: Mapping[str, Mapping[str, dict[str, str]]]) -> list[ObjectUsage]:
        """Usage of pods by namespace and name, with their labels. Pods with gaps are left out.

        Raises:
            UpstreamError, ConfigError: no namespace could be asked.
        """
        limit = asyncio.Semaphore(NAMESPACES_AT_ONCE)

        async def one(space: str) -> list[ObjectUsage]:
            async with limit:
                return await self._pods_of(space, pods[space])

        answers = await asyncio.gather(*map(one, sorted(pods)), return_exceptions=True)
        found: list[ObjectUsage] = []
        failures: list[BaseException] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                if not isinstance(answer, FlyballError):
                    raise answer
                failures.append(answer)
            else:
                found += answer
        if failures and not found:
            raise failures[0]
        return found

    async def _pods_of(self, space: str, pods: Mapping[str, dict[str, str]]) -> list[ObjectUsage]:
        names = sorted(pods)
        cpu, memory = await asyncio.gather(
            *(
                self._measure(rule, PODS, space, names, rule.container_label)
                for rule in (self._rules.cpu, self._rules.memory)
            )
        )
        containers: dict[str, set[str]] = {}
        for name, container in (*cpu, *memory):
            containers.setdefault(name, set()).add(container)
        found = []
        for name in names:
            usage = self._pod(space, name, pods[name], sorted(containers.get(name, ())), cpu, memory)
            if usage is not None:
                found.append(usage)
        return found

    def _pod(
        self, space: str, name: str, labels: dict[str, str], containers: Iterable[str], cpu: Measured, memory: Measured
    ) -> ObjectUsage | None:
        parts: list[tuple[str, Usage]] = []
        times = []
        has_cpu = has_memory = False
        for container in containers:
            one, two = cpu.get((name, container)), memory.get((name, container))
            has_cpu, has_memory = has_cpu or one is not None, has_memory or two is not None
            if (one is None or two is None) and not self._gaps_are_zero:
                return None  # a pod with gaps would count for less than it uses
            parts.append((container, _usage(one, two)))
            times += [item[1] for item in (one, two) if item is not None]
        if not has_cpu or not has_memory:
            return None
        total = Usage(sum(usage.cpu_nano for _, usage in parts), sum(usage.memory_milli for _, usage in parts))
        return ObjectUsage(space, name, labels, min(times), total, tuple(parts))

    async def of_nodes(self, nodes: Mapping[str, dict[str, str]]) -> list[ObjectUsage]:
        """Usage of nodes by name, with their labels. Nodes with gaps are left out.

        Raises:
            UpstreamError, ConfigError: they cannot be asked for.
        """
        names = sorted(nodes)
        cpu, memory = await asyncio.gather(
            *(self._measure(rule, NODES, "", names, "") for rule in (self._rules.cpu, self._rules.memory))
        )
        found = []
        for node in names:
            one, two = cpu.get((node, "")), memory.get((node, ""))
            if one is not None and two is not None:
                found.append(ObjectUsage("", node, nodes[node], min(one[1], two[1]), _usage(one, two)))
        return found

    async def _measure(
        self, rule: ResourceRule, resource: GroupResource, namespace: str, names: list[str], container_label: str
    ) -> Measured:
        converter = ResourceConverter(rule.resources, self._mapper, f"{rule.where}: resources")
        template = rule.container_query if container_label else rule.node_query
        limits = replace(self._limits, where=rule.where)
        key = (rule.where, template.text, resource)
        # For the whole cluster the query is the same for every HPA; in one namespace, for those there.
        space = None if namespace and self._evaluation.wide(key, namespace) else namespace
        shared = self._evaluation.plan(
            (*key, space), lambda: shared_resource(template, rule.where, converter, resource, space, container_label)
        )
        samples: list[Dated] = []
        answers = await self._evaluation.of_all(shared, limits) if shared is not None else None
        if shared is not None and answers is not None:
            label = shared.keys[-1]
            for name in names:
                samples += answers.get((namespace, name) if len(shared.keys) == 2 else (name,), ())
        else:
            query = resource_query(template, rule.where, converter, resource, namespace, names, container_label)
            label = query.group_labels[0]
            samples = await self._evaluation.dated(query, limits, query.group_labels)
        return self._measured(samples, label, container_label)

    def _measured(self, samples: Iterable[Dated], label: str, container_label: str) -> Measured:
        found: Measured = {}
        for sample, t_ms in samples:
            labels = dict(sample.labels)
            key = (labels.get(label, ""), labels.get(container_label, "") if container_label else "")
            if math.isfinite(sample.value) and 0 <= sample.value <= VALUE_MAX:
                found[key] = (sample.value, t_ms)
            elif self._gaps_are_zero and not sample.value > 0:
                found[key] = (0.0, t_ms)
            else:
                self._evaluation.counts["not_finite_dropped"] += 1
        return found


def _usage(cpu: tuple[float, int] | None, memory: tuple[float, int] | None) -> Usage:
    return Usage(round(cpu[0] * 1e9) if cpu else 0, round(memory[0] * 1e3) if memory else 0)
