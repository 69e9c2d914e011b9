"""A run that was finished before is pushed when it is asked to."""

import pytest
from huggingface_hub import set_client_factory
from huggingface_hub.utils._http import default_client_factory

from tests import finetune_runs as runs
from tests.hub_stub import HubStub

REPO = "ada/face-parser"


@pytest.fixture
def stub(monkeypatch, tmp_path):
    with HubStub() as stub:
        stub.connect(monkeypatch, tmp_path)
        yield stub
    set_client_factory(default_client_factory)


@pytest.mark.slow
def test_a_finished_run_that_is_asked_to_push_pushes_what_is_there(stub, tmp_path, capsys):
    """Without a step of training; its card names the repository and keeps the pictures."""
    recipe = runs.workplace(tmp_path / "work", train=8, val=4)
    steps = ("--max_steps", 2, "--eval_steps", 2, "--save_steps", 2)
    runs.train(recipe, *steps)
    run = tmp_path / "work" / "run"
    weights = (run / "model.safetensors").read_bytes()
    options = (
        "--push_to_hub",
        "true",
        "--hub_model_id",
        REPO,
        "--data_license",
        "my own <b>photographs</b>",
        "--model_license",
        "mit",
    )
    runs.train(recipe, *steps, *options)
    said = capsys.readouterr().out
    assert f"Pushed to {stub.url}/{REPO}" in said and "is finished" in said
    files = stub.files(REPO)
    assert files["model.safetensors"] == weights
    card = files["README.md"].decode()
    assert REPO in card and "my own &lt;b&gt;photographs&lt;/b&gt;" in card
    assert "predictions.png" in files and "(predictions.png)" in card
