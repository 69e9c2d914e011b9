"""Loops over the rows of a PNG, compiled by numba at the first use: the filters that each row was written with are
undone.
"""

from typing import Any, no_type_check

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from seg_recipe.fast.compilation import compiled

_OPTIONS: dict[str, Any] = {"error_model": "numpy"}
_BYTES, _WIDE = ir.VectorType(ir.IntType(8), 4), ir.VectorType(ir.IntType(16), 4)
_1, _8, _16, _OPAQUE = np.uint32(1), np.uint32(8), np.uint32(16), np.uint32(0xFF000000)
_HIGH, _LOW, _UNEVEN = (
    np.uint32(0x80808080),
    np.uint32(0x7F7F7F7F),
    np.uint32(0xFEFEFEFE),
)  # in each byte: bit 7, the others, all but bit 0
_ONE, _TWO, _THREE = np.uint64(1), np.uint64(2), np.uint64(3)
_ID = np.uint64(0x0101010101010101)

_compiled = compiled(**_OPTIONS)


# ---- four channels at once


@intrinsic
@no_type_check
def _widen(_, pixel):
    """The four bytes of a pixel with 16 bits each."""

    def code(context, builder, signature, arguments):
        return builder.bitcast(builder.zext(builder.bitcast(arguments[0], _BYTES), _WIDE), ir.IntType(64))

    return types.uint64(types.uint32), code


@intrinsic
@no_type_check
def _narrow(_, wide):
    """The pixel that was widened."""

    def code(context, builder, signature, arguments):
        return builder.bitcast(builder.trunc(builder.bitcast(arguments[0], _WIDE), _BYTES), ir.IntType(32))

    return types.uint32(types.uint64), code


@intrinsic
@no_type_check
def _add_paeth(_, pixel, left, above, corner):
    """Each channel of `pixel` plus the one of its three neighbours that is nearest to left + above - corner; all
    widened, as the sum is.
    """

    def code(context, builder, signature, arguments):
        def size(value):
            return builder.select(builder.icmp_signed("<", value, none), builder.sub(none, value), value)

        none = ir.Constant(_WIDE, [0] * 4)
        pixel, left, above, corner = (builder.bitcast(value, _WIDE) for value in arguments)
        down, across = builder.sub(above, corner), builder.sub(left, corner)
        from_left, from_above, from_corner = size(down), size(across), size(builder.add(down, across))
        upper = builder.icmp_signed("<=", from_above, from_corner)
        other, distance = builder.select(upper, above, corner), builder.select(upper, from_above, from_corner)
        nearest = builder.select(builder.icmp_signed("<=", from_left, distance), left, other)
        return builder.bitcast(
            builder.and_(builder.add(pixel, nearest), ir.Constant(_WIDE, [255] * 4)), ir.IntType(64)
        )

    return types.uint64(types.uint64, types.uint64, types.uint64, types.uint64), code


@njit(**_OPTIONS)
@no_type_check
def _add(a, b):
    """Sums of bytes, each without what it carries over."""
    return ((a & _LOW) + (b & _LOW)) ^ ((a ^ b) & _HIGH)


@njit(**_OPTIONS)
@no_type_check
def _mean(a, b):
    """Means of bytes, each rounded down."""
    return (a & b) + (((a ^ b) & _UNEVEN) >> _1)


@_compiled
@no_type_check
def unfilter_colours(lines, pixels):
    """Fill `pixels`, uint32 (height, width), red lowest, its highest byte 255, from `lines`, uint8 (height, 1 + 3
    width).

    lines: of each row its filter, 0 to 4, and its filtered bytes. Returns False where another filter stands.
    """
    height, width = pixels.shape
    none = np.zeros(width, np.uint32)
    for row in range(height):
        kind, source, target, above = lines[row, 0], lines[row, 1:], pixels[row], pixels[row - 1] if row else none
        for i in range(np.uint64(width)):
            red, green, blue = source[_THREE * i], source[_THREE * i + _ONE], source[_THREE * i + _TWO]
            target[i] = np.uint32(red) | np.uint32(green) << _8 | np.uint32(blue) << _16
        left = np.uint32(0)
        if kind == 1:
            for i in range(width):
                left = _add(target[i], left)
                target[i] = left
        elif kind == 2:
            for i in range(width):
                target[i] = _add(target[i], above[i])
        elif kind == 3:
            for i in range(width):
                left = _add(target[i], _mean(left, above[i]))
                target[i] = left
        elif kind == 4:
            wide = corner = np.uint64(0)
            for i in range(width):
                upper = _widen(above[i])
                wide = _add_paeth(_widen(target[i]), wide, upper, corner)
                corner = upper
                target[i] = _narrow(wide)
        elif kind:
            return False
        for i in range(width):
            target[i] |= _OPAQUE
    return True


# ---- one channel


@njit(**_OPTIONS)
@no_type_check
def _paeth(left, above, corner):
    """Which of the three is nearest to left + above - corner; the first of those that are as near."""
    if above == corner:  # as nearly everywhere in a mask: a guess that the processor makes for nothing
        return left
    down, across = above - corner, left - corner
    from_left, from_above, from_corner = abs(down), abs(across), abs(down + across)
    other = above if from_above <= from_corner else corner
    return left if from_left <= from_above and from_left <= from_corner else other


@_compiled
@no_type_check
def unfilter_bytes(lines, pixels):
    """Fill `pixels`, uint8 (height, width), from `lines`, uint8 (height, 1 + width): as `unfilter_colours` does."""
    height, width = pixels.shape
    none = np.zeros(width, np.uint8)
    for row in range(height):
        kind, source, target, above = lines[row, 0], lines[row, 1:], pixels[row], pixels[row - 1] if row else none
        left = np.int32(0)
        if kind == 0:
            for i in range(width):
                target[i] = source[i]
        elif kind == 1:
            for i in range(width):
                left += source[i]
                target[i] = np.uint8(left)
        elif kind == 2:
            for i in range(width):
                target[i] = np.uint8(source[i] + above[i])
        elif kind == 3:
            for i in range(width):
                left = (np.int32(source[i]) + ((left + np.int32(above[i])) >> 1)) & 255
                target[i] = np.uint8(left)
        elif kind == 4:
            corner = np.int32(0)
            for i in range(width):
                upper = np.int32(above[i])
                left = (np.int32(source[i]) + _paeth(left, upper, corner)) & 255
                corner = upper
                target[i] = np.uint8(left)
        else:
            return False
    return True


@_compiled
@no_type_check
def count_ids(mask, counts):
    """Add to counts[id], int64 (256), the pixels of each id in `mask`, uint8 (height, width), in one piece.

    Eight pixels at a time are compared with the one before them, for most of a mask repeats it.
    """
    flat = mask.reshape(-1)
    eights = flat[: len(flat) // 8 * 8].view(np.uint64)
    last, run = np.uint64(0), 0
    for eight in eights:
        if eight == last:
            run += 8
        else:
            counts[np.uint8(last)] += run
            run = 0
            for shift in range(0, 64, 8):
                counts[np.uint8(eight >> np.uint64(shift))] += 1
            last = (eight >> np.uint64(56)) * _ID
    counts[np.uint8(last)] += run
    for i in range(8 * len(eights), len(flat)):
        counts[flat[i]] += 1
