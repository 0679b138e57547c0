import functools
import json

import commands
import numpy as np
import pytest

from sean_jax.data.label_spaces import CITYSCAPES_CLASSES, LABEL_SPACES
from sean_jax.errors import UserError
from sean_jax.scoring.protocols import PROTOCOLS, score
from sean_jax.scoring.stored import read_scores, rescore, score_table

ABSENT_OF_16 = ("terrain", "truck", "train")


def random_matrix(classes):
    return np.random.default_rng(0).integers(1, 1000, (classes, classes))


def iou(confusion, i):
    return 100 * confusion[i, i] / (confusion[i].sum() + confusion[:, i].sum() - confusion[i, i])


def stored(confusion, classes, **changes):
    stamp = {
        "network": "main",
        "checkpoint": "step 7",
        "step": 7,
        "seed": 0,
        "dataset": "cityscapes",
        "split": "val",
        "images": 500,
    }
    stamp |= {
        "input_size": "1024x512",
        "resolution": "2048x1024",
        "interpolation": "logits",
        "selection": "last checkpoint",
        "weights": "w",
    }
    return score(confusion, classes, "all") | stamp | {"classes": list(classes)} | {
        "confusion_matrix": confusion.tolist(), **changes
    }  # fmt: skip


def test_a_matrix_small_enough_to_score_by_hand():
    scores = score(np.array([[3, 1, 0], [1, 4, 0], [0, 0, 0]]), ("a", "b", "c"), "all")
    assert scores["iou"] == {"a": pytest.approx(60), "b": pytest.approx(400 / 6), "c": None}
    assert scores["mean_iou"] == pytest.approx((60 + 400 / 6) / 2)
    assert scores["absent"] == ["c"]
    assert scores["protocol"] == "all"


@pytest.mark.parametrize(
    ("protocol", "space", "left_out"),
    [
        ("19", "19", ()),
        ("16", "16", ()),
        ("13", "13", ()),
        ("16-of-19", "19", ABSENT_OF_16),
        ("13-of-16", "16", ("wall", "fence", "pole")),
    ],
)
def test_the_mean_is_over_the_protocols_classes(protocol, space, left_out):
    classes = LABEL_SPACES[space].classes
    confusion = random_matrix(len(classes))
    scores = score(confusion, classes, protocol)
    kept = [name for name in classes if name not in left_out]
    assert list(scores["iou"]) == kept
    # Pixels of classes that are left out still count against the others.
    assert scores["mean_iou"] == pytest.approx(np.mean([iou(confusion, classes.index(name)) for name in kept]))


def test_absent_classes_are_not_in_a_protocols_mean_and_zeros_are():
    road, car, truck = (CITYSCAPES_CLASSES.index(name) for name in ("road", "car", "truck"))
    confusion = np.zeros((19, 19), int)
    confusion[road, road] = confusion[car, road] = confusion[truck, truck] = 10  # truck is none of the 16
    scores = score(confusion, CITYSCAPES_CLASSES, "16-of-19")
    assert (scores["iou"]["road"], scores["iou"]["car"], scores["mean_iou"]) == (50, 0, 25)
    assert scores["absent"] == [name for name in LABEL_SPACES["16"].classes if name not in ("road", "car")]
    assert score(np.zeros((19, 19), int), CITYSCAPES_CLASSES, "16-of-19")["mean_iou"] == 0


def test_a_protocol_needs_its_own_classes_and_not_only_as_many():
    with pytest.raises(UserError, match=r"--protocol=16 .* cannot be computed.*use --protocol=all$"):
        score(random_matrix(16), tuple(f"class {i}" for i in range(16)), "16")


