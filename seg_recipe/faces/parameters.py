"""What a face is made of: `FaceParameters`, each with its unit and range, drawn by `sample`, mirrored by `mirror`."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from .circumstances import pick, sample_camera, sample_light, sample_portrait_view, sample_scene, sample_view

Colour = tuple[float, float, float]
"""(red, green, blue) of a surface under white light, each 0-1, display-encoded (sRGB)."""

_OPPOSITE = "changes its sign in a mirror"
_PARTNER = "changes places with another field in a mirror"


def _number(low: float | int, high: float | int, unit: str, mirror: str = "") -> dict[str, Any]:
    return {"range": (low, high), "unit": unit, "mirror": mirror}


def _choice(*options: str) -> dict[str, Any]:
    return {"options": options, "unit": "one of the options"}


_COLOUR = {"range": (0.0, 1.0), "unit": "sRGB"}


@dataclass(frozen=True)
class FaceParameters:
    """Everything that a picture of a face depends on, besides its size; `range`, `unit` and `options` are in each
    field's metadata.

    Lengths are centimetres on a head 23 cm high, angles degrees. +x is the VIEWER's right when the head looks at the
    camera, +y up, +z towards the camera; `right` is the viewer's right everywhere. Raises ValueError for a value
    outside its range.
    """

    # View
    yaw: float = field(
        default=0.0, metadata=_number(-75, 75, "degrees, the face turned to the viewer's right", _OPPOSITE)
    )
    pitch: float = field(default=0.0, metadata=_number(-35, 35, "degrees, the face turned up"))
    roll: float = field(
        default=0.0, metadata=_number(-30, 30, "degrees, the head tilted to the viewer's right", _OPPOSITE)
    )
    body_yaw: float = field(
        default=0.0, metadata=_number(-60, 60, "degrees, the torso turned to the viewer's right", _OPPOSITE)
    )
    field_of_view: float = field(default=16.0, metadata=_number(6, 45, "degrees, over the picture's height"))
    head_share: float = field(default=0.45, metadata=_number(0.2, 1.1, "head height over the picture's height"))
    centre_x: float = field(
        default=0.0, metadata=_number(-0.6, 0.6, "head centre, picture halves to the right of the middle", _OPPOSITE)
    )
    centre_y: float = field(default=0.05, metadata=_number(-0.6, 0.6, "head centre, picture halves above the middle"))

    # Identity
    head_width: float = field(default=1.0, metadata=_number(0.88, 1.12, "factor"))
    head_depth: float = field(default=1.0, metadata=_number(0.9, 1.1, "factor"))
    jaw_width: float = field(default=1.0, metadata=_number(0.75, 1.25, "factor"))
    chin_length: float = field(default=0.0, metadata=_number(-1, 1.2, "cm"))
    cheek_fullness: float = field(default=0.2, metadata=_number(-0.5, 1.2, "cm"))
    cheekbone: float = field(default=0.3, metadata=_number(0, 0.9, "cm"))
    brow_ridge: float = field(default=0.3, metadata=_number(0, 0.9, "cm"))
    forehead_slope: float = field(default=0.0, metadata=_number(-0.8, 0.8, "cm"))
    eye_spacing: float = field(
        default=3.15, metadata=_number(2.8, 3.6, "cm, from the middle of the face to an eye's centre")
    )
    eye_width: float = field(default=1.2, metadata=_number(0.8, 1.6, "cm, half the width"))
    eye_tilt: float = field(default=3.0, metadata=_number(-8, 12, "degrees, outer corners up"))
    eye_depth: float = field(default=0.9, metadata=_number(0.4, 1.5, "cm, of the socket"))
    nose_length: float = field(default=0.0, metadata=_number(-0.7, 0.8, "cm"))
    nose_width: float = field(default=1.0, metadata=_number(0.75, 1.45, "factor"))
    nose_height: float = field(default=2.1, metadata=_number(1.3, 3.0, "cm, of the tip above the face"))
    nose_bridge: float = field(default=0.7, metadata=_number(0.2, 1.3, "cm, of the bridge above the face"))
    lip_upper: float = field(default=0.6, metadata=_number(0.25, 1.6, "cm, height of the top lip"))
    lip_lower: float = field(default=0.8, metadata=_number(0.35, 1.6, "cm, height of the bottom lip"))
    mouth_width: float = field(default=2.5, metadata=_number(1.9, 3.2, "cm, half the width"))
    ear_size: float = field(default=1.0, metadata=_number(0.75, 1.3, "factor"))
    ear_angle: float = field(default=22.0, metadata=_number(5, 50, "degrees, away from the skull"))
    neck_width: float = field(default=5.0, metadata=_number(3.8, 7.0, "cm, half the width"))
    build: float = field(default=1.0, metadata=_number(0.8, 1.25, "factor, of the shoulders"))
    age: float = field(default=0.3, metadata=_number(0, 1, "share: 0 smooth, 1 deeply wrinkled"))
    skin_tone: float = field(default=3.0, metadata=_number(0, 9, "position on the Monk scale: 0 lightest, 9 darkest"))
    skin_red: float = field(default=0.1, metadata=_number(-0.5, 1, "share of extra redness"))
    freckles: float = field(default=0.0, metadata=_number(0, 1, "share"))
    shine: float = field(default=0.3, metadata=_number(0, 1, "share of specular light"))
    lid_fold: float = field(default=0.6, metadata=_number(0, 1, "share, depth of the upper lid's crease"))
    make_up: float = field(default=0.0, metadata=_number(0, 1, "share, on lips, lids and lashes"))
    lip_colour: Colour = field(default=(0.7, 0.2, 0.25), metadata=_COLOUR)
    eye_colour: Colour = field(default=(0.35, 0.22, 0.12), metadata=_COLOUR)

    # Expression
    gaze_x: float = field(
        default=0.0, metadata=_number(-35, 35, "degrees, the eyes turned to the viewer's right", _OPPOSITE)
    )
    gaze_y: float = field(default=0.0, metadata=_number(-25, 25, "degrees, the eyes turned up"))
    lid_right: float = field(default=1.0, metadata=_number(0, 1.3, "share: 0 shut, 1 open", _PARTNER))
    lid_left: float = field(default=1.0, metadata=_number(0, 1.3, "share: 0 shut, 1 open", _PARTNER))
    brow_right: float = field(default=0.0, metadata=_number(-0.7, 1.1, "cm, raised", _PARTNER))
    brow_left: float = field(default=0.0, metadata=_number(-0.7, 1.1, "cm, raised", _PARTNER))
    frown: float = field(default=0.0, metadata=_number(0, 1, "share"))
    smile: float = field(default=0.0, metadata=_number(-1, 1, "share: -1 corners down, 1 corners up"))
    jaw_open: float = field(default=0.0, metadata=_number(0, 3.2, "cm, between the lips"))
    mouth_shift: float = field(
        default=0.0, metadata=_number(-0.7, 0.7, "cm, the mouth pulled to the viewer's right", _OPPOSITE)
    )
    asymmetry: float = field(
        default=0.0, metadata=_number(-1, 1, "share: eye and lips higher on the viewer's right", _OPPOSITE)
    )
    teeth: float = field(default=0.5, metadata=_number(0, 1, "share of the opening that the upper teeth may fill"))

    # Hair
    hair_style: str = field(
        default="short",
        metadata=_choice(
            *("short", "bald", "shaven", "crop", "quiff", "curly", "afro", "bob"),
            *("long", "long_curly", "bun", "ponytail", "horseshoe"),
        ),
    )
    hair_thickness: float = field(default=1.2, metadata=_number(0.15, 6, "cm, above the skull"))
    hair_line: float = field(default=0.0, metadata=_number(-1.2, 1.6, "cm, above the usual line"))
    hair_recession: float = field(default=0.0, metadata=_number(0, 1, "share, at the temples"))
    hair_fringe: float = field(default=0.0, metadata=_number(0, 1, "share: 0 none, 1 down to the brows"))
    hair_over_ears: float = field(default=0.0, metadata=_number(0, 1, "share: 0 ears free, 1 covered"))
    hair_end: float = field(default=-14.0, metadata=_number(-30, -6, "cm, height of the ends of hanging hair"))
    hair_opening: float = field(
        default=60.0, metadata=_number(25, 110, "degrees from the middle of the face to hanging hair")
    )
    hair_parting: float = field(default=0.3, metadata=_number(-1, 1, "side of the parting", _OPPOSITE))
    hair_sweep: float = field(
        default=0.0, metadata=_number(-1, 1, "share: hair hangs over the right side (negative: left)", _OPPOSITE)
    )
    hair_wave: float = field(default=0.0, metadata=_number(0, 1, "share: 0 straight, 1 wavy"))
    hair_raggedness: float = field(default=0.4, metadata=_number(0, 1, "share"))
    hair_strand: float = field(default=0.2, metadata=_number(0.1, 0.5, "cm, width of a lock"))
    hair_colour: Colour = field(default=(0.25, 0.17, 0.12), metadata=_COLOUR)
    brow_thickness: float = field(default=0.4, metadata=_number(0.2, 0.75, "cm, half the height"))
    brow_arch: float = field(default=0.8, metadata=_number(0, 1.4, "factor: 0 straight, 1 arched"))
    brow_density: float = field(default=0.8, metadata=_number(0.35, 1, "share"))
    brow_colour: Colour = field(default=(0.2, 0.14, 0.1), metadata=_COLOUR)
    beard_style: str = field(
        default="none", metadata=_choice("none", "stubble", "moustache", "goatee", "chinstrap", "full")
    )
    beard_density: float = field(default=0.8, metadata=_number(0.3, 1, "share"))
    beard_thickness: float = field(default=0.4, metadata=_number(0.1, 2, "cm, above the chin"))
    beard_colour: Colour = field(default=(0.22, 0.15, 0.1), metadata=_COLOUR)

    # Worn
    headwear: str = field(
        default="none", metadata=_choice("none", "cap", "beanie", "hat", "headscarf", "headphones", "band", "visor")
    )
    headwear_line: float = field(default=5.5, metadata=_number(3.6, 8.5, "cm, height of the rim over the forehead"))
    headwear_colour: Colour = field(default=(0.3, 0.3, 0.5), metadata=_COLOUR)
    glasses: str = field(default="none", metadata=_choice("none", "spectacles", "sunglasses"))
    glasses_width: float = field(default=2.5, metadata=_number(2.1, 3.1, "cm, half the width of a lens"))
    glasses_height: float = field(default=1.7, metadata=_number(1.2, 2.4, "cm, half the height of a lens"))
    glasses_roundness: float = field(
        default=3.0, metadata=_number(2, 6, "exponent of the lens outline: 2 ellipse, 6 nearly a rectangle")
    )
    glasses_rim: float = field(default=0.2, metadata=_number(0.08, 0.4, "cm, width of the rim"))
    glasses_colour: Colour = field(default=(0.08, 0.08, 0.08), metadata=_COLOUR)
    facewear: str = field(default="none", metadata=_choice("none", "mask", "scarf"))
    facewear_colour: Colour = field(default=(0.6, 0.75, 0.85), metadata=_COLOUR)
    clothing: str = field(
        default="crew",
        metadata=_choice("crew", "v_neck", "wide_neck", "shirt", "turtleneck", "hood", "hood_up", "suit"),
    )
    clothing_colour: Colour = field(default=(0.3, 0.35, 0.4), metadata=_COLOUR)
    clothing_pattern: str = field(
        default="plain", metadata=_choice("plain", "stripes", "checks", "dots", "blotches", "knit")
    )
    clothing_second: Colour = field(default=(0.8, 0.8, 0.78), metadata=_COLOUR)
    pattern_scale: float = field(default=2.0, metadata=_number(0.5, 5, "cm, of one repeat"))

    # Light
    key_azimuth: float = field(
        default=30.0, metadata=_number(-150, 150, "degrees, the main light to the viewer's right", _OPPOSITE)
    )
    key_elevation: float = field(default=35.0, metadata=_number(-25, 80, "degrees, the main light up"))
    key_strength: float = field(default=0.9, metadata=_number(0, 2.5, "irradiance, 1 = white paper is white"))
    key_colour: Colour = field(default=(1.0, 0.96, 0.9), metadata=_COLOUR)
    key_hardness: float = field(default=0.6, metadata=_number(0, 1, "share: 0 no cast shadow, 1 a sharp one"))
    rim_strength: float = field(default=0.2, metadata=_number(0, 1.5, "irradiance, of a light behind"))
    rim_azimuth: float = field(
        default=140.0, metadata=_number(-170, 170, "degrees, the light behind to the viewer's right", _OPPOSITE)
    )
    rim_colour: Colour = field(default=(0.9, 0.95, 1.0), metadata=_COLOUR)
    fill_strength: float = field(
        default=0.0, metadata=_number(0, 1.5, "irradiance, of a second source without shadows")
    )
    fill_azimuth: float = field(
        default=-60.0, metadata=_number(-180, 180, "degrees, the second source to the viewer's right", _OPPOSITE)
    )
    fill_elevation: float = field(default=10.0, metadata=_number(-60, 80, "degrees, the second source up"))
    fill_colour: Colour = field(default=(1.0, 1.0, 1.0), metadata=_COLOUR)
    surroundings: float = field(
        default=0.5, metadata=_number(0, 1, "share of the light around that comes coloured from the background")
    )
    dapple: float = field(
        default=0.0, metadata=_number(0, 1, "share of the main light taken by leaves or blinds in its way")
    )
    sky_strength: float = field(default=0.5, metadata=_number(0.1, 1.2, "irradiance, from above"))
    sky_colour: Colour = field(default=(0.9, 0.95, 1.0), metadata=_COLOUR)
    ground_colour: Colour = field(default=(0.6, 0.5, 0.45), metadata=_COLOUR)

    # Scene and camera
    backdrop: str = field(
        default="outdoors", metadata=_choice("outdoors", "town", "room", "shapes", "texture", "bokeh", "foliage")
    )
    backdrop_blur: float = field(default=0.006, metadata=_number(0, 0.03, "radius over the picture's height"))
    backdrop_light: float = field(default=0.45, metadata=_number(0.02, 1, "mean brightness of the background, sRGB"))
    occluder: str = field(default="none", metadata=_choice("none", "hand", "phone", "cup", "bar", "card"))
    exposure: float = field(default=1.0, metadata=_number(0.35, 2.2, "factor"))
    contrast: float = field(default=1.0, metadata=_number(0.6, 1.5, "exponent"))
    saturation: float = field(default=1.0, metadata=_number(0, 1.6, "factor"))
    warmth: float = field(default=0.0, metadata=_number(-0.25, 0.25, "red up and blue down, as shares"))
    blur: float = field(default=0.001, metadata=_number(0, 0.008, "radius over the picture's height"))
    motion: float = field(default=0.0, metadata=_number(0, 0.02, "length over the picture's height"))
    motion_angle: float = field(
        default=0.0, metadata=_number(-90, 90, "degrees, its direction, up to the viewer's right", _OPPOSITE)
    )
    jpeg_quality: float = field(
        default=100.0, metadata=_number(15, 100, "quality of the JPEG that the picture went through, 100: none")
    )
    noise: float = field(default=0.01, metadata=_number(0, 0.08, "standard deviation, 1 = full scale"))
    vignette: float = field(default=0.1, metadata=_number(0, 0.5, "share of light lost in the corners"))
    lateral: float = field(
        default=1.0, metadata=_number(-1, 1, "1, or -1 where every random texture is mirrored", _OPPOSITE)
    )
    texture_seed: int = field(default=0, metadata={"range": (0, 2**31 - 1), "unit": "seed of every random texture"})

    def __post_init__(self):
        for item in fields(self):
            value, options, bounds = getattr(self, item.name), item.metadata.get("options"), item.metadata.get("range")
            if options and value not in options:
                raise ValueError(f"{item.name} is {value!r}; it can be {', '.join(options)}.")
            parts = value if isinstance(value, tuple) else (value,)
            if bounds and not all(bounds[0] <= part <= bounds[1] for part in parts):
                raise ValueError(
                    f"{item.name} is {value}; it is {item.metadata['unit']}, from {bounds[0]} to {bounds[1]}."
                )

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, strings and lists: one line of metadata.jsonl, which `FaceParameters(**line)` reads but for
        tuples made lists.
        """
        return asdict(self)


