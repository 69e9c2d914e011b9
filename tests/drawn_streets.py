"""Streets for the results page: pictures of 480 x 360 with CamVid's eleven classes, drawn by a camera in a street.

    python tests/drawn_streets.py input/streets

Writes FOLDER/{train,val}/images, FOLDER/{train,val}/annotations and FOLDER/labels.json. Things lie in metres: x to the
right of the camera, y above the ground, z ahead; what is far is drawn first. Poles and signs are a few pixels wide.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

NAMES = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
ID = {name: number for number, name in enumerate(NAMES)}
WIDTH, HEIGHT, EYE = 480, 360, 1.5  # pixels, pixels, metres
Colour = Sequence[float]


class Scene:
    """One picture and its mask, drawn into together."""

    def __init__(self, seed: Sequence[int]):
        self.random = np.random.default_rng(seed)
        self.image = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        self.mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        self.focal = WIDTH * self.draw(0.8, 1.1)
        self.centre = np.array([WIDTH * self.draw(0.35, 0.65), HEIGHT * self.draw(0.38, 0.52)])

    def draw(self, low: float, high: float) -> float:
        return float(self.random.uniform(low, high))

    def grey(self, low: float, high: float, tint: float = 12) -> Colour:
        return tuple(np.clip(self.draw(low, high) + self.random.normal(0, tint, 3), 5, 250).tolist())

    def any_colour(self) -> Colour:
        return tuple(self.random.uniform(25, 230, 3).tolist())

    def point(self, x: float, y: float, z: float) -> np.ndarray:
        return self.centre + self.focal / z * np.array([x, EYE - y])

    def polygon(self, name: str, corners: Sequence[tuple[float, float, float]], colour: Colour) -> None:
        self.fill(name, np.array([self.point(*corner) for corner in corners]), colour)

    def fill(self, name: str, points: np.ndarray, colour: Colour) -> None:
        whole = np.round(points).astype(np.int32)
        cv2.fillPoly(self.image, [whole], colour)
        cv2.fillPoly(self.mask, [whole], ID[name])

    def box(self, name: str, x: float, y: float, z: float, width: float, height: float, colour: Colour) -> None:
        """An upright rectangle that faces the camera; x: of its middle, y: of its lower edge."""
        half = width / 2
        corners = [(x - half, y, z), (x + half, y, z), (x + half, y + height, z), (x - half, y + height, z)]
        self.polygon(name, corners, colour)

    def disc(self, name: str, x: float, y: float, z: float, radius: tuple[float, float], colour: Colour) -> None:
        turn = np.linspace(0, 2 * np.pi, 17)[:-1]
        ring = np.stack([radius[0] * np.cos(turn), -radius[1] * np.sin(turn)], 1)
        self.fill(name, self.point(x, y, z) + ring * self.focal / z, colour)

    def line(self, name: str, start: np.ndarray, end: np.ndarray, thick: float, colour: Colour) -> None:
        ends = [tuple(np.round(point).astype(int).tolist()) for point in (start, end)]
        cv2.line(self.image, *ends, colour, max(1, round(thick)))
        cv2.line(self.mask, *ends, ID[name], max(1, round(thick)))

    def ground(self, road: tuple[float, float], pavement: float) -> None:
        top, low = self.grey(120, 240, 25), self.grey(170, 250, 15)
        share = np.linspace(0, 1, HEIGHT)[:, None, None]
        self.image[:] = np.array(top) * (1 - share) + np.array(low) * share
        for _ in range(int(self.draw(0, 6))):  # clouds
            middle = (int(self.draw(0, WIDTH)), int(self.draw(0, HEIGHT * 0.45)))
            cv2.ellipse(self.image, middle, (int(self.draw(20, 80)), int(self.draw(5, 18))), 0, 0, 360, low, -1)
        far, near = 250.0, 0.6
        left, right = road
        grey = self.grey(60, 150, 6)
        stone = self.grey(80, 190, 10)
        edge = pavement + 60
        for name, low_x, high_x, colour in (
            ("pavement", left - edge, right + edge, stone),
            ("road", left, right, grey),
        ):
            self.polygon(name, [(low_x, 0, near), (high_x, 0, near), (high_x, 0, far), (low_x, 0, far)], colour)
        white = self.grey(190, 245, 5)
        middle, length = self.draw(left + 2.5, right - 2.5), self.draw(1.5, 4)
        for z in np.arange(self.draw(2, 4), 60, 2.2 * length):  # marks of the lane are road
            corners = [(middle - 0.08, 0, z), (middle + 0.08, 0, z), (middle + 0.08, 0, z + length)]
            self.polygon("road", [*corners, (middle - 0.08, 0, z + length)], white)
        if self.draw(0, 1) < 0.3:  # a crossing
            z = self.draw(5, 14)
            for x in np.arange(left + 0.3, right - 0.5, 1.0):
                self.polygon("road", [(x, 0, z), (x + 0.5, 0, z), (x + 0.5, 0, z + 2.5), (x, 0, z + 2.5)], white)
        for x in np.arange(-12, 12, 1.5):  # joints between slabs
            if not left - 0.2 < x < right + 0.2:
                self.line("pavement", self.point(x, 0, 2), self.point(x, 0, 60), 1, tuple(0.85 * np.array(stone)))
        self.polygon("road", [(left, 0, near), (right, 0, near), (right, 0, 1), (left, 0, 1)], grey)

    def facade(self, x: float, near: float, far: float) -> None:
        height, colour = self.draw(5, 18), self.grey(60, 220, 25)
        side = np.sign(x)
        self.box("building", x + side * 6, 0, near, 12, height, tuple(0.8 * np.array(colour)))
        self.polygon("building", [(x, 0, near), (x, height, near), (x, height, far), (x, 0, far)], colour)
        glass, wide = self.grey(30, 120, 15), self.draw(0.8, 1.6)
        for y in np.arange(1.2, height - 1.5, 3.0):
            for z in np.arange(near + 0.8, far - wide, 2 * wide):
                corners = [(x, y, z), (x, y + 1.5, z), (x, y + 1.5, z + wide), (x, y, z + wide)]
                self.polygon("building", corners, glass)

    def tree(self, x: float, z: float) -> None:
        height, leaf = self.draw(3, 7), np.array([self.draw(20, 80), self.draw(60, 150), self.draw(20, 90)])
        self.box("tree", x, 0, z, 0.3, height, self.grey(40, 90, 10))
        for _ in range(14):
            place = self.random.normal(0, [0.8, 0.7])
            size = self.draw(0.4, 1.1)
            shade = tuple((leaf * self.draw(0.6, 1.3)).tolist())
            self.disc("tree", x + place[0], height + place[1], z, (size, size), shade)

    def pole(self, x: float, z: float) -> None:
        colour, height = self.grey(50, 170, 8), self.draw(2.3, 6)
        self.line("pole", self.point(x, 0, z), self.point(x, height, z), 0.1 * self.focal / z, colour)
        if self.draw(0, 1) < 0.6:
            red = [(200, 30, 30), (30, 60, 190), (230, 200, 40)][self.random.integers(3)]
            if self.draw(0, 1) < 0.5:
                self.disc("sign", x, height, z, (0.35, 0.35), red)
                self.disc("sign", x, height, z, (0.22, 0.22), (235, 235, 235))
            else:
                self.box("sign", x, height - 0.3, z, 0.7, 0.6, red)
        else:
            end = self.point(x - np.sign(x) * 1.2, height, z)
            self.line("pole", self.point(x, height, z), end, 0.08 * self.focal / z, colour)

    def fence(self, x: float, z: float) -> None:
        colour, length = self.grey(40, 200, 20), self.draw(4, 10)
        for step in np.arange(length, 0, -0.5):
            bar = 0.06 * self.focal / (z + step)
            self.line("fence", self.point(x, 0, z + step), self.point(x, 1, z + step), bar, colour)
        for y in (0.3, 0.95):
            self.line("fence", self.point(x, y, z), self.point(x, y, z + length), 0.07 * self.focal / z, colour)

    def car(self, x: float, z: float) -> None:
        colour = np.array(self.any_colour())
        width, height, length = self.draw(1.6, 1.9), self.draw(1.35, 1.9), self.draw(3.2, 4.5)
        side = x - np.sign(x) * width / 2
        flank = [(side, 0.3, z), (side, 0.9, z), (side, height, z + 0.6), (side, height, z + length - 1)]
        self.polygon("car", [*flank, (side, 0.9, z + length), (side, 0.3, z + length)], tuple(0.7 * colour))
        self.box("car", x, 0.25, z, width, 0.75, tuple(colour))
        roof = [(x - width / 2, 0.95, z), (x + width / 2, 0.95, z), (x + width * 0.4, height, z)]
        self.polygon("car", [*roof, (x - width * 0.4, height, z)], tuple(0.9 * colour))
        self.box("car", x, 1.0, z, width * 0.75, height - 1.1, self.grey(20, 90, 5))
        for wheel in (-0.38, 0.38):
            self.box("car", x + wheel * width, 0, z, 0.25, 0.35, (20, 20, 22))
            self.box("car", x + wheel * width, 0.65, z, 0.25, 0.15, (210, 40, 40))

    def person(self, x: float, z: float, name: str = "pedestrian", ground: float = 0.0) -> None:
        tall, coat, skin = self.draw(1.5, 1.9), self.any_colour(), self.grey(110, 220, 10)
        trousers = self.grey(20, 120, 15)
        for leg in (-0.1, 0.1):
            self.box(name, x + leg, ground, z, 0.15, 0.5 * tall, trousers)
        self.disc(name, x, ground + 0.62 * tall, z, (0.24, 0.2 * tall), coat)
        self.disc(name, x, ground + 0.92 * tall, z, (0.11, 0.13), skin)

    def bicyclist(self, x: float, z: float) -> None:
        for wheel in (-0.5, 0.5):
            self.disc("bicyclist", x + wheel, 0.33, z, (0.33, 0.33), (30, 30, 32))
            self.disc("bicyclist", x + wheel, 0.33, z, (0.24, 0.24), self.grey(90, 150, 5))
        self.box("bicyclist", x, 0.35, z, 1.0, 0.1, self.any_colour())
        self.person(x, z, "bicyclist", 0.3)

    def finished(self) -> np.ndarray:
        image = self.image * self.draw(0.55, 1.15)
        slope = np.linspace(self.draw(0.75, 1.15), self.draw(0.75, 1.15), WIDTH, dtype=np.float32)
        image = cv2.GaussianBlur(image * slope[None, :, None], (0, 0), self.draw(0.4, 0.8))
        coarse = self.random.normal(0, 6, (HEIGHT // 8, WIDTH // 8, 1)).astype(np.float32)
        image += cv2.resize(coarse, (WIDTH, HEIGHT))[..., None] + self.random.normal(0, 4, image.shape)
        return np.clip(image, 0, 255).astype(np.uint8)


def street(seed: Sequence[int]) -> Scene:
    scene = Scene(seed)
    half, pavement = scene.draw(3, 6), scene.draw(2, 4)
    shift = scene.draw(-0.6, 0.6) * half
    left, right = shift - half, shift + half
    scene.ground((left, right), pavement)
    things: list[tuple[float, Callable[..., None], tuple[float, ...]]] = []
    for wall in (left - pavement, right + pavement):
        z = scene.draw(3, 8)
        while z < 90:
            depth = scene.draw(6, 16)
            if scene.draw(0, 1) < 0.8:
                things.append((z + depth, scene.facade, (wall, z, z + depth)))
            z += depth + (scene.draw(0, 8) if scene.draw(0, 1) < 0.3 else 0)
    kinds: list[tuple[Callable[..., None], float, Callable[[float], float]]] = [
        (scene.tree, 5, lambda side: side * (pavement - 0.6)), (scene.pole, 5, lambda side: side * 0.4),
        (scene.fence, 1.2, lambda side: side * 0.25), (scene.person, 5, lambda side: side * scene.draw(0.5, pavement)),
        (scene.car, 5, lambda side: -side * scene.draw(1.1, half)),
        (scene.bicyclist, 1.2, lambda side: -side * scene.draw(0.5, 1.5)),
    ]  # fmt: skip
    for thing, most, off in kinds:
        for _ in range(scene.random.poisson(0.7 * most)):
            side = 1 if scene.draw(0, 1) < 0.5 else -1
            z = 4 + 36 * scene.draw(0, 1) ** 1.5
            things.append((z, thing, ((right if side > 0 else left) + off(side), z)))
    for _, thing, place in sorted(things, key=lambda each: -each[0]):
        thing(*place)
    return scene


def main() -> None:
    folder = Path(sys.argv[1])
    for number, (split, count) in enumerate((("train", 300), ("val", 60))):
        for part in ("images", "annotations"):
            (folder / split / part).mkdir(parents=True)
        for place in range(count):
            scene = street((number, place))
            picture = cv2.cvtColor(scene.finished(), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(folder / split / "images" / f"{place:06d}.png"), picture)
            cv2.imwrite(str(folder / split / "annotations" / f"{place:06d}_seg.png"), scene.mask)
    (folder / "labels.json").write_text(json.dumps({"names": NAMES}))


if __name__ == "__main__":
    main()
