"""Prepared files that rot: read as they were written, or refused in one line."""

import random
import shutil

import data_fixtures as fixtures
import pytest

from sean_jax.data.catalogue import DATASETS
from sean_jax.data.prepared import PreparedSet
from sean_jax.errors import UserError


def contents(prepared: PreparedSet) -> list:
    return [prepared.read(index) for index in range(len(prepared))]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> PreparedSet:
    folder = tmp_path_factory.mktemp("rot")
    return fixtures.prepare_small(DATASETS["gta5"], fixtures.gta5(folder / "gta5"), folder / "prepared")


@pytest.mark.parametrize("kind", ["metadata.json", "dataset_info.json", "features.json", "records"])
def test_flipped_bits_and_cuts_never_change_an_example(prepared, tmp_path, kind):
    whole, generator = contents(prepared), random.Random(0)
    folder = tmp_path / prepared.directory.parent.name / prepared.directory.name
    shutil.copytree(prepared.directory, folder)
    (file,) = folder.glob("*array_record*" if kind == "records" else kind)
    content = file.read_bytes()
    places = [place for place, byte in enumerate(content) if byte]  # not the padding of records
    refused = 0
    for place in generator.sample(places, 40):
        flipped = content[:place] + bytes([content[place] ^ (1 << generator.randrange(8))]) + content[place + 1 :]
        for damaged in (flipped, content[:place]):
            file.write_bytes(damaged)
            try:
                assert contents(PreparedSet(folder)) == whole
            except UserError as error:
                assert f"the prepared set {folder} is damaged" in str(error)  # noqa: PT017 (both outcomes are sound)
                refused += 1
    assert refused >= 40  # all the cuts


def test_what_metadata_say_must_agree_with_the_folder(prepared, tmp_path):
    folder = tmp_path / prepared.directory.parent.name / prepared.directory.name
    shutil.copytree(prepared.directory, folder)
    file = folder / "metadata.json"
    content = file.read_text()
    for before, after in (
        ('"height": 16', '"height": 17'),
        ('"part_length": ', '"part_length": 0, "x": '),
        ("names", "nanes"),
    ):
        assert before in content
        file.write_text(content.replace(before, after))
        with pytest.raises(UserError, match=r"metadata.json is unreadable.*delete it to have it prepared anew"):
            len(PreparedSet(folder))
