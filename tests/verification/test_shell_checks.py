"""How FLARE's images start: the script as plain sh, and who chooses the GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flarekit.containers import ProcessResult
from flarekit.images.verify import _verdicts
from flarekit.verification.shell_checks import devices_left_alone, plain_shell
from flarekit.verification.trials import TaskFacts
from tests.verification.fake_images import Failure, FakeSandbox
from tests.verification.fake_images import image_under_test as under_test
from tests.verification.test_run_checks import FLARE_CHECKS

PLAIN = "exec python predict.py\n"


class HasBash(FakeSandbox):
    """Its bash prints scripts, says whether sh takes bashisms, and looks whether predict.sh parses.

    Args:
        scripts: name -> text; none are printed where there are none.
        lenient: whether sh takes more than a plain one.
        parses: what `sh -n` says of predict.sh; nothing where it is right.
        said: what sh writes to stderr in the usual run.
    """

    def __init__(self, scripts, *, lenient=False, parses="", said="", program=None):
        super().__init__(program or (lambda _inside: None))
        self.scripts, self.lenient, self.parses, self.said = scripts, lenient, parses, said

    def run(self, run):
        if run.entrypoint != "/bin/bash":
            return replace(super().run(run), stderr=self.said)
        text = run.command[1]
        if "lenient" in text:
            return ProcessResult(exit_code=0, stdout="lenient\n" * self.lenient, seconds=0.1)
        if "sh -n" in text:
            return ProcessResult(exit_code=bool(self.parses) * 2, stderr=self.parses, seconds=0.1)
        printed = "".join(f"\n==> {name} <==\n{text}\n" for name, text in self.scripts.items())
        return ProcessResult(exit_code=0, stdout=printed, seconds=0.1)


def finding(check, sandbox, folder):
    image = under_test(FLARE_CHECKS, None, TaskFacts(values=frozenset({0, 1}), time_s=60), folder)
    image.sandbox = sandbox
    (verdict,) = _verdicts(image, [check])
    return verdict.finding


@pytest.mark.parametrize(
    ("script", "told", "state", "words"),
    [
        (PLAIN, {}, "pass", ""),
        ("set -eu\r\n" + PLAIN, {}, "fail", "CRLF"),
        ("source env.sh\n" + PLAIN, {}, "fail", "line 1: source"),
        ("a=(1 2)\n" + PLAIN, {}, "fail", "line 1: arrays"),
        ("a=(1 2)\n" + PLAIN, {"lenient": True}, "warn", "takes what a plain one does not"),
        (PLAIN, {"lenient": True}, "pass", ""),
        ("if\n", {"parses": "predict.sh: 2: Syntax error: end of file"}, "fail", "Syntax error"),
        (PLAIN, {"said": "predict.sh: 3: source: not found"}, "fail", "sh says"),
        (PLAIN, {"said": "predict.sh: 3: nvidia-smi: not found"}, "pass", ""),
    ],
)
def test_predict_sh_is_judged_as_plain_sh_reads_it(script, told, state, words, tmp_path):
    found = finding(plain_shell, HasBash({"predict.sh": script}, **told), tmp_path)
    assert found.state == state
    assert words in found.reason


def test_a_script_is_judged_where_the_usual_run_fails_too(tmp_path):
    def crashes(_inside):
        raise Failure("a=(1: not found")

    sandbox = HasBash({"predict.sh": "a=(1 2)\n"}, program=crashes)
    assert finding(plain_shell, sandbox, tmp_path).state == "fail"
    sandbox = HasBash({"predict.sh": "export CUDA_VISIBLE_DEVICES=1\n"}, program=crashes)
    assert finding(devices_left_alone, sandbox, tmp_path / "b").state == "fail"


def test_an_image_that_shows_no_script_is_judged_by_its_shell_alone(tmp_path):
    assert finding(plain_shell, HasBash({}), tmp_path).state == "pass"
    assert finding(devices_left_alone, HasBash({}), tmp_path / "b").state == "pass"
