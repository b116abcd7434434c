"""predict.sh as text: what only bash takes, bytes that no shell takes, and choices of a GPU."""

from __future__ import annotations

import pytest

from flarekit.verification.scripts import (
    bashisms,
    choices_of_gpus,
    form_faults,
    said_by_sh,
)

PLAIN = """#!/bin/sh
# no [[ ]] here, no source, and no CUDA_VISIBLE_DEVICES=1
set -eu
. ./settings.sh
if [ "$1" = "[[ x ]]" ] && [ -d inputs ]; then echo 'source ${x^^} <(y)'; fi
x=$((1 + 2)); y=${x:-3}; z=${y#*/}; w=${z%%.*}; ${w:+echo}; n=${#w}
for scan in inputs/*_0000.nii.gz; do python predict.py "$scan" >log 2>&1 || true; done
cat <<END
[[ this is not a command ]] && source it
END
awk '{ if (a == b) print $1 }' file | grep -E '[[:space:]]' | tr '[a-z]' '[A-Z]'
case "$x" in a|b) echo "$x";; [0-9][0-9]) ;; esac
trap 'rm -f log' EXIT INT TERM
read -r line <file
grep \\[[ x \\${!x} \\'a \\"b
exec python predict.py
"""


def test_plain_sh_has_no_bashisms_whatever_its_comments_quotes_and_documents_hold():
    assert bashisms({"predict.sh": PLAIN}) == []


BASHISMS = [
    "if [[ -d inputs ]]; then echo; fi",
    "source env.sh",
    "test -f x && source env.sh",
    "function main { echo; }",
    "files=(inputs/*)",
    "declare -a files",
    "files+=(x)",
    'name+="x"',
    'cat <<< "$x"',
    "diff <(ls a) <(ls b)",
    "python x.py &> log",
    "python x.py |& tee log",
    "((i++))",
    "for ((i = 0; i < 3; i++)); do echo; done",
    "for i in {1..5}; do echo; done",
    "for i in {a..e}; do echo; done",
    "mkdir -p {inputs,outputs}",
    "for f in inputs/*.{nii,nii.gz}; do echo; done",
    "python x.py >& log",
    "x=$(<names.txt)",
    ". env.sh",
    "trap 'rm -f log' SIGTERM",
    "kill -SIGTERM 7",
    "time python x.py",
    "test a == b && echo",
    "echo $HOSTNAME",
    "set -euo pipefail",
    '[ "$a" == b ] && echo',
    "read -a parts",
    "trap 'echo' ERR",
    "pushd inputs",
    "shopt -s nullglob",
    "mapfile -t lines <file",
    'echo "${files[@]}"',
    'echo "${name//a/b}"',
    'echo "${name/a/b}"',
    'echo "${name^^}"',
    'echo "${name,,}"',
    'echo "${name:0:3}"',
    'echo "${!name}"',
    'cd "$(dirname "${BASH_SOURCE[0]}")"',
    "echo $RANDOM",
    "IFS=$'\\n'",
    "let i=1",
    "echo $[1 + 2]",
]


@pytest.mark.parametrize("line", BASHISMS)
def test_what_only_bash_takes_is_named_with_its_line(line):
    (fault, *_) = bashisms({"predict.sh": f"#!/bin/sh\n# first\n{line}\n"})
    assert fault.startswith("predict.sh, line 3: ")


def test_a_line_that_goes_on_in_the_next_counts_as_two():
    (fault,) = bashisms({"predict.sh": "python x.py \\\n  --fast\n[[ a = a ]]\n"})
    assert fault.startswith("predict.sh, line 3: [[ ]]")


def test_scripts_that_sh_runs_are_read_and_those_that_bash_runs_are_not():
    own = {"run.sh": "[[ a = a ]]\n"}
    assert bashisms({"predict.sh": "bash run.sh\n", **own}) == []
    for call in ("sh run.sh", ". ./run.sh", "sh ./run.sh && echo"):
        (fault,) = bashisms({"predict.sh": f"{call}\n", **own})
        assert fault.startswith("run.sh, line 1")


