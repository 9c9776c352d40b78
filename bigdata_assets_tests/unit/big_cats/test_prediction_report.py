import io

import pandas as pd
import pytest
from PIL import Image

from bigdata_assets.big_cats.logic.classes import CatClass
from bigdata_assets.big_cats.logic.prediction_report import BINS, OTHER, confusion, report, wilson

LION, TIGER = CatClass("/m/096mb", "Lion", (291,)), CatClass("/m/07dm6", "Tiger", (292,))
FOX = CatClass("/m/0306r", "Fox", ())
NET = "ResNet50"
WRONG = ["network", "number", "subset", "image_id", "chip_id", "labels", "name", "probability"]


def kind(labels, called, chips, right=False, in_top=None, whole=False, network=NET, bin_=0, version="ResNet50-1f2e"):
    return {
        "network": network,
        "model_version": version,
        "labels": " ".join(one.label for one in labels),
        "is_whole_image": whole,
        "right": right,
        "right_in_top": right if in_top is None else in_top,
        "called": called if isinstance(called, str) else called.label,
        "bin": bin_,
        "chips": chips,
    }


@pytest.fixture
def counted():
    return pd.DataFrame(
        [
            kind([LION], LION, 5, right=True, bin_=19),
            kind([LION], TIGER, 1, in_top=True),
            kind([TIGER], TIGER, 2, right=True, whole=True),
            kind([TIGER], "tiger cat", 1, whole=True),
            kind([LION, TIGER], TIGER, 1, right=True),
            kind([FOX], OTHER, 7),
        ]
    )


@pytest.fixture
def no_wrong():
    return pd.DataFrame(columns=[*WRONG, "thumbnail", "author", "license", "landing_url"])


def test_shares_are_of_the_chips_of_known_classes_beside_the_majority_on_the_same_chips(counted, no_wrong):
    page = report(counted, no_wrong, [LION, TIGER, FOX], {})
    table = page.tables["Share of the chips that are right, and its 95 % interval"].set_index("of")
    assert table["chips"].to_dict() == {"all chips": 10, "boxes": 7, "whole pictures": 3}
    assert table["top-1 accuracy"].to_dict() == pytest.approx(
        {"all chips": 0.8, "boxes": 6 / 7, "whole pictures": 2 / 3}
    )
    assert table["top-5 accuracy"].to_dict() == pytest.approx({"all chips": 0.9, "boxes": 1, "whole pictures": 2 / 3})
    # Lion is on 7 of 10 chips and on all 7 boxes, Tiger on all 3 whole pictures.
    assert table["majority"].to_dict() == pytest.approx({"all chips": 0.7, "boxes": 1, "whole pictures": 1})
    ledger = {(e.model, e.split, e.metric): (e.value, e.baseline, e.baseline_value) for e in page.evaluations}
    assert len(ledger) == 6
    assert ledger[NET, "all chips", "top-1 accuracy"] == pytest.approx((0.8, "majority", 0.7))
    assert ledger[NET, "boxes", "top-5 accuracy"] == pytest.approx((1, "majority", 1))


def test_a_chip_of_two_classes_counts_in_each_ones_row_and_is_right_for_either(counted, no_wrong):
    table = report(counted, no_wrong, [LION, TIGER, FOX], {}).tables["By class, all chips"].set_index("class")
    assert table["chips"].to_dict() == {"Lion": 7, "Tiger": 4}
    assert table["top-1 accuracy"].to_dict() == pytest.approx({"Lion": 6 / 7, "Tiger": 3 / 4})


def test_confusion_has_near_misses_apart_and_counts_right_chips_of_two_classes_once(counted):
    rows = counted.assign(labels=counted["labels"].str.split())[:5]
    table = confusion(rows, [LION, TIGER])
    assert table.columns.tolist() == ["Lion", "Tiger", "tiger cat", "cougar", "snow leopard", "other"]
    assert table.loc["Lion"].tolist() == [5, 1, 0, 0, 0, 0]
    assert table.loc["Tiger"].tolist() == [0, 3, 1, 0, 0, 0]
    both_wrong = rows.iloc[[4]].assign(right=False, called=OTHER)
    assert confusion(both_wrong, [LION, TIGER])["other"].tolist() == [1, 1]


