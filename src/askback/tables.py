"""The numbers of a run as tables that people read: the same ones in the report and on the cards.

Takes: the `metrics` dict and the costs, as publish.py defines them.  Gives: `Table`s of strings.
Never: fills a gap: what is not there reads "not measured", what needs a model where there is none reads "–".
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

NOT_MEASURED = "not measured"
NEEDS_A_MODEL = "–"
NEEDS_A_RUBRIC = "–"

SYSTEMS = {
    "backward": "Backward model",
    "base": "Bare base",
    "first_sentence": "First sentence",
    "shuffled": "Shuffled",
}
"""Who answered for the held-out pairs; the last two are floors that need no model."""

FLOORS = ("first_sentence", "shuffled")
TEXT_SCORES = {"bleu": "BLEU", "chrf": "chrF2", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
"""Scores of an instruction beside the true one, 0 to 100."""
ROUGE_WORDS = (
    "ROUGE splits texts into unicode words, lowercased and unstemmed, and CJK (like every script that is written "
    "without spaces) into single characters."
)

TUNED_JUDGE, BARE_JUDGE = "forward model of the round before", "base, on which nothing was tuned,"
JUDGES = {
    "expected": (
        "The {judge} reads a rubric; the score is the mean of 1 to 5 under the "
        "probabilities it gives these digits. 5 is an excellent answer to the instruction, 3 a useful text that was "
        "plainly cut from somebody's page, 1 no answer to it."
    ),
    "reasoned": (
        "The {judge} reads a rubric, reasons briefly and ends with a score from 1 to 5. 5 "
        "is an excellent answer to the instruction, 3 a useful text that was plainly cut from somebody's page, 1 no "
        "answer to it. A reply without a score stays without one."
    ),
    "likelihood": (
        "This signal reads no rubric, and so suits bases too small to follow one. It is the likelihood gain: how much "
        "the instruction helps the {judge} to predict the output, in nats per token."
    ),
    "likeness": (
        "This signal is how much likelier tuning made the output, in nats per token: the log-likelihood under the "
        "{judge}, less that under the bare base. It sorts texts by how like they are to the "
        "seed outputs (Moore and Lewis 2010) and says nothing of whether the instruction fits."
    ),
    "backward": (
        "The backward model's log-likelihood of the instruction, given the output, in nats per token: how natural a "
        "request it is for this text."
    ),
}
RANKED = (
    "The scores are ranks, spread evenly from 1 to 5{several}: they order the candidates of one round and do not say "
    "how good any of them is."
)
CALIBRATED = (
    "The score is 1 + 4 × the probability that the pair is good, from a logistic model of these signals fitted to "
    "people's grades (`curate.calibration`)."
)
"""What a judge does and what its scores mean, in the words of the report and the data-set card."""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows of strings; the first cell of a row is its heading."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


# --- single figures


def count(value: float | None) -> str:
    """Return a whole number with its thousands apart."""
    return NOT_MEASURED if value is None else f"{value:,.0f}"


def number(value: float | None, digits: int = 2) -> str:
    """Return a figure, or that there is none."""
    return NOT_MEASURED if value is None else f"{round(value, digits) + 0.0:,.{digits}f}"  # no minus before a zero


def percent(value: float | None) -> str:
    """Return a share of 1 in per cent."""
    return NOT_MEASURED if value is None else f"{100 * value:.0f} %"


def interval(score: Mapping[str, Any] | None, digits: int = 2) -> str:
    """Return a figure with its 95 % interval."""
    if not score:
        return NOT_MEASURED
    return f"{number(score['value'], digits)} ({number(score['low'], digits)}–{number(score['high'], digits)})"


def percent_interval(score: Mapping[str, Any] | None) -> str:
    """Return a share with its 95 % interval, in per cent."""
    if not score:
        return NOT_MEASURED
    return f"{percent(score['value'])} ({100 * score['low']:.0f}–{100 * score['high']:.0f})"


def with_n(shown: Callable[[Mapping[str, Any]], str], score: Mapping[str, Any] | None) -> str:
    """Return a figure with its interval and the number behind it."""
    return f"{shown(score)}, n\u00a0{count(score['n'])}" if score else NOT_MEASURED


def significant(value: float, digits: int = 3) -> str:
    """Return a figure of any size with so many digits that matter, without an exponent."""
    return f"{Decimal(f'{value:.{digits}g}'):f}"


def p_value(value: float | None) -> str:
    """Return a p-value without more digits than it deserves."""
    if value is None:
        return NOT_MEASURED
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


# --- finding things in the metrics


def step(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the funnel row of a step by its name without the number, or an empty one."""
    return next((row for row in found.get("funnel") or [] if bare_step(row["step"]) == name), {})


