"""The command that prepares a data set: its report, its flags, and what it refuses."""

import json

import commands
import data_fixtures as fixtures
import pytest


@pytest.fixture
def command(tmp_path):
    def run(*flags) -> commands.Result:
        return commands.run(tmp_path / "output", "prepare", *flags, data_dir=tmp_path / "prepared")

    return run


SIZE = ("--height=16", "--width=32")


def test_report_of_a_good_set(tmp_path, command):
    root, report = fixtures.synthia(tmp_path / "synthia"), tmp_path / "report.json"
    result = command("--dataset=synthia", f"--dataset_dir={root}", f"--report={report}", *SIZE)
    assert result.code == 0, result.stderr
    assert "synthia train: 3 pairs, no errors" in result.stdout
    facts = json.loads(report.read_text())
    assert facts["pixels"].keys() >= {"road", "sky", "ignored"}
    assert sum(facts.pop("pixels").values()) == 3 * 40 * 24
    assert facts.pop("prepared").startswith(str(tmp_path / "prepared"))
    assert facts == {
        "dataset": "synthia",
        "split": "train",
        "labels": "resized",
        "label_encoding": "red16",
        "pairs": 3,
        "sizes": {"40x24": 3},
        "notes": [],
        "faults": [],
    }


def test_all_errors_are_reported_and_the_exit_code_is_1(tmp_path, command):
    root, report = fixtures.gta5(tmp_path / "gta5"), tmp_path / "report.json"
    (root / "labels/00004.png").unlink()
    (root / "images/00002.png").write_bytes(b"no image")
    result = command("--dataset=gta5", f"--dataset_dir={root}", f"--report={report}", *SIZE)
    assert result.code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("sean_jax.prepare: 2 errors, nothing was prepared: ")
    assert "00002.png" in last
    assert "00004.png" in last
    facts = json.loads(report.read_text())
    assert [entry["file"] for entry in facts.pop("faults")] == [
        str(root / "images/00002.png"),
        str(root / "images/00004.png"),
    ]
    assert sum(facts.pop("pixels").values()) == (36 + 38 + 40) * 20
    assert facts == {
        "dataset": "gta5",
        "split": "train",
        "labels": "resized",
        "label_encoding": "palette",
        "pairs": 3,
        "sizes": {"36x20": 1, "38x20": 1, "40x20": 1},
        "notes": [],
        "prepared": None,
    }


def test_the_former_name_of_the_folders_flag_still_works(tmp_path, command):
    root = fixtures.gta5(tmp_path / "gta5")
    results = [command("--dataset=gta5", f"--{flag}={root}", *SIZE) for flag in ("dataset_dir", "source_dir")]
    assert results[0].code == 0, results[0].stderr
    assert results[1] == results[0]._replace(stderr="")  # prepared already
    empty = tmp_path / "empty"
    empty.mkdir()
    for flag in ("dataset_dir", "source_dir"):
        commands.assert_refused(
            command("--dataset=gta5", f"--{flag}={empty}"), "prepare", f"--{flag}={empty} has no images/*.png"
        )


def test_skip_bad_lists_what_it_left_out(tmp_path, command):
    root, report = fixtures.gta5(tmp_path / "gta5"), tmp_path / "report.json"
    (root / "labels/00004.png").unlink()
    (root / "images/00002.png").write_bytes(b"no image")
    flags = ("--dataset=gta5", f"--dataset_dir={root}", f"--report={report}", *SIZE)
    result = command(*flags, "--skip_bad", "--label_encoding=palette")
    assert result.code == 0, result.stderr
    assert "gta5 train: 3 pairs, left out: 2" in result.stdout
    assert "labels hold: palette" in result.stdout
    assert "preparing 4 images takes about 0.1 MB" in result.stderr
    facts = json.loads(report.read_text())
    assert (facts["pairs"], facts["label_encoding"]) == (3, "palette")
    for text in (result.stdout, str(facts["faults"])):
        assert "00002.png" in text
        assert "00004.png" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--dataset=gta6",), "no data set is called 'gta6'"),
        (("--dataset=gta5",), "gta5 needs --dataset_dir=FOLDER"),
        (("--dataset=gta5", "--dataset_dir=/nowhere"), "--dataset_dir=/nowhere is not a folder"),
        (("--dataset=gta5", "--source_dir=/nowhere"), "--source_dir=/nowhere is not a folder"),
        (
            ("--dataset=gta5", "--dataset_dir=/nowhere", "--source_dir=/nowhere"),
            "--dataset_dir=/nowhere is not a folder",
        ),
        (("--dataset=gta5", "--dataset_dir=/a", "--source_dir=/b"), "--dataset_dir=/a and --source_dir=/b name two"),
        (("--dataset=gta5", "--labels=some"), "flag --labels=some"),
        (("--dataset=gta5", "--hight=16"), "Unknown command line flag 'hight'"),
    ],
)
def test_bad_flags_are_one_line(command, flags, message):
    result = command(*flags)
    assert result.code in (1, 2)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert message in line
