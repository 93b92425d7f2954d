"""Draw a folder of PDF files: service manuals of invented machines, for notebook 08, whose reader
has PDF files and nothing else.

A domain that neither pre-training nor the corpus of notebook 02 has: other layouts, other words,
and documents of several pages. A manual has a title page and a page per topic: prose, a figure with
a caption, or a table. Most have a text layer and an outline; every sixth is "scanned", pages as
pictures and nothing else. Beside them lie questions (``questions.csv``), and two files of the kind
that every real folder holds: one with a password, one that was cut off.
"""

from __future__ import annotations

import csv
import io
import math
import random
from dataclasses import dataclass
from pathlib import Path

from tiny_vdr import vocabulary
from tiny_vdr.sheet import BAND_COLOURS, INK, TYPEFACES

WIDTH, HEIGHT = 400, 560  # points
MARGIN = 20
# points from one baseline of large type to the next: what the tiny model has learned to read
GRID = 40
SCAN_SCALE = 2  # pixels per point of a scanned page
QUESTIONS = "questions.csv"

MACHINES = (
    "Lathe",
    "Loom",
    "Kiln",
    "Crane",
    "Press",
    "Dryer",
    "Winch",
    "Mill",
    "Oven",
    "Forge",
    "Hoist",
    "Grinder",
)
# heading: (kind of page, its caption or none, rows of its table, questions that the page answers)
TOPICS = {
    "Cleaning": ("prose", "", (), ("How do I clean the {product}?", "How is dirt removed from the {product}?")),
    "Storage": ("prose", "", (), ("Where should the {product} be kept in winter?", "How do I store the {product}?")),
    "Hoses": ("prose", "", (), ("When are the hoses of the {product} replaced?", "How do I check the hoses of the {product}?")),
    "Transport": ("figure", "Lifting points", (), ("How do I move the {product}?", "Where do I lift the {product}?")),
    "Start-up": ("figure", "Control panel", (), ("How do I switch on the {product}?", "What must I do before using the {product}?")),
    "Filters": ("figure", "Filter box", (), ("Where are the filters of the {product}?", "How do I change the filters of the {product}?")),
    "Cables": ("figure", "Wiring plan", (), ("Which cables go where in the {product}?", "How are the cables of the {product} connected?")),
    "Gears": ("figure", "Gear box", (), ("How are the gears of the {product} adjusted?", "Show the gears of the {product}")),
    "Alarm codes": ("table", "Codes shown", ("Code E4", "Code E7", "Code F2"), ("Why does the {product} stop with {row}?", "What does {row} mean on the {product}?")),
    "Noise": ("table", "Sound levels", ("Idle", "Half load", "Full load"), ("How loud is the {product} at {row}?", "Do I need ear protection with the {product}?")),
    "Bolts": ("table", "Torque", ("M6 bolt", "M8 bolt", "M12 bolt"), ("How tight must the {row} of the {product} be?", "Which force for the {row} of the {product}?")),
    "Lamps": ("table", "Lamps to order", ("Front lamp", "Work lamp"), ("Which {row} fits the {product}?", "Where do I order a {row} for the {product}?")),
    "Sensors": ("table", "Limits", ("Heat sensor", "Speed sensor"), ("What is the limit of the {row} of the {product}?", "How are the sensors of the {product} set?")),
    "Bearings": ("table", "Grease", ("Front bearing", "Rear bearing"), ("How much grease for the {row} of the {product}?", "Which bearings does the {product} have?")),
}  # fmt: skip


@dataclass(frozen=True)
class Manual:
    """What a manual says: ``product`` such as ``"Tarvor Loom"``, its year, the topics of its pages
    in order, and whether it is scanned.
    """

    product: str
    year: int
    topics: tuple[str, ...]
    scanned: bool
    seed: int

    @property
    def file_name(self) -> str:
        return self.product.lower().replace(" ", "_") + ".pdf"


def plan_manuals(seed: int, count: int) -> list[Manual]:
    """``count`` manuals of different machines; several share a first or a second word, so that both
    have to be read.
    """
    rng, manuals, used = random.Random(seed), [], set()
    makers = vocabulary.FIRST_NAMES.course
    while len(manuals) < count:
        product = f"{rng.choice(makers)} {rng.choice(MACHINES)}"
        if product not in used:
            used.add(product)
            topics = tuple(rng.sample(list(TOPICS), k=rng.randrange(5, 9)))
            manuals.append(
                Manual(
                    product,
                    rng.choice(vocabulary.YEARS),
                    topics,
                    len(manuals) % 6 == 5,
                    rng.randrange(2**31),
                )
            )
    return manuals