def bare_step(name: str) -> str:
    """Return a step's name without the number in front: `judged-1` of `07-judged-1`."""
    head, _, rest = name.partition("-")
    return rest if head.isdigit() else name


def rounds(found: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the rounds of curation in order."""
    return sorted((int(number), made) for number, made in (found.get("rounds") or {}).items())


def judges_of(found: Mapping[str, Any]) -> list[str]:
    """Return the signals that made the scores, none where no round was made."""
    return next((list(made.get("judge") or []) for _, made in rounds(found)), [])


def judging(found: Mapping[str, Any]) -> str:
    """Say what judged the candidates and what its scores mean, or "" where no round was made."""
    names = judges_of(found)
    judge = TUNED_JUDGE if is_tuned(found, "forward") else BARE_JUDGE
    said = [JUDGES[name].format(judge=judge) for name in names if name in JUDGES]
    curate = ((found.get("run") or {}).get("options") or {}).get("curate") or {}
    if said and curate.get("calibration"):
        said.append(CALIBRATED)
    elif len(names) > 1:
        said.append(RANKED.format(several=", the mean over the signals"))
    elif names and names[0] in ("likelihood", "likeness", "backward"):
        said.append(RANKED.format(several=""))
    return " ".join(said)


def is_tuned(found: Mapping[str, Any], direction: str) -> bool:
    """Whether the models of a direction were tuned: one that was not had no step of training."""
    training = found.get("training") or {}
    return all(made.get("steps") != 0 for name, made in training.items() if name.partition("-")[0] == direction)


def systems(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what was measured for each of SYSTEMS, and nothing for those that were not."""
    evaluation = found.get("evaluation") or {}
    floors = evaluation.get("floors") or {}
    reports = {name: floors.get(name) if name in FLOORS else evaluation.get(name) for name in SYSTEMS}
    return {name: report for name, report in reports.items() if report}


def better_floor(found: Mapping[str, Any], score: str = "rougeL") -> tuple[str, Mapping[str, Any]] | None:
    """Return the name and figure of the floor that is harder to clear, or None where no floor was measured."""
    measured = systems(found)
    floors = [(name, measured[name][score]) for name in FLOORS if measured.get(name, {}).get(score)]
    return max(floors, key=lambda floor: float(floor[1]["value"]), default=None)


# --- tables


def funnel(found: Mapping[str, Any]) -> Table:
    """Return what every step read, wrote and rejected, with each reason."""
    rows = [
        (row["step"], count(row["read"]), count(row["written"]), count(row["rejected"]), _why(row))
        for row in found.get("funnel") or []
    ]
    return Table("Rows of every step", ("Step", "Read", "Written", "Rejected", "Reasons"), tuple(rows))


def _why(row: Mapping[str, Any]) -> str:
    """Return why rows were rejected, or of rewriting, which rejects none, why outputs stayed as they were."""
    notes = row.get("notes") or {}
    if "rewritten" not in notes:
        return reasons(row["reasons"])
    return f"{count(notes['rewritten'])} rewritten; left as they were: {reasons(notes['kept_original'])}"


def reasons(counted: Mapping[str, int]) -> str:
    """Return the reasons, the commonest first."""
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count(n)}" for name, n in ordered) or "none"


def comparison(found: Mapping[str, Any]) -> Table:
    """Return the backward model beside the bare base and the two floors."""
    measured = systems(found)
    rows = [
        (label, *(interval(report.get(score)) for report in measured.values())) for score, label in TEXT_SCORES.items()
    ]
    rows.append(("Log-loss of the true instruction", *_of_models(measured, _log_loss)))
    rows.append((_retrieval_label(measured), *_of_models(measured, lambda report: _retrieval(report))))
    if any(report.get("similarity") for report in measured.values()):
        rows.append(("Similarity in meaning", *(interval(report.get("similarity"), 3) for report in measured.values())))
    rows.append(("Length beside the true one", *(interval(report.get("length_ratio")) for report in measured.values())))
    rows.append((_copy_label(measured), *_of_models(measured, _copied)))
    rows.append(("Answers cut off", *_of_models(measured, lambda report: percent_interval(report.get("cut_off")))))
    n = (measured.get("backward") or {}).get("n")
    pairs = f"{count(n)} held-out pairs" if n else "Held-out pairs"
    return Table(f"{pairs}, with 95 % intervals", ("", *(SYSTEMS[name] for name in measured)), tuple(rows))


