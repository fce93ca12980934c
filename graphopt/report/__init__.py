"""The report: one value that says what was done, what was not and why, and how the result was proved."""

from graphopt.report.report import PassSummary, Refusal, Report, RuleCount, Size

__all__ = ["PassSummary", "Refusal", "Report", "RuleCount", "Size"]
