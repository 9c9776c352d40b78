"""Networks of keras.applications, and which weights each of them gets."""

import re
from pathlib import Path

import dagster as dg
from pydantic import Field, field_validator

from bigdata_assets.resources.networks import (
    CLASS_NAMES,
    IMAGENET,
    NONE,
    Network,
    UnknownNetworkError,
    class_names,
    names,
)

FOLDER = "weights"
"""Of a branch's sources: files of weights, called as Keras calls them or after the network."""
NO_TOP = "notop"
"""In Keras' names of files that lack the last layers."""


class KerasZoo(dg.ConfigurableResource):
    """Gives networks their weights: those that the setting names, else a file of the branch's sources."""

    weights: str = Field("", description="`Network=path`, `=imagenet` (downloaded) or `=none`, with commas between.")
    is_sample: bool = Field(False, description="Whether inputs are generated: what has no weights is then left so.")

    @field_validator("weights")
    @classmethod
    def _is_pairs(cls, value: str) -> str:
        _pairs(value)
        return value

    def network(self, name: str, folder: Path) -> Network:
        """A network and its weights.

        Args:
            name: of its constructor in keras.applications.
            folder: of the branch's sources; a file in its folder `weights` is taken for the network that its name
                begins with. A relative path of the setting is one below it too.

        Raises:
            UnknownNetworkError: keras.applications has no such network, or not one that the setting names.
            WeightsError: the file that the setting names cannot be read.
        """
        given = _pairs(self.weights)
        for asked in (name, *given):
            if asked not in names():
                whose = "" if asked == name else "BIG_CATS_WEIGHTS: "
                raise UnknownNetworkError(
                    f"{whose}keras.applications has no network {asked!r}; names are exact: {', '.join(names())}."
                )
        weights = given.get(name) or _file_of(name, folder / FOLDER) or (NONE if self.is_sample else IMAGENET)
        is_file = weights not in (NONE, IMAGENET)
        return Network.of(name, str(folder / FOLDER / Path(weights).expanduser()) if is_file else weights)

    def class_names(self, folder: Path) -> tuple[str, ...]:
        """ImageNet's names of its classes by index, from the file that is called so beside the weights, if any."""
        return class_names(folder / FOLDER / CLASS_NAMES)


def _pairs(setting: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in filter(None, (item.strip() for item in setting.split(","))):
        name, _, weights = (part.strip() for part in item.partition("="))
        if not name or not weights or name in pairs:
            raise ValueError(
                f"BIG_CATS_WEIGHTS: {item!r} must look like ResNet50=<file>, ResNet50=imagenet or ResNet50=none, once "
                "for a network"
            )
        pairs[name] = weights
    return pairs


def _file_of(name: str, folder: Path) -> str:
    """The network's file in a folder, first one with top; empty where there is none."""
    files = sorted(folder.glob("*.h5"), key=lambda file: (NO_TOP in file.name.lower(), file.name))
    return next((file.name for file in files if _network_of(file.name) == name), "")


def _network_of(file: str) -> str:
    """The network whose name a file's begins with, the longest: mobilenet_v2_… is MobileNetV2's, not MobileNet's."""
    squeezed = re.sub(r"[^a-z0-9]", "", file.lower()).removeprefix("weights")
    return max((name for name in names() if squeezed.startswith(name.lower())), key=len, default="")
