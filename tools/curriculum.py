"""Write what the course says about its notebooks from one file, ``notebooks/curriculum.toml``:
``python -m tools.curriculum``.

It writes the card in every notebook's first cell and the tables of README.md and notebook 00, and
the plans of ``docs/teaching.md`` (from ``docs/plans.toml``); a test holds them to the file.
Minutes, versions and hardware are those of the stored run (``assets/measured/tiny_run.json``),
never typed by hand.
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass
from functools import cache

from tools.badges import BADGE, rewrite_readme, settings
from tools.tables import README, ROOT, between_marks, markdown
from vdr_helpers.cache import atomic_write
from vdr_helpers.extras import needs
from vdr_helpers.gpu import describe_receipts
from vdr_helpers.published import measured

NOTEBOOKS = ROOT / "notebooks"
FILE = NOTEBOOKS / "curriculum.toml"
TEACHING, PLANS = ROOT / "docs" / "teaching.md", ROOT / "docs" / "plans.toml"
CARD_ENDS = "**Last run with** "
PARTS = {
    1: "Part I · The published experiment",
    2: "Part II · Make it yours",
    None: "Appendices",
}


@dataclass(frozen=True)
class Lesson:
    """One notebook: what it is for. ``part`` is 1, 2 or ``None`` for an appendix, which then names
    a lesson before and one after it.
    """

    number: str
    file: str
    title: str
    name: str
    can: str
    will: str
    needs: str
    gpu: str
    part: int | None = None
    appendix_to: str | None = None
    then: str | None = None
    extras: tuple[str, ...] = ()

    @property
    def link(self) -> str:
        label = (
            f"Appendix {self.number}" if self.part is None else f"{int(self.number)} {self.name}"
        )
        return f"[{label}]({self.file}.ipynb)"


@cache
def lessons() -> dict[str, Lesson]:
    """``{number: Lesson}`` in the course's order, appendices last. A field that is missing or
    unknown raises ``TypeError``.
    """
    return {
        number: Lesson(number, **fields)
        for number, fields in tomllib.loads(FILE.read_text(encoding="utf-8")).items()
    }


def part_of(stem: str) -> int:
    """The part that a notebook is run with: appendices belong to Part I, and so does a notebook
    that the file does not know.
    """
    lesson = lessons().get(stem.partition("_")[0])
    return (lesson and lesson.part) or 1


def extras_of(stem: str) -> list[str]:
    """The extras of ``pyproject.toml`` that a notebook's cells need; none where the file does not
    know the notebook.
    """
    lesson = lessons().get(stem.partition("_")[0])
    return list(lesson.extras) if lesson else []


def in_words(minutes: float) -> str:
    """Minutes as a reader plans them: ``0.4`` -> "under a minute", ``1.2`` -> "about 2 minutes"."""
    whole = math.ceil(minutes)
    return "under a minute" if minutes < 1 else f"about {whole} minute{'s' if whole > 1 else ''}"


def card(lesson: Lesson) -> str:
    """The top of a notebook's first cell: title, aims, needs, time and hardware, place in the
    course, and what it was last run with.
    """
    course, run = lessons(), measured("tiny_run")
    versions = run["versions"]
    if lesson.part is None:
        label = lesson.number
        place = f"appendix to {course[lesson.appendix_to].link} · next: {course[lesson.then].link}"
    else:
        label = str(int(lesson.number))
        row = [other for other in course.values() if other.part]
        i = [other.number for other in row].index(lesson.number)
        before = [row[i - 1].link] if i else []
        after = [f"next: {row[i + 1].link}"] if i + 1 < len(row) else []
        place = " · ".join(
            [*before, f"**{int(lesson.number)} {lesson.name[0].lower()}{lesson.name[1:]}**", *after]
        )
    gpu = "no GPU" if lesson.gpu == "no" else f"a GPU {lesson.gpu}"
    lines = [
        f"# {label} · {lesson.title}",
        f"**You will** {lesson.will}",
        f"**You need** {lesson.needs} **Time** {in_words(run['minutes'][lesson.file])} on two CPU cores, measured on `tiny`; {gpu}.",
        f"**Where this stands** {place} · [words of the course](../docs/glossary.md)",
        f"{CARD_ENDS}Python {versions['python']}, Sentence Transformers {versions['sentence-transformers']}, "
        f"Transformers {versions['transformers']}, PyTorch {versions['torch']}; {run['device']}",
    ]
    return "\n\n".join(lines)


def with_card(source: str, lesson: Lesson) -> str:
    """A first cell's ``source`` with its card written anew; badges below the title and what follows
    the card stay.
    """
    # a card that this tool has not written yet
    end = CARD_ENDS if CARD_ENDS in source else "**Where this stands** "
    _, _, rest = source.partition(end)[2].partition("\n")
    title, _, body = card(lesson).partition("\n\n")
    badges = re.findall(rf"^{BADGE}(?: {BADGE})*$", source, re.MULTILINE)[:1]
    return "\n\n".join([title, *badges, body, *([rest.strip()] if rest.strip() else [])])


def table(folder: str) -> str:
    """Part I, Part II and the appendices as markdown tables; links are relative to where ``folder``
    leads to the notebooks.
    """
    minutes, texts = measured("tiny_run")["minutes"], []
    for part, heading in PARTS.items():
        rows = [
            [
                f"[`{lesson.file}`]({folder}{lesson.file}.ipynb)",
                lesson.can,
                f"{minutes[lesson.file]:.1f}",
            ]
            for lesson in lessons().values()
            if lesson.part == part
        ]
        if rows:
            total = sum(
                minutes[lesson.file] for lesson in lessons().values() if lesson.part == part
            )
            head = [heading, "What you can do afterwards", "Minutes"]
            texts.append(markdown(head, [*rows, ["", "", f"{total:.1f} together"]]))
    return "\n\n".join(texts)


def plan(name: str) -> str:
    """A day's plan as a markdown table: ``name`` is a list of ``docs/plans.toml``; what is run
    comes with the stored run's minutes.
    """
    course, minutes = lessons(), measured("tiny_run")["minutes"]
    rows, clock = [], 0
    for item in tomllib.loads(PLANS.read_text(encoding="utf-8"))[name]:
        runs = [course[number] for number in item["notebooks"]]
        links = ", ".join(f"[{lesson.number}](../notebooks/{lesson.file}.ipynb)" for lesson in runs)
        ran = f"{sum(minutes[lesson.file] for lesson in runs):.1f}" if runs else ""
        rows.append(
            [
                f"{clock // 60}:{clock % 60:02}",
                item["part"],
                links,
                str(item["minutes"]),
                ran,
                item["ask"],
            ]
        )
        clock += item["minutes"]
    head = [
        "From",
        "Part",
        "Notebooks",
        "Minutes in the room (plan)",
        "of which cells run (measured, two cores)",
        "What to ask the room",
    ]
    return markdown(head, [*rows, [f"{clock // 60}:{clock % 60:02}", "End", "", "", "", ""]])


def with_plans(text: str) -> str:
    """The text of ``docs/teaching.md`` with its plans written anew."""
    for name in ("half_day", "full_day"):
        text = between_marks(text, name, plan(name))
    return text


def written(readme: str, notebooks: dict) -> tuple[str, dict]:
    """README text and ``{number: notebook}``, as they should read. Raises ``ValueError`` for a
    place without its marks.
    """
    address, ref = settings((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    measured_on_gpus = "\n".join(describe_receipts())
    readme = between_marks(readme, "gpu", measured_on_gpus)
    readme = rewrite_readme(between_marks(readme, "curriculum", table("notebooks/")), address, ref)
    for number, notebook in notebooks.items():
        notebook.cells[0].source = with_card(notebook.cells[0].source, lessons()[number])
    for cell in notebooks["00"].cells if "00" in notebooks else []:
        if "<!-- curriculum: start -->" in cell.source:
            cell.source = between_marks(cell.source, "curriculum", table(""))
            cell.source = between_marks(cell.source, "gpu", measured_on_gpus)
    return readme, notebooks


def main() -> None:
    """Write README.md and the notebooks."""
    needs("run")
    import nbformat

    files = {number: NOTEBOOKS / f"{lesson.file}.ipynb" for number, lesson in lessons().items()}
    readme, notebooks = written(
        README.read_text(encoding="utf-8"),
        {number: nbformat.read(file, as_version=4) for number, file in files.items()},
    )
    atomic_write(README, readme)
    atomic_write(TEACHING, with_plans(TEACHING.read_text(encoding="utf-8")))
    for number, file in files.items():
        nbformat.write(notebooks[number], file)
    print(f"{len(files)} cards, README.md and notebook 00 say what {FILE.name} says")


if __name__ == "__main__":
    main()
