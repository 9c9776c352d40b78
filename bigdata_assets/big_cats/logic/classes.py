"""The classes that are looked for: a setting, resolved by the file of class descriptions."""

from collections.abc import Mapping
from dataclasses import dataclass

SYNSETS: Mapping[str, tuple[int, ...]] = {
    "/m/07dm6": (292,),  # tiger
    "/m/096mb": (291,),  # lion
    "/m/0cd4d": (293,),  # cheetah
    "/m/0c29q": (288,),  # leopard; 289 is the snow leopard, another species
    "/m/0449p": (290,),  # jaguar
    "/m/04g2r": (287,),  # lynx
}
"""Of ImageNet's thousand classes those that are the same thing, by MID. A setting may name others."""
NEAR_MISSES: Mapping[int, str] = {282: "tiger cat", 286: "cougar", 289: "snow leopard"}
"""Classes of ImageNet that big cats are often taken for."""


class UnknownClassError(ValueError):
    """A chosen class is not among Open Images' classes; the message says which, and what is near."""


@dataclass(frozen=True)
class CatClass:
    """A chosen class.

    Attributes:
        label: its MID.
        name: its name.
        synsets: indices among ImageNet's thousand classes that are the same thing; none where nothing is known to be.
    """

    label: str
    name: str
    synsets: tuple[int, ...]


def chosen(setting: str, names: Mapping[str, str]) -> tuple[CatClass, ...]:
    """The classes that a setting names, in its order.

    Args:
        setting: MIDs or exact names with commas between, such as `Tiger,/m/096mb`; what of ImageNet is the same may
            be said behind a name: `Caracal=287+286`.
        names: name of each class of Open Images, by MID.

    Raises:
        UnknownClassError: a class is not there, is named twice or by a name that two have, or a synset is no number
            from 0 to 999.
    """
    found = [_class(item.strip(), names) for item in setting.split(",") if item.strip()]
    labels = [one.label for one in found]
    if not found:
        raise UnknownClassError("BIG_CATS_CLASSES names no class")
    for label in labels:
        if labels.count(label) > 1:
            raise UnknownClassError(f"BIG_CATS_CLASSES names {names[label]!r} ({label}) twice")
    return tuple(found)


def _class(item: str, names: Mapping[str, str]) -> CatClass:
    asked, _, synsets = (part.strip() for part in item.partition("="))
    labels = [asked] if asked in names else [label for label, name in names.items() if name == asked]
    if len(labels) != 1:
        near = [f"{name!r} ({label})" for label, name in names.items() if asked.lower() in name.lower()][:5]
        raise UnknownClassError(
            f"BIG_CATS_CLASSES: {asked!r} is {'the name of several classes' if labels else 'no class'} of Open Images"
            + (f"; there are {', '.join(near)}" if near else "; give a MID or the exact name of the class descriptions")
        )
    if not synsets:
        return CatClass(labels[0], names[labels[0]], SYNSETS.get(labels[0], ()))
    numbers = [int(part) if part.strip().isdecimal() else -1 for part in synsets.split("+")]
    if not all(0 <= number < 1000 for number in numbers):
        raise UnknownClassError(f"BIG_CATS_CLASSES: {item!r} names synsets that are no numbers from 0 to 999")
    return CatClass(labels[0], names[labels[0]], tuple(numbers))
