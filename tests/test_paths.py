"""The home folder follows the variable at each call and is absolute."""

from pathlib import Path

import platformdirs
import pytest

from lra_bench import paths
from lra_bench.errors import UserError


def test_variable_wins_and_is_read_at_each_call(monkeypatch, tmp_path):
    for name in ("one", "two"):
        monkeypatch.setenv(paths.VARIABLE, str(tmp_path / name))
        assert paths.home() == tmp_path / name
        assert paths.data_folder() == tmp_path / name / "data"
        assert paths.runs_folder() == tmp_path / name / "runs"
        assert paths.cache_folder() == tmp_path / name / "cache"
    assert not paths.home().exists()


def test_without_the_variable_it_is_the_platforms_cache_folder(monkeypatch):
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv(paths.VARIABLE, raising=False)
        else:
            monkeypatch.setenv(paths.VARIABLE, value)
        assert paths.home().name == "lra-bench"
        assert paths.home().is_relative_to(platformdirs.user_cache_dir())


def test_a_user_that_there_is_not_is_one_sentence(monkeypatch):
    monkeypatch.setenv(paths.VARIABLE, "~nosuchuser/x")
    with pytest.raises(UserError, match="~nosuchuser/x: there is no home folder of that name here"):
        paths.home()


def test_tilde_and_relative_folders_become_absolute(monkeypatch, tmp_path):
    monkeypatch.setenv(paths.VARIABLE, "~/somewhere")
    assert paths.home() == Path.home() / "somewhere"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(paths.VARIABLE, "here")
    assert paths.home() == tmp_path / "here"
