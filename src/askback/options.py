"""Every option of a run file, explained where it stands: the tables and their defaults.

Takes: values.  Gives: frozen, closed tables; a value out of bounds is an error of pydantic.
Never: reads a file (config.py does), or holds a default that another table repeats.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


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

    path: str = Field("", description="file, folder, glob, archive or hub data-set id of documents")
    text_column: str = Field("text", description="the column of JSONL, Parquet and CSV rows that holds the text")
    split: str = Field("train", description="split of a hub data set")
    limit: int = Field(0, ge=0, description="read at most this many documents, the first ones; 0 is all")
    licence: str = Field("", description="licence of documents that do not name their own")
    allow_licence: tuple[str, ...] = Field(
        (), description="licences that may be used, with * for any rest (`CC-BY*`); empty allows all"
    )
    max_file_mb: float = Field(50, gt=0, description="larger single documents are rejected by name")


PASSAGE_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "prose": {
        "max_repeated_lines": 0.2,
        "max_repeated_ngrams": 0.2,
        "max_links": 0.3,
        "max_symbols": 0.08,
        "max_capitals": 0.2,
        "min_prose": 0.6,
        "min_stop_words": 2,
    },
    "procedural": {
        "min_chars": 300,
        "max_repetition": 0.8,
        "max_repeated_ngrams": 0.3,
        "min_stop_words": 1,
        "min_steps": 3,
    },
}
"""`paper`: Li et al. 2023, section 2.1. `prose`: bounds in the manner of Gopher (Rae et al. 2021, appendix A).
`procedural`: texts that say how something is done, step by step."""


class PassageOptions(Table):
    """How documents are cut, and which pieces are fit to be an answer (Li et al. 2023, section 2.1).

    A bound of 0 (or 1 for a share) turns its rule off.
    """

    preset: Literal["paper", "prose", "procedural"] = Field("paper", description="bounds where nothing else is said")
    min_chars: int = Field(600, ge=0)
    max_chars: int = Field(3000, ge=1)
    min_tokens: int = Field(0, ge=0, description="the same window in tokens of the base, beside that in characters")
    max_tokens: int = Field(0, ge=0, description="0 sets no bound in tokens")
    most_of_document: int = Field(0, ge=0, description="at most so many passages of one document; 0 is all")
    whole_without_headings: bool = Field(True, description="a text without headings is cut at its paragraphs instead")
    max_repetition: float = Field(0.6, gt=0, le=1, description="largest Jaccard overlap of two sentences' 3-grams")
    max_repeated_lines: float = Field(0.3, ge=0, le=1, description="largest share of lines that stand there before")
    max_repeated_ngrams: float = Field(1, ge=0, le=1, description="largest share of words in 5-grams said before")
    max_links: float = Field(0.5, ge=0, le=1, description="largest share of the characters that are links")
    max_symbols: float = Field(
        1, ge=0, le=1, description="largest share of characters that are no letter, digit or space"
    )
    max_capitals: float = Field(1, ge=0, le=1, description="largest share of words in capitals")
    min_prose: float = Field(0.2, ge=0, le=1, description="least share of letters and spaces among the characters")
    min_stop_words: int = Field(0, ge=0, description="least number of different common words of its language")
    min_steps: int = Field(0, ge=0, description="least number of list items or numbered steps")
    languages: tuple[str, ...] = Field((), description="ISO codes that are kept, such as `en`; empty keeps all")
    block_words: str = Field("", description="file with a word or phrase a line: a passage with one is dropped")
    personal: Literal["keep", "mask", "drop"] = Field(
        "keep", description="e-mail addresses, phone, card and IP numbers: left, masked, or the passage dropped"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        preset = given.get("preset", "paper")
        return {**PASSAGE_PRESETS[preset], **given} if preset in PASSAGE_PRESETS else given

    @model_validator(mode="after")
    def _check_windows(self) -> "PassageOptions":
        for unit, low, high in (
            ("chars", self.min_chars, self.max_chars),
            ("tokens", self.min_tokens, self.max_tokens),
        ):
            if high and low > high:
                raise ValueError(f"min_{unit} = {low} is above max_{unit} = {high}: no passage would fit")
        return self


class DistinctOptions(Table):
    """What a passage must not be: a copy, near or exact, or a text that somebody evaluates on."""

    near: float = Field(
        0.8, ge=0, le=1, description="Jaccard overlap of word 5-grams from which two are one; 0: exact only"
    )
    permutations: int = Field(128, ge=16, le=1024, description="length of a MinHash signature")
    known: tuple[str, ...] = Field((), description="folders of earlier runs: what is near to their passages is dropped")
    against: tuple[str, ...] = Field((), description="files of evaluation sets a passage must share no n-gram with")
    ngram: int = Field(13, ge=3, description="words in a row that count as shared (Brown et al. 2020, appendix C)")


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
    no_repeat: int = Field(0, ge=0, description="no run of so many tokens twice in one answer; 0 allows it")
    min_chars: int = Field(8, ge=1, description="shorter instructions are rejected as empty")
    prompted: bool = Field(
        False, description="ask by prompt, with a few seed pairs as examples, instead of tuning a backward model"
    )
    examples: int = Field(4, ge=0, description="most seed pairs shown in that prompt")


class GateOptions(Table):
    """What a candidate must pass before any judge reads it. Each rule has its count; false or 0 turns it off."""

    echo: bool = Field(True, description="reject an instruction that repeats the words around the passage")
    copy_words: int = Field(8, ge=0, description="reject one of so many words that stands in its output word for word")
    dangling: bool = Field(True, description="reject one that points at a text nobody sees: `the text above`")
    first_line: float = Field(0.9, ge=0, le=1, description="reject one that is this near to its output's first line")
    refusal: bool = Field(True, description="reject one that refuses, apologizes or speaks as a model")
    language: bool = Field(True, description="reject one that is plainly in another language than its output")
    min_words: int = Field(2, ge=0, description="reject shorter ones")
    max_chars: int = Field(1000, ge=0, description="reject longer ones")
    near_duplicate: float = Field(
        0.9, ge=0, le=1, description="reject one whose word pairs overlap so much (Jaccard) with an earlier passage's"
    )


def _names(value: Any) -> Any:
    """Take `likelihood` for a list of one; `cycle` is both directions of likelihood."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        return names
    return tuple(name for given in names for name in (("likelihood", "backward") if given == "cycle" else (given,)))


