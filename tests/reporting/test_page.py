"""The report page: self-contained, complete, and robust to what a run may lack."""

import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from sean_jax.data.label_spaces import LABEL_SPACES
from sean_jax.errors import UserError
from sean_jax.reporting.page import render
from sean_jax.reporting.rundata import load_runs

VOID = {"meta", "img", "br", "link", "input"}


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text; checks that every tag is closed."""

    def __init__(self, content: str):
        super().__init__()
        self.content, self.tags, self.text, self._open = content, [], "", []
        self.feed(content)
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def warnings(self) -> str:
        found = re.search(r'<section class="warnings">.*?</section>', self.content, re.DOTALL)
        return found[0] if found else ""


def page_of(*workdirs) -> Page:
    return Page(render(load_runs([str(workdir) for workdir in workdirs])))


@pytest.fixture(scope="module")
def page(finished) -> Page:
    return page_of(finished)


@pytest.fixture
def run_copy(run_copy):
    """The run with the IoU of one class; those of all take most of the time to draw."""
    keep_metrics(run_copy, lambda _, key: not key.startswith("val/iou/") or key == "val/iou/road")
    return run_copy


def rewrite(path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def keep_metrics(run, keep) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in line.items() if keep(line["step"], k)} for line in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept if line))


# The page


def test_nothing_outside_the_page_is_referred_to(page):
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:image/")), (tag, attributes[name])
    assert "url(" not in page.content
    assert "@import" not in page.content
    assert set(re.findall(r"https?://[^\"\s]*", page.content)) == {"http://www.w3.org/1999/xlink"}
    assert "default-src 'none'" in page.content


def test_names_within_the_page_are_unique_and_there(page):
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    for _, attributes in page.tags:
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#losses").removeprefix("#") in names


def test_everything_is_on_the_page(page, finished):
    for name in LABEL_SPACES["19"].classes:
        assert name in page.text
    for part in ("Total loss", "Segmentation loss", "Consistency loss", "Mask ratio", "Mean IoU", "Images per second"):
        assert part in page.text
    for name in ("attention_threshold", "learning_rate", "0.001", "gta5 → cityscapes", "4 of 4", "step 4, last"):
        assert name in page.text
    scores = json.loads((finished / "evaluation.json").read_text())
    for network in scores:
        assert f"{scores[network]['mean_iou']:.1f}" in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 2  # steps 2 and 4
    assert "currentColor" in page.content
    assert "#010203" not in page.content


def test_the_confusion_matrix_is_normalised_by_rows(page, finished):
    cells = [
        float(attributes["style"].removeprefix("--part:"))
        for tag, attributes in page.tags
        if tag == "td" and "title" in attributes
    ]
    score = next(iter(json.loads((finished / "evaluation.json").read_text()).values()))
    matrix = np.array(score["confusion_matrix"], float)
    wanted = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    np.testing.assert_allclose(np.reshape(cells, matrix.shape), wanted, atol=0.0006)


HOSTILE = "<script>alert('1')</script> $\\frac{1$ \"&"


def test_hostile_names_are_text(run_copy):
    run = run_copy.rename(run_copy.with_name("<b>&\"'"))
    _rename(run, "road", HOSTILE)
    rewrite(run / "config.json", lambda c: c["settings"].update(source='"><img src=x onerror=alert(1)>'))
    page = page_of(run)
    assert not {"script", "b"} & {tag for tag, _ in page.tags}
    assert not [a for tag, a in page.tags if tag == "img" and not a["src"].startswith("data:")]
    assert HOSTILE in page.text
    assert page.tags[0] == ("html", {"lang": "en"})
    assert any(f"IoU of {HOSTILE}" == attributes.get("aria-label") for _, attributes in page.tags)


def _rename(run, old, new):
    def change(content):
        content["label_space"]["classes"][content["label_space"]["classes"].index(old)] = new

    rewrite(run / "config.json", change)
    for name in ("metrics.jsonl", "evaluation.json"):
        text = (run / name).read_text()
        text = text.replace(f'"{old}"', json.dumps(new)).replace(f'/{old}"', "/" + json.dumps(new)[1:])
        (run / name).write_text(text)


# What a run may lack


def test_an_unfinished_run(run_copy):
    keep_metrics(run_copy, lambda step, _: step < 3)
    with (run_copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "trai')
    (run_copy / "pictures" / "step_000004.png").write_bytes(b"\x89PNG cut off")
    page = page_of(run_copy)
    assert "unfinished: the last recorded step is 2 of 4" in page.warnings()
    assert "cannot be read" in page.text


def test_a_run_that_has_only_begun(run_copy):
    for name in ("metrics.jsonl", "timing.jsonl", "evaluation.json"):
        (run_copy / name).unlink()
    shutil.rmtree(run_copy / "pictures")
    page = page_of(run_copy)
    assert "none of its 4 steps is recorded yet" in page.warnings()
    for said in ("No losses", "no mask ratio", "no evaluation yet", "No pictures", "timing.jsonl is missing"):
        assert said in page.text


def test_a_target_without_labels(run_copy):
    (run_copy / "evaluation.json").unlink()
    shutil.rmtree(run_copy / "pictures")
    keep_metrics(run_copy, lambda _, key: not key.startswith("val/"))
    rewrite(run_copy / "config.json", lambda c: c["settings"].update(eval_split=None))
    page = page_of(run_copy)
    assert "nothing is scored: the target has no labelled split" in page.text
    assert "IoU by class" not in page.text


def _make_source_only(run):
    rewrite(run / "config.json", lambda c: c["settings"].update(method="source_only", seed=1))
    keep_metrics(run, lambda _, key: key not in ("train/loss_consistency", "train/kept_pixels"))


def test_source_only_has_no_mask(run_copy):
    _make_source_only(run_copy)
    page = page_of(run_copy)
    assert "no mask ratio is recorded (method source_only)" in page.text
    assert "Consistency loss" not in page.text
    assert "mask ratio" not in page.warnings()


# Other methods


def test_networks_have_the_names_that_the_method_gives_them(run_copy):
    def rename(scores):
        for name in ("ensemble", "head_1"):
            scores[name] = scores.pop(next(iter(scores)))
        scores["head_2"] = scores["head_1"] | {"mean_iou": 99.0}

    first, second = json.loads((run_copy / "evaluation.json").read_text())
    rewrite(run_copy / "evaluation.json", rename)
    text = (run_copy / "metrics.jsonl").read_text().replace(f"val/{second}/", "val/head_1/")
    (run_copy / "metrics.jsonl").write_text(text.replace('"val/mean_iou"', '"val/head_2/mean_iou": 99, "val/mean_iou"'))
    page = page_of(run_copy)
    content = re.sub('<section id="configuration">.*?</section>', "", page.content, flags=re.DOTALL)
    assert first not in content
    assert second not in content
    assert "ensemble is worse than head_2 (99.0)" in page.text
    legend = re.findall(r'border-top-style:(\w+)"></span>(\w+)</li>', page.content)
    assert legend == [("solid", "ensemble"), ("dashed", "head_2"), ("dotted", "head_1")]
    table = page.content.split("All evaluations")[1].split("</table>")[0]
    assert re.findall(r'<th scope="col">(\w*)', table) == ["step", "ensemble", "head_2", "head_1"]


def test_further_quantities_have_charts(run_copy):
    lines = [json.loads(line) for line in (run_copy / "metrics.jsonl").read_text().splitlines()]
    more = {"train/gradient_norm": 1.5, "train/learning_rate": 1e-3, "train/loss_adversarial": -0.5}
    for line in lines:
        line.pop("train/parameter_norm", None)
    (run_copy / "metrics.jsonl").write_text("".join(json.dumps(line | more) + "\n" for line in lines))
    page = page_of(run_copy)
    labels = [attributes.get("aria-label") for tag, attributes in page.tags if tag == "svg"]
    assert {"Gradient norm", "Learning rate", "Loss adversarial"} <= set(labels)
    assert "Parameter norm" not in labels


def test_nested_settings_are_shown_in_groups(run_copy, finished):
    def nest(content):
        content["settings"]["sean"]["ema_decay"] = 0.5

    rewrite(run_copy / "config.json", nest)
    page = page_of(run_copy)
    table = page.content.split("Settings that differ from their default")[1].split("</table>")[0]
    rows = re.findall(r'<th scope="(?:row|rowgroup)"[^>]*>(\w+)', table)
    assert rows.index("batch_size") < rows.index("optimizer") < rows.index("learning_rate") < rows.index("sean")
    assert rows.index("sean") < rows.index("ema_decay")
    assert ">0.001<" in table


# Several runs


def test_a_comparison_names_the_differing_settings_and_every_run(finished, run_copy):
    _make_source_only(run_copy)
    page = page_of(finished, run_copy)
    differing = page.content.split("Settings in which the runs differ")[1].split("</table>")[0]
    assert re.findall(r'<th scope="row">(\w+)', differing) == ["method", "seed"]
    assert re.findall(r"<td>([^<]*)", differing) == ["sean", "source_only", "0", "1"]
    first = next(iter(json.loads((finished / "evaluation.json").read_text())))
    assert page.text.count(f"{finished.name}, {first}") == 3  # the chart's legend, evaluations, note on the classes
    assert f"{run_copy.name} − {finished.name}" in page.text
    assert "run: no mask ratio is recorded (method source_only)" in " ".join(page.text.split())


def test_runs_may_differ_in_a_setting_of_their_method_alone(finished, run_copy):
    """The first row of the table then is one with a heading."""
    rewrite(run_copy / "config.json", lambda c: c["settings"]["sean"].update(attention_threshold=0.9))
    differing = page_of(finished, run_copy).content.split("Settings in which the runs differ")[1].split("</table>")[0]
    assert re.findall(r'<th scope="(?:row|rowgroup)"[^>]*>(\w+)', differing) == ["sean", "attention_threshold"]


def test_pictures_of_other_kinds_start_no_program(run_copy, monkeypatch):
    """A picture may have been replaced, by PostScript for instance, which Pillow has Ghostscript read."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_args, **_options: pytest.fail("a program was started"))
    for picture in (run_copy / "pictures").iterdir():
        picture.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n")
    assert not [a for tag, a in page_of(run_copy).tags if tag == "img"]


@pytest.mark.parametrize(
    "line", ['{"step": 1.5}', '{"step": -1}', '{"step": 1, "x": 1e999}', '{"step": %s}' % ("9" * 400), "[" * 10**5]
)
def test_a_line_of_metrics_that_no_run_writes_is_refused(run_copy, line):
    (run_copy / "metrics.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1 is damaged"):
        load_runs([str(run_copy)])


def test_runs_of_one_name_are_told_apart(finished, tmp_path):
    for place in ("a", "b"):
        shutil.copytree(finished, tmp_path / place / "run")
    runs = load_runs([str(tmp_path / "a" / "run"), str(tmp_path / "b" / "run")])
    assert [run.name for run in runs] == ["a/run", "b/run"]
