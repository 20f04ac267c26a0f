"""Runs that outlive whoever asked for them: a process of its own starts or resumes a run and follows it to its end.

`zegel run start` follows a run in a terminal; the pages cannot, since a run lasts longer than a request and longer than
the process that serves it. So they launch a keeper: this module as a program, in a session of its own, without a
parent. A folder per launch under `launches/` says what was asked for and by whom, what came of it, and what the process
printed. The federation's server is started the same way, because it takes up to a minute to come up.

Invariants:
- A keeper holds its folder's lock for as long as it lives; the lock is taken before it is started. Whether one lives
  is asked of the lock, never of a process id alone.
- One keeper per run, one for each plan that is about to start, one for the server.
- A run that nobody follows is not lost: what it had finished is kept, and it can be resumed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from admin_api.errors import AdminError
from audit.canonical import format_time, parse_time
from audit.durable_file import write_durably
from audit.errors import AuditError, CanonicalError
from jobs.errors import FederationError, JobError
from jobs.home import ConsortiumHome

FOLDER = "launches"
START, RESUME, SERVER = "start", "resume", "server"
STARTING, FOLLOWING, ENDED, FAILED, STOPPED, LOST = "starting", "following", "ended", "failed", "stopped", "lost"
WAIT_S, PATIENCE_S, FOLLOW_S = 60, 600, 7 * 86400  # as `zegel run start` has them, but a week
STOP_GRACE_S = 10.0
SERVER_ANSWER_S = 5.0
_ID = re.compile(r"launch-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}")
_OUTPUT, _ASKED, _STATE, _LOCK, _PROCESS = "output.log", "asked.json", "state.json", "lock", "process.json"


@dataclass(frozen=True)
class Launch:
    """A keeper that was started, and what came of it.

    Attributes:
        kind: start, resume or server.
        subject: the plan's hash, the run's id, or "" for the server.
        by: the account that asked.
        state: starting, following, ended (the run is over), failed (with `words`), stopped (by somebody), or lost (the
            process was killed).
        run_id, job_id: once known.
        words: why it failed.
    """

    id: str
    kind: str
    subject: str
    by: str
    begun: datetime
    state: str = STARTING
    run_id: str | None = None
    job_id: str | None = None
    words: str = ""

    @property
    def lives(self) -> bool:
        """Whether the keeper is at work."""
        return self.state in (STARTING, FOLLOWING)


def launch(home: ConsortiumHome, kind: str, subject: str, *, by: str) -> Launch:
    """Start a keeper and leave it to itself.

    Raises: FederationError when one is at work for the same plan, run or server already.
    """
    folder = home.path / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    with _held(folder / _LOCK):
        for other in launches(home):
            if other.lives and (other.kind, other.subject) == (kind, subject):
                raise FederationError(f"{_what(other)} was asked for already and goes on ({other.id})")
            if other.lives and kind == RESUME and other.run_id == subject:
                raise FederationError(f"run {subject} is being followed already ({other.id})")
        begun = home.clock().replace(microsecond=0)
        made = Launch(f"launch-{begun:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}", kind, subject, by, begun)
        mine = folder / made.id
        mine.mkdir(mode=0o700)
        asked = {"kind": kind, "subject": subject, "by": by, "begun": format_time(begun)}
        write_durably(mine / _ASKED, json.dumps(asked).encode())
        _spawn(home, mine)
    return made


def _spawn(home: ConsortiumHome, folder: Path) -> None:
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    output = os.open(folder / _OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the keeper inherits it, and holds it until it ends
        # The program forks and its first process ends at once: nobody's child is left behind to be waited for.
        subprocess.run(
            [sys.executable, "-m", "admin_api.keeping", str(home.path), folder.name],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(lock,),
            start_new_session=True,
            check=True,
            umask=0o077,
        )
    except subprocess.CalledProcessError as error:
        raise FederationError(f"the process that keeps the run did not start ({error})") from None
    finally:
        os.close(lock)
        os.close(output)


def launches(home: ConsortiumHome) -> list[Launch]:
    """All launches, newest first."""
    folder = home.path / FOLDER
    names = [path.name for path in folder.glob("launch-*") if _ID.fullmatch(path.name)] if folder.is_dir() else []
    return [_read(folder / name) for name in sorted(names, reverse=True)]


def launch_of(home: ConsortiumHome, launch_id: str) -> Launch:
    """One launch. Raises FederationError when there is none."""
    folder = home.path / FOLDER / launch_id
    if _ID.fullmatch(launch_id) is None or not folder.is_dir():
        raise FederationError(f"no launch {launch_id!r} in {home.path / FOLDER}")
    return _read(folder)


def keeper_of(home: ConsortiumHome, run_id: str) -> Launch | None:
    """The keeper that follows a run now."""
    return next((each for each in launches(home) if each.lives and run_id in (each.run_id, each.subject)), None)


def last_words(home: ConsortiumHome, launch_id: str, count: int = 40) -> str:
    """The end of what a keeper printed, for whoever runs the consortium."""
    launch_of(home, launch_id)
    try:
        text = (home.path / FOLDER / launch_id / _OUTPUT).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-count:])


def stop_keeper(home: ConsortiumHome, launch_id: str) -> None:
    """End a keeper that lives; the run it follows goes on. Raises FederationError when it does not end."""
    folder = home.path / FOLDER / launch_id
    if not _is_held(folder / _LOCK):
        return
    try:
        record = json.loads((folder / _PROCESS).read_text(encoding="utf-8"))
        process = psutil.Process(int(record["pid"]))
        if abs(process.create_time() - float(record["started"])) > 1:
            raise psutil.NoSuchProcess(process.pid)
    except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
        raise FederationError(f"{launch_id} is just starting; try again in a few seconds") from None
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_GRACE_S)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(STOP_GRACE_S)
    _note(folder, state=STOPPED)


def stop_run(home: ConsortiumHome, run_id: str) -> None:
    """End the jobs that carry out a run, so that it can be resumed later; what it spent stays spent.

    Raises: FederationError when the server cannot be reached; then the run may go on, but nobody follows it.
    """
    from jobs.federation.session import open_session

    keeper = keeper_of(home, run_id)
    if keeper is not None:
        stop_keeper(home, keeper.id)  # first: it would go on with a lost job
    with open_session(home, timeout_s=SERVER_ANSWER_S) as session:
        for job_id in session.going_on(run_id):
            session.abort(job_id)


def _read(folder: Path) -> Launch:
    try:
        asked = json.loads((folder / _ASKED).read_text(encoding="utf-8"))
        found = Launch(folder.name, asked["kind"], asked["subject"], asked["by"], parse_time(asked["begun"], "begun"))
        found = replace(found, **_state(folder))
    except (OSError, ValueError, KeyError, TypeError, CanonicalError) as error:
        raise FederationError(f"{folder} cannot be read ({error}); remove it if nothing runs from it") from None
    if found.lives and not _is_held(folder / _LOCK):
        # It may have ended between the two looks.
        found = replace(found, **_state(folder))
        if found.lives:
            return replace(found, state=LOST)
    return found


def _state(folder: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return value


def _note(folder: Path, **changes: Any) -> None:
    write_durably(folder / _STATE, json.dumps({**_state(folder), **changes}).encode())


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    with path.open("w", encoding="ascii") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _is_held(path: Path) -> bool:
    try:
        with path.open("r", encoding="ascii") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _what(launch: Launch) -> str:
    if launch.kind == SERVER:
        return "starting the server"
    return f"starting plan {launch.subject}" if launch.kind == START else f"resuming run {launch.subject}"


def keep(home: ConsortiumHome, folder: Path) -> None:
    """What the process does: what the folder asks for, to its end."""
    asked = json.loads((folder / _ASKED).read_text(encoding="utf-8"))
    try:
        if asked["kind"] == SERVER:
            from admin_api.running import start_server

            start_server(home)
        else:
            _keep_run(home, folder, asked["kind"], asked["subject"])
    except (JobError, AdminError, AuditError) as error:
        _note(folder, state=FAILED, words=str(error))
    except Exception as error:
        traceback.print_exc()
        _note(folder, state=FAILED, words=f"{type(error).__name__}: {error}")
        raise
    else:
        _note(folder, state=ENDED)


def _keep_run(home: ConsortiumHome, folder: Path, kind: str, subject: str) -> None:
    from admin_api.running import Started, follow, resume_run, start_run
    from jobs.records import read_progress

    if kind == START:
        started = start_run(home, subject, timeout_s=WAIT_S)
    else:
        again = resume_run(home, subject, timeout_s=WAIT_S)
        started = Started(subject, "", told=len(read_progress(home, subject))) if again is None else again
    _note(folder, state=FOLLOWING, run_id=started.run_id, job_id=started.job_id or None)

    def tell(step: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(dict(step)) + "\n")
        sys.stdout.flush()

    follow(home, started, tell=tell, timeout_s=FOLLOW_S, patience_s=PATIENCE_S)


def main() -> None:
    """`python -m admin_api.keeping HOME LAUNCH`: fork, and keep the run in the child."""
    path, launch_id = Path(sys.argv[1]), sys.argv[2]
    if os.fork():
        os._exit(0)
    home = ConsortiumHome(path)
    folder = home.path / FOLDER / launch_id
    process = psutil.Process()
    record = {"pid": process.pid, "started": process.create_time()}
    write_durably(folder / _PROCESS, json.dumps(record).encode())
    keep(home, folder)


if __name__ == "__main__":
    main()
