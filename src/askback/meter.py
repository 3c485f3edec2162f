"""Seconds, energy and carbon of a session, estimated by codecarbon without a network.

Takes: a file and a country.  Gives: one more entry in that file when the session ends.
Never: goes to the network, or says nothing when the meter is missing.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from askback.store import read_json, write_json


@contextmanager
def measured(file: Path, *, country: str) -> Iterator[Callable[[], float]]:
    """Add {seconds, energy_kwh, co2_kg, country, how} of what happens inside to the list in `file`.

    Yield what tells the kWh so far: measured every few seconds, and between as much a second as before.

    A session that fails or is interrupted leaves its entry too. A killed one leaves none: its energy is not in the
    sum, and report and cards say so.
    """
    from codecarbon import OfflineEmissionsTracker

    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)  # its advice is not the user's business
    tracker = OfflineEmissionsTracker(
        country_iso_code=country, save_to_file=False, log_level="critical", allow_multiple_runs=True
    )
    began = time.monotonic()
    tracker.start()
    try:
        yield _kwh_so_far(tracker, began)
    finally:
        tracker.stop()
        found = tracker.final_emissions_data
        sessions = read_json(file) if file.exists() else []
        sessions.append(
            {
                "seconds": round(time.monotonic() - began, 1),
                "energy_kwh": found.energy_consumed,
                "co2_kg": found.emissions,
                "country": country,
                "processor": found.gpu_model or found.cpu_model,
                "how": f"codecarbon {found.codecarbon_version}, {found.tracking_mode} mode, "
                "estimated where no power meter can be read",
            }
        )
        write_json(file, sessions)


READ_EVERY_S = 5.0


def _kwh_so_far(tracker: Any, began: float) -> Callable[[], float]:
    read_at, kwh = began, 0.0

    def so_far() -> float:
        nonlocal read_at, kwh
        now = time.monotonic()
        if now - read_at >= READ_EVERY_S:
            tracker.flush()  # measures anew
            read_at, kwh = now, float(tracker._total_energy.kWh)
        return kwh * (now - began) / (read_at - began) if kwh else 0.0

    return so_far
