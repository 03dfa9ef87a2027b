"""The home folder follows the variable at each call and is absolute."""

from pathlib import Path

import platformdirs

from lra_bench import home


def test_variable_wins_and_is_read_at_each_call(monkeypatch, tmp_path):
    for name in ("one", "two"):
        monkeypatch.setenv(home.VARIABLE, str(tmp_path / name))
        assert home.home() == tmp_path / name
        assert home.data_folder() == tmp_path / name / "data"
        assert home.runs_folder() == tmp_path / name / "runs"
        assert home.cache_folder() == tmp_path / name / "cache"
    assert not home.home().exists()


def test_without_the_variable_it_is_the_platforms_cache_folder(monkeypatch):
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv(home.VARIABLE, raising=False)
        else:
            monkeypatch.setenv(home.VARIABLE, value)
        assert home.home().name == "lra-bench"
        assert home.home().is_relative_to(platformdirs.user_cache_dir())


def test_tilde_and_relative_folders_become_absolute(monkeypatch, tmp_path):
    monkeypatch.setenv(home.VARIABLE, "~/somewhere")
    assert home.home() == Path.home() / "somewhere"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(home.VARIABLE, "here")
    assert home.home() == tmp_path / "here"
