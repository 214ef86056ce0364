"""The supervisor on real processes: restarts, back-off, signals, the end."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from devstack import process, supervisor
from devstack.process import alive, wait_until
from devstack.supervisor import ProcfileError, ReleaseFailed, Supervisor, command_lines, read_procfile, words

PATIENCE = 20.0
REPO = Path(__file__).resolve().parents[2]
Make = Callable[[Mapping[str, str]], Supervisor]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Supervisor] = []

    def build(commands: Mapping[str, str]) -> Supervisor:
        env = {**os.environ, "HERE": str(tmp_path)}
        made.append(Supervisor(commands, env, tmp_path / "logs", tmp_path))
        return made[-1]

    yield build
    for each in made:
        each.stop(timeout=0)


def log_of(running: Supervisor, name: str) -> str:
    return running.log(name).read_text() if running.log(name).exists() else ""


def eventually(condition: Callable[[], bool]) -> None:
    assert wait_until(condition, PATIENCE)


def test_words_expand_variables_after_splitting() -> None:
    assert words("run '$A b' ${A}c", {"A": "x y"}) == ["run", "x y b", "x yc"]


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(ProcfileError, match="FLOWER_PORT"):
        words("flower --port=$FLOWER_PORT", {})


@pytest.mark.parametrize("line", ["web", "web:", "Web: x", "a: b\na: c"])
def test_a_malformed_procfile_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "Procfile").write_text(f"# comment\n\n{line}\n")
    with pytest.raises(ProcfileError, match="Procfile:"):
        read_procfile(tmp_path / "Procfile")


def test_chosen_lines_keep_the_release_line(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("release: a\nweb: b\nbeat: c\n")
    assert command_lines(tmp_path / "Procfile", ["beat"]) == {"release": "a", "beat": "c"}
    with pytest.raises(ProcfileError, match="nothing"):
        command_lines(tmp_path / "Procfile", ["nothing"])


def test_a_killed_command_runs_again(make: Make) -> None:
    running = make({"a": "sleep 1000"})
    first = running.start("a")
    running.signal("a", signal.SIGKILL)
    eventually(lambda: running.pid("a") not in (None, first))
    assert running.restarts("a") == 1
    assert "SIGKILL" in log_of(running, "a")


def test_the_pause_doubles(make: Make) -> None:
    running = make({"a": "false"})
    running.start("a")
    eventually(lambda: running.restarts("a") >= 3)
    pauses = [line.split()[-2] for line in log_of(running, "a").splitlines()]
    assert pauses[:3] == ["0.2", "0.4", "0.8"]


def test_a_steady_command_starts_again_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STEADY", 0.0)
    running = make({"a": "false"})
    running.start("a")
    eventually(lambda: running.restarts("a") >= 3)
    assert {line.split()[-2] for line in log_of(running, "a").splitlines()} == {"0.2"}


def test_the_release_line_runs_first_and_once(make: Make) -> None:
    running = make({"a": "cat made", "release": "sh -c 'echo x >> made'"})
    running.start_all()
    eventually(lambda: "x" in log_of(running, "a") and running.restarts("a") > 0)
    assert "x\nx" not in log_of(running, "a").partition("---")[0]


def test_nothing_starts_after_a_failed_release(make: Make) -> None:
    running = make({"release": "sh -c 'exit 3'", "a": "sleep 1000"})
    with pytest.raises(ReleaseFailed, match="3"):
        running.start_all()
    assert running.pid("a") is None


def test_new_variables_hold_from_the_next_start(make: Make) -> None:
    running = make({"a": "sh show"})
    (running.log("a").parent.parent / "show").write_text('echo "value=${NEW-none}"; exec sleep 1000\n')
    running.start("a")
    eventually(lambda: "value=none" in log_of(running, "a"))
    running.set_env("a", {"NEW": "set"})
    running.signal("a", signal.SIGTERM)
    eventually(lambda: "value=set" in log_of(running, "a"))


def test_stop_kills_what_does_not_listen_and_says_so(make: Make, tmp_path: Path) -> None:
    (tmp_path / "deaf").write_text("trap '' TERM; echo on; while :; do sleep 0.1; done\n")
    running = make({"deaf": "sh deaf", "polite": "sleep 1000"})
    running.start_all()
    eventually(lambda: "on" in log_of(running, "deaf"))
    pids = [running.pid("deaf"), running.pid("polite")]
    assert running.stop(timeout=0.5) == ["deaf"]
    assert not any(alive(pid) for pid in pids if pid)


def test_a_stopped_process_can_be_ended(make: Make) -> None:
    running = make({"a": "sleep 1000"})
    running.start("a")
    running.signal("a", signal.SIGSTOP)
    assert running.stop(timeout=PATIENCE) == []


def test_what_a_command_started_goes_with_it(make: Make, tmp_path: Path) -> None:
    # Mutant: no killpg in _bury leaves the second sleep behind.
    (tmp_path / "parent").write_text("sleep 1000 & echo $!; exec sleep 1000\n")
    running = make({"a": "sh parent"})
    running.start("a")
    eventually(lambda: log_of(running, "a").strip() != "")
    grandchild = int(log_of(running, "a").split()[0])
    os.kill(running.pid("a") or 0, signal.SIGKILL)
    eventually(lambda: not alive(grandchild))


def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    # Mutant: without setpriv --pdeathsig the sleep goes on.
    program = (
        "import sys, threading, pathlib, os\n"
        "from devstack.supervisor import Supervisor\n"
        "here = pathlib.Path(sys.argv[1])\n"
        "running = Supervisor({'a': 'sleep 1000'}, os.environ, here, here)\n"
        "print(running.start('a'), flush=True)\n"
        "threading.Event().wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=REPO
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        eventually(lambda: process.argv_of(pid)[:1] == ["sleep"])
        parent.kill()
    eventually(lambda: not alive(pid))
