"""The sheet that a page is drawn on: large type on a baseline grid, filler text, charts and tables
(layouts: ``pages``).
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tiny_vdr import vocabulary

INK = (25, 28, 36)
SHORT, LONG = 400, 560  # pixels; landscape pages are turned
GRID = 40  # pixels from one row of large type to the next
GREY = (150, 154, 162)
BAND_COLOURS = (
    (32, 72, 120),
    (120, 40, 48),
    (36, 96, 72),
    (84, 60, 120),
    (140, 92, 24),
    (60, 64, 72),
    (16, 100, 116),
)
# (heading, body): every file ships with matplotlib, so nothing is downloaded and every machine
# draws the same page.
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
    """What a page says. ``subjects[0]`` is its headline; invoices, data sheets and tables list all
    ``subjects`` as rows.

    ``seed`` fixes everything that carries no meaning: typeface, colour, size, filler and figures.
    ``shape``: what its chart shows (``vocabulary.SHAPES``); ``None`` draws a direction at random.
    """

    organisation: str
    subjects: tuple[str, ...]
    year: int
    region: str
    layout: str
    seed: int
    shape: str | None = None


@lru_cache(maxsize=256)
def font(file_name: str, size: int) -> ImageFont.FreeTypeFont:
    """A typeface that ships with matplotlib at ``size`` pixels; basic layout, so that kerning
    libraries change nothing.
    """
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / file_name
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=8192)
def filler_strip(file_name: str, size: int, width: int, number: int) -> Image.Image:
    """One line of running text, at most ``width`` pixels, as a mask: drawn once and pasted on many
    pages.
    """
    face, words = (
        font(file_name, size),
        random.Random(number).choices(vocabulary.FILLER_WORDS, k=14),
    )
    fitting = 1 + bisect_right(
        range(2, 15), width, key=lambda count: face.getlength(" ".join(words[:count]))
    )
    mask = Image.new("L", (width, int(size * 1.35)))
    ImageDraw.Draw(mask).text((0, 0), " ".join(words[:fitting]), font=face, fill=255)
    return mask


class Sheet:
    """A blank page with a cursor. ``key_lines`` collects ``(text, x0, y0, x1, y1)`` of the large
    type, in page pixels.
    """

    def __init__(self, page: Page, landscape: bool, typefaces: int) -> None:
        self.page = page
        self.rng = random.Random(page.seed)
        self.width, self.height = (LONG, SHORT) if landscape else (SHORT, LONG)
        self.heading, self.body = self.rng.choice(TYPEFACES[:typefaces])
        self.colour = self.rng.choice(BAND_COLOURS)
        paper = self.rng.randrange(246, 256)
        self.image = Image.new(
            "RGB", (self.width, self.height), (paper, paper, paper - self.rng.randrange(0, 6))
        )
        self.draw = ImageDraw.Draw(self.image)
        self.margin = 20
        self.y = float(GRID)
        self.key_lines: list[tuple[str, float, float, float, float]] = []

    def key(
        self,
        text: str,
        x: float | None = None,
        size: int = 28,
        bold: bool = True,
        fill=INK,
        room: float | None = None,
    ) -> None:
        """Write one large line at ``x`` in the next free row of the grid, shrunk to fit ``room``
        pixels.
        """
        x = self.margin if x is None else x
        room = self.width - self.margin - x if room is None else room
        file_name = self.heading if bold else self.body
        while size > 18 and font(file_name, size).getlength(text) > room:
            size -= 1
        face = font(file_name, size)
        self.y = math.ceil(self.y / GRID) * GRID
        self.draw.text((x, self.y + GRID * 0.75), text, font=face, fill=fill, anchor="ls")
        self.key_lines.append((text, x, self.y, x + face.getlength(text), self.y + GRID))

    def line(self, text: str, **style) -> None:
        """Write one large line and move the cursor below its row."""
        self.key(text, **style)
        self.y += GRID

    def filler(self, left: float, top: float, right: float, bottom: float) -> None:
        """Fill a box with small running text that says nothing."""
        size = self.rng.randrange(9, 13)
        y = top
        while y + size * 1.35 <= bottom:
            strip = filler_strip(self.body, size, int(right - left), self.rng.randrange(24))
            self.image.paste((70, 74, 84), (int(left), int(y)), strip)
            y += size * 1.35

    def columns(self, bottom: float) -> None:
        """Two columns of running text from the cursor down to ``bottom``."""
        middle = self.width / 2
        self.filler(self.margin, self.y, middle - 8, bottom)
        self.filler(middle + 8, self.y, self.width - self.margin, bottom)
        self.y = bottom + 8

    def quarters(self) -> list[float]:
        """Four figures between 10 and 100 in the page's shape, or in a direction at random."""
        noise = [self.rng.randrange(-6, 7) for _ in range(4)] if self.page.shape else None
        if noise is None:
            start, end = self.rng.randrange(20, 90), self.rng.randrange(20, 90)
            return [start + (end - start) * i / 3 + self.rng.randrange(-6, 7) for i in range(4)]
        low, high = self.rng.randrange(18, 36), self.rng.randrange(70, 92)
        middle = self.rng.randrange(30, 80)
        third = (high - low) / 3
        values = {
            "rise": (low, low + third, high - third, high),
            "fall": (high, high - third, low + third, low),
            "peak": (low, high, high, low),
            "dip": (high, low, low, high),
            "flat": (middle,) * 4,
        }[self.page.shape]
        return [value + part / 2 for value, part in zip(values, noise, strict=True)]

    def chart(self, left: float, top: float, right: float, bottom: float) -> None:
        """Quarterly figures as bars or a line, with axes, ticks and labels."""
        values = self.quarters()
        small = font(self.body, 11)
        axis_x, axis_y = left + 26, bottom - 18
        self.draw.line((axis_x, top, axis_x, axis_y, right, axis_y), fill=INK, width=1)
        for tick in (0, 50, 100):
            y = axis_y - (axis_y - top) * tick / 110
            self.draw.line((axis_x, y, right, y), fill=(215, 217, 222))
            self.draw.text((left, y - 6), str(tick), font=small, fill=INK)
        step = (right - axis_x) / 4
        points = [
            (axis_x + step * (i + 0.5), axis_y - (axis_y - top) * value / 110)
            for i, value in enumerate(values)
        ]
        if self.rng.random() < 0.6:
            for x, y in points:
                self.draw.rectangle((x - step * 0.28, y, x + step * 0.28, axis_y), fill=self.colour)
        else:
            self.draw.line(points, fill=self.colour, width=3)
        for (x, _), quarter in zip(points, vocabulary.QUARTERS, strict=True):
            self.draw.text((x - 8, axis_y + 3), quarter, font=small, fill=INK)

    def table(self, rows: tuple[str, ...], ruled: bool) -> None:
        """One large row per subject, with a figure at the right edge."""
        for row in rows:
            self.key(
                row, x=self.margin + 6, size=26, bold=False, room=self.width - 2 * self.margin - 84
            )
            figure = str(self.rng.randrange(12, 990))
            right = self.width - self.margin - 8
            self.draw.text(
                (right, self.y + GRID * 0.75),
                figure,
                font=font(self.body, 21),
                fill=INK,
                anchor="rs",
            )
            self.y += GRID
            if ruled:
                self.draw.rectangle(
                    (self.margin, self.y - GRID, self.width - self.margin, self.y), outline=GREY
                )
            else:
                self.draw.line((self.margin, self.y, self.width - self.margin, self.y), fill=GREY)
        self.y += 8
