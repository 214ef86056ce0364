import json

import pytest

from pipeline.search.documents import bulk_lines, bulks, newest
from tests.fakes.turns import event, lane, row, version


def lines_of(image: bytes, **changes: object) -> list[bytes]:
    [change] = newest([lane(event(1, image, **changes))], {})  # type: ignore[arg-type]  # keywords of event()
    lines = bulk_lines("payments", change)
    assert lines is not None
    return lines.splitlines()


def test_the_row_image_is_spliced_in_unparsed() -> None:
    # 1.10 and the order of the columns would not survive parsing and writing again.
    action, source = lines_of(b'{"z":1.10,"a":"\xc3\xbc"}')
    assert json.loads(action)["index"] == {
        "_index": "payments-payment-write",
        "_id": "6:payment:1",
        "routing": "6",
        "version": version(1),
        "version_type": "external",
    }
    assert source.endswith(b',"z":1.10,"a":"\xc3\xbc"}')
    assert json.loads(source)["cdc"] == {
        "merchant": "6",
        "key": "1",
        "ver": str(version(1)),
        "src": "gateway0",
        "table": "public.payments",
        "deleted": False,
        "partition": 3,
        "offset": 0,
    }


def test_a_tombstone_has_the_key_and_nothing_else_of_the_row() -> None:
    [change] = newest([lane(event(1, row(1, note="private"), op="d"))], {})
    source = json.loads((bulk_lines("payments", change) or b"").splitlines()[1])
    assert source.pop("cdc")["deleted"] is True
    assert source == {"id": 1}


@pytest.mark.parametrize("image", [b'{"id":1,\n"a":2}', b'{ "id":1,"a":2}', b'{\n\n"id":1,\r\n"a"\n:2}'])
def test_a_line_break_in_an_image_shifts_no_other_document(image: bytes) -> None:
    # Mutant: splice the image without looking for line breaks.
    lines = lines_of(image)
    assert len(lines) == 2
    assert json.loads(lines[1])["a"] == 2


def test_hostile_keys_are_quoted() -> None:
    key = 'a"b\\c\n:%'
    action, source = lines_of(b'{"id":1}', key={"id": key})
    assert json.loads(action)["index"]["_id"] == '6:payment:a"b\\c\n%3A%25'
    assert json.loads(source)["cdc"]["key"] == 'a"b\\c\n%3A%25'


@pytest.mark.parametrize("image", [b"null", b"[]", b"{}", b"{ }", b"5", b'"text"'])
def test_an_image_that_is_no_row_makes_no_document(image: bytes) -> None:
    [change] = newest([lane(event(1, image))], {})
    assert bulk_lines("payments", change) is None


def test_requests_are_cut_by_documents_and_by_bytes() -> None:
    changes = newest([lane(*(event(number, row(number)) for number in range(1, 8)))], {})
    sizes = [10, 10, 10, 25, 100, 1, 1]
    cut = bulks(zip(changes, (b"x" * size for size in sizes), strict=True), documents=3, size=30)
    assert [len(bulk.body) for bulk in cut] == [30, 25, 100, 2]


def test_no_document_is_in_two_requests_or_none() -> None:
    changes = newest([lane(*(event(number, row(number)) for number in range(1, 8)))], {})
    cut = list(bulks(((change, b"x") for change in changes), documents=3, size=30))
    assert [len(bulk.changes) for bulk in cut] == [3, 3, 1]
    assert [change for bulk in cut for change in bulk.changes] == changes
    assert list(bulks([], documents=3, size=30)) == []
