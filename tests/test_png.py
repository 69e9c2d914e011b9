"""Plain PNGs: to the bit what Pillow decodes, or left to it. Whatever is wrong with a file is said as Pillow's way of
the check says it.
"""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scripts.bench.measuring import peak_extra_memory
from seg_recipe import masks as seg_masks
from seg_recipe.data import check
from seg_recipe.labels import FACE
from seg_recipe.png import LARGEST, SIGNATURE, decode_plain, files, read_plain
from seg_recipe.png.loops import count_ids
from seg_recipe.transforms import EpochClock, EvalTransform, TrainTransform, cells
from tests.test_transforms import MEAN, STD, STRONG

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGBA: (8, 16)}
COLOURS = bytes(range(256)) * 3
HARMLESS = {
    "pHYs": bytes(9),
    "sRGB": b"\0",
    "gAMA": bytes([0, 0, 177, 143]),
    "cHRM": bytes(32),
    "tIME": b"\x07\xea\1\1\0\0\0",
}


def chunk(kind: str, content: bytes) -> bytes:
    whole = kind.encode() + content
    return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))


def filtered(rows: np.ndarray, kinds: list[int], pixel: int) -> bytes:
    """The rows, uint8 (height, bytes), each after the filter of its kind; `pixel`: bytes of one."""
    lines, above = [], np.zeros(rows.shape[1], int)
    for row, kind in zip(rows.astype(int), kinds, strict=True):
        left, corner = (np.concatenate([np.zeros(pixel, int), line])[: len(line)] for line in (row, above))
        estimate = left + above - corner
        distances = np.abs(np.stack([estimate - left, estimate - above, estimate - corner]))
        nearest = np.choose(distances.argmin(0), [left, above, corner])  # the first of those that are as near
        guess = [np.zeros_like(row), left, above, (left + above) // 2, nearest][kind]
        lines.append(bytes([kind]) + ((row - guess) % 256).astype(np.uint8).tobytes())
        above = row
    return b"".join(lines)


def written(
    width: int, height: int, colour: int, packed: list[bytes], depth: int = 8, ways: tuple[int, int, int] = (0, 0, 0),
    between: bytes = b"", behind: bytes = b"", palette: bytes = COLOURS,
) -> bytes:  # fmt: skip
    header = chunk("IHDR", struct.pack(">IIBB", width, height, depth, colour) + bytes(ways))
    colours = chunk("PLTE", palette) if colour == PALETTE and palette else b""
    return (
        SIGNATURE
        + header
        + between
        + colours
        + b"".join(chunk("IDAT", part) for part in packed)
        + behind
        + chunk("IEND", b"")
    )


def plain(pixels: np.ndarray, colour: int, kinds: list[int] | None = None, **options) -> bytes:
    """A PNG of pixels (height, width, channels), its rows filtered in turn by all filters where nothing
    else is said.
    """
    height, width, channels = pixels.shape
    kinds = kinds or [row % 5 for row in range(height)]
    lines = filtered(pixels.reshape(height, -1), kinds, channels)
    return written(width, height, colour, [zlib.compress(lines)], **options)


def some(colour: int, height: int = 9, width: int = 11, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, CHANNELS[colour]), np.uint8)


def by_pillow(data: bytes) -> np.ndarray | None:
    """As `decode_plain` has them; None where Pillow finds something wrong, or another kind of picture."""
    try:
        with Image.open(BytesIO(data)) as picture:
            picture.load()
    except (*check._DAMAGED, Image.UnidentifiedImageError):
        return None
    if picture.mode == "RGB":
        return np.asarray(picture.convert("RGBA")).view("<u4")[:, :, 0]
    return np.asarray(picture) if picture.mode in ("L", "P") else None


def decoded(data: bytes) -> np.ndarray | None:
    found = read_plain(data)
    return None if found is None else decode_plain(found)


def verdict(data: bytes, by_pillow_alone: bool) -> tuple:
    """What the check says of these bytes as an image and as a mask."""
    with pytest.MonkeyPatch.context() as patch:
        if by_pillow_alone:
            patch.setattr(check, "read_plain", lambda data: None)
        table = np.full(256, 200, np.uint8)
        table[[*range(100), 255]] = [*range(100), 255]
        cell = {"bytes": bytes(data), "path": None}
        found, pixels, digests = check.inspect_pair(cell, cell, table, 100)
    return found, pixels.tolist(), digests.tolist()


