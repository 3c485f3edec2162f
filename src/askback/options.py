"""Every option of a run file, explained where it stands: the tables and their defaults.

Takes: values.  Gives: frozen, closed tables; a value out of bounds is an error of pydantic.
Never: reads a file (config.py does), or holds a default that another table repeats.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Table(BaseModel):
    """A table of the run file: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), strict=False)


class SeedOptions(Table):
    """Where the seed pairs come from and how many are held out."""

    path: str = Field("", description="file, folder or hub data-set id of seed pairs")
    format: str = Field("auto", description="auto, or one of the formats `askback doctor` lists")
    turns: Literal["first", "all"] = Field("first", description="of a multi-turn row: first turn only, or each turn")
    language: str = Field("en", description="language kept where rows say theirs; empty keeps all")
    licence: str = Field("", description="licence of pairs that do not name their own")
    limit: int = Field(0, ge=0, description="use at most this many pairs, chosen by content hash; 0 is all")
    held_out: float = Field(0.1, gt=0, lt=1, description="share of the pairs kept for evaluation, by content hash")
    held_out_most: int = Field(
        200, ge=10, description="at most so many held-out pairs are evaluated; none is trained on"
    )


class CorpusOptions(Table):
    """Which documents are read."""

    path: str = Field("", description="file, folder or glob of documents")
    text_column: str = Field("text", description="the column of JSONL, Parquet and CSV rows that holds the text")
    licence: str = Field("", description="licence of documents that do not name their own")
    max_file_mb: float = Field(50, gt=0, description="larger single documents are rejected by name")


class PassageOptions(Table):
    """How documents are cut, and which pieces are fit to be an answer (Li et al. 2023, section 2.1)."""

    min_chars: int = Field(600, ge=1)
    max_chars: int = Field(3000, ge=1)
    whole_without_headings: bool = Field(True, description="a text without headings is cut at its paragraphs instead")
    max_repetition: float = Field(0.6, gt=0, le=1, description="largest Jaccard overlap of two sentences' 3-grams")
    min_prose: float = Field(0.4, ge=0, le=1, description="least share of letters and spaces among the characters")


class TuneOptions(Table):
    """What both directions of training share. A rate or length of 0 is chosen by the preset."""

    preset: Literal["card", "tiny", "paper", "qlora"] = Field("card", description="where the defaults come from")
    rank: int = Field(8, ge=1, description="LoRA r")
    alpha: int = Field(32, ge=1, description="LoRA alpha")
    dropout: float = Field(0.05, ge=0, lt=1, description="LoRA dropout")
    targets: tuple[str, ...] = Field(("q_proj", "k_proj", "v_proj", "o_proj"), description="modules that get LoRA")
    learning_rate: float = Field(0, ge=0, description="highest rate; 0 takes the preset's")
    learning_rate_floor: float = Field(0, ge=0, description="absolute rate the linear decay ends at")
    epochs: float = Field(0, ge=0, description="passes over the rows; 0 takes the preset's")
    steps: int = Field(0, ge=0, description="most steps, whatever the epochs say; 0 takes the preset's bound, if any")
    batch: int = Field(0, ge=0, description="rows in a step; 0 takes the preset's")
    max_tokens: int = Field(0, ge=0, description="longest row in tokens; 0 takes the preset's, at most the model's")
    warmup: float = Field(0.03, ge=0, lt=1, description="share of the steps over which the rate rises")
    weight_decay: float = Field(0.0, ge=0)
    checkpoint_every_s: float = Field(600, gt=0, description="seconds between checkpoints a killed run goes on from")


class BackwardOptions(TuneOptions):
    """The backward model: output in, instruction out."""

    layout: Literal["asked", "plain"] = Field("asked", description="a sentence around the output, or the bare output")


class ForwardOptions(TuneOptions):
    """The forward models 0, 1, 2: instruction in, output out."""


class AugmentOptions(Table):
    """How candidates are asked for (Li et al. 2023: nucleus sampling, T 0.7, p 0.9)."""

    n: int = Field(1, ge=1, description="candidates per passage")
    temperature: float = Field(0.7, ge=0)
    top_p: float = Field(0.9, gt=0, le=1)
    max_new_tokens: int = Field(128, ge=1)
    min_chars: int = Field(8, ge=1, description="shorter instructions are rejected as empty")


class CurateOptions(Table):
    """Who judges, and what is kept."""

    judge: Literal["expected", "reasoned", "likelihood"] = Field(
        "expected", description="expected score from the digits' probabilities, generated reasoning, or likelihood gain"
    )
    rounds: int = Field(2, ge=1, le=9, description="every round judges the same candidates")
    keep_from: float = Field(4.5, ge=1, le=5, description="lowest score kept")
    keep_top: float = Field(
        0, ge=0, le=1, description="share of the best kept instead of a threshold; 0 uses keep_from"
    )
    min_kept: int = Field(16, ge=1, description="fewer kept rows than this stop the run: too few to tune on")
    rubric: str = Field("", description="file with a rubric of your own: {instruction} and {output} are filled in")
    max_unparsed: float = Field(0.05, ge=0, le=1, description="larger share of unreadable replies stops the run")
    max_new_tokens: int = Field(256, ge=1, description="room for the reasoning of judge = reasoned")


class EvaluateOptions(Table):
    """What is measured on the held-out pairs."""

    retrieval_of: int = Field(10, ge=2, description="the true output is ranked among this many")
    retrieval_rows: int = Field(100, ge=10, description="held-out pairs whose outputs are ranked")
    bootstrap: int = Field(2000, ge=100, description="resamples behind every interval")
    max_new_tokens: int = Field(128, ge=1)


class EngineOptions(Table):
    """Which base does the work, and with what."""

    kind: Literal["local", "echo"] = Field("local", description="transformers on this machine, or the test double")
    base: str = Field("meta-llama/Llama-2-7b-hf", description="hub name or folder of the base; `tiny` is embedded")
    revision: str = Field("", description="commit of a hub base; empty takes the newest and records it")
    device: str = Field("auto", description="auto, cpu, or another device by the name torch has for it")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="auto: bf16 where native")
    threads: int = Field(0, ge=0, description="CPU threads; 0 takes the CPUs at hand")
    batch_tokens: int = Field(8192, ge=64, description="padded tokens in one forward pass")
    country: str = Field("USA", min_length=3, max_length=3, description="ISO code whose grid the carbon figure takes")
    shard_rows: int = Field(256, ge=1, description="rows in a shard: the unit of work and of resume")


class Options(Table):
    """A whole run file."""

    random_seed: int = Field(0, ge=0, description="all chance in the run comes from here")
    seed: SeedOptions = SeedOptions()
    corpus: CorpusOptions = CorpusOptions()
    passages: PassageOptions = PassageOptions()
    backward: BackwardOptions = BackwardOptions()
    augment: AugmentOptions = AugmentOptions()
    curate: CurateOptions = CurateOptions()
    forward: ForwardOptions = ForwardOptions()
    evaluate: EvaluateOptions = EvaluateOptions()
    engine: EngineOptions = EngineOptions()
