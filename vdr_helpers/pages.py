"""Draw one page screenshot: report, table, invoice, data sheet, slide, letter, dashboard or poster (notebook 02 shows them).

A page is about 410 x 570 pixels, so that a person can read it and the tiny profile's ``max_pixels`` has something to shrink.
What a query asks about (organisation, subject, year) is set in large type; small type is filler. Colour, typeface and layout are
drawn at random and never tell which page is meant.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vdr_helpers import vocabulary

INK = (25, 28, 36)
GREY = (150, 154, 162)
BAND_COLOURS = ((32, 72, 120), (120, 40, 48), (36, 96, 72), (84, 60, 120), (140, 92, 24), (60, 64, 72), (16, 100, 116))
# (heading, body): every file ships with matplotlib, so nothing is downloaded and every machine draws the same page.
TYPEFACES = (
    ("DejaVuSans-Bold.ttf", "DejaVuSans.ttf"),
    ("DejaVuSerif-Bold.ttf", "DejaVuSerif.ttf"),
    ("STIXGeneralBol.ttf", "STIXGeneral.ttf"),
    ("DejaVuSansMono-Bold.ttf", "DejaVuSansMono.ttf"),
    ("DejaVuSans.ttf", "DejaVuSerif.ttf"),
    ("DejaVuSerif.ttf", "DejaVuSans.ttf"),
)


@dataclass(frozen=True)
class Page:
    """What a page says. ``subjects[0]`` is its headline; invoices, data sheets and tables list all ``subjects`` as rows.

    ``seed`` fixes everything that carries no meaning: typeface, colour, size, filler and figures.
    """

    organisation: str
    subjects: tuple[str, ...]
    year: int
    region: str
    layout: str
    seed: int


@lru_cache(maxsize=256)
def font(file_name: str, size: int) -> ImageFont.FreeTypeFont:
    """A typeface that ships with matplotlib at ``size`` pixels; basic layout, so that kerning libraries change nothing."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / file_name
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=2048)
def filler_strip(file_name: str, size: int, number: int) -> Image.Image:
    """One line of running text as a mask: drawn once and pasted on many pages, which makes a page three times cheaper."""
    words = random.Random(number).choices(vocabulary.FILLER_WORDS, k=12)
    face = font(file_name, size)
    mask = Image.new("L", (int(face.getlength(" ".join(words))), int(size * 1.35)))
    ImageDraw.Draw(mask).text((0, 0), " ".join(words), font=face, fill=255)
    return mask


