"""The world that the embedded base knows: drawings on scenes, with captions for free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pretrain.art import STYLES, Drawing, recolour
from pretrain.looks import dress
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
# drawn independently, so a mixture of several drawings would come out as none of them.
NAMED = {"cartoon": 0.1, "flat": 1.0, "3d": 1.0}
TEMPLATES = (
    "a photo of {a}{thing}{rest}",
    "a photo of {thing}{rest}",
    "{a}{thing}{rest}",
    "a picture of {a}{thing}{rest}",
    "the {thing}{rest}",
)


# Where a thing stands and how large it is, as fractions of the picture: its longer side, the middle of it, its foot.
SIZE, MIDDLE, FOOT = 0.70, 0.5, 0.91
# What captions can say of it. What stands aside is small enough to fit, but for a sliver where poses are free.
SIZES = {"small": 0.56, "big": 0.87}
PLACES = {"on the left": 0.31, "on the right": 0.69}
ASIDE = 0.60
# How often something else stands beside it, how large both are then, and how captions say so.
BESIDE, PAIRED = 0.12, 0.52
BESIDES = ("next to", "next to", "and")
# How often the picture is of a drawing that has no noun of its own, where the world has such, and what it is called.
UNNAMED, THING = 0.12, "thing"
# How captions say that a thing has a look of its own: "my cat".
OWN = "my "


@dataclass(frozen=True)
class Variety:
    """How far pictures stray from the usual, to either side.

    Attributes:
        size: relative to the thing's own.
        middle, foot: fractions of the picture.
        turn: degrees.
        light, tint: of the whole picture and of each colour channel, relative.
        backdrops: how many of each scene there are; None is a new one every time.
    """

    size: float
    middle: float
    foot: float
    turn: float
    light: float
    tint: float
    backdrops: int | None = None


# What no caption says does not vary, but for the backdrop: bits of a token are drawn independently, so the rest would
# come out as blur.
STUDIO = Variety(0, 0, 0, 0, 0, 0, backdrops=4)
# What tokenizer, encoders and judge see: more than they will be shown.
VARIED = Variety(0.08, 0.03, 0.025, 3, 0.11, 0.04)
# What has a look of its own stands as it likes, too.
OWNED = Variety(0.14, 0.05, 0.04, 9, 0.10, 0.06)
# Photos of a subject are taken by hand.
FREE = Variety(0.08, 0.04, 0.03, 3, 0.06, 0.03)


@dataclass(frozen=True)
class View:
    """What is in a picture: None is the drawing's own colour, nothing worn, the usual size and place, nothing beside it.

    `own` is a look that the drawing has not (`looks.dress`).
    Of two things, the one that the caption names first stands on the left.
    """

    drawing: Drawing
    scene: str
    colour: str | None = None
    accessory: str | None = None
    size: str | None = None
    place: str | None = None
    beside: Drawing | None = None
    own: bool = False

    @property
    def style(self) -> str | None:
        return _style(self.drawing)


def _style(drawing: Drawing) -> str | None:
    return STYLES.get(drawing.name.partition("/")[0])


def article(thing: str) -> str:
    return "an " if thing[0] in "aeiou" else "a "


def caption(rng: np.random.Generator, view: View, name_scene: bool = True) -> str:
    """One of many wordings of a view."""
    style = view.style if not view.own and rng.random() < NAMED.get(view.style, 0) else None
    thing = " ".join(word for word in (view.size, style, view.colour, view.drawing.noun) if word)
    where = [words for words in (view.place, view.scene if name_scene else None) if words]
    if rng.random() < 0.5:
        where.reverse()
    rest = f" wearing {view.accessory}" if view.accessory else ""
    if view.beside:
        rest += f" {BESIDES[rng.integers(len(BESIDES))]} {article(view.beside.noun)}{view.beside.noun}"
    rest += "".join(f" {words}" for words in where)
    templates = [template for template in TEMPLATES if "{a}" in template] if view.own else TEMPLATES
    return templates[rng.integers(len(templates))].format(a=OWN if view.own else article(thing), thing=thing, rest=rest)


class World:
    """Draws random views.

    Args:
        drawings: what may be shown, by noun.
        accessories: what may be worn, by phrase.
        pixels: side of the pictures.
        variety: how much pictures of one view differ.
        unnamed: more drawings, which are called `THING`.
        own: share of the pictures whose thing has a look of its own.
    """

    def __init__(
        self,
        drawings: dict[str, list[Drawing]],
        accessories: dict[str, list[Drawing]],
        pixels: int = 64,
        variety: Variety = VARIED,
        unnamed: list[Drawing] | None = None,
        own: float = 0.0,
    ) -> None:
        self.drawings, self.accessories, self.pixels, self.variety = drawings, accessories, pixels, variety
        self.nouns, self.scenes, self.own = list(drawings), list(SCENES), own
        self.unnamed = [Drawing(one.name, THING, one.rgba) for one in unnamed or []]

    def view(self, rng: np.random.Generator) -> View:
        """A random view: half recoloured, more than half with an accessory, some of another size or place, some in twos."""
        drawing, scene = self._any(rng), self.scenes[rng.integers(len(self.scenes))]
        own = self.own > 0 and rng.random() < self.own
        colour = list(COLOURS)[rng.integers(len(COLOURS))] if rng.random() < (0.25 if own else 0.5) else None
        worn = list(self.accessories)[rng.integers(len(self.accessories))] if rng.random() < 0.55 else None
        size = list(SIZES)[rng.integers(len(SIZES))] if rng.random() < 0.2 else None
        place = list(PLACES)[rng.integers(len(PLACES))] if rng.random() < 0.2 and size != "big" else None
        others = [noun for noun in self.nouns if noun != drawing.noun]
        if rng.random() < BESIDE and others:
            beside = self.alike(rng, drawing, others[rng.integers(len(others))])
            return View(drawing, scene, colour, worn, beside=beside, own=own)
        return View(drawing, scene, colour, worn, size, place, own=own)

    def alike(self, rng: np.random.Generator, first: Drawing, noun: str) -> Drawing:
        """A drawing of a class in the style of the `first` of two: captions name one style."""
        own = self.drawings[noun]
        own = [one for one in own if _style(one) == _style(first)] or own
        return own[rng.integers(len(own))]

    def _any(self, rng: np.random.Generator) -> Drawing:
        """Any drawing of any class; half of them cartoons, which a class's name alone stands for."""
        if self.unnamed and rng.random() < UNNAMED:
            return self.unnamed[rng.integers(len(self.unnamed))]
        own = self.drawings[self.nouns[rng.integers(len(self.nouns))]]
        cartoons = [one for one in own if _style(one) == "cartoon"]
        chosen = cartoons if cartoons and rng.random() < 0.25 else own
        return chosen[rng.integers(len(chosen))]

    def render(self, rng: np.random.Generator, view: View) -> Image.Image:
        """Paint a view with random pose, place and light; drawn at twice the size, then reduced."""
        variety = OWNED if view.own else self.variety
        image = self._backdrop(rng, view.scene)
        self._put(rng, image, view, variety)
        image = image.resize((self.pixels, self.pixels), Image.BOX)
        return _lit(rng, image, variety)

    def _backdrop(self, rng: np.random.Generator, scene: str) -> Image.Image:
        if self.variety.backdrops:
            rng = np.random.default_rng([self.scenes.index(scene), rng.integers(self.variety.backdrops)])
        return SCENES[scene](rng, self.pixels * 2)

    def _put(self, rng: np.random.Generator, image: Image.Image, view: View, variety: Variety) -> None:
        thing = self._thing(rng, view)
        if view.beside is None:
            longest = SIZES.get(view.size, ASIDE if view.place else SIZE)
            _stand(rng, image, thing, longest, PLACES.get(view.place, MIDDLE), view.scene, variety)
        else:
            for one, middle in zip((view.beside.rgba, thing), reversed(PLACES.values())):
                _stand(rng, image, one, PAIRED, middle, view.scene, variety)

    def _thing(self, rng: np.random.Generator, view: View) -> Image.Image:
        thing = dress(rng, view.drawing.rgba) if view.own else view.drawing.rgba
        if view.colour:
            thing = recolour(thing, COLOURS[view.colour])
        if view.accessory:
            worn = self.accessories[view.accessory]
            # Of the drawing's own style where there is one: which it is, no caption says.
            worn = [one for one in worn if _style(one) == view.style] or worn
            thing = _wear(thing, worn[rng.integers(len(worn))].rgba, view.accessory)
        return thing


