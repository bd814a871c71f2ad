"""Written beside and renamed: a file is the old one or the whole new one."""

import pytest

from portfolio_env.files import replacing


def test_replaces_a_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "new" / "a.txt"
    for text in ("first", "second"):
        with replacing(path) as beside:
            assert beside.parent == path.parent
            assert beside.suffix == path.suffix
            beside.write_text(text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="halfway"), replacing(path) as beside:
        beside.write_text("new")
        raise RuntimeError("halfway")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