def test_what_sh_said_of_bashisms_while_it_ran_is_read():
    said = (
        "predict.sh: 1: [[: not found\n"
        "predict.sh: 2: source: not found\n"
        "predict.sh: 3: Bad substitution\n"
        "predict.sh: 4: nvidia-smi: not found\n"
        "some library: 1: warning\n"
    )
    assert len(said_by_sh(said)) == 3
    assert said_by_sh("predict.sh: 4: nvidia-smi: not found\n") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#!/bin/sh\r\npython x.py\r\n", "CRLF"),
        ("#!/bin/sh\npython x.py\r\n", "line 2"),
        ("#!/bin/sh\rpython x.py\r", "CR"),
        ("\ufeff#!/bin/sh\npython x.py\n", "byte order mark"),
        ("p\0y\0t\0h\0o\0n\0", "UTF-16"),
    ],
)
def test_bytes_that_no_shell_takes_are_named(text, words):
    (fault,) = form_faults({"predict.sh": text})
    assert words in fault


def test_plain_lines_have_no_fault_of_form():
    assert form_faults({"predict.sh": PLAIN}) == []
    assert form_faults({}) == []


SETS = [
    ("predict.sh", "export CUDA_VISIBLE_DEVICES=1"),
    ("predict.sh", "CUDA_VISIBLE_DEVICES=0 python x.py"),
    ("predict.sh", 'CUDA_VISIBLE_DEVICES="0,1"; export CUDA_VISIBLE_DEVICES'),
    ("predict.sh", "exec env A=1 CUDA_VISIBLE_DEVICES=0 python x.py"),
    ("predict.sh", "cd x && CUDA_VISIBLE_DEVICES= python x.py"),
    ("run.sh", "export CUDA_VISIBLE_DEVICES=${GPU:-0}"),
    ("predict.sh", "export 'CUDA_VISIBLE_DEVICES=0'"),
    ("predict.sh", 'exec env A=1 "CUDA_VISIBLE_DEVICES=0" python x.py'),
    ("/opt/gpu.env", "CUDA_VISIBLE_DEVICES=1"),
    ("x.py", 'os.environ["CUDA_VISIBLE_DEVICES"] = "1"'),
    ("x.py", "environ['CUDA_VISIBLE_DEVICES']='1'"),
    ("x.py", 'os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")'),
    ("x.py", 'os.putenv("CUDA_VISIBLE_DEVICES", "0")'),
    ("x.py", 'env["CUDA_VISIBLE_DEVICES"] = "0"'),
    ("x.py", 'os.environ |= {"CUDA_VISIBLE_DEVICES": "0"}'),
    ("x.py", 'run(["python"], env=dict(os.environ, CUDA_VISIBLE_DEVICES="0"))'),
    ("x.py", 'os.environ.update({"A": "1", "CUDA_VISIBLE_DEVICES": "0"})'),
]


@pytest.mark.parametrize(("name", "line"), SETS)
def test_a_script_that_chooses_the_gpu_is_named_with_its_line(name, line):
    (fault, *_) = choices_of_gpus({name: f"# first\n{line}\n"})
    assert fault == f"{name}, line 2, sets CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("predict.sh", "python x.py --device cuda:1"),
        ("x.py", 'model.to("cuda:2")'),
        ("x.py", "torch.cuda.set_device(1)"),
        ("x.py", "model.cuda(1)"),
    ],
)
def test_a_script_that_names_a_gpu_by_a_number_that_it_may_not_have_is_named(name, line):
    (fault,) = choices_of_gpus({name: f"{line}\n"})
    assert "line 1, names a GPU other than the first" in fault
    assert choices_of_gpus({name: line.replace("1", "0").replace("2", "0")}) == []


def test_scripts_that_only_look_at_the_gpu_choose_none():
    looks = {
        "predict.sh": 'echo "$CUDA_VISIBLE_DEVICES"\n# CUDA_VISIBLE_DEVICES=1\necho "X=1"\n'
        "NVIDIA_VISIBLE_DEVICES=all python x.py\n",
        "x.py": "if os.environ.get('CUDA_VISIBLE_DEVICES') == '1':\n    pass\n"
        "x = os.environ['CUDA_VISIBLE_DEVICES'] == '1'\n# os.environ['CUDA_VISIBLE_DEVICES'] = 1\n",
    }
    assert choices_of_gpus(looks) == []
