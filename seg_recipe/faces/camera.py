"""From light to a picture: exposure, white balance, lens, sensor, JPEG."""

import io

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageFilter

from .light import GAMMA
from .parameters import FaceParameters


def develop(p: FaceParameters, light: Float32[np.ndarray, "size size 3"]) -> UInt8[np.ndarray, "size size 3"]:
    """What the camera makes of linear light (1 = white under the light of a well exposed picture), display-encoded."""
    size = light.shape[0]
    centre = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    fall = 1 - p.vignette * 0.5 * (centre[:, None] ** 2 + centre[None, :] ** 2)
    light = light * (p.exposure * fall)[..., None] * np.array([1 + p.warmth, 1, 1 - p.warmth], dtype=np.float32)
    light = light * np.float32(1.15) / (1 + np.float32(0.15) * light)
    shown = np.clip(light, 0, 1.3) ** np.float32(1 / GAMMA)
    grey = shown.mean(axis=2, keepdims=True)
    shown = grey + p.saturation * (shown - grey)
    shown = 0.5 + (shown - 0.5) * p.contrast
    picture = Image.fromarray((np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8))
    if p.blur * size > 0.15:
        picture = picture.filter(ImageFilter.GaussianBlur(p.blur * size))
    codes = _shaken(np.asarray(picture), p.motion * size, np.radians(p.motion_angle))
    if p.noise * 255 > 0.3:
        codes = _noisy(p, codes)
    return _through_jpeg(codes, round(p.jpeg_quality)) if p.jpeg_quality < 99.5 else codes


def _shaken(
    codes: UInt8[np.ndarray, "size size 3"], length: float | int, angle: float | int
) -> UInt8[np.ndarray, "size size 3"]:
    """The mean over a straight movement of `length` pixels; at the border its last pixels go on."""
    steps = round(length)
    if steps < 2:
        return codes
    size = codes.shape[0]
    padded = np.pad(codes, ((steps, steps), (steps, steps), (0, 0)), mode="edge")
    total = np.zeros(codes.shape, dtype=np.float32)
    for step in np.arange(steps) - (steps - 1) / 2:
        right, down = steps + round(float(step * np.cos(angle))), steps - round(float(step * np.sin(angle)))
        total += padded[down : down + size, right : right + size]
    return (total / steps + 0.5).astype(np.uint8)


def _noisy(p: FaceParameters, codes: UInt8[np.ndarray, "size size 3"]) -> UInt8[np.ndarray, "size size 3"]:
    """Noise of the sensor: most of it common to the three colours."""
    rng = np.random.default_rng((p.texture_seed, 3))
    size = codes.shape[0]
    grey = rng.standard_normal((size, size, 1), dtype=np.float32)
    noise = np.float32(0.8 * 255 * p.noise) * grey + np.float32(0.6 * 255 * p.noise) * rng.standard_normal(
        codes.shape, dtype=np.float32
    )
    noise = noise if p.lateral > 0 else noise[:, ::-1]
    return np.clip(codes + noise + np.float32(0.5), 0, 255).astype(np.uint8)


def _through_jpeg(codes: UInt8[np.ndarray, "size size 3"], quality: int) -> UInt8[np.ndarray, "size size 3"]:
    """What is left of a picture that was saved as JPEG."""
    file = io.BytesIO()
    Image.fromarray(codes).save(file, format="JPEG", quality=quality)
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))
