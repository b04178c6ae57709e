"""The gates: tests with numbers that a release must pass (reliability tests 1 to 35). ``python -m gate N`` runs one."""
