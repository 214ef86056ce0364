"""SQL for Redshift: nothing that needs escaping gets into it, and errors are told apart by what they carry."""

import pytest

from pipeline.domain.table import Column, Table
from pipeline.warehouse import statements
from pipeline.warehouse.redshift import is_transient
from pipeline.warehouse.types import sink_table

TABLE = sink_table(Table("shop", "public.t", "t", "m", ("id",), (Column("id", "bigint"),)))


@pytest.mark.parametrize("name", ["", "A", 'a"b', "1a", "a b", "a;b", "a" * 128])
def test_only_plain_names_are_quoted(name: str) -> None:
    with pytest.raises(ValueError, match="identifier"):
        statements.quoted(name)


@pytest.mark.parametrize("text", ["", "a'b", "a\\b", "a b", "a\n", "é"])
def test_only_plain_texts_become_literals(text: str) -> None:
    with pytest.raises(ValueError, match="literal"):
        statements.copy(TABLE, "s3://bucket/key", text, "arn:aws:iam::1:role/r")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("XX000", "1023"),
        ("XX000", "Serializable isolation violation on table (1023)"),
        ("40001", "could not serialize access"),
        ("40P01", "deadlock detected"),
        ("57P01", "terminating connection"),
        ("57014", "canceling statement due to statement timeout"),
        ("28000", "password authentication failed"),
        ("XX000", "S3ServiceException:Please reduce your request rate.,Status 503,Error SlowDown"),
    ],
)
def test_the_whole_transaction_is_tried_again(code: str, message: str) -> None:
    assert is_transient(code, message)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("XX000", "Load into table 't' failed.  Check 'stl_load_errors' system table for details."),
        ("42P01", 'relation "t" does not exist'),
        ("XX000", "S3ServiceException:The specified key does not exist.,Status 404,Error NoSuchKey"),
        ("XX000", "S3ServiceException:Access Denied,Status 403,Error AccessDenied"),
    ],
)
def test_what_can_never_succeed_is_not_tried_again(code: str, message: str) -> None:
    assert not is_transient(code, message)
