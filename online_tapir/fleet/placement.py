"""Decides which rig has which camera: from what cameras cost and what rigs have room for, and nothing else.

The load of a rig is the sum of what its cameras cost, each measured where it runs; 1 is full (see `load`). A camera
that has no rig, or whose rig is gone or draining, goes to the rig with the least load that has a lane. Beyond that, a
camera is moved only if that makes the fuller of the two rigs clearly emptier, and then rests: nobody gains from cameras
that wander, as each move costs a second of tracks.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

GAIN = 0.15  # by how much a move must lower the load of the fuller rig
REST_S = 300.0  # a camera that was moved to balance stays at least this long
SETTLE_S = 20.0  # after a placement the load is not measured yet: nothing is balanced from or to that rig
BALANCE_S = 10.0  # between two rounds of balancing
SHARE = 10  # at most one move for so many rigs in each round
UNKNOWN_COST = 0.1  # of a camera, before any was measured


@dataclass(frozen=True, slots=True)
class RigRoom:
    """What the placement knows of a rig that can be reached."""

    lanes: int
    costs: Mapping[str, float] = field(default_factory=dict)  # measured, of the cameras that it has now
    draining: bool = False


@dataclass(slots=True)
class Home:
    """Where a camera belongs."""

    rig: str
    since_s: float
    moved_s: float  # when it was last moved to balance, or by hand; minus infinity: never


@dataclass(frozen=True, slots=True)
class Decision:
    """A camera's new home. `before` is the rig that it leaves, "" for none."""

    camera: str
    rig: str
    before: str
    why: str


class Placement:
    """The homes of all cameras. `decide` is called again and again with what is known now."""

    def __init__(self) -> None:
        self.homes: dict[str, Home] = {}
        self.waiting: dict[str, str] = {}  # cameras without a rig, and why
        self.moves = 0
        self._balanced_s = float("-inf")

    def adopt(self, camera: str, rig: str, now_s: float) -> None:
        """Takes a camera as placed that was before this placement began."""
        self.homes[camera] = Home(rig, now_s, float("-inf"))

    def move(self, camera: str, rig: str, now_s: float) -> Decision:
        """Gives a camera to a rig because somebody asked for it."""
        before = self.homes[camera].rig if camera in self.homes else ""
        self.homes[camera] = Home(rig, now_s, now_s)
        self.moves += 1
        return Decision(camera, rig, before, "asked for")

    def decide(self, now_s: float, wanted: Collection[str], rigs: Mapping[str, RigRoom]) -> list[Decision]:
        """Brings the homes up to date: `wanted` are the cameras there should be, `rigs` those that may be used.

        A rig that is away belongs in `rigs` as long as its cameras may wait for it. Returns what
        changed.
        """
        for camera in [camera for camera in self.homes if camera not in wanted]:
            del self.homes[camera]
        books = _Books(self.homes, rigs)
        decisions = self._place_homeless(now_s, wanted, rigs, books)
        if now_s - self._balanced_s >= BALANCE_S:
            self._balanced_s = now_s
            decisions += self._balance(now_s, rigs, books)
        return decisions

    def _place_homeless(
        self, now_s: float, wanted: Collection[str], rigs: Mapping[str, RigRoom], books: "_Books"
    ) -> list[Decision]:
        """Finds a rig for cameras that have none; those of a draining rig stay until there is room elsewhere."""
        self.waiting = {}
        decisions = []
        for camera in sorted(wanted):
            home = self.homes.get(camera)
            before = "" if home is None else home.rig
            lost = before not in rigs
            if not lost and not rigs[before].draining:
                continue
            to = books.emptiest()
            if to is None:
                if lost:
                    self.homes.pop(camera, None)
                    self.waiting[camera] = books.why_full()
                continue
            books.give(camera, to)
            self.homes[camera] = Home(to, now_s, float("-inf") if home is None else home.moved_s)
            why = "new" if home is None else f"{before} is {'gone' if lost else 'draining or away'}"
            self.moves += home is not None
            decisions.append(Decision(camera, to, before, why))
        return decisions

    def _balance(self, now_s: float, rigs: Mapping[str, RigRoom], books: "_Books") -> list[Decision]:
        decisions: list[Decision] = []
        fresh = {home.rig for home in self.homes.values() if now_s - home.since_s < SETTLE_S}
        for _ in range(max(1, len(rigs) // SHARE)):
            found = self._best_move(now_s, books, fresh)
            if found is None:
                break
            camera, before, to = found
            books.give(camera, to)
            fresh |= {before, to}
            self.homes[camera] = Home(to, now_s, now_s)
            self.moves += 1
            decisions.append(Decision(camera, to, before, f"{before} is fuller than {to}"))
        return decisions

    def _best_move(self, now_s: float, books: "_Books", fresh: set[str]) -> tuple[str, str, str] | None:
        """The move that lowers the load of the fullest rig most, to the emptiest; None if none lowers it by `GAIN`."""
        settled = [rig for rig in books.load if rig not in fresh]
        full = max(settled, key=lambda rig: (books.load[rig], rig), default=None)
        to = books.emptiest(settled)
        if full is None or to is None or full == to:
            return None
        best: tuple[float, str] | None = None
        for camera in sorted(books.cameras[full]):
            if now_s - self.homes[camera].moved_s < REST_S:
                continue
            cost = books.cost(camera)
            left = max(books.load[full] - cost, books.load[to] + cost)
            if left <= books.load[full] - GAIN and (best is None or left < best[0]):
                best = (left, camera)
        return None if best is None else (best[1], full, to)


class _Books:
    """The loads and free lanes of the rigs while decisions are taken."""

    def __init__(self, homes: Mapping[str, Home], rigs: Mapping[str, RigRoom]) -> None:
        self._rigs = rigs
        self._costs = {camera: cost for room in rigs.values() for camera, cost in room.costs.items()}
        known = [cost for cost in self._costs.values() if cost > 0]
        self._usual = sum(known) / len(known) if known else UNKNOWN_COST
        self._home = {camera: home.rig for camera, home in homes.items() if home.rig in rigs}
        self.cameras: dict[str, set[str]] = {rig: set() for rig in rigs}
        for camera, rig in self._home.items():
            self.cameras[rig].add(camera)
        self.load = {rig: sum(map(self.cost, cameras)) for rig, cameras in self.cameras.items()}

    def cost(self, camera: str) -> float:
        """What the camera was measured to cost; before that, what cameras cost on average."""
        return self._costs.get(camera) or self._usual

    def emptiest(self, among: Collection[str] | None = None) -> str | None:
        """The rig with the least load with a free lane that is not draining; of equals, that with most lanes free."""
        able = [
            rig
            for rig, room in self._rigs.items()
            if not room.draining and self._free(rig) > 0 and (among is None or rig in among)
        ]
        return min(able, key=lambda rig: (round(self.load[rig], 6), -self._free(rig), rig), default=None)

    def give(self, camera: str, rig: str) -> None:
        before = self._home.get(camera)
        if before is not None:
            self.cameras[before].discard(camera)
            self.load[before] -= self.cost(camera)
        self._home[camera] = rig
        self.cameras[rig].add(camera)
        self.load[rig] += self.cost(camera)

    def why_full(self) -> str:
        usable = [rig for rig, room in self._rigs.items() if not room.draining]
        if not usable:
            return "no rig is up"
        lanes = sum(self._rigs[rig].lanes for rig in usable)
        return (
            f"all {lanes} lanes of {len(usable)} rigs are taken; remove cameras, add a node, or begin with more --lanes"
        )

    def _free(self, rig: str) -> int:
        return self._rigs[rig].lanes - len(self.cameras[rig])
