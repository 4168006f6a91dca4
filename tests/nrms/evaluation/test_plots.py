import matplotlib
import numpy as np
import pytest

from nrms.evaluation import plots
from nrms.evaluation.ranking import GroupMean


def figures():
    scores = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    group = GroupMean(total=6.0, squares=4.5, count=10)
    return {
        "training": plots.training_curves(
            {"loss": [1.5, 1.2], "val_auc": [0.6, 0.7]}, {"random": 0.5, "oracle": 0.9}
        ),
        "one epoch": plots.training_curves({"loss": [1.5], "val_auc": [0.6]}),
        "history": plots.auc_by_group({"0": group, "1-5": group + group}, "AUC", "clicks"),
        "hour": plots.auc_by_hour({3: group, 23: GroupMean(0.5, 0.25, 1)}),
        "scores": plots.score_distribution(
            {"clicked": scores + 1, "not clicked": scores}, {"clicked": 9, "not clicked": 8}
        ),
        "equal scores": plots.score_distribution(
            {"all candidates": np.ones(3)}, {"all candidates": 3}
        ),
    }


@pytest.mark.parametrize(("name", "figure"), figures().items())
def test_every_figure_is_titled_labelled_and_renders(name, figure, tmp_path):
    assert all(axes.get_ylabel() for axes in figure.axes)
    assert figure.axes[-1].get_xlabel()
    assert figure.axes[0].get_title(loc="left")
    plots.save(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_figures_are_no_part_of_pyplots_state():
    figures()
    assert matplotlib._pylab_helpers.Gcf.get_num_fig_managers() == 0


def test_training_curves_show_both_series_and_name_the_best_epoch_and_the_baselines():
    loss, auc = figures()["training"].axes
    assert loss.lines[0].get_ydata().tolist() == [1.5, 1.2]
    assert auc.lines[0].get_xydata().tolist() == [[1, 0.6], [2, 0.7]]
    assert auc.get_title(loc="right") == "best 0.700 in epoch 2"
    assert [text.get_text() for text in auc.get_legend().texts] == ["random 0.500", "oracle 0.900"]


def test_auc_panels_show_mean_interval_and_impressions():
    group = GroupMean(total=6.0, squares=4.5, count=10)
    auc, impressions = plots.auc_by_hour({3: group}).axes
    (points, _, (bars,)) = auc.containers[0]
    assert points.get_xydata().tolist() == [[3, 0.6]]
    (low, high) = bars.get_segments()[0][:, 1]
    assert high - low == pytest.approx(2 * 1.96 * group.standard_error)
    heights = [bar.get_height() for bar in impressions.patches]
    assert heights == [10 if hour == 3 else 0 for hour in range(24)]


def test_score_densities_integrate_to_the_share_shown_and_name_their_counts():
    scores = np.linspace(0, 1, 1000)
    figure = plots.score_distribution(
        {"clicked": scores, "not clicked": scores[:500]}, {"clicked": 1000, "not clicked": 70_000}
    )
    (axes,) = figure.axes
    for outline in axes.patches:
        density, edges, _ = outline.get_data()
        assert (density * np.diff(edges)).sum() == pytest.approx(1)
    assert [text.get_text() for text in axes.get_legend().texts] == [
        "clicked (1,000)",
        "not clicked (70,000)",
    ]


def test_the_users_matplotlibrc_has_no_say(tmp_path):
    def rendered(name):
        plots.save(figures()["training"], tmp_path / name)
        return (tmp_path / name).read_bytes()

    expected = rendered("default.png")
    with matplotlib.rc_context(
        {"text.usetex": True, "axes.formatter.use_locale": True, "font.size": 30}
    ):
        assert rendered("users.png") == expected
        assert matplotlib.rcParams["text.usetex"]


def test_what_cannot_be_drawn_is_left_out_with_a_warning(tmp_path, caplog):
    good, bad = figures()["training"], figures()["hour"]
    bad.axes[0].set_title(r"$\nonsense$")
    assert plots.save_all({"good": good, "bad": bad, "not drawn": None}, tmp_path) == {
        "good": tmp_path / "good.png"
    }
    (message,) = caplog.messages
    assert message.startswith("going on without bad.png, which could not be made: ValueError: ")
    assert "\n" not in message
