"""Which texts were seen, and where first.

Takes: texts, and the number of the place each stands in.  Gives: the number of the place a text stood in before.
Never: holds a text: 8 bytes of its hash and 4 of its place stand in two flat arrays, of which at most two thirds are
filled, so that 18 to 36 bytes are held for a text, and 54 while the table grows.

Two texts of one hash would be taken for one: among 10 million texts with a chance of 1 in 300,000.
"""

from array import array

from askback.records import content_id

_FIRST_SLOTS = 1024  # always a power of two


class Seen:
    """An open-addressed table from the hash of a text to the number of its first place."""

    def __init__(self) -> None:
        self._count = 0
        self._clear(_FIRST_SLOTS)

    def first_place(self, text: str, place: int) -> int | None:
        """Return where a text stood first; if it did nowhere, note that it stands at `place`."""
        key = int(content_id(text), 16) or 1  # 0 marks an empty slot
        slot = self._slot_of(key)
        if self._keys[slot]:
            return self._places[slot]
        self._keys[slot], self._places[slot] = key, place
        self._count += 1
        if 3 * self._count > 2 * len(self._keys):
            self._grow()
        return None

    def _slot_of(self, key: int) -> int:
        last = len(self._keys) - 1
        slot = key & last
        while self._keys[slot] not in (0, key):
            slot = (slot + 1) & last
        return slot

    def _grow(self) -> None:
        old = zip(self._keys, self._places, strict=True)
        self._clear(2 * len(self._keys))
        for key, place in old:
            if key:
                slot = self._slot_of(key)
                self._keys[slot], self._places[slot] = key, place

    def _clear(self, slots: int) -> None:
        self._keys = array("Q", [0]) * slots
        self._places = array("I", [0]) * slots
