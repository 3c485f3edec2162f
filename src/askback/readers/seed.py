"""Read seed pairs from whatever layout people keep them in.

Takes: SeedOptions: a file, a folder of row files, or a hub data set, and how to read it.
Gives: a SeedReading: the format found, what was read as what, and one Pair or Reject for each exchange.
Never: guesses between two formats that fit, or drops an exchange without a reason.

An exchange is one human turn and its reply; a layout is a function from a row to exchanges, all of them in
`FORMATS`. What makes an exchange a pair is decided once, in `_judge`.
"""

import heapq
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from askback.errors import ConfigError, DataError, borrow
from askback.options import SeedOptions
from askback.readers.rows import Located, Row, read_rows, readable_suffixes, reject, row_format
from askback.records import OK, Pair, Reject, Verdict, content_id

SAMPLE_ROWS = 50
"""How many rows are looked at to find the format."""

_ROLES = {
    **dict.fromkeys(("human", "user", "prompter"), "human"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot"), "assistant"),
}
_GUANACO_MARK = re.compile(r"### (Human|Assistant):")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")

Items = Iterator[Located | Reject]


class Exchange(NamedTuple):
    """What a row says was asked and answered, unchecked; an output of None was never given, and `why` says so."""

    instruction: object
    output: object
    context: object = None
    languages: tuple[object, ...] = ()
    why: str = "no_assistant_turn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A layout of seed rows. A column written "a|b" may go by either name."""

    columns: tuple[str, ...]
    explained: str
    exchanges: Callable[[Row], list[Exchange] | Verdict]
    looks: Callable[[Row], bool] = lambda row: True
    """What must hold beyond the columns for a row to be taken for this format unasked."""
    gather: Callable[[Items], Items] = lambda items: items
    """Turns rows into the units that are counted, where these are not the rows themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedReading:
    """An opened seed: its format, one line on which column was read as what, and the outcomes to come."""

    format: str
    explained: str
    outcomes: Iterator[Pair | Reject]


def read_seed(options: SeedOptions) -> SeedReading:
    """Open the seed and find its format; the rows are read as `outcomes` is consumed.

    With `turns` "all" every human turn of a conversation is a pair with its own reply; what was said before is
    not part of the instruction, so a turn that leans on it will read oddly.

    Raises:
        ConfigError: there is nothing at `path`, or no format of that name.
        DataError: the rows fit no format, or more than one; a file is empty, damaged or without a usable row.
    """
    if options.format != "auto" and options.format not in FORMATS:
        raise ConfigError(f"seed.format: no format {options.format!r}; known are auto, {', '.join(FORMATS)}")
    sample, items = _peek(_open_items(options.path))
    name = _find_format(sample, options)
    return SeedReading(format=name, explained=FORMATS[name].explained, outcomes=_outcomes(items, name, options))


def _outcomes(items: Items, name: str, options: SeedOptions) -> Iterator[Pair | Reject]:
    pairs = _pairs(_with_columns(items, FORMATS[name]), FORMATS[name], options)
    unique = _drop_duplicates(pairs)
    return _keep_smallest(unique, options.limit) if options.limit else unique


# --- where rows come from


def _open_items(path: str) -> Items:
    if not path:
        raise ConfigError("seed.path is empty: name a file, a folder or a hub data set of seed pairs")
    place = Path(path)
    if place.is_dir():
        return _folder_items(place)
    if place.exists():
        return read_rows(place)
    if row_format(place):
        raise ConfigError(
            f"seed.path {path!r}: no such file; name the seed pairs with seed.path or --seed: "
            "a file, a folder or a hub data-set id"
        )
    if _HUB_NAME.fullmatch(path):
        return _hub_items(path)
    raise ConfigError(_not_found(path, "no such file or folder"))


def _folder_items(folder: Path) -> Items:
    files = sorted(file for file in folder.iterdir() if file.is_file() and row_format(file))
    if not files:
        found = ", ".join(sorted(file.name for file in folder.iterdir())[:10]) or "nothing"
        raise DataError(f"{folder}: no row file in the folder (found: {found}); read are {_suffixes()}")
    return chain.from_iterable(read_rows(file) for file in files)


def _hub_items(name: str) -> Items:
    """Stream the train split of a hub data set."""
    datasets = borrow("datasets", "hub")
    try:
        rows = datasets.load_dataset(name, split="train", streaming=True)
        for number, row in enumerate(rows, start=1):
            yield Located(f"{name}:{number}", dict(row))
    except Exception as error:  # the hub's libraries raise from four families, none of them documented
        raise ConfigError(_not_found(name, f"{type(error).__name__}: {error}")) from error


def _not_found(path: str, cause: str) -> str:
    return (
        f"seed.path {path!r} is neither on disk nor a data set that can be loaded ({' '.join(cause.split())}): "
        "give a local file or folder, check the name, run `hf auth login` if the set is gated, or check the network"
    )


def _suffixes() -> str:
    return ", ".join(readable_suffixes())


# --- which format it is


def _peek(items: Items) -> tuple[list[Row], Items]:
    """Return the first usable rows, and all items as if none had been looked at."""
    seen: list[Located | Reject] = []
    rows: list[Row] = []
    for item in items:
        seen.append(item)
        if isinstance(item, Located):
            rows.append(item.row)
        if len(rows) == SAMPLE_ROWS:
            break
    return rows, chain(seen, items)


def _find_format(sample: list[Row], options: SeedOptions) -> str:
    """Return the asked-for format if any row has its columns, else the only one that fits most rows."""
    if options.format != "auto":
        if any(not _missing_column(row, FORMATS[options.format]) for row in sample):
            return options.format
        raise DataError(_no_format(sample, options.path, f"do not fit the format {options.format!r}"))
    fitting = [name for name, format in FORMATS.items() if sum(_fits(row, format) for row in sample) * 2 > len(sample)]
    if len(fitting) == 1:
        return fitting[0]
    complaint = f"fit more than one format ({', '.join(fitting)})" if fitting else "fit no format"
    raise DataError(_no_format(sample, options.path, complaint))


def _no_format(sample: list[Row], path: str, complaint: str) -> str:
    columns = sorted({column for row in sample for column in row})
    known = "; ".join(f"{name}: {', '.join(format.columns)}" for name, format in FORMATS.items())
    return (
        f"{path}: rows with the columns {', '.join(columns) or '(none)'} {complaint}; "
        f"say which it is with seed.format, or rename columns; known formats: {known}"
    )


def _fits(row: Row, format: Format) -> bool:
    return not _missing_column(row, format) and format.looks(row)


def _missing_column(row: Row, format: Format) -> str:
    return next((names for names in format.columns if not any(name in row for name in names.split("|"))), "")


# --- from rows to pairs


def _with_columns(items: Items, format: Format) -> Items:
    for item in items:
        if isinstance(item, Located) and (missing := _missing_column(item.row, format)):
            found = ", ".join(map(str, item.row)) or "none"
            yield reject(item.where, "missing_column", f"no {missing}; columns found: {found}")
        else:
            yield item


def _pairs(items: Items, format: Format, options: SeedOptions) -> Iterator[Pair | Reject]:
    for item in format.gather(items):
        if isinstance(item, Reject):
            yield item
            continue
        found = format.exchanges(item.row)
        if isinstance(found, Verdict):
            yield reject(item.where, found.reason, found.detail)
        elif not found:
            yield reject(item.where, "no_human_turn")
        else:
            asked = found if options.turns == "all" else found[:1]
            yield from _row_pairs(asked, item, options.language)


def _row_pairs(exchanges: list[Exchange], item: Located, language: str) -> Iterator[Pair | Reject]:
    for number, exchange in enumerate(exchanges, start=1):
        where = item.where if number == 1 else f"{item.where}#{number}"
        verdict = _judge(exchange, language)
        yield _to_pair(exchange, where, item.row) if verdict.keep else reject(where, verdict.reason, verdict.detail)


def _judge(exchange: Exchange, language: str) -> Verdict:
    """Say whether an exchange can be a seed pair."""
    parts = (exchange.instruction, exchange.output, exchange.context)
    wrong = [type(part).__name__ for part in parts if not isinstance(part, str | None)]
    other = [said for said in exchange.languages if not _speaks(said, language)]
    if wrong:
        return Verdict(False, "wrong_type", f"want text, found {', '.join(wrong)}")
    if other:
        return Verdict(False, "other_language", f"want {language}, found {other[0]}")
    if not str(exchange.instruction or "").strip():
        return Verdict(False, "empty_instruction")
    if exchange.output is None:
        return Verdict(False, exchange.why)
    return OK if str(exchange.output).strip() else Verdict(False, "empty_output")


def _speaks(said: object, language: str) -> bool:
    """Whether a row's language is the wanted one or a region of it ("en-GB"); a row that does not say passes."""
    if not language or not isinstance(said, str) or not said:
        return True
    spoken, wanted = (code.lower().replace("_", "-") for code in (said, language))
    return spoken == wanted or spoken.startswith(f"{wanted}-")


def _to_pair(exchange: Exchange, where: str, row: Row) -> Pair:
    asked = [str(part).strip() for part in (exchange.instruction, exchange.context) if part]
    instruction, output = "\n\n".join(filter(None, asked)), str(exchange.output).strip()
    return Pair(
        id=content_id(instruction, output),
        instruction=instruction,
        output=output,
        source=where,
        genre=_text_of(row, "genre"),
        licence=_text_of(row, "licence") or _text_of(row, "license"),
    )


def _text_of(row: Row, column: str) -> str:
    value = row.get(column)
    return value.strip() if isinstance(value, str) else ""


def _drop_duplicates(outcomes: Iterable[Pair | Reject]) -> Iterator[Pair | Reject]:
    first: dict[str, str] = {}
    for outcome in outcomes:
        if isinstance(outcome, Reject):
            yield outcome
        elif outcome.id in first:
            same = f"the same pair stands at {first[outcome.id]}"
            yield Reject(id=outcome.id, reason="duplicate", detail=same, source=outcome.source)
        else:
            first[outcome.id] = outcome.source
            yield outcome


def _keep_smallest(outcomes: Iterable[Pair | Reject], limit: int) -> Iterator[Pair | Reject]:
    """Keep the pairs with the smallest ids, so that the choice does not depend on the order of the rows."""
    kept: list[tuple[int, Pair]] = []  # a heap with the largest id on top; ids are distinct by now
    for outcome in outcomes:
        if isinstance(outcome, Reject):
            yield outcome
            continue
        entry = (-int(outcome.id, 16), outcome)
        if len(kept) < limit:
            heapq.heappush(kept, entry)
        else:
            _, over = heapq.heappushpop(kept, entry)
            yield Reject(id=over.id, reason="over_limit", detail=f"seed.limit is {limit}", source=over.source)
    yield from sorted((pair for _, pair in kept), key=lambda pair: pair.id)


# --- layouts: one column each for question and answer


def _columns(instruction: str, output: str, context: str = "") -> Callable[[Row], list[Exchange]]:
    """Return the layout that has a question and an answer in each row; "a|b" takes the first column there."""

    def exchanges(row: Row) -> list[Exchange]:
        asked, answered = (
            next(row[name] for name in names.split("|") if name in row) for names in (instruction, output)
        )
        return [Exchange(asked, answered, row.get(context), (row.get("lang"),), "empty_output")]

    return exchanges


# --- layouts: conversations


def _guanaco(row: Row) -> list[Exchange] | Verdict:
    if not isinstance(row["text"], str):
        return Verdict(False, "wrong_type", f"text is {type(row['text']).__name__}, want text")
    _, *pieces = _GUANACO_MARK.split(row["text"])
    return _exchanges(list(zip(pieces[::2], pieces[1::2], strict=True)), row.get("lang"))


def _chat(column: str, role: str, text: str) -> Callable[[Row], list[Exchange] | Verdict]:
    """Return the layout that has a list of turns in one column; turns of neither side are left out."""

    def exchanges(row: Row) -> list[Exchange] | Verdict:
        turns = row[column]
        if not _is_list_of_objects(turns):
            return Verdict(False, "wrong_type", f"{column} is {type(turns).__name__}, want a list of objects")
        return _exchanges([(str(turn.get(role)), turn.get(text)) for turn in turns], row.get("lang"))

    return exchanges


def _exchanges(turns: list[tuple[str, object]], language: object) -> list[Exchange]:
    """Pair every human turn with the assistant turn that follows at once; a tool in between is no reply."""
    known = [(_ROLES.get(role.lower(), role), text) for role, text in turns]
    return [
        Exchange(asked, text if next_role == "assistant" else None, languages=(language,))
        for (role, asked), (next_role, text) in pairwise([*known, ("end", None)])
        if role == "human"
    ]


def _is_list_of_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(turn, dict) for turn in value)


