"""Light: a main source that casts shadows, one behind, the sky and the ground; then the colour that
reaches the eye.
"""

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from .attached import brim_shadow
from .canvas import Canvas
from .geometry import Frame, Noise, Row, StarSurface, smoothstep
from .parameters import FaceParameters

GAMMA = 2.2
"""Between display-encoded colours (sRGB, nearly) and light."""


def direction_of(azimuth: float | int, elevation: float | int) -> Float32[np.ndarray, "3 1"]:
    """Unit vector towards a light, degrees: azimuth to the viewer's right of the camera, elevation up."""
    a, e = np.radians([azimuth, elevation])
    return np.array([[np.sin(a) * np.cos(e)], [np.sin(e)], [np.cos(a) * np.cos(e)]], dtype=np.float32)


def cast_shadow(
    p: FaceParameters,
    points: Float32[np.ndarray, "3 n"],
    towards: Float32[np.ndarray, "3 1"],
    head: Frame,
    solids: tuple[StarSurface, StarSurface | None],
) -> Float32[np.ndarray, " n"]:
    """Share of the main light that the head (nose, hair, hat), what hangs from it and a brim let pass, 0-1.

    solids: the head and what hangs. The nearest miss on a few steps towards the light counts.
    """
    surface, mane = solids
    local = head.points_in(points)
    way = head.rotation.T @ towards
    passed = np.ones(points.shape[1], dtype=np.float32)
    for step in (0.7, 1.3, 2.2, 3.6, 6.0, 9.5, 14.0):
        gap = surface.outside(local + step * way)
        soft = (0.10 + 0.5 * (1 - p.key_hardness)) * step
        np.minimum(passed, smoothstep(-0.5 * soft - 0.06, 0.5 * soft + 0.02, gap), out=passed)
        if mane is not None and step in (1.3, 3.6, 9.5):
            gap = mane.outside(local + step * way - mane.centre)
            np.minimum(passed, smoothstep(-0.8 * soft - 0.2, 0.5 * soft, gap), out=passed)
    np.minimum(passed, brim_shadow(p, local, way, 0.5 * (1 - p.key_hardness)), out=passed)
    return 1 - (0.35 + 0.6 * p.key_hardness) * (1 - passed)


Around = Float32[np.ndarray, "3 4"]
"""Linear colour of what surrounds the head on the viewer's right and left, above and below."""


def surroundings(backdrop: UInt8[np.ndarray, "size size 3"]) -> Float32[np.ndarray, "3 4"]:
    """The light that a background sends to each side, as colours: brighter than usual or darker, but by less than the
    picture is.
    """
    halves = np.asarray(Image.fromarray(backdrop).resize((8, 8), Image.Resampling.BOX), dtype=np.float32) / 255
    light = halves ** np.float32(GAMMA)
    sides = np.stack([part.mean(axis=(0, 1)) for part in (light[:, 4:], light[:, :4], light[:4], light[4:])], axis=1)
    mean = float(light.mean())
    return (sides * (0.35 + 1.1 * mean) / max(mean, 0.02)).astype(np.float32)


def dapple(
    p: FaceParameters, noise: Noise, points: Float32[np.ndarray, "3 n"], towards: Float32[np.ndarray, "3 1"]
) -> Row:
    """Share of the main light that leaves (for one seed in three: blinds) let pass: a pattern thrown along
    the light.
    """
    away = float(towards[2, 0])
    x, y, _ = points - towards * (points[2] / np.float32(min(away, -0.35) if away < 0 else max(away, 0.35)))
    if p.texture_seed % 3:
        pattern = noise.octaves(p.lateral * 0.22 * x, 0.22 * y, 3, 90)
    else:
        pattern = 0.5 + 0.5 * np.sin(1.3 * y + 0.15 * p.lateral * x, dtype=np.float32)
    return (1 - p.dapple * smoothstep(0.42, 0.56, pattern)).astype(np.float32)


def shade(
    canvas: Canvas,
    p: FaceParameters,
    head: Frame,
    solids: tuple[StarSurface, StarSurface | None],
    noise: Noise,
    behind: Around,
) -> Float32[np.ndarray, "3 n"]:
    """Linear light from every point that was met (others stay 0). behind: what `surroundings` found in the
    background.
    """
    result = np.zeros_like(canvas.albedo)
    seen = np.flatnonzero(canvas.met())
    rays = canvas.rays.take(seen)
    normal, point = canvas.normal[:, seen], rays.at(canvas.depth[seen])
    normal = normal * np.where((normal * rays.direction).sum(0) > 0, np.float32(-1), np.float32(1))
    albedo = np.clip(canvas.albedo[:, seen], 0, 1) ** np.float32(GAMMA)
    around = canvas.open[seen]
    key = direction_of(p.key_azimuth, p.key_elevation)
    facing = (normal * key).sum(0)
    lit = np.flatnonzero(facing > -0.2)
    shadow = np.ones_like(facing)
    shadow[lit] = cast_shadow(p, point[:, lit] + 0.25 * normal[:, lit], key, head, solids)
    if p.dapple > 0:
        shadow[lit] *= dapple(p, noise, point[:, lit], key)
    # Light scatters under skin: the edge of a shadow is soft, and softest in red.
    wrap = np.array([[0.22], [0.12], [0.09]], dtype=np.float32)
    diffuse = np.maximum((facing + wrap) / (1 + wrap), 0) * shadow * (0.35 + 0.65 * around)
    colours = [
        np.array(c, dtype=np.float32)[:, None]
        for c in (p.key_colour, p.sky_colour, p.ground_colour, p.rim_colour, p.fill_colour)
    ]
    up = 0.5 + 0.5 * normal[1]
    ambient = colours[2] + up * (colours[1] - colours[2])
    right, left, above, below = (behind[:, k : k + 1] for k in range(4))
    ambient += p.surroundings * (
        0.5 * (right + left + normal[0] * (right - left) + normal[1] * (above - below)) - ambient
    )
    ambient *= p.sky_strength * around
    if p.fill_strength > 0:
        soft = np.maximum(0.3 + 0.7 * (normal * direction_of(p.fill_azimuth, p.fill_elevation)).sum(0), 0)
        ambient += p.fill_strength * colours[4] * soft * around
    rim = np.maximum((normal * direction_of(p.rim_azimuth, 20)).sum(0), 0)
    light = p.key_strength * colours[0] * diffuse + ambient + p.rim_strength * colours[3] * rim * around
    half = key - rays.direction
    half = half / np.sqrt((half**2).sum(0))
    gloss = np.maximum((normal * half).sum(0), 0) ** 22
    grazing = (1 - np.abs((normal * rays.direction).sum(0))) ** 3
    shine = canvas.shine[seen]
    specular = (
        0.45
        * shine
        * (p.key_strength * colours[0] * gloss * shadow + 0.5 * p.sky_strength * colours[1] * grazing * up * around)
    )
    result[:, seen] = albedo * light + specular + canvas.glare[seen] * p.sky_strength * colours[1]
    return result
