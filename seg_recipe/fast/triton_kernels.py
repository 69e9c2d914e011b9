"""The pixel sums of `seg_recipe.losses.pixel_sums` and their gradient on a GPU, as Triton kernels. No atomics: the
same input gives the same bits.

A CELL is the square between four neighbouring source pixels. Its s x s pixels are mixtures of the same four corners,
so the corners are loaded once into registers and serve s * s softmaxes. The gradient at the corners is added up in
registers, too. The half cells at two opposite borders make one whole cell ("wrapped": the last row is its upper
corner, the first its lower one, with weights 0 and 1), so there are exactly h x w cells. Each pixel lies in one.

A program walks down a strip of ROWS cells, for P columns and all classes, C x P numbers at a time.

    sums_kernel      sums of a strip, per class -> partial (images, parts, 5, C); logarithm of each pixel's normaliser
    add_kernel       the strips of an image, added up in order, in float64
    gradient_kernel  per source pixel, what its cells to the left and to the right add to its gradient -> two planes;
                     what a strip's last cells add to the row below them -> two planes of edges
    join_kernel      the planes and edges that belong to one source pixel, added up in order

UNIT. Exponentials are powers of 2, and for the power 3/2 all powers of a probability are those of its root. So logits
are kept less the maximum over classes of their source pixel, times log2(e), and for the power 3/2 halved.
"""

from typing import no_type_check

import triton
import triton.language as tl

# ruff: noqa: RET505  (Triton compiles the branch that a constant chooses, so both need their `else`)

LOG2E = tl.constexpr(1.4426950408889634)
ABSENT = tl.constexpr(-1e30)
"""The logit of a class that is not there. Its exponential is 0, and its mixtures with itself are finite."""
KINDS = tl.constexpr(5)
"""Kinds of sums: intersection, probability power, target surprise, uniform surprise, number of pixels."""

SIZES = [
    "classes", "h", "w", "parts", "strips", "plane", "edge", "stride_b", "stride_c", "stride_i", "stride_j", "label_b",
    "label_y", "label_x", "slope_k", "slope_b", "slope_c", "one",
]  # fmt: skip
"""Not told to the compiler, so one kernel serves all sizes. `one` is 1: where the compiler knows that columns lie side
by side, it gives each thread several columns, and the sums over classes cost four times as much.
"""


@triton.jit
@no_type_check
def _exp2(x, PTX: tl.constexpr):
    """2 to the x. PTX: the instruction of NVIDIA's GPUs (2 units in the last place) without steps for subnormals."""
    if PTX:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.exp2(x)


@triton.jit
@no_type_check
def _log2(x, PTX: tl.constexpr):
    if PTX:
        return tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.log2(x)


@triton.jit
@no_type_check
def _inverse(x, PTX: tl.constexpr):
    if PTX:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return 1.0 / x


