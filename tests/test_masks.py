"""Ids in masks of every pixel format: what a small writer stored is what is read by all who read masks, or it is
refused.
"""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from datasets import Dataset, Features
from datasets import Image as ImageColumn
from PIL import Image

from seg_recipe.data import DataProblems, attach_transform, load_data
from seg_recipe.data.check import SIGNATURE
from seg_recipe.faces.photographs import find_photographs
from seg_recipe.importers.image_files import Unusable, read_colours, read_grey, read_ids
from seg_recipe.importers.inspection import look_at
from seg_recipe.importers.sources import SourceFile
from seg_recipe.labels import LabelSpace
from seg_recipe.masks import NotIds, ids_of_file
from seg_recipe.report import panel_of
from seg_recipe.scoring.scored_split import open_split
from seg_recipe.transforms import EvalTransform
from tests.face_files import run
from tests.test_data import write_pair

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)  # first row, column; steps
COLOURS = [(37 * i % 256, 11 * i % 256, 90 + i % 100) for i in range(256)]
SPACE = LabelSpace(names=("a", "b", "c"))
SEEN = {"image_size": 8, "mean": [0.5] * 3, "std": [0.5] * 3}


def png(numbers, colour=GREY, depth=8, interlaced=False, palette=()):
    """A PNG of these numbers: (height, width) or (height, width, channels), each stored in `depth` bits. Written by
    the standard alone.
    """
    numbers = np.asarray(numbers).reshape(*np.shape(numbers)[:2], -1)
    height, width = numbers.shape[:2]
    stream = b""
    for row, column, down, across in ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = numbers[row::down, column::across]
        for line in part if part.size else ():
            bits = (line.reshape(-1, 1) >> np.arange(depth - 1, -1, -1)) & 1
            stream += b"\0" + np.packbits(bits.astype(np.uint8).ravel()).tobytes()

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    file = SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    file += chunk(b"PLTE", bytes(np.ravel(list(palette)).tolist())) if len(palette) else b""
    return file + chunk(b"IDAT", zlib.compress(stream)) + chunk(b"IEND", b"")


def some(most, shape=(8, 8), seed=0):
    return np.random.default_rng(seed).integers(0, most + 1, shape)


def read_by_all(data, tmp_path):
    """The ids as the package, the check, the transform, the scorer and the importer read them: the same from all, or
    refused by all.
    """
    folder = tmp_path / "set"
    for number in range(2):
        write_pair(
            folder / "train/images" / f"{number}.png", folder / "train/annotations" / f"{number}_seg.png", number
        )
        write_pair(
            folder / "val/images" / f"v{number}.png", folder / "val/annotations" / f"v{number}_seg.png", 7 + number
        )
    (folder / "val/annotations/v0_seg.png").write_bytes(data)
    space = LabelSpace(names=tuple(map(str, range(255))))
    file = SourceFile("val/annotations/v0_seg.png", len(data), None, str(folder))
    try:
        wanted = ids_of_file(data)
    except NotIds as error:
        with pytest.raises(Unusable):
            read_ids(file)
        with pytest.raises(DataProblems, match=error.kind):
            load_data([str(folder)], label_space=space, progress=False)
        with pytest.raises(ValueError, match=error.kind):
            EvalTransform(label_space=space, **SEEN)(
                {"id": ["v0"], "image": [Image.new("RGB", (8, 8))], "label": [cell(data)]}
            )
        assert look_at([folder / file.name], 1, 1, space)["masks_without_ids"] == 1
        raise
    assert (read_ids(file) == wanted).all()
    split = load_data([str(folder)], label_space=space, progress=False)
    counted = np.bincount(np.concatenate([wanted.ravel(), other_ids(folder)]), minlength=256)[:255]
    assert split.class_pixels["validation"].tolist() == counted.tolist()
    samples = attach_transform(split.splits["validation"], EvalTransform(label_space=space, **SEEN))
    panel = panel_of(split.splits["validation"], EvalTransform(label_space=space, **SEEN), 2)
    scored = open_split(str(folder), "val", space, progress=False)
    for read in (samples[0]["labels"].numpy(), panel.masks[0], scored[0][1]):
        assert (read == wanted).all()
    assert look_at([folder / file.name], 1, 1, space)["masks"] == 1
    return wanted


