"""Recording and alerting rules: files, evaluation, templates, promtool's unit tests."""
