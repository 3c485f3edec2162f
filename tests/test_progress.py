"""Laws of what is shown where there is no terminal: now and then a plain line, never a flood."""

import pytest

from askback import progress
from askback.progress import Watch


class Clock:
    """A clock that is moved by hand."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    return clock


def lines(capsys: pytest.CaptureFixture[str], clock: Clock, counts: list[int], *, total: int) -> list[str]:
    """Return the lines of a step that advances by these counts, ten seconds apart."""
    with Watch() as watch:
        watch.begin("05-candidates", total, "rows")
        for count in counts:
            watch.advance(count)
            clock.now += 10
    return capsys.readouterr().err.splitlines()


def test_without_a_terminal_a_long_step_tells_how_far_it_is(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    assert lines(capsys, clock, [0, 20, 20, 20, 20], total=100) == [
        "05-candidates   40/100  2.00/s  0:00:30 left",
        "05-candidates   80/100  2.00/s  0:00:10 left",
    ]


def test_without_a_known_total_no_time_left_is_told(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    assert lines(capsys, clock, [0, 20, 20], total=0) == ["05-candidates   40  2.00/s"]


def test_work_of_an_earlier_session_is_counted_but_is_not_speed(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    assert lines(capsys, clock, [500, 20, 20], total=1000) == ["05-candidates   540/1,000  2.00/s  0:03:50 left"]


def test_a_short_step_tells_nothing_but_its_end(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    assert lines(capsys, clock, [1, 1], total=2) == []
