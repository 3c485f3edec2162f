"""argv -> options -> one call of `api` or `commands`; the only place that prints.

Takes: the command line.  Gives: files, lines on standard output, an exit code.
Never: knows how a stage works; everything heavy is imported by the command that needs it.
"""

import argparse
import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from askback import __version__
from askback.errors import AskbackError, ConfigError, Stopped

if TYPE_CHECKING:
    from askback.options import Options
    from askback.ports import Engine
    from askback.ranks import Rank
    from askback.records import Pair, Passage, Reject

EXIT_CODES = "exit codes: 0 done, 2 usage or config, 3 data, 4 run in use, 5 stopped and resumable, 6 integrity"

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

RUN_EPILOG = """example: askback run --seed pairs.jsonl --corpus docs/ --base tiny --out runs/mine

Several processes can do one run over one shared folder: rank 0 holds it, trains and writes, the others do their share
of the shards. As a Slurm array, each task with the same command:

  askback run --config RUN.toml --out runs/mine --rank $SLURM_ARRAY_TASK_ID --world $SLURM_ARRAY_TASK_COUNT

The array counts from 0 (sbatch --array=0-7); these variables are read here, by the shell, and nowhere in askback."""

FLAGS = {
    "seed.path": "seed",
    "seed.format": "format",
    "corpus.path": "corpus",
    "engine.base": "base",
    "augment.n": "n",
    "augment.prompted": "prompted",
}
"""Options that have a flag of their own: option -> flag."""


