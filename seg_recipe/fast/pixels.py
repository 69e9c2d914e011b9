"""Loops over the pixels of a training image, compiled by numba at the first use.

Colour pixels are packed as Pillow keeps them: one uint32 each, red in its lowest byte, then green, blue, and a fourth
byte that nobody looks at.
"""

from typing import Any, no_type_check

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from seg_recipe.fast.compilation import compiled

FRACTION = 16
"""Bits behind the point of a place in a picture: places are whole numbers, in 1/65536 pixel."""

_OPTIONS: dict[str, Any] = {
    "fastmath": {"contract"},
    "error_model": "numpy",
}  # a * b + c in one operation; no check for a division by 0

# Literals would be 64 bits wide, and with them everything that they touch.
_0, _HALF, _255 = np.float32(0), np.float32(0.5), np.float32(255)
_RED, _GREEN, _BLUE = np.float32(0.299), np.float32(0.587), np.float32(0.114)  # ITU-R 601, as Pillow's mode L
_STEP, _LOW = np.float32(2.0**-FRACTION), np.int32(2**FRACTION - 1)
_BYTE, _8, _16 = np.uint32(255), np.uint32(8), np.uint32(16)

_compiled = compiled(**_OPTIONS)


@intrinsic
@no_type_check
def _between(_, pixels, first, below, right, down):
    """The pixel at `right`, `down` (0-1) between the four around it: at `first`, `below` and one after each. Rounded
    to the nearest.

    The four channels are the four lanes of one vector, for which LLVM has instructions on every processor; numba would
    take one channel after the other.
    """
    four, eight = ir.VectorType(ir.FloatType(), 4), ir.VectorType(ir.IntType(8), 4)
    whole, index = ir.VectorType(ir.IntType(32), 4), ir.IntType(32)

    def code(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data

        def channels(place, step):
            pixel = builder.gep(data, [builder.add(place, ir.Constant(place.type, step))])
            pixel = builder.load(builder.bitcast(pixel, eight.as_pointer()), align=4)
            return builder.uitofp(builder.zext(pixel, whole), four)

        def in_all(weight):
            one = builder.insert_element(ir.Constant(four, ir.Undefined), weight, index(0))
            return builder.shuffle_vector(one, ir.Constant(four, ir.Undefined), ir.Constant(whole, [0] * 4))

        def part(start, end, weight):
            way = builder.fmul(builder.fsub(end, start), weight, flags=("contract",))
            return builder.fadd(start, way, flags=("contract",))

        first, below, right, down = arguments[1], arguments[2], in_all(arguments[3]), in_all(arguments[4])
        above = part(channels(first, 0), channels(first, 1), right)
        value = part(above, part(channels(below, 0), channels(below, 1), right), down)
        value = builder.fptosi(builder.fadd(value, ir.Constant(four, [0.5] * 4)), whole)
        return builder.bitcast(builder.trunc(value, eight), index)

    return types.uint32(pixels, first, below, right, down), code


@njit(**_OPTIONS)
@no_type_check
def _inside(start, step, length, first, last):
    """The part of columns first .. last - 1 whose place start + step * column is in 0 .. length - 1."""
    if step == 0:
        return first, last if 0 <= start < length else first
    if step < 0:  # the same columns, seen from the other end of the picture
        start, step = length - 1 - start, -step
    return max(first, -(start // step)), min(last, -((start - length) // step))


@njit(**_OPTIONS)
@no_type_check
def _columns(places, lengths, row, size):
    """The first column of a row of the square that shows the picture, and the one behind the last; both the same where
    none does.
    """
    first, last = _inside(places[0, 1] * row + places[0, 2], places[0, 0], lengths[0], 0, size)
    first, last = _inside(places[1, 1] * row + places[1, 2], places[1, 0], lengths[1], first, last)
    first = min(first, size)
    return first, max(first, last)


@njit(**_OPTIONS)
@no_type_check
def _turn(line):
    """Reverse a row in place."""
    for i in range(len(line) // 2):
        line[i], line[len(line) - 1 - i] = line[len(line) - 1 - i], line[i]


@njit(**_OPTIONS)
@no_type_check
def _scale(line, factors, red, green, blue):
    red_factor, green_factor, blue_factor = factors[0, 0], factors[0, 1], factors[0, 2]
    red_start, green_start, blue_start = factors[1, 0], factors[1, 1], factors[1, 2]
    for column in range(len(line)):
        p = line[column]
        red[column] = red_factor * np.float32(p & _BYTE) + red_start
        green[column] = green_factor * np.float32((p >> _8) & _BYTE) + green_start
        blue[column] = blue_factor * np.float32((p >> _16) & _BYTE) + blue_start


@_compiled
@no_type_check
def warp(pixels, places, lengths, window_places, fill, mirrored, factors, values):
    """Fill `values` (3, size, size) from packed `pixels` (height, width), bilinearly; beyond the picture's border from
    the pixel `fill`.

    What is in between is rounded to 8 bits, and then goes through `factors`: see `scale`.

    places: int64 (2, 3). The pixel in column c and row r of the square shows the picture at places @ (c, r, 1), right
    and down from the
        picture's corner. lengths: int64 (2), where the picture ends. They say what is outside.
    window_places: the same from the centre of the first of `pixels` on; outside of `pixels`, the outermost ones go on
    for ever.
    pixels: at least 2 by 2. mirrored: whether the square is filled from right to left.
    """
    size, width = values.shape[1], pixels.shape[1]
    flat, line = pixels.reshape(-1), np.empty(size, np.uint32)
    pixel = np.empty(size, np.int32)
    right, down = np.empty(size, np.float32), np.empty(size, np.float32)
    right_end, down_end = (width - 1) * 2**FRACTION - 1, (len(pixels) - 1) * 2**FRACTION - 1
    x_step, y_step, wide = window_places[0, 0], window_places[1, 0], np.int32(width)
    for row in range(size):
        first, last = _columns(places, lengths, row, size)
        shown = line[first:last]
        x = window_places[0, 1] * row + window_places[0, 2] + x_step * first
        y = window_places[1, 1] * row + window_places[1, 2] + y_step * first
        for i in range(len(shown)):
            inner_x, inner_y = min(max(x, 0), right_end), min(max(y, 0), down_end)
            pixel[i] = np.int32((inner_y >> FRACTION) * width + (inner_x >> FRACTION))
            right[i], down[i] = (
                np.float32(np.int32(inner_x) & _LOW) * _STEP,
                np.float32(np.int32(inner_y) & _LOW) * _STEP,
            )
            x += x_step
            y += y_step
        for i in range(len(shown)):
            shown[i] = _between(flat, pixel[i], pixel[i] + wide, right[i], down[i])
        line[:first] = fill
        line[last:] = fill
        if mirrored:
            _turn(line)
        _scale(line, factors, values[0, row], values[1, row], values[2, row])


@_compiled
@no_type_check
def warp_ids(mask, places, lengths, table, fill, mirrored, square):
    """Fill `square` (size, size) with table[id] of the nearest pixel of `mask` (height, width), all uint8; outside
    with `fill`.

    places, lengths, mirrored: as for `warp`; where the picture is longer than the mask, the mask's last pixels are
    repeated. Returns the greatest of what was taken from the table, where 255 counts as nothing.
    """
    size, greatest, width = len(square), np.uint8(0), mask.shape[1]
    flat = mask.reshape(-1)
    pixel = np.empty(size, np.int32)
    right_end, down_end = width - 1, len(mask) - 1
    x_step, y_step = places[0, 0], places[1, 0]
    for row in range(size):
        first, last = _columns(places, lengths, row, size)
        line = square[row]
        shown = line[first:last]
        x = places[0, 1] * row + places[0, 2] + x_step * first
        y = places[1, 1] * row + places[1, 2] + y_step * first
        for i in range(len(shown)):
            pixel[i] = np.int32(min(y >> FRACTION, down_end) * width + min(x >> FRACTION, right_end))
            x += x_step
            y += y_step
        for i in range(len(shown)):
            shown[i] = table[flat[np.uint32(pixel[i])]]
        for i in range(len(shown)):
            greatest = max(greatest, np.uint8(shown[i] + np.uint8(1)))
        line[:first] = fill
        line[last:] = fill
        if mirrored:
            _turn(line)
    return greatest - 1


@_compiled
@no_type_check
def tone(pixels, left, top, saturation, table, window):
    """Fill `window` with the part of `pixels` that begins at `left`, `top`, both packed, after saturation and table.

    saturation: float32, factor on the distance from the pixel's own grey. table: uint32 (3, 256), what red, green and
    blue become, each in its own byte.
    """
    height, width = window.shape
    for row in range(height):
        source, target = pixels[top + row, left : left + width], window[row]
        if saturation == np.float32(1):
            for column in range(width):
                target[column] = source[column]
        else:
            for column in range(width):
                p = source[column]
                r, g, b = np.float32(p & _BYTE), np.float32((p >> _8) & _BYTE), np.float32((p >> _16) & _BYTE)
                grey = _RED * r + _GREEN * g + _BLUE * b
                r = min(max(grey + saturation * (r - grey), _0), _255) + _HALF
                g = min(max(grey + saturation * (g - grey), _0), _255) + _HALF
                b = min(max(grey + saturation * (b - grey), _0), _255) + _HALF
                target[column] = (
                    np.uint32(np.int32(r)) | (np.uint32(np.int32(g)) << _8) | (np.uint32(np.int32(b)) << _16)
                )
        for column in range(width):
            p = target[column]
            red, green, blue = np.uint64(p & _BYTE), np.uint64((p >> _8) & _BYTE), np.uint64((p >> _16) & _BYTE)
            target[column] = table[0, red] | table[1, green] | table[2, blue]


@_compiled
@no_type_check
def blur(values, across, down, blurred):
    """Fill `blurred` with the means over boxes of `values`, uint8 (height, 4 width): four channels, each by itself.

    across, down: radii in pixels, from 0. A box reaches that far from its pixel's border; the pixels that it cuts
    count in part. At the picture's border the outermost pixels are repeated.
    """
    height, length = values.shape
    whole_across, whole_down = int(across), int(down)
    part_across, part_down = np.float32(across - whole_across), np.float32(down - whole_down)
    share = np.float32(1 / ((2 * across + 1) * (2 * down + 1)))
    margin = 4 * (whole_across + 1)
    inner, sums = np.zeros(length, np.int32), np.empty(length, np.float32)
    column = np.empty(length + 2 * margin, np.float32)
    for row in range(-whole_down, whole_down + 1):
        line = values[min(max(row, 0), height - 1)]
        for i in range(length):
            inner[i] += np.int32(line[i])
    for row in range(height):
        above, below = values[max(row - whole_down - 1, 0)], values[min(row + whole_down + 1, height - 1)]
        middle = column[margin : margin + length]
        for i in range(length):
            middle[i] = np.float32(inner[i]) + part_down * np.float32(np.int32(above[i]) + np.int32(below[i]))
        for i in range(margin):
            column[i] = middle[i % 4]
            column[margin + length + i] = middle[length - 4 + i % 4]
        near, far = column[:length], column[2 * margin : 2 * margin + length]
        for i in range(length):
            sums[i] = part_across * (near[i] + far[i])
        for tap in range(4, 2 * margin, 4):
            taken = column[tap : tap + length]
            for i in range(length):
                sums[i] += taken[i]
        target = blurred[row]
        for i in range(length):
            target[i] = np.uint8(np.int32(sums[i] * share + _HALF))
        leaving = values[max(row - whole_down, 0)]
        for i in range(length):
            inner[i] += np.int32(below[i]) - np.int32(leaving[i])


@_compiled
@no_type_check
def add_noise(values, noise, starts, level):
    """Add level * noise to `values`, uint8 (height, n), in place; row y takes the n numbers of `noise` from starts[y]
    on.

    noise: float32. level: float32. The sums are rounded, and cut off at 0 and 255.
    """
    for row in range(len(values)):
        line, added = values[row], noise[starts[row] : starts[row] + values.shape[1]]
        for i in range(len(line)):
            line[i] = np.uint8(np.int32(min(max(np.float32(line[i]) + level * added[i], _0), _255) + _HALF))


@_compiled
@no_type_check
def scale(pixels, factors, values):
    """values[c, y, x] = factors[0, c] * channel c of pixels[y, x] + factors[1, c], in one operation where the
    processor has it.

    pixels: packed (height, width). factors: float32 (2, 3). values: float32 (3, height, width).
    """
    for row in range(len(pixels)):
        _scale(pixels[row], factors, values[0, row], values[1, row], values[2, row])


@_compiled
@no_type_check
def read_ids(mask, table, ids):
    """Fill `ids` with table[id] of each pixel of `mask`, both uint8 (height, width). Returns what
    `warp_ids` returns.
    """
    greatest = np.uint8(0)
    for row in range(len(mask)):
        source, target = mask[row], ids[row]
        for column in range(len(source)):
            target[column] = table[source[column]]
        for column in range(len(source)):
            greatest = max(greatest, np.uint8(target[column] + np.uint8(1)))
    return greatest - 1