def other_ids(folder):
    return np.asarray(Image.open(folder / "val/annotations/v1_seg.png")).ravel()


def cell(data):
    return {"bytes": data, "path": None}


@pytest.mark.slow
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_of_every_depth_is_the_stored_number(tmp_path, depth, interlaced):
    ids = some(min(2**depth - 1, 254))
    assert (read_by_all(png(ids, GREY, depth, interlaced), tmp_path) == ids).all()


@pytest.mark.slow
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_of_a_palette_of_colours_the_places_are_read(tmp_path, depth, interlaced):
    ids = some(min(2**depth - 1, 254))
    assert (read_by_all(png(ids, PALETTE, depth, interlaced, COLOURS[: 2**depth]), tmp_path) == ids).all()


@pytest.mark.parametrize("depth", [2, 8])
@pytest.mark.parametrize(
    ("greys", "taken"),
    [((0, 1, 2, 3), True), ((2, 0, 1, 3), False), ((0, 85, 170, 255), False), ((0, 0, 0, 0), True), ((0, 1, 2), True)],
    ids=["that the places are", "in another order", "spread", "all black", "too few"],
)
def test_a_grey_palette_is_read_where_it_leaves_no_doubt(tmp_path, depth, greys, taken):
    """A program that shrinks PNGs writes an 8-bit mask as the palette of its greys."""
    ids = some(3)
    data = png(ids, PALETTE, depth, palette=[(grey,) * 3 for grey in greys])
    if taken and len(greys) == 4:
        assert (read_by_all(data, tmp_path) == ids).all()
    elif taken:
        ids = np.minimum(ids, 2)
        assert (read_by_all(png(ids, PALETTE, depth, palette=[(grey,) * 3 for grey in greys]), tmp_path) == ids).all()
    else:
        with pytest.raises(NotIds, match=r"mask with a grey palette: places 0, 1, 2, 3 show the greys"):
            read_by_all(data, tmp_path)


def test_what_pillow_quantizes_is_refused_or_read_right(tmp_path):
    """An independent optimiser: Pillow's own."""
    ids = np.array([[0, 5, 12], [12, 5, 5]], np.uint8).repeat(4, 0).repeat(4, 1)[:8, :8]
    stream = io.BytesIO()
    Image.fromarray(ids).quantize(4).save(stream, "PNG")
    with pytest.raises(NotIds, match="grey palette"):
        read_by_all(stream.getvalue(), tmp_path)


@pytest.mark.parametrize("colour", [RGB, RGBA, GREY_ALPHA])
@pytest.mark.parametrize("interlaced", [False, True])
def test_equal_channels_are_ids_and_others_are_refused(tmp_path, colour, interlaced):
    ids = some(200)
    pixels = np.repeat(ids[:, :, None], CHANNELS[colour], axis=2)
    if colour != RGB:
        pixels[:, :, -1] = 255
    assert (read_by_all(png(pixels, colour, 8, interlaced), tmp_path) == ids).all()
    if colour != RGB:
        pixels[3, 3, -1] = 254
        with pytest.raises(NotIds, match="mask with alpha"):
            read_by_all(png(pixels, colour, 8, interlaced), tmp_path)
    if colour != GREY_ALPHA:
        pixels[:, :, 1] += 1
        with pytest.raises(NotIds, match="mask in colour"):
            read_by_all(png(pixels, colour, 8, interlaced), tmp_path)


@pytest.mark.parametrize("colour", [RGB, RGBA, GREY_ALPHA])
def test_sixteen_bits_a_channel_are_refused(tmp_path, colour):
    """Pillow gives the high bytes alone: all of these ids would be 0."""
    data = png(np.full((8, 8, CHANNELS[colour]), 2), colour, 16)
    with pytest.raises(NotIds, match="16-bit mask in colour"):
        read_by_all(data, tmp_path)
    with pytest.raises(Unusable, match="more than 8 bits a channel"):
        read_colours(SourceFile("v0_seg.png", 1, lambda: io.BytesIO(data)))


