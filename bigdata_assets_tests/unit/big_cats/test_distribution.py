import pandas as pd
import pytest

from bigdata_assets.big_cats.logic.classes import CatClass
from bigdata_assets.big_cats.logic.distribution import TOLD, report
from bigdata_assets.big_cats.tables import FLAGS

LION, TIGER = CatClass("/m/096mb", "Lion", (291,)), CatClass("/m/07dm6", "Tiger", (292,))
NO_FLAGS = {f"{flag}_{told}": 0 for flag in FLAGS for told in TOLD}


def chips(label, subset, n, area=None, aspect=0, **flags):
    return {
        "subset": subset,
        "label": label.label,
        "is_whole_image": area is None,
        "area": area,
        "aspect": aspect,
        "chips": n,
        **NO_FLAGS,
        **flags,
    }


@pytest.fixture
def counted():
    return {
        "pictures": pd.DataFrame(
            [
                ("test", LION.label, LION.label, 5),
                ("train", LION.label, LION.label, 7),
                ("train", TIGER.label, TIGER.label, 2),
                ("train", LION.label, TIGER.label, 1),
                ("train", TIGER.label, LION.label, 1),
            ],
            columns=["subset", "label", "other", "pictures"],
        ),
        "chips": pd.DataFrame(
            [
                chips(LION, "test", 4, area=-1, is_group_of_true=1, is_group_of_false=2, is_group_of_unknown=1),
                chips(LION, "test", 2, area=-10, aspect=5, is_group_of_true=2),
                chips(LION, "train", 3, is_group_of_unknown=3),
                chips(TIGER, "train", 2, area=-2, aspect=-6, is_group_of_false=2),
            ]
        ),
        "boxes": pd.DataFrame({"boxes": [2, 0, 10], "pictures": [3, 3, 1]}),
        "no_boxes": pd.DataFrame({"label": [LION.label], "reason": ["no area"], "boxes": [2]}),
        "no_pictures": pd.DataFrame({"subset": ["test", "train"], "reason": ["missing", "broken"], "pictures": [1, 4]}),
    }


def test_chips_and_pictures_are_counted_by_class_and_subset(counted):
    page = report(counted, [TIGER, LION])
    assert page.numbers == {
        "pictures with chips": 7,
        "boxes": 8,
        "whole pictures": 3,
        "quarantined boxes": 2,
        "quarantined pictures": 5,
    }
    table = page.tables["By class and subset"].set_index(["class", "subset"])
    assert list(table.index.unique("class")) == ["Tiger", "Lion"], "in the classes' order"
    assert table.loc[("Lion", "test")].to_dict() == {"pictures": 5, "boxes": 6, "whole pictures": 0}
    assert table.loc[("Lion", "train")].to_dict() == {"pictures": 7, "boxes": 0, "whole pictures": 3}
    assert table.loc[("Lion", "validation")].to_dict() == {"pictures": 0, "boxes": 0, "whole pictures": 0}
    both = page.tables["Pictures that show both"].set_index("class")
    assert both.to_dict() == {"Tiger": {"Tiger": 2, "Lion": 1}, "Lion": {"Tiger": 1, "Lion": 12}}


def test_whole_pictures_are_in_no_histogram_and_flags_are_of_boxes_alone(counted):
    tables = report(counted, [TIGER, LION]).tables
    areas = tables["Boxes by area, upper edges of bins as shares of the picture"].set_index("class")
    assert areas.loc["Lion", ["1/512", "1/2", "all"]].tolist() == [2, 0, 4]
    assert areas.loc["Tiger", ["1/512", "1/2", "all"]].tolist() == [0, 2, 0]
    assert areas.to_numpy().sum() == 8
    aspects = tables["Boxes by width by height, lower edges of bins"].set_index("class")
    assert aspects.loc["Lion", ["0.12", "1", "5.7"]].tolist() == [0, 4, 2]
    flags = tables["What is told of boxes"].set_index(["flag", "class"])
    assert flags.loc[("is_group_of", "Lion")].to_dict() == {"true": 3, "false": 2, "unknown": 1}
    assert flags.loc[("is_group_of", "all")].to_dict() == {"true": 3, "false": 4, "unknown": 1}


def test_what_is_quarantined_is_told_by_reason_and_ten_boxes_stand_for_more(counted):
    tables = report(counted, [TIGER, LION]).tables
    assert tables["Quarantined boxes"].to_dict("records") == [{"class": "Lion", "reason": "no area", "boxes": 2}]
    assert tables["Boxes on a picture"].to_dict("list") == {
        "boxes": ["0", "2", "10 and more"],
        "pictures": [3, 3, 1],
    }


def test_a_class_that_was_not_chosen_is_shown_by_its_mid(counted):
    table = report(counted, [TIGER]).tables["By class and subset"]
    assert table["class"].unique().tolist() == ["Tiger", LION.label]


def test_nothing_at_all_is_a_report_too(counted):
    page = report({name: frame.iloc[:0] for name, frame in counted.items()}, [TIGER])
    assert page.numbers["boxes"] == 0
    assert len(page.pngs()) == 5
