"""A docker command without an engine: it plays answers, keeps names of images, and notes calls."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

PROGRAM = """#!{python} -S
import fcntl, json, pathlib, sys, time
state = pathlib.Path({state!r})
lock = open({state!r} + ".lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)  # `docker events` goes on beside the others
kept = json.loads(state.read_text())
call = sys.argv[1:]
kept["calls"].append(call)

def leave(code=0, out="", err=""):
    whole = state.with_suffix(".new")  # the test reads while `docker events` writes
    whole.write_text(json.dumps(kept))
    whole.replace(state)
    if call[0] == "run":
        fcntl.flock(lock, fcntl.LOCK_UN)
        while kept["lasts_until"] not in [each[0] for each in [[None], *calls()]]:
            time.sleep(0.02)
    sys.stdout.buffer.write(out if isinstance(out, bytes) else out.encode())
    sys.stderr.buffer.write(err if isinstance(err, bytes) else err.encode())
    sys.exit(code)

def calls():
    return json.loads(state.read_text())["calls"]

def owner(name):
    return name if name in kept["ids"] else kept["names"].get(name)

for words, (code, out, err) in kept["answers"].items():
    if " ".join(call).startswith(words):
        leave(code, bytes.fromhex(out), bytes.fromhex(err))
if call[0] == "version":
    leave(out="20.0\\n")
if call[:2] == ["image", "ls"]:
    leave(out="\\n".join(kept["ids"]))
if call[:2] == ["image", "inspect"]:
    name = owner(call[-1])
    if name is None:
        leave(1, "[]\\n", f"Error response from daemon: No such image: {{call[-1]}}\\n")
    names = [each for each, held in kept["names"].items() if held == name]
    if "--format" in call:
        leave(out=f"{{len(names) if 'len' in call[3] else name}}\\n")
    facts = {{"Id": name, "RepoTags": names, "Size": 5, "Os": "linux", "Architecture": "amd64",
              "Config": kept["config"]}}
    leave(out=json.dumps([facts]))
if call[:2] == ["image", "load"]:
    brought = kept["tar"]
    kept["ids"] = [*dict.fromkeys([*kept["ids"], brought["id"]])]
    kept["names"].update(dict.fromkeys(brought["names"], brought["id"]))
    said = [f"Loaded image: {{name}}" for name in brought["names"]]
    leave(out="\\n".join(said or [f"Loaded image ID: {{brought['id']}}"]) + "\\n")
if call[:2] == ["image", "tag"]:
    kept["names"][call[3]] = owner(call[2])
    leave()
if call[:2] == ["image", "save"]:
    leave(out="a saved image")
if call[0] == "inspect":
    leave(out="0\\n" if "Pid" in call[2] else "false\\n")
leave(kept["exit_code"] if call[0] == "run" else 0)
"""


class FakeDocker:
    """What the command knows, and what it was asked.

    Args:
        folder: to put it into; it is to be found first on PATH.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._state = folder / "state.json"
        self._kept = {
            "calls": [],
            "answers": {},
            "ids": [],
            "names": {},
            "config": {"Cmd": ["sh", "predict.sh"], "WorkingDir": "/workspace"},
            "tar": None,
            "exit_code": 0,
            "lasts_until": None,
        }
        self._save()
        program = folder / "docker"
        program.write_text(PROGRAM.format(python=sys.executable, state=str(self._state)))
        program.chmod(0o755)
        self.path = f"{folder}{os.pathsep}{os.environ['PATH']}"

    def has(self, image_id, *names):
        """Have an image."""
        self._kept["ids"].append(image_id)
        self._kept["names"].update(dict.fromkeys(names, image_id))
        self._save()

    def loads(self, image_id, *names):
        """Have `docker load` bring this image."""
        self._kept["tar"] = {"id": image_id, "names": names}
        self._save()

    def answers(self, words, *, code=0, out=b"", err=b""):
        """Answer calls that begin with these words."""
        self._kept["answers"][words] = (code, out.hex(), err.hex())
        self._save()

    def lasts_until(self, word):
        """Let containers run until the command was asked for something by this word."""
        self._kept["lasts_until"] = word
        self._save()

    def exits(self, code):
        """Let containers end with a code."""
        self._kept["exit_code"] = code
        self._save()

    @property
    def calls(self):
        """What it was asked, word by word."""
        return json.loads(self._state.read_text())["calls"]

    @property
    def names(self):
        """Name -> the image that has it."""
        return json.loads(self._state.read_text())["names"]

    def _save(self):
        self._state.write_text(json.dumps(self._kept))
