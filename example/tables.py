"""The tables of the payment company: where they live, their keys, and the life cycle of a row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Json: TypeAlias = "str | int | float | bool | dict[str, Json] | None"
Row: TypeAlias = Mapping[str, Json]
"""A row, or some columns of one. Decimals, timestamps and uuids are text, so that no digit is lost on the way."""
Key: TypeAlias = tuple[int | str, ...]
"""The values of the primary key, in the order of `Table.key`."""

GATEWAYS = ("gateway0", "gateway1")
SOURCES = (*GATEWAYS, "funding", "apply")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a life cycle: the statuses that may follow, and the timestamp that records this one's arrival."""

    then: tuple[str, ...]
    stamp: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its document type in the pipeline, primary key, and life cycle by status (the first is where rows start)."""

    name: str
    type: str
    life: Mapping[str, Step]
    key: tuple[str, ...] = ("id",)
    renamed: tuple[str, ...] = ()
    """Key columns whose value may be changed by an update without another table noticing."""

    @property
    def begins(self) -> str:
        """The status of a new row."""
        return next(iter(self.life))


_ID = ("id",)

TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        Table(
            "merchants",
            "merchant",
            {
                "active": Step(("suspended", "closed"), "activated_at"),
                "suspended": Step(("active", "closed"), "suspended_at"),
                "closed": Step((), "closed_at"),
            },
            key=("merchant_id",),
        ),
        Table(
            "customers",
            "customer",
            {"active": Step(("blocked",), "updated_at"), "blocked": Step(("active",), "blocked_at")},
            renamed=_ID,
        ),
        Table(
            "transactions",
            "transaction",
            {
                "created": Step(("authorized", "authorized", "authorized", "declined"), "created_at"),
                "authorized": Step(("captured", "captured", "captured", "voided"), "authorized_at"),
                "captured": Step(("settled",), "captured_at"),
                "settled": Step(("refunded",), "settled_at"),
                "declined": Step((), "declined_at"),
                "voided": Step((), "voided_at"),
                "refunded": Step((), "refunded_at"),
            },
            renamed=_ID,
        ),
        Table(
            "refunds",
            "refund",
            {
                "pending": Step(("processing",), "created_at"),
                "processing": Step(("succeeded", "failed"), "processing_at"),
                "succeeded": Step((), "succeeded_at"),
                "failed": Step((), "failed_at"),
            },
        ),
        Table(
            "disputes",
            "dispute",
            {
                "opened": Step(("under_review",), "opened_at"),
                "under_review": Step(("won", "lost"), "reviewed_at"),
                "won": Step((), "won_at"),
                "lost": Step((), "lost_at"),
            },
            key=("merchant_id", "seq"),
            renamed=("seq",),
        ),
        Table(
            "bank_accounts",
            "bank_account",
            {
                "new": Step(("verified",), "created_at"),
                "verified": Step(("disabled",), "verified_at"),
                "disabled": Step((), "disabled_at"),
            },
            renamed=_ID,
        ),
        Table(
            "payouts",
            "payout",
            {
                "pending": Step(("in_transit",), "created_at"),
                "in_transit": Step(("paid", "paid", "failed"), "sent_at"),
                "paid": Step((), "paid_at"),
                "failed": Step((), "failed_at"),
            },
            renamed=_ID,
        ),
        Table(
            "applications",
            "application",
            {
                "draft": Step(("submitted",), "created_at"),
                "submitted": Step(("in_review",), "submitted_at"),
                "in_review": Step(("approved", "rejected"), "reviewed_at"),
                "approved": Step((), "approved_at"),
                "rejected": Step((), "rejected_at"),
            },
            renamed=_ID,
        ),
    )
}

_GATEWAY = ("merchants", "customers", "transactions", "refunds", "disputes")
TABLES_OF: Mapping[str, tuple[str, ...]] = {
    "gateway0": _GATEWAY,
    "gateway1": _GATEWAY,
    "funding": ("bank_accounts", "payouts"),
    "apply": ("applications",),
}


def gateway_of(merchant: int) -> str:
    """The gateway a merchant lives in: even ids in gateway0, odd ones in gateway1."""
    return GATEWAYS[merchant % 2]


def key_of(table: str, row: Row) -> Key:
    """The primary key of a row that has all of its key columns."""
    values = tuple(row[column] for column in TABLES[table].key)
    return tuple(value if isinstance(value, int) else str(value) for value in values)


def weight(merchant: int) -> float:
    """How much of the company's business this merchant is: Zipf's law, so merchant 1 is the largest."""
    return float(merchant**-1.07)
