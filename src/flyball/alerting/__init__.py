"""Alertmanager's function: routing, grouping, inhibition, silences, and telling receivers. See DESIGN.md here."""