def mirror(parameters: FaceParameters) -> FaceParameters:
    """The same face seen in a mirror: its render is the mirror image, and in its mask right and left parts have
    changed places.
    """
    changed: dict[str, Any] = {}
    for item in fields(parameters):
        if item.metadata.get("mirror") == _OPPOSITE:
            changed[item.name] = -getattr(parameters, item.name)
        if item.metadata.get("mirror") == _PARTNER:
            part, side = item.name.rsplit("_", 1)
            changed[item.name] = getattr(parameters, f"{part}_{'left' if side == 'right' else 'right'}")
    return replace(parameters, **changed)


def sample(seed: int, index: int, portraits: bool = False) -> FaceParameters:
    """Face `index` of the series `seed`: a pure function of both, whatever was drawn before (numpy's PCG64, seeded
    with the pair).

    portraits: the same people, scenes and light, but from a narrow range of views (`sample_portrait_view`).
    """
    rng = np.random.default_rng((seed, index))
    view = sample_portrait_view if portraits else sample_view
    groups = (
        view,
        _sample_identity,
        _sample_expression,
        _sample_hair,
        _sample_worn,
        sample_scene,
        sample_light,
        sample_camera,
    )
    drawn: dict[str, Any] = {}
    for group in groups:
        drawn |= group(np.random.default_rng(rng.integers(2**63)), drawn)
    return FaceParameters(**_within_range(drawn))


