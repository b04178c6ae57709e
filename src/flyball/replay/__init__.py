"""Policies tried on recorded load before they go live."""