class Leaf:
    """One page on a reportlab canvas, with a cursor that runs down from the top; ``lines`` of large
    type are set on ``canvas``.
    """

    def __init__(
        self,
        canvas,
        manual: Manual,
        rng: random.Random,
        faces: tuple[str, str],
        colour: tuple[float, ...],
    ) -> None:
        self.canvas, self.manual, self.rng, self.colour = canvas, manual, rng, colour
        self.heading, self.body = faces
        self.y = HEIGHT - MARGIN

    def text(
        self,
        words: str,
        size: float,
        x: float = MARGIN,
        bold: bool = False,
        fill=None,
        right: bool = False,
    ) -> None:
        """Write ``words`` on the baseline at ``y``, shrunk to the width of the page."""
        from reportlab.pdfbase.pdfmetrics import stringWidth

        face = self.heading if bold else self.body
        while size > 6 and stringWidth(words, face, size) > WIDTH - MARGIN - x:
            size -= 0.5
        self.canvas.setFont(face, size)
        self.canvas.setFillColorRGB(*(fill or [channel / 255 for channel in INK]))
        (self.canvas.drawRightString if right else self.canvas.drawString)(
            WIDTH - MARGIN if right else x, self.y, words
        )

    def line(self, words: str, size: float, **style) -> None:
        """Write one large line in the next free row of the grid."""
        top = math.ceil((HEIGHT - self.y) / GRID) * GRID
        self.y = HEIGHT - top - GRID * 0.75
        self.text(words, size, **style)
        self.y = HEIGHT - top - GRID

    def prose(self, lines: int) -> None:
        """Small running text over the whole width."""
        for _ in range(lines):
            self.y -= 13
            self.text(" ".join(self.rng.choices(vocabulary.FILLER_WORDS, k=11)), 10)

    def figure(self, height: float) -> None:
        """A drawing of nothing in particular in a frame."""
        self.y -= height + 6
        self.canvas.setStrokeColorRGB(*self.colour)
        self.canvas.setLineWidth(2)
        self.canvas.rect(MARGIN, self.y, WIDTH - 2 * MARGIN, height)
        for _ in range(6):
            size = self.rng.randrange(18, 50)
            x = MARGIN + 8 + self.rng.random() * (WIDTH - 2 * MARGIN - 100)
            y = self.y + 6 + self.rng.random() * (height - size - 12)
            if self.rng.random() < 0.5:
                self.canvas.rect(x, y, size * 1.6, size)
            else:
                self.canvas.ellipse(x, y, x + size * 1.6, y + size)
        self.y -= 4


def draw_title(leaf: Leaf) -> None:
    leaf.canvas.setFillColorRGB(*leaf.colour)
    leaf.canvas.rect(0, HEIGHT * 0.62, WIDTH, HEIGHT * 0.38, stroke=0, fill=1)
    leaf.y = HEIGHT * 0.82
    leaf.line(leaf.manual.product, 40, bold=True, fill=(1, 1, 1))
    leaf.line("Service manual", 28, fill=(1, 1, 1))
    leaf.y = HEIGHT * 0.5
    leaf.line(f"Edition {leaf.manual.year}", 26)
    leaf.prose(6)