def main(argv: list[str] | None = None) -> NoReturn:
    """Run one command and leave with its exit code."""
    args = build_parser().parse_args(argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _do(args)
    except AskbackError as error:
        _fail(args, error, error.exit_code)
    except KeyboardInterrupt as error:
        _fail(args, Stopped("stopped; the same command goes on from here"), Stopped.exit_code, cause=error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Stopped.exit_code)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        _fail(args, Stopped(f"{error}; free some room, and the same command goes on from here"), Stopped.exit_code)
    sys.exit(0)


def _do(args: argparse.Namespace) -> None:
    """Do the command; of several processes that torchrun started, one does it and the others train with it."""
    if int(os.environ.get("WORLD_SIZE") or 1) == 1:
        args.command(args)
        return
    from askback.engines.launch import led

    with led() as leads:
        if leads:
            args.command(args)


def _interrupt(number: int, frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second signal ends at once
    raise KeyboardInterrupt


def _fail(args: argparse.Namespace, error: Exception, code: int, cause: BaseException | None = None) -> NoReturn:
    if args.debug:
        raise error from cause
    print(f"askback: {error}", file=sys.stderr)
    sys.exit(code)


# --- the parser


def build_parser() -> argparse.ArgumentParser:
    """Return the whole command line."""
    parser = argparse.ArgumentParser(
        prog="askback",
        description="Instruction backtranslation: documents in, instruction-tuning data and tuned models out.",
        epilog=f"example: askback demo --out askback-demo\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"askback {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = _command(commands, "demo", run_demo, "the main job on the embedded base, pairs and documents")
    demo.epilog = "example: askback demo --out askback-demo"
    _add_out(demo, "askback-demo")
    _add_budget(demo)
    _add_settings(demo)

    plan = _command(commands, "plan", run_plan, "what a run will take: time, tokens, memory, disk, money, carbon")
    plan.epilog = "example: askback plan run.toml --days 7 --set plan.price_per_gpu_hour=1.8"
    plan.add_argument("config", type=Path, nargs="?", metavar="RUN.toml", help="run file (left out: the demo's)")
    plan.add_argument("--days", type=float, default=7.0, help="days in which workers shall be done (default 7)")
    plan.add_argument("--json", type=Path, metavar="FILE", help="write all numbers, with their ranges, to this file")
    plan.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="one option of a run file")

    run = _command(commands, "run", run_run, "the main job: seed pairs and documents in, data set and models out")
    run.epilog = RUN_EPILOG
    _add_seed(run)
    run.add_argument("--corpus", help="file, folder or glob of documents")
    _add_base(run)
    _add_out(run)
    _add_budget(run)
    run.add_argument("--rank", type=int, default=0, help="which of several processes over one folder this is, from 0")
    run.add_argument("--world", type=_count, default=1, help="how many processes work over the folder (default 1)")
    run.add_argument(
        "--patience", type=float, default=120, metavar="S", help="seconds without a sign of other ranks (default 120)"
    )
    _add_settings(run)

    inspect = _command(commands, "inspect", run_inspect, "one screen on a corpus: what is there, what would be kept")
    inspect.epilog = "example: askback inspect docs/"
    inspect.add_argument("corpus", help="file, folder, glob or archive of documents")
    inspect.add_argument("--sample", type=_count, default=200, help="documents that are read, the first ones (200)")
    _add_settings(inspect)

    train = _command(commands, "train", run_train, "tune one model on pairs")
    train.epilog = "example: askback train backward --seed pairs.jsonl --base tiny --out models/backward"
    train.add_argument("direction", choices=("backward", "forward"), help="which side of a pair is learnt")
    _add_seed(train)
    _add_prompted(train, "backward only: tune nothing, write a model that asks the base by prompt")
    train.add_argument("--augmented", help="kept pairs that join the seed pairs (forward only), such as train.jsonl")
    _add_base(train)
    train.add_argument("--out", help="folder for the model; not needed with --show-labels")
    train.add_argument("--show-labels", type=_count, metavar="N", help="print what N rows are trained on, and stop")
    _add_settings(train)

    ask = _command(commands, "augment", run_augment, "write the instruction that each text answers")
    ask.epilog = "example: askback augment --model models/backward page.md"
    ask.add_argument("input", help="file or folder of texts, or - for standard input")
    either = ask.add_mutually_exclusive_group(required=True)
    either.add_argument("--model", help="folder of a backward model")
    _add_prompted(either, "ask the base by prompt instead, with a few of the pairs of --seed as examples")
    _add_seed(ask)
    ask.add_argument("--out", help="write JSON lines here instead of standard output")
    ask.add_argument("-n", type=int, default=None, help="instructions per text (augment.n)")
    ask.add_argument("--passages", action="store_true", help="cut documents into passages first, as a run does")
    _add_base(ask)
    _add_settings(ask)

    curate = _command(commands, "curate", run_curate, "judge pairs and keep the best")
    curate.epilog = "example: askback curate pairs.jsonl --model models/forward --out kept.jsonl"
    curate.add_argument("input", help="pairs in any seed format, or the candidates folder of a run")
    curate.add_argument("--format", help="format of the pairs (seed.format); found by looking when left out")
    curate.add_argument("--model", help="folder of the forward model that judges (default: the base itself)")
    curate.add_argument("--backward", help="folder of the backward model, for the signals backward and cycle")
    curate.add_argument("--out", required=True, help="kept pairs as JSON lines; the others go to OUT.rejected.jsonl")
    _add_base(curate)
    _add_settings(curate)

    evaluate = _command(commands, "evaluate", run_evaluate, "measure a backward model beside its floors")
    evaluate.epilog = "example: askback evaluate --model models/backward --seed pairs.jsonl"
    evaluate.add_argument("--model", required=True, help="folder of a backward model")
    evaluate.add_argument("--beside", help="folder of another one, measured and tested on the same pairs")
    _add_seed(evaluate)
    evaluate.add_argument("--held-out-only", action="store_true", help="use only the pairs a run would hold out")
    evaluate.add_argument("--out", help="write all numbers and rows to this JSON file")
    _add_base(evaluate)
    _add_settings(evaluate)

    calibrate = _command(
        commands, "calibrate", run_calibrate, "hold a judge against people's grades; find its threshold"
    )
    calibrate.epilog = "example: askback calibrate --labels grades.jsonl --run runs/mine --out calibration"
    calibrate.add_argument(
        "--labels",
        required=True,
        help="rows of id or instruction and output with a grade (1 to 5) or label (good, bad)",
    )
    calibrate.add_argument("--run", help="finished run whose candidates the labels are about")
    calibrate.add_argument("--model", help="without --run: forward model that judges the labelled pairs")
    calibrate.add_argument("--backward", help="without --run: backward model, for the signal of that name")
    calibrate.add_argument(
        "--precision", type=float, default=0.9, help="precision wanted of what is kept (default 0.9)"
    )
    calibrate.add_argument(
        "--good-from", type=float, default=4.0, help="lowest grade, of 1 to 5, of a good pair (default 4)"
    )
    _add_out(calibrate, "calibration")
    _add_base(calibrate)
    _add_settings(calibrate)

    compare = _command(commands, "compare", run_compare, "whether two runs differ, by paired tests on the same pairs")
    compare.epilog = "example: askback compare runs/one runs/two"
    compare.add_argument("runs", nargs=2, metavar="RUN", help="run folder")
    compare.add_argument("--out", help="write all numbers to this JSON file")

    ablate = _command(commands, "ablate", run_ablate, "what seed, curation, tags and rounds add, each trained anew")
    ablate.epilog = "example: askback ablate run.toml --out ablation"
    ablate.add_argument("config", type=Path, nargs="?", metavar="RUN.toml", help="run file (left out: the demo's)")
    ablate.add_argument("--seeds", type=_count, default=3, help="trainings of each variant (default 3)")
    _add_out(ablate, "ablation")
    ablate.add_argument(
        "--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="one option of a run file"
    )

    suites = _command(commands, "suites", run_suites, "public evaluation suites, through lm-eval")
    suites.epilog = "example: askback suites --model models/forward --tasks arc_easy,hellaswag --out suites.json"
    suites.add_argument("--model", help="folder of a forward model (left out: the bare base)")
    suites.add_argument("--tasks", required=True, help="names of tasks, with commas between them")
    suites.add_argument("--tasks-folder", type=Path, help="folder with task files (YAML) of your own")
    suites.add_argument("--limit", type=_count, default=0, help="use at most so many rows of each task")
    suites.add_argument("--out", help="write all numbers to this JSON file")
    _add_base(suites)
    _add_settings(suites)

    report = _command(commands, "report", run_report, "write report.html, data set and cards of a run anew")
    report.epilog = "example: askback report runs/mine"
    report.add_argument("run", help="run folder")

    doctor = _command(commands, "doctor", run_doctor, "what is installed, what device, what would be used")
    doctor.epilog = "example: askback doctor --base tiny"
    _add_base(doctor)
    _add_settings(doctor)
    return parser


def _command(
    commands: Any, name: str, call: Callable[[argparse.Namespace], None], help: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=help, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(command=call)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _count(text: str) -> int:
    """Return a whole number from 1; argparse makes a usage error of anything else."""
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"want a whole number from 1, got {text!r}")
    return int(text)


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", help="seed pairs: file, folder or hub data-set id (seed.path)")
    parser.add_argument("--format", help="format of the seed pairs (seed.format); found by looking when left out")


def _add_prompted(parser: argparse._ActionsContainer, said: str) -> None:
    parser.add_argument("--prompted", action="store_true", default=None, help=f"{said} (augment.prompted)")


def _add_base(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", help="base model: hub name, folder, or `tiny` for the embedded one (engine.base)")


def _add_out(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    said = f" (default {default})" if default else ""
    parser.add_argument("--out", required=default is None, default=default, help=f"folder for the results{said}")


def _add_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget",
        default="",
        metavar="2h|5EUR|0.5kWh",
        help="stop cleanly before so much is spent, earlier sittings included; the same command goes on with more",
    )


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="RUN.toml", help="run file with the tables of all options")
    parser.add_argument(
        "--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="one option of a run file"
    )


def read_options(args: argparse.Namespace, defaults: dict[str, Any] | None = None) -> "Options":
    """Lay the flags over the run file, the run file over the defaults of the base, and check the whole."""
    from askback.config import load_options, to_toml_value

    given = {key: getattr(args, flag, None) for key, flag in FLAGS.items()}
    settings = [f"{key}={to_toml_value(value)}" for key, value in given.items() if value is not None]
    if _was_made_of_tiny(getattr(args, "model", None)):
        defaults = {"engine": {"base": "tiny"}}
    return load_options(args.config, [*settings, *args.set], defaults)


def _was_made_of_tiny(model: str | None) -> bool:
    note = Path(model) / "base.json" if model else None
    return bool(note and note.exists() and json.loads(note.read_text(encoding="utf-8")).get("base") == "tiny")


# --- the commands


def run_demo(args: argparse.Namespace) -> None:
    """The main job on what lies in the package."""
    from askback.embedded import DEMO

    _run(read_options(args, DEMO), Path(args.out), budget=args.budget)


def run_plan(args: argparse.Namespace) -> None:
    """Say what a run will take, before anything expensive."""
    from askback import planning
    from askback.embedded import DEMO
    from askback.store import write_json

    plan = planning.plan(read_options(args, None if args.config else DEMO), args.days)
    if args.json:
        write_json(args.json, plan.as_dict())
    print(planning.render(plan))


def run_run(args: argparse.Namespace) -> None:
    """The main job on what the user gives."""
    from askback.ranks import Rank

    rank = Rank(number=args.rank, world=args.world, patience_s=args.patience)
    _run(read_options(args), Path(args.out), rank, budget=args.budget)


def _run(options: "Options", out: Path, rank: "Rank | None" = None, budget: str = "") -> None:
    from askback import api
    from askback.progress import Watch
    from askback.ranks import ALONE

    with Watch() as watch:
        folder = api.run(options, out, show=watch, rank=rank or ALONE, budget=budget)
        if rank and not rank.leads:
            watch.note(f"rank {rank.number} of {rank.world} is done; rank 0 evaluates and writes the report")
            return
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        watch.summary(_summary(folder, metrics))


def _summary(folder: Path, metrics: dict[str, Any]) -> list[tuple[str, str]]:
    found, floors = metrics["evaluation"]["backward"], metrics["evaluation"]["floors"]
    best = max(floors.values(), key=lambda floor: floor["rougeL"]["value"])["rougeL"]["value"]
    retrieval = found["retrieval"]
    rows = [("held-out ROUGE-L", f"{found['rougeL']['value']:.1f} (better floor {best:.1f})")]
    if retrieval:
        rows.append((f"first of {retrieval['of']}", f"{retrieval['value']:.2f}"))
    rows += [
        ("pairs kept", str(metrics["dataset"]["rows"])),
        ("data set", str(folder / "dataset")),
        ("models", str(folder / "models")),
        ("report", str(folder / "report.html")),
    ]
    return rows


def run_inspect(args: argparse.Namespace) -> None:
    """Say what a corpus holds and what would become of it."""
    from askback import inspecting

    print(inspecting.render(inspecting.inspect(args.corpus, read_options(args), args.sample)))


def run_train(args: argparse.Namespace) -> None:
    """Tune one model."""
    from askback import commands

    options = read_options(args)
    if not options.seed.path:
        raise ConfigError("no seed is given: --seed PATH")
    if args.prompted and (args.direction == "forward" or args.show_labels or args.augmented):
        raise ConfigError("--prompted writes a backward model and trains on nothing: leave out what else was asked")
    if not args.out and not args.show_labels:
        raise ConfigError("no folder for the model is given: --out FOLDER (only --show-labels N needs none)")
    pairs, rejects, explained = commands.read_pairs(options)
    print(f"seed read as {explained}; {len(pairs)} pairs, {len(rejects)} rows rejected", file=sys.stderr)
    training, held = commands.held_out(pairs, options)
    if args.augmented:
        training += commands.read_augmented(Path(args.augmented))
    table = options.forward if args.direction == "forward" else options.backward
    engine = commands.engine_for(options.engine)
    if args.prompted:
        report = commands.write_prompted(training, Path(args.out), options.augment, engine)
        print(f"backward model in {args.out}: nothing tuned, a prompt with {report.examples} examples")
        return
    if args.show_labels:
        print(commands.show_labels(args.direction, training[: args.show_labels], table, engine))
        return
    report = commands.train(args.direction, training, Path(args.out), table, engine, seed=options.random_seed)
    commands.write_rejects(Path(f"{args.out}.rejected.jsonl"), rejects, report)
    print(
        f"{args.direction} model in {args.out}: {report.examples} rows ({len(report.rejected)} rejected, "
        f"{len(held)} held out), {report.steps} steps, last loss {report.losses[-1][1]:.3f}"
    )


def run_augment(args: argparse.Namespace) -> None:
    """One JSON line per text: its instruction, or why there is none."""
    from askback import api, commands
    from askback.store import write_rows

    options = read_options(args)
    table = options.engine
    if args.model:
        settings = options.engine.model_dump(exclude={"base"}, exclude_unset=True)
        model = api.load(args.model, base=args.base or "", **settings)
        table = api.options_for(Path(args.model), base=args.base or "", settings=settings)
    else:
        training = _training_pairs(options) if options.augment.examples else []
        model = commands.prompted_model(training, options.augment, commands.engine_for(options.engine))
    texts: Iterable[Passage | Reject] = _texts(args, options)
    with api.spread_of(table, model.engine) as spread:
        lines = commands.augment_lines(model, texts, options.augment, seed=options.random_seed, spread=spread)
        if args.out:
            print(f"{write_rows(Path(args.out), lines)} lines in {args.out}", file=sys.stderr)
            return
        for line in lines:
            print(json.dumps(line, ensure_ascii=False), flush=True)


def _training_pairs(options: "Options") -> "list[Pair]":
    from askback import commands

    if not options.seed.path:
        raise ConfigError("no seed is given to take examples from: --seed PATH (or --set augment.examples=0)")
    return commands.held_out(commands.read_pairs(options)[0], options)[0]


def _texts(args: argparse.Namespace, options: "Options") -> "Iterable[Passage | Reject]":
    from askback import commands

    if args.input == "-":
        return commands.texts_of_stream(sys.stdin.buffer)
    return commands.texts_of_path(args.input, options, passages=args.passages)


def run_curate(args: argparse.Namespace) -> None:
    """Judge pairs; kept ones go to OUT, the others beside it with their reason."""
    from askback import commands

    options = read_options(args)
    rows = commands.read_any_pairs(Path(args.input), options)
    model = Path(args.model) if args.model else None
    backward = Path(args.backward) if args.backward else None
    kept, rejected = commands.curate_file(
        rows, model, options, _engine(args, options), Path(args.out), backward=backward
    )
    print(f"{len(rows)} read: {kept} kept in {args.out}, {rejected} rejected in {args.out}.rejected.jsonl")


def run_evaluate(args: argparse.Namespace) -> None:
    """Measure a backward model."""
    from askback import commands
    from askback.stages.compare import compare_table
    from askback.store import write_json

    options = read_options(args)
    pairs, _, explained = commands.read_pairs(options)
    if args.held_out_only:
        _, pairs = commands.held_out(pairs, options)
    print(f"pairs read as {explained}; measuring on {len(pairs)}", file=sys.stderr)
    engine = _engine(args, options)
    if args.beside:
        other = _engine_of(args.beside, args, options)
        other = engine if other.describe() == engine.describe() else other  # one base is in memory once
        models = Path(args.model), Path(args.beside)
        found = commands.measure_beside(models, (engine, other), pairs, options)
    else:
        found = commands.measure(Path(args.model), pairs, options, engine)
    if args.out:
        write_json(Path(args.out), found)
    print(commands.measures_table(found))
    if args.beside:
        print(f"\n{args.beside}\n{commands.measures_table(found['beside'])}\n")
        print(compare_table(found["comparison"]))


def _engine(args: argparse.Namespace, options: "Options") -> "Engine":
    """Open the engine of the model given, or of the options where none is."""
    from askback import commands

    return _engine_of(args.model, args, options) if args.model else commands.engine_for(options.engine)


def _engine_of(model: str, args: argparse.Namespace, options: "Options") -> "Engine":
    from askback import api

    settings = options.engine.model_dump(exclude={"base"}, exclude_unset=True)
    return api.open_for(Path(model), base=args.base or "", settings=settings)


def run_calibrate(args: argparse.Namespace) -> None:
    """Hold a judge against grades; the file it writes is what `curate.calibration` takes."""
    from askback import calibrating

    if args.run and (args.model or args.backward):
        raise ConfigError("--run has its own judgements: leave out --model and --backward, or leave out --run")
    options, labels, out = read_options(args), Path(args.labels), Path(args.out)
    wanted = {"precision": args.precision, "out": out, "good_from": args.good_from}
    if args.run:
        found = calibrating.calibrate_run(labels, Path(args.run), options, **wanted)
    else:
        forward, backward = (Path(folder) if folder else None for folder in (args.model, args.backward))
        found = calibrating.calibrate_rows(labels, _engine(args, options), forward, backward, options, **wanted)
    print(calibrating.summary(found))


def run_compare(args: argparse.Namespace) -> None:
    """Say whether two runs differ."""
    from askback import comparing
    from askback.store import write_json

    found = comparing.compare_folders(*map(Path, args.runs))
    if args.out:
        write_json(Path(args.out), found)
    print(comparing.compare_table(found))


def run_ablate(args: argparse.Namespace) -> None:
    """Train every variant of a run and say what each part adds."""
    from askback import ablating
    from askback.embedded import DEMO
    from askback.progress import Watch
    from askback.stages.ablate import table

    options = read_options(args, None if args.config else DEMO)
    with Watch() as watch:
        found = ablating.ablate(options, Path(args.out), seeds=args.seeds, show=watch)
    print(table(found))


def run_suites(args: argparse.Namespace) -> None:
    """Measure a model on public suites."""
    from askback.engines import suites
    from askback.store import write_json
    from askback.tasks import weights_of

    options = read_options(args)
    model = weights_of(Path(args.model)) if args.model else None
    found = suites.run_suites(options.engine, model, args.tasks.split(","), args.limit, args.tasks_folder)
    if args.out:
        write_json(Path(args.out), found)
    print(json.dumps(found, indent=2))


def run_report(args: argparse.Namespace) -> None:
    """Write what a finished run shows, anew."""
    from askback import commands

    print(commands.report(Path(args.run)))


def run_doctor(args: argparse.Namespace) -> None:
    """Say what is there and what would be used."""
    from askback import doctor

    print(doctor.examine(read_options(args)))


if __name__ == "__main__":
    main()
