"""The setting of chosen classes."""

import pytest

from bigdata_assets.big_cats.logic.classes import SYNSETS, CatClass, UnknownClassError, chosen

NAMES = {
    "/m/07dm6": "Tiger",
    "/m/096mb": "Lion",
    "/m/0gd36": "Sea lion",
    "/m/04g2r": "Lynx",
    "/m/0a": "Bat",
    "/m/0b": "Bat",
}


def test_classes_are_chosen_by_exact_name_or_by_mid_in_the_order_of_the_setting() -> None:
    found = chosen(" Lion, /m/07dm6,Sea lion", NAMES)

    assert found == (
        CatClass("/m/096mb", "Lion", (291,)),
        CatClass("/m/07dm6", "Tiger", (292,)),
        CatClass("/m/0gd36", "Sea lion", ()),
    )


def test_a_setting_may_say_what_of_imagenet_is_the_same() -> None:
    assert chosen("Sea lion=150,Lynx=287+282", NAMES)[1] == CatClass("/m/04g2r", "Lynx", (287, 282))
    assert SYNSETS["/m/04g2r"] == (287,)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lion", r"'lion' is no class of Open Images; there are 'Lion' \(/m/096mb\), 'Sea lion' \(/m/0gd36\)"),
        ("Unicorn", "'Unicorn' is no class of Open Images; give a MID"),
        ("Bat", "'Bat' is the name of several classes"),
        ("Tiger,/m/07dm6", r"names 'Tiger' \(/m/07dm6\) twice"),
        ("Lynx=x", "no numbers from 0 to 999"),
        ("Lynx=1000", "no numbers from 0 to 999"),
        (" , ", "names no class"),
    ],
)
def test_what_is_no_class_is_refused_with_what_is_near(setting: str, message: str) -> None:
    with pytest.raises(UnknownClassError, match=message):
        chosen(setting, NAMES)
