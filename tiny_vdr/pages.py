"""Draw one page screenshot: report, table, invoice, data sheet, slide, letter or dashboard
(notebook 02 shows them).

A page is 400 x 560 pixels, so that a person can read it and the tiny profile's ``max_pixels`` has
something to shrink. What a query asks about (organisation, subject, year) is set in large type on a
baseline grid of 40 pixels; small type is filler. Colour, typeface and layout are drawn at random
and never tell which page is meant.
"""

from __future__ import annotations

from PIL import Image

from tiny_vdr.sheet import GRID, TYPEFACES, Page, Sheet


def report(sheet: Sheet) -> None:
    page = sheet.page
    sheet.draw.rectangle((0, 0, sheet.width, 6), fill=sheet.colour)
    sheet.line(page.organisation, size=30)
    sheet.line(f"{page.region} report {page.year}", size=26, bold=False)
    sheet.columns(sheet.y + sheet.rng.choice((64, 104)))
    sheet.line(page.subjects[0], size=29)
    sheet.chart(sheet.margin, sheet.y + 4, sheet.width - sheet.margin, sheet.y + 144)
    sheet.y += 152
    sheet.columns(sheet.height - sheet.margin)


def table(sheet: Sheet) -> None:
    page = sheet.page
    sheet.y = sheet.rng.choice((GRID, 2 * GRID))
    sheet.line(f"Key figures {page.year}", size=29)
    sheet.line(page.organisation, size=28, fill=sheet.colour)
    sheet.filler(sheet.margin, sheet.y + 4, sheet.width - sheet.margin, sheet.y + 70)
    sheet.y += 76
    sheet.table(page.subjects, ruled=True)
    sheet.line(f"Site: {page.region}", size=25, bold=False)
    sheet.columns(sheet.height - sheet.margin)


def invoice(sheet: Sheet) -> None:
    page = sheet.page
    sheet.y = sheet.rng.choice((GRID, 2 * GRID))
    sheet.line(f"Invoice {page.year}", size=31, fill=sheet.colour)
    sheet.line(page.organisation, size=28)
    sheet.line(page.region, size=25, bold=False)
    sheet.filler(sheet.margin, sheet.y + 4, sheet.width * 0.7, sheet.y + 70)
    sheet.y += 76
    sheet.table(page.subjects, ruled=False)
    sheet.filler(
        sheet.margin,
        max(sheet.y, sheet.height - 110),
        sheet.width - sheet.margin,
        sheet.height - sheet.margin,
    )


def datasheet(sheet: Sheet) -> None:
    page = sheet.page
    sheet.draw.rectangle((0, 0, sheet.width, 2 * GRID), fill=sheet.colour)
    sheet.line(page.organisation, size=29, fill=(255, 255, 255))
    sheet.y += sheet.rng.choice((0, GRID))
    sheet.line(page.subjects[0], size=31)
    sheet.line(f"Data sheet {page.year}", size=26, bold=False)
    sheet.draw.ellipse(
        (sheet.margin, sheet.y + 6, sheet.width * 0.48, sheet.y + 112),
        outline=sheet.colour,
        width=6,
    )
    sheet.filler(sheet.width * 0.54, sheet.y + 6, sheet.width - sheet.margin, sheet.y + 112)
    sheet.y += 120
    sheet.table(page.subjects[1:], ruled=True)
    sheet.line(f"Site: {page.region}", size=25, bold=False)
    sheet.columns(sheet.height - sheet.margin)


def slide(sheet: Sheet) -> None:
    page = sheet.page
    sheet.line(f"{page.subjects[0]} {page.year}", size=32)
    sheet.draw.line(
        (sheet.margin, sheet.y, sheet.width - sheet.margin, sheet.y), fill=sheet.colour, width=4
    )
    sheet.y += sheet.rng.choice((0, GRID))
    sheet.line(page.organisation, size=29, bold=False)
    top, middle = sheet.y + 8, sheet.width * 0.55
    sheet.chart(sheet.margin, top, middle, sheet.height - sheet.margin)
    for _ in range(3):
        sheet.draw.ellipse(
            (middle + 22, sheet.y + 18, middle + 29, sheet.y + 25), fill=sheet.colour
        )
        sheet.filler(middle + 38, sheet.y + 12, sheet.width - sheet.margin, sheet.y + 52)
        sheet.y += 52
    sheet.key(page.region, x=middle + 20, size=26, bold=False)


def letter(sheet: Sheet) -> None:
    page = sheet.page
    sheet.line(page.organisation, x=100, size=28)
    sheet.line(f"{page.region}, {page.year}", x=160, size=25, bold=False)
    sheet.columns(sheet.y + sheet.rng.choice((64, 104)))
    sheet.line(f"Re: {page.subjects[0]}", size=28)
    sheet.columns(sheet.height - 84)
    sheet.draw.line(
        (sheet.margin, sheet.height - 40, sheet.margin + 120, sheet.height - 60),
        fill=sheet.colour,
        width=3,
    )


def dashboard(sheet: Sheet) -> None:
    page = sheet.page
    sheet.draw.rectangle((0, 0, 12, sheet.height), fill=sheet.colour)
    sheet.line(page.organisation, size=29)
    half = sheet.width / 2
    for left, label in ((sheet.margin, str(page.year)), (half + 4, page.region)):
        sheet.draw.rectangle(
            (left, 2 * GRID, left + half - sheet.margin - 8, 3 * GRID),
            outline=sheet.colour,
            width=2,
        )
        sheet.key(label, x=left + 10, size=28, room=half - sheet.margin - 24)
    sheet.y = 3 * GRID + 1
    sheet.line(page.subjects[0], size=29)
    sheet.chart(sheet.margin, sheet.y, sheet.width - sheet.margin, sheet.height - sheet.margin)


def flashcard(sheet: Sheet) -> None:
    page = sheet.page
    lines = [page.organisation, page.subjects[0], str(page.year), page.region]
    for place, text in enumerate(lines):
        sheet.y = place * 3 * GRID + GRID * sheet.rng.randrange(3)
        sheet.key(text, size=30)


PORTRAIT = {
    "report": report,
    "table": table,
    "invoice": invoice,
    "datasheet": datasheet,
    "letter": letter,
    "flashcard": flashcard,
}
LANDSCAPE = {"slide": slide, "dashboard": dashboard}
METRIC_LAYOUTS = ("report", "table", "slide", "letter", "dashboard")
ITEM_LAYOUTS = ("invoice", "datasheet")
TABLE_LAYOUTS = ("table", "invoice", "datasheet")  # a query may ask about any row
CHART_LAYOUTS = ("report", "slide", "dashboard")
HELD_OUT_LAYOUTS = ("letter", "dashboard")  # the first part of pre-training never draws these


def draw_page(
    page: Page, typefaces: int = len(TYPEFACES)
) -> tuple[Image.Image, list[tuple[str, float, float, float, float]]]:
    """Draw ``page``: an RGB image of 400 x 560 pixels (slides and dashboards 560 x 400) and its
    large lines.

    The same ``page`` always gives the same pixels for one Pillow version; ``typefaces`` keeps to
    the first few (pre-training starts with one). Raises ``KeyError`` for an unknown layout.
    """
    sheet = Sheet(page, page.layout in LANDSCAPE, typefaces)
    (LANDSCAPE | PORTRAIT)[page.layout](sheet)
    return sheet.image, sheet.key_lines
