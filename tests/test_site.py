"""The site: built from the files as they stand, every link leads somewhere, every figure is
described, and a browser finds it usable.
"""

import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from axe_core_python.selenium import Axe
from browser import headless_browser
from bs4 import BeautifulSoup

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
PHONE, DESK = (390, 844), (1280, 900)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site; a warning of the build is a failure."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-d",
        str(folder / "doctrees"),
        "-c",
        "site",
        ".",
        str(folder / "html"),
    ]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site):
    """``{path in the site: its soup}`` of every page."""
    return {
        str(file.relative_to(site)): BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")
        for file in site.rglob("*.html")
    }


def test_every_notebook_and_document_is_a_page(pages):
    sources = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("docs/*.md"), ROOT / "README.md"]
    assert (
        sources
        and {str(source.relative_to(ROOT).with_suffix(".html")) for source in sources}
        | {"index.html"}
        <= pages.keys()
    )


def test_every_local_link_leads_somewhere(site, pages):
    @cache
    def names_in(file: Path) -> set[str]:
        return {tag["id"] for tag in pages[str(file.relative_to(site))].select("[id]")}

    dead = []
    for name, soup in pages.items():
        for target in (
            tag.get("href") or tag.get("src")
            for tag in soup.select("a[href], img[src], link[href], script[src]")
        ):
            if re.match(r"[a-z]+:|//", target):
                continue
            path, _, anchor = target.partition("#")
            file = (
                ((site / name).parent / unquote(path.partition("?")[0])).resolve()
                if path
                else site / name
            )
            if not file.exists() or (
                anchor and file.suffix == ".html" and unquote(anchor) not in names_in(file)
            ):
                dead.append(f"{name}: {target}")
    assert not dead


def test_every_figure_says_what_it_shows(pages):
    images = [
        (name, image)
        for name, soup in pages.items()
        for image in soup.select("article img, main img")
    ]
    assert len(images) >= 30
    assert not [
        f"{name}: {image['src']}" for name, image in images if len(image.get("alt", "")) < 20
    ]


def test_headings_step_down_one_level_at_a_time(pages):
    jumps = []
    for name, soup in pages.items():
        levels = [
            int(tag.name[1])
            for tag in soup.select("article h1, article h2, article h3, article h4, article h5")
        ]
        jumps += [name] if any(below - above > 1 for above, below in pairwise(levels)) else []
    assert not jumps


# In a browser


@pytest.fixture(scope="module")
def served(site):
    """The site's address on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with headless_browser() as driver:
        yield driver


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize(
    "page",
    [
        "index.html",
        "notebooks/00_start_here.html",
        "notebooks/05_truncate.html",
        "docs/teaching.html",
    ],
)
def test_a_page_is_accessible_and_fits(browser, served, page, size):
    browser.set_window_size(*size)
    browser.get(f"{served}/{page}")
    if size == PHONE:
        wide = browser.execute_script(
            "return document.documentElement.scrollWidth - window.innerWidth"
        )
        assert wide <= 0, f"{wide} pixels stand out at the right"
    found = Axe().run(browser)["violations"]
    serious = [
        f"{violation['id']}: {violation['help']}, e.g. {violation['nodes'][0]['html'][:120]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]
    assert not serious, "\n".join(serious)


def test_the_search_finds_a_word(browser, served):
    browser.set_window_size(*DESK)
    browser.get(f"{served}/search.html?q=Matryoshka")
    from selenium.webdriver.support.ui import WebDriverWait

    # the results come one by one
    links = "#search-results li a[href*='05_truncate']"
    WebDriverWait(browser, 20).until(lambda driver: driver.find_elements("css selector", links))


def test_a_dead_link_would_be_seen(site, pages):
    """The check of links looks at what is there: a page that is taken away is missed."""
    copy = site.parent / "copy"
    shutil.copytree(site, copy)
    (copy / "docs" / "glossary.html").unlink()
    with pytest.raises(AssertionError, match="glossary"):
        test_every_local_link_leads_somewhere(copy, pages)


def test_nothing_is_loaded_from_elsewhere(pages):
    """The site works in a room without network: pictures, styles and scripts are its own."""
    foreign = [
        f"{name}: {tag.get('src') or tag.get('href')}"
        for name, soup in pages.items()
        for tag in soup.select("img[src], script[src], link[rel=stylesheet][href]")
        if re.match(r"https?:|//", tag.get("src") or tag.get("href"))
    ]
    assert not foreign, json.dumps(foreign, indent=1)