def assert_as_pillow_has_it(data: bytes) -> bool:
    """Decoded as by Pillow, if at all, with the same verdict. Returns whether it was decoded."""
    ours = decoded(data)
    if ours is not None:
        assert np.array_equal(ours, by_pillow(data))
    assert verdict(data, False) == verdict(data, True)
    return ours is not None


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_filter_and_every_cut_of_the_stream(data):
    colour = data.draw(st.sampled_from([GREY, RGB, PALETTE]))
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 20))
    seed, flat = data.draw(st.integers(0, 99)), data.draw(st.sampled_from([1, 4, 100]))
    pixels = some(colour, height, width, seed) // flat * flat  # noise, steps, flat areas
    kinds = data.draw(st.lists(st.integers(0, 4), min_size=height, max_size=height))
    stream = zlib.compress(filtered(pixels.reshape(height, -1), kinds, CHANNELS[colour]), data.draw(st.integers(0, 9)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    beside = [
        b"".join(chunk(k, HARMLESS[k]) for k in data.draw(st.lists(st.sampled_from(sorted(HARMLESS)), max_size=3)))
        for _ in "ab"
    ]
    file = written(width, height, colour, parts, between=beside[0], behind=beside[1])
    assert assert_as_pillow_has_it(file)
    seen = decoded(file)
    own = seen.view(np.uint8).reshape(height, width, 4)[:, :, :3] if colour == RGB else seen[:, :, None]
    assert np.array_equal(own, pixels)


@pytest.mark.parametrize("colour", DEPTHS)
@pytest.mark.parametrize("interlaced", [0, 1])
def test_every_colour_type_and_depth(colour, interlaced):
    for depth in DEPTHS[colour]:
        width = height = 1 if interlaced else 8  # of one pixel, all seven passes but the first are empty
        row = (width * CHANNELS[colour] * depth + 7) // 8
        lines = filtered(
            some(GREY, height, row)[:, :, 0] % 100,
            [row % 5 for row in range(height)],
            max(1, CHANNELS[colour] * depth // 8),
        )
        file = written(width, height, colour, [zlib.compress(lines)], depth, (0, 0, interlaced))
        wanted = depth == 8 and not interlaced and colour in (GREY, RGB, PALETTE)
        assert assert_as_pillow_has_it(file) == wanted, (colour, depth)


PIXELS = some(GREY) % 100
LINES = filtered(PIXELS[:, :, 0], [row % 5 for row in range(9)], 1)
STREAM = zlib.compress(LINES)
IMAGE = some(RGB)
ODD = {
    "transparent id": plain(PIXELS, PALETTE).replace(chunk("IDAT", STREAM), chunk("tRNS", b"\0") + chunk("IDAT",
    STREAM)),
    "transparent grey": plain(PIXELS, GREY, between=chunk("tRNS", b"\0\0")),
    "transparent colour": plain(IMAGE, RGB, between=chunk("tRNS", bytes(6))),
    "text": plain(PIXELS, GREY, between=chunk("tEXt", b"a\0b")),
    "EXIF": plain(PIXELS, GREY, between=chunk("eXIf",
    b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")),
    "EXIF behind": plain(PIXELS, GREY, behind=chunk("eXIf",
    b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")),
    "animation": plain(PIXELS, GREY, between=chunk("acTL", struct.pack(">II", 1, 0))),
    "unknown chunk": plain(PIXELS, GREY, between=chunk("abCd", b"x")),
    "unknown critical chunk": plain(PIXELS, GREY, between=chunk("ABCD", b"x")),
    "short pHYs": plain(PIXELS, GREY, between=chunk("pHYs", bytes(8))),
    "short gAMA": plain(PIXELS, GREY, between=chunk("gAMA", bytes(3))),
    "short cHRM": plain(PIXELS, GREY, between=chunk("cHRM", bytes(31))),
    "no sRGB": plain(PIXELS, GREY, between=chunk("sRGB", b"")),
    "no palette": plain(PIXELS, PALETTE, palette=b""),
    "palette of no colour": plain(PIXELS, PALETTE, palette=b"\0\0"),
    "palette too long": plain(PIXELS, PALETTE, palette=bytes(771)),
    "two palettes": plain(PIXELS, PALETTE, between=chunk("PLTE", COLOURS)),
    "palette of a grey picture": plain(PIXELS, GREY, between=chunk("PLTE", COLOURS)),
    "two headers": plain(PIXELS, GREY, between=chunk("IHDR", struct.pack(">IIBBBBB", 5, 5, 8, 0, 0, 0, 0))),
    "long header": SIGNATURE + chunk("IHDR", struct.pack(">II", 11, 9) + b"\x08" + bytes(5)) + plain(PIXELS,
    GREY)[33:],
    "no header": SIGNATURE + chunk("IDAT", STREAM) + chunk("IEND", b""),
    "no pixels": written(11, 9, GREY, []),
    "harmless before the header": SIGNATURE + chunk("gAMA", bytes(4)) + plain(PIXELS, GREY)[8:],
    "no end": plain(PIXELS, GREY)[:-12],
    "more behind the end": plain(PIXELS, GREY) + b"more",
    "pixels in two places": written(11, 9, GREY, [STREAM[:20]], behind=chunk("tIME", bytes(7)) + chunk("IDAT",
    STREAM[20:])),
    "other compression": plain(PIXELS, GREY, ways=(1, 0, 0)),
    "other filters": plain(PIXELS, GREY, ways=(0, 1, 0)),
    "width 0": written(0, 9, GREY, [STREAM]),
    "height 0": written(11, 0, GREY, [STREAM]),
    "no such filter": written(11, 9, GREY, [zlib.compress(b"\5" + LINES[1:])]),
    "no such filter, in colour": written(1, 1, RGB, [zlib.compress(b"\5" + b"123")]),
    "a row too few": written(11, 9, GREY, [zlib.compress(LINES[:-12])]),
    "a row too many": written(11, 9, GREY, [zlib.compress(LINES + LINES[-12:])]),
    "a byte too many": written(11, 9, GREY, [zlib.compress(LINES + b"\0")]),
    "more behind the stream": written(11, 9, GREY, [STREAM + b"more"]),
    "stream without its sum": written(11, 9, GREY, [STREAM[:-4]]),
    "stream with a wrong sum": written(11, 9, GREY, [STREAM[:-1] + bytes([STREAM[-1] ^ 1])]),
    "raw deflate": written(11, 9, GREY, [STREAM[2:-4]]),
    "no stream": written(11, 9, GREY, [b"", b""]),
    "wrong checksum of the header": plain(PIXELS, GREY)[:29] + b"\0\0\0\0" + plain(PIXELS, GREY)[33:],
    "wrong checksum of the pixels": plain(PIXELS, GREY)[:-14] + b"\0\0" + plain(PIXELS, GREY)[-12:],
    "chunk longer than the file": plain(PIXELS, GREY)[:-12] + struct.pack(">I", 2**31) + b"IEND",
    "empty": b"",
    "signature": SIGNATURE,
    "JPEG": b"\xff\xd8\xff\xe0",
}  # fmt: skip
AS_THEY_ARE = ("more behind the end", "more behind the stream")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of an animation of one picture
@pytest.mark.parametrize("name", ODD)
def test_what_is_not_plain_is_left_to_pillow(name):
    assert assert_as_pillow_has_it(ODD[name]) == (name in AS_THEY_ARE)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damage_at_random_is_judged_as_by_pillow():
    """Bytes changed or cut out of files and of what is deflated in them, with checksums that are wrong then, and with
    right ones.
    """
    generator, taken = np.random.default_rng(0), 0
    for turn in range(600):
        colour = (GREY, PALETTE, RGB)[turn % 3]
        pixels = some(colour, 8, 8, turn) // (1, 16, 64)[turn // 3 % 3] % 100
        lines = bytearray(filtered(pixels.reshape(8, -1), generator.integers(0, 5, 8).tolist(), CHANNELS[colour]))
        if turn % 5 == 0:
            lines[generator.integers(len(lines))] = generator.integers(256)
        stream = bytearray(zlib.compress(lines, turn % 10))
        if turn % 5 in (1, 2):
            place = generator.integers(len(stream) if turn % 5 == 1 else 12)
            stream[place] ^= 1 << generator.integers(8)
        if turn % 5 == 3:
            del stream[generator.integers(len(stream)) :][: generator.integers(1, 9)]
        file = bytearray(written(8, 8, colour, [bytes(stream[:30]), bytes(stream[30:])]))
        if turn % 5 == 4:
            file[generator.integers(8, len(file))] ^= 1 << generator.integers(8)
        taken += assert_as_pillow_has_it(bytes(file))
    assert 100 < taken < 500


def test_every_end_of_a_file():
    for file in (plain(PIXELS, PALETTE), plain(IMAGE, RGB)):
        assert not any(assert_as_pillow_has_it(file[:end]) for end in range(len(file)))


def bomb(width: int, height: int, megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    zeros = bytes(2**20)
    return written(
        width, height, GREY, [b"".join([*(packer.compress(zeros) for _ in range(megabytes)), packer.flush()])]
    )


def test_a_bomb_takes_no_more_than_its_header_says():
    for file in (
        bomb(100, 100, 100),
        written(5000, 5000, GREY, [STREAM]),
        written(5000, 5000, GREY, [STREAM, bytes(30_000)]),
    ):
        assert decoded(file) is None
        assert peak_extra_memory(lambda file=file: decoded(file), torch.device("cpu")) < 20
    assert decoded(bomb(100, 100, 1)) is None and np.array_equal(
        decoded(written(1023, 1024, GREY, [zlib.compress(bytes(2**20))])), np.zeros((1024, 1023))
    )
    beyond = written(2**13, LARGEST // 2**13 + 1, GREY, [STREAM])
    assert read_plain(beyond) is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 3), (8, 8), (5, 16), (64, 61)])
def test_ids_are_counted(shape):
    generator = np.random.default_rng(1)
    for ids in (
        generator.integers(0, 256, shape, np.uint8),
        generator.integers(0, 3, shape, np.uint8) * 100,
        np.full(shape, 255, np.uint8),
    ):
        ids = np.sort(ids, axis=None).reshape(shape) if ids.max() == 200 else ids
        counts = np.ones(256, np.int64)
        count_ids(ids, counts)
        assert np.array_equal(counts, 1 + np.bincount(ids.ravel(), minlength=256))


def test_files_are_read_whole_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_ROOM", 1000)
    monkeypatch.setattr(files, "_held", files._Held())
    for size in (0, 1, 999, 1000, 1001, 5000, 10):
        content = np.random.default_rng(size).bytes(size)
        (tmp_path / "file").write_bytes(content)
        assert bytes(files.read_file(str(tmp_path / "file"))) == content
    with pytest.raises(IsADirectoryError):
        files.read_file(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        files.read_file(str(tmp_path / "none"))


@pytest.mark.parametrize("size", [(40, 40), (70, 150)])
def test_samples_are_those_of_pillow_to_the_bit(size, monkeypatch):
    height, width = size
    images = [plain(some(RGB, height, width, number), RGB) for number in range(8)]
    masks = [plain(some(kind, height, width, number) % 19, kind) for number, kind in enumerate([GREY, PALETTE] * 4)]
    batch = {"id": [str(number) for number in range(8)]}
    batch |= {
        name: [{"bytes": file, "path": None} for file in files]
        for name, files in (("image", images), ("label", masks))
    }
    seen = {"label_space": FACE, "image_size": 40, "mean": MEAN, "std": STD}
    transforms = (TrainTransform(**seen, **STRONG, seed=0, clock=EpochClock()), EvalTransform(**seen))
    decodings = []
    for room in (cells, seg_masks):
        monkeypatch.setattr(
            room, "decode_plain", lambda found: (decodings.append(found.channels), decode_plain(found))[1]
        )
    ours = [transform(batch) for transform in transforms]
    assert decodings == [3, 1] * 16
    for room in (cells, seg_masks):
        monkeypatch.setattr(room, "read_plain", lambda data: None)
    for mine, its in zip(ours, [transform(batch) for transform in transforms], strict=True):
        for name in ("pixel_values", "labels"):
            assert all(torch.equal(a, b) for a, b in zip(mine[name], its[name], strict=True)), name
    assert decodings == [3, 1] * 16
