"""Fixtures every test may use: the folder of real data (skipped cleanly where absent)."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data nobody here wrote; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def mini_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama of random weights with the tokenizer of the embedded base."""
    from models import embedded_tokenizer, write_mini_llama

    return write_mini_llama(tmp_path_factory.mktemp("mini"), embedded_tokenizer())


@pytest.fixture(scope="session")
def stories(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that was trained elsewhere, converted to a folder that transformers loads."""
    from models import write_stories260k

    return write_stories260k(shared / "weights" / "stories260K", tmp_path_factory.mktemp("stories"))


@pytest.fixture(scope="session")
def small_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty documents and forty seed pairs, written here: `docs/` and `pairs.jsonl`."""
    from small_run import write_inputs

    return write_inputs(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def few_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with ten documents and sixteen pairs, for runs that are done a hundred times."""
    from small_run import write_inputs

    return write_inputs(tmp_path_factory.mktemp("few"), documents=10, pairs=16)
