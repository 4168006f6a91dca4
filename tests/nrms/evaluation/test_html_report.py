import base64
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from nrms.evaluation.html_report import BEST, RECENT, Example, write_report
from nrms.evaluation.ranking import METRICS

VOID = {"meta", "link", "img"}
HOSTILE = (
    '</td></title></style><script>alert("1")</script>'
    "<img src='https://x.example/a.png' onerror=a() /> & $title"
)


class Page(HTMLParser):
    """The elements of a page as `(tag, attributes, text inside)`; fails when a tag is not closed in
    its order.
    """

    def __init__(self, source):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(source)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        element = [tag, dict(attributes), ""]
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for element in self._open:
            element[2] += data

    def texts(self, tag):
        return [text for name, _, text in self.elements if name == tag]

    def attributes(self, tag):
        return [attributes for name, attributes, _ in self.elements if name == tag]

    def section(self, heading):
        """The page's part under a heading."""
        (text,) = [text for text in self.texts("section") if text.startswith(heading)]
        return text


def means(base):
    return dict(zip(METRICS, (base, base + 0.01, base + 0.02, base + 0.03), strict=True))


METRICS_FOUND = {
    **means(0.7),
    "impressions": 12345,
    "candidates": 99,
    "unlabelled": 0,
    "skipped_one_class": 7,
    "cached_articles": 3,
    "baselines": {"random": means(0.5), "popularity": means(0.55)},
    "by_hour": {
        "3": means(0.61) | {"impressions": 4000},
        "23": means(0.62) | {"impressions": 8338},
    },
    "by_history_length": {"1-5": means(0.63) | {"impressions": 12338}},
    "by_device": {
        "2": means(0.64) | {"impressions": 12000},
        "9": means(0.65) | {"impressions": 338},
    },
}


def figure():
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    return figure


def example(**changes):
    fields = {
        "impression_id": 5,
        "user_id": "U7",
        "time": np.datetime64("2024-01-31T08:15:59", "us"),
        "history": ["old", "new"],
        "candidates": [("first", 1.25, False), ("second", 0.5, True), ("third", -2.0, False)],
    }
    return Example(**fields | changes)


@pytest.fixture
def page(tmp_path):
    """Writes a report and reads it back."""

    def page(title="Scores", metrics=METRICS_FOUND, figures=None, examples=(), facts=None):
        write_report(tmp_path / "report.html", title, metrics, figures or {}, examples, facts or {})
        return Page((tmp_path / "report.html").read_text("utf-8"))

    return page


def test_headline_shows_each_metric_beside_the_baselines(page):
    tiles = page().texts("div")[:4]
    assert tiles == [
        "AUC0.7000this model0.7000random0.5000popularity0.5500",
        "MRR0.7100this model0.7100random0.5100popularity0.5600",
        "nDCG@50.7200this model0.7200random0.5200popularity0.5700",
        "nDCG@100.7300this model0.7300random0.5300popularity0.5800",
    ]


def test_a_baseline_that_measured_nothing_is_left_out(page):
    found = METRICS_FOUND | {
        "baselines": {"popularity": {"impressions": 1, "skipped_one_class": 1}}
    }
    assert page(metrics=found).texts("div")[0] == "AUC0.7000this model0.7000"


def test_the_interval_of_each_ranking_is_shown_where_it_is_known(page):
    baselines = {"random": means(0.5) | {"auc_interval": [0.49, 0.51]}, "popularity": means(0.55)}
    found = page(metrics=METRICS_FOUND | {"auc_interval": [0.69, 0.71], "baselines": baselines})
    assert (
        found.section("AUC, 95%")
        == "AUC, 95% intervalthis model0.6900 to 0.7100random0.4900 to 0.5100"
    )
    assert not [heading for heading in page().texts("h2") if "interval" in heading]


def test_what_accuracy_does_not_say_stands_beside_the_baselines(page):
    baselines = {"random": {"novelty@5": 9.5, "gini@10": 0.25}, "popularity": means(0.5)}
    found = page(metrics={"novelty@5": 8.25, "coverage@5": 0.5, "baselines": baselines})
    assert found.section("Beyond accuracy") == (
        "Beyond accuracymetricthis modelrandomnovelty, bits, top 58.25009.5000"
        "coverage, top 50.5000Gini index, top 100.2500"
    )
    assert "Beyond accuracy" not in page().texts("h2")


def test_groups_show_all_metrics_and_impressions_and_devices_by_name(page):
    found = page()
    head = "AUCMRRnDCG@5nDCG@10impressions"
    assert found.section("By hour") == (
        f"By hour (UTC)hour{head}30.61000.62000.63000.64004,000230.62000.63000.64000.65008,338"
    )
    assert (
        found.section("By history length")
        == f"By history lengthclicks{head}1-50.63000.64000.65000.660012,338"
    )
    assert found.section("By device") == (
        f"By devicedevice{head}mobile0.64000.65000.66000.670012,00090.65000.66000.67000.6800338"
    )


def test_every_count_and_fact_is_shown(page):
    found = page(facts={"model": "v1", "date": "2026-11-21"})
    assert found.section("Run") == "Runmodelv1date2026-11-21"
    counts = found.section("Counts")
    for text in ("impressions12,345", "candidates99", "all or none clicked7", "cached articles3"):
        assert text in counts


def test_warnings_stand_on_top_and_shares_among_the_counts(page):
    warnings = ["validation: 53.1% of the candidates are not in articles.parquet.", HOSTILE]
    found = page(metrics=METRICS_FOUND | {"warnings": warnings, "joins": {"unknown_words": 0.1234}})
    assert found.texts("h2")[0] == "Warnings"
    assert found.texts("li") == warnings
    assert found.texts("script") == []
    assert "12.3%" in found.texts("dd")
    assert "unknown words" in found.texts("dt")


