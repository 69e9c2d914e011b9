"""Texts of the user's in what we write and refuse: class names, licences, what looks like a secret and is none;
reports and sheets.
"""

import json

import pytest
from PIL import Image

from scripts import make_faces as faces_script
from scripts import score as score_script
from seg_recipe.hub.licences import licence_statement
from seg_recipe.hub.markdown import literal

LIVE = {
    "<img src=x onerror=alert(1)>": "&lt;img src=x onerror=alert(1)&gt;",
    "[click](https://evil.example)": r"\[click\](https&#58;//evil.example)",
    "a | b": r"a \| b",
    "**bold** _it_ `code` ~~no~~": r"\*\*bold\*\* \_it\_ \`code\` \~\~no\~\~",
    "right_eye": "right_eye",
    "www.evil.example and ada@evil.example": "www&#46;evil.example and ada&#64;evil.example",
    "&lt;b&gt;": "&amp;lt;b&amp;gt;",
    "Straße, 頭": "Straße, 頭",
}


@pytest.mark.parametrize("text", LIVE)
def test_a_text_in_the_card_is_shown_as_it_is(text):
    assert literal(text) == LIVE[text]
    statement = licence_statement(data_license=text, model_license=text, base_model=None, generated_only=False)
    assert LIVE[text].rstrip(".") in statement.text
    assert "<img" not in statement.text and "[click](" not in statement.text


def test_a_report_of_something_else_and_foreign_files_are_not_replaced(tmp_path):
    asked = {"model": "one", "dataset": "data", "split": "val"}
    score_script.check_output(tmp_path / "new", asked)
    score_script.check_output(tmp_path, asked)
    (tmp_path / "score.json").write_text(json.dumps({**asked, "figures": {}}))
    score_script.check_output(tmp_path, asked)
    with pytest.raises(
        ValueError, match=r"holds the report of model one \(now two\); name another folder with --output"
    ):
        score_script.check_output(tmp_path, {**asked, "model": "two"})
    for content in ("[]", "{}", "no json"):
        (tmp_path / "score.json").write_text(content)
        with pytest.raises(ValueError, match=r"holds score\.json and no report of this script"):
            score_script.check_output(tmp_path, asked)
    (tmp_path / "score.json").unlink()
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(ValueError, match=r"holds report\.html and no report of this script"):
        score_script.check_output(tmp_path, asked)


@pytest.mark.slow
def test_a_sheet_replaces_sheets_only(tmp_path):
    sheet = tmp_path / "sheet.png"
    options = ["--count", "2", "--size", "32", "--workers", "1", "--sheet", str(sheet)]
    Image.new("RGB", (4, 4)).save(sheet)
    before = sheet.read_bytes()
    with pytest.raises(ValueError, match="no sheet of ours; name another file"):
        faces_script.main([str(tmp_path / "faces"), *options])
    assert sheet.read_bytes() == before and not (tmp_path / "faces").exists()
    sheet.unlink()
    for _ in range(2):
        faces_script.main([str(tmp_path / "faces"), *options])
