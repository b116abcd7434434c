"""`predict.sh` and the scripts beside it, read as text: bashisms, line ends, choices of a GPU."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from flarekit.verification.trials import ImageUnderTest

PREDICT = "predict.sh"
_BASH = "/bin/bash"
# bash itself prints the files, so that no other program needs to be in the image
_READ = """set -f; words=$(<predict.sh); set +f
for file in predict.sh *.sh *.py */*.sh */*.py $words "$@"; do
  case "$file" in predict.sh|*.sh|*.bash|*.py|*/*|*.env) ;; *) continue ;; esac
  [ -f "$file" ] && read -r -N 4 head <"$file" && [ "$head" != $'\\x7fELF' ] &&
    printf '\\n==> %s <==\\n%s\\n' "$file" "$(<"$file")"
done 2>/dev/null
exit 0
"""
_LENIENT = "sh -c '[[ x = x ]]' 2>/dev/null && echo lenient; exit 0"
_FILE = re.compile(r"^==> (.+) <==$", re.M)
_START = r"(?:^|[;&|(!{]|\b(?:then|do|else|if|elif|while|until|exec)\b)\s*"
_BASHISMS = tomllib.loads(Path(__file__).with_name("bashisms.toml").read_text("utf-8"))
_IN_COMMANDS, _IN_EXPANSIONS = (
    {name: re.compile(text.replace("{start}", _START), re.M) for name, text in patterns.items()}
    for patterns in (_BASHISMS["commands"], _BASHISMS["expansions"])
)
_SAID = re.compile(
    r"sh: (?:line )?\d+: (?:(?:\[\[|source|declare|typeset|let|shopt|mapfile|readarray|pushd|popd"
    r"|function|select|disown)\S*:? (?:command )?not found|bad substitution|syntax error.*"
    r"|set: illegal option.*|read: illegal option.*)",
    re.I,
)
_SETS_IN_SHELL = re.compile(r"(?:^|[\s;&|(])CUDA_VISIBLE_DEVICES=", re.M)
_EXPORTS = re.compile(
    r"^[^#\n]*\b(?:export|env|declare\s+-x)\s+(?:\S+\s+)*?[\"']CUDA_VISIBLE_DEVICES=", re.M
)
_NAMES_ONE = re.compile(r"\bcuda:[1-9]|\.cuda\(\s*[1-9]|\bset_device\(\s*[\"']?[1-9]")
_SETS_IN_PYTHON = re.compile(
    r"\[\s*[\"']CUDA_VISIBLE_DEVICES[\"']\s*\]\s*=(?!=)|[\"']CUDA_VISIBLE_DEVICES[\"']\s*:"
    r"|(?:setdefault|putenv)\(\s*[\"']CUDA_VISIBLE_DEVICES|[(,]\s*CUDA_VISIBLE_DEVICES\s*=(?!=)"
)
_SETS = "sets CUDA_VISIBLE_DEVICES"
_RUN_BY_SH = re.compile(r"(?:^|[\s;&|(])(?:sh|dash|\.|source)\s+[\"']?([^\s\"';&|]+)", re.M)


def scripts_of(image: ImageUnderTest) -> Mapping[str, str]:
    """Return the text of predict.sh, of scripts in its folder, and of those that it names.

    None of them where the image has no bash to print them.
    """
    words = tuple(word for word in image.facts.entrypoint if "/" in word or "." in word)
    trial = image.once(
        "scripts",
        lambda: image.trial(
            image.usual_inputs(), entrypoint=_BASH, command=("-c", _READ, "bash", *words)
        ),
    )
    parts = _FILE.split(trial.outcome.stdout)
    return dict(zip(parts[1::2], (part[1:] for part in parts[2::2]), strict=True))


def takes_more_than_sh(image: ImageUnderTest) -> bool:
    """Tell whether the image's sh is more than a plain one: bash, or busybox's."""
    trial = image.trial(image.usual_inputs(), entrypoint=_BASH, command=("-c", _LENIENT))
    return "lenient" in trial.outcome.stdout


def form_faults(scripts: Mapping[str, str]) -> list[str]:
    """Return what about the bytes of predict.sh no shell takes."""
    text = scripts.get(PREDICT, "")
    if "\0" in text:
        return [f"{PREDICT} is UTF-16 or no text at all: save it as UTF-8"]
    if text.startswith("\ufeff"):
        return [f"{PREDICT} begins with a byte order mark: save it as UTF-8 without one"]
    for number, line in enumerate(text.split("\n"), start=1):
        if line.endswith("\r"):
            return [
                f"{PREDICT} has Windows line ends (CRLF, from line {number} on): "
                "run dos2unix, and set text eol=lf in .gitattributes"
            ]
        if "\r" in line:
            return [f"{PREDICT} has old Macintosh line ends (CR): save it with LF"]
    return []


def bashisms(scripts: Mapping[str, str]) -> list[str]:
    """Return what in predict.sh, and in scripts that it runs with sh, only bash takes."""
    todo, seen, faults = [PREDICT], set[str](), []
    while todo:
        name = todo.pop(0)
        if name in seen or name not in scripts:
            continue
        seen.add(name)
        commands, expansions = _plain(scripts[name])
        todo += [called.removeprefix("./") for called in _RUN_BY_SH.findall(commands)]
        faults += [f"{name}, {found}" for found in _found(commands, expansions)]
    return faults


def said_by_sh(stderr: str) -> list[str]:
    """Return what sh has said about bashisms while it ran."""
    return [f"sh says: {line.strip()}" for line in stderr.splitlines() if _SAID.search(line)][:3]


def choices_of_gpus(scripts: Mapping[str, str]) -> list[str]:
    """Return which scripts choose a GPU by themselves, and in which line."""
    faults = []
    for name, text in scripts.items():
        is_python = name.endswith(".py")
        plain = _without_comments(text) if is_python else _plain(text)[0]
        uncommented = _without_comments(text)
        for pattern, where, does in (
            (_SETS_IN_PYTHON if is_python else _SETS_IN_SHELL, plain, _SETS),
            (_EXPORTS, "" if is_python else uncommented, _SETS),
            (_NAMES_ONE, uncommented, "names a GPU other than the first"),
        ):
            lines = {where.count("\n", 0, match.end()) + 1 for match in pattern.finditer(where)}
            faults += [f"{name}, line {line}, {does}" for line in sorted(lines)]
    return faults


def _found(commands: str, expansions: str) -> Iterator[str]:
    for text, patterns in ((commands, _IN_COMMANDS), (expansions, _IN_EXPANSIONS)):
        for name, pattern in patterns.items():
            match = pattern.search(text)
            if match is not None:
                start = match.start() + len(match.group()) - len(match.group().lstrip())
                yield f"line {text.count(chr(10), 0, start) + 1}: {name}"


def _without_comments(text: str) -> str:
    lines = text.split("\n")
    return "\n".join("" if line.lstrip().startswith("#") else line for line in lines)


def _plain(text: str) -> tuple[str, str]:
    """Return a script with blanks for what sh does not read as commands, and as expansions.

    Comments, here-documents and what stands in quotes are blank in the first; in the second, what
    stands in double quotes is kept, for sh expands it.
    """
    text = _without_documents(text)
    commands, expansions = list(text), list(text)
    quote, at = "", 0
    while at < len(text):
        char = text[at]
        escaped = char == "\\" and quote != "'"
        if not quote and char == "#" and (at == 0 or text[at - 1] in " \t\n;&|("):
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            commands[at:end] = expansions[at:end] = " " * (end - at)
            at = end
            continue
        if quote:
            if char != "\n":
                commands[at] = " "
                expansions[at] = " " if quote == "'" else char
            if char == quote and not escaped:
                quote = ""
        elif char in "'\"":
            quote = char
        if escaped and at + 1 < len(text) and text[at + 1] != "\n":
            commands[at] = commands[at + 1] = expansions[at] = expansions[at + 1] = " "
            at += 1
        at += 1
    return "".join(commands), "".join(expansions)


def _without_documents(text: str) -> str:
    """Return a script with blank lines for the lines of its here-documents."""
    lines, end = [], ""
    for line in text.split("\n"):
        if end:
            lines.append("")
            end = "" if line.strip() == end else end
            continue
        lines.append(line)
        opened = re.search(r"(?<!<)<<-?\s*[\"']?(\w+)[\"']?", line)
        end = opened.group(1) if opened is not None and "<<<" not in line else ""
    return "\n".join(lines)
