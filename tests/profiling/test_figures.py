from __future__ import annotations

import re
from pathlib import Path

import figures
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


@pytest.mark.long
def test_the_tables_of_readme_and_docs_are_what_was_measured(capsys):
    assert figures.main(["--check"]) == 0, capsys.readouterr().out


def test_a_table_that_was_changed_by_hand_is_noticed():
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    changed = re.sub(r"0\.\d{3} \|", "0.999 |", page, count=1)
    assert changed != page
    assert figures.renewed(changed) == page


def test_ways_of_a_processor_without_bf16_are_named_as_they_ran(monkeypatch):
    measured = figures.result_of("peers_cpu")
    for case in measured["cases"].values():
        del case["exact_bf16"]
        case["fast"]["precision"] = "fp32"
    monkeypatch.setattr(figures, "result_of", lambda _name: measured)
    text = "\n".join(figures.peers())
    assert "`--mode fast`, fp32" in text
    assert "bf16" not in text


def test_every_table_of_figures_has_a_place():
    text = "".join(page.read_text(encoding="utf-8") for page in figures.pages())
    assert {match[2] for match in figures.BLOCK.finditer(text)} == set(figures.TABLES)


def test_the_readme_has_at_most_600_words():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 600


def test_links_of_pages_lead_somewhere():
    links = [(page, to) for page in PAGES for to in LINK.findall(page.read_text(encoding="utf-8"))]
    assert len(links) > len(PAGES)
    assert [(page.name, to) for page, to in links if not (page.parent / to).exists()] == []


def test_the_contents_page_lists_every_page():
    contents = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert page.name == "README.md" or f"({page.name})" in contents, page.name


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_a_page_is_no_longer_than_a_screen_and_a_half(page):
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 100
