"""The store: the scrape matrix in memory. One writer (the event loop), readers in any thread."""

from flyball.store.head import Head
from flyball.store.matrix import Plan, Ref, Writer

__all__ = ["Head", "Plan", "Ref", "Writer"]