SignalName = Literal["expected", "reasoned", "likelihood", "likeness", "backward"]
Signals = Annotated[tuple[SignalName, ...], BeforeValidator(_names)]


class CurateOptions(Table):
    """Who judges, and what is kept.

    A signal is one number a model gives a candidate: `expected` score from the digits' probabilities, `reasoned` score
    of generated replies, `likelihood` gain of the output in nats per token under the forward model, `likeness`
    of the output to what that model was tuned on (its log-likelihood less that of the bare base, per token), `backward`
    log-likelihood of the instruction per token under the backward model; `cycle` is the last two.
    """

    judge: Signals = Field(("expected",), min_length=1, description="one signal, or several that make the score")
    beside: Signals = Field((), description="signals that are measured and shown, and decide nothing")
    rerank: Signals = Field((), description="signals that pick among a passage's candidates; none: the score does")
    least: dict[SignalName, float] = Field({}, description="signals with a lowest value: what is below is dropped")
    rubric: str = Field("five", description="`five`-point, `additive`, or a file: {instruction} and {output} filled in")
    samples: int = Field(1, ge=1, le=64, description="replies averaged by judge = reasoned")
    instruction_gate: float = Field(
        0, ge=0, le=5, description="lowest expected score of the instruction alone; what is below is judged no further"
    )
    calibration: str = Field("", description="file of `askback calibrate`: how signals become the score")
    rounds: int = Field(2, ge=1, le=9, description="most rounds; every round judges the same candidates")
    stop_overlap: float = Field(
        0, ge=0, le=1, description="stop when this share of what two rounds kept is the same (Jaccard); 0 never stops"
    )
    stop_gain: float = Field(
        0, ge=0, description="stop when a round changes the held-out loss by less, in nats per token; 0 never stops"
    )
    join: tuple[str, ...] = Field((), description="folders of earlier runs whose candidates are judged as well")
    keep_from: float = Field(4.5, ge=0, le=5, description="lowest score kept")
    keep_top: float = Field(
        0, ge=0, le=1, description="share of the best kept instead of a threshold; 0 uses keep_from"
    )
    select: Literal["top", "diverse"] = Field(
        "top", description="of the pairs good enough: all, or (with keep_most) those that cover the most ground"
    )
    keep_most: int = Field(0, ge=0, description="at most so many pairs; 0 is no bound")
    min_kept: int = Field(16, ge=1, description="fewer kept rows than this stop the run: too few to tune on")
    max_unparsed: float = Field(0.05, ge=0, le=1, description="larger share of unreadable replies stops the run")
    max_new_tokens: int = Field(256, ge=1, description="room for the reasoning of judge = reasoned")

    @property
    def signals(self) -> tuple[SignalName, ...]:
        """Every signal that is measured, those that make the score first."""
        return tuple(dict.fromkeys((*self.judge, *self.rerank, *self.least, *self.beside)))


