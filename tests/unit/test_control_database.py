"""How often a control database is asked that does not answer."""

import pytest

from pipeline.control.database import ControlDatabase
from pipeline.errors import TransientError

NOBODY = "postgresql://127.0.0.1:1/nothing"


def test_one_that_is_dark_is_waited_for_a_quarter_of_the_time_at_most() -> None:
    # Mutants: it is asked each time; it is not asked again.
    moments = iter([0.0, 5.0, 10.0, 20.0, 21.0])
    database = ControlDatabase(NOBODY, lambda: next(moments))

    def answer() -> str:
        with pytest.raises(TransientError) as raised, database.transaction():
            pass
        return raised.value.what

    assert "is asked again" not in answer()
    assert "is asked again in 10 s" in answer()
    assert "is asked again" not in answer()
