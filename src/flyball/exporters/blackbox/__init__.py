"""Probes from outside: HTTP, TCP and DNS, under the names of blackbox_exporter."""