@triton.jit
@no_type_check
def _root(x, PTX: tl.constexpr):
    if PTX:
        return tl.inline_asm_elementwise(
            "sqrt.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.sqrt(x)


@triton.jit
@no_type_check
def _corner(row, places, inside, UNIT: tl.constexpr):
    """One corner of each cell (C, P), in the unit. A NaN or an infinity makes the whole pixel NaN."""
    values = tl.where(
        inside, tl.load(row + places, mask=inside, other=0.0).to(tl.float32), ABSENT
    )  # too great for float16
    return (values - tl.max(values, 0)[None, :]) * UNIT


@triton.jit
@no_type_check
def _weight(k, last, S: tl.constexpr):
    """The weight of the further corner for pixel k of a cell; of the wrapped cell 0 before the border, 1 behind it."""
    inner = (k + 0.5 * (1 - S % 2)) / S
    return tl.where(last, tl.where(k >= S - S // 2, 1.0, 0.0), inner)


@triton.jit
@no_type_check
def _wrapped(x, size):
    return tl.where(x >= size, x - size, x)


@triton.jit
@no_type_check
def _ids(at, there, classes, IGNORE: tl.constexpr):
    """The ids at some pixels, -1 where they are ignored or unknown; and 1 where they are unknown."""
    ids = tl.load(at, mask=there, other=0)
    if ids.dtype != tl.int64:
        ids = ids.to(tl.int32)
    ignored = (ids == IGNORE) | ~there
    known = (ids >= 0) & (ids < classes)
    return tl.where(known & ~ignored, ids, -1).to(tl.int32), tl.where(known | ignored, 0, 1)


@triton.jit
@no_type_check
def _powers(root, x, POWER: tl.constexpr, PTX: tl.constexpr):
    """(q, q ** POWER), from the logarithm x of q in the unit, and root = 2 ** x."""
    if POWER == 1.5:
        q = root * root
        return q, q * root
    elif POWER == 2.0:
        return root, root * root
    elif POWER == 1.0:
        return root, root
    else:
        return root, _exp2(x * POWER, PTX)


@triton.jit
@no_type_check
def _inverse_power(inverse, POWER: tl.constexpr, PTX: tl.constexpr):
    if POWER == 1.5:
        return inverse * _root(inverse, PTX)
    elif POWER == 2.0:
        return inverse * inverse
    elif POWER == 1.0:
        return inverse
    else:
        return _exp2(POWER * _log2(inverse, PTX), PTX)


@triton.jit
@no_type_check
def _softmax_sums(
    z, ids, inter, powers, surprise, uniform, count,
    UNIT: tl.constexpr, POWER: tl.constexpr, UNIFORM: tl.constexpr, PTX: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """The sums with one more pixel per column; the logarithm of their normalisers in the unit."""
    valid = ids >= 0
    top = tl.max(z, 0)
    x = z - top[None, :]
    e, ep = _powers(_exp2(x, PTX), x, POWER, PTX)
    normaliser = tl.sum(e, 0)
    log_z = _log2(normaliser, PTX) * (UNIT / LOG2E)
    inverse = _inverse(normaliser, PTX)
    powers += ep * tl.where(valid, _inverse_power(inverse, POWER, PTX), 0.0)[None, :]
    surprise_of = log_z[None, :] - x
    hit = tl.where(tl.arange(0, C)[:, None] == ids[None, :], 1.0, 0.0)
    inter += hit * inverse[None, :] * e
    surprise += hit * surprise_of
    count += hit
    if UNIFORM:
        uniform += tl.where(valid[None, :], surprise_of, 0.0)
    return inter, powers, surprise, uniform, count, log_z + top


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def sums_kernel(
    logits, labels, partial, log_z, classes, h, w, stride_b, stride_c, stride_i, stride_j, label_b, label_y, label_x,
    one,
    S: tl.constexpr, POWER: tl.constexpr, UNIT: tl.constexpr, IGNORE: tl.constexpr, UNIFORM: tl.constexpr,
    PTX: tl.constexpr, C: tl.constexpr, P: tl.constexpr, ROWS: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """The sums of a strip. KEEP: also log_z (images, h, S, S, w), infinite where a pixel does not count."""
    block, strip, b = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    j = block * P + tl.arange(0, P)
    there = j < w
    inside = (tl.arange(0, C) < classes)[:, None] & there[None, :]
    here = tl.arange(0, C)[:, None] * stride_c + j[None, :] * stride_j  # the left corners, counted from their row
    beside = here + (tl.where(j + 1 < w, 1, 1 - w) * stride_j)[None, :]
    logits += b * stride_b
    inter, powers, surprise = tl.zeros((C, P), tl.float32), tl.zeros((C, P), tl.float32), tl.zeros((C, P), tl.float32)
    uniform, count, wrong = tl.zeros((C, P), tl.float32), tl.zeros((C, P), tl.float32), tl.zeros((P,), tl.int32)
    up_left = _corner(logits + strip * ROWS * stride_i, here, inside, UNIT)
    up_right = _corner(logits + strip * ROWS * stride_i, beside, inside, UNIT)
    for i in range(strip * ROWS, tl.minimum(strip * ROWS + ROWS, h)):
        below = tl.where(i + 1 < h, i + 1, 0)
        low_left = _corner(logits + below * stride_i, here, inside, UNIT)
        low_right = _corner(logits + below * stride_i, beside, inside, UNIT)
        for ky in range(S):
            v = _weight(ky, i == h - 1, S)
            left = up_left + v * (low_left - up_left)
            across = up_right + v * (low_right - up_right) - left
            row = labels + b * label_b + _wrapped(i * S + S // 2 + ky, h * S) * label_y
            for kx in range(S):
                z = left + _weight(kx, j == w - 1, S)[None, :] * across
                ids, unknown = _ids(row + _wrapped(j * S + S // 2 + kx, w * S) * label_x, there, classes, IGNORE)
                wrong += unknown
                inter, powers, surprise, uniform, count, log = _softmax_sums(
                    z, ids, inter, powers, surprise, uniform, count, UNIT, POWER, UNIFORM, PTX, C
                )
                if KEEP:
                    kept = log_z + ((b * h + i) * S + ky) * S * w + kx * w + j * one
                    tl.store(kept, tl.where(ids >= 0, log, float("inf")), mask=there)
        up_left, up_right = low_left, low_right
    part = (b * tl.num_programs(1) + strip) * tl.num_programs(0) + block
    to = partial + part * (KINDS * C) + tl.arange(0, C)
    tl.store(to, tl.sum(inter, 1))
    tl.store(to + C, tl.sum(powers, 1))
    tl.store(to + 2 * C, tl.sum(surprise, 1) / UNIT)
    tl.store(to + 3 * C, tl.sum(uniform, 1) / UNIT)
    # Unknown labels make the counts NaN, hence the loss. The host need not look at them.
    tl.store(to + 4 * C, tl.sum(count, 1) + tl.where(tl.sum(wrong, 0) > 0, float("nan"), 0.0))


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def add_kernel(partial, sums, counts, pixels, parts, classes, C: tl.constexpr, G: tl.constexpr):
    """One kind of sum of an image: four kinds to sums (4, images, classes), the fifth to counts and pixels."""
    kind, b, images = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    c = tl.arange(0, C)
    total = tl.zeros((C,), tl.float64)
    for first in range(0, parts, G):
        part = first + tl.arange(0, G)
        at = partial + ((b * parts + part).to(tl.int64)[:, None] * KINDS + kind) * C + c[None, :]
        total += tl.sum(tl.load(at, mask=(part < parts)[:, None], other=0.0).to(tl.float64), 0)
    if kind < 4:
        tl.store(sums + (kind * images + b) * classes + c, total.to(tl.float32), mask=c < classes)
    else:
        tl.store(counts + b * classes + c, total.to(tl.float32), mask=c < classes)
        tl.store(pixels + b, tl.sum(tl.where(c < classes, total, 0.0), 0).to(tl.float32))


@triton.jit
@no_type_check
def _slope(z, log, ids, a, pb, k, s, POWER: tl.constexpr, UNIFORM: tl.constexpr, PTX: tl.constexpr, C: tl.constexpr):
    """d loss / d logit of a pixel, as derived in losses/pixel_sums.py. Its probabilities are 0 where it is ignored."""
    x = z - log[None, :]
    q, qp = _powers(_exp2(x, PTX), x, POWER, PTX)
    slope = qp * pb + tl.where(tl.arange(0, C)[:, None] == ids[None, :], a * q - k, 0.0)
    if UNIFORM:
        slope -= tl.where(ids >= 0, 1.0, 0.0)[None, :] * s
    return slope - q * tl.sum(slope, 0)[None, :]


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def gradient_kernel(
    logits, labels, slopes, log_z, planes, edges, classes, h, w, stride_b, stride_c, stride_i, stride_j,
    label_b, label_y, label_x, slope_k, slope_b, slope_c, one,
    S: tl.constexpr, POWER: tl.constexpr, UNIT: tl.constexpr, IGNORE: tl.constexpr, UNIFORM: tl.constexpr,
    PTX: tl.constexpr, C: tl.constexpr, P: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """The gradient of a strip's cells at their corners: planes (2, images, classes, h, w), edges (..., strips, w)."""
    block, strip, b = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    c = tl.arange(0, C)[:, None]
    j = block * P + tl.arange(0, P)
    there = j < w
    inside = (c < classes) & there[None, :]
    here = c * stride_c + j[None, :] * stride_j
    beside = here + (tl.where(j + 1 < w, 1, 1 - w) * stride_j)[None, :]
    logits += b * stride_b
    of = slopes + b * slope_b + c * slope_c
    a, pb = tl.load(of, c < classes, 0.0), tl.load(of + slope_k, c < classes, 0.0) * POWER
    k, s = tl.load(of + 2 * slope_k, c < classes, 0.0), tl.load(of + 3 * slope_k, c < classes, 0.0)
    planes += b * classes * h * w
    plane = tl.num_programs(2).to(tl.int64) * classes * h * w
    up_left = _corner(logits + strip * ROWS * stride_i, here, inside, UNIT)
    up_right = _corner(logits + strip * ROWS * stride_i, beside, inside, UNIT)
    add_left, add_right = tl.zeros((C, P), tl.float32), tl.zeros((C, P), tl.float32)  # at the row reached
    for i in range(strip * ROWS, tl.minimum(strip * ROWS + ROWS, h)):
        below = tl.where(i + 1 < h, i + 1, 0)
        low_left = _corner(logits + below * stride_i, here, inside, UNIT)
        low_right = _corner(logits + below * stride_i, beside, inside, UNIT)
        next_left, next_right = tl.zeros((C, P), tl.float32), tl.zeros((C, P), tl.float32)
        for ky in range(S):
            v = _weight(ky, i == h - 1, S)
            left = up_left + v * (low_left - up_left)
            across = up_right + v * (low_right - up_right) - left
            row = labels + b * label_b + _wrapped(i * S + S // 2 + ky, h * S) * label_y
            on_left, on_right = tl.zeros((C, P), tl.float32), tl.zeros((C, P), tl.float32)
            for kx in range(S):
                u = _weight(kx, j == w - 1, S)[None, :]
                ids, _ = _ids(row + _wrapped(j * S + S // 2 + kx, w * S) * label_x, there, classes, IGNORE)
                log = tl.load(log_z + ((b * h + i) * S + ky) * S * w + kx * w + j * one, there, float("inf"))
                slope = _slope(left + u * across, log, ids, a, pb, k, s, POWER, UNIFORM, PTX, C)
                on_left += (1 - u) * slope
                on_right += u * slope
            add_left += (1 - v) * on_left
            add_right += (1 - v) * on_right
            next_left += v * on_left
            next_right += v * on_right
        to = c * (h * w) + j[None, :] * one
        tl.store(planes + i * w + to, add_left, mask=inside)
        tl.store(planes + plane + i * w + to, add_right, mask=inside)
        up_left, up_right, add_left, add_right = low_left, low_right, next_left, next_right
    strips = tl.num_programs(1)
    edge = edges + ((b * classes + c) * strips + strip) * w + j[None, :] * one
    tl.store(edge, add_left, mask=inside)
    tl.store(edge + tl.num_programs(2).to(tl.int64) * classes * strips * w, add_right, mask=inside)


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def join_kernel(
    planes, edges, out, classes, h, w, strips, plane, edge, stride_b, stride_c, stride_i, stride_j,
    ROWS: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """The gradient at each source pixel, from the cells that have it as a corner; always added in this order."""
    bc, i, block = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    j = block * P + tl.arange(0, P)
    there = j < w
    before = tl.where(j > 0, j - 1, w - 1)
    row = planes + (bc * h + i) * w
    total = tl.load(row + j, there, 0.0) + tl.load(row + plane + before, there, 0.0)
    above = edges + (bc * strips + tl.where(i > 0, i // ROWS - 1, strips - 1)) * w
    last = there & ((i + j * 0) % ROWS == 0)  # a vector: the interpreter has no masks of numbers
    total += tl.load(above + j, last, 0.0) + tl.load(above + edge + before, last, 0.0)
    to = out + (bc // classes) * stride_b + (bc % classes) * stride_c + i * stride_i + j * stride_j
    tl.store(to, total, mask=there)
