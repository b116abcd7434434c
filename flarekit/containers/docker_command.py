"""The docker command: its answers, whatever bytes they hold, and the line that is the reason."""

import csv
import io
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import ClassVar

from flarekit.core.errors import FlarekitError

NO_REASON = "no reason given"
_SPEAKS = ("docker: ", "error response from daemon", "error: ", "error ", "invalid ", "unknown ")
_NO_FAULT = ("warning", "unable to find image", "see 'docker", "run 'docker")
_MACHINE_FAULTS: dict[str, str] = tomllib.loads(
    Path(__file__).with_name("docker_faults.toml").read_text("utf-8")
)


class DockerError(FlarekitError):
    """No Docker engine that answers, or one that cannot do what every image needs."""

    exit_code: ClassVar[int] = 5


def docker(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the docker command; bytes that are not UTF-8 are replaced, line ends are kept."""
    ended = subprocess.run(
        ["docker", *arguments],
        input=None if stdin is None else stdin.encode(),
        capture_output=True,
        check=False,
    )
    said = (text.decode("utf-8", "replace") for text in (ended.stdout, ended.stderr))
    return subprocess.CompletedProcess(ended.args, ended.returncode, *said)


def reason_in(text: str) -> str:
    """Return Docker's own first line of why something failed; its last ones point to the manual."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if line.lower().startswith(_SPEAKS)]
    rest = [line for line in lines if not line.lower().startswith(_NO_FAULT)]
    return next(iter([*told, *rest, *lines]), NO_REASON)


def machine_fix(reason: str) -> str | None:
    """Return what to do where Docker's reason is about this machine or the command line.

    None where it may be about the image: a user, program or folder that is not in it.
    """
    said = reason.lower()
    return next((fix for words, fix in _MACHINE_FAULTS.items() if words in said), None)


def engine_fault() -> str | None:
    """Return why there is no Docker engine to work with; None where there is one."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    version = docker("version", "--format", "{{.Server.Version}}")
    if version.returncode:
        return f"the Docker engine does not answer: {reason_in(version.stderr)}"
    return None


def open_up(image: str, folder: Path) -> bool:
    """Let everybody read and remove what containers of other users have left in a folder."""
    return as_root(image, folder, "chmod -R a+rwX /opened").returncode == 0


def as_root(image: str, folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a line of sh as root in a container of an image that has one; the folder is `/opened`."""
    options = ["--rm", "--network", "none", "--user", "0", "-v", f"{folder}:/opened"]
    return docker("run", *options, "--entrypoint", "/bin/sh", image, "-c", script)


def gpus_argument(gpus: str) -> str:
    """Return a value of `--gpus` as Docker reads it, which is as a row of a CSV file.

    `device=0,1` gets the quotes that a list of devices needs; what has quotes already, and further
    settings such as `all,capabilities=utility`, are left as they are.
    """
    if '"' in gpus:
        return gpus
    settings: list[str] = []
    for part in gpus.split(","):
        if settings and "=" not in part:
            settings[-1] += f",{part}"
        else:
            settings.append(part)
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow(settings)
    return row.getvalue()


def first_device(gpus: str | None) -> str:
    """Return the first device that a value of `--gpus` names; 0 where it names none."""
    settings = next(csv.reader([gpus_argument(gpus or "")]), [])
    for setting in settings:
        key, _, value = setting.partition("=")
        if key.strip() == "device" and value:
            return value.split(",")[0].strip()
    return "0"
