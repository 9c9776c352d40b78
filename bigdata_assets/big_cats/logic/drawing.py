"""Drawings of cats and of other things, for the sample: each class has a coat of its own."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

TIGER, LION, CHEETAH, LEOPARD, JAGUAR, LYNX = "/m/07dm6", "/m/096mb", "/m/0cd4d", "/m/0c29q", "/m/0449p", "/m/04g2r"
SEA_LION, DOG, ZEBRA, BALL, HOUSE, TREE = "/m/0gd36", "/m/0bt9lr", "/m/0898b", "/m/018xm", "/m/03jm5", "/m/07j7r"
COATS: Mapping[str, tuple[int, int, int]] = {
    TIGER: (222, 138, 52),
    LION: (206, 168, 108),
    CHEETAH: (224, 190, 126),
    LEOPARD: (218, 172, 96),
    JAGUAR: (208, 154, 80),
    LYNX: (158, 152, 146),
    SEA_LION: (92, 84, 82),
    DOG: (120, 76, 44),
    ZEBRA: (238, 236, 230),
}
SCENES = (
    # sky, ground
    ((164, 200, 232), (186, 166, 104)),
    ((120, 150, 110), (66, 96, 52)),
    ((214, 222, 230), (232, 236, 240)),
    ((226, 176, 128), (128, 98, 70)),
    ((150, 152, 156), (112, 110, 108)),
)
Corners = tuple[float, float, float, float]
"""Shares of the picture's width and height: left, right, top, bottom."""


def drawn(rng: np.random.Generator, labels: Sequence[str]) -> tuple[Image.Image, list[tuple[str, Corners]]]:
    """A picture of things beside each other, trees behind them, 320 to 480 px wide; where each of them is."""
    width, height = int(rng.integers(320, 481)), int(rng.integers(240, 361))
    image = _scene(rng, width, height)
    places = [(label, _tree(rng, image)) for label in labels if label == TREE]
    things = [label for label in labels if label != TREE]
    room = width / len(things)
    places += [(label, _thing(rng, image, label, number * room, room)) for number, label in enumerate(things)]
    noisy = np.asarray(image, np.float32) + rng.normal(0, 4, (height, width, 1))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), places


def _colour(rng: np.random.Generator, colour: tuple[int, int, int], spread: float) -> tuple[int, ...]:
    return tuple(np.clip(np.array(colour) + rng.normal(0, spread, 3), 0, 255).astype(int).tolist())


def _scene(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    sky, ground = SCENES[rng.integers(len(SCENES))]
    image = Image.new("RGB", (width, height), _colour(rng, sky, 12))
    draw, horizon = ImageDraw.Draw(image), int(height * rng.uniform(0.3, 0.6))
    colour = _colour(rng, ground, 12)
    draw.rectangle((0, horizon, width, height), fill=colour)
    for x, y in zip(rng.uniform(0, width, 120), rng.uniform(horizon, height, 120), strict=True):  # grass, stones
        draw.line((x, y, x + rng.normal(0, 3), y - rng.uniform(2, 10)), fill=_colour(rng, ground, 25), width=2)
    return image


def _tree(rng: np.random.Generator, image: Image.Image) -> Corners:
    draw, (width, height) = ImageDraw.Draw(image), image.size
    x, crown, bottom = rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.2) * height, 0.7 * height
    top = 0.05 * height
    draw.rectangle((x - crown / 5, top + crown, x + crown / 5, bottom), fill=(92, 66, 44))
    draw.ellipse((x - crown, top, x + crown, top + 2 * crown), fill=_colour(rng, (58, 110, 52), 15))
    left, right = max(x - crown, 0) / width, min(x + crown, width) / width
    return left, right, top / height, bottom / height


def _thing(rng: np.random.Generator, image: Image.Image, label: str, left: float, room: float) -> Corners:
    """Draw it somewhere between two columns; where it is."""
    length = min(rng.uniform(0.5, 0.85) * room, image.height * 0.9)
    x = left + rng.uniform(length * 0.5, room - length * 0.5)
    y = image.height * rng.uniform(0.5, 0.65)
    mask = Image.new("L", image.size)
    if label in (BALL, HOUSE):
        return _pasted(image, Image.new("RGB", image.size, _colour(rng, (190, 60, 60), 40)), _shape(mask, label, x, y))
    flip = rng.choice((-1, 1))
    draw = _Draw(mask, x, y, length, flip)
    _body(draw, label)
    # Darker towards the belly.
    shade = 1.08 - 0.35 * np.clip((np.arange(image.height) - y) / (0.3 * length), 0, 1)
    coat = np.asarray(_coat(rng, image.size, label, length), np.float32) * shade[:, None, None]
    corners = _pasted(image, Image.fromarray(coat.clip(0, 255).astype(np.uint8)), mask)
    _face(_Draw(image, x, y, length, flip), label)
    return corners


