"""New rows of every table: pure functions of a random source, a merchant, a key and a moment."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from . import words
from .tables import TABLES, Json, Key


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a new row comes from: its merchant and key, the moment, the request, and the payment it belongs to."""

    merchant: int
    key: Key
    at: datetime
    request: str
    payment: int | str | None = None


def new_row(table: str, rng: Random, origin: Origin) -> dict[str, Json]:
    """A whole row as it looks when it is first inserted: every column is present."""
    row = _MAKERS[table](rng, origin)
    row.update(zip(TABLES[table].key, origin.key, strict=True))
    row.update(merchant_id=origin.merchant, status=TABLES[table].begins, request_id=origin.request)
    return row


def _later(rng: Random, at: datetime, days: int) -> str:
    return (at + timedelta(seconds=rng.randrange(60, days * 86_400))).isoformat()


def _merchant(rng: Random, origin: Origin) -> dict[str, Json]:
    legal = words.company(rng)
    return {
        "legal_name": f"{legal} Ltd.",
        "trading_name": legal if rng.random() < 0.7 else None,
        "email": words.email(rng),
        "country": words.country(rng),
        "category_code": f"{rng.randrange(10_000):04d}",
        "monthly_limit": words.money(rng),
        "settings": words.metadata(rng) or {},
        "created_at": origin.at.isoformat(),
        "activated_at": origin.at.isoformat(),
        "suspended_at": None,
        "closed_at": None,
        "updated_at": None,
    }


def _customer(rng: Random, origin: Origin) -> dict[str, Json]:
    return {
        "name": words.name(rng),
        "email": words.email(rng),
        "phone": words.phone(rng) if rng.random() < 0.6 else None,
        "address": words.address(rng),
        "city": words.city(rng),
        "zip": words.postcode(rng),
        "country": words.country(rng),
        "notes": words.text(rng),
        "metadata": words.metadata(rng),
        "created_at": origin.at.isoformat(),
        "blocked_at": None,
        "updated_at": None,
    }


def _transaction(rng: Random, origin: Origin) -> dict[str, Json]:
    return {
        "customer_id": rng.randrange(1, 100_000) if rng.random() < 0.7 else None,
        "amount": words.money(rng),
        "fee": words.fee(rng),
        "currency": words.currency(rng),
        "card_type": rng.choice(("visa", "visa", "mastercard", "amex", "discover", None)),
        "card_last4": f"{rng.randrange(10_000):04d}",
        "customer_name": words.name(rng),
        "customer_email": words.email(rng),
        "billing_address": words.address(rng),
        "billing_city": words.city(rng),
        "billing_zip": words.postcode(rng),
        "billing_country": words.country(rng),
        "description": words.text(rng),
        "metadata": words.metadata(rng),
        "risk_score": words.score(rng),
        "is_test": rng.random() < 0.03,
        "created_at": origin.at.isoformat(),
        **dict.fromkeys(_NOT_YET),
        "expires_at": _later(rng, origin.at, 7),
        "due_at": _later(rng, origin.at, 30) if rng.random() < 0.3 else None,
        "updated_at": None,
    }


_NOT_YET = (
    "authorized_at", "captured_at", "settled_at", "declined_at", "voided_at", "refunded_at", "disputed_at", "exported_at",
)  # fmt: skip


def _refund(rng: Random, origin: Origin) -> dict[str, Json]:
    return {
        "transaction_id": origin.payment,
        "amount": words.money(rng),
        "currency": words.currency(rng),
        "reason": words.text(rng),
        "metadata": words.metadata(rng),
        "created_at": origin.at.isoformat(),
        "processing_at": None,
        "succeeded_at": None,
        "failed_at": None,
        "updated_at": None,
    }


def _dispute(rng: Random, origin: Origin) -> dict[str, Json]:
    return {
        "transaction_id": rng.randrange(1, 100_000),
        "amount": words.money(rng),
        "currency": words.currency(rng),
        "reason_code": rng.choice(("fraud", "not_received", "duplicate", "4853", None)),
        "evidence": words.metadata(rng),
        "comment": words.text(rng),
        "opened_at": origin.at.isoformat(),
        "reviewed_at": None,
        "won_at": None,
        "lost_at": None,
        "respond_by": _later(rng, origin.at, 21),
        "updated_at": None,
    }


def _bank_account(rng: Random, origin: Origin) -> dict[str, Json]:
    return {
        "holder": words.name(rng),
        "bank": f"{words.city(rng)} Savings",
        "country": words.country(rng),
        "currency": words.currency(rng),
        "iban_last4": f"{rng.randrange(10_000):04d}",
        "created_at": origin.at.isoformat(),
        "verified_at": None,
        "disabled_at": None,
        "updated_at": None,
    }


def _payout(rng: Random, origin: Origin) -> dict[str, Json]:
    return {
        "period": origin.at.date().isoformat(),
        "gross": words.money(rng),
        "fees": words.fee(rng),
        "net": words.money(rng),
        "currency": words.currency(rng),
        "transactions": rng.randrange(5_000),
        "bank": f"{words.city(rng)} Savings",
        "statement_text": words.text(rng),
        "created_at": origin.at.isoformat(),
        "sent_at": None,
        "paid_at": None,
        "failed_at": None,
        "updated_at": None,
    }


def _application(rng: Random, origin: Origin) -> dict[str, Json]:
    return {
        "legal_name": words.company(rng),
        "contact_name": words.name(rng),
        "contact_email": words.email(rng),
        "country": words.country(rng),
        "expected_volume": words.money(rng),
        "credit_score": words.score(rng),
        "is_renewal": rng.random() < 0.1,
        "answers": words.metadata(rng),
        "comment": words.text(rng),
        "created_at": origin.at.isoformat(),
        "submitted_at": None,
        "reviewed_at": None,
        "approved_at": None,
        "rejected_at": None,
        "updated_at": None,
    }


_MAKERS: Mapping[str, Callable[[Random, Origin], dict[str, Json]]] = {
    "merchants": _merchant,
    "customers": _customer,
    "transactions": _transaction,
    "refunds": _refund,
    "disputes": _dispute,
    "bank_accounts": _bank_account,
    "payouts": _payout,
    "applications": _application,
}
