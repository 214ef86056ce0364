"""Each batch once in its ledger, and every batch that the control database calls loaded is in it."""

import psycopg

from tests.acceptance.deployment import Deployment
from tests.conftest import connect_warehouse

TYPES = ("step", "note")


def doubled(deployment: Deployment) -> list[str]:
    """Batches that are in their ledger more or less often than once."""
    found = []
    with psycopg.connect(deployment.url("control")) as session:
        loaded = session.execute("SELECT type, batch_id::text FROM loads WHERE status = 'loaded'").fetchall()
    assert loaded, "nothing was loaded"
    for name in TYPES:
        with (
            connect_warehouse(deployment.variables["REDSHIFT_URL"]) as warehouse,
            warehouse.cursor() as cursor,
        ):
            cursor.execute(f'SELECT batch_id FROM "{deployment.name}"."_ledger_{name}"')
            batches = [str(row[0]) for row in cursor.fetchall()]
        expected = {batch for type_, batch in loaded if type_ == name}
        found += [
            f"{name} {batch}: {batches.count(batch)} times" for batch in expected if batches.count(batch) != 1
        ]
        found += [f"{name} {batch}: twice" for batch in set(batches) if batches.count(batch) > 1]
    return found