def _of_models(measured: Mapping[str, Mapping[str, Any]], cell: Any) -> Iterable[str]:
    return [NEEDS_A_MODEL if name in FLOORS else cell(report) for name, report in measured.items()]


def _log_loss(report: Mapping[str, Any]) -> str:
    return with_n(lambda score: interval(score, 3), report.get("nll_per_token"))


def _retrieval(report: Mapping[str, Any]) -> str:
    return with_n(percent_interval, report.get("retrieval"))


def _retrieval_label(measured: Mapping[str, Mapping[str, Any]]) -> str:
    sizes = [report["retrieval"]["of"] for report in measured.values() if report.get("retrieval")]
    return f"Own output found among {sizes[0]}" if sizes else "Own output found"


def _copied(report: Mapping[str, Any]) -> str:
    return percent_interval((report.get("copy_share") or {}).get("generated"))


def _copy_label(measured: Mapping[str, Mapping[str, Any]]) -> str:
    true = (measured.get("backward", {}).get("copy_share") or {}).get("true")
    return "Words copied from the output" + (f" (true instructions: {percent_interval(true)})" if true else "")


def score_notes(backward: Mapping[str, Any]) -> list[str]:
    """Say how the text scores of a backward model's report were computed; nothing where none was measured."""
    signed = ((TEXT_SCORES[name], (backward.get(name) or {}).get("signature")) for name in ("bleu", "chrf"))
    notes = [f"{label} as computed by sacrebleu: {signature}." for label, signature in signed if signature]
    return [*notes, ROUGE_WORDS] if backward.get("rougeL") else notes


def paired_tests(found: Mapping[str, Any]) -> Table:
    """Return the backward model's ROUGE-L minus that of each floor and of the bare base, row by row."""
    tests = (found.get("evaluation") or {}).get("tests") or {}
    rows = [
        (
            SYSTEMS.get(name, name),
            difference(test),
            p_value(test["p_value"]),
            count(test["n"]),
        )
        for name, test in tests.items()
    ]
    return Table("ROUGE-L over floors and base, paired by row", ("Against", "Difference", "p", "Pairs"), tuple(rows))


def forward_losses(found: Mapping[str, Any]) -> Table:
    """Return the forward models' held-out log-loss beside each other, and row by row against model 0."""
    evaluation = found.get("evaluation") or {}
    forward, tests = evaluation.get("forward") or {}, evaluation.get("forward_tests") or {}
    rows = [
        (
            f"Forward {name}",
            interval(forward[name].get("nll_per_token"), 4),
            difference(tests[f"{name}-0"], 4) if f"{name}-0" in tests else "–",
            count(forward[name].get("n")),
        )
        for name in sorted(forward, key=int)
    ]
    columns = ("Model", "Log-loss (lower is better)", "Minus forward 0, paired", "Pairs")
    return Table("Held-out outputs, nats per token", columns, tuple(rows))


def difference(test: Mapping[str, Any], digits: int = 2) -> str:
    """Return a paired difference with its 95 % interval."""
    low, value, high = (f"{test[key]:+.{digits}f}" for key in ("low", "difference", "high"))
    return f"{value} ({low} to {high})"


def round_counts(found: Mapping[str, Any]) -> Table:
    """Return what each round of curation judged and kept."""
    rows = [
        (
            f"Round {at}",
            " + ".join(made.get("judge") or []) or NOT_MEASURED,
            count(made.get("judged")),
            count(made.get("without_score")),
            count(made.get("kept")),
            number(made.get("floor")),
        )
        for at, made in rounds(found)
    ]
    columns = ("Round", "Judge", "Judged", "Without a score", "Kept", "Lowest score kept")
    return Table("Rounds of curation", columns, tuple(rows))