def test_without_warnings_there_is_no_banner(page):
    for found in (page(metrics=METRICS_FOUND | {"warnings": []}), page(metrics=METRICS_FOUND)):
        assert "Warnings" not in found.texts("h2")


def test_figures_are_inlined_and_stand_with_their_tables(page):
    found = page(figures={"score_distribution": figure(), "auc_by_hour": figure()})
    images = found.attributes("img")
    assert [image["alt"] for image in images] == ["auc by hour", "score distribution"]
    for image in images:
        assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")).startswith(
            b"\x89PNG"
        )
    places = [
        attributes.get("class") or attributes.get("alt")
        for tag, attributes, _ in found.elements
        if attributes
    ]
    assert places.index("by_hour") + 1 == places.index("auc by hour")


def test_a_figure_without_its_table_is_still_shown(page):
    assert [
        image["alt"]
        for image in page(metrics={}, figures={"auc_by_hour": figure()}).attributes("img")
    ]


def test_unlabelled_impressions_are_said_to_be_and_nothing_empty_is_shown(page):
    found = page(metrics={"impressions": 3, "candidates": 9, "unlabelled": 3})
    assert "unlabelled" in found.texts("p")[0]
    assert found.texts("h2") == ["Counts"]
    assert not found.texts("table")
    assert not found.attributes("img")


@pytest.mark.parametrize("labelled", [0, 2])
def test_impressions_that_cannot_be_measured_are_not_called_unlabelled(page, labelled):
    found = page(
        metrics={
            "impressions": labelled,
            "candidates": 9,
            "unlabelled": 0,
            "skipped_one_class": labelled,
        }
    )
    assert "nothing to measure" in found.texts("p")[0]


def test_an_example_shows_history_latest_first_and_marks_the_clicked_candidate(page):
    found = page(metrics={}, examples=[example()])
    assert found.texts("h3") == [
        "Impression 5 · user U7 · 2024-01-31 08:15 UTC · click ranked 2 of 3"
    ]
    assert found.texts("li") == ["new", "old"]
    assert found.texts("tr") == ["1first1.250", "2second clicked0.500", "3third-2.000"]


def test_examples_keep_their_order(page):
    found = page(examples=[example(impression_id=id) for id in (9, 4, 6)])
    assert [heading.split(" · ")[0] for heading in found.texts("h3")] == [
        "Impression 9",
        "Impression 4",
        "Impression 6",
    ]


def test_long_examples_are_cut_but_show_every_click(page):
    candidates = [(f"title {i}", 0.0, i in (BEST + 4, BEST + 9)) for i in range(1, BEST + 21)]
    found = page(
        metrics={},
        examples=[example(history=[str(i) for i in range(RECENT + 3)], candidates=candidates)],
    )
    assert found.texts("li") == [str(i) for i in range(RECENT + 2, 2, -1)]
    assert "and 3 older" in found.texts("p")
    assert found.texts("tr")[BEST:] == [
        "⋮3 more",
        f"{BEST + 4}title {BEST + 4} clicked0.000",
        "⋮4 more",
        f"{BEST + 9}title {BEST + 9} clicked0.000",
        "⋮11 more",
    ]


@pytest.mark.parametrize("time", [None, np.datetime64("NaT")])
def test_an_example_without_time_history_clicks_or_titles_says_so(page, time):
    candidates = [(None, 1.0, None), (" ", 0.5, None)]
    found = page(
        metrics={},
        examples=[example(time=time, history=[], candidates=candidates), example(candidates=[])],
    )
    assert found.texts("h3")[0] == "Impression 5 · user U7"
    assert found.texts("tr") == ["1unknown article1.000", "2no title0.500"]
    assert not found.texts("mark")
    assert "nothing" in found.texts("p")
    assert "none" in found.texts("p")


def test_hostile_text_stays_text_wherever_it_comes_from(page):
    group = {HOSTILE: means(0.5) | {"impressions": 1}}
    found = page(
        title=HOSTILE,
        metrics=means(0.5)
        | {HOSTILE: 1, "baselines": {HOSTILE: means(0.5)}}
        | {"by_hour": group, "by_history_length": group, "by_device": group},
        figures={HOSTILE: figure()},
        examples=[
            example(
                impression_id=HOSTILE,
                user_id=HOSTILE,
                history=[HOSTILE],
                candidates=[(HOSTILE, 1.0, True)],
            )
        ],
        facts={HOSTILE: HOSTILE},
    )
    assert found.texts("script") == []
    assert len(found.attributes("img")) == 1
    assert not [
        name for _, attributes, _ in found.elements for name in attributes if name.startswith("on")
    ]
    assert found.texts("title") == found.texts("h1") == [HOSTILE]
    assert found.texts("bdi") == [HOSTILE] * 4
    assert found.texts("li") == found.texts("dd")[:1] == found.texts("dt")[:1] == [HOSTILE]
    assert found.texts("th").count(HOSTILE) == 4 + 3  # a baseline in four tiles, three groups


def test_the_page_requests_nothing(page):
    found = page(figures={"score_distribution": figure()}, examples=[example()])
    links = [
        a[name]
        for _, a, _ in found.elements
        for name in ("src", "href", "srcset", "action")
        if name in a
    ]
    assert links
    assert all(link.startswith("data:") for link in links)
    (style,) = found.texts("style")
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [
        a["content"]
        for a in found.attributes("meta")
        if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'")


def test_the_same_report_is_written_byte_for_byte(tmp_path):
    for name in ("one", "two"):
        write_report(
            tmp_path / name,
            "Scores",
            METRICS_FOUND,
            {"auc_by_hour": figure()},
            [example()],
            {"date": "x"},
        )
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
