"""Names and ids of any alphabet are drawn as letters where a font of the machine has them, and said where none has."""

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from PIL import ImageFont

from seg_recipe.charts import confusion_figure, iou_figure
from seg_recipe.labels import LabelSpace
from seg_recipe.runtime import fonts
from seg_recipe.runtime.fonts import font_file, font_for
from seg_recipe.visualize import Prediction, legend, prediction_sheet

ALPHABETS = ("Straße", "œil", "łóżko", "коса", "μαλλιά", "עין", "عين", "Ångström № 1…", "☀ → ♥")
CAT = "猫"
"""In no font that comes with a package here."""


@pytest.fixture
def only(monkeypatch):
    """Makes the fonts of the machine these ones."""

    def system(*paths):
        monkeypatch.setattr(fonts, "_system_fonts", lambda: [*paths])
        monkeypatch.setattr(fonts, "_SAID", [])
        font_file.cache_clear()

    yield system
    font_file.cache_clear()


def drawn(font, text):
    return bytes(font.getmask(text)), font.getmask(text).size


@pytest.mark.parametrize("text", ALPHABETS)
def test_no_letter_is_a_box(text, only, capsys):
    only()
    font = font_for(text, 15)
    box = drawn(font, "\U0010ffff")
    assert all(drawn(font, letter) != box for letter in text if not letter.isspace())
    assert any(
        drawn(ImageFont.load_default(15), letter) == drawn(ImageFont.load_default(15), "\U0010ffff") for letter in text
    )
    assert capsys.readouterr().err == ""


@pytest.fixture
def with_a_cat(tmp_path):
    """A font that has a letter more than DejaVu Sans: its picture is that of A."""
    font = TTFont(font_file("a"))
    for table in font["cmap"].tables:
        table.cmap[ord(CAT)] = "A"
    font.save(tmp_path / "cat.ttf")
    return tmp_path / "cat.ttf"


@pytest.mark.slow
def test_a_font_of_the_machine_helps_out(only, with_a_cat, tmp_path, capsys):
    (tmp_path / "damaged.ttf").write_bytes(b"no font")
    only(tmp_path / "damaged.ttf", font_file("a"), with_a_cat)
    assert font_file(f"{CAT} 1") == with_a_cat and font_file("katze") == font_file("a")
    assert drawn(font_for(CAT, 15), CAT) == drawn(font_for("A", 15), "A")
    cats, letters = LabelSpace((CAT, "x")), LabelSpace(("A", "x"))
    mask = np.zeros((8, 8), np.uint8)
    counts = np.array([[3, 1], [2, 2]])
    for draw in (
        lambda space: legend([mask], space, 200),
        lambda space: prediction_sheet([Prediction(space.names[0], np.zeros((8, 8, 3), np.uint8), mask, mask)], space),
        lambda space: confusion_figure(counts, space),
        lambda space: iou_figure({space.names[0]: 0.5}, space),
    ):
        np.testing.assert_array_equal(draw(cats), draw(letters))
    assert capsys.readouterr().err == ""


def test_letters_that_no_font_has_are_said_once(only, capsys):
    only()
    space = LabelSpace((CAT, "犬", "x"))
    legend([np.array([0, 1], np.uint8)], space, 200)
    confusion_figure(np.eye(3, dtype=np.int64), space)
    said = capsys.readouterr().err
    assert said.startswith(f"Pictures show boxes for some letters, as {CAT}: no font here has them. Install one ")
    assert said.count("\n") == 1


def test_a_dollar_is_no_formula():
    """matplotlib sets what is between two of them as mathematics, and fails where it is none."""
    space = LabelSpace((r"a $\frac{$ b", "x"))
    assert (
        confusion_figure(np.eye(2, dtype=np.int64), space).mode
        == iou_figure({space.names[0]: 0.5}, space).mode
        == "RGB"
    )
