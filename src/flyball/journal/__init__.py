"""Write-through records: what was decided, what was about to be written, what became of it."""

from flyball.journal.journal import DecisionRecord, Entry, Intent, Journal
from flyball.journal.together import Together

__all__ = ["DecisionRecord", "Entry", "Intent", "Journal", "Together"]
