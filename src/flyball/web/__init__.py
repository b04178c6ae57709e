"""HTTP APIs and the page."""
