"""A user of a live run, in its own process: reads the stream, adds and removes points, scrapes the metrics.

    python -m bench.user PUBLISHED CONTROLLED METRICS

Prints READY once it has heard the run and had one full round of answers. Runs until SIGTERM, then prints what it has
seen as one JSON object. Needs no torch.
"""

import json
import signal
import sys
import threading
import time
import urllib.request
from dataclasses import asdict, dataclass, field

from online_tapir.control.client import Controller
from online_tapir.control.protocol import ControlError
from online_tapir.wire.subscriber import subscribe

READY = "ready"
EVERY_S = 0.1  # between requests, and between checks whether to end
SCRAPE_EVERY_S = 2.0
POINTS = [[0.25, 0.25], [0.5, 0.75]]  # normalised image coordinates


@dataclass(slots=True)
class Seen:
    """What a user has seen of a run."""

    received: int = 0
    first_frame: int = -1
    last_frame: int = -1
    out_of_order: int = 0  # messages of a frame no newer than the one before
    heartbeats: int = 0
    answers: dict[str, int] = field(
        default_factory=dict
    )  # rounds: `all` if every request was answered, otherwise by the error's name
    points_added: int = 0
    ids_given_twice: int = 0
    scrapes: int = 0


def read(address: str, seen: Seen, over: threading.Event) -> None:
    """Counts messages until `over` is set and none is left."""
    with subscribe(address, timeout_ms=int(EVERY_S * 1000), heartbeats=True) as stream:
        while True:
            try:
                message = next(stream)
            except TimeoutError:
                if over.is_set():
                    return
                continue
            if not hasattr(message, "ids"):
                seen.heartbeats += 1
                continue
            seen.out_of_order += message.frame_id <= seen.last_frame
            seen.first_frame = message.frame_id if seen.received == 0 else seen.first_frame
            seen.last_frame = message.frame_id
            seen.received += 1


def control(address: str, seen: Seen, over: threading.Event) -> None:
    """Adds points and removes as many of the oldest, with status and list requests in between."""
    newest = -1
    with Controller(address, timeout_ms=2000) as controller:
        while not over.wait(EVERY_S):
            try:
                ids = controller.add(POINTS, normalised=True).tolist()
                seen.points_added += len(ids)
                seen.ids_given_twice += min(ids) <= newest
                newest = max(ids)
                controller.status()
                controller.remove(controller.list().ids[: len(ids)])
                seen.answers["all"] = seen.answers.get("all", 0) + 1
            except ControlError as error:
                if over.is_set():  # the run may have ended before the request
                    break
                seen.answers[error.name] = seen.answers.get(error.name, 0) + 1


def scrape(url: str, seen: Seen, over: threading.Event) -> None:
    """Scrapes the metrics every SCRAPE_EVERY_S."""
    while not over.wait(SCRAPE_EVERY_S):
        with urllib.request.urlopen(url, timeout=5) as answer:
            seen.scrapes += b"online_tapir_frames_total" in answer.read()


def main(published: str, controlled: str, metrics: str) -> None:
    seen, over = Seen(), threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: over.set())
    parts = ((read, published), (control, controlled), (scrape, metrics))
    threads = [threading.Thread(target=part, args=(address, seen, over)) for part, address in parts]
    for thread in threads:
        thread.start()
    ready = False
    while not over.is_set():
        time.sleep(EVERY_S)
        if not ready and seen.heartbeats + seen.received and seen.answers.get("all"):
            ready = True
            print(READY, flush=True)
    for thread in threads:
        thread.join()
    print(json.dumps(asdict(seen)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
