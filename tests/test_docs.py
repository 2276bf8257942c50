"""What the README and the other pages say is so."""

import base64
import re
from pathlib import Path

import nbformat
import pytest

from pruninglib.course.runner import find_lessons

ROOT = Path(__file__).parents[1]
PARTS = sorted(page.relative_to(ROOT).as_posix() for page in ROOT.glob("notebooks/*/README.md"))
PAGES = ["README.md", "CONTRIBUTING.md", "data/README.md", *PARTS]


def row_of(lesson, path):
    """How a map of the course tells of a lesson: the beginning of its row."""
    number = "" if lesson.number is None else f"{lesson.number:02d} "
    return (
        f"| [{number}{lesson.title}]({path}) | {lesson.question} "
        f"| {lesson.minutes} min | {lesson.seconds} s |"
    )


@pytest.mark.parametrize("lesson", find_lessons(), ids=lambda lesson: lesson.path.stem)
def test_course_map_says_what_the_lesson_says(lesson):
    path = lesson.path.relative_to(ROOT).as_posix()
    assert f"{row_of(lesson, path)}\n" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PARTS)
def test_page_of_a_part_says_what_its_lessons_say(page):
    text, folder = (ROOT / page).read_text(encoding="utf-8"), (ROOT / page).parent
    rows = [row for row in text.splitlines() if row.startswith("| [")]
    there = [row for row in rows if (folder / re.search(r"\]\((.+?)\)", row)[1]).exists()]
    lessons = [lesson for lesson in find_lessons() if lesson.path.parent == folder]
    assert len(there) == len(lessons)
    for row, lesson in zip(there, lessons, strict=True):
        beginning = row_of(lesson, lesson.path.name)
        assert row.startswith(beginning), f"{row} begins otherwise than {beginning}"
        assert len(row.removeprefix(beginning).strip("| ").split()) >= 3  # what one can do then
    minutes = sum(int(re.search(r"\| (\d+) min \|", row)[1]) for row in rows)
    assert f"about {round(minutes / 60)} hours to read" in text
    assert f"({page})" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_notebook_is_found_as_a_lesson():
    found = {lesson.path for lesson in find_lessons()}
    there = set((ROOT / "notebooks").rglob("*.ipynb"))
    assert found == {path for path in there if ".ipynb_checkpoints" not in path.parts}


def test_teaser_is_a_committed_figure_of_a_lesson():
    teaser = (ROOT / "notebooks" / "teaser.png").read_bytes()
    figures = [
        base64.b64decode(output.data["image/png"])
        for lesson in find_lessons()
        for cell in nbformat.read(lesson.path, as_version=4).cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert teaser in figures, "save the figure from the lesson again as notebooks/teaser.png"


@pytest.mark.parametrize("page", PAGES)
def test_links_of_pages_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("lesson", find_lessons(), ids=lambda lesson: lesson.path.stem)
def test_links_of_lessons_lead_somewhere(lesson):
    for cell in nbformat.read(lesson.path, as_version=4).cells:
        for target in re.findall(r"\]\((?!https?:)([^)#]+\.ipynb)\)", cell.source):
            assert (lesson.path.parent / target).exists(), target
