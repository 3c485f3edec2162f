"""Laws of the meter: what a session took is written down, failed or not."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from askback.meter import measured
from askback.store import read_json


class Tracker:
    """Stands in for codecarbon's tracker."""

    final_emissions_data = SimpleNamespace(
        energy_consumed=0.5,
        emissions=0.1,
        gpu_model="",
        cpu_model="CPU",
        codecarbon_version="3.9",
        tracking_mode="machine",
    )

    def __init__(self, **options: object) -> None:
        """Take whatever the real one takes."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End."""


def test_a_failed_session_is_in_the_sum_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon", SimpleNamespace(OfflineEmissionsTracker=Tracker))
    with pytest.raises(KeyboardInterrupt), measured(tmp_path / "cost.json", country="CHE"):
        raise KeyboardInterrupt
    (session,) = read_json(tmp_path / "cost.json")
    assert (session["energy_kwh"], session["country"]) == (0.5, "CHE")
    assert session["how"] == "codecarbon 3.9, machine mode, estimated where no power meter can be read"
