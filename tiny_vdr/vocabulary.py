"""The words that the generated pages and queries are made of, and which of them the base model
never saw.

Every list is split in two: ``SHARED`` words appear in pre-training *and* in the course's corpus,
``HELD_OUT`` words only in the course's corpus. Pre-training adds invented words of its own (see
:func:`invented_word`), so that the base model learns to read letters rather than to recognise a
closed list. Notebook 02 shows the pages that come out of these words.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class WordList:
    """One kind of word: what pre-training may use, and what only the course's corpus uses."""

    shared: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def course(self) -> tuple[str, ...]:
        """All words of this kind that the course's corpus draws from."""
        return self.shared + self.held_out


FIRST_NAMES = WordList(
    shared=(
        "Alder", "Arden", "Basalt", "Beacon", "Birch", "Calder", "Cobalt", "Corvid", "Delmar", "Drift", "Ember", "Fenwick",
        "Garnet", "Harbor", "Hazel", "Indigo", "Juniper", "Kestrel", "Larch", "Lumen", "Marlow", "Nordvik", "Ochre", "Pallas",
        "Quarry", "Rowan", "Saffron", "Tamar", "Umber", "Vesper",
    ),
    held_out=("Aspen", "Cedar", "Dunmore", "Falcon", "Granite", "Linden", "Mistral", "Orchid", "Solace", "Willow"),
)  # fmt: skip
SECOND_NAMES = WordList(
    shared=(
        "Energy",
        "Foods",
        "Marine",
        "Rail",
        "Health",
        "Optics",
        "Timber",
        "Water",
        "Steel",
        "Paper",
        "Tools",
        "Ports",
    ),
    held_out=("Motors", "Textiles", "Airways", "Chemie"),
)
METRICS = WordList(
    shared=(
        "Revenue", "Net profit", "Water use", "Staff", "Accidents", "Exports", "Orders", "Complaints", "Patents", "Rent",
        "Recycling", "Fuel cost", "Visitors", "Wages", "Deliveries", "Dividend",
    ),
    held_out=("Emissions", "Training hours", "Insurance", "Returns", "Donations"),
)  # fmt: skip
ITEMS = WordList(
    shared=(
        "Pumps", "Valves", "Bearings", "Helmets", "Ladders", "Filters", "Cables", "Pallets", "Gloves", "Sensors", "Gears",
        "Hoses", "Lamps", "Mixers",
    ),
    held_out=("Drills", "Boilers", "Magnets", "Batteries"),
)  # fmt: skip
REGIONS = WordList(
    shared=("Lisbon", "Oslo", "Turin", "Ghent", "Porto", "Malmo", "Graz", "Lyon", "Cork", "Bergen"),
    held_out=("Tallinn", "Zagreb", "Seville"),
)
YEARS = tuple(range(2008, 2026))
QUARTERS = ("Q1", "Q2", "Q3", "Q4")
FILLER_WORDS = (
    "the of and to in for on with from by during after before while under over across board review plan unit site team group "
    "market quarter target result change method survey sample record notice policy budget office supply demand season "
    "figure section annex note table index measure process quality risk cost value growth standard average total minor major"
).split()
INVENTED_PARTS = (
    "ba be bo bra bri cal cor dan del dor el fa fen gal gor hel il jor ka kel lan lor ma mer mon na nel nor ol or pa per ra ren "
    "rin ro sa sel sor ta tel tor ul va ven vor wal wen zan"
).split()

# {organisation} {subject} {year} {region}: the answer itself (a number, a direction) is on the
# page, never in the query.
METRIC_QUERIES = WordList(
    shared=(
        "What was the {subject} of {organisation} in {year}?",
        "{organisation} {subject} {year}",
        "How high was {subject} at {organisation} in {year}?",
        "Find the {year} {subject} of {organisation}",
        "What did {organisation} {region} report as {subject} for {year}?",
    ),
    held_out=(
        "Which page gives {organisation}'s {subject} during {year}?",
        "I need the {subject} number that {organisation} published for {year}",
        "How much {subject} did {organisation} record in {region} in {year}?",
    ),
)
CHART_QUERIES = WordList(  # only for pages with a chart
    shared=(
        "Did {subject} at {organisation} rise or fall in {year}?",
        "Show the {subject} chart of {organisation} for {year}",
        "{subject} by quarter, {organisation}, {year}",
    ),
    held_out=(),  # the course asks for a chart by its shape: SHAPE_QUERIES
)
ITEM_QUERIES = WordList(
    shared=(
        "How many {subject} did {organisation} order in {year}?",
        "{organisation} {subject} {year} price",
        "Price of {subject} at {organisation} in {year}",
        "{subject} sold by {organisation} in {region}, {year}",
    ),
    held_out=(
        "What did {organisation} pay for {subject} in {year}?",
        "In {year}, what quantity of {subject} was on the {organisation} list?",
        "Where can I read about {subject} from {organisation}, {year} edition?",
    ),
)
GERMAN_QUERY = "Wie hoch war {subject} bei {organisation} im Jahr {year}?"