class RewriteOptions(Table):
    """Polish what was kept; the original stays beside it, and a text with new facts is not taken."""

    on: bool = Field(False, description="a weak model makes outputs worse by this: off unless asked for")
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(0.9, gt=0, le=1)
    max_new_tokens: int = Field(1024, ge=1)
    least_contained: float = Field(
        0.5, ge=0, le=1, description="least share of the new text's word 2-grams that stand in the original"
    )
    least_length: float = Field(0.5, ge=0, description="shortest new text, as a share of the original's length")


class EvaluateOptions(Table):
    """What is measured on the held-out pairs."""

    retrieval_of: int = Field(10, ge=2, description="the true output is ranked among this many")
    retrieval_rows: int = Field(100, ge=10, description="held-out pairs whose outputs are ranked")
    bootstrap: int = Field(2000, ge=100, description="resamples behind every interval")
    max_new_tokens: int = Field(128, ge=1)
    no_repeat: int = Field(0, ge=0, description="as in [augment], for the greedy answers that are measured")
    encoder: str = Field("", description="sentence encoder (folder or hub name) for similarity in meaning; empty: none")
    attacks: int = Field(200, ge=0, description="candidates in which a score is planted, to see whether judges move")
    answers: int = Field(0, ge=0, description="held-out instructions both forward models answer, to be compared")
    answer_tokens: int = Field(256, ge=1, description="room for each of those answers")


class ServerOptions(Table):
    """How an endpoint that speaks the OpenAI dialect is reached; `engine.base` is the model's name there."""

    url: str = Field("http://127.0.0.1:8000/v1", description="address of the endpoint, /v1 included")
    key_env: str = Field("OPENAI_API_KEY", description="environment variable that holds the key; it is never written")
    at_once: int = Field(8, ge=1, description="requests on their way at once")
    per_minute: int = Field(0, ge=0, description="most requests a minute of this process; 0 is as fast as it answers")
    tokens_per_minute: int = Field(0, ge=0, description="most tokens a minute, prompt and reply together; 0: no bound")
    timeout_s: float = Field(120, gt=0, description="seconds a request may take")
    attempts: int = Field(6, ge=1, description="how often a request is tried, with growing pauses between")
    context: int = Field(4096, ge=256, description="tokens the served model reads, where the endpoint does not say")
    speaks: Literal["auto", "chat", "text"] = Field(
        "auto", description="chat or plain completions; auto: chat where offered, but plain text for adapters"
    )
    tokenizer: str = Field("", description="folder or hub name of the served model's tokenizer, if base is neither")
    unlisted: bool = Field(False, description="ask for engine.base even where the endpoint does not list it")


