"""Whose the rows of each table are: a column with the merchant's id, a parent that has one, or nobody's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.capture.proposal.inventory import Found
from pipeline.settings import Merchant

# What companies call those whom they serve, the likeliest first.
TENANTS = (
    "merchant",
    "tenant",
    "seller",
    "vendor",
    "shop",
    "store",
    "organization",
    "organisation",
    "org",
    "company",
    "account",
)
_MERCHANT_TYPES = frozenset(
    {"smallint", "integer", "bigint", "text", "character varying", "character", "uuid"}
)


@dataclass(frozen=True, slots=True)
class Owner:
    """Where the merchant of a table's rows stands, and what is a guess about it."""

    merchant: Merchant
    doubts: Sequence[str] = ()


def merchant_column(tables: Iterable[Found]) -> str | None:
    """The name under which most tables keep the merchant's id; of several names the likeliest."""
    found = list(tables)
    for tenant in TENANTS:
        names = [f"{tenant}_id", f"{tenant}_uuid", f"{tenant}id", tenant]
        counts = {name: sum(_usable(table, name) for table in found) for name in names}
        best = max(names, key=lambda name: counts[name])
        if counts[best]:
            return best
    return None


def owners(tables: Sequence[Found], column: str | None) -> Mapping[str, Owner]:
    """The owner of each table by its name; `column` is what `merchant_column` found."""
    direct = {table.name: owner for table in tables if (owner := _direct(tables, table, column)) is not None}
    return {table.name: direct.get(table.name) or _through_parent(table, direct) for table in tables}


def _usable(table: Found, column: str) -> bool:
    return any(name == column and type_ in _MERCHANT_TYPES for name, type_ in table.columns)


def _direct(tables: Sequence[Found], table: Found, column: str | None) -> Owner | None:
    if column is None:
        return None
    if _usable(table, column):
        return Owner(Merchant(column=column))
    is_the_merchants = len(table.key) == 1 and (
        any(
            each.column == column and each.table == table.name
            for other in tables
            for each in other.references
        )
        or _singular(table.name.split(".", 1)[1]) == column.removesuffix("_id").removesuffix("_uuid")
    )
    if is_the_merchants and _usable(table, table.key[0]):
        return Owner(
            Merchant(column=table.key[0]),
            (f'its rows seem to be the merchants themselves: "{table.key[0]}" is their id',),
        )
    return None


def _through_parent(table: Found, direct: Mapping[str, Owner]) -> Owner:
    ways = [each for each in table.references if each.table in direct]
    if not ways:
        return Owner(
            Merchant(none=True),
            (
                "nothing in it names a merchant: its rows are shown to none; if they are some merchant's, say where that stands",
            ),
        )
    first, *others = ways
    doubts = [f'its merchant could also be that of {each.table}, by "{each.column}"' for each in others]
    if not first.required:
        doubts.append(f'rows whose "{first.column}" is null belong to no merchant')
    return Owner(Merchant(parent=first.table, on=first.column), doubts)


def _singular(name: str) -> str:
    for ending, replaced in (("ies", "y"), ("sses", "ss"), ("s", "")):
        if name.endswith(ending) and len(name) > len(ending):
            return name.removesuffix(ending) + replaced
    return name
