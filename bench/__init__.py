"""The measurements: ``.venv/bin/python -m bench.NAME [--json]``, one line a case."""