def _first_turn_has(column: str, key: str) -> Callable[[Row], bool]:
    """Return the look of a conversation; a row with a pair beside it, as askback's own data sets have, is no such."""

    def looks(row: Row) -> bool:
        if "instruction" in row and "output" in row:
            return False
        return _is_list_of_objects(row[column]) and bool(row[column]) and key in row[column][0]

    return looks


# --- layouts: trees of messages, as OpenAssistant publishes them


def _plant_trees(items: Items) -> Items:
    """Join flat messages to trees, one `{"prompt": message with replies}` per root; needs all of them in memory."""
    messages: dict[str, Located] = {}
    for item in items:
        if isinstance(item, Reject):
            yield item
        elif not isinstance(name := item.row["message_id"], str) or not name:
            yield reject(item.where, "wrong_type", f"message_id is {type(name).__name__}, want text")
        elif name in messages:
            yield reject(item.where, "duplicate_message", f"message {name} stands at {messages[name].where}")
        else:
            messages[name] = Located(item.where, {**item.row, "replies": []})
    roots: list[Located] = []
    for message in messages.values():
        if parent := messages.get(_parent(message.row)):
            parent.row["replies"].append(message.row)
        else:
            roots.append(message)
    yield from _rooted(roots)
    reached = {id(row) for root in roots for row in _walk(root.row)}
    lost = [message for message in messages.values() if id(message.row) not in reached]
    yield from (reject(message.where, "no_prompt", "its parents go round in a circle") for message in lost)