# {subject: (what else a query may call it, another word, the German word)}. Pre-training uses the
# last two of some subjects only; a held-out subject has held-out synonyms.
OTHER_WORDS = {
    "Revenue": ("turnover", "sales income", "Umsatz"),
    "Net profit": ("bottom line", "earnings", "Gewinn"),
    "Water use": ("litres consumed", "tap consumption", "Wasserverbrauch"),
    "Staff": ("headcount", "employees", "Belegschaft"),
    "Accidents": ("injuries", "mishaps", "Unfallzahlen"),
    "Exports": ("sales abroad", "foreign trade", "Ausfuhren"),
    "Orders": ("bookings", "purchase requests", "Auftragseingang"),
    "Complaints": ("grievances", "customer objections", "Beschwerden"),
    "Patents": ("inventions", "intellectual property", "Schutzrechte"),
    "Rent": ("lease cost", "tenancy charge", "Miete"),
    "Recycling": ("reuse of waste", "material recovery", "Wiederverwertung"),
    "Fuel cost": ("spending on petrol", "diesel bill", "Treibstoffkosten"),
    "Visitors": ("guests", "footfall", "Besucherzahl"),
    "Wages": ("pay", "salaries", "Lohnsumme"),
    "Deliveries": ("shipments", "consignments", "Lieferungen"),
    "Dividend": ("shareholder payout", "profit distribution", "Gewinnbeteiligung"),
    "Emissions": ("carbon output", "greenhouse gases", "Treibhausgase"),
    "Training hours": ("time in courses", "lessons", "Schulungsdauer"),
    "Insurance": ("cover against loss", "premiums", "Versicherungskosten"),
    "Returns": ("goods sent back", "refunds", "Retouren"),
    "Donations": ("charitable gifts", "giving", "Spenden"),
    "Pumps": ("fluid movers", "compressors", "Pumpen"),
    "Valves": ("taps", "shut-offs", "Ventile"),
    "Bearings": ("rolling supports", "bushings", "Lager"),
    "Helmets": ("hard hats", "head protection", "Schutzhelme"),
    "Ladders": ("steps", "climbing aids", "Leitern"),
    "Filters": ("strainers", "sieves", "Siebe"),
    "Cables": ("wires", "leads", "Kabel"),
    "Pallets": ("skids", "load carriers", "Paletten"),
    "Gloves": ("mitts", "hand protection", "Handschuhe"),
    "Sensors": ("probes", "detectors", "Messgeber"),
    "Gears": ("cogs", "sprockets", "Getriebe"),
    "Hoses": ("flexible pipes", "tubing", "Schlauchware"),
    "Lamps": ("lights", "luminaires", "Leuchten"),
    "Mixers": ("stirrers", "blenders", "Mischwerke"),
    "Drills": ("boring tools", "augers", "Bohrer"),
    "Boilers": ("water heaters", "steam generators", "Kessel"),
    "Magnets": ("lodestones", "ferrites", "Magnete"),
    "Batteries": ("accumulators", "power cells", "Akkus"),
}
# What a chart shows, and how a query asks for it without naming the year.
SHAPES = ("rise", "fall", "peak", "dip", "flat")
SHAPE_QUERIES = {
    "rise": WordList(
        shared=(
            "year in which {subject} at {organisation} rose",
            "When did {subject} of {organisation} grow from quarter to quarter?",
        ),
        held_out=("Which page shows {subject} at {organisation} climbing?",),
    ),
    "fall": WordList(
        shared=(
            "year in which {subject} at {organisation} fell",
            "When did {subject} of {organisation} shrink from quarter to quarter?",
        ),
        held_out=("Which page shows {subject} at {organisation} declining?",),
    ),
    "peak": WordList(
        shared=(
            "year in which {subject} at {organisation} was highest in the middle",
            "When did {subject} of {organisation} go up and come down again?",
        ),
        held_out=("Which page shows a summer peak of {subject} at {organisation}?",),
    ),
    "dip": WordList(
        shared=(
            "year in which {subject} at {organisation} was lowest in the middle",
            "When did {subject} of {organisation} go down and recover?",
        ),
        held_out=("Which page shows a summer low of {subject} at {organisation}?",),
    ),
    "flat": WordList(
        shared=(
            "year in which {subject} at {organisation} hardly changed",
            "When did {subject} of {organisation} stay level in all quarters?",
        ),
        held_out=("Which page shows stable {subject} at {organisation}?",),
    ),
}
GERMAN_QUERIES = WordList(
    shared=(
        "Wie hoch war {subject} bei {organisation} im Jahr {year}?",
        "{organisation} {subject} {year}",
    ),
    held_out=("Welche Seite nennt {subject} von {organisation} für {year}?",),
)


def invented_word(rng: random.Random) -> str:
    """A pronounceable word of two or three parts, such as ``"Kelmondor"``; pre-training uses it as
    a name or a subject.
    """
    return "".join(rng.choice(INVENTED_PARTS) for _ in range(rng.choice((2, 2, 3)))).capitalize()