class Sheet:
    """A blank page with a cursor. ``key_lines`` collects ``(text, x0, y0, x1, y1)`` of the large type, in page pixels."""

    def __init__(self, page: Page, landscape: bool, plain: bool = False) -> None:
        self.page = page
        self.rng = random.Random(page.seed)
        short, long = (400, 560) if plain else (self.rng.randrange(388, 432), self.rng.randrange(548, 592))
        self.width, self.height = (long, short) if landscape else (short, long)
        self.heading, self.body = TYPEFACES[0] if plain else self.rng.choice(TYPEFACES)
        self.colour = self.rng.choice(BAND_COLOURS)
        paper = self.rng.randrange(246, 256)
        self.image = Image.new("RGB", (self.width, self.height), (paper, paper, paper - self.rng.randrange(0, 6)))
        self.draw = ImageDraw.Draw(self.image)
        self.margin = 20 if plain else self.rng.randrange(18, 30)
        self.y = self.margin
        self.key_lines: list[tuple[str, float, float, float, float]] = []

    def key(self, text: str, x: float | None = None, size: int = 28, bold: bool = True, fill=INK, room: float | None = None) -> float:
        """Write one large line at ``x`` on the cursor's height, shrunk to fit ``room`` pixels; returns its height."""
        x = self.margin if x is None else x
        room = self.width - self.margin - x if room is None else room
        file_name = self.heading if bold else self.body
        while size > 18 and font(file_name, size).getlength(text) > room:
            size -= 1
        face = font(file_name, size)
        self.draw.text((x, self.y), text, font=face, fill=fill)
        self.key_lines.append((text, x, self.y, x + face.getlength(text), self.y + size * 1.15))
        return size * 1.3

    def line(self, text: str, **style) -> None:
        """Write one large line and move the cursor below it."""
        self.y += self.key(text, **style) + self.rng.randrange(2, 9)

    def filler(self, left: float, top: float, right: float, bottom: float) -> None:
        """Fill a box with small running text that says nothing."""
        size = self.rng.randrange(9, 13)
        y = top
        while y + size * 1.35 <= bottom:
            strip = filler_strip(self.body, size, self.rng.randrange(48))
            strip = strip.crop((0, 0, min(strip.width, int(right - left)), strip.height))
            self.image.paste((70, 74, 84), (int(left), int(y)), strip)
            y += size * 1.35

    def columns(self, bottom: float) -> None:
        """Two columns of running text from the cursor down to ``bottom``."""
        middle = self.width / 2
        self.filler(self.margin, self.y, middle - 8, bottom)
        self.filler(middle + 8, self.y, self.width - self.margin, bottom)
        self.y = bottom + 8

    def chart(self, left: float, top: float, right: float, bottom: float) -> None:
        """Quarterly figures as bars or a line, with axes, ticks and labels; the direction is drawn at random."""
        start, end = self.rng.randrange(20, 90), self.rng.randrange(20, 90)
        values = [start + (end - start) * i / 3 + self.rng.randrange(-6, 7) for i in range(4)]
        small = font(self.body, 11)
        axis_x, axis_y = left + 26, bottom - 18
        self.draw.line((axis_x, top, axis_x, axis_y, right, axis_y), fill=INK, width=1)
        for tick in (0, 50, 100):
            y = axis_y - (axis_y - top) * tick / 110
            self.draw.line((axis_x, y, right, y), fill=(215, 217, 222))
            self.draw.text((left, y - 6), str(tick), font=small, fill=INK)
        step = (right - axis_x) / 4
        points = [(axis_x + step * (i + 0.5), axis_y - (axis_y - top) * value / 110) for i, value in enumerate(values)]
        if self.rng.random() < 0.6:
            for x, y in points:
                self.draw.rectangle((x - step * 0.28, y, x + step * 0.28, axis_y), fill=self.colour)
        else:
            self.draw.line(points, fill=self.colour, width=3)
        for (x, _), quarter in zip(points, vocabulary.QUARTERS, strict=True):
            self.draw.text((x - 8, axis_y + 3), quarter, font=small, fill=INK)

    def table(self, rows: tuple[str, ...], ruled: bool) -> None:
        """One large row per subject, with a figure at the right edge."""
        self.y += 4
        for row in rows:
            top = self.y - 5
            height = self.key(row, x=self.margin + 6, size=25, bold=False, room=self.width - 2 * self.margin - 84)
            figure = str(self.rng.randrange(12, 990))
            face = font(self.body, 21)
            self.draw.text((self.width - self.margin - 8 - face.getlength(figure), self.y), figure, font=face, fill=INK)
            self.y += height + 8
            if ruled:
                self.draw.rectangle((self.margin, top, self.width - self.margin, self.y - 5), outline=GREY)
            else:
                self.draw.line((self.margin, self.y - 5, self.width - self.margin, self.y - 5), fill=GREY)
        self.y += 6


def report(sheet: Sheet) -> None:
    page = sheet.page
    sheet.draw.rectangle((0, 0, sheet.width, 10), fill=sheet.colour)
    sheet.line(page.organisation, size=31)
    sheet.line(f"{page.region} report {page.year}", size=25, bold=False)
    sheet.columns(sheet.y + sheet.rng.randrange(60, 110))
    sheet.line(page.subjects[0], size=28)
    sheet.chart(sheet.margin, sheet.y, sheet.width - sheet.margin, sheet.y + 140)
    sheet.y += 150
    sheet.columns(sheet.height - sheet.margin)


def table(sheet: Sheet) -> None:
    page = sheet.page
    sheet.line(f"Key figures {page.year}", size=29)
    sheet.line(page.organisation, size=27, fill=sheet.colour)
    sheet.filler(sheet.margin, sheet.y, sheet.width - sheet.margin, sheet.y + 40)
    sheet.y += 48
    sheet.table(page.subjects, ruled=True)
    sheet.line(f"Site: {page.region}", size=21, bold=False)
    sheet.columns(sheet.height - sheet.margin)


def invoice(sheet: Sheet) -> None:
    page = sheet.page
    sheet.line(f"Invoice {page.year}", size=32, fill=sheet.colour)
    sheet.line(page.organisation, size=27)
    sheet.line(page.region, size=22, bold=False)
    sheet.filler(sheet.margin, sheet.y, sheet.width * 0.7, sheet.y + 52)
    sheet.y += 60
    sheet.table(page.subjects, ruled=False)
    sheet.filler(sheet.margin, max(sheet.y, sheet.height - 110), sheet.width - sheet.margin, sheet.height - sheet.margin)


