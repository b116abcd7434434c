from __future__ import annotations

import re
from pathlib import Path

from flarekit.core import extras
from flarekit.core.extras import how_to_install

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("flarekit/**/*.py"), *ROOT.glob("docs/*.md"), *ROOT.glob("*.md")]


def test_a_hint_names_packages_that_an_index_has(monkeypatch):
    stated = [
        'gcapi>=0.16; extra == "submit"',
        "numpy>=1.26",
        "a>=1; (x == 'y') and extra == 'both'",
    ]
    stated += ['flarekit[submit]; extra == "both"']
    monkeypatch.setattr(extras, "requires", lambda _: stated)
    assert how_to_install("submit").startswith(
        'pip install "gcapi>=0.16"; or pip install ".[submit]"'
    )
    assert how_to_install("both").startswith('pip install "a>=1" "gcapi>=0.16"')


def test_where_nothing_is_known_a_hint_names_the_checkout(monkeypatch):
    monkeypatch.setattr(extras, "requires", lambda _: None)
    assert how_to_install("dicom") == 'pip install ".[dicom]" in a checkout of flarekit'


def test_nobody_is_told_to_install_flarekit_from_an_index_where_it_is_not():
    """Asserts that no hint, error or page says what does not work."""
    telling = re.compile(r"""pip install ['"]?flarekit\b|\(flarekit\[""")
    assert len(PAGES) > 100
    assert [path for path in PAGES if telling.search(path.read_text(encoding="utf-8"))] == []