def label_agreement(found: Mapping[str, Any]) -> Table:
    """Return how each round agrees with the documents' labels good and bad; no rows where they carry none."""
    rows = [
        (
            f"Round {at}",
            with_n(percent_interval, labels.get("precision")),
            with_n(percent_interval, labels.get("recall")),
            interval(labels.get("auc")),
            f"{count(labels.get('good'))} of {count(labels.get('n'))}",
        )
        for at, made in rounds(found)
        if (labels := made.get("labels"))
    ]
    columns = ("Round", "Precision of keeping", "Recall of keeping", "AUC of the score", "Labelled good")
    return Table("Agreement with the documents' labels", columns, tuple(rows))


def signals(found: Mapping[str, Any]) -> Table:
    """Return every signal of every round, those that decided nothing too: how it sorts good from bad documents."""
    rows = [
        (
            f"Round {at}, {name}",
            "yes" if name in (made.get("judge") or []) else "no",
            count(one.get("n")),
            interval(one.get("auc")),
            percent_interval(one.get("mass_outside")) if one.get("mass_outside") else NEEDS_A_RUBRIC,
            reasons({name: n for name, n in (one.get("outcomes") or {}).items() if name != "scored"}),
        )
        for at, made in rounds(found)
        for name, one in (made.get("signals") or {}).items()
    ]
    columns = ("Signal", "Decided", "Judged", "AUC against labels", "Probability off the digits", "Without a score")
    return Table("Signals", columns, tuple(rows))


def attacks(found: Mapping[str, Any]) -> Table:
    """Return how far scores planted in the outputs moved each signal beside harmless text in the same place."""
    planted = (found.get("evaluation") or {}).get("attacks") or {}
    rows = [
        (
            name,
            count(one["n"]),
            count(one["unscored"]),
            difference(one["shift"], 3) if one["shift"] else NOT_MEASURED,
            count(one["moved_up"]),
            attack_kinds(one["kinds"]),
        )
        for name, one in planted.items()
    ]
    columns = ("Signal", "Attacks", "Unscored", "Mean shift", "Raised by half a point or more", "By kind")
    return Table("Scores planted in the documents", columns, tuple(rows))


