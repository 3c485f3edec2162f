"""Laws of the report: one page, nothing from outside, every text a text, no gap filled."""

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

import made_up_run as made_up
from askback import plots, tables
from askback.stages.report import EXAMPLES, examples, flow, key_figures, render_report, run_file

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Collects what the laws below speak of, and every tag that is opened and not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.unnamed_pictures = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href", "action")]
        self.ids += [named["id"] or ""] if "id" in named else []
        self.unnamed_pictures += tag == "svg" and not (named.get("role") == "img" and named.get("aria-label"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"


@pytest.fixture(scope="module")
def html() -> str:
    rows = [made_up.row(n) for n in range(19)]
    return render_report(made_up.found(), made_up.cost(), [*rows, made_up.row(19, instruction=made_up.HOSTILE)])


def test_the_page_asks_for_nothing_from_outside(html: str) -> None:
    page = Page(html)
    assert all(address.startswith("#") for address in page.addresses)
    assert not {"script", "link", "iframe", "img", "object"} & set(page.tags)
    assert "http" not in re.sub(r"<(?:p|pre|td|dd)\b.*?</(?:p|pre|td|dd)>", "", html, flags=re.DOTALL)
    assert "url(" not in html.replace("url(#", "")


def test_the_page_is_well_formed_and_its_ids_are_its_own(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses} <= set(page.ids)


def test_every_picture_has_a_name_and_every_heading_cell_a_scope(html: str) -> None:
    assert html.count("<svg") == 8
    assert Page(html).unnamed_pictures == 0
    assert len(re.findall(r"<th\b", html)) == len(re.findall(r'<th scope="(?:col|row)"', html)) > 50


def test_headings_go_down_one_level_at_a_time(html: str) -> None:
    levels = [int(tag[1]) for tag in Page(html).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))


def test_a_text_is_shown_as_text_wherever_it_comes_from() -> None:
    hostile = made_up.HOSTILE
    found = made_up.found()
    found["base"]["base"] = found["base"]["licence"] = hostile
    found["run"]["options"]["seed"]["path"] = hostile
    found["funnel"][0]["reasons"] = {hostile: 1}
    found["evaluation"]["backward"]["rows"] = [
        {"id": "a", "instruction": hostile, "generated": hostile, "output": hostile, "rougeL": 1.0}
    ]
    found["evaluation"]["story"] = [dict.fromkeys(("heading", "source", "text", "base", "trained", "verdict"), hostile)]
    found["training"] = {hostile: found["training"]["backward"]}
    row = made_up.row() | dict.fromkeys(("instruction", "output", "heading", "source", "licence"), hostile)
    text = render_report(found, made_up.cost(), [row])
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 15
    assert "{{ 7 * 7 }}" in text  # shown, not worked out
    assert Page(text).open == []


def test_the_same_numbers_give_the_same_bytes(html: str) -> None:
    rows = [made_up.row(n) for n in range(19)]
    again = render_report(made_up.found(), made_up.cost(), [*rows, made_up.row(19, instruction=made_up.HOSTILE)])
    assert again == html


def test_a_run_without_measures_is_shown_as_not_measured() -> None:
    text = render_report({}, {}, [])
    assert text.count("not measured") > 15
    assert "<svg" not in text
    assert Page(text).open == []


@pytest.mark.parametrize("part", ["base", "floors", "tests", "forward", "story", "backward"])
def test_a_missing_part_of_the_evaluation_is_no_error_and_no_number(part: str) -> None:
    found = made_up.found()
    found["evaluation"][part] = None
    assert Page(render_report(found, made_up.cost(), [])).open == []


def test_the_story_says_what_became_of_each_passage(html: str) -> None:
    assert "Kept, score 4.20 of 5" in html
    assert "Thrown away: below the lowest score kept, score 1.40 of 5" in html
    assert "another instruction for this passage scored higher" in html


def test_rouge_stands_beside_the_better_floor() -> None:
    figures = {label: (figure, beside) for label, figure, beside in key_figures(made_up.found())}
    assert figures["ROUGE-L"] == ("17.00", "better floor: 13.00 (first sentence)")
    assert figures["Own output found"] == ("45 %", "among 10 outputs; chance: 10 %")
    assert figures["Kept"] == ("80", "50 % of the candidates")


def test_the_longest_bar_is_the_largest_count() -> None:
    bars = {part["label"]: part["width"] for part in flow(made_up.found())}
    assert bars == {
        "Documents": "75.3%",
        "Passages": "100.0%",
        "Candidates": "94.1%",
        "Kept in round 1": "47.1%",
        "Kept in round 2": "47.1%",
    }


def test_ranks_of_the_likelihood_are_called_ranks_and_their_gains_shown(html: str) -> None:
    assert "reads no rubric" in html
    assert "likelihood gain, nats per token" in html
    found = made_up.found()
    for made in found["rounds"].values():
        made["judge"] = ["expected"]
        made["signals"] = {"expected": made["signals"]["likelihood"]}
    other = render_report(found, made_up.cost(), [])
    assert "reads no rubric" not in other
    assert "likelihood gain, nats per token" not in other


def test_scores_say_how_they_were_computed(html: str) -> None:
    notes = tables.score_notes(made_up.found()["evaluation"]["backward"])
    assert [note.split()[0] for note in notes] == ["BLEU", "chrF2", "ROUGE"]
    assert [note for note in notes if note not in html] == []
    assert tables.score_notes({}) == []


def test_figures_stand_with_their_intervals(html: str) -> None:
    found = made_up.found()
    shown = {row[0]: row[1:] for row in tables.comparison(found).rows}
    assert shown["Length beside the true one"][0] == "0.90 (0.80–1.00)"
    assert shown["Answers cut off"][0] == "5 % (1–9)"
    assert tables.label_agreement(found).rows[0][1:4] == (
        "88 % (83–93), n\u00a040",
        "65 % (60–70), n\u00a040",
        "0.71 (0.63–0.79)",
    )
    assert tables.attacks(found).rows[0][1:5] == ("40", "3", "+0.010 (-0.020 to +0.040)", "2")
    assert "Words copied from the output (true instructions: 61 % (58–64))" in html


def test_the_duel_of_forward_models_is_shown_where_they_answered(html: str) -> None:
    found = made_up.found()
    rows = dict(tables.duel(found).rows)
    assert rows["Preferred, mean over both orders"] == "55 % (45–65), n\u00a040"
    assert rows["Won, tied, lost"] == "23, 2, 15"
    assert rows["Pairs without answer or verdict"] == "4"
    assert "It judges its own answers" in html
    found["evaluation"]["duel"] |= {"length_controlled": None, "length_why": "a is always longer"}
    assert dict(tables.duel(found).rows)["Preferred at equal lengths"] == "a is always longer"
    found["evaluation"]["duel"] = None
    assert "It judges its own answers" not in render_report(found, made_up.cost(), [])


def test_slices_show_the_backward_and_the_last_forward_model() -> None:
    found = made_up.found()
    found["evaluation"]["forward"]["2"]["slices"] = {"genre": {"how-to": {"n": 12, "nll": made_up.score(2.5, 0.1)}}}
    table = tables.slices(found)
    assert table.columns[-1] == "Log-loss, forward 2"
    assert table.rows[0] == (
        *("genre: how-to", "12", "13.00 (11.00–15.00)", "3.100 (2.900–3.300)", "40 % (30–50)", "2.500 (2.400–2.600)"),
    )
    assert table.rows[1][-1] == tables.NOT_MEASURED


def test_variety_says_of_how_many_candidates_it_speaks() -> None:
    found = made_up.found()
    assert tables.diversity(found).caption == "Variety of the instructions"
    found["diversity"]["sample"] = {"n": 5000, "of": 61234, "seed": 3}
    assert tables.diversity(found).caption == "Variety of the instructions, of 5,000 candidates drawn from 61,234"


def test_a_step_that_rewrote_says_how_many_outputs_it_left_as_they_were() -> None:
    notes = {"rewritten": 12, "kept_original": {"new_name": 60, "unchanged": 8}}
    made = tables.funnel({"funnel": [made_up.step("12-rewritten-2", 80, 80, notes)]})
    assert made.rows[0][-1] == "12 rewritten; left as they were: new_name 60, unchanged 8"


def test_no_minus_stands_before_a_zero() -> None:
    assert [tables.number(value) for value in (-0.001, 0.0, -0.006)] == ["0.00", "0.00", "-0.01"]


def test_labels_are_shown_only_where_documents_carry_some(html: str) -> None:
    found = made_up.found()
    for made in found["rounds"].values():
        made["labels"] = None
    assert "The documents carry labels" in html
    assert "carry labels" not in render_report(found, made_up.cost(), [])


def test_held_out_examples_span_the_best_and_the_worst() -> None:
    shown = [row["rougeL"] for row in examples(made_up.found())]
    assert len(shown) == EXAMPLES
    assert shown == sorted(shown, reverse=True)
    assert (shown[0], shown[-1]) == (50.0, 26.0)


def test_the_run_file_reads_back_as_the_options() -> None:
    import tomllib

    assert tomllib.loads(run_file(made_up.OPTIONS)) == made_up.OPTIONS


def test_energy_that_was_not_measured_is_not_zero() -> None:
    assert "not measured" in tables.energy({"energy_kwh": 0, "co2_kg": 0, "sessions": []})
    said = tables.energy(made_up.cost())
    assert "USA" in said
    assert "in one session, failed ones included, killed ones not" in said


def test_a_very_small_figure_is_not_rounded_to_nothing() -> None:
    assert [tables.significant(value) for value in (0.0, 1.8846e-05, 0.5, 1234.0)] == ["0", "0.0000188", "0.5", "1230"]


def test_a_figure_is_drawn_in_the_colours_of_the_page() -> None:
    svg = plots.curves({"a": [(1, 2.0), (2, 1.0)]}, alt="a < b", x_label="step", y_label="nats")
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", svg)) == set()
    assert "currentColor" in svg
    assert 'aria-label="a &lt; b"' in svg


def test_a_long_curve_keeps_its_ends_and_stays_light() -> None:
    points = [(float(n), 1.0) for n in range(10_000)]
    thin = plots.thinned(points)
    assert (thin[0], thin[-1], len(thin)) == (points[0], points[-1], plots.POINTS)
    assert len(plots.curves({"a": points}, alt="a", x_label="x", y_label="y")) < 20_000


def test_a_running_mean_looks_back_only() -> None:
    points = [(n, float(n % 2)) for n in range(80)]  # a window of two steps
    assert plots.running_mean(points)[:3] == [(0.0, 0.0), (1.0, 0.5), (2.0, 0.5)]
