"""A real browser for the tests: the system's Chromium, headless, driven by Selenium; a test that
asks for it is skipped without one.
"""

import shutil
from contextlib import contextmanager

import pytest
from selenium import webdriver


@contextmanager
def headless_browser():
    """A ``selenium.webdriver.Chrome``; skips the test, with what to install, where Chromium or its
    driver is not on the path.
    """
    chromium = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Chromium: apt-get install chromium chromium-driver, then run again")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--force-device-scale-factor=1",
    ):
        options.add_argument(argument)
    browser = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=driver)
    )
    try:
        yield browser
    finally:
        browser.quit()
