"""How the view, the scene, the light and the camera of a face are drawn. The face itself is drawn in `parameters`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

_PLACES = {"outdoors": 18, "town": 20, "room": 25, "shapes": 8, "texture": 12, "bokeh": 4, "foliage": 13}

_MOODS: dict[str, dict[str, float]] = {
    "sun": {"outdoors": 4, "town": 4, "foliage": 4, "texture": 1.5, "shapes": 1},
    "overcast": {"outdoors": 4, "town": 4, "foliage": 3, "texture": 1, "shapes": 1},
    "window": {"room": 4, "texture": 1, "shapes": 1.5},
    "lamp": {"room": 4, "texture": 1, "shapes": 1.5, "bokeh": 1},
    "studio": {"room": 1.5, "texture": 2.5, "shapes": 1, "bokeh": 1},
    "night": {"room": 0.7, "town": 0.8, "bokeh": 4, "outdoors": 0.4},
    "flash": {"room": 0.7, "town": 0.4, "texture": 0.6, "bokeh": 0.8, "foliage": 0.4},
    "back": {"outdoors": 1.6, "town": 1.4, "foliage": 1.4, "room": 1},
    "any": {"outdoors": 1.5, "town": 1.5, "foliage": 1.5, "room": 1.5, "shapes": 1.5, "texture": 1.5, "bokeh": 1.5},
}
"""What lights a scene, with its weight by place."""


def pick(rng: np.random.Generator, weights: Mapping[str, float | int]) -> str:
    """One of the names, each as likely as its weight says among them.

    `rng.choice(names)` would draw the same, but an interrupt is lost while NumPy (2.4) makes a text of what it has
    drawn from an array of
    them: in a loop of nothing else that is the fate of a third of all Ctrl-C.
    """
    shares = np.array(list(weights.values()), dtype=float)
    return list(weights)[rng.choice(len(weights), p=shares / shares.sum())]


def sample_view(rng: np.random.Generator, drawn: dict[str, Any]) -> dict[str, Any]:
    """Pose and framing: half are portraits as FaceSynthetics frames them, others from head and shoulders far off to a
    tight crop.
    """
    yaw = rng.uniform(-75, 75) if rng.random() < 0.3 else rng.normal(0, 24)
    kind = pick(rng, {"portrait": 0.52, "free": 0.26, "tight": 0.14, "cut": 0.08})
    low, high = {"portrait": (0.5, 0.66), "free": (0.26, 0.62), "tight": (0.6, 1.0), "cut": (0.4, 0.95)}[kind]
    share = rng.uniform(low, high)
    spread = {"portrait": 0.07, "free": 0.18, "tight": 0.1, "cut": 0.4}[kind]
    room = max(0.06, 0.8 - share)
    level = {"portrait": 0.0, "free": 0.1, "tight": 0.03, "cut": 0.0}[kind]
    return {
        "yaw": yaw,
        "pitch": rng.normal(0, 13) if rng.random() < 0.85 else rng.uniform(-35, 35),
        "roll": rng.normal(0, 11) if rng.random() < 0.9 else rng.uniform(-30, 30),
        "body_yaw": 0.55 * yaw + rng.normal(0, 14),
        "field_of_view": rng.choice(
            [rng.uniform(8, 18), rng.uniform(16, 32), rng.uniform(25, 42)], p=[0.45, 0.42, 0.13]
        ),
        "head_share": share,
        "centre_x": rng.normal(0, spread),
        "centre_y": rng.normal(level, 0.09 if kind == "portrait" else 0.2 * room + 0.3 * (kind == "cut")),
    }


def sample_portrait_view(rng: np.random.Generator, drawn: dict[str, Any]) -> dict[str, Any]:
    """A narrow range, for a first model in minutes: the face large, near the middle and more or less towards the
    camera.
    """
    yaw, share = rng.normal(0, 14), rng.uniform(0.55, 0.9)
    return {
        "yaw": yaw,
        "pitch": rng.normal(0, 7),
        "roll": rng.normal(0, 6),
        "body_yaw": 0.55 * yaw + rng.normal(0, 8),
        "field_of_view": rng.uniform(10, 28),
        "head_share": share,
        "centre_x": rng.normal(0, 0.06),
        "centre_y": rng.normal(0.02, 0.05),
    }


def sample_scene(rng: np.random.Generator, drawn: dict[str, Any]) -> dict[str, Any]:
    """What stands behind and in front."""
    sharp = rng.random() < 0.5
    return {
        "backdrop": pick(rng, _PLACES),
        "backdrop_blur": rng.uniform(0, 0.002) if sharp else rng.gamma(1.5, 0.005),
        "backdrop_light": max(0.15, rng.normal(0.46, 0.16)),
        "occluder": pick(rng, {"none": 91, "hand": 5, "phone": 1, "cup": 1, "bar": 1, "card": 1}),
        "texture_seed": rng.integers(2**31 - 1),
        "lateral": 1.0,
    }


def _tinted(rng: np.random.Generator, spread: float | int, warm: float | int = 0.0) -> np.ndarray:
    """The colour of a source: near white, warmer (or colder) by `warm`, give or take `spread`."""
    heat = rng.normal(warm, spread)
    return np.clip(np.array([0.95 + heat, 0.95 + 0.2 * heat, 0.95 - heat]) + rng.normal(0, 0.02, 3), 0.1, 1)


def _vivid(rng: np.random.Generator) -> np.ndarray:
    """The colour of a neon sign, a screen or a stage light."""
    colour = rng.uniform(0.1, 1, 3)
    return colour / colour.max()


def sample_light(rng: np.random.Generator, drawn: dict[str, Any]) -> dict[str, Any]:
    """The sources of light, as the place has them: sun, clouds, a window, lamps, a studio, neon, a flash,
    back light.
    """
    mood = pick(
        rng, {name: places[drawn["backdrop"]] for name, places in _MOODS.items() if drawn["backdrop"] in places}
    )
    side = rng.choice([-1, 1])
    light: dict[str, Any] = {
        "key_azimuth": rng.normal(0, 65), "key_elevation": rng.normal(35, 20), "key_strength": rng.uniform(0.2, 1.3),
        "key_colour": _tinted(rng, 0.07), "key_hardness": rng.uniform(0, 1), "rim_strength": 0.0,
        "rim_azimuth": side * rng.uniform(110, 170), "rim_colour": _tinted(rng, 0.12), "fill_strength": 0.0,
        "fill_azimuth": rng.uniform(-180, 180), "fill_elevation": rng.normal(10, 25), "fill_colour": _tinted(rng, 0.1),
        "sky_strength": rng.uniform(0.2, 0.6), "sky_colour": _tinted(rng, 0.06),
        "ground_colour": rng.uniform(0.25, 0.75) * _tinted(rng, 0.08, 0.05), "surroundings": rng.beta(2, 1.5),
        "dapple": 0.0,
    }  # fmt: skip
    if mood == "sun":
        light |= {
            "key_strength": rng.uniform(0.7, 1.6),
            "key_elevation": rng.normal(38, 16),
            "key_hardness": rng.uniform(0.7, 1),
        }
        light |= {
            "key_colour": _tinted(rng, 0.04, 0.02),
            "sky_colour": _tinted(rng, 0.06, -0.1),
            "sky_strength": rng.uniform(0.15, 0.45),
        }
        light["dapple"] = (
            rng.uniform(0.3, 1) if rng.random() < (0.5 if drawn["backdrop"] == "foliage" else 0.1) else 0.0
        )
    elif mood == "overcast":
        light |= {"key_strength": rng.uniform(0, 0.4), "key_hardness": 0.2, "sky_strength": rng.uniform(0.35, 0.8)}
        light |= {"sky_colour": _tinted(rng, 0.04, -0.03), "key_elevation": rng.normal(60, 12)}
    elif mood == "window":
        light |= {
            "key_azimuth": side * rng.normal(70, 25),
            "key_elevation": rng.normal(15, 12),
            "key_hardness": rng.uniform(0.1, 0.6),
        }
        light |= {
            "sky_strength": rng.uniform(0.12, 0.4),
            "sky_colour": _tinted(rng, 0.05, 0.04),
            "key_colour": _tinted(rng, 0.05, -0.04),
        }
        light["dapple"] = rng.uniform(0.3, 1) if rng.random() < 0.08 else 0.0
    elif mood == "lamp":
        light |= {
            "key_colour": _tinted(rng, 0.06, 0.1),
            "sky_colour": _tinted(rng, 0.06, 0.07),
            "key_strength": rng.uniform(0.2, 0.9),
        }
        light |= {
            "fill_strength": rng.uniform(0, 0.7),
            "fill_colour": _tinted(rng, 0.08, 0.1),
            "key_elevation": rng.normal(50, 18),
        }
    elif mood == "studio":
        light |= {
            "key_azimuth": side * rng.normal(40, 18),
            "key_elevation": rng.normal(35, 12),
            "key_strength": rng.uniform(0.6, 1.3),
        }
        light |= {
            "fill_azimuth": -side * rng.normal(45, 20),
            "fill_strength": rng.uniform(0, 0.6),
            "sky_strength": rng.uniform(0.15, 0.6),
        }
        light |= {
            "rim_strength": rng.uniform(0, 1.0) if rng.random() < 0.5 else 0.0,
            "surroundings": rng.uniform(0, 0.4),
        }
    elif mood == "night":
        light |= {
            "key_colour": _vivid(rng),
            "fill_colour": _vivid(rng),
            "fill_strength": rng.uniform(0.1, 1.0),
            "rim_colour": _vivid(rng),
        }
        light |= {
            "sky_strength": rng.uniform(0.1, 0.35),
            "rim_strength": rng.uniform(0, 0.9),
            "backdrop_light": rng.uniform(0.1, 0.35),
        }
    elif mood == "flash":
        light |= {
            "key_azimuth": rng.normal(0, 8),
            "key_elevation": rng.normal(8, 6),
            "key_strength": rng.uniform(0.9, 1.6),
        }
        light |= {
            "key_hardness": 0.9,
            "sky_strength": rng.uniform(0.1, 0.3),
            "backdrop_light": rng.uniform(0.12, 0.45),
        }
    elif mood == "back":
        light |= {
            "key_azimuth": side * rng.uniform(105, 150),
            "rim_strength": rng.uniform(0.4, 1.5),
            "key_strength": rng.uniform(0.6, 1.6),
        }
        light |= {"sky_strength": rng.uniform(0.15, 0.45), "backdrop_light": rng.uniform(0.5, 0.95)}
    return light


def sample_camera(rng: np.random.Generator, drawn: dict[str, Any]) -> dict[str, Any]:
    """Exposure, colour, sharpness, noise and compression; most pictures are sound, a few are bad in one way."""
    wrong = rng.random()
    exposure = np.exp(rng.normal(0, 0.2))
    if wrong < 0.1:
        exposure = rng.choice([rng.uniform(0.35, 0.6), rng.uniform(1.5, 2.2)])
    return {
        "exposure": exposure,
        "contrast": rng.normal(1.02, 0.11),
        "saturation": rng.normal(1, 0.18) if rng.random() < 0.97 else 0.0,
        "warmth": rng.normal(-0.02, 0.05),
        "blur": rng.uniform(0.003, 0.008) if 0.1 < wrong < 0.16 else rng.gamma(1.2, 0.0009),
        "motion": rng.uniform(0.003, 0.018) if 0.16 < wrong < 0.21 else 0.0,
        "motion_angle": rng.uniform(-90, 90),
        "noise": rng.uniform(0.02, 0.07) if 0.21 < wrong < 0.28 else rng.gamma(1.2, 0.004),
        "jpeg_quality": rng.uniform(35, 95) if rng.random() < 0.5 else 100.0,
        "vignette": rng.uniform(0, 0.3) if rng.random() < 0.6 else 0.0,
    }