def _within_range(drawn: dict[str, Any]) -> dict[str, Any]:
    """Plain Python values, cut to each field's range (normal distributions have tails)."""
    result: dict[str, Any] = {}
    for item in fields(FaceParameters):
        if item.name not in drawn:
            continue
        value = drawn[item.name]
        if isinstance(value, str) or item.name == "texture_seed":
            result[item.name] = value if isinstance(value, str) else int(value)
            continue
        low, high = item.metadata["range"]
        parts = value.tolist() if isinstance(value, np.ndarray) else [value]
        cut = tuple(round(float(min(max(part, low), high)), 4) for part in parts)
        result[item.name] = cut if isinstance(value, np.ndarray) else cut[0]
    return result


def _sample_identity(rng: np.random.Generator, drawn: dict[str, Any]) -> dict[str, Any]:
    def factor(spread: float) -> float:
        return rng.normal(1, spread)

    tone = rng.uniform(-0.3, 9.3) if rng.random() < 0.5 else rng.normal(3, 1.8)
    painted = rng.random() < 0.25
    eye_colours = [
        (0.28, 0.16, 0.08),
        (0.2, 0.11, 0.06),
        (0.45, 0.3, 0.15),
        (0.35, 0.45, 0.3),
        (0.35, 0.5, 0.65),
        (0.5, 0.55, 0.58),
    ]
    eye_shares = (
        np.array([0.3, 0.3, 0.1, 0.1, 0.1, 0.1]) if tone < 4.5 else np.array([0.4, 0.5, 0.07, 0.01, 0.01, 0.01])
    )
    return {
        "head_width": factor(0.04), "head_depth": factor(0.035), "jaw_width": factor(0.08),
        "chin_length": rng.normal(0, 0.4),
        "cheek_fullness": rng.normal(0.25, 0.35), "cheekbone": rng.normal(0.35, 0.2), "brow_ridge": rng.normal(0.35,
        0.2),
        "forehead_slope": rng.normal(0, 0.3), "eye_spacing": rng.normal(3.15, 0.13),
        "eye_width": rng.normal(1.06, 0.1), "eye_tilt": rng.normal(2.5, 3),
        "eye_depth": rng.normal(0.9, 0.2), "nose_length": rng.normal(0, 0.28),
        "nose_width": rng.normal(1 + 0.02 * (tone - 3), 0.13), "nose_height": rng.normal(1.85, 0.25),
        "nose_bridge": rng.normal(0.7, 0.22),
        "lip_upper": rng.normal(0.98 + 0.03 * tone, 0.18), "lip_lower": rng.normal(0.97 + 0.03 * tone, 0.18),
        "mouth_width": rng.normal(2.65, 0.22), "ear_size": factor(0.1), "ear_angle": rng.normal(22, 8),
        "neck_width": rng.normal(4.85, 0.5),
        "build": factor(0.08), "age": rng.beta(1.2, 2.0), "skin_tone": tone, "skin_red": rng.normal(0.15, 0.25),
        "freckles": rng.uniform(0.3, 1) if tone < 4 and rng.random() < 0.15 else 0.0, "shine": rng.beta(1.5, 3),
        "make_up": rng.uniform(0.2, 1) if painted else 0.0, "lid_fold": rng.beta(1.5, 1.2),
        "lip_colour": rng.uniform(0.35, 0.85) * np.array([1.0, rng.uniform(0.15, 0.6), rng.uniform(0.25, 0.75)]),
        "eye_colour": np.array(eye_colours[rng.choice(6, p=eye_shares / eye_shares.sum())]) * rng.uniform(0.7, 1.25),
    }  # fmt: skip


