"""What a Celery process loads before its first turn."""

import json
import subprocess
import sys

CODE = """
import json, sys
import tasks.loads, tasks.search, tasks.sweeps, tasks.warehouse
print(json.dumps([name for name in ("boto3", "elasticsearch", "redshift_connector") if name in sys.modules]))
"""


def test_every_celery_process_starts_without_the_clients_of_sinks() -> None:
    # Mutant: one of them imported at the top of a task's module: each process starts later, and comes back later.
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
