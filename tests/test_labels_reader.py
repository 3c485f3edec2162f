"""Laws of the label reader: every row is a grade, a preference or a reject that names its place."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askback.errors import ConfigError, DataError
from askback.grades import Grade, Preference, merge_grades, preferences_within
from askback.publish import dataset_row
from askback.readers.labels import read_labels
from askback.records import Pair, Reject, content_id

TEXTS = {"instruction": "Explain tides.", "output": "The moon pulls."}
TWO = {"instruction": "Explain tides.", "output_1": "The moon pulls.", "output_2": "Buy boats."}
FINE = TEXTS | {"grade": 5}


def write(folder: Path, *rows: object, name: str = "labels.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def read(folder: Path, *rows: object, **options: Any) -> list[Grade | Preference | Reject]:
    """Read the rows with a sound one below them, which is left out of what is returned."""
    *found, last = read_labels(write(folder, *rows, {"id": "sound", "grade": 3}), **options)
    assert isinstance(last, Grade)
    return found


def only(folder: Path, row: object, **options: Any) -> Grade | Preference | Reject:
    (found,) = read(folder, row, **options)
    return found


# --- grades


@pytest.mark.parametrize(
    ("said", "grade", "scale", "good"),
    [
        ({"grade": 4}, 4.0, (1.0, 5.0), True),
        ({"grade": 3.9}, 3.9, (1.0, 5.0), False),
        ({"grade": " 4.5 "}, 4.5, (1.0, 5.0), True),
        ({"score": 2}, 2.0, (1.0, 5.0), False),
        ({"score": 8, "scale": 10}, 8.0, (1.0, 10.0), True),
        ({"score": "7.7", "scale": "10"}, 7.7, (1.0, 10.0), False),
        ({"grade": 5, "scale": None}, 5.0, (1.0, 5.0), True),
        ({"gpt4_score": 9}, 9.0, (1.0, 10.0), True),
        ({"label": "good"}, 1.0, (0.0, 1.0), True),
        ({"label": "Bad"}, 0.0, (0.0, 1.0), False),
        ({"label": True}, 1.0, (0.0, 1.0), True),
        ({"label": "false"}, 0.0, (0.0, 1.0), False),
        ({"label": 1}, 1.0, (0.0, 1.0), True),
        ({"label": "0"}, 0.0, (0.0, 1.0), False),
    ],
)
def test_a_grade_is_read_on_its_own_scale(tmp_path: Path, said: Any, grade: float, scale: Any, good: bool) -> None:
    found = only(tmp_path, TEXTS | said)
    assert isinstance(found, Grade)
    assert (found.grade, found.scale, found.good) == (grade, scale, good)
    assert (found.pair.instruction, found.pair.output) == tuple(TEXTS.values())
    assert found.pair.id == content_id(*TEXTS.values())
    assert found.pair.source == "labels.jsonl:1"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (TEXTS, "no_grade"),
        (TEXTS | {"grade": None}, "no_grade"),
        (TEXTS | {"grade": True}, "no_grade"),
        (TEXTS | {"grade": "four"}, "no_grade"),
        (TEXTS | {"grade": "nan"}, "no_grade"),
        (TEXTS | {"grade": 0}, "off_scale"),
        (TEXTS | {"grade": 6}, "off_scale"),
        (TEXTS | {"score": 11, "scale": 10}, "off_scale"),
        (TEXTS | {"score": 1, "scale": 1}, "no_scale"),
        (TEXTS | {"score": 1, "scale": "ten"}, "no_scale"),
        (TEXTS | {"label": ""}, "no_grade"),
        (TEXTS | {"label": 2}, "no_grade"),
        (TEXTS | {"label": "perhaps"}, "no_grade"),
        ({"grade": 4}, "no_pair"),
        ({"id": "", "grade": 4}, "no_pair"),
        ({"id": True, "grade": 4}, "no_pair"),
        ({"instruction": "Explain tides.", "grade": 4}, "no_pair"),
        ({"id": "a", "output": "The moon pulls.", "grade": 4}, "no_pair"),
        ({"instruction": " ", "output": "\n", "grade": 4}, "no_pair"),
        (TWO, "no_preference"),
        (TWO | {"label": 3}, "no_preference"),
        (TWO | {"label": "good"}, "no_preference"),
        (TWO | {"label": 1, "output_2": " "}, "no_text"),
        (TWO | {"label": 1, "output_2": TWO["output_1"]}, "same_output"),
        ([1, 2], "not_an_object"),
    ],
)
def test_a_row_that_is_no_label_has_a_reason_and_a_place(tmp_path: Path, row: object, reason: str) -> None:
    found = only(tmp_path, row)
    assert isinstance(found, Reject)
    assert (found.reason, found.source) == (reason, "labels.jsonl:1")


def test_what_counts_as_good_is_the_readers_to_say(tmp_path: Path) -> None:
    rows = [{"id": str(n), "score": n, "scale": 10} for n in range(1, 11)]
    good = [{row.pair.id for row in read(tmp_path, *rows, good_from=bound) if row.good} for bound in (4.0, 3.0, 5.0)]
    assert good == [{"8", "9", "10"}, {"6", "7", "8", "9", "10"}, {"10"}]  # 4 of 5 is 7.75 of 10


@pytest.mark.parametrize("bound", [1.0, 5.1, float("nan")])
def test_a_bound_off_the_scale_is_refused(tmp_path: Path, bound: float) -> None:
    with pytest.raises(ConfigError, match="good_from"):
        read(tmp_path, good_from=bound)


def test_an_id_alone_is_a_label_of_a_candidate(tmp_path: Path) -> None:
    found = only(tmp_path, {"id": 17, "label": "good"})
    assert isinstance(found, Grade)
    assert found.pair == Pair(id="17", instruction="", output="", source="labels.jsonl:1")


def test_a_grade_goes_before_a_label_and_both_before_a_score(tmp_path: Path) -> None:
    found = read(tmp_path, TEXTS | {"score": 5, "label": "bad", "grade": 2}, TEXTS | {"score": 5, "label": "bad"})
    assert [row.five for row in found if isinstance(row, Grade)] == [2.0, 1.0]


def test_what_a_judge_said_is_never_taken_for_a_grade(tmp_path: Path) -> None:
    own = dataset_row(Pair(id="a", score=4.8, passage="p", **TEXTS))
    found = only(tmp_path, own)
    assert isinstance(found, Reject)
    assert found.reason == "judges_own_score"
    assert isinstance(only(tmp_path, own | {"grade": 2}), Grade)


def test_one_id_has_one_text(tmp_path: Path) -> None:
    first, alone, same = FINE | {"id": "a"}, {"id": "a", "grade": 2}, FINE | {"id": "a", "grade": 1}
    other = FINE | {"id": "a", "output": "Another text."}
    found = read(tmp_path, first, alone, same, other)
    assert [type(row) for row in found] == [Grade, Grade, Grade, Reject]
    assert isinstance(found[-1], Reject)
    assert found[-1].reason == "two_texts"
    assert "labels.jsonl:1" in found[-1].detail


def test_material_below_an_instruction_belongs_to_it(tmp_path: Path) -> None:
    found = only(tmp_path, {"instruction": "Translate.", "input": "Guten Tag", "output": "Good day", "grade": 5})
    assert isinstance(found, Grade)
    assert found.pair.instruction == "Translate.\n\nGuten Tag"


# --- preferences


@pytest.mark.parametrize(("label", "better"), [(1, "The moon pulls."), ("2", "Buy boats."), (2.0, "Buy boats.")])
def test_the_label_names_the_better_output(tmp_path: Path, label: Any, better: str) -> None:
    found = only(tmp_path, TWO | {"label": label})
    assert isinstance(found, Preference)
    assert found.better.output == better
    assert {found.better.output, found.worse.output} == {TWO["output_1"], TWO["output_2"]}
    assert found.better.instruction == found.worse.instruction == "Explain tides."
    assert found.better.id != found.worse.id


# --- files


@given(
    rows=st.lists(
        st.dictionaries(
            st.sampled_from(
                ["id", "instruction", "input", "output", "output_1", "output_2", "grade", "label", "score", "scale"]
            ),
            st.one_of(
                st.none(),
                st.booleans(),
                st.integers(-1, 11),
                st.floats(0, 11),
                st.sampled_from(["", "a", "b", "1", "good"]),
            ),
        ),
        max_size=12,
    )
)
@settings(max_examples=80, deadline=None)
def test_every_row_becomes_one_outcome(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    found = read(tmp_path_factory.mktemp("rows"), *rows)
    assert len(found) == len(rows)
    for number, outcome in enumerate(found, start=1):
        if isinstance(outcome, Reject):
            assert outcome.source == f"labels.jsonl:{number}"


def test_csv_and_parquet_read_as_json_does(tmp_path: Path) -> None:
    rows = [{"id": "a", "grade": 4.0}, {"id": "b", "grade": 1.0}]
    (tmp_path / "labels.csv").write_text("id,grade\na,4.0\nb,1.0\n", encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "labels.parquet")
    known = [(row.pair.id, row.grade, row.good) for row in read(tmp_path, *rows)]
    for name in ("labels.csv", "labels.parquet"):
        found = [row for row in read_labels(tmp_path / name) if isinstance(row, Grade)]
        assert [(row.pair.id, row.grade, row.good) for row in found] == known


def test_a_gap_in_a_table_is_no_id(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [float("nan"), 1.0], "grade": [4, 4]}), tmp_path / "labels.parquet")
    with pytest.raises(DataError, match=r"no_pair at labels\.parquet:1"):
        list(read_labels(tmp_path / "labels.parquet"))


def test_a_file_without_any_label_is_an_error_that_names_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.jsonl: no row holds a grade.*no_grade at labels\.jsonl:1"):
        list(read_labels(write(tmp_path, TEXTS, TEXTS)))


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl: no such file"):
        list(read_labels(tmp_path / "nowhere.jsonl"))
    (tmp_path / "broken.jsonl").write_text('{"id": "a"\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"broken\.jsonl: holds no usable row"):
        list(read_labels(tmp_path / "broken.jsonl"))


# --- what follows from several


def grade(id: str, five: float, instruction: str = "Ask.", good: bool | None = None) -> Grade:
    pair = Pair(id=id, instruction=instruction, output=f"Text {id}.")
    return Grade(pair, five, (1.0, 5.0), five >= 4 if good is None else good)


def test_grades_of_one_pair_become_their_mean_and_the_majority() -> None:
    binary = Grade(Pair(id="a", instruction="", output=""), 1.0, (0.0, 1.0), True)
    merged = merge_grades([grade("b", 2), binary, grade("a", 4), grade("a", 2)])
    assert [(one.pair.id, one.five, one.good) for one in merged] == [
        ("a", pytest.approx(11 / 3), True),
        ("b", 2.0, False),
    ]
    assert merged[0].pair.output == "Text a."  # the row that had the texts
    assert not merge_grades([grade("a", 5), grade("a", 1)])[0].good  # as many against as for


def test_grades_of_answers_to_one_question_are_preferences() -> None:
    found = preferences_within(
        [grade("a", 5), grade("b", 3), grade("c", 3), grade("d", 1, "Ask other."), grade("e", 4, "")]
    )
    assert [(one.better.id, one.worse.id) for one in found] == [("a", "b"), ("a", "c")]


def test_preferences_do_not_follow_from_a_pair_graded_twice() -> None:
    with pytest.raises(ValueError, match="want one grade for each pair"):
        preferences_within([grade("a", 5), grade("a", 3)])


# --- ratings nobody here wrote


def test_llmbar_is_read_whole(shared: Path) -> None:
    file = shared / "ratings" / "llmbar_natural.json"
    found = list(read_labels(file))
    raw = json.loads(file.read_text(encoding="utf-8"))
    assert [type(row) for row in found] == [Preference] * 100
    for row, said in zip(found, raw, strict=True):
        assert isinstance(row, Preference)
        assert row.better.output == said[f"output_{said['label']}"].strip()
        assert row.better.instruction == said["input"].strip()


def test_scored_answers_are_read_whole_as_groups(shared: Path) -> None:
    found = list(read_labels(shared / "ratings" / "vicuna_answers_scored.jsonl.gz"))
    grades = [row for row in found if isinstance(row, Grade)]
    assert len(grades) == len(found) == 1320
    assert {row.scale for row in grades} == {(1.0, 10.0)}
    assert sum(row.good for row in grades) == sum(row.grade >= 8 for row in grades)  # 7.75 is no grade given here
    questions = Counter(row.pair.instruction for row in grades)
    assert len(questions) == 40
    asked = {one.better.instruction for one in preferences_within(merge_grades(grades))}
    assert asked == set(questions)
