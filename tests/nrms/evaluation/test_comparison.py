import pytest

from nrms.evaluation.comparison import above_chance, auc_text, summary, warnings


def metrics(auc, interval=None, **baselines):
    found = {"auc": auc, "impressions": 100, "unlabelled": 20, "skipped_one_class": 5}
    found |= {"baselines": {name: {"auc": value} for name, value in baselines.items()}}
    return found if interval is None else found | {"auc_interval": list(interval)}


@pytest.mark.parametrize(
    ("interval", "above"),
    [
        ((0.51, 0.6), True),
        ((0.5, 0.6), False),
        ((0.45, 0.6), False),
        ((0.3, 0.4), False),
        (None, False),
    ],
)
def test_a_ranking_is_above_chance_where_its_whole_interval_is(interval, above):
    found = metrics(0.55, interval)
    assert above_chance(found) == above
    lines = warnings("validation", found)
    assert len(lines) == (not above)
    for line in lines:
        assert line.startswith("validation: the model must rank better than chance")
        assert f"Received: {auc_text(found)} over 75 impressions" in line


@pytest.mark.parametrize(("popularity", "lines"), [(0.54, 0), (0.55, 0), (0.56, 1)])
def test_a_ranking_below_popularity_is_said(popularity, lines):
    found = warnings("night", metrics(0.55, (0.52, 0.58), popularity=popularity, random=0.9))
    assert len(found) == lines
    assert all("AUC 0.5500, popularity 0.5600" in line for line in found)


def test_of_an_unlabelled_split_nothing_is_said():
    assert warnings("night", {"impressions": 100, "unlabelled": 100}) == []


def test_the_summary_names_each_ranking_with_its_interval():
    found = metrics(0.7, (0.69, 0.71), random=0.5)
    found["baselines"]["random"]["auc_interval"] = [0.49, 0.51]
    assert (
        summary(found) == "AUC 0.7000 (95% interval 0.6900 to 0.7100); "
        "random 0.5000 (95% interval 0.4900 to 0.5100)"
    )
    assert summary(metrics(0.7)) == "AUC 0.7000"