def attack_kinds(kinds: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the mean shift of each kind of attack."""
    shifts = {name: one["shift"] for name, one in kinds.items() if one.get("shift")}
    return ", ".join(f"{name.replace('_', ' ')} {shift['difference']:+.3f}" for name, shift in shifts.items())


def diversity(found: Mapping[str, Any]) -> Table:
    """Return how varied the instructions are: of all candidates, of those kept, and of other choices of that size."""
    made = found.get("diversity") or {}
    sets, drawn = made.get("sets") or {}, made.get("sample")
    meant = ["embedding_spread"] if any("embedding_spread" in one for one in sets.values()) else []
    figures = ["distinct_1", "distinct_2", "spread", *meant]
    rows = [
        (name, count(one.get("n")), *(number(one.get(key), 3) for key in figures), percent(one.get("near_duplicates")))
        for name, one in sets.items()
    ]
    columns = (
        "Pairs",
        "Number",
        "Distinct words",
        "Distinct word pairs",
        "Spread",
        *("Spread in meaning" for _ in meant),
    )
    of = f", of {count(drawn['n'])} candidates drawn from {count(drawn['of'])}" if drawn else ""
    return Table(f"Variety of the instructions{of}", (*columns, "Near-duplicates"), tuple(rows))


def slices(found: Mapping[str, Any]) -> Table:
    """Return the backward model, and the last forward model, by length, genre and source of the held-out pairs."""
    evaluation = found.get("evaluation") or {}
    cut = (evaluation.get("backward") or {}).get("slices") or {}
    forward = evaluation.get("forward") or {}
    last = max(forward, key=int, default="0")
    beside = (forward.get(last) or {}).get("slices") or {}
    rows = [
        (
            f"{by}: {name}",
            count(one.get("n")),
            interval(one.get("rougeL")),
            interval(one.get("nll"), 3),
            percent_interval(one.get("retrieval")),
            interval(((beside.get(by) or {}).get(name) or {}).get("nll"), 3),
        )
        for by, parts in cut.items()
        for name, one in parts.items()
    ]
    columns = ("Slice", "Pairs", "ROUGE-L", "Log-loss", "Own output found", f"Log-loss, forward {last}")
    return Table("By kind of pair", columns, tuple(rows))


def duel(found: Mapping[str, Any]) -> Table:
    """Return how often the last forward model's answers are preferred to those of forward 0; no rows if not asked."""
    made = (found.get("evaluation") or {}).get("duel")
    if not made:
        return Table("Answers of the last forward model against forward 0", ("", ""), ())
    equal = made["length_controlled"]
    lost = made["unanswered"]["a"] + made["unanswered"]["b"] + made["unjudged"]
    rows = [
        ("Preferred, mean over both orders", with_n(percent_interval, made["win_rate"])),
        ("Preferred at equal lengths", with_n(percent_interval, equal) if equal else made["length_why"]),
        ("Won, tied, lost", f"{count(made['wins'])}, {count(made['ties'])}, {count(made['losses'])}"),
        ("Answer that stands first", percent_interval(made["position"])),
        ("Orders that contradict each other", count(made["contradicted"])),
        ("Probability off A and B", percent_interval(made["outside"])),
        ("Characters, last model", interval(made["chars"]["a"], 0)),
        ("Characters, forward 0", interval(made["chars"]["b"], 0)),
        ("Pairs without answer or verdict", count(lost)),
    ]
    return Table("Answers of the last forward model against forward 0", ("What", "Figure"), tuple(rows))


def lengths(found: Mapping[str, Any]) -> Table:
    """Return mean and spread of the data set's lengths."""
    dataset = found.get("dataset") or {}
    rows = [
        (name, f"{count(sizes.get('mean'))} ± {count(sizes.get('sd'))}")
        for name, key in (("Instruction", "instruction_chars"), ("Output", "output_chars"))
        if (sizes := dataset.get(key))
    ]
    return Table("Lengths in characters", ("", "Mean ± standard deviation"), tuple(rows))


def trainings(found: Mapping[str, Any]) -> Table:
    """Return the size of every training run and where its loss began and ended."""
    rows = [
        (name, *(count(made.get(key)) for key in ("examples", "steps", "tokens", "label_tokens")), _loss_change(made))
        for name, made in (found.get("training") or {}).items()
    ]
    columns = ("Model", "Examples", "Steps", "Tokens", "Label tokens", "Loss, first to last tenth")
    return Table("Training runs", columns, tuple(rows))


def _loss_change(made: Mapping[str, Any]) -> str:
    if made.get("steps") == 0:
        return "nothing was tuned"
    losses = [float(loss) for _, loss in made.get("losses") or []]
    if not losses:
        return NOT_MEASURED
    tenth = max(1, len(losses) // 10)
    return f"{sum(losses[:tenth]) / tenth:.2f} → {sum(losses[-tenth:]) / tenth:.2f}"


def recipe(training: Mapping[str, Any]) -> Table:
    """Return every number a training run was made with."""
    rows = [(key, plain(value)) for key, value in (training.get("recipe") or {}).items()]
    return Table("Hyperparameters", ("Setting", "Value"), tuple(rows))


def plain(value: Any) -> str:
    """Return a setting as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def costs(cost: Mapping[str, Any]) -> Table:
    """Return the seconds of every step."""
    rows = [(name, number(seconds, 1)) for name, seconds in (cost.get("seconds") or {}).items()]
    total = sum((cost.get("seconds") or {}).values())
    return Table("Time", ("Step", "Seconds"), (*rows, ("together", number(total, 1))) if rows else ())


def energy(cost: Mapping[str, Any]) -> str:
    """Say what the work took in energy and carbon, how that is known, and for which country's grid."""
    sessions = cost.get("sessions") or []
    if not sessions:
        return f"Energy and carbon: {NOT_MEASURED}."
    countries = ", ".join(sorted({str(session.get("country") or "unknown") for session in sessions}))
    ways = "; ".join(sorted({str(session.get("how") or "not said how") for session in sessions}))
    kwh, grams = float(cost.get("energy_kwh") or 0.0), 1000 * float(cost.get("co2_kg") or 0.0)
    made_in = "one session" if len(sessions) == 1 else f"{len(sessions)} sessions"
    return (
        f"{significant(kwh)} kWh and {significant(grams)} g CO2-equivalent in {made_in}, failed ones included, killed "
        f"ones not, with the grid of {countries} ({ways}). Estimates rest on the processor's rated power."
    )


def versions(found: Mapping[str, Any]) -> Table:
    """Return what the run was made with: packages, and the base with its hash."""
    run = {name: value for name, value in (found.get("run") or {}).items() if name != "options"}
    base = {"base" if name == "base" else f"base: {name}": value for name, value in (found.get("base") or {}).items()}
    return Table("Made with", ("What", "Which"), tuple((name, str(value)) for name, value in (run | base).items()))
