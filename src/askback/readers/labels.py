"""Read what people, or a stronger model, said of pairs.

Takes: one row file (JSONL, JSON, CSV, TSV, Parquet), and the grade from which on a pair is good.
Gives: a Grade or a Preference for each row, or a Reject with its place.
Never: takes a judge's own score for a grade, guesses a scale, or passes two texts under one id.

A row is one of these:

    instruction, output_1, output_2, label 1 | 2         a preference (LLMBar; `input` may stand for `instruction`)
    id and/or instruction and output, with one of        a grade
        grade 1..5 (or with `scale`: 1..scale)
        label good | bad | true | false | 1 | 0
        score 1..5 (or with `scale`: 1..scale)
        gpt4_score 1..10

The first of these columns that a row has decides. Answers to one question are rows with the same instruction.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from askback.errors import ConfigError, DataError
from askback.grades import Grade, Preference
from askback.readers.rows import Located, Row, read_rows, reject
from askback.records import Pair, Reject, Verdict, content_id

SCALES = {"grade": 5.0, "score": 5.0, "gpt4_score": 10.0}
"""Columns that hold a number, and the top of their scale where the row has no `scale`; all scales begin at 1."""
GRADE_COLUMNS = ("grade", "label", "score", "gpt4_score")
SAYS_GOOD = {
    **dict.fromkeys(("good", "true", "1", "1.0"), True),
    **dict.fromkeys(("bad", "false", "0", "0.0"), False),
}
OWN_COLUMNS = {"passage", "candidate"}
"""Columns of askback's own rows, whose `score` is what a judge said."""

Label = Grade | Preference


def read_labels(file: Path, *, good_from: float = 4.0) -> Iterator[Label | Reject]:
    """Yield what each row says; `good_from` is the lowest grade that counts as good, on a scale from 1 to 5.

    Raises:
        ConfigError: there is no such file, or `good_from` is not on the scale.
        DataError: the file is empty, damaged, or no row of it says anything.
    """
    if not 1 < good_from <= 5:
        raise ConfigError(f"good_from: want a grade above 1 and up to 5, got {good_from}")
    first = None
    said = False
    for outcome in _one_text_each(_labels(read_rows(file), good_from)):
        said = said or not isinstance(outcome, Reject)
        first = first or (outcome if isinstance(outcome, Reject) else None)
        yield outcome
    if not said and first is not None:
        raise DataError(
            f"{file}: no row holds a grade; the first: {first.reason} at {first.source} ({first.detail}); want columns "
            "id or instruction and output with grade, label or score, or instruction, output_1, output_2 and label"
        )


def _labels(items: Iterable[Located | Reject], good_from: float) -> Iterator[Label | Reject]:
    for item in items:
        if isinstance(item, Reject):
            yield item
            continue
        found = _preference(item) if "output_1" in item.row else _grade(item, good_from)
        yield reject(item.where, found.reason, found.detail) if isinstance(found, Verdict) else found


def _one_text_each(outcomes: Iterable[Label | Reject]) -> Iterator[Label | Reject]:
    """Reject a graded row that gives an id other texts than an earlier row gave it; an id alone gives none."""
    known: dict[str, Pair] = {}
    for outcome in outcomes:
        if not isinstance(outcome, Grade) or not outcome.pair.output:
            yield outcome
            continue
        pair = outcome.pair
        first = known.setdefault(pair.id, pair)
        if (first.instruction, first.output) == (pair.instruction, pair.output):
            yield outcome
        else:
            yield reject(pair.source, "two_texts", f"the id {pair.id} has other texts at {first.source}")


# --- a preference


def _preference(item: Located) -> Preference | Verdict:
    asked = _instruction(item.row)
    outputs = [_text(item.row, name) for name in ("output_1", "output_2")]
    if not asked or not all(outputs):
        return Verdict(False, "no_text", "want instruction, output_1 and output_2 as texts")
    said = _whole(item.row.get("label"))
    if said not in (1, 2):
        return Verdict(False, "no_preference", f"label: want 1 or 2, got {item.row.get('label')!r}")
    if outputs[0] == outputs[1]:
        return Verdict(False, "same_output", "both outputs are the same text")
    first, second = (_pair("", asked, output, item.where) for output in outputs)
    return Preference(first, second) if said == 1 else Preference(second, first)


def _instruction(row: Row) -> str:
    """Return the instruction with the material below it, however the two columns are named."""
    return "\n\n".join(filter(None, (_text(row, "instruction"), _text(row, "input"))))


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number.is_integer() else None


# --- a grade


def _grade(item: Located, good_from: float) -> Grade | Verdict:
    pair = _graded_pair(item)
    if isinstance(pair, Verdict):
        return pair
    column = next((name for name in GRADE_COLUMNS if name in item.row), "")
    if not column:
        return Verdict(False, "no_grade", f"want one of {', '.join(GRADE_COLUMNS)}; found {', '.join(item.row)}")
    if column == "score" and item.row.keys() >= OWN_COLUMNS:
        return Verdict(False, "judges_own_score", "this is a row of a run, and its score a judge's: add a column grade")
    if column == "label":
        return _from_label(pair, item.row["label"])
    return _from_number(pair, item.row, column, good_from)


def _graded_pair(item: Located) -> Pair | Verdict:
    asked, output = _instruction(item.row), _text(item.row, "output")
    said = item.row.get("id")
    id = str(said).strip() if isinstance(said, str | int) and not isinstance(said, bool) else ""
    if bool(asked) != bool(output) or not (id or output):
        return Verdict(False, "no_pair", "want id, or instruction and output, as texts that are not empty")
    return _pair(id, asked, output, item.where)


def _from_label(pair: Pair, said: Any) -> Grade | Verdict:
    good = SAYS_GOOD.get(str(said).strip().lower())
    if good is None:
        return Verdict(False, "no_grade", f"label: want good, bad, true, false, 1 or 0, got {said!r}")
    return Grade(pair, float(good), (0.0, 1.0), good)


def _from_number(pair: Pair, row: Row, column: str, good_from: float) -> Grade | Verdict:
    grade, scale = _number(row[column]), row.get("scale")
    top = SCALES[column] if scale in (None, "") else _number(scale)
    if top is None or top <= 1:
        return Verdict(False, "no_scale", f"scale: want its highest grade, above 1, got {scale!r}")
    if grade is None:
        return Verdict(False, "no_grade", f"{column}: want a number, got {row[column]!r}")
    if not 1 <= grade <= top:
        return Verdict(False, "off_scale", f"{column}: want 1 to {top:g}, got {grade:g}; another scale: column scale")
    made = Grade(pair, grade, (1.0, top), good=False)
    return Grade(pair, grade, made.scale, good=made.five >= good_from)


# --- values


def _pair(id: str, instruction: str, output: str, where: str) -> Pair:
    return Pair(id=id or content_id(instruction, output), instruction=instruction, output=output, source=where)


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    return value.strip() if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    """Return a number that is one, or a text (from CSV) that says one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
