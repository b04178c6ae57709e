"""The store: the scrape matrix in memory, its write-ahead log and blocks. One writer (the event loop), readers in any
thread."""

from flyball.store.database import Database
from flyball.store.head import Head
from flyball.store.matrix import Plan, Ref, Writer
from flyball.store.telemetry import StoreCollector

__all__ = ["Database", "Head", "Plan", "Ref", "StoreCollector", "Writer"]
