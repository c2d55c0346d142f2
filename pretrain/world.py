"""The world that the embedded base knows: drawings on scenes, with captions for free."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pretrain.art import STYLES, Drawing, recolour
from pretrain.scenes import FLOATING, SCENES

COLOURS = {
    "red": (215, 35, 40),
    "orange": (240, 130, 25),
    "yellow": (240, 205, 40),
    "green": (45, 160, 65),
    "blue": (40, 95, 215),
    "purple": (135, 55, 185),
    "pink": (240, 120, 175),
}
# How often a caption names the style of a drawing. A cartoon is what is meant where it does not: bits of a token are
# drawn independently, so an even mixture of three drawings would come out as none of them.
NAMED = {"cartoon": 0.1, "flat": 0.8, "3d": 0.8}
TEMPLATES = (
    "a photo of {a}{thing}{rest}",
    "a photo of {thing}{rest}",
    "{a}{thing}{rest}",
    "a picture of {a}{thing}{rest}",
    "the {thing}{rest}",
)


@dataclass(frozen=True)
class Pose:
    """Ranges that a drawing's pose is drawn from; lengths are fractions of the picture.

    Attributes:
        size: the longer side.
        middle: horizontal place of its centre.
        foot: how low it stands; floating things have their centre 0.41 higher.
        turn: largest rotation, in degrees, to either side.
        flipped: how often left and right are exchanged.
    """

    size: tuple[float, float]
    middle: tuple[float, float]
    foot: tuple[float, float]
    turn: float
    flipped: float


# What no caption can say must vary little: a small network then spends itself on shapes.
TRAINED = Pose((0.64, 0.76), (0.47, 0.53), (0.89, 0.94), 3, 0.0)
# Photos of a subject are taken from all over.
FREE = Pose((0.58, 0.78), (0.42, 0.58), (0.86, 0.96), 5, 0.2)
# What captions can say of a pose: size, and place of the centre. What stands aside is small enough to fit.
SIZES = {"small": (0.42, 0.50), "big": (0.84, 0.90)}
PLACES = {"on the left": (0.27, 0.31), "on the right": (0.69, 0.73)}
ASIDE = (0.46, 0.54)


@dataclass(frozen=True)
class View:
    """What is in a picture: None is the drawing's own colour, nothing worn, the usual pose, nothing beside it.

    Attributes:
        beside: what stands on the right of the subject, which then stands on the left.
    """

    drawing: Drawing
    scene: str
    colour: str | None = None
    accessory: str | None = None
    size: str | None = None
    place: str | None = None
    beside: Drawing | None = None

    @property
    def nouns(self) -> list[str]:
        return [drawing.noun for drawing in (self.drawing, self.beside) if drawing]

    @property
    def style(self) -> str | None:
        return STYLES.get(self.drawing.name.partition("/")[0])


def article(thing: str) -> str:
    return "an " if thing[0] in "aeiou" else "a "


def caption(rng: np.random.Generator, view: View, name_scene: bool = True) -> str:
    """One of many wordings of a view."""
    style = view.style if rng.random() < NAMED.get(view.style, 0) else None
    thing = " ".join(word for word in (view.size, style, view.colour, view.drawing.noun) if word)
    where = [words for words in (view.place, view.scene if name_scene else None) if words]
    if rng.random() < 0.5:
        where.reverse()
    rest = f" wearing {view.accessory}" if view.accessory else ""
    rest += f" next to {article(view.beside.noun)}{view.beside.noun}" if view.beside else ""
    rest += "".join(f" {words}" for words in where)
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(a=article(thing), thing=thing, rest=rest)


class World:
    """Draws random views.

    Args:
        drawings: what may be shown, by noun.
        accessories: what may be worn, by phrase.
        pixels: side of the pictures.
        pose: how much poses vary.
    """

    def __init__(
        self,
        drawings: dict[str, list[Drawing]],
        accessories: dict[str, list[Drawing]],
        pixels: int = 64,
        pose: Pose = TRAINED,
    ) -> None:
        self.drawings, self.accessories, self.pixels, self.pose = drawings, accessories, pixels, pose
        self.nouns, self.scenes = list(drawings), list(SCENES)

    def view(self, rng: np.random.Generator) -> View:
        """A random view: three in ten recoloured, a quarter with an accessory, some of another size, place or company."""
        drawing, scene = self._any(rng), self.scenes[rng.integers(len(self.scenes))]
        colour = list(COLOURS)[rng.integers(len(COLOURS))] if rng.random() < 0.3 else None
        if rng.random() < 0.07:
            return View(drawing, scene, colour, beside=self._any(rng))
        worn = list(self.accessories)[rng.integers(len(self.accessories))] if rng.random() < 0.25 else None
        size = list(SIZES)[rng.integers(len(SIZES))] if rng.random() < 0.16 else None
        place = list(PLACES)[rng.integers(len(PLACES))] if rng.random() < 0.12 and size != "big" else None
        return View(drawing, scene, colour, worn, size, place)

    def _any(self, rng: np.random.Generator) -> Drawing:
        own = self.drawings[self.nouns[rng.integers(len(self.nouns))]]
        return own[rng.integers(len(own))]

    def render(self, rng: np.random.Generator, view: View) -> Image.Image:
        """Paint a view with random pose, place and light; drawn at twice the size, then reduced."""
        image = SCENES[view.scene](rng, self.pixels * 2)
        floats = view.scene in FLOATING
        self._put(rng, image, self._thing(rng, view), self._pose(view), floats)
        if view.beside:
            aside = replace(self.pose, size=SIZES["small"], middle=PLACES["on the right"])
            self._put(rng, image, view.beside.rgba, aside, floats)
        image = image.resize((self.pixels, self.pixels), Image.BOX)
        return self._lit(rng, image)

    def _pose(self, view: View) -> Pose:
        pose = self.pose
        if view.place:
            pose = replace(pose, size=ASIDE, middle=PLACES[view.place])
        if view.size:
            pose = replace(pose, size=SIZES[view.size])
        if view.beside:
            pose = replace(pose, size=SIZES["small"], middle=PLACES["on the left"])
        return pose

    def _put(self, rng: np.random.Generator, image: Image.Image, thing: Image.Image, pose: Pose, floats: bool) -> None:
        size = image.width
        thing = _posed(rng, thing, size, pose)
        w, h = thing.size
        x = int(size * rng.uniform(*pose.middle) - w / 2)
        foot = rng.uniform(*pose.foot)
        if floats:
            y = int(size * (foot - 0.41) - h / 2)
        else:
            y = int(size * foot - h)
            _shadow(image, x, y, w, h)
        image.paste(thing, (x, y), thing)

    def _thing(self, rng: np.random.Generator, view: View) -> Image.Image:
        thing = view.drawing.rgba
        if view.colour:
            thing = recolour(thing, COLOURS[view.colour])
        if view.accessory:
            own = self.accessories[view.accessory]
            thing = _wear(thing, own[rng.integers(len(own))].rgba, view.accessory)
        return thing

    def _lit(self, rng: np.random.Generator, image: Image.Image) -> Image.Image:
        gain, tint = rng.uniform(0.88, 1.1), rng.uniform(0.96, 1.04, 3)
        return Image.fromarray((np.asarray(image, np.float32) * gain * tint).clip(0, 255).astype(np.uint8))


def _posed(rng: np.random.Generator, thing: Image.Image, size: int, pose: Pose) -> Image.Image:
    if rng.random() < pose.flipped:
        thing = thing.transpose(Image.FLIP_LEFT_RIGHT)
    longest = size * rng.uniform(*pose.size)
    factor = longest / max(thing.size)
    thing = thing.resize([max(1, round(s * factor)) for s in thing.size], Image.BILINEAR, reducing_gap=2.0)
    return thing.rotate(rng.uniform(-pose.turn, pose.turn), Image.BILINEAR, expand=True)


def _shadow(image: Image.Image, x: int, y: int, w: int, h: int) -> None:
    shade = Image.new("L", (w, max(4, h // 7)))
    ImageDraw.Draw(shade).ellipse((w * 0.08, 0, w * 0.92, shade.height - 1), fill=90)
    shade = shade.filter(ImageFilter.BoxBlur(2))
    image.paste((20, 20, 25), (x, y + h - shade.height // 2 - h // 30), shade)


def _wear(thing: Image.Image, worn: Image.Image, accessory: str) -> Image.Image:
    """Put an accessory on the top of a drawing: hats above the head, glasses on the face."""
    alpha = np.asarray(thing.getchannel("A")) > 64
    rows = np.flatnonzero(alpha.any(1))
    top = rows[0]
    head = alpha[top : top + max(4, len(rows) // 4)].any(0)
    columns = np.flatnonzero(head)
    middle, breadth = columns.mean(), max(columns[-1] - columns[0], thing.width * 0.3)
    width = int(min(breadth * 1.05, thing.width * 0.6))
    worn = worn.resize((width, max(1, round(worn.height * width / worn.width))), Image.BILINEAR)
    sits = accessory in ("a crown", "a top hat")
    lift = int(worn.height * (0.75 if sits else 0.1)) if accessory != "sunglasses" else 0
    drop = int(len(rows) * 0.16) if accessory == "sunglasses" else 0
    canvas = Image.new("RGBA", (thing.width, thing.height + lift))
    canvas.paste(thing, (0, lift))
    x = int(np.clip(middle - width / 2, 0, thing.width - width))
    canvas.alpha_composite(worn, (x, int(top if sits else top + drop)))
    return canvas
