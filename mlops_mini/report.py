"""What a loop has brought: the facts, as tables for people and as JSON for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlops_mini.arrivals import Partition
from mlops_mini.pipeline.evaluation import Metrics, Verdict

# Title, header and rows of text.
TextTable = tuple[str, tuple[str, ...], Sequence[tuple[str, ...]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Questions:
    """What a served version was asked, and how its answers compare with the model's own.

    Attributes:
        version: The version that answered.
        n_asked: Number of predictions, by transport, `rest` and `grpc`.
        max_difference: Largest absolute difference from the exported model run in this process,
            by transport; probabilities, 0 to 1.
    """

    version: int
    n_asked: dict[str, int]
    max_difference: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """How the loop went.

    Attributes:
        partitions: What arrived, in order: trained on, trained on by the candidate, judged on.
        baseline: The served model on the rows of the last partition.
        candidate: The new model on the same rows.
        verdict: Whether the candidate was published, and why.
        before: Questions to the version served before the verdict.
        after: Questions to the version served after it.
    """

    partitions: Sequence[Partition]
    baseline: Metrics
    candidate: Metrics
    verdict: Verdict
    before: Questions
    after: Questions


def tables(report: Report) -> list[TextTable]:
    """Lay a report out: for each table a title, the header, and rows of text."""
    learned = ("baseline, candidate", "candidate", "neither: judges both")
    rows = [
        (
            str(partition.period),
            f"{partition.n_arrived:,}",
            f"{partition.n_quarantined:,}",
            f"{partition.n_without_label:,}",
            f"{len(partition.labeled()[1]):,}",
            who,
        )
        for partition, who in zip(report.partitions, learned, strict=True)
    ]
    refused = [
        (f"{n:,}", reason) for part in report.partitions for reason, n in part.refused.items()
    ]
    baseline, candidate = report.baseline, report.candidate
    models = [
        (name, f"{auc:.4f}", f"{log_loss:.4f}")
        for name, auc, log_loss in (
            ("always the base rate", 0.5, baseline.base_rate_log_loss),
            ("baseline", baseline.auc, baseline.log_loss),
            ("candidate", candidate.auc, candidate.log_loss),
        )
    ]
    served = [
        (when, str(asked.version), transport, f"{n:,}", f"{asked.max_difference[transport]:.1e}")
        for when, asked in (("before", report.before), ("after", report.after))
        for transport, n in asked.n_asked.items()
    ]
    judged_on = report.partitions[-1].period
    decision = "published" if report.verdict.is_blessed else "refused"
    return [
        (
            "Flights",
            ("month", "arrived", "refused", "no label", "used", "learned by"),
            rows,
        ),
        ("Refused", ("rows", "why"), refused or [("0", "every row keeps every rule")]),
        (
            f"Models on {judged_on} ({baseline.n_rows:,} flights, {baseline.base_rate:.1%} late)",
            ("model", "AUC", "log loss"),
            models,
        ),
        ("Verdict", ("candidate", "why"), [(decision, report.verdict.reason)]),
        (
            "Predictions, each against the model's own",
            ("verdict", "version", "over", "asked", "largest difference"),
            served,
        ),
    ]


def summarize(report: Report) -> dict[str, Any]:
    """Reduce a report to what JSON can hold."""
    return {
        "partitions": [
            {
                "period": str(partition.period),
                "n_arrived": partition.n_arrived,
                "refused": partition.refused,
                "findings": list(partition.findings),
                "n_without_label": partition.n_without_label,
            }
            for partition in report.partitions
        ],
        **{
            name: asdict(getattr(report, name))
            for name in ("baseline", "candidate", "verdict", "before", "after")
        },
    }
