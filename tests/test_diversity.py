"""Diversity: what is measured agrees with its definition, and what is picked covers more than the best scores do."""

import json
import math
import re
from itertools import combinations, pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askback.plots import Sector, sunburst
from askback.records import Pair
from askback.stages import diversity
from askback.stages.diversity import (
    Method,
    build_vectors,
    count_near_duplicates,
    count_verb_objects,
    diversity_report,
    pick_diverse,
    pick_top,
    spread,
    vector_spread,
)

METHODS: list[Method] = ["facility", "farthest"]
CLUSTERS = 8
NOUNS = [[f"{noun}{cluster}" for noun in ("bread", "dough", "oven", "salt", "yeast")] for cluster in range(CLUSTERS)]


def planted(per_cluster: int = 30) -> tuple[list[str], list[float], list[int]]:
    """Texts of eight subjects; the better the earlier the subject, so that the best scores are all of one."""
    random = Random(5)
    rows = [
        (f"Write about the {' and the '.join(random.sample(NOUNS[cluster], 3))}", 5 - cluster / 4 - n / 1000, cluster)
        for cluster in range(CLUSTERS)
        for n in range(per_cluster)
    ]
    texts, scores, clusters = zip(*random.sample(rows, len(rows)), strict=True)
    return list(texts), list(scores), list(clusters)


def small_texts(seed: int, count: int = 30) -> tuple[list[str], list[float]]:
    random = Random(seed)
    texts = [
        " ".join(random.choices("how to bake bread with salt and an old oven today".split(), k=5)) for _ in range(count)
    ]
    return texts, [random.choice([1.0, 2.0, 4.5]) for _ in texts]


def covered(texts: list[str], scores: list[float], picked: list[int]) -> float:
    """The objective of `facility`, written down once more."""
    vectors, quality = build_vectors(texts), diversity._qualities(scores)
    table = [[vectors.similarities(row)[other] * quality[row] for row in picked] for other in range(len(texts))]
    return sum(max(values, default=0.0) for values in table)


# --- picking


@pytest.mark.parametrize("method", METHODS)
def test_a_diverse_choice_covers_every_planted_subject_where_the_best_scores_are_of_one(method: Method) -> None:
    texts, scores, clusters = planted()
    assert {clusters[row] for row in pick_top(scores, 16)} == {0}
    assert {clusters[row] for row in pick_diverse(texts, scores, 16, method=method)} == {*range(CLUSTERS)}


@pytest.mark.parametrize("method", METHODS)
def test_of_like_texts_the_better_is_taken_and_of_equal_ones_the_earlier(method: Method) -> None:
    texts = ["how to bake bread"] * 3 + ["paint a fence green"] * 3
    assert {*pick_diverse(texts, [1, 3, 3, 2, 2, 1], 2, method=method)} == {1, 3}
    assert pick_diverse(["same words"] * 4, [1, 2, 2, 1], 3, method=method) == [1, 2, 0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(4))
def test_a_larger_choice_goes_on_where_a_smaller_one_ended(method: Method, seed: int) -> None:
    texts, scores = small_texts(seed)
    picks = [pick_diverse(texts, scores, count, method=method) for count in range(len(texts))]
    assert all(longer[: len(picked)] == picked for picked, longer in pairwise(picks))
    assert all(len({*picked}) == count for count, picked in enumerate(picks))


@pytest.mark.parametrize("seed", range(4))
def test_sparing_work_picks_what_measuring_everything_anew_would_pick(seed: int) -> None:
    texts, scores = small_texts(seed)
    picked: list[int] = []
    while len(picked) < 6:
        left = [row for row in range(len(texts)) if row not in picked]
        gains = {row: round(covered(texts, scores, [*picked, row]) - covered(texts, scores, picked), 6) for row in left}
        picked.append(max(left, key=lambda row: (gains[row], scores[row], -row)))
    assert pick_diverse(texts, scores, 6) == picked


