"""The pages for people, `/` and `/docs`, in a real browser: Debian's headless Chromium."""

import base64
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from api.answers import summary
from nrms import storage
from nrms.data.quality import OUTCOMES
from tests.context_world import make_context_world
from tests.service import RunningService, parquet
from tests.small_training import METRICS

pytestmark = pytest.mark.system

INSTALL = "apt-get install chromium chromium-driver"
ROWS = 30
NO_IDS = pa.array([[]], pa.list_(pa.int64()))
DROP = """
const [target, files] = arguments, transfer = new DataTransfer();
for (const [name, data] of files) {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt());
  transfer.items.add(new File([bytes], name));
}
for (const type of ["dragenter", "dragover", "drop"]) {
  const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
  target.dispatchEvent(new DragEvent(type, options));
}
"""


class Browser:
    """A Chromium that looks at one service after the other."""

    def __init__(self, downloads: Path) -> None:
        binaries = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
        missing = " and ".join(name for name, path in binaries.items() if path is None)
        if missing and os.environ.get("CI"):
            pytest.fail(f"{missing} missing: {INSTALL}")
        if missing:
            pytest.skip(f"{missing} missing: {INSTALL}")
        options = webdriver.ChromeOptions()
        options.binary_location = binaries["chromium"]
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, Service(binaries["chromedriver"]))
        self.downloads = downloads
        behavior = {"behavior": "allow", "downloadPath": str(downloads)}
        self.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)

    def size(self, width: int, height: int) -> None:
        """Windows have a least width, so this is emulated."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def network(self, offline: bool = False, upload: int = -1) -> None:
        """Cuts or slows the network: bytes a second."""
        conditions = {
            "offline": offline,
            "latency": 0,
            "downloadThroughput": -1,
            "uploadThroughput": upload,
        }
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)

    def wait(self, condition: Callable[[webdriver.Chrome], object], message: str = "") -> Any:
        """Looks again and again, until there is something."""
        return WebDriverWait(self.driver, 60, 0.05).until(condition, message)

    def open(self, url: str) -> None:
        self.driver.get(url)

    def find(self, selector: str) -> WebElement:
        """The first visible element; waits for it."""

        def visible(driver: webdriver.Chrome) -> WebElement | None:
            found = driver.find_elements(By.CSS_SELECTOR, selector)
            return next((element for element in found if element.is_displayed()), None)

        return self.wait(visible, f"no {selector}")

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def wait_for_text(self, selector: str, part: str) -> None:
        self.wait(lambda _: part in self.text(selector), f"no '{part}' in {selector}")

    def script(self, code: str, *arguments: object) -> object:
        return self.driver.execute_script(code, *arguments)

    def score(self, **paths: Path) -> None:
        """Chooses files and presses the button."""
        for name, path in paths.items():
            self.script("arguments[0].value = ''", self.all(f"#{name}")[0])
            self.all(f"#{name}")[0].send_keys(str(path))
        self.find("#submit").click()

    def complaints(self) -> list[str]:
        """What the browser complained of since the last call, but for answers of 4xx."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING") and entry["source"] != "network"
        ]

    def requests(self) -> list[str]:
        """The addresses of everything that the page loaded."""
        return self.script(
            "return performance.getEntriesByType('resource').map((entry) => entry.name)"
        )


@pytest.fixture(scope="module")
def chromium(tmp_path_factory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("downloads"))
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(chromium) -> Iterator[Browser]:
    """Every test also holds that nothing was blocked, failed in a script, or came
    from elsewhere.
    """
    chromium.size(1200, 900)
    chromium.complaints()
    yield chromium
    chromium.network()
    origin = chromium.script("return location.origin")
    assert [url for url in chromium.requests() if not url.startswith(f"{origin}/")] == []
    assert chromium.complaints() == []


