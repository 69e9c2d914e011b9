"""Compiled loops over the pixels of one band of rows, for the CPU: upsample the logits, and use them up at once.

The loss and the metric look at every logit at full size: millions in a batch. With torch that is a dozen passes over
tensors; here numba compiles the loops once (see `compilation`), and a logit is made, used and forgotten within the
first-level cache. The functions let go of Python's lock, so `upsampling.map_bands` runs them on several threads.

All of them walk through a band in the same way. Bilinear upsampling is separable: `_widen` brings one row of the
source to full width, which is needed once for each source row, not for each row of the picture; a row of the picture
is then a weighted mean of two widened ones, and those that lie between the same two follow one another. Pixels are the
innermost loop, CHUNK of them at a time.

Exponentials are powers of 2: the source comes into the walk less its maximum over classes, which softmax does not see,
and times `scale`. No upsampled value is above 0 then, nor below the least source value. Only where that is below
SAFE_SPREAD does a pixel need a maximum of its own, lest all of its exponentials vanish.

Float addition is reordered (`reassoc`) where many numbers are summed, so that the processor's vectors can be used: in
a fixed way for one processor, whatever the threads. Nothing assumes that numbers are finite: a NaN in the logits
reaches the sums.

These functions are compiled for float32 and 64-bit integers only, and take contiguous arrays: each has one signature.
They stand in one file because the cache watches the file of the function that is called, not those of the functions
that it calls.
"""

from typing import Any, no_type_check

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from seg_recipe.fast.compilation import compiled

CHUNK = 128
"""Pixels of a row that are worked on together. Their logits and exponentials fit the first-level cache for some 20
classes.
"""
SAFE_SPREAD = np.float32(-80)
"""exp(-80) is a normal float32 number, and exp(80) a finite one. For the power of a probability the spread is that
much smaller.
"""

_EXACT: dict[str, Any] = {
    "fastmath": {"contract"},
    "error_model": "numpy",
}  # a * b + c in one operation; no check for a division by 0
_FAST: dict[str, Any] = {
    "fastmath": {"contract", "reassoc", "nsz"},
    "error_model": "numpy",
}  # and sums in any order; infinities and NaN are kept

# Literals would be float64, and with them everything that they touch.
_0, _HALF, _1, _NEXT = np.float32(0), np.float32(0.5), np.float32(1), np.uint32(1)
_LEAST = np.float32(-125)  # 2 to the power of it is normal
_LOG2_E = np.float32(1.44269504)
_ROUND = np.float32(1.5 * 2**23 + 127)  # adding it rounds to a whole number; 127 is the exponent of 1 in a float32
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_E0, _E1, _E2 = np.float32(1.535336188e-4), np.float32(1.339887440e-3), np.float32(9.618437358e-3)
_E3, _E4, _E5 = np.float32(5.550332471e-2), np.float32(2.402264791e-1), np.float32(6.931472029e-1)
_L0, _L1, _L2 = np.float32(7.0376836292e-2), np.float32(-1.1514610310e-1), np.float32(1.1676998740e-1)
_L3, _L4, _L5 = np.float32(-1.2420140846e-1), np.float32(1.4249322787e-1), np.float32(-1.6668057665e-1)
_L6, _L7, _L8 = np.float32(2.0000714765e-1), np.float32(-2.4999993993e-1), np.float32(3.3333331174e-1)

_compiled = compiled(**_FAST)


# ---- 2 ** x and log, as Cephes has them (S. Moshier), in float32; what numba would call works on one number at a time


@intrinsic
@no_type_check
def _two_to_the(_, shifted):
    """2^k of k + _ROUND, whose lowest bits are k + 127."""

    def code(context, builder, signature, arguments):
        integer = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.bitcast(arguments[0], integer), integer(23)), ir.FloatType())

    return types.float32(types.float32), code