def test_ids_above_255_are_named(tmp_path):
    for number in range(2):
        write_pair(
            tmp_path / "train/images" / f"{number}.png", tmp_path / "train/annotations" / f"{number}_seg.png", number
        )
    (tmp_path / "train/annotations/0_seg.png").write_bytes(png(np.full((8, 8), 300), GREY, 16))
    with pytest.raises(DataProblems, match=r"0_seg\.png: ids 300; it has 0-2 and 255"):
        load_data([str(tmp_path)], label_space=SPACE, progress=False)
    with pytest.raises(ValueError, match=r"Sample x: its mask holds ids 300; ids are 0-255"):
        label = cell(png(np.full((8, 8), 300), GREY, 16))
        EvalTransform(label_space=SPACE, **SEEN)({"id": ["x"], "image": [Image.new("RGB", (8, 8))], "label": [label]})


def saved_as(array, name, **options):
    stream = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(stream, name, **options)
    return stream.getvalue()


def bmp(ids, bits, greys):
    """A BMP of ids, its palette all grey; each row ends on four bytes, the last row first."""
    packed = [
        np.packbits(((row.reshape(-1, 1) >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8).ravel()).tobytes()
        for row in ids[::-1]
    ]
    pixels = b"".join(row + bytes(-len(row) % 4) for row in packed)
    palette = b"".join(bytes((grey, grey, grey, 0)) for grey in greys)
    info = struct.pack("<IiiHHIIiiII", 40, ids.shape[1], ids.shape[0], 1, bits, 0, len(pixels), 0, 0, len(greys), 0)
    return (
        b"BM"
        + struct.pack("<IHHI", 54 + len(palette) + len(pixels), 0, 0, 54 + len(palette))
        + info
        + palette
        + pixels
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("most", "data"),
    [
        pytest.param(254, lambda ids: saved_as(ids.astype(np.uint8), "TIFF"), id="TIFF 8"),
        pytest.param(254, lambda ids: saved_as(ids.astype(np.uint16), "TIFF", compression="tiff_lzw"), id="TIFF 16"),
        pytest.param(254, lambda ids: saved_as(ids.astype(np.int32), "TIFF"), id="TIFF 32"),
        pytest.param(1, lambda ids: saved_as(ids.astype(bool), "TIFF"), id="TIFF 1"),
        pytest.param(254, lambda ids: saved_as(np.dstack([ids.astype(np.uint8)] * 3), "TIFF"), id="TIFF RGB"),
        pytest.param(254, lambda ids: bmp(ids, 8, range(256)), id="BMP 8"),
        pytest.param(3, lambda ids: saved_as(ids.astype(np.uint8), "BMP"), id="BMP 8, few colours"),
        pytest.param(1, lambda ids: bmp(ids, 1, (0, 255)), id="BMP 1"),
        pytest.param(254, lambda ids: saved_as(np.dstack([ids.astype(np.uint8)] * 3), "BMP"), id="BMP RGB"),
        pytest.param(254, lambda ids: saved_as(ids.astype(np.uint8), "PPM"), id="PGM"),
        pytest.param(18, lambda ids: b"P5 8 8 18\n" + ids.astype(np.uint8).tobytes(), id="PGM up to 18"),
        pytest.param(250, lambda ids: b"P5 8 8 300\n" + ids.astype(">u2").tobytes(), id="PGM up to 300"),
        pytest.param(2, lambda ids: b"P2 8 8 2\n" + " ".join(map(str, ids.ravel().tolist())).encode(), id="plain PGM "
                                                                                                          "up to 2"),
    ],
)  # fmt: skip
def test_other_formats(tmp_path, most, data):
    ids = some(most)
    ids[0, 0] = most
    assert (read_by_all(data(ids), tmp_path) == ids).all()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (saved_as(some(1).astype(bool), "PPM"), "stored as 1;I"),
        (bmp(some(15), 4, range(16)), "BMP of grey"),
        (bmp(some(15, (8, 3)), 4, range(16)), "BMP of grey"),
        (bmp(some(1), 8, (0, 255)), "BMP of grey"),
        (b"P6 8 8 65535\n" + bytes(8 * 8 * 6), "16-bit mask in colour"),
        (saved_as(some(2).astype(np.float32), "TIFF"), "mode F"),
        (saved_as(some(254).astype(np.uint8), "GIF"), "grey palette"),  # Pillow stores the greys that occur
        (saved_as(some(2).astype(np.uint8), "JPEG"), "saved as JPEG"),
        (saved_as(some(2).astype(np.uint8), "TIFF", compression="jpeg"), "saved as JPEG: TIFF"),
        (saved_as(some(2).astype(np.uint8), "WEBP"), "saved as JPEG: WEBP"),
        (saved_as(Image.fromarray(some(2).astype(np.uint8)).convert("CMYK"), "TIFF"), "mask in colour"),
    ],
)
def test_what_cannot_be_read_for_certain_is_refused(data, words):
    with pytest.raises(NotIds, match=words):
        ids_of_file(data)


