"""The pixel sums and their gradient with torch operations on one tile at a time: for what neither the loops of a CPU
nor the kernels of a GPU take (see `seg_recipe.fast`), and for float64 everywhere.

Those do the same in a fraction of the time; the tests hold the three against each other.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from seg_recipe.upsampling import map_tiles, tiles

SAFE_SPREAD = 80.0
"""exp(-80) is a normal float32 number. Below this spread of a source pixel's logits no maximum has to be taken at full
size.
"""


def sums(logits, labels, *, power, ignore_index, uniform):
    """The six sums of PixelSums (6, images, classes), the last, which has no classes, repeated."""
    source, needs_maximum = _shifted(logits)
    total = source.new_zeros(6, *source.shape[:2])

    def sums_of(chosen, tile):
        target = _target(labels[chosen, ..., tile.rows, tile.columns], source.shape[1], ignore_index, source.dtype)
        return _tile_sums(_values(source[chosen], tile, needs_maximum), target, power, uniform)

    for chosen, _, part in map_tiles(sums_of, _tiles(source, labels), source.device):
        total[:, chosen] += part
    return total


def gradient(logits, labels, slopes, *, power, ignore_index, uniform):
    """The gradient at the logits, from the gradients (4, images, classes) at the first four sums."""
    source, needs_maximum = _shifted(logits)
    total = torch.zeros_like(source)

    def gradient_of(chosen, tile):
        target = _target(labels[chosen, ..., tile.rows, tile.columns], source.shape[1], ignore_index, source.dtype)
        values = _values(source[chosen], tile, needs_maximum)
        return tile.adjoint(
            _tile_gradient(values, target, power, uniform, slopes[:, chosen, :, None]).unflatten(-1, tile.size)
        )

    for chosen, tile, part in map_tiles(gradient_of, _tiles(source, labels), source.device):
        total[chosen, :, tile.source_rows, tile.source_columns] += part
    return total


def _tile_sums(values, target, power, uniform):
    """The six sums of PixelSums over one tile (6, images, classes); the last, which has no classes, repeated.
    Overwrites the values.
    """
    classes = values.shape[1]
    surprise = target.of(
        values
    ).neg_()  # with `values_sum`, all that is needed of the values before `exp` overwrites them
    values_sum = (values @ target.valid[..., None]).squeeze(-1) if uniform else None
    probabilities, normaliser = _softmax(values, target.valid)
    log_normaliser = normaliser.log_()
    surprise += target.weights * log_normaliser
    uniform_surprise = torch.zeros_like(values[..., 0])
    if values_sum is not None:
        uniform_surprise = (log_normaliser.squeeze(1) * target.valid).sum(-1, keepdim=True) - values_sum
    return torch.stack(
        [
            target.per_class(target.of(probabilities), classes),
            _power(probabilities, power).sum(-1),
            target.per_class(surprise, classes),
            uniform_surprise,
            target.per_class(_power(target.weights, power), classes),
            target.valid.sum(-1, keepdim=True).expand(-1, classes),
        ]
    )


def _tile_gradient(values, target, power, uniform, gradients):
    """d loss / d Z over one tile, as derived in pixel_sums.py. Overwrites the values."""
    a, b, k, s = gradients  # (images, classes, 1) each
    probabilities, _ = _softmax(values, target.valid)
    m = target.at_pixels(a) * target.of(probabilities) - target.at_pixels(k) * target.weights
    result = _power(probabilities, power) * (power * b)  # F
    weight = result.sum(1, keepdim=True) + m.sum(1, keepdim=True)
    if uniform:
        weight -= s.sum(1, keepdim=True)
    result.addcmul_(probabilities, weight, value=-1)
    if uniform:
        result -= s * target.valid[:, None]
    target.add_to(result, m)
    return result


class _HardTarget(NamedTuple):
    """One-hot targets of a tile. Of y_c x_c only the entry at the target is kept, so that such a product is (images,
    1, pixels).
    """

    ids: Int64[Tensor, "images 1 pixels"]  # 0 where ignored
    weights: Float[Tensor, "images 1 pixels"]  # 0 where ignored, else 1

    @property
    def valid(self):
        return self.weights.squeeze(1)

    def of(self, values):  # y_c values_c
        return values.gather(1, self.ids).mul_(self.weights)

    def at_pixels(self, per_class):  # (images, classes, 1) -> what stands beside y_c in a product
        return per_class.squeeze(-1).gather(1, self.ids.squeeze(1)).unsqueeze(1)

    def per_class(self, product, classes):
        """Sums such a product over the pixels of each class, in float64: one by one in float32, a million can be a
        hundredth off.
        """
        precise = torch.float32 if product.device.type == "mps" else torch.float64  # Apple's GPU has no float64
        sums = torch.zeros(product.shape[0], classes, dtype=precise, device=product.device)
        return sums.scatter_add_(1, self.ids.squeeze(1), product.squeeze(1).to(precise)).to(product.dtype)

    def add_to(self, values, product):
        values.scatter_add_(1, self.ids, product)


class _SoftTarget(NamedTuple):
    """Soft targets of a tile, with the same operations on products of (images, classes, pixels)."""

    weights: Float[Tensor, "images classes pixels"]
    valid: Float[Tensor, "images pixels"]

    def of(self, values):
        return self.weights * values

    def at_pixels(self, per_class):
        return per_class

    def per_class(self, product, classes):
        return product.sum(-1)

    def add_to(self, values, product):
        values += product


def _target(labels, classes, ignore_index, dtype):
    if labels.is_floating_point():
        weights = labels.flatten(2).to(dtype)
        return _SoftTarget(weights, (weights.sum(1) > 0).to(dtype))
    ids = labels.flatten(1).long()[:, None]
    valid = (ids != ignore_index) & (ids >= 0) & (ids < classes)
    return _HardTarget(torch.where(valid, ids, 0), valid.to(dtype))


def _shifted(logits):
    """The logits at their own size, less their maximum over classes, and whether a tile needs to take a maximum of its
    own.

    They come in the statistics' dtype. Softmax does not see the shift, which upsampling turns into one number per
    pixel. After it no upsampled value is above 0, nor below the least source value, so a tile's `exp` neither
    overflows nor vanishes unless that is very low. To look at it would stop an accelerator, where a maximum costs
    little.
    """
    source = logits.to(torch.promote_types(logits.dtype, torch.float32))
    source = source - source.amax(1, keepdim=True)
    needs_maximum = source.device.type != "cpu" or not source.amin().item() > -SAFE_SPREAD
    return source, needs_maximum


def _tiles(source, labels):
    images, classes = source.shape[:2]
    return tiles(
        source.shape[2:], labels.shape[-2:], images=images, classes=classes, dtype=source.dtype, device=source.device
    )


def _values(source, tile, needs_maximum):
    values = tile.upsample(source).flatten(2)
    if needs_maximum:
        values -= values.amax(1, keepdim=True)
    return values


def _softmax(values, valid):
    """Softmax over classes, in place of the values, with 0 at ignored pixels; and its normaliser (images,
    1, pixels).
    """
    probabilities = values.exp_()
    normaliser = probabilities.sum(1, keepdim=True)
    probabilities *= valid[:, None] / normaliser
    return probabilities, normaliser


def _power(values, power):
    """values ** power; the usual powers cost no logarithm. May return `values` itself."""
    if power == 1:
        return values
    if power == 1.5:
        return values.sqrt().mul_(values)
    return values * values if power == 2 else values**power
