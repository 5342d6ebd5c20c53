import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stacknorm.cli import app
from stacknorm.commands.predict import prediction_record
from stacknorm.prediction import EntityPrediction, Prediction, Span, TaskPrediction
from tiny_bases import write_tiny_bundle

runner = CliRunner()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_bundle(tmp_path_factory.mktemp("cli")))


def predict(bundle: str, file: Path | str, stdin: str | None = None) -> list[dict[str, dict[str, object]]]:
    done = runner.invoke(app, ["predict", "--bundle", bundle, str(file)], input=stdin)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"], ["predict"]])
def test_help_answers_without_loading_a_model_library(command: list[str]) -> None:
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom stacknorm.cli import app\n"
        f"print(CliRunner().invoke(app, [*{command}, '--help']).stdout)\n"
        "sys.exit(bool({'torch', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, "help imports torch or transformers"
    assert "Usage" in done.stdout
    assert command == [] or "Example" in done.stdout


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lines.txt", "oil falls\nacme, bank\n\n"),
        ("rows.csv", 'id,text\n1,oil falls\n2,"acme, bank"\n3,\n'),
        ("rows.jsonl", '{"text": "oil falls"}\n{"text": "acme, bank", "more": 1}\n{"text": ""}\n'),
    ],
)
def test_every_text_gives_one_line_in_order_whatever_the_file(
    name: str, content: str, bundle: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    found = predict(bundle, tmp_path / name)
    assert len(found) == 3
    # The precision is measured at each load, so the last digits may differ.
    for one, other in zip(found, predict(bundle, "-", "oil falls\nacme, bank\n\n"), strict=True):
        assert one["sentiment"]["score"] == pytest.approx(other["sentiment"]["score"], abs=0.05)


def test_a_text_in_another_language_gets_the_reason_in_place_of_labels(bundle: str) -> None:
    (line,) = predict(bundle, "-", "Der Gewinn des Unternehmens ist im dritten Quartal deutlich gesunken")
    assert line == {"abstained_because": "the text is in language 'de', the stack knows en"}


def test_a_record_holds_entities_spans_and_dropped_members_where_there_are_any() -> None:
    answer = TaskPrediction("positive", {"negative": 0.2, "positive": 0.8}, 0.5, 0.0, 0.6, ("positive",))
    entity = EntityPrediction("symbol", "ACME", 0, 4, {"stance": answer})
    record = prediction_record(Prediction({}, (entity,), {"names": (Span(0, 4, "company", 0.9),)}, ("second",)))
    assert record == {
        "names": [{"start": 0, "end": 4, "label": "company", "probability": 0.9}],
        "entities": [
            {"scheme": "symbol", "entity": "ACME", "start": 0, "end": 4}
            | {
                "stance": {"label": "positive", "score": pytest.approx(0.6)}
                | {"probabilities": dict(answer.probabilities), "conformal_set": ["positive"]}
            }
        ],
        "dropped": ["second"],
    }


def test_a_prediction_has_label_score_and_probabilities(bundle: str) -> None:
    (line,) = predict(bundle, "-", "oil falls")
    answer = line["sentiment"]
    shares = answer["probabilities"]
    assert list(answer) == ["label", "score", "probabilities"]
    assert isinstance(shares, dict)
    assert answer["score"] == pytest.approx(shares["positive"] - shares["negative"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "fine"}\n{"text": \n', "a.jsonl, line 2: not JSON"),
        ("b.jsonl", b'{"text": "fine"}\n[1]\n', "b.jsonl, line 2: a JSON object is needed, not list"),
        ("c.jsonl", b'{"body": "no"}\n', "c.jsonl, line 1: no text field (found body)"),
        ("d.csv", b"title\nno\n", "d.csv, line 2: no text field (found title)"),
        ("e.txt", b"fine\nn\xffo\n", "e.txt, line 2: not UTF-8"),
        ("f.csv", b'text\n"never closed\n', "f.csv, line 2: unexpected end of data"),
    ],
)
def test_a_bad_row_is_one_line_with_file_line_and_problem(
    name: str, content: bytes, message: str, bundle: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    done = runner.invoke(app, ["predict", "--bundle", bundle, str(tmp_path / name)])
    assert done.exit_code == 1
    assert message in done.stderr
    assert "Traceback" not in done.output


def test_a_missing_file_and_a_missing_bundle_are_said_plainly(tmp_path: Path) -> None:
    done = runner.invoke(app, ["predict", str(tmp_path / "none.txt")])
    assert done.exit_code == 1
    assert "none.txt cannot be read: No such file" in done.stderr
    done = runner.invoke(app, ["predict", "--bundle", "nowhere", "-"], input="x")
    assert done.exit_code == 1
    assert "no bundle 'nowhere'" in done.stderr


def test_an_evaluation_is_printed_and_written_as_json(bundle: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\noil falls,0\nbank rises,1\nacme,2\n")
    out = tmp_path / "scores.json"
    done = runner.invoke(
        app, ["evaluate", bundle, str(rows), "--labels", "bearish, bullish, neutral", "--json", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert "all rows (3)" in done.stdout
    assert "its best member first" in done.stdout
    record = json.loads(out.read_text())
    assert set(record["official"]["members"]) == {"first", "second"}
    assert record["official"]["best_member"] == "first"


def test_training_names_what_is_wrong_with_a_config(tmp_path: Path) -> None:
    (tmp_path / "slip.toml").write_text("name = 1")
    done = runner.invoke(app, ["train", str(tmp_path / "slip.toml"), "--data", str(tmp_path), "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "slip.toml is not a training config" in done.stderr


def test_nothing_but_predictions_is_printed_in_a_fresh_process(bundle: str) -> None:
    command = [sys.executable, "-m", "stacknorm", "predict", "--bundle", bundle, "-"]
    done = subprocess.run(command, input="oil falls\n", capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