def _sample_expression(rng: np.random.Generator, drawn: dict[str, Any]) -> dict[str, Any]:
    lid = rng.normal(0.97, 0.14) if rng.random() < 0.9 else rng.choice([0.0, rng.uniform(0.2, 0.7)])
    brow = rng.normal(0, 0.3)
    return {
        "gaze_x": rng.normal(0, 13), "gaze_y": rng.normal(0, 8),
        "lid_right": lid + rng.normal(0, 0.05), "lid_left": lid + rng.normal(0, 0.05) - (rng.random() < 0.03),
        "brow_right": brow + rng.normal(0, 0.12), "brow_left": brow + rng.normal(0, 0.12), "frown": rng.beta(1, 2.5),
        "smile": rng.normal(0.1, 0.4), "jaw_open": 0.0 if rng.random() < 0.45 else rng.gamma(1.5, 0.6),
        "mouth_shift": rng.normal(0, 0.12), "asymmetry": rng.normal(0, 0.35), "teeth": rng.uniform(0, 1),
    }  # fmt: skip


def _hair_colour(rng: np.random.Generator, age: float, tone: float) -> np.ndarray:
    black, brown, blond, red, grey = (
        np.array(c)
        for c in ((0.1, 0.085, 0.08), (0.36, 0.25, 0.17), (0.74, 0.6, 0.42), (0.55, 0.29, 0.15), (0.7, 0.69, 0.67))
    )
    light = max(0.05, 1 - tone / 5)
    kind = rng.choice(4, p=np.array([0.4, 0.55, 0.4 * light, 0.18 * light]) / (0.95 + 0.58 * light))
    other = rng.choice(4)
    base = np.stack([black, brown, blond, red])
    colour = base[kind] + rng.uniform(0, 0.3) * (base[other] - base[kind])
    colour = colour + (grey - colour) * np.clip(rng.normal(1.6 * age - 0.55, 0.3), 0, 1)
    if rng.random() < 0.05:
        colour = rng.uniform(0.1, 0.85, 3)
    return colour * rng.uniform(0.75, 1.25)


