"""Hair: strands and locks as textures, and hair on the head's surface. What hangs from it is in `mane`."""

import numpy as np
from jaxtyping import Float32

from .anatomy import hair_line
from .canvas import blend, paint
from .geometry import Noise, smoothstep
from .head import HANGING
from .parameters import FaceParameters
from .skin import LABEL, Spot

CURLY = ("curly", "afro", "long_curly")
"""Hair styles whose strands are about as long as they are wide."""


def hair_locks(p: FaceParameters, noise: Noise, across: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fine strands and broad locks, both 0-1, for hair that falls along `down` (cm); curls are as long as they are
    wide.
    """
    curly = p.hair_style in CURLY
    width = 1.5 * p.hair_strand if curly else 0.8 * p.hair_strand
    length = width * (1.4 if curly else 11)
    wave = 1.4 * noise(across * 0.3, down * 0.22, 31) + (0.6 * noise(across, down, 35) if curly else 0.0)
    swing = np.sin(1.5 * down + 5 * noise(across * 0.5, down * 0.06, 37))
    wave = wave + p.hair_wave * (0.9 + 0.6 * noise(across * 0.4, down * 0.1, 38)) * swing
    shift = 5 * length * noise(across / width, across * 0.1, 36)  # strands start at heights of their own: no rows
    fine = 0.6 * noise((across + wave) / width, (down + shift) / length, 32)
    fine = fine + 0.4 * noise((across + wave) / (2.3 * width), (down + 0.7 * shift) / (1.6 * length), 39)
    locks = noise((across + wave) / (5 * width), (down + 0.5 * shift) / (3 * length), 33)
    return fine, 0.6 * locks + 0.4 * noise((across - wave) / (11 * width), down / (4 * length), 34)


def hair_albedo(
    p: FaceParameters, fine: np.ndarray, locks: np.ndarray, sheen: np.ndarray
) -> Float32[np.ndarray, "3 n"]:
    """Colour of hair: dark between locks, lighter strands, and a band (`sheen`, 0-1) where they mirror the light from
    above.
    """
    tint = 0.82 + 0.26 * fine + 0.38 * (locks - 0.4)
    colour = paint(p.hair_colour, fine.size) * np.clip(tint, 0.12, 1.5)
    gloss = sheen * (0.25 + fine) * (0.5 if p.hair_style in CURLY else 1.0)
    return (colour * (1 + 0.45 * gloss) + 0.05 * gloss).astype(np.float32)


def bend_normals(p: FaceParameters, normal: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Normals leant sideways and up by `amount`, unit length: relief that is too fine to be modelled."""
    bent = normal + amount * np.array([[0.55 * p.lateral], [0.25], [0.1]], dtype=np.float32)
    return (bent / np.sqrt((bent**2).sum(0) + 1e-9)).astype(np.float32)


def paint_hair(p: FaceParameters, noise: Noise, spot: Spot) -> None:
    """Hair that grows on the head's surface, from the hair line up; single strands reach beyond it."""
    if p.hair_style == "bald":
        return
    around = p.lateral * np.sign(spot.x) * np.radians(spot.azimuth) * 8
    fine, locks = hair_locks(
        p, noise, around + 0.5 * p.lateral * p.hair_parting * spot.y, spot.y + 0.35 * np.abs(spot.x)
    )
    clumps = noise(around * 1.1, 0.2 * spot.y, 72)
    tips = (0.3 + 1.2 * p.hair_raggedness) * (0.5 * fine + 0.5 * locks + 0.5 * clumps - 0.72)
    above = spot.y - hair_line(p, spot.azimuth) + tips * (1 + 1.6 * p.hair_fringe)
    if p.hair_style == "horseshoe":
        above = np.minimum.reduce([above, 6.8 - spot.y + 2 * tips, (spot.azimuth - 58) / 8 + tips])
    sparse = {"shaven": 0.55, "horseshoe": 0.6, "crop": 0.6}.get(p.hair_style, 0.75)
    grown = np.flatnonzero((above > 0) & (fine < sparse + 0.5 * smoothstep(0, 1.5, above)))
    sheen = np.exp(-(((spot.direction[1, grown] - 0.62) / 0.16) ** 2))
    colour = hair_albedo(p, fine[grown], locks[grown], sheen)
    share = {"shaven": 0.55, "crop": 0.85}.get(p.hair_style, 0.97) * smoothstep(-0.1, 0.7, above[grown])
    root = np.clip(0.65 + above[grown] / 1.2, 0, 1) if p.hair_style != "shaven" else 1.0
    # The skin beside the hair line lies in its shade.
    near = np.flatnonzero((above <= 0) & (above > -1.2) & (spot.label == LABEL["skin"]))
    spot.albedo[:, near] *= 1 - 0.22 * np.exp(above[near] / 0.4) * (p.hair_style not in ("shaven", "crop"))
    spot.albedo[:, grown] = blend(
        spot.albedo[:, grown], (colour * root).astype(np.float32), (0.35 + 0.65 * share).astype(np.float32)
    )
    spot.label[grown] = LABEL["hair"]
    spot.shine[grown] = 0.16 if p.hair_style in HANGING else 0.1
    lean = 0.55 * (fine[grown] - 0.5) + 0.8 * (locks[grown] - 0.5)
    spot.tilt[0, grown] = p.lateral * lean
    spot.tilt[1, grown] = 0.4 * lean