def _lit(rng: np.random.Generator, image: Image.Image, variety: Variety) -> Image.Image:
    light = 1 + _stray(rng, variety.light)
    tint = 1 + rng.uniform(-variety.tint, variety.tint, 3)
    return Image.fromarray((np.asarray(image, np.float32) * light * tint).clip(0, 255).astype(np.uint8))


def _stand(
    rng: np.random.Generator,
    image: Image.Image,
    thing: Image.Image,
    longest: float,
    middle: float,
    scene: str,
    variety: Variety,
) -> None:
    """Put a thing into a picture: its longer side and the middle of it are fractions of the picture."""
    size, longest = image.width, longest * (1 + _stray(rng, variety.size))
    factor = size * longest / max(thing.size)
    thing = thing.resize([max(1, round(s * factor)) for s in thing.size], Image.BILINEAR, reducing_gap=2.0)
    thing = thing.rotate(_stray(rng, variety.turn), Image.BILINEAR, expand=True)
    w, h = thing.size
    x = int(size * (middle + _stray(rng, variety.middle)) - w / 2)
    foot = FOOT + _stray(rng, variety.foot)
    if scene in FLOATING:  # in the middle of the picture
        y = int(size * (foot - 0.41) - h / 2)
    else:
        y = int(size * foot - h)
        _shadow(image, x, y, w, h)
    image.paste(thing, (x, y), thing)


def _stray(rng: np.random.Generator, spread: float) -> float:
    return float(rng.uniform(-spread, spread))


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