_HAIR_THICKNESS = {
    "short": (0.6, 2.4), "bald": (0.15, 0.2), "shaven": (0.15, 0.3), "crop": (0.4, 1.2), "quiff": (1.0, 3.0),
    "curly": (1.4, 3.8),
    "afro": (2.5, 6.0), "bob": (1.0, 2.8), "long": (0.8, 2.4), "long_curly": (1.6, 4.0), "bun": (0.6, 1.4),
    "ponytail": (0.6, 1.4),
    "horseshoe": (0.3, 1.5),
}  # fmt: skip
"""cm above the skull, by style."""


def _sample_hair(rng: np.random.Generator, drawn: dict[str, Any]) -> dict[str, Any]:
    age, tone = drawn["age"], drawn["skin_tone"]
    style = pick(rng, {
        "short": 21, "bald": 3, "shaven": 6, "crop": 10, "quiff": 9, "curly": 8, "afro": 4, "bob": 13, "long": 15,
        "long_curly": 8,
        "bun": 5, "ponytail": 5, "horseshoe": 1 + 5 * age,
    })  # fmt: skip
    colour = _hair_colour(rng, age, tone)
    bearded = (
        rng.random() < (0.1 if style in ("bob", "long", "long_curly", "bun", "ponytail") else 0.62)
        and drawn["make_up"] == 0
    )
    styles = {"stubble": 3, "moustache": 2, "goatee": 2, "chinstrap": 1.5, "full": 4.0}
    beard = pick(rng, styles) if bearded else "none"
    fringed = rng.random() < 0.35
    return {
        "hair_style": style, "hair_thickness": rng.uniform(*_HAIR_THICKNESS[style]), "hair_line": rng.normal(0, 0.5),
        "hair_recession": rng.beta(1, 3) + 0.3 * age * (style in ("short", "crop", "shaven")),
        "hair_fringe": rng.uniform(0.3, 1) if fringed else 0, "hair_over_ears": rng.uniform(0.3,
        1) if rng.random() < 0.3 else 0,
        "hair_end": -(7 + rng.gamma(2, 2)) if style == "bob" else -rng.uniform(13, 30),
        "hair_opening": rng.uniform(44, 76) if rng.random() < 0.75 else rng.uniform(85, 105),
        "hair_parting": rng.uniform(-1, 1), "hair_raggedness": rng.beta(2, 2),
        "hair_sweep": rng.choice([-1, 1]) * rng.uniform(0.2, 1) if rng.random() < 0.3 else 0.0,
        "hair_wave": rng.beta(1, 1) if rng.random() < 0.45 else 0.0,
        "hair_strand": rng.uniform(0.12, 0.4), "hair_colour": colour, "brow_thickness": rng.normal(0.44, 0.11),
        "brow_arch": rng.normal(0.75, 0.3), "brow_density": rng.normal(0.72, 0.18),
        "brow_colour": np.clip(colour * rng.uniform(0.5, 0.95), 0, 0.6), "beard_style": beard,
        "beard_density": rng.beta(4, 1.5),
        "beard_thickness": rng.gamma(1.6, 0.35), "beard_colour": colour * rng.uniform(0.6, 1.05),
    }  # fmt: skip


