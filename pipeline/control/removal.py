"""What is known of a consumer that was made for a while."""

from __future__ import annotations

from psycopg import sql

from pipeline.control.database import ControlDatabase


def forget_consumer(database: ControlDatabase, consumer: str) -> None:
    """Delete every row that bears this consumer's name; the audit of what was done to it stays."""
    with database.transaction() as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.columns"
            " WHERE table_schema = current_schema AND column_name = 'consumer'"
        ).fetchall()
        for (table,) in tables:
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE consumer = %s").format(sql.Identifier(table)), (consumer,)
            )
