"""The cases of a service, in one SQLite file: what is not finished runs again after a restart."""

import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from flarekit.core.errors import OutputError

State = Literal["waiting", "running", "done", "failed", "cancelled"]
_JSON = ("options", "files", "clicks", "result", "error")
_MOST_ATTEMPTS = 2
_FIX = "give --data another folder, or move that file away: its cases are then forgotten"
_TABLE = """
CREATE TABLE IF NOT EXISTS cases (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, predictor TEXT NOT NULL, state TEXT NOT NULL,
    turn INTEGER NOT NULL, created REAL NOT NULL, changed REAL NOT NULL,
    attempts INTEGER NOT NULL, revision INTEGER NOT NULL,
    options TEXT NOT NULL, files TEXT NOT NULL, clicks TEXT NOT NULL,
    result TEXT NOT NULL, error TEXT NOT NULL
)"""


@dataclass(frozen=True, kw_only=True)
class StoredCase:
    """A case as the service knows it.

    Attributes:
        id: cannot be guessed.
        owner: whose token brought it; empty where none is needed.
        turn: the lower, the sooner.
        created: seconds since 1970.
        changed: when its state last changed, in seconds since 1970.
        attempts: how often it was begun since it last waited by somebody's wish.
        revision: grows whenever its mask changes.
        options: how to run it.
        files: what was uploaded.
        clicks: `tumor` and `background` -> voxels.
        result: what it came to, but for its files.
        error: `message` and `fix`.
    """

    id: str
    owner: str
    predictor: str
    state: State = "waiting"
    turn: int = 0
    created: float = field(default_factory=time.time)
    changed: float = field(default_factory=time.time)
    attempts: int = 0
    revision: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)
    clicks: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    error: dict[str, str] = field(default_factory=dict)


_COLUMNS = tuple(each.name for each in fields(StoredCase))


class Store:
    """The list of cases; threads may share it."""

    def __init__(self, path: Path) -> None:
        """Open the list, or begin one; cases that were running when the service ended wait again.

        A case that was running twice when the service ended is given up: it may be what ended it.

        Raises:
            OutputError: the file is damaged, of another version or cannot be written.
        """
        self._lock = threading.RLock()
        self._connection = _opened(path)
        for case in self.all("running"):
            if case.attempts < _MOST_ATTEMPTS:
                self.change(case.id, state="waiting")
            else:
                reason = {
                    "message": "the service ended twice while it computed this case",
                    "fix": "look at its log and its memory, then upload the scan again",
                }
                self.change(case.id, state="failed", error=reason)

    def add(self, case: StoredCase) -> StoredCase:
        """Add a case behind all others, and return it as it is kept."""
        with self._lock:
            row = {name: getattr(case, name) for name in _COLUMNS} | {"turn": self._next_turn()}
            names = ", ".join(_COLUMNS)
            marks = ", ".join("?" for _ in _COLUMNS)
            self._connection.execute(
                f"INSERT INTO cases ({names}) VALUES ({marks})", _values(row, _COLUMNS)
            )
            return self.get(case.id) or case

    def get(self, case_id: str) -> StoredCase | None:
        """Return a case, or None where there is none of this id."""
        with self._lock:
            found = self._connection.execute("SELECT * FROM cases WHERE id = ?", (case_id,))
            row = found.fetchone()
        return None if row is None else _case(row)

    def all(self, *states: State, owner: str | None = None) -> list[StoredCase]:
        """Return cases in the order of their turns.

        Args:
            states: only those; all where none is named.
            owner: only theirs; everybody's where None.
        """
        with self._lock:
            rows = self._connection.execute("SELECT * FROM cases ORDER BY turn").fetchall()
        cases = [_case(row) for row in rows if not states or row["state"] in states]
        return [case for case in cases if owner is None or case.owner == owner]

    def change(self, case_id: str, *, only_if: State | None = None, **changes: Any) -> bool:  # noqa: ANN401
        """Change columns of a case, and when it changed.

        Args:
            case_id: which.
            only_if: do so only in this state.
            changes: column -> new value.

        Returns:
            Whether there was such a case.
        """
        names = tuple(changes)
        settings = ", ".join(f"{name} = ?" for name in (*names, "changed"))
        values = [*_values(changes, names), time.time(), case_id]
        condition = "id = ?" if only_if is None else "id = ? AND state = ?"
        if only_if is not None:
            values.append(only_if)
        with self._lock:
            done = self._connection.execute(
                f"UPDATE cases SET {settings} WHERE {condition}", values
            )
            return done.rowcount > 0

    def wait_again(self, case_id: str, **changes: Any) -> bool:  # noqa: ANN401 - columns
        """Put a case that is done behind all that wait; return whether it was done."""
        with self._lock:
            turn = self._next_turn()
            again = {"state": "waiting", "turn": turn, "attempts": 0, **changes}
            return self.change(case_id, only_if="done", **again)

    def take(self) -> StoredCase | None:
        """Return the case whose turn it is, running from now on; None where none waits."""
        with self._lock:
            for case in self.all("waiting"):
                self.change(case.id, state="running", attempts=case.attempts + 1)
                return self.get(case.id)
        return None

    def waiting(self) -> list[str]:
        """Return the ids of the cases that wait, in their order."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT id FROM cases WHERE state = 'waiting' ORDER BY turn"
            )
            return [row["id"] for row in rows]

    def remove(self, case_id: str, *, older_than: float | None = None) -> bool:
        """Forget a case.

        Args:
            case_id: which.
            older_than: only where it is over, and has been since before then (of `time.time`).

        Returns:
            Whether there was such a case.
        """
        condition, values = "id = ?", [case_id, older_than]
        if older_than is not None:
            condition += " AND changed < ? AND state NOT IN ('waiting', 'running')"
        with self._lock:
            done = self._connection.execute(
                f"DELETE FROM cases WHERE {condition}",
                [each for each in values if each is not None],
            )
            return done.rowcount > 0

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _next_turn(self) -> int:
        row = self._connection.execute("SELECT COALESCE(MAX(turn), 0) + 1 FROM cases").fetchone()
        return int(row[0])


def _values(row: dict[str, Any], names: Sequence[str]) -> list[Any]:
    return [json.dumps(row[name]) if name in _JSON else row[name] for name in names]


def _opened(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(_TABLE)
        damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise sqlite3.DatabaseError(str(damage).splitlines()[0])
        there = {row["name"] for row in connection.execute("PRAGMA table_info(cases)")}
    except sqlite3.Error as error:
        raise OutputError(f"{path}: cannot be used as the list of cases: {error}", fix=_FIX) from (
            error
        )
    if there != set(_COLUMNS):
        connection.close()
        odd = ", ".join(sorted(there ^ set(_COLUMNS))[:3])
        raise OutputError(
            f"{path}: is the list of cases of another version of flarekit ({odd})", fix=_FIX
        )
    return connection


def _case(row: sqlite3.Row) -> StoredCase:
    values = {name: json.loads(row[name]) if name in _JSON else row[name] for name in _COLUMNS}
    return StoredCase(**values)