@intrinsic
@no_type_check
def _exponent_and_mantissa(_, value):
    """(k, m) of value = m 2^k with m in [sqrt(1/2), sqrt(2)), for normal numbers above 0."""
    pair = types.UniTuple(types.float32, 2)

    def code(context, builder, signature, arguments):
        integer = ir.IntType(32)
        bits = builder.bitcast(arguments[0], integer)
        exponent = builder.ashr(builder.sub(bits, integer(0x3F3504F3)), integer(23))  # the bits of sqrt(1/2)
        mantissa = builder.bitcast(builder.sub(bits, builder.shl(exponent, integer(23))), ir.FloatType())
        return context.make_tuple(builder, pair, (builder.sitofp(exponent, ir.FloatType()), mantissa))

    return pair(types.float32), code


@njit(**_EXACT)
@no_type_check
def exp2(x):
    """2 ** max(x, -125) for x <= 127; NaN for NaN."""
    x = _LEAST if x < _LEAST else x
    shifted = x + _ROUND
    r = x - (shifted - _ROUND)
    return ((((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5) * r + _1) * _two_to_the(shifted)


@njit(**_EXACT)
@no_type_check
def log(x):
    """log(x) for normal x > 0; NaN for NaN and infinity."""
    k, m = _exponent_and_mantissa(x)
    m -= _1
    y = (((((((_L0 * m + _L1) * m + _L2) * m + _L3) * m + _L4) * m + _L5) * m + _L6) * m + _L7) * m + _L8
    y = m * (m * m) * y + k * _LN2_LOW - _HALF * (m * m)
    return m + y + k * _LN2_HIGH + x * _0


# ---- the walk


@njit(**_EXACT)
@no_type_check
def _widen(out, source, row, lows, weights, scale):
    """out (classes, width) = row `row` of source (classes, h, w) at full width, shifted and times scale. Returns its
    least value, unscaled.

    With a scale of 0, it is neither shifted nor scaled.
    """
    classes, _, w = source.shape
    top, values = np.zeros(w, np.float32), np.empty(w + 1, np.float32)
    least, factor = _0, _1
    if scale > _0:
        factor = scale
        top[:] = -np.inf
        for c in range(classes):
            for s in range(w):
                top[s] = top[s] if source[c, row, s] <= top[s] else source[c, row, s]
    for c in range(classes):
        wide = out[c]
        for s in range(w):
            value = source[c, row, s] - top[s]
            least = value if value < least else least
            values[s] = value * factor + value * _0  # minus infinity becomes NaN, which is noticed
        values[w] = values[w - 1]
        for x in range(len(lows)):
            low = np.uint32(lows[x])  # numba would first ask whether an index with a sign counts from the end
            wide[x] = (_1 - weights[x]) * values[low] + weights[x] * values[low + _NEXT]
    return least


@njit(**_EXACT)
@no_type_check
def _next_pair(upper, lower, held, source, low, lows, weights, scale, least):
    """Source rows `low` and low + 1 widened, in the two buffers, one of which may hold `low` already; and the least
    value in each.
    """
    if held == low:
        upper, lower = lower, upper
        upper_least = least
    else:
        upper_least = _widen(upper, source, low, lows, weights, scale)
    lower_least = _widen(lower, source, min(low + 1, source.shape[1] - 1), lows, weights, scale)
    return upper, lower, upper_least, lower_least


@njit(**_FAST)
@no_type_check
def _narrow(out, row, gradient, firsts, taps):
    """The adjoint of `_widen`: adds what `gradient` (classes, width) is worth to row `row` of out (classes, h, w).
    Empties `gradient`.
    """
    for c in range(len(gradient)):
        wide = gradient[c]
        for s in range(len(taps)):
            total = _0
            for j in range(taps.shape[1]):
                total += taps[s, j] * wide[firsts[s] + j]
            out[c, row, s] += total
        for x in range(len(wide)):
            wide[x] = _0


@njit(**_EXACT)
@no_type_check
def _same_pair(row_lows, row):
    """Where the rows that lie between the same two source rows as `row` end."""
    end = row + 1
    while end < len(row_lows) and row_lows[end] == row_lows[row]:
        end += 1
    return end


@njit(**_EXACT)
@no_type_check
def _scale(power):
    """For power 3/2 the walk is in units of half logits: of exp(v / 2) both exp(v) and exp(3/2 v) are products."""
    return _HALF * _LOG2_E if power == 1.5 else _LOG2_E


# ---- one chunk of one row: n pixels from column `start` on. upper and lower are (classes, width), e and p (classes,
# CHUNK)


@njit(**_FAST)
@no_type_check
def _exponentials(upper, lower, weight, start, n, power, needs_maximum, e, p, shift, normaliser):
    """e = exp(v - shift), p = e ** power, normaliser = the sum of e over classes; shift is the greatest v where that
    is needed, else 0.
    """
    first = _1 - weight
    classes = len(upper)
    for x in range(n):
        shift[x] = -np.inf if needs_maximum else _0
        normaliser[x] = _0
    if needs_maximum:
        for c in range(classes):
            above, below = upper[c, start : start + n], lower[c, start : start + n]
            for x in range(n):
                v = first * above[x] + weight * below[x]
                shift[x] = shift[x] if v <= shift[x] else v
    for c in range(classes):
        above, below, ec, pc = upper[c, start : start + n], lower[c, start : start + n], e[c], p[c]
        if power == 1.5:
            for x in range(n):
                root = exp2(first * above[x] + weight * below[x] - shift[x])
                ec[x] = root * root
                pc[x] = root * root * root
                normaliser[x] += root * root
        elif power == 2 or power == 1:
            for x in range(n):
                value = exp2(first * above[x] + weight * below[x] - shift[x])
                ec[x] = value
                pc[x] = value * (value if power == 2 else _1)
                normaliser[x] += value
        else:
            for x in range(n):
                v = first * above[x] + weight * below[x] - shift[x]
                value = exp2(v)
                ec[x] = value
                pc[x] = exp2(power * v)
                normaliser[x] += value


@njit(**_FAST)
@no_type_check
def _inverses(n, power, valid, normaliser, inverse, inverse_power, log_normaliser):
    """What turns e into q and p into q ** power, 0 at ignored pixels; and the logarithm of the normaliser."""
    for x in range(n):
        log_normaliser[x] = log(normaliser[x])
        inverse[x] = valid[x] / normaliser[x]
    for x in range(n):
        if power == 1.5:
            inverse_power[x] = inverse[x] * np.sqrt(inverse[x])
        elif power == 2:
            inverse_power[x] = inverse[x] * inverse[x]
        elif power == 1:
            inverse_power[x] = inverse[x]
        else:
            inverse_power[x] = valid[x] * exp2(-power * _LOG2_E * log_normaliser[x])


@njit(**_FAST)
@no_type_check
def _valid(valid, ids, targets, classes, row, start, n, ignore_index):
    """1 at pixels that count, else 0; and how many labels are wrong: ids neither a class nor ignored, or targets
    outside [0, 1].
    """
    wrong = 0
    if len(ids):
        y = ids[row, start : start + n]
        for x in range(n):
            known = (y[x] >= 0) & (y[x] < classes) & (y[x] != ignore_index)
            valid[x] = _1 if known else _0
            wrong += (not known) & (y[x] != ignore_index)
        return wrong
    for x in range(n):
        valid[x] = _0
    for c in range(classes):
        t = targets[c, row, start : start + n]
        for x in range(n):
            valid[x] = _1 if t[x] > _0 else valid[x]
            wrong += not ((t[x] >= _0) & (t[x] <= _1))
    return wrong


@njit(**_FAST)
@no_type_check
def _hard_sums(sums, ids, upper, lower, weight, unit, start, n, e, valid, inverse, shift, log_normaliser):
    """Intersection, surprise and number of pixels of each class, and of all. Pixels of one class in a row are added up
    on the way.
    """
    current, q, surprise, count = -1, _0, _0, _0
    for x in range(n):
        y = ids[start + x] if valid[x] > _0 else -1
        if y != current:
            if current >= 0:
                sums[0, current] += q
                sums[2, current] += surprise
                sums[4, current] += count
                sums[5, 0] += count
            current, q, surprise, count = y, _0, _0, _0
        if y >= 0:
            v = (_1 - weight) * upper[y, start + x] + weight * lower[y, start + x] - shift[x]
            q += e[y, x] * inverse[x]
            surprise += log_normaliser[x] - unit * v
            count += _1
    if current >= 0:
        sums[0, current] += q
        sums[2, current] += surprise
        sums[4, current] += count
        sums[5, 0] += count


@njit(**_FAST)
@no_type_check
def _soft_sums(
    sums, targets, row, upper, lower, weight, unit, power, start, n, e, valid, inverse, shift, log_normaliser
):
    for c in range(len(targets)):
        y, above, below, ec = (
            targets[c, row, start : start + n],
            upper[c, start : start + n],
            lower[c, start : start + n],
            e[c],
        )
        intersection, surprise, powers = _0, _0, _0
        for x in range(n):
            v = (_1 - weight) * above[x] + weight * below[x] - shift[x]
            intersection += y[x] * ec[x] * inverse[x]
            surprise += y[x] * (log_normaliser[x] - unit * v)
            if power == 1.5:
                powers += y[x] * np.sqrt(y[x])
            elif power == 2:
                powers += y[x] * y[x]
            elif power == 1:
                powers += y[x]
            else:
                powers += exp2(power * _LOG2_E * log(y[x])) if y[x] > _0 else _0
        sums[0, c] += intersection
        sums[2, c] += surprise
        sums[4, c] += powers
    for x in range(n):
        sums[5, 0] += valid[x]


@njit(**_EXACT)
@no_type_check
def _find_greatest(upper, lower, weight, start, n, greatest, winner):
    """winner = the class with the greatest logit, the first of equals; greatest = that logit."""
    for x in range(n):
        greatest[x] = -np.inf
        winner[x] = 0
    for c in range(len(upper)):
        above, below = upper[c, start : start + n], lower[c, start : start + n]
        for x in range(n):
            v = (_1 - weight) * above[x] + weight * below[x]
            better = v > greatest[x]
            greatest[x] = v if better else greatest[x]
            winner[x] = c if better else winner[x]


# ---- the four loops


@_compiled
@no_type_check
def add_sums(source, ids, targets, row_lows, row_weights, lows, weights, power, uniform, ignore_index, sums):
    """Adds the six sums of losses.pixel_sums.PixelSums over a band to sums (6, classes) float64. Returns how many
    labels are wrong.

    source (classes, h, w): the logits of the source rows that the band lies between. ids (rows, width) int64 and no
    targets, or targets (classes, rows, width) and no ids. row_lows, row_weights (rows): a row is (1 - weight)
    source[low] + weight source[low + 1]; lows, weights (width): likewise columns.
    """
    classes, width = len(source), len(lows)
    scale = _scale(power)
    upper, lower = np.empty((classes, width), np.float32), np.empty((classes, width), np.float32)
    e, p = np.empty((classes, CHUNK), np.float32), np.empty((classes, CHUNK), np.float32)
    pixels = np.empty((6, CHUNK), np.float32)
    shift, normaliser, valid, inverse, inverse_power, log_normaliser = (
        pixels[0],
        pixels[1],
        pixels[2],
        pixels[3],
        pixels[4],
        pixels[5],
    )
    unit, wrong, held, row, least, lower_least, safe = _1 / scale, 0, -1, 0, _0, _0, SAFE_SPREAD / power
    while row < len(row_lows):
        low, end = row_lows[row], _same_pair(row_lows, row)
        upper, lower, least, lower_least = _next_pair(
            upper, lower, held, source, low, lows, weights, scale, lower_least
        )
        held = low + 1
        far = (least < safe) | (lower_least < safe)
        for start in range(0, width, CHUNK):
            n = min(CHUNK, width - start)
            for r in range(row, end):
                weight = row_weights[r]
                _exponentials(upper, lower, weight, start, n, power, far, e, p, shift, normaliser)
                wrong += _valid(valid, ids, targets, classes, r, start, n, ignore_index)
                _inverses(n, power, valid, normaliser, inverse, inverse_power, log_normaliser)
                for c in range(classes):
                    total, pc = _0, p[c]
                    for x in range(n):
                        total += pc[x] * inverse_power[x]
                    sums[1, c] += total
                if uniform:
                    for c in range(classes):
                        total, above, below = _0, upper[c, start : start + n], lower[c, start : start + n]
                        for x in range(n):
                            v = (_1 - weight) * above[x] + weight * below[x] - shift[x]
                            total += valid[x] * (log_normaliser[x] - unit * v)
                        sums[3, c] += total
                if len(ids):
                    _hard_sums(
                        sums, ids[r], upper, lower, weight, unit, start, n, e, valid, inverse, shift, log_normaliser
                    )
                else:
                    _soft_sums(
                        sums,
                        targets,
                        r,
                        upper,
                        lower,
                        weight,
                        unit,
                        power,
                        start,
                        n,
                        e,
                        valid,
                        inverse,
                        shift,
                        log_normaliser,
                    )
        row = end
    return wrong


@_compiled
@no_type_check
def add_gradient(
    source, ids, targets, row_lows, row_weights, lows, weights, firsts, taps, power, uniform, ignore_index, slopes, out
):  # fmt: skip
    """Adds a band's share of the gradient to out, which is as large as source.

    firsts (w), taps (w, count): the adjoint in columns; column s of the source gets taps[s] @ (the pixels from
    firsts[s] on). slopes (4, classes): a, b, k, s of the derivation in losses.pixel_sums. The others as for
    `add_sums`.
    """
    classes, width = len(source), len(lows)
    scale = _scale(power)
    upper, lower = np.empty((classes, width), np.float32), np.empty((classes, width), np.float32)
    upper_gradient, lower_gradient = np.zeros((classes, width), np.float32), np.zeros((classes, width), np.float32)
    e, p = np.empty((classes, CHUNK), np.float32), np.empty((classes, CHUNK), np.float32)
    pixels = np.empty((7, CHUNK), np.float32)
    shift, normaliser, valid, inverse, inverse_power, log_normaliser = (
        pixels[0],
        pixels[1],
        pixels[2],
        pixels[3],
        pixels[4],
        pixels[5],
    )
    total = pixels[6]
    a, pb, k, s = slopes[0], power * slopes[1], slopes[2], slopes[3]
    s_sum = s.sum()
    held, row, least, lower_least, safe = -1, 0, _0, _0, SAFE_SPREAD / power
    while row < len(row_lows):
        low, end = row_lows[row], _same_pair(row_lows, row)
        upper, lower, least, lower_least = _next_pair(
            upper, lower, held, source, low, lows, weights, scale, lower_least
        )
        if held != low:
            if held >= 0:
                _narrow(out, min(held, source.shape[1] - 1), lower_gradient, firsts, taps)
        else:
            upper_gradient, lower_gradient = lower_gradient, upper_gradient
        held = low + 1
        far = (least < safe) | (lower_least < safe)
        for start in range(0, width, CHUNK):
            n = min(CHUNK, width - start)
            for r in range(row, end):
                weight = row_weights[r]
                first = _1 - weight
                _exponentials(upper, lower, weight, start, n, power, far, e, p, shift, normaliser)
                _valid(valid, ids, targets, classes, r, start, n, ignore_index)
                _inverses(n, power, valid, normaliser, inverse, inverse_power, log_normaliser)
                for x in range(n):  # total = sum_j (F_j + m_j - s_j)
                    total[x] = _0
                for c in range(classes):
                    pc, factor = p[c], pb[c]
                    for x in range(n):
                        total[x] += factor * pc[x]
                for x in range(n):
                    total[x] = total[x] * inverse_power[x] - s_sum * valid[x]
                if len(ids):
                    for x in range(n):
                        if valid[x] > _0:
                            y = ids[r, start + x]
                            m = a[y] * (e[y, x] * inverse[x]) - k[y]
                            total[x] += m
                            upper_gradient[y, start + x] += first * m
                            lower_gradient[y, start + x] += weight * m
                else:
                    for c in range(classes):
                        y, ec = targets[c, r, start : start + n], e[c]
                        g0, g1 = upper_gradient[c, start : start + n], lower_gradient[c, start : start + n]
                        for x in range(n):
                            m = y[x] * (a[c] * (ec[x] * inverse[x]) - k[c])
                            total[x] += m
                            g0[x] += first * m
                            g1[x] += weight * m
                for x in range(n):
                    total[x] *= inverse[x]
                for c in range(classes):
                    ec, pc, factor = e[c], p[c], pb[c]
                    g0, g1 = upper_gradient[c, start : start + n], lower_gradient[c, start : start + n]
                    for x in range(n):
                        d = factor * pc[x] * inverse_power[x] - ec[x] * total[x]
                        g0[x] += first * d
                        g1[x] += weight * d
                    if uniform:
                        for x in range(n):
                            g0[x] -= first * s[c] * valid[x]
                            g1[x] -= weight * s[c] * valid[x]
        _narrow(out, low, upper_gradient, firsts, taps)
        row = end
    _narrow(out, min(held, source.shape[1] - 1), lower_gradient, firsts, taps)


@njit(**_EXACT)
@no_type_check
def _fill_greatest(source, row_lows, row_weights, lows, weights, winners):
    """winners (rows, width) = the class of the greatest logit of each pixel of a band, the first of equals."""
    classes, width = len(source), len(lows)
    upper, lower = np.empty((classes, width), np.float32), np.empty((classes, width), np.float32)
    greatest, winner = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.int32)
    held, row = -1, 0
    while row < len(row_lows):
        low, end = row_lows[row], _same_pair(row_lows, row)
        upper, lower, _, _ = _next_pair(upper, lower, held, source, low, lows, weights, _0, _0)
        held = low + 1
        for start in range(0, width, CHUNK):
            n = min(CHUNK, width - start)
            for r in range(row, end):
                _find_greatest(upper, lower, row_weights[r], start, n, greatest, winner)
                for x in range(n):
                    winners[r, start + x] = winner[x]
        row = end


@_compiled
@no_type_check
def add_confusion(source, ids, row_lows, row_weights, lows, weights, ignore_index, counts):
    """Adds a band's pixels to counts (classes, classes) int64: rows the truth, columns the greatest logit, the first
    of equals.

    ids (rows, width) int64; the other arguments as for `add_sums`. Returns how many ids are neither a class nor
    `ignore_index`.
    """
    wrong = 0
    winners = np.empty(ids.shape, np.int32)
    _fill_greatest(source, row_lows, row_weights, lows, weights, winners)
    for r in range(ids.shape[0]):
        for x in range(ids.shape[1]):
            truth = ids[r, x]
            if 0 <= truth < len(counts):
                counts[truth, winners[r, x]] += 1
            else:
                wrong += truth != ignore_index
    return wrong


@_compiled
@no_type_check
def find_greatest(source, row_lows, row_weights, lows, weights, mask):
    """Fills a band of a mask (rows, width) uint8 with the class of the greatest logit, the first of equals.

    Pixel by pixel what `add_confusion` counts; the other arguments as for `add_sums`.
    """
    _fill_greatest(source, row_lows, row_weights, lows, weights, mask)
