"""prometheus-adapter's rules as pure functions: configuration, naming, query templates, values.

Facts: reference/adapter.md sections 1 and 2.4 (prometheus-adapter 0.12).
"""

from flyball.metricrules.compatibility import SWITCHES, differences
from flyball.metricrules.config import (
    AdapterConfig,
    ExternalRule,
    MetricRule,
    Refusal,
    ResourceRule,
    ResourceRules,
    RuleOptions,
    parse_config,
    parse_metric_rule,
)
from flyball.metricrules.queries import (
    MetricQuery,
    custom_query,
    external_query,
    resource_query,
    selector_matchers,
)
from flyball.metricrules.resources import GroupResource, Kind, KindTable, ResourceConverter, RestMapper
from flyball.metricrules.sourceconfig import SourceConfig
from flyball.model.gotemplate import Template, TemplateError

__all__ = [
    "SWITCHES",
    "AdapterConfig",
    "ExternalRule",
    "GroupResource",
    "Kind",
    "KindTable",
    "MetricQuery",
    "MetricRule",
    "Refusal",
    "ResourceConverter",
    "ResourceRule",
    "ResourceRules",
    "RestMapper",
    "RuleOptions",
    "SourceConfig",
    "Template",
    "TemplateError",
    "custom_query",
    "differences",
    "external_query",
    "parse_config",
    "parse_metric_rule",
    "resource_query",
    "selector_matchers",
]
