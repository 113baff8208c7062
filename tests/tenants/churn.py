"""A use case of one table: which customers leave? Nothing of it is known to the package."""

from mlops_mini.data.periods import Calendar
from mlops_mini.data.rules import in_range, is_in
from mlops_mini.data.table import Table
from mlops_mini.use_case import Label, UseCase

PLANS = ("basic", "family", "pro")

CUSTOMERS = Table(
    name="customers",
    key=["customer"],
    time="billed_at",
    columns={
        "customer": "text",
        "billed_at": "instant",
        "plan": "text",
        "monthly_usd": "number",
        "calls": "integer?",
        "churned": "integer?",
    },
    rules=[is_in("plan", PLANS), in_range("monthly_usd", 0, 1_000), in_range("calls", 0, 500)],
)

CHURN = UseCase(
    "churn",
    tables=[CUSTOMERS],
    calendar=Calendar("month", zone="Europe/Berlin"),
    label=Label("churned", matures_after="30d"),
    features=["plan", "monthly_usd", "calls"],
    slices=["plan"],
)
