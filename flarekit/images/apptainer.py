"""An Apptainer definition of an image, for clusters without Docker.

https://apptainer.org/docs/user/latest/definition_files.html
"""

import re
import shlex

from flarekit import conventions
from flarekit.containers import CONVENTION_LABEL, ImageFacts

_ARCHIVE = ".tar.gz"
_FOLDERS = ("/input", "/output")  # where nothing says where an image looks


def definition(image: str, facts: ImageFacts, archive: str) -> str:
    """Return the definition that builds an image from the file that it was saved to.

    Run without arguments it does what the image does when it starts; arguments are those of
    `flarekit` where the image has it, and are added to the image's own command else. Apptainer
    takes over the image's environment variables, but not its working folder.

    Args:
        image: its name, for the comment at the head.
        facts: what the image says about itself.
        archive: name of the file that `docker save` made, beside the definition.

    Raises:
        UsageError: the image's label names a convention that does not exist.
    """
    folder = shlex.quote(facts.working_dir or "/")
    command = shlex.join([*facts.entrypoint, *facts.command])
    convention = facts.labels.get(CONVENTION_LABEL)
    with_arguments = f'exec {shlex.join(facts.entrypoint)} "$@"' if facts.entrypoint else ""
    if convention is not None:
        with_arguments = 'exec flarekit "$@"'
    elif not with_arguments:
        with_arguments = 'exec "$@"'
    line = None if convention is None else conventions.facts_of(convention).run_line
    inputs, outputs = _FOLDERS if line is None else (line.inputs, line.outputs)
    name = archive.removesuffix(_ARCHIVE)
    built, source = shlex.quote(f"{name}.sif"), shlex.quote(f"{name}.def")
    title = re.sub(r"[^ -~]", "?", image)
    labels = "".join(
        f"    {'-'.join(key.split())} {_one_line(value)}\n" for key, value in facts.labels.items()
    )
    return f"""\
# {title}, for Apptainer. On a machine that has it, with {archive} beside this file:
#   apptainer build {built} {source}
#   apptainer run --containall --bind SCANS:{inputs}:ro,MASKS:{outputs} {built}
# Add --nv for a GPU.
Bootstrap: docker-archive
From: {archive}

%labels
{labels}
%runscript
    if [ "$#" -gt 0 ]; then
        {with_arguments}
    fi
    cd {folder}
    exec {command}
"""


def _one_line(text: str) -> str:
    return " ".join(text.split())
