"""A proposal as the text of a ``pipeline.toml``, with comments for whoever goes through it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from pipeline.capture.proposal.propose import Choice, Proposal, named

_HEAD = """\
# Proposed by `pipeline init` for database {database}. Lines with "?" are guesses: look at each of them.
# `pipeline check` says whether it can be used as it is; docs/configuration.md explains every setting.

[deployment]
name = {deployment}                # in the names of consumer groups, lanes, indices, S3 keys and the warehouse's schema
# replication_factor = 1           # with a single Kafka broker; otherwise 3
# min_insync_replicas = 1          # with a single Kafka broker; otherwise 2

[deployment.datastream]
topic = "datastream"
partitions = 12                    # can never change: merchants are spread by this number
"""
_TAIL = """\

[warehouse]
# ? the role with which Redshift's COPY reads the bucket: set your own
iam_role = "arn:aws:iam::123456789012:role/pipeline-copy"

[consumers.search]
handler = "tasks.search:index"
group = 50                         # merchants whose waiting events may share one turn
turn_events = 1000

[consumers.warehouse]
handler = "tasks.warehouse:stage"
group = 500
linger = "5s"                      # how long events wait for company: fewer, larger files
"""


def render(proposal: Proposal) -> str:
    """The whole file."""
    head = _HEAD.format(
        database=_comment(proposal.database), deployment=_text(named(proposal.database, "deployment"))
    )
    return head + "".join(f"{line}\n" for line in _source(proposal)) + _TAIL


def _source(proposal: Proposal) -> Iterator[str]:
    yield ""
    yield f"# The URL of this source stands in {proposal.source.upper()}_DATABASE_URL."
    for problem in proposal.problems:
        yield f"# Before it can be captured: {_comment(problem)}"
    yield f"[sources.{proposal.source}]"
    if not proposal.choices:
        yield "tables = {}"
    for choice in proposal.choices:
        yield ""
        yield from _table(proposal.source, choice)
    if proposal.left_out:
        yield ""
        yield "# Left out:"
    for table, why in sorted(proposal.left_out):
        yield f"#   {_comment(table)}: {_comment(why)}"


def _table(source: str, choice: Choice) -> Iterator[str]:
    for doubt in choice.doubts:
        yield f"# ? {_comment(doubt)}"
    yield f"[sources.{source}.tables.{_text(choice.table)}]"
    merchant = choice.configured.merchant
    if merchant.column is not None:
        yield f"merchant = {{ column = {_text(merchant.column)} }}"
    elif merchant.parent is not None and merchant.on is not None:
        yield f"merchant = {{ parent = {_text(merchant.parent)}, on = {_text(merchant.on)} }}"
    else:
        yield "merchant = { none = true }"
    if choice.configured.type is not None:
        yield f"type = {_text(choice.configured.type)}"
    for column, why in choice.reasons.items():
        yield f"# ? {_comment(column)}: {_comment(why)}"
    if choice.configured.exclude:
        yield f"exclude = [{', '.join(map(_text, choice.configured.exclude))}]"
    if choice.configured.columns:
        rules = ", ".join(
            f"{_text(name)} = {_text(rule)}" for name, rule in choice.configured.columns.items()
        )
        yield f"columns = {{ {rules} }}"


def _text(text: str) -> str:
    """A TOML string. JSON's escapes are TOML's, but for DEL, which JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    """One line, whatever a database calls its tables: a line break would end the comment."""
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", "?", text)