def _pasted(image: Image.Image, coat: Image.Image, mask: Image.Image) -> Corners:
    image.paste(coat, mask=mask)
    left, top, right, bottom = mask.getbbox() or (0, 0, *image.size)
    return left / image.width, right / image.width, top / image.height, bottom / image.height


def _shape(mask: Image.Image, label: str, x: float, y: float) -> Image.Image:
    draw, half = ImageDraw.Draw(mask), mask.height * 0.25
    if label == BALL:
        draw.ellipse((x - half, y - half, x + half, y + half), fill=255)
    else:
        draw.rectangle((x - half, y, x + half, y + half), fill=255)
        draw.polygon([(x - 1.2 * half, y), (x + 1.2 * half, y), (x, y - half)], fill=255)
    return mask


class _Draw:
    """Draws in units of an animal's length, which looks right, or left where it is flipped."""

    def __init__(self, image: Image.Image, x: float, y: float, length: float, flip: int) -> None:
        self._draw, self._x, self._y, self._length, self._flip = ImageDraw.Draw(image), x, y, length, flip

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return self._x + self._flip * x * self._length, self._y + y * self._length

    def oval(self, x: float, y: float, half_width: float, half_height: float, fill: int | tuple[int, ...]) -> None:
        (x, y), length = self._at(x, y), self._length
        half_width, half_height = half_width * length, half_height * length
        self._draw.ellipse((x - half_width, y - half_height, x + half_width, y + half_height), fill=fill)

    def polygon(self, points: Iterable[tuple[float, float]], fill: int | tuple[int, ...]) -> None:
        self._draw.polygon([self._at(*point) for point in points], fill=fill)

    def line(self, points: Iterable[tuple[float, float]], width: float, fill: int | tuple[int, ...]) -> None:
        self._draw.line([self._at(*point) for point in points], fill, max(round(width * self._length), 1), "curve")


def _body(draw: _Draw, label: str) -> None:
    """Where its coat is."""
    draw.oval(-0.08, 0, 0.34, 0.16, 255)
    draw.oval(0.32, -0.14, 0.13, 0.13, 255)
    if label == SEA_LION:
        draw.polygon([(-0.4, 0), (-0.5, 0.2), (0.1, 0.12), (0.2, 0.3), (0.28, 0)], 255)
        return
    for x in (-0.34, -0.24, 0.08, 0.2):
        draw.polygon([(x, 0), (x + 0.08, 0), (x + 0.07, 0.34), (x + 0.01, 0.34)], 255)
    tail = (-0.46, -0.02) if label == LYNX else (-0.48, 0.2)
    draw.line([(-0.36, -0.06), (-0.46, -0.02), tail], 0.04, 255)
    for x in (0.25, 0.39):
        draw.polygon([(x - 0.05, -0.2), (x + 0.05, -0.2), (x, -0.29)], 255)
        if label == LYNX:
            draw.line(_tuft(x), 0.02, 255)


def _tuft(x: float) -> list[tuple[float, float]]:
    return [(x, -0.28), (x, -0.4)]


def _face(draw: _Draw, label: str) -> None:
    dark = (30, 24, 22)
    for x in (0.28, 0.38):
        draw.oval(x, -0.17, 0.018, 0.018, dark)
    draw.oval(0.33, -0.09, 0.025, 0.018, dark)
    if label == LYNX:
        for x in (0.25, 0.39):
            draw.line(_tuft(x), 0.02, dark)


def _coat(rng: np.random.Generator, size: tuple[int, int], label: str, length: float) -> Image.Image:
    """Of the whole picture's size; marks are in proportion to the animal."""
    coat = Image.new("RGB", size, _colour(rng, COATS[label], 9))
    if label in (TIGER, ZEBRA):
        columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        wave = 0.03 * length * np.sin(rows / (0.05 * length) + rng.uniform(0, 2 * math.pi))
        stripes = np.sin(2 * math.pi * (columns + wave) / (0.085 * length)) > 0.3
        coat.paste((38, 28, 24), mask=Image.fromarray(stripes))
    elif label in (CHEETAH, LEOPARD, JAGUAR):
        step = {CHEETAH: 0.042, LEOPARD: 0.07, JAGUAR: 0.1}[label] * length
        for y in np.arange(0, size[1] + step, step):
            for x in np.arange(0, size[0] + step, step):
                jitter_x, jitter_y = rng.normal(0, 0.12 * step, 2)
                _spot(ImageDraw.Draw(coat), label, x + jitter_x, y + jitter_y, step)
    return coat


def _spot(draw: ImageDraw.ImageDraw, label: str, x: float, y: float, step: float) -> None:
    dark, radius = (40, 28, 22), 0.36 * step
    circle = (x - radius, y - radius, x + radius, y + radius)
    if label == CHEETAH:
        draw.ellipse(circle, fill=dark)
        return
    draw.ellipse(circle, fill=(176, 116, 56), outline=dark, width=max(round(0.12 * step), 1))
    if label == JAGUAR:
        dot = 0.1 * step
        draw.ellipse((x - dot, y - dot, x + dot, y + dot), fill=dark)