def _rooted(roots: Iterable[Located]) -> Items:
    for where, row in roots:
        if parent := _parent(row):
            yield reject(where, "no_prompt", f"its parent {parent} is not in the seed")
        else:
            yield Located(where, {"prompt": row})


def _parent(row: Row) -> str:
    parent = row["parent_id"]
    return parent if isinstance(parent, str) else ""  # a table with gaps says NaN for none


def _tree(row: Row) -> list[Exchange] | Verdict:
    """Give every prompt of a tree its best reply, the first prompt first."""
    if not isinstance(row["prompt"], dict):
        return Verdict(False, "wrong_type", f"prompt is {type(row['prompt']).__name__}, want an object")
    return [_best_exchange(message) for message in _walk(row["prompt"]) if _role(message) == "human"]


def _walk(message: Row) -> Iterator[Row]:
    """Yield a message and all below it, each before its replies; a stack, for a tree may be deeper than Python's."""
    stack = [message]
    while stack:
        message = stack.pop()
        yield message
        stack += reversed(_replies(message))


def _replies(message: Row) -> list[Row]:
    replies = message.get("replies")
    return [reply for reply in replies if isinstance(reply, dict)] if isinstance(replies, list) else []


def _best_exchange(message: Row) -> Exchange:
    """Take the reply people ranked first; an unranked one only where nothing else was said."""
    if _is_true(message.get("deleted")):
        return Exchange(message.get("text"), None, why="deleted")
    replies = [
        reply for reply in _replies(message) if _role(reply) == "assistant" and not _is_true(reply.get("deleted"))
    ]
    best = [reply for reply in replies if _rank(reply) == 0]
    if not best and len(replies) == 1 and _rank(replies[0]) is None:
        best = replies
    if not best:
        why = "no_best_reply" if replies else "no_assistant_turn"
        return Exchange(message.get("text"), None, languages=(message.get("lang"),), why=why)
    return Exchange(message.get("text"), best[0].get("text"), languages=(message.get("lang"), best[0].get("lang")))


