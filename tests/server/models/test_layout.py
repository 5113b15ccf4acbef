"""Which folders are models and versions, and under which names they are found."""

from __future__ import annotations

import subprocess
import unicodedata
from pathlib import Path

import pytest

from attnpriv.errors import InputError, RunFolderError
from attnpriv_server.models.repository import Repository
from attnpriv_server.models.versions import UnknownModelError
from tests.server.models.folders import NEVER, answer, names


def test_folders_are_models_and_numbers_below_them_versions(models, put, repository) -> None:
    put("spam")
    for version in ("2", "10", "1"):
        put(f"mail/{version}", shift=int(version))
    put(".spam.partial/run")
    put("lost+found")
    put("mail/.3")
    (models / "notes" / "deep").mkdir(parents=True)
    (models / "mail" / "README").write_text("not a version")
    (models / "README.md").write_text("not a model")

    served = repository()

    assert names(served) == {"mail": ["1", "2", "10"], "spam": ["1"]}
    assert served.find("mail").version == "10"
    assert served.find("mail", "2").path == models / "mail" / "2"
    loaded = served.loaded(served.find("mail"))
    assert loaded.name == loaded.run.name == "mail"
    assert loaded.version.card.name == loaded.run.card.name == "mail"
    assert loaded.version.label_names == loaded.run.label_names
    for name, version in [("nobody", None), ("mail", "3"), ("mail", ""), ("mail", "02")]:
        with pytest.raises(UnknownModelError, match="expected a model and a version") as caught:
            served.find(name, version)
        assert isinstance(caught.value, InputError)


def test_a_link_to_a_hidden_folder_of_the_repository_is_followed(models, put, repository) -> None:
    put(".store/blue")
    (models / "mail").symlink_to(Path(".store") / "blue")

    assert answer(repository().load(repository().find("mail")))


@pytest.mark.parametrize("way", ["models", "link", "link/.", "/proc/self/cwd/models"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_path_is_taken_as_it_is_given(tmp_path, put, monkeypatch, form, way) -> None:
    name = unicodedata.normalize(form, "café")
    put(f"{name}/1")
    put(".store/2", shift=1.0)
    (tmp_path / "models" / name / "2").symlink_to(Path("..") / ".store" / "2")
    (tmp_path / "link").symlink_to("models")
    monkeypatch.chdir(tmp_path)

    with Repository(Path(way), "float32", refresh_seconds=NEVER) as served:
        assert names(served) == {name: ["1", "2"]}
        assert answer(served.load(served.find(name)))


FOREIGN = """
mount -t tmpfs none "$0" && cp -r "$1" "$0/mail" && mkdir "$0/.store" && cp -r "$1" "$0/.store/spam"
ln -s .store/spam "$0/spam" && echo mounted && read _
"""


def test_models_are_served_out_of_another_process_s_root(models, private_run) -> None:
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", FOREIGN, models, private_run],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        if process.stdout.readline() != "mounted\n":
            pytest.skip("only root may give a process a root of its own")
        folder = Path(f"/proc/{process.pid}/root{models}")
        with Repository(folder, "float32", refresh_seconds=NEVER) as served:
            assert names(served) == {"mail": ["1"], "spam": ["1"]}
            assert served.find("mail").path == folder / "mail"
        (folder / ".store").chmod(0o777)
        with pytest.raises(RunFolderError, match=f"everybody may write to {folder}/spam/.."):
            Repository(folder, "float32").start()
        process.communicate("\n")


def test_a_model_is_found_by_any_spelling_of_its_name(put, repository) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    put(f"{decomposed}/1")
    served = repository()
    assert served.find(composed) is served.find(decomposed, "1")
    with pytest.raises(UnknownModelError):
        served.find("cafe")

    put(composed, shift=1.0)
    served.refresh()
    assert [served.find(name).name for name in (composed, decomposed)] == [composed, decomposed]