def test_a_near_miss_that_was_chosen_has_no_column_and_shared_synsets_are_the_chips_own():
    lynx, caracal = CatClass("/m/04g2r", "Lynx", (287,)), CatClass("/m/x", "Caracal", (287, 286))
    rows = pd.DataFrame([kind([caracal], lynx, 3, right=True) | {"labels": [caracal.label]}])
    table = confusion(rows, [lynx, caracal])
    assert table.columns.tolist() == ["Lynx", "Caracal", "tiger cat", "snow leopard", "other"]
    assert table.loc["Caracal"].tolist() == [0, 3, 0, 0, 0]


def test_what_is_not_scored_and_what_has_no_weights_is_said(counted, no_wrong):
    blind = kind([LION], OTHER, 4, network="Blind", version="EfficientNetV2S-none")
    page = report(pd.concat([counted, pd.DataFrame([blind])]), no_wrong, [LION, TIGER, FOX], {NET: 31.5})
    assert page.summary.startswith("ResNet50: 0.800 (0.490 to 0.943) of 10 chips right at first, 0.900 among 5;")
    assert "Figures of Blind mean nothing: they have no weights." in page.summary
    assert "nothing of ImageNet is said to be the same: Fox (" in page.summary
    speeds = page.tables["Networks"].set_index("network")["images per second and worker"]
    assert speeds[NET] == 31.5
    assert pd.isna(speeds["Blind"])
    assert page.numbers["Blind, top-1 accuracy"] == 0


def test_histogram_has_right_and_wrong_chips_by_probability(counted, no_wrong):
    figure = report(counted, no_wrong, [LION, TIGER, FOX], {}).figures["Probability of the first answer"]
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights[:BINS] == [3, *[0] * (BINS - 2), 5]
    assert heights[BINS:] == [2, *[0] * (BINS - 1)]


def test_wrong_ones_are_shown_surest_first_with_class_answer_and_credits(counted):
    out = io.BytesIO()
    Image.new("RGB", (40, 30)).save(out, "JPEG")
    shown = [
        (NET, 2, "test", "b" * 16, "b-0", [LION.label, FOX.label], "cougar", 0.5),
        (NET, 1, "test", "a" * 16, "a-0", [TIGER.label], "tiger_cat", 0.987),
    ]
    wrong = pd.DataFrame(shown, columns=WRONG).assign(
        thumbnail=out.getvalue(),
        author="A. Author",
        license="https://creativecommons.org/licenses/by/2.0/",
        landing_url="https://example.org",
    )
    page = report(counted, wrong, [LION, TIGER, FOX], {})
    figure = page.figures["ResNet50: surest of its wrong answers"]
    assert [text.get_text() for text in figure.texts] == [
        f"Tiger\n0.99 tiger cat\n{'a' * 16}\nA. Author\nCC BY 2.0",
        f"Lion and Fox\n0.50 cougar\n{'b' * 16}\nA. Author\nCC BY 2.0",
    ]
    assert page.tables["Pictures that are shown"]["picture"].tolist() == ["a" * 16, "b" * 16]
    assert len(page.pngs()) == 3


def test_no_chip_that_can_be_scored_is_a_report_that_says_so(counted, no_wrong):
    page = report(counted, no_wrong, [FOX], {})
    assert page.summary.endswith("No chip of a class that ImageNet has too has a prediction.")
    assert not page.evaluations
    assert page.to_html(page.pngs())


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # scipy.stats.binomtest(9, 10).proportion_ci(method="wilson") and so on
    [(9, 10, 0.5958, 0.9821), (0, 5, 0, 0.4345), (5, 5, 0.5655, 1), (500, 1000, 0.4691, 0.5309)],
)
def test_wilson_interval(right, n, low, high):
    assert wilson(right, n) == pytest.approx((low, high), abs=1e-4)
