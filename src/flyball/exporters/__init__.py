"""Exporters under the names that rules and dashboards know."""