def draw_topic(leaf: Leaf, number: int, topic: str) -> None:
    """A page about one topic: product above, heading with its number, and prose, a figure or a
    table below.
    """
    kind, caption, rows, _ = TOPICS[topic]
    leaf.line(leaf.manual.product, 28, fill=leaf.colour)
    leaf.canvas.setStrokeColorRGB(*leaf.colour)
    leaf.canvas.setLineWidth(1.5)
    leaf.canvas.line(MARGIN, leaf.y, WIDTH - MARGIN, leaf.y)
    leaf.y -= leaf.rng.choice((0, GRID))
    leaf.line(f"{number} {topic}", 30, bold=True)
    leaf.prose(leaf.rng.randrange(4, 8))
    if kind == "figure":
        leaf.figure(leaf.rng.randrange(130, 180))
        leaf.line(f"Figure {number}: {caption}", 26)
    elif kind == "table":
        leaf.line(f"Table {number}: {caption}", 26)
        for row in rows:
            leaf.line(row, 24, x=MARGIN + 6)
            leaf.y += GRID * 0.25
            leaf.text(str(leaf.rng.randrange(12, 990)), 21, right=True)
            leaf.y -= GRID * 0.25
            leaf.canvas.line(MARGIN, leaf.y, WIDTH - MARGIN, leaf.y)
    leaf.prose(int((leaf.y - MARGIN) // 14) if kind == "prose" else 4)


def draw_manual(manual: Manual) -> bytes:
    """The PDF file of a manual: title page, then a page per topic, with an outline. The same manual
    always gives the same bytes.
    """
    import matplotlib
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont
    from reportlab.pdfgen.canvas import Canvas

    rng, buffer = random.Random(manual.seed), io.BytesIO()
    faces = rng.choice(TYPEFACES)
    for face in faces:
        if face not in pdfmetrics.getRegisteredFontNames():
            pdfmetrics.registerFont(
                TTFont(face, str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / face))
            )
    colour = tuple(channel / 255 for channel in rng.choice(BAND_COLOURS))
    canvas = Canvas(buffer, pagesize=(WIDTH, HEIGHT), invariant=True)
    canvas.setTitle(f"{manual.product} service manual")
    draw_title(Leaf(canvas, manual, rng, faces, colour))
    canvas.showPage()
    for number, topic in enumerate(manual.topics, start=1):
        canvas.bookmarkPage(f"topic-{number}")
        canvas.addOutlineEntry(topic, f"topic-{number}")
        draw_topic(Leaf(canvas, manual, rng, faces, colour), number, topic)
        canvas.showPage()
    canvas.save()
    return as_scan(buffer.getvalue()) if manual.scanned else buffer.getvalue()


def as_scan(data: bytes) -> bytes:
    """The same pages as pictures: no text layer, no outline, no title."""
    import pypdfium2
    from reportlab.lib.utils import ImageReader
    from reportlab.pdfgen.canvas import Canvas

    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=(WIDTH, HEIGHT), invariant=True)
    with pypdfium2.PdfDocument(data) as document:
        for page in document:
            picture = page.render(scale=SCAN_SCALE, grayscale=True).to_pil()
            canvas.drawImage(ImageReader(picture), 0, 0, WIDTH, HEIGHT)
            canvas.showPage()
            page.close()
    canvas.save()
    return buffer.getvalue()


def questions_of(manual: Manual) -> list[dict]:
    """One question per topic page, ``{"file", "page", "query"}``; pages count from 1, as a reader
    of the file counts.
    """
    rng, found = random.Random(manual.seed + 1), []
    for page, topic in enumerate(manual.topics, start=2):
        _, _, rows, phrasings = TOPICS[topic]
        query = rng.choice(phrasings).format(
            product=manual.product, row=rng.choice(rows or ("",)).lower()
        )
        found.append({"file": manual.file_name, "page": page, "query": query})
    return found


def with_password(data: bytes, password: str) -> bytes:
    """A PDF file that opens only with ``password``, one page long."""
    from reportlab.pdfgen.canvas import Canvas

    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=(WIDTH, HEIGHT), encrypt=password)
    canvas.drawString(MARGIN, HEIGHT / 2, "confidential")
    canvas.save()
    return buffer.getvalue()


def draw_documents(folder: Path, seed: int = 0, count: int = 48) -> Path:
    """Draw ``count`` manuals into ``folder``, with questions, a file with a password and one that
    was cut off; returns ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manuals = plan_manuals(seed, count)
    for manual in manuals:
        (folder / manual.file_name).write_bytes(draw_manual(manual))
    first = (folder / manuals[0].file_name).read_bytes()
    (folder / "cut_off.pdf").write_bytes(first[: len(first) // 3])
    (folder / "with_password.pdf").write_bytes(with_password(first, "secret"))
    with (folder / QUESTIONS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["file", "page", "query"])
        writer.writeheader()
        writer.writerows(question for manual in manuals for question in questions_of(manual))
    return folder
