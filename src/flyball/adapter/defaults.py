"""The configuration that holds before any ConfigMap adds rules."""

_RESOURCES = """\
  resources:
    overrides:
      namespace: {resource: namespace}
      pod: {resource: pod}
      service: {resource: service}
"""

_EXCEPT = "^(container|pod|node|kube|kubelet|machine|scrape|ALERTS)(_.*)?$"

_NOW = "sum(rate(<<.Series>>{<<.LabelMatchers>>}[2s]) or irate(<<.Series>>{<<.LabelMatchers>>}[1m])) by (<<.GroupBy>>)"

_CPU = 'container_cpu_usage_seconds_total{<<.LabelMatchers>>,container!=""}'

#: cpu and memory from the node's /metrics/resource; and, for every pod's own metrics, gauges as they are and
#: counters as rates per second (the names of prometheus-adapter's config-gen). ``NAME_per_second`` is the rate of the
#: last two seconds, or of the last two scrapes where they are further apart. What is of a namespace but of no pod, as
#: pushed metrics are, is external too.
DEFAULT_CONFIG = f"""\
rules:
- seriesQuery: '{{namespace!="",__name__!="up",__name__!~"{_EXCEPT}",__name__!~".*_(total|bucket|created|info)$"}}'
{_RESOURCES}\
  metricsQuery: sum(<<.Series>>{{<<.LabelMatchers>>}}) by (<<.GroupBy>>)
- seriesQuery: '{{namespace!="",__name__!~"{_EXCEPT}",__name__=~".*_total$",__name__!~".*_seconds_total$"}}'
{_RESOURCES}\
  name: {{matches: "^(.*)_total$"}}
  metricsQuery: sum(rate(<<.Series>>{{<<.LabelMatchers>>}}[1m])) by (<<.GroupBy>>)
- seriesQuery: '{{namespace!="",__name__!~"{_EXCEPT}",__name__=~".*_seconds_total$"}}'
{_RESOURCES}\
  name: {{matches: "^(.*)_seconds_total$"}}
  metricsQuery: sum(rate(<<.Series>>{{<<.LabelMatchers>>}}[1m])) by (<<.GroupBy>>)
- seriesQuery: '{{namespace!="",__name__!~"{_EXCEPT}",__name__=~".*_total$"}}'
{_RESOURCES}\
  name: {{matches: "^(.*)_total$", as: "${{1}}_per_second"}}
  metricsQuery: {_NOW}
externalRules:
- seriesQuery: '{{namespace!="",pod="",__name__!~"{_EXCEPT}",__name__!~".*_(total|bucket|created|info)$"}}'
  resources: {{overrides: {{namespace: {{resource: namespace}}}}}}
  metricsQuery: sum(<<.Series>>{{<<.LabelMatchers>>}}) by (<<.GroupBy>>)
- seriesQuery: '{{namespace!="",pod="",__name__!~"{_EXCEPT}",__name__=~".*_total$"}}'
  resources: {{overrides: {{namespace: {{resource: namespace}}}}}}
  name: {{matches: "^(.*)_total$", as: "${{1}}_per_second"}}
  metricsQuery: {_NOW}
resourceRules:
  cpu:
    containerQuery: >-
      sum(rate({_CPU}[20s]) or irate({_CPU}[2m])) by (<<.GroupBy>>)
    nodeQuery: sum(rate(node_cpu_usage_seconds_total{{<<.LabelMatchers>>}}[20s])) by (<<.GroupBy>>)
    resources:
      overrides:
        namespace: {{resource: namespace}}
        pod: {{resource: pod}}
        node: {{resource: node}}
    containerLabel: container
  memory:
    containerQuery: sum(container_memory_working_set_bytes{{<<.LabelMatchers>>,container!=""}}) by (<<.GroupBy>>)
    nodeQuery: sum(node_memory_working_set_bytes{{<<.LabelMatchers>>}}) by (<<.GroupBy>>)
    resources:
      overrides:
        namespace: {{resource: namespace}}
        pod: {{resource: pod}}
        node: {{resource: node}}
    containerLabel: container
  window: 20s
"""

_QUANTILES = "".join(
    f"""\
- seriesQuery: '{{namespace!="",le!="",__name__!~"{_EXCEPT}",__name__=~".*_bucket$"}}'
{_RESOURCES}\
  name: {{matches: "^(.*)_bucket$", as: "${{1}}_p{percent}"}}
  metricsQuery: >-
    histogram_quantile(0.{percent}, sum(rate(<<.Series>>{{<<.LabelMatchers>>}}[2m])) by (<<.GroupBy>>, le))
"""
    for percent in (50, 90, 99)
)

_RULES, _EXTERNAL = DEFAULT_CONFIG.split("resourceRules:")[0].split("externalRules:")
#: Without cpu and memory, and with histograms as ``NAME_p50``, ``NAME_p90`` and ``NAME_p99`` over two minutes: a rule
#: for every metric by its type, as its name tells it. Rules of a configuration hide those of their names.
DERIVED_CONFIG = f"{_RULES}{_QUANTILES}externalRules:{_EXTERNAL}"
