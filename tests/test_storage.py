"""Files that are whole or not there; JSON and tensors without pickles; refusals."""

import errno
import json
import os

import pytest
import torch
from safetensors import safe_open

from ddpm_lit.refusals import did_you_mean, require
from ddpm_lit.storage import atomic_write, read_json, read_tensors, write_json
from ddpm_lit.storage import write_tensors


@pytest.mark.parametrize("problem", [KeyboardInterrupt, OSError(errno.ENOSPC, "full")])
def test_a_file_that_is_not_finished_changes_nothing(tmp_path, problem):
    write_json(tmp_path / "a" / "x.json", {"n": 1})
    with pytest.raises((KeyboardInterrupt, OSError)):
        with atomic_write(tmp_path / "a" / "x.json", "w") as file:
            file.write("{")
            raise problem
    assert read_json(tmp_path / "a" / "x.json") == {"n": 1}
    assert os.listdir(tmp_path / "a") == ["x.json"]


def test_an_error_names_the_file_unless_it_is_about_another(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write .*x.json") as failure:
        write_json(tmp_path / "file" / "x.json", {})
    assert failure.value.errno in (errno.ENOTDIR, errno.EEXIST)
    with pytest.raises(FileNotFoundError) as failure:
        with atomic_write(tmp_path / "x"):
            open(tmp_path / "another")
    assert "another" in str(failure.value) and "cannot write" not in str(failure.value)


def test_a_link_is_followed(tmp_path):
    write_json(tmp_path / "x.json", {"n": 1})
    (tmp_path / "link.json").symlink_to(tmp_path / "x.json")
    write_json(tmp_path / "link.json", {"n": 2})
    assert (tmp_path / "link.json").is_symlink()
    assert read_json(tmp_path / "x.json") == {"n": 2}


@pytest.mark.parametrize("text", ["", "[1]", '{"a": ', "null", "{" * 5000])
def test_what_is_no_object_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match="x.json"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_lacks_are_refused(tmp_path, value):
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"loss": value})
    with pytest.raises(ValueError):
        write_tensors(tmp_path / "x.safetensors", {}, {"loss": value})
    assert not list(tmp_path.iterdir())


def test_tensors_come_back_whatever_their_layout(tmp_path):
    table = torch.arange(24.0).reshape(1, 2, 3, 4)
    tensors = {
        "table": table,
        "tied": table,
        "part": table[..., 1:3],
        "turned": table.transpose(2, 3),
        "last": table.contiguous(memory_format=torch.channels_last),
        "half": table.bfloat16(),
        "none": torch.empty(0, 3),
        "learned": table.clone().requires_grad_(),
        "count": torch.tensor(7),
    }
    write_tensors(tmp_path / "x.safetensors", tensors, {"step": 3})
    back, facts = read_tensors(tmp_path / "x.safetensors")
    assert back.keys() == tensors.keys() and facts == {"step": 3}
    for name, x in tensors.items():
        assert torch.equal(back[name], x) and back[name].dtype == x.dtype
        assert back[name].is_contiguous()


def test_the_header_says_what_others_ask_for(tmp_path):
    for name, facts in (("plain", None), ("facts", {"a": 1})):
        write_tensors(tmp_path / name, {"w": torch.ones(1)}, facts)
    with safe_open(tmp_path / "plain", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    with safe_open(tmp_path / "facts", framework="pt") as file:
        assert json.loads(file.metadata()["facts"]) == {"a": 1}


def test_a_refusal_has_one_form():
    require(True, "n", 0, "be at least 1")
    with pytest.raises(ValueError, match="^n must be at least 1, got 0$"):
        require(False, "n", 0, "be at least 1")


def test_a_word_that_is_almost_right_is_guessed():
    assert did_you_mean("smilling", ["Smiling", "Hat"]) == " (did you mean Smiling?)"
    assert did_you_mean("zebra", ["Smiling", "Hat"]) == did_you_mean("x", []) == ""
