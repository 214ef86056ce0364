import pytest

from pipeline.domain.table import Column
from pipeline.errors import ConfigurationError
from pipeline.search.mapping import mapping
from tests.fakes.search import table


def test_columns_become_fields_by_their_type() -> None:
    fields = mapping(table("payment"))["properties"]
    assert {name: field.get("type") for name, field in fields.items()} == {
        "id": "long",
        "merchant_id": "keyword",
        "amount": "keyword",
        "quantity": "long",
        "ratio": "double",
        "paid": "boolean",
        "note": "keyword",
        "created_at": "date",
        "day": "date",
        "extra": "object",
        "token": "keyword",
        "cdc": None,
    }
    assert fields["amount"]["fields"]["number"]["type"] == "double"
    assert fields["note"]["fields"]["text"]["type"] == "text"
    assert "fields" not in fields["token"]


@pytest.mark.parametrize("name", ["cdc", "a.b", "_id", "_source", " ", ".", "a\n.b"])
def test_a_column_that_no_document_can_hold_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        mapping(table("payment", (Column("id", "bigint"), Column(name, "text"))))
    assert f'"{name}"' in str(caught.value)
