"""The pixel sums and their gradient with torch operations on one tile at a time: for what neither the loops of a CPU
nor the kernels of a GPU take (see `seg_recipe.fast`), and for float64 everywhere.

Those do the same in a fraction of the time; the tests hold the three against each other.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from seg_recipe.upsampling import map_tiles, tiles


def sums(logits, labels, *, power, ignore_index, uniform):
    """The six sums of PixelSums (6, images, classes), the last, which has no classes, repeated."""
    source = _shifted(logits)
    total = source.new_zeros(6, *source.shape[:2])

    def sums_of(chosen, tile):
        target = _target(labels[chosen, ..., tile.rows, tile.columns], source.shape[1], ignore_index, source.dtype)
        return _tile_sums(tile.upsample(source[chosen]).log_softmax(1), target, power, uniform)

    for chosen, _, part in map_tiles(sums_of, _tiles(source, labels), source.device):
        total[:, chosen] += part
    return total


def gradient(logits, labels, slopes, *, power, ignore_index, uniform):
    """The gradient at the logits, from the gradients (4, images, classes) at the first four sums."""
    source = _shifted(logits)
    total = torch.zeros_like(source)

    def gradient_of(chosen, tile):
        target = _target(labels[chosen, ..., tile.rows, tile.columns], source.shape[1], ignore_index, source.dtype)
        log_q = tile.upsample(source[chosen]).log_softmax(1)
        return tile.adjoint(_tile_gradient(log_q, target, power, uniform, slopes[:, chosen, :, None, None]))

    for chosen, tile, part in map_tiles(gradient_of, _tiles(source, labels), source.device):
        total[chosen, :, tile.source_rows, tile.source_columns] += part
    return total


def _tile_sums(log_q, target, power, uniform):
    """The six sums of PixelSums over one tile (6, images, classes); the last, which has no classes, repeated."""
    log_of = target.of(log_q)
    intersection, surprise, target_power = target.per_class(
        target.weights * log_of.exp(), -target.weights * log_of, target.weights**power, classes=log_q.shape[1]
    )
    pixels = target.valid.sum((2, 3)).expand_as(intersection)
    uniform_surprise = -(log_q * target.valid).sum((2, 3)) if uniform else torch.zeros_like(intersection)
    powers = target.counted(log_q, power).exp_().sum((2, 3))
    return torch.stack([intersection, powers, surprise, uniform_surprise, target_power, pixels])


def _tile_gradient(log_q, target, power, uniform, slopes):
    """d loss / d Z over one tile, as derived in pixel_sums.py. Overwrites log_q."""
    a, b, k, s = slopes  # (images, classes, 1, 1) each
    result = target.counted(log_q, power).exp_().mul_(power * b)  # F
    q = log_q.exp_()
    m = target.weights * (target.at_pixels(a) * target.of(q) - target.at_pixels(k))
    weight = result.sum(1, keepdim=True) + m.sum(1, keepdim=True)
    if uniform:
        weight -= s.sum(1, keepdim=True) * target.valid
        result -= s * target.valid
    result.addcmul_(q, weight, value=-1)
    target.add_to(result, m)
    return result


class _Target(NamedTuple):
    """Targets of a tile: soft ones, or one-hot ones of which only the entry at the target is kept, so that products
    with them have one class.
    """

    weights: Float[Tensor, "images _ rows columns"]  # y; of one-hot ones 0 where ignored, else 1
    valid: Float[Tensor, "images 1 rows columns"]  # 0 where ignored, else 1
    ids: Int64[Tensor, "images 1 rows columns"] | None  # of one-hot ones; any class where ignored

    def of(self, values):  # values_c where y_c is
        return values if self.ids is None else values.gather(1, self.ids)

    def at_pixels(self, per_class):  # (images, classes, 1, 1) -> what stands beside y_c in a product
        return (
            per_class if self.ids is None else per_class[:, :, 0, 0].gather(1, self.ids.flatten(1)).view_as(self.ids)
        )

    def counted(self, log_q, power):  # the logarithm of q^power, and of 0 where ignored
        return torch.add(self.valid.log(), log_q, alpha=power)

    def per_class(self, *products, classes):
        """Sums such products over the pixels of each class, row by row: added one by one in float32, a million can be
        a hundredth off. Without atomics, so the same bits each time.
        """
        if self.ids is None:
            return [product.sum((2, 3)) for product in products]
        images, _, rows, columns = self.ids.shape
        one_hot = products[0].new_zeros(images, rows, classes, columns).scatter_(2, self.ids.movedim(1, 2), 1)
        return (one_hot @ torch.cat(products, 1).movedim(1, 3)).sum(1).unbind(2)

    def add_to(self, values, product):
        if self.ids is None:
            values += product
        else:
            values.scatter_add_(1, self.ids, product)


def _target(labels, classes, ignore_index, dtype):
    """Unknown ids, which spoil the sums elsewhere, count as the nearest class."""
    if labels.is_floating_point():
        weights = labels.to(dtype)
        return _Target(weights, (weights.sum(1, keepdim=True) > 0).to(dtype), None)
    valid = (labels != ignore_index)[:, None].to(dtype)
    return _Target(valid, valid, labels[:, None].long().clamp(0, classes - 1))


def _shifted(logits):
    """The logits at their own size, in the statistics' dtype, less their maximum over classes, which softmax does not
    see: what is upsampled has no common part to lose digits to.
    """
    source = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return source - source.amax(1, keepdim=True)


def _tiles(source, labels):
    images, classes = source.shape[:2]
    return tiles(
        source.shape[2:], labels.shape[-2:], images=images, classes=classes, dtype=source.dtype, device=source.device
    )