def test_of_very_many_texts_samples_come_close_to_the_best_and_are_the_same_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts, scores, _ = planted(per_cluster=60)
    exact = covered(texts, scores, pick_diverse(texts, scores, 24))
    monkeypatch.setattr(diversity, "MOST_EXACT", 10)
    sampled = pick_diverse(texts, scores, 24)
    assert sampled == pick_diverse(texts, scores, 24)
    assert len({*sampled}) == 24
    assert covered(texts, scores, sampled) >= 0.9 * exact


@pytest.mark.parametrize("method", METHODS)
def test_odd_counts_and_texts_have_an_answer(method: Method) -> None:
    assert pick_diverse([], [], 3, method=method) == []
    assert pick_diverse(["a", "b"], [1, 2], 0, method=method) == []
    assert pick_diverse(["a", "b"], [1, 2], 5, method=method) == [1, 0]
    assert sorted(pick_diverse(["", "?!", "words", ""], [1, 1, 1, 1], 3, method=method)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("scores", "count", "message"),
    [([1.0], 1, "a score for each"), ([1.0, math.nan], 1, "finite"), ([1.0, 2.0], -1, "0 or more")],
)
def test_what_cannot_be_picked_from_is_refused(scores: list[float], count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pick_diverse(["a", "b"], scores, count)


# --- measuring


def test_the_spread_is_the_mean_distance_of_all_pairs() -> None:
    texts, _ = small_texts(1)
    vectors = build_vectors(texts)
    distances = [1 - vectors.similarities(one)[other] for one, other in combinations(range(len(texts)), 2)]
    assert spread(texts) == pytest.approx(sum(distances) / len(distances))


def test_the_spread_goes_from_alike_to_unlike() -> None:
    assert spread(["bake bread"] * 5) == pytest.approx(0, abs=1e-9)
    assert spread(["bake bread", "paint fences", "sing songs"]) == pytest.approx(1)
    assert spread(["bake bread"]) is None
    assert spread([]) is None


def test_a_text_is_nearest_to_itself_and_common_words_count_little() -> None:
    vectors = build_vectors(["how to bake the bread", "how to fix the fence", "bake some bread", "how to the and"])
    near = vectors.similarities(0)
    assert near[0] == pytest.approx(1)
    assert near[2] > near[1]


def test_the_spread_of_vectors_does_not_depend_on_their_length() -> None:
    assert vector_spread([[1, 0], [0, 9]]) == pytest.approx(1)
    assert vector_spread([[2, 2], [5, 5]]) == pytest.approx(0, abs=1e-9)
    assert vector_spread([[1, 0], [-3, 0]]) == pytest.approx(2)
    assert vector_spread([[1, 0]]) is None


@settings(max_examples=60)
@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=14).map(" ".join), max_size=12))
def test_near_duplicates_are_those_that_comparing_every_two_finds(texts: list[str]) -> None:
    def grams(text: str) -> set[tuple[str, str]]:
        found = ["", *text.split()]
        return {*pairwise(found)}

    kept: list[set[tuple[str, str]]] = []
    for mine in map(grams, texts):
        if not any(mine and len(mine & other) >= diversity.NEAR * len(mine | other) for other in kept):
            kept.append(mine)
    assert count_near_duplicates(texts) == len(texts) - len(kept)


def test_verbs_are_counted_with_their_objects_the_most_common_first() -> None:
    asked = ["Write a letter."] * 3 + ["Write a poem.", "Bake a cake.", "Bake a cake.", "Hm"]
    found = count_verb_objects(asked)
    assert (found["n"], found["found"], found["different"]) == (7, 6, 3)
    assert found["verbs"] == [
        {"verb": "write", "count": 4, "objects": [["letter", 3], ["poem", 1]]},
        {"verb": "bake", "count": 2, "objects": [["cake", 2]]},
    ]