def _cloth_colour(rng: np.random.Generator) -> np.ndarray:
    grey = rng.uniform(0.05, 0.95) ** 1.1
    return np.clip(grey + rng.normal(0, rng.choice([0.02, 0.09, 0.25]), 3), 0.02, 0.95)


def _sample_worn(rng: np.random.Generator, drawn: dict[str, Any]) -> dict[str, Any]:
    headwear = pick(
        rng,
        {
            "none": 84,
            "cap": 4,
            "beanie": 3.5,
            "hat": 2.5,
            "headscarf": 2.5,
            "headphones": 2,
            "band": 0.8,
            "visor": 0.8,
        },
    )
    facewear = pick(rng, {"none": 95, "mask": 4, "scarf": 1})
    glasses = pick(rng, {"none": 79, "spectacles": 15, "sunglasses": 6})
    dark = rng.random() < 0.65
    return {
        "headwear": headwear, "headwear_line": rng.uniform(3.9, 7.6), "headwear_colour": _cloth_colour(rng),
        "glasses": "none" if headwear == "visor" else glasses, "glasses_width": rng.uniform(2.15, 2.95),
        "glasses_height": rng.uniform(1.25, 2.3),
        "glasses_roundness": rng.uniform(2, 5), "glasses_rim": rng.uniform(0.1, 0.36),
        "glasses_colour": rng.uniform(0.02, 0.15) + np.zeros(3) if dark else rng.uniform(0.1, 0.75, 3),
        "facewear": facewear, "facewear_colour": np.array([0.55, 0.75,
        0.88]) if rng.random() < 0.4 else _cloth_colour(rng),
        "clothing": pick(rng, {
            "crew": 26, "v_neck": 10, "wide_neck": 10, "shirt": 20, "turtleneck": 12, "hood": 8, "hood_up": 3,
            "suit": 15,
        }),
        "clothing_colour": _cloth_colour(rng), "clothing_second": _cloth_colour(rng), "pattern_scale": rng.uniform(0.6,
        4.5),
        "clothing_pattern": pick(rng, {"plain": 45, "stripes": 14, "checks": 12, "dots": 7, "blotches": 12,
        "knit": 10}),
    }  # fmt: skip