def test_cca_13_merges_truth_and_prediction():
    confusion = random_matrix(19)
    into = {"wall": "building", "fence": "building", "pole": "building", "terrain": "vegetation"}
    into |= {"truck": "bus", "train": "bus"}
    kept = [name for name in CITYSCAPES_CLASSES if name not in into]
    merged = np.zeros((13, 13), int)
    for i, truth in enumerate(CITYSCAPES_CLASSES):
        for j, predicted in enumerate(CITYSCAPES_CLASSES):
            merged[kept.index(into.get(truth, truth)), kept.index(into.get(predicted, predicted))] += confusion[i, j]
    scores = score(confusion, CITYSCAPES_CLASSES, "cca-13")
    assert list(scores["iou"].values()) == pytest.approx([iou(merged, i) for i in range(13)])
    assert len(scores["iou"]) == 13


def test_a_protocol_is_applied_only_if_the_matrix_is_sufficient(tmp_path):
    possible = {
        "19": {"all", "19", "16-of-19", "cca-13"},
        "16": {"all", "16", "13-of-16"},
        "13": {"all", "13"},
        "own": {"all"},
    }
    for space, protocols in possible.items():
        classes = LABEL_SPACES[space].classes if space in LABEL_SPACES else ("a", "b")
        confusion = random_matrix(len(classes))
        file = tmp_path / "scores.json"
        file.write_text(json.dumps(stored(confusion, classes)))
        for protocol in PROTOCOLS:
            if protocol in protocols:
                again = rescore(file, protocol)
                assert again.items() >= score(confusion, classes, protocol).items()
                assert (again["split"], again["seed"], again["confusion_matrix"]) == ("val", 0, confusion.tolist())
            else:
                with pytest.raises(UserError, match=f"--protocol={protocol} .* cannot be computed") as error:
                    rescore(file, protocol)
                offered = str(error.value).split("; use ")[1].split(" or ")
                assert set(offered) == {f"--protocol={name}" for name in protocols}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "holds no scores"),
        ("[]", "holds no scores"),
        ("{}", "no network"),
        ('{"a": 1}', "holds no scores"),
        ('{"network": "a", "classes": ["a"], "confusion_matrix": [[1]]}', "a: checkpoint, step, seed, .* missing"),
    ],
)
def test_a_file_without_scores_is_refused(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match=rf"^--from=.*{message}"):
        rescore(tmp_path / "x.json", "all")
    with pytest.raises(UserError, match="cannot read --from"):
        rescore(tmp_path / "gone.json", "all")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"confusion_matrix": [[1, 2]]}, r"a matrix of \(1, 2\) for 19 classes"),
        ({"confusion_matrix": [], "classes": []}, "a matrix of"),
        ({"confusion_matrix": [[2**64] * 19] * 19}, "more than 64 bits"),
        ({"confusion_matrix": [[-1] * 19] * 19}, "does not hold counts"),
        ({"confusion_matrix": [[1.5] * 19] * 19}, "does not hold counts"),
        ({"confusion_matrix": [[2**62] * 19] * 19}, "does not hold counts"),
        ({"classes": ["road"] * 19}, "a matrix of"),
        ({"dataset": "\x1b[2J"}, "where a name is expected"),
        ({"split": {"of": "val"}}, "where a name is expected"),
        ({"further": ["\ud800"]}, "surrogate"),
        ({"images": "many"}, "not a number"),
        ({"mean_iou": None}, "not a number"),
        ({"iou": {"road": "high"}}, "not a number"),
        ({"iou": {"road": True}}, "not a number"),
        ({"mean_iou": float("nan")}, "not a number"),
    ],
)
def test_a_damaged_score_is_refused(tmp_path, change, message):
    good = stored(np.eye(19, dtype=int), CITYSCAPES_CLASSES)
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps({"first": good, "second": good}))
    assert list(read_scores(file)) == ["first", "second"]
    file.write_text(json.dumps({"first": good, "second": good | change}))
    with pytest.raises(UserError, match=rf"holds no scores \(.*{message}"):
        read_scores(file)