def test_a_tiff_whose_zero_is_white_is_refused():
    data = bytearray(saved_as(some(2).astype(np.uint8), "TIFF"))
    place = data.index(struct.pack("<HHI", 262, 3, 1))
    data[place + 8] = 0  # photometric interpretation: white is zero
    with pytest.raises(NotIds, match="stored as L;I"):
        ids_of_file(bytes(data))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_saved_data_set_of_two_bit_masks(tmp_path, streaming):
    """As those from the Hub: pictures are bytes in a table. Read from front to back they are decoded by the transform
    as well.
    """
    ids = [some(2, seed=seed) for seed in range(12)]
    rows = {"image": [cell(saved_as(np.zeros((8, 8, 3), np.uint8) + seed, "PNG")) for seed in range(12)]}
    rows["label"] = [cell(png(mask, GREY, 2)) for mask in ids]
    Dataset.from_dict(rows, features=Features({"image": ImageColumn(), "label": ImageColumn()})).save_to_disk(
        str(tmp_path / "saved")
    )
    data = load_data(
        [str(tmp_path / "saved")], label_space=SPACE, val_fraction=0.3, streaming=streaming, progress=False
    )
    samples = list(attach_transform(data.splits["train"], EvalTransform(label_space=SPACE, **SEEN)))
    assert len(samples) > 4
    for sample in samples:
        assert torch.equal(sample["labels"], torch.from_numpy(ids[int(sample["id"])].astype(np.uint8)))
    panel = panel_of(data.splits["validation"], EvalTransform(label_space=SPACE, **SEEN), 1)
    assert (panel.masks[0] == ids[int(panel.ids[0])]).all()


def test_soft_masks_and_backgrounds_of_sixteen_bits_are_refused(tmp_path):
    data = png(some(65535), GREY, 16)
    with pytest.raises(Unusable, match="more than 8 bits"):
        read_grey(SourceFile("hair.png", 1, lambda: io.BytesIO(data)))
    (tmp_path / "a.png").write_bytes(png(some(65535, (64, 64)), GREY, 16))
    with pytest.raises(ValueError, match=r"a\.png has mode I;16, more than 8 bits a channel"):
        find_photographs(tmp_path)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_an_import_by_a_table_of_ids_reads_stored_numbers(tmp_path, depth):
    for number in range(4):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / f"in/{number}.png").write_bytes(saved_as(np.full((8, 8, 3), number, np.uint8), "PNG"))
        (tmp_path / f"in/{number}_m.png").write_bytes(png(some(1, seed=number), GREY, depth))
    (tmp_path / "t.json").write_text('{"background": 0, "leaf": 1}')
    result = run(
        tmp_path / "in", tmp_path / "out", "--images", "*.png", "--masks", "*_m.png", "--table", tmp_path / "t.json"
    )
    assert (result["written"], result["damaged"]) == (4, 0) and result["class_shares"]["leaf"] > 0.2
