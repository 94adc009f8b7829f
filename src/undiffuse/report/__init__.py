"""The report of a run: one HTML page made to be looked at, and its numbers as JSON."""

from undiffuse.report.evaluate import evaluate
from undiffuse.report.page import write_report

__all__ = ["evaluate", "write_report"]