def test_the_first_network_of_an_evaluation_counts(tmp_path):
    two, one = (random_matrix(19) + i for i in range(2))
    for first in ("one", "two"):
        both = {"one": stored(one, CITYSCAPES_CLASSES), "two": stored(two, CITYSCAPES_CLASSES)}
        ordered = {first: both.pop(first)} | both
        (tmp_path / "evaluation.json").write_text(json.dumps(ordered))
        again = rescore(tmp_path / "evaluation.json", "16-of-19")
        matrix = {"one": one, "two": two}[first]
        assert again.items() >= score(matrix, CITYSCAPES_CLASSES, "16-of-19").items()


def test_counts_beyond_32_bits_are_rescored_exactly(tmp_path):
    confusion = np.eye(19, dtype=int) * 2**33
    confusion[0, 1] = 2**33
    (tmp_path / "scores.json").write_text(json.dumps(stored(confusion, CITYSCAPES_CLASSES)))
    scores = rescore(tmp_path / "scores.json", "19")
    assert (scores["iou"]["road"], scores["iou"]["sidewalk"], scores["iou"]["sky"]) == (50, 50, 100)


def test_the_command_needs_no_network(tmp_path):
    file, out = tmp_path / "scores.json", tmp_path / "again.json"
    file.write_text(json.dumps(stored(random_matrix(19), CITYSCAPES_CLASSES)))
    evaluate = functools.partial(commands.run, tmp_path / "output", "evaluate", f"--from={file}", out=out)
    result = evaluate(protocol="16-of-19")
    assert result.code == 0, result.stderr
    assert "protocol 16-of-19" in result.stdout
    assert json.loads(out.read_text())["protocol"] == "16-of-19"
    parts = "--protocol=16 (16-way network, other ground truth ignored) cannot be computed"
    commands.assert_refused(evaluate(protocol="16"), "evaluate", parts)


def test_a_table_of_scores_that_are_not_comparable_needs_a_flag():
    confusion = random_matrix(19)
    one, other = stored(confusion, CITYSCAPES_CLASSES), stored(confusion, CITYSCAPES_CLASSES, seed=1, network="other")
    table = score_table({"first": one, "second": other}).splitlines()
    assert table[0].startswith("| score | mIoU | road |")
    assert table[2].startswith(f"| first | {one['mean_iou']:.1f} |")
    assert len({line.count("|") for line in table[:4]}) == 1
    assert table[-1].startswith("All: protocol all, dataset cityscapes, split val")
    unlike = one | score(confusion, CITYSCAPES_CLASSES, "16-of-19")
    with pytest.raises(UserError, match=r"first and third are not comparable \(protocol: all and 16-of-19\)"):
        score_table({"first": one, "third": unlike})
    mixed = score_table({"first": one, "third": unlike}, mixed=True).splitlines()
    assert mixed[0].startswith("| score | protocol | mIoU")
    assert mixed[3].startswith("| third | 16-of-19 | ")
    assert " – |" in mixed[3]
    fewer = stored(random_matrix(16), LABEL_SPACES["16"].classes)
    with pytest.raises(UserError, match=r"\(classes: 19 and 16\)"):
        score_table({"first": one, "sixteen": fewer})
    for key in ("split", "input_size", "resolution", "interpolation", "dataset"):
        with pytest.raises(UserError, match=key):
            score_table({"first": one, "second": one | {key: "another"}})


def test_several_stored_scores_make_a_table(tmp_path):
    confusion = random_matrix(19)
    files = [tmp_path / f"{split}.json" for split in ("val", "test")]
    for file in files:
        file.write_text(json.dumps(stored(confusion, CITYSCAPES_CLASSES, split=file.stem)))
    words = [*(f"--from={file}" for file in files), "--protocol=16-of-19"]
    commands.assert_refused(commands.run(tmp_path / "output", "evaluate", *words), "evaluate", "split: val and test")
    table = commands.run(tmp_path / "output", "evaluate", *words, "--mixed").stdout
    assert "| score | split | mIoU | road |" in table
    assert all(f"| {file} | {file.stem} | " in table for file in files)