@pytest.fixture(scope="module")
def files(world, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("uploads")
    paths = {"file": folder / "behaviors.parquet", "history": folder / "history.parquet"}
    paths["file"].write_bytes(parquet(world.behaviors(ROWS)))
    paths["history"].write_bytes(parquet(world.history()))
    return paths


@pytest.fixture(scope="module")
def answer(service, files) -> dict:
    """What the API says of the same files."""
    return service.predict(
        *(path.read_bytes() for path in files.values()), titles=True, max_rows=20
    ).json()


@pytest.fixture
def scored(browser, service, files) -> Browser:
    """The page with the result of `files`."""
    browser.open(service.url)
    browser.score(**files)
    browser.find("#result")
    return browser


@pytest.fixture
def small(tmp_path):
    """Writes a table as a file to upload."""

    def write(name: str, table: pa.Table | dict) -> Path:
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(parquet(table))
        return path

    return write


def one(candidates: list[int], **columns: object) -> dict:
    """One impression of a reader of whom nothing is known."""
    table = {
        "impression_id": [1],
        "user_id": [1],
        "article_ids_inview": [candidates],
        "article_id_fixed": NO_IDS,
    }
    return {**table, **columns}


# --- a result


def test_metrics_are_those_of_the_api(scored, answer):
    shown = {
        element.get_attribute("data-metric"): element.text
        for element in scored.all("[data-metric]")
    }
    baselines = answer["metrics"]["baselines"]
    assert shown == {name: f"{answer['metrics'][name]:.4f}" for name in METRICS}
    beside = {
        element.get_attribute("data-popularity"): element.text
        for element in scored.all("[data-popularity]")
    }
    assert beside == {name: f"popularity {baselines['popularity'][name]:.4f}" for name in METRICS}
    assert shown["auc"] in scored.text("#status")


def test_counts_and_model_version_are_those_of_the_api(scored, answer):
    counts = answer["counts"]
    assert scored.text("[data-count=candidates] dd") == f"{counts['candidates']:,}"
    assert scored.text("[data-count=impressions] dd") == str(ROWS)
    assert scored.text("#scored_by") == scored.text("#version") == answer["model"]["version"]
    assert "600 articles" in scored.text("#model")


def test_histogram_has_a_step_for_each_bin_of_clicks_and_of_non_clicks(scored, answer):
    bins = len(answer["score_histogram"]["all"])
    for kind, name in (("clicked", "clicked"), ("not_clicked", "not clicked")):
        path = scored.find(f"#histogram [data-kind={kind}] .step").get_attribute("d")
        assert path.count("H") == bins
        assert f"{name} ({sum(answer['score_histogram'][kind]):,})" in scored.text(
            "#histogram .legend"
        )
    labels = scored.texts("#histogram .chart text")
    assert {"score", "share of its kind, %"} <= set(labels)
    assert "mean about" in scored.find("#histogram .chart svg").get_attribute("aria-label")


def test_impressions_show_titles_best_first_and_mark_clicks(scored, answer):
    assert len(scored.all("[data-impression]")) == 20
    # A list of five is shown whole, without a button.
    for row in [row for row in answer["rows"][:20] if len(row["ranks"]) > 5][:3]:
        body = f"[data-impression='{row['impression_id']}']"
        clicked = [article in row["article_ids_clicked"] for article in row["article_ids_inview"]]
        lines = sorted(zip(row["ranks"], row["titles"], clicked, strict=True))
        lines = [(str(rank), title, "✓ clicked" if click else "") for rank, title, click in lines]
        assert candidates(scored, body) == [
            line for place, line in enumerate(lines) if place < 5 or line[2]
        ]
        scored.find(f"{body} button").send_keys(Keys.ENTER)
        assert candidates(scored, body) == lines


def candidates(browser: Browser, body: str) -> list[tuple[str, ...]]:
    """Rank, title and mark of the candidates shown of an impression."""
    parts = (".number:first-child", ".title", ".mark")
    return list(zip(*(browser.texts(f"{body} .candidate {part}") for part in parts), strict=True))


def test_download_is_the_parquet_answer(scored, service, files):
    scored.find("#download").click()
    scored.wait_for_text("#status", "Saved")
    path = scored.downloads / "predictions.parquet"
    scored.wait(lambda _: path.exists())
    whole = service.predict(
        *(path.read_bytes() for path in files.values()), format="parquet"
    ).content
    assert pq.read_table(path).equals(pq.read_table(io.BytesIO(whole)))


def test_result_fits_a_phone(scored):
    scored.size(400, 800)
    scored.wait(
        lambda _: scored.script(
            "const svg = document.querySelector('#histogram .chart svg');"
            "return svg.viewBox.baseVal.width === svg.parentNode.clientWidth"
        )
    )
    page = "document.documentElement"
    assert scored.script(f"return {page}.scrollWidth - {page}.clientWidth") == 0


def plain(message: str) -> str:
    """As the page shows it: names stand in another type, and not between backticks."""
    return message.replace("`", "")


def test_scores_outside_of_the_histogram_are_said(scored):
    histogram = {"edges": [0, 1, 2], "all": [500, 400], "outside": [1, 1200]}
    text = scored.script(
        "return distribution(arguments[0]).querySelector('#outside').textContent", histogram
    )
    assert "1,201 scores lie outside: 1 below, 1,200 above" in text
    del histogram["outside"]
    assert (
        scored.script("return distribution(arguments[0]).querySelector('#outside')", histogram)
        is None
    )


def test_warnings_stand_above_the_result(browser, service, world, files, small):
    browser.open(service.url)
    history = world.history()
    strangers = pa.array([user + 10**6 for user in history["user_id"].to_pylist()])
    browser.score(
        file=files["file"], history=small("strangers", history.set_column(0, "user_id", strangers))
    )
    browser.find("#warnings")
    (line,) = browser.texts("#warnings li")
    assert "history row" in line
    assert "`" not in line
    assert (
        browser.find("#result").find_element(By.CSS_SELECTOR, ":scope > *").get_attribute("id")
        == "warnings"
    )
    browser.score(**files)
    browser.wait(lambda _: not browser.all("#warnings"))


def test_without_any_file_an_example_can_be_tried(browser, service):
    browser.open(service.url)
    browser.find("#example").click()
    browser.find("#result")
    example = service.client.get("/example").json()
    assert browser.texts(".impression strong") == ["Impression 1", "Impression 2", "Impression 3"]
    titles = {article["article_id"]: article["title"] for article in example["articles"]}
    for row, read in zip(example["impressions"], browser.texts(".impression .read"), strict=True):
        assert read == "has read: " + " · ".join(
            titles[article] for article in row["article_id_fixed"]
        )
    browser.find("#download").click()
    browser.wait_for_text("#status", "Saved")


# --- files


def test_dropped_file_is_scored(browser, service, files, answer):
    browser.open(service.url)
    for name, path in files.items():
        data = base64.b64encode(path.read_bytes()).decode()
        browser.script(DROP, browser.find(f"#slot_{name}"), [[path.name, data]])
        assert path.name in browser.text(f"#slot_{name}")
    browser.find("#submit").click()
    assert browser.text("[data-metric=auc]") == f"{answer['metrics']['auc']:.4f}"


def test_several_files_dropped_at_once_go_where_their_names_say(browser, service):
    browser.open(service.url)
    dropped = [
        [name, "UEFSMQ=="]
        for name in ("History.parquet", "my_articles.parquet", "behaviors.parquet")
    ]
    browser.script(DROP, browser.find("#slot_file"), dropped)
    for slot, (name, _) in zip(("history", "articles", "file"), dropped, strict=True):
        assert name in browser.text(f"#slot_{slot}")


def test_files_in_any_order_are_known_by_their_columns_and_the_page_says_for_what_each_was_taken(
    browser, service, files, answer
):
    browser.open(service.url)
    data = [
        [name, base64.b64encode(files[kind].read_bytes()).decode()]
        for name, kind in (("a", "history"), ("b", "file"))
    ]
    browser.script(DROP, browser.find("#slot_articles"), data)
    browser.find("#submit").click()
    assert browser.text("#taken") == (
        "By their columns: a was taken for the histories, b was taken for the impressions."
    )
    assert browser.text("[data-metric=auc]") == f"{answer['metrics']['auc']:.4f}"
    assert "b (" in browser.text("#slot_file")
    assert "a (" in browser.text("#slot_history")
    browser.find("#submit").click()
    browser.wait(lambda _: not browser.all("#taken"))


def test_a_history_alone_is_called_one(browser, service, files):
    browser.open(service.url)
    browser.score(file=files["history"])
    assert "a history file" in browser.text("#error_received")
    assert "file (history.parquet)" in browser.text("#error_where")


def test_dropped_text_is_called_text(browser, service):
    browser.open(service.url)
    line = base64.b64encode(b"1\tU1\t11/11/2019 9:05:58 AM\tN1 N2\tN3-1 N4-0\n").decode()
    browser.script(DROP, browser.find("#slot_file"), [["behaviors.tsv", line]])
    browser.find("#submit").click()
    assert "look like TSV" in browser.text("#error_received")
    todo = ["python -m jobs.prepare --source mind", "--source log"]
    assert browser.texts("#error_todo code") == todo


def test_file_that_misses_the_boxes_leaves_the_page_as_it_is(browser, service):
    browser.open(service.url)
    ignored = (
        "return !document.body.dispatchEvent("
        "new DragEvent('drop', { bubbles: true, cancelable: true }))"
    )
    assert browser.script(ignored)


def test_removed_file_is_not_sent(browser, service, files):
    browser.open(service.url)
    browser.all("#history")[0].send_keys(str(files["history"]))
    browser.find("#slot_history .remove").click()
    browser.score(file=files["file"])
    alone = service.predict(files["file"].read_bytes())
    assert browser.text("#error_rule") == plain(alone.json()["error"]["rule"])


def test_without_a_file_the_page_says_what_is_missing(browser, service):
    browser.open(service.url)
    browser.find("#submit").click()
    browser.wait_for_text("#status", "Choose a Parquet file")


def test_unlabelled_upload_says_so_and_has_no_auc(browser, service, world, files, small):
    browser.open(service.url)
    unlabelled = small("unlabelled", world.behaviors(ROWS).drop_columns("article_ids_clicked"))
    browser.score(file=unlabelled, history=files["history"])
    assert "Unlabelled" in browser.text("#unlabelled")
    assert browser.all("[data-metric]") == browser.all(".badge") == []
    assert browser.find("#histogram [data-kind=all]")


def test_labelled_upload_without_anything_to_measure_says_so(browser, service, small):
    browser.open(service.url)
    browser.score(file=small("no_click", one([7, 8], article_ids_clicked=NO_IDS)))
    assert "Nothing to measure" in browser.text("#unlabelled")


def test_hostile_titles_are_text(browser, service, small):
    titles = [
        "<img src=x onerror='window.hacked = 1'>",
        "</td><script>window.hacked = 1</script>",
        "",
    ]
    ids = [10**9, 10**9 + 1, 10**9 + 2]
    browser.open(service.url)
    browser.score(
        file=small("file", one([*ids, 5], user_id=["<b>u</b>"])),
        articles=small("articles", {"article_id": ids, "title": titles}),
    )
    browser.find("#result")
    wanted = {*titles[:2], f"Article {ids[2]}, without a title", "Unknown article 5"}
    assert set(browser.texts(".candidate .title")) == wanted
    assert "<b>u</b>" in browser.text(".impression")
    assert browser.script("return window.hacked") is None


def test_long_integer_ids_are_exact(browser, service, small):
    browser.open(service.url)
    ids = [2**53, 2**53 + 1]
    browser.score(
        file=small("file", one(ids, impression_id=[2**62 + 1], article_ids_clicked=[[2**53 + 1]]))
    )
    browser.find("#result")
    assert f"Impression {2**62 + 1}" in browser.text(".impression")
    assert browser.texts(".candidate.clicked .title") == [f"Unknown article {2**53 + 1}"]


def test_everything_that_may_be_counted_has_words(browser, service):
    browser.open(service.url)
    assert set(browser.script("return Object.keys(WORDS)")) == set(OUTCOMES) - summary._PLAIN


# --- errors


def test_error_is_shown_with_all_its_parts(browser, service, files, small):
    browser.open(service.url)
    wrong = small("wrong", {"impression_id": [1], "article_ids_inview": [[1]]})
    browser.score(file=wrong)
    error = service.predict(wrong.read_bytes()).json()["error"]
    shown = {part: browser.text(f"#error_{part}") for part in error}
    assert shown == {part: plain(text) for part, text in error.items()} | {
        "where": "file (wrong.parquet)"
    }
    assert browser.texts("#error_rule code") == ["user_id"]
    assert browser.find("#error").get_attribute("role") == "alert"
    browser.score(**files)
    browser.find("#result")
    assert not browser.all("#error")[0].is_displayed()


def test_upload_above_the_limit_is_not_sent(browser, service, files):
    browser.open(service.url)
    browser.find("#version")
    browser.script("info.limits.max_body_bytes = 10")
    browser.score(**files)
    assert browser.text("#error_rule") == "An upload may have 10 bytes in all."
    assert not any("/predict" in url for url in browser.requests())


def test_broken_connection_is_said(browser, service, files):
    browser.open(service.url)
    browser.find("#version")
    browser.network(offline=True)
    browser.score(**files)
    assert browser.text("#error_where") == "the connection"
    assert browser.find("#submit").is_enabled()


def test_upload_can_be_cancelled(browser, service, files):
    browser.open(service.url)
    browser.find("#version")
    browser.network(upload=100)
    browser.score(**files)
    browser.wait_for_text("#status", "Uploading")
    assert not browser.find("#submit").is_enabled()
    browser.find("#cancel").click()
    browser.wait_for_text("#status", "Cancelled")
    assert browser.find("#submit").is_enabled()
    assert not browser.all("#cancel")[0].is_displayed()


def test_no_key_is_asked_for_where_there_is_none(browser, service):
    browser.open(service.url)
    browser.find("#version")
    assert not browser.all("#key")[0].is_displayed()


@pytest.mark.parametrize("public", ["false", "true"])
def test_page_asks_for_the_key_and_works_with_it(browser, world, files, answer, tmp_path, public):
    environment = {"API_KEY": "open sesame", "PUBLIC_METRICS": public}
    with RunningService(tmp_path / "log", MODEL_URI=world.models, **environment) as service:
        browser.open(service.url)
        browser.find("#key")
        assert (
            (public == "true")
            == bool(browser.all("#version"))
            == browser.all("#help")[0].is_displayed()
        )
        browser.score(**files)
        assert "X-API-Key" in browser.text("#error_rule")
        key = browser.driver.switch_to.active_element
        assert key.accessible_name == "API key"
        key.send_keys("open sesame", Keys.ENTER)
        assert browser.text("[data-metric=auc]") == f"{answer['metrics']['auc']:.4f}"
        assert browser.text("#version")
        assert (
            browser.script(
                "return localStorage.length + sessionStorage.length + document.cookie.length"
            )
            == 0
        )


# --- the model


def test_page_says_whether_a_model_is_there_and_whether_a_newer_one_is_not(
    browser, world, tmp_path
):
    models = tmp_path / "models"
    models.mkdir()
    with RunningService(tmp_path / "log", ready=False, MODEL_URI=models) as service:
        browser.open(service.url)
        browser.wait_for_text("#model", "not ready")
        version = Path(world.publish(str(models))).name
        assert browser.text("#version") == version
        assert not browser.all("#warning")[0].is_displayed()
        storage.write_bytes(
            json.dumps({"version": "20990101T000000Z-00000000"}).encode(), models / "latest.json"
        )
        browser.wait(lambda _: service.client.get("/info").json()["reload_error"])
        browser.open(service.url)
        assert service.client.get("/info").json()["reload_error"] in browser.text("#warning")
        assert browser.text("#version") == version


# --- anybody


def test_everything_to_be_used_has_a_name_and_is_reached_by_keyboard(browser, service):
    browser.open(service.url)
    browser.find("#version")
    reached = []
    for _ in range(6):
        webdriver.ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        reached.append(browser.driver.switch_to.active_element)
    assert [element.get_attribute("id") for element in reached[:5]] == [
        "file",
        "history",
        "articles",
        "submit",
        "example",
    ]
    assert all(element.accessible_name for element in reached)


# --- /docs


def test_a_click_tells_why_a_candidate_has_its_score(browser, shared, tmp_path):
    world = shared.folder("context-world", make_context_world)
    (file,) = (world / "data" / "validation").glob("behaviors*.parquet")
    history = world / "data" / "validation" / "history.parquet"
    with RunningService(tmp_path / "log", MODEL_URI=world / "models") as service:
        browser.open(service.url)
        browser.score(file=file, history=history)
        browser.find("#result")
        line = browser.all("#impressions tbody")[3].find_elements(By.CSS_SELECTOR, ".candidate")[1]
        button = line.find_element(By.CSS_SELECTOR, "button")
        button.click()
        browser.find(".reasons")
        shown = browser.texts(".reasons li")
        parts = [path.read_bytes() for path in (file, history)]
        row = service.predict(*parts).json()["rows"][3]
        place = row["ranks"].index(2)
        asked = {"explain_row": 3, "explain_candidate": place, "max_rows": 0}
        why = service.predict(*parts, **asked).json()["why"]
        assert why["row"] == 3
        assert len(shown) == 3
        for one, text in zip(why["reasons"], shown, strict=True):
            assert one["words"] in text
            assert text[0] == ("+" if one["change"] > 0 else "\N{MINUS SIGN}")
            assert float(text[1:].split()[0]) == pytest.approx(abs(one["change"]), abs=1e-3)
        button.click()
        assert browser.all(".reasons") == []
        for wrong in ({"explain_row": 3}, asked | {"explain_candidate": 300}):
            refused = service.predict(*parts, **wrong)
            assert refused.status_code == 422
            assert "explain_candidate" in refused.json()["error"]["rule"]


@pytest.mark.parametrize("empty", [True, False], ids=["empty value sent", "empty value not sent"])
def test_docs_page_scores_an_upload_without_articles(browser, service, files, answer, empty):
    browser.open(f"{service.url}/docs")
    operation = "#operations-predict-predict_predict_post"
    browser.find(operation).click()
    browser.find(f"{operation} .try-out__btn").click()
    for name, path in files.items():
        browser.find(f"{operation} [data-property-name={name}] input[type=file]").send_keys(
            str(path)
        )
    for box in browser.all(f"{operation} input[type=checkbox]"):
        if box.is_selected() != empty:
            box.click()
    browser.find(f"{operation} button.execute").click()
    assert browser.text(f"{operation} .live-responses-table tbody .response-col_status").startswith(
        "200"
    )
    assert f'"auc": {answer["metrics"]["auc"]}' in browser.text(
        f"{operation} .live-responses-table tbody .response-col_description"
    )
