"""Write-through records: what was decided, what was about to be written, what became of it."""

from flyball.journal.journal import DecisionRecord, Intent, Journal

__all__ = ["DecisionRecord", "Intent", "Journal"]
