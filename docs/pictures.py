"""Renews docs/images: `make demo`, `make api`, and `python docs/pictures.py REPORT` beside it.

REPORT is the report.html of a night of the demo, as `jobs.score` writes it. Needs Chromium and its
driver, as the tests of the pages do.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

IMAGES = Path(__file__).parent / "images"
SERVICE = "http://127.0.0.1:8000"
DATA = Path("runs/demo/data/validation")
UPLOAD = {"file": "behaviors-00000.parquet", "history": "history.parquet"}
COLOURS = 128  # a page has few, and the files stay below 100 kB


def main(report: Path) -> None:
    """Writes page.png and report.png."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(argument)
    with webdriver.Chrome(options, Service(shutil.which("chromedriver"))) as driver:
        driver.get(report.resolve().as_uri())
        save(driver, "report.png")
        driver.get(SERVICE)
        for name, file in UPLOAD.items():
            driver.find_element(By.ID, name).send_keys(str((DATA / file).resolve()))
        driver.find_element(By.ID, "submit").click()
        WebDriverWait(driver, 60).until(lambda d: d.find_elements(By.CSS_SELECTOR, "#result svg"))
        save(driver, "page.png")


def save(driver: webdriver.Chrome, name: str) -> None:
    """The top of the page, in few colours."""
    size = {"width": 1200, "height": 1500, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    colours = Image.Quantize.MAXCOVERAGE  # keeps those of small spots
    picture.quantize(COLOURS, colours).save(IMAGES / name, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
