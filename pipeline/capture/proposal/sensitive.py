"""Columns that look like card or secret data: by name, and by a sample of their values, which is shown to nobody."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import sql

from pipeline.capture.proposal.inventory import Found
from pipeline.capture.session import Connection

Way = Literal["exclude", "hash", "last4"]

_SAMPLED_ROWS = 500
_SAMPLED_CHARACTERS = 4000

# In this order: the first that fits says what happens.
_NAMES: tuple[tuple[Way, re.Pattern[str]], ...] = (
    (
        "exclude",
        re.compile(
            r"(^|_)(cvv2?|cvc2?|csc|pin|pin_?(code|block)|track_?[12]|magstripe|card_?verification\w*)($|_)"
        ),
    ),
    (
        "exclude",
        re.compile(
            r"passw(or)?d|passwd|passphrase|secret|private_?key|api_?key|credential|otp_?seed|recovery_?code"
        ),
    ),
    ("exclude", re.compile(r"(^|_)(token|salt|session_?id|access_?key|signing_?key|encryption_?key)$")),
    (
        "last4",
        re.compile(r"(^|_)(pan|card_?(number|num|no)|cc_?(number|num|no)|credit_?card|debit_?card)($|_)"),
    ),
    ("last4", re.compile(r"(^|_)(iban|account_?(number|no)|bank_?account|routing_?number|sort_?code)$")),
    (
        "hash",
        re.compile(
            r"(^|_)(ssn|social_?security\w*|tax_?(id|number)|vat_?id|national_?id|passport\w*|driver\w*_?licen[cs]e\w*)($|_)"
        ),
    ),
)
_ALREADY_SAFE = re.compile(
    r"last_?4|last_?four|masked|(^|_)(type|brand|count|expires?_at|created_at|updated_at)$"
)
_TEXTS = frozenset({"text", "character varying", "character", "json", "jsonb", "xml"})
_NUMBERS = frozenset({"bigint", "numeric"})

# An issuer's first digits and a length that cards have; groups of four are written with blanks or dashes.
_CARD = re.compile(r"(?<![\d.])(?:[3-6]\d{3}|2[2-7]\d{2})(?:[ -]?\d){8,15}(?![\d.])")
_SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\b(?:sk|rk)_(?:live|test)_\w{10}|\bAKIA[0-9A-Z]{16}\b|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.|\$2[aby]\$\d\d\$"
)


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A column, what to do with it, and why, in words without any of its values."""

    column: str
    way: Way
    why: str


def suspicions(connection: Connection, table: Found) -> tuple[list[Suspicion], list[str]]:
    """What looks sensitive in a table, and what could not be looked at. Needs an open transaction."""
    named = {name: each for name, type_ in table.columns if (each := _by_name(name, type_)) is not None}
    rest = [
        (name, type_) for name, type_ in table.columns if name not in named and type_ in _TEXTS | _NUMBERS
    ]
    sample, doubts = _sample(connection, table, [name for name, _ in rest])
    found = list(named.values())
    for place, (name, type_) in enumerate(rest):
        values = [value for row in sample if (value := row[place]) is not None]
        by_value = _by_value(name, values, numbers=type_ in _NUMBERS)
        found += [by_value] if by_value is not None else []
    return found, doubts


def _by_name(name: str, type_: str) -> Suspicion | None:
    lower = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    if type_ in ("boolean", "date") or type_.startswith("timestamp") or _ALREADY_SAFE.search(lower):
        return None
    for way, pattern in _NAMES:
        if pattern.search(lower):
            return Suspicion(name, way, "by its name")
    return None


def _by_value(name: str, values: Sequence[str], *, numbers: bool) -> Suspicion | None:
    secrets = sum(_SECRET.search(value) is not None for value in values)
    if secrets:
        return Suspicion(
            name, "exclude", f"{secrets} of {len(values)} values looked at hold what looks like a secret"
        )
    cards = sum(_holds_card(value) for value in values)
    whole = sum(_holds_card(value) and _CARD.fullmatch(value.strip()) is not None for value in values)
    # One number in ten passes the check by chance: a column of long ids is no column of cards.
    if not cards or ((numbers or whole == cards) and cards * 2 < len(values)):
        return None
    why = f"{cards} of {len(values)} values looked at hold what looks like a card number"
    return Suspicion(name, "last4" if whole == cards == len(values) else "exclude", why)


def _holds_card(value: str) -> bool:
    return any(_luhn(re.sub(r"\D", "", match[0])) for match in _CARD.finditer(value))


def _luhn(digits: str) -> bool:
    doubled = (int(digit) * 2 for digit in digits[-2::-2])
    total = sum(map(int, digits[-1::-2])) + sum(number - 9 if number > 9 else number for number in doubled)
    return 13 <= len(digits) <= 19 and total % 10 == 0


def _sample(
    connection: Connection, table: Found, columns: Iterable[str]
) -> tuple[list[tuple[str | None, ...]], list[str]]:
    fields = [
        sql.SQL("left({}::text, {})").format(sql.Identifier(column), sql.Literal(_SAMPLED_CHARACTERS))
        for column in columns
    ]
    if not fields:
        return [], []
    query = sql.SQL("SELECT {} FROM {} LIMIT {}").format(
        sql.SQL(", ").join(fields), sql.Identifier(*table.name.split(".", 1)), sql.Literal(_SAMPLED_ROWS)
    )
    try:
        with connection.transaction():
            return connection.execute(query).fetchall(), []
    except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
        return [], ["its values could not be looked at in time: go through its columns yourself"]
    except psycopg.errors.InsufficientPrivilege:
        return [], [
            "this role may not read it, so its values were not looked at: go through its columns yourself"
        ]