def pairs_of(texts: list[str]) -> list[Pair]:
    return [Pair(id=str(n), instruction=text, output="o") for n, text in enumerate(texts)]


def test_the_report_shows_the_diverse_choice_more_diverse_and_of_lower_score_than_the_best_one() -> None:
    texts, scores, _ = planted()
    report = json.loads(json.dumps(diversity_report(pairs_of(texts), scores, chosen=range(16))))
    top, diverse = report["top"], report["diverse"]
    assert report["all"]["n"] == len(texts)
    assert top["n"] == diverse["n"] == report["count"] == 16
    for figure in ("distinct_1", "distinct_2", "spread"):
        assert diverse[figure] > top[figure]
    assert diverse["mean_score"] < top["mean_score"]
    assert 0 <= report["shared"] < 1


def test_whatever_was_chosen_is_measured_with_the_same_vectors_as_the_best_and_the_diverse() -> None:
    texts, scores, _ = planted()
    best = pick_top(scores, 16)
    report = diversity_report(pairs_of(texts), scores, chosen=best)
    assert report["chosen"] == report["top"]
    assert diversity_report(pairs_of(texts), scores, chosen=range(16))["chosen"]["spread"] > report["top"]["spread"]


@pytest.mark.parametrize("count", [0, 3])
def test_where_there_is_nothing_to_choose_the_report_says_so(count: int) -> None:
    report = diversity_report(pairs_of(["a b", "c d", "e f"]), [1, 2, 3], chosen=range(count))
    assert "want a selection of 1 to 2 of 3" in report["why"]
    assert {"top", "diverse"} & report.keys() == set()


def test_the_report_takes_the_vectors_of_an_encoder_one_for_each_pair() -> None:
    pairs, vectors = pairs_of(["a", "b", "c"]), [[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]]
    report = diversity_report(pairs, [3, 2, 1], chosen=[1, 2], embeddings=vectors)
    assert report["all"]["embedding_spread"] == pytest.approx(2 / 3)
    assert report["top"]["embedding_spread"] == pytest.approx(1)
    assert report["chosen"]["embedding_spread"] == pytest.approx(0)
    with pytest.raises(ValueError, match="one vector for each of 3 pairs, got 2"):
        diversity_report(pairs, [3, 2, 1], chosen=[0, 1], embeddings=vectors[:2])


def test_a_report_of_nothing_has_no_figures() -> None:
    described = diversity_report([], [], chosen=[])["all"]
    assert described["n"] == 0
    assert described["spread"] is described["mean_score"] is described["near_duplicates"] is None


# --- the picture


def shown(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_a_sunburst_names_its_sectors_and_their_parts() -> None:
    svg = sunburst([Sector("write", 6, [("letter", 4)]), Sector("bake", 4, [("cake", 4)])], alt="verbs", centre="10")
    assert {*shown(svg)} == {"write", "letter", "bake", "cake", "10"}
    assert 'aria-label="verbs"' in svg


def test_what_is_too_narrow_for_a_label_is_joined_and_counted() -> None:
    sectors = [Sector("write", 900), *(Sector(f"verb{n}", 10) for n in range(10))]
    assert {*shown(sunburst(sectors, alt="verbs"))} == {"write", "10 more"}


def test_a_sunburst_of_words_is_no_part_of_the_page_and_has_the_pages_colours() -> None:
    svg = sunburst([Sector("<b>&", 3, [("</svg>", 2)])], alt="verbs")
    assert "<b>" not in svg
    assert svg.count("</svg>") == 1
    assert "var(--series-1" in svg
    assert not re.search(r"#0000\d\d", svg)
    assert svg == sunburst([Sector("<b>&", 3, [("</svg>", 2)])], alt="verbs")


def test_a_sunburst_of_nothing_is_still_a_picture() -> None:
    assert shown(sunburst([], alt="verbs", centre="none")) == ["none"]
    assert shown(sunburst([Sector("write", 0, [("letter", 0)])], alt="verbs")) == []