class ClusterOptions(Table):
    """Ray workers that each hold an engine. Without an address, shards are worked on in this process."""

    address: str = Field(
        "", description="`local` starts a cluster on this machine, `auto` or HOST:PORT joins one; empty: no cluster"
    )
    workers: int = Field(0, ge=0, description="workers; 0 takes as many as fit into the cluster")
    cpus: float = Field(1, gt=0, description="CPUs of a worker, and its threads where engine.threads is 0")
    gpus: float = Field(0, ge=0, description="GPUs of a worker; a half lets two share one")
    attempts: int = Field(3, ge=1, description="a row that ends so many workers is rejected by name")
    stuck_s: float = Field(
        1800, gt=0, description="a worker longer at a shard than so, and than four times the slowest, is ended"
    )


class VllmOptions(Table):
    """What vLLM is opened with."""

    memory: float = Field(0.9, gt=0, le=1, description="share of the GPU's memory it may take")
    adapters: int = Field(4, ge=1, description="adapters in memory at once")
    gpus: int = Field(1, ge=1, description="GPUs a base is spread over")


class EngineOptions(Table):
    """Which base does the work, and with what."""

    kind: Literal["local", "vllm", "server", "echo"] = Field(
        "local", description="transformers here, vLLM here, an OpenAI-compatible endpoint, or the test double"
    )
    base: str = Field("meta-llama/Llama-2-7b-hf", description="hub name or folder of the base; `tiny` is embedded")
    revision: str = Field("", description="commit of a hub base; empty takes the newest and records it")
    device: str = Field("auto", description="auto, cpu, or another device by the name torch has for it")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="auto: bf16 where native")
    threads: int = Field(0, ge=0, description="CPU threads; 0 takes the CPUs at hand")
    devices: int = Field(
        0, ge=0, description="processes that train together, each on a device of its own; 0: one for each GPU, or one"
    )
    shard: bool = Field(False, description="spread the weights that are trained over the GPUs (FSDP), else a copy each")
    batch_tokens: int = Field(8192, ge=64, description="padded tokens in one forward pass")
    country: str = Field("USA", min_length=3, max_length=3, description="ISO code whose grid the carbon figure takes")
    shard_rows: int = Field(256, ge=1, description="rows in a shard: the unit of work and of resume")
    server: ServerOptions = ServerOptions()
    cluster: ClusterOptions = ClusterOptions()
    vllm: VllmOptions = VllmOptions()


class PlanOptions(Table):
    """What a run is planned with, and its budget counted with; nothing of it changes what a run does. 0: not known."""

    price_per_hour: float = Field(0, ge=0, description="of a machine (a worker), whether it computes or waits")
    price_per_gpu_hour: float = Field(0, ge=0, description="of a GPU, for the hours in which the engine works")
    price_per_million_read: float = Field(0, ge=0, description="of tokens that an endpoint reads")
    price_per_million_written: float = Field(0, ge=0, description="of tokens that an endpoint writes")
    currency: str = Field("EUR", pattern="^[A-Z]{3}$", description="of all prices, in three letters")
    watts: float = Field(0, ge=0, description="drawn by a machine; 0 takes what codecarbon reads or estimates")
    passages: int = Field(0, ge=0, description="plan for so many passages; 0 takes what the corpus seems to hold")


class Options(Table):
    """A whole run file."""

    random_seed: int = Field(0, ge=0, description="all chance in the run comes from here")
    seed: SeedOptions = SeedOptions()
    corpus: CorpusOptions = CorpusOptions()
    passages: PassageOptions = PassageOptions()
    distinct: DistinctOptions = DistinctOptions()
    backward: BackwardOptions = BackwardOptions()
    augment: AugmentOptions = AugmentOptions()
    gates: GateOptions = GateOptions()
    curate: CurateOptions = CurateOptions()
    rewrite: RewriteOptions = RewriteOptions()
    forward: ForwardOptions = ForwardOptions()
    evaluate: EvaluateOptions = EvaluateOptions()
    engine: EngineOptions = EngineOptions()
    plan: PlanOptions = PlanOptions()