def _role(message: Row) -> str:
    return _ROLES.get(str(message.get("role")).lower(), "")


def _rank(message: Row) -> int | None:
    """Return a rank that may be a number, text (from CSV) or NaN (from a table that has gaps)."""
    text = str(message.get("rank")).removesuffix(".0")
    return int(text) if text.isdecimal() else None


def _is_true(value: Any) -> bool:
    return value is True or str(value).lower() == "true"


FORMATS: dict[str, Format] = {
    "guanaco": Format(
        columns=("text",),
        explained="`text`: `### Human:` as instruction, the `### Assistant:` after it as output",
        exchanges=_guanaco,
        looks=lambda row: isinstance(row["text"], str) and bool(_GUANACO_MARK.search(row["text"])),
    ),
    "oasst": Format(
        columns=("message_id", "parent_id", "role", "text"),
        explained="messages joined by `parent_id`: the prompter's `text` as instruction, its reply of rank 0 as output",
        exchanges=_tree,
        gather=_plant_trees,
    ),
    "oasst-trees": Format(
        columns=("prompt",),
        explained="`prompt.text` as instruction, its reply of rank 0 as output",
        exchanges=_tree,
        looks=lambda row: isinstance(row["prompt"], dict) and "replies" in row["prompt"],
    ),
    "alpaca": Format(
        columns=("instruction", "output"),
        explained="`instruction`, then `input` after a blank line, as instruction; `output` as output",
        exchanges=_columns("instruction", "output", "input"),
        looks=lambda row: "input" in row,
    ),
    "dolly": Format(
        columns=("instruction", "response"),
        explained="`instruction`, then `context` after a blank line, as instruction; `response` as output",
        exchanges=_columns("instruction", "response", "context"),
    ),
    "messages": Format(
        columns=("messages",),
        explained="`messages`: content of role user as instruction, of the assistant after it as output",
        exchanges=_chat("messages", "role", "content"),
        looks=_first_turn_has("messages", "role"),
    ),
    "sharegpt": Format(
        columns=("conversations",),
        explained="`conversations`: value from human as instruction, from gpt after it as output",
        exchanges=_chat("conversations", "from", "value"),
        looks=_first_turn_has("conversations", "from"),
    ),
    "prompt-completion": Format(
        columns=("prompt", "completion|response"),
        explained="`prompt` as instruction, `completion` (or `response`) as output",
        exchanges=_columns("prompt", "completion|response"),
        looks=lambda row: isinstance(row["prompt"], str),
    ),
    "pairs": Format(
        columns=("instruction", "output"),
        explained="`instruction` as instruction, `output` as output",
        exchanges=_columns("instruction", "output", "input"),
        looks=lambda row: "input" not in row,
    ),
}
"""What `seed.format` may name."""
