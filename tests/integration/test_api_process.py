import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from devstack.process import wait_until
from tests.fakes.search import environment_for

pytestmark = pytest.mark.integration


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def test_the_process_serves_on_its_port_and_ends_on_sigterm(elasticsearch_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    environ = environment_for(tmp_path, "payments", elasticsearch_url, PORT=str(port))
    command = [sys.executable, "-m", "pipeline", "api"]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, **environ}, stderr=subprocess.PIPE
    ) as process:
        try:
            assert wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthz"), 20)
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode in (0, -signal.SIGTERM)
    assert b"Traceback" not in log
    assert b"GET /" not in log