def datasheet(sheet: Sheet) -> None:
    page = sheet.page
    sheet.draw.rectangle((0, 0, sheet.width, sheet.y + 48), fill=sheet.colour)
    sheet.line(page.organisation, size=29, fill=(255, 255, 255))
    sheet.y += 22
    sheet.line(page.subjects[0], size=33)
    sheet.line(f"Data sheet {page.year}", size=24, bold=False)
    box = (sheet.margin, sheet.y + 6, sheet.width * 0.48, sheet.y + 130)
    sheet.draw.ellipse(box, outline=sheet.colour, width=6)
    sheet.filler(sheet.width * 0.54, sheet.y + 6, sheet.width - sheet.margin, sheet.y + 130)
    sheet.y += 146
    sheet.table(page.subjects[1:], ruled=True)
    sheet.columns(sheet.height - sheet.margin)


def slide(sheet: Sheet) -> None:
    page = sheet.page
    sheet.line(f"{page.subjects[0]} {page.year}", size=34)
    sheet.draw.line((sheet.margin, sheet.y, sheet.width - sheet.margin, sheet.y), fill=sheet.colour, width=4)
    sheet.y += 14
    sheet.line(page.organisation, size=28, bold=False)
    top, middle = sheet.y + 4, sheet.width * 0.55
    sheet.chart(sheet.margin, top, middle, sheet.height - sheet.margin - 10)
    for _ in range(3):
        sheet.draw.ellipse((middle + 22, sheet.y + 10, middle + 29, sheet.y + 17), fill=sheet.colour)
        sheet.filler(middle + 38, sheet.y + 4, sheet.width - sheet.margin, sheet.y + 44)
        sheet.y += 52
    sheet.key(page.region, x=middle + 20, size=23, bold=False)


def letter(sheet: Sheet) -> None:
    page = sheet.page
    sheet.line(page.organisation, x=sheet.width * 0.25, size=27)
    sheet.line(f"{page.region}, {page.year}", x=sheet.width * 0.4, size=23, bold=False)
    sheet.columns(sheet.y + 120)
    sheet.line(f"Re: {page.subjects[0]}", size=27)
    sheet.columns(sheet.height - 84)
    sheet.draw.line((sheet.margin, sheet.height - 40, sheet.margin + 120, sheet.height - 60), fill=sheet.colour, width=3)


def dashboard(sheet: Sheet) -> None:
    page = sheet.page
    sheet.draw.rectangle((0, 0, 16, sheet.height), fill=sheet.colour)
    sheet.margin += 8
    sheet.line(page.organisation, size=29)
    half = sheet.width / 2
    top = sheet.y + 6
    for left, label in ((sheet.margin, str(page.year)), (half + 4, page.region)):
        sheet.draw.rectangle((left, top, left + half - sheet.margin - 8, top + 50), outline=sheet.colour, width=2)
        sheet.y = top + 9
        sheet.key(label, x=left + 10, size=27, room=half - sheet.margin - 24)
    sheet.y = top + 62
    sheet.line(page.subjects[0], size=28)
    sheet.chart(sheet.margin, sheet.y, sheet.width - sheet.margin, sheet.height - sheet.margin - 30)


def poster(sheet: Sheet) -> None:
    page = sheet.page
    lines = [page.organisation, page.subjects[0], str(page.year), page.region]
    sheet.rng.shuffle(lines)
    for text in lines:
        sheet.y += sheet.rng.randrange(4, 44)
        sheet.line(text, x=sheet.margin + sheet.rng.randrange(0, 60), size=sheet.rng.randrange(25, 36))


def flashcard(sheet: Sheet) -> None:
    page = sheet.page
    for place, text in enumerate((page.organisation, page.subjects[0], str(page.year), page.region)):
        sheet.y = 20 + 120 * place
        sheet.key(text, size=33)


PORTRAIT = {"report": report, "table": table, "invoice": invoice, "datasheet": datasheet, "letter": letter, "poster": poster}
PORTRAIT["flashcard"] = flashcard
LANDSCAPE = {"slide": slide, "dashboard": dashboard}
METRIC_LAYOUTS = ("report", "table", "slide", "letter", "dashboard")
ITEM_LAYOUTS = ("invoice", "datasheet")
TABLE_LAYOUTS = ("table", "invoice", "datasheet")  # a query may ask about any row
CHART_LAYOUTS = ("report", "slide", "dashboard")
HELD_OUT_LAYOUTS = ("letter", "dashboard")  # pre-training never draws these


def draw_page(page: Page) -> tuple[Image.Image, list[tuple[str, float, float, float, float]]]:
    """Draw ``page``: an RGB image of about 410 x 570 pixels (slides and dashboards 570 x 410) and its large lines.

    The same ``page`` always gives the same pixels for one Pillow version. Raises ``KeyError`` for an unknown layout.
    """
    sheet = Sheet(page, landscape=page.layout in LANDSCAPE, plain=page.layout == "flashcard")
    (LANDSCAPE | PORTRAIT)[page.layout](sheet)
    return sheet.image, sheet.key_lines
