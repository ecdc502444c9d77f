"""Visitors who move ρ and α and change pages for minutes: `python -m tools.soak --visitors 20 --minutes 10`.

Each visitor speaks Streamlit's own protocol over a WebSocket, as a browser does, so that twenty of them fit beside the server on
one machine; what a browser draws is not tried. Some move on before their page is done. Prints the server's memory and the time to
an answer four times a minute, and at the end what went wrong: exit code 1 where an exception was shown, a visitor was cut off,
two visitors saw other numbers at the same values, or memory kept rising.
"""

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tools.app_server import running_app

MERGE, OTHERS = "Merge", ("Spectra", "Alignment", "Methods", "Runs")
#: Few values, so that visitors meet: what they see must then be the same.
RHOS, ALPHAS = (2.0, 5.0, 9.0), (1.0, 2.4, 3.2)
RHO, ALPHA = "-rho", "-dc_merge.alpha"  # ends of the sliders' ids
ANSWER_SECONDS = 120.0
REPORT_SECONDS = 15.0
#: The first of these minutes fill caches; after them memory may rise by so much of what it was.
WARM_SECONDS, RISE = 120.0, 0.05
NEXT_SECONDS = 2.0  # after the end of a run, for the one that overtook it to begin
LEAVES = 0.15  # share of moves after which a visitor does not wait


@dataclass
class Log:
    """What all visitors together met: seconds to an answer, errors, what was seen at which values, (time, bytes) of memory.

    ``first`` are the seconds to each visitor's first page, for which a server that has just started opens the models.
    """

    seconds: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    seen: dict[tuple[float, float], tuple[str, ...]] = field(default_factory=dict)
    memory: list[tuple[float, int]] = field(default_factory=list)

    def saw(self, who: int, values: tuple[float, float], numbers: tuple[str, ...]) -> None:
        known = self.seen.setdefault(values, numbers)
        if known != numbers:
            self.errors.append(f"visitor {who} saw {numbers} at ρ, α = {values}, another one {known}")


@dataclass
class Visitor:
    """One connection; ``sliders`` are the ids of what can be moved on the page that is shown."""

    number: int
    socket: ClientConnection
    log: Log
    sliders: dict[str, str] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    arrived: bool = False

    async def open(self, page: str, query: str = "") -> None:
        """Go to a page and wait until it is drawn."""
        message = BackMsg()
        message.rerun_script.page_name, message.rerun_script.query_string = page, query
        self.sliders.clear()
        await self._asked(message, page)

    async def move(self, *, leaves: bool) -> None:
        """Move ρ and α; one that leaves does it once more before there is an answer."""
        if leaves:
            await self.socket.send(self._moved().SerializeToString())
            await asyncio.sleep(0.2)
        numbers = await self._asked(self._moved(), MERGE, overtakes=leaves)
        if {RHO, ALPHA} <= self.values.keys() and numbers:
            self.log.saw(self.number, (self.values[RHO], self.values[ALPHA]), numbers)

    def _moved(self) -> BackMsg:
        message = BackMsg()
        message.rerun_script.page_name = MERGE
        for end, choices in ((RHO, RHOS), (ALPHA, ALPHAS)):
            if end in self.sliders:
                self.values[end] = random.choice(choices)
                state = message.rerun_script.widget_states.widgets.add()
                state.id = self.sliders[end]
                state.double_array_value.data.append(self.values[end])
        return message

    async def _asked(self, message: BackMsg, page: str, *, overtakes: bool = False) -> tuple[str, ...]:
        """Send, and read until the last run has ended; the page's numbers. ``overtakes``: an earlier question is open."""
        start, numbers = time.monotonic(), ()
        await self.socket.send(message.SerializeToString())
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                numbers = await self._answer(overtakes)
        except TimeoutError:
            self.log.errors.append(f"visitor {self.number}: no answer on {page} within {ANSWER_SECONDS:.0f} s")
        (self.log.seconds if self.arrived else self.log.first).append(time.monotonic() - start)
        self.arrived = True
        return numbers

    async def _answer(self, overtakes: bool) -> tuple[str, ...]:
        """A run that was overtaken ends early or in full, and the next one begins: only the end of the last one counts."""
        numbers: dict[str, str] = {}
        ended = False
        while True:
            got = ForwardMsg()
            try:
                got.ParseFromString(await asyncio.wait_for(self.socket.recv(), NEXT_SECONDS if ended else None))
            except TimeoutError:
                if ended:
                    return _told(numbers)
                raise
            kind = got.WhichOneof("type")
            if kind == "new_session":
                ended = False
                numbers.clear()
            elif kind == "delta" and got.delta.WhichOneof("type") == "new_element":
                self._look(got.delta.new_element, numbers)
            elif kind == "script_finished" and got.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY:
                ended = True
                if not overtakes:
                    return _told(numbers)

    def _look(self, element: object, numbers: dict[str, str]) -> None:
        kind = element.WhichOneof("type")  # pyright: ignore[reportAttributeAccessIssue] (made by protobuf)
        one = getattr(element, kind) if kind else None
        if one is None:
            return
        if kind == "exception":
            self.log.errors.append(f"visitor {self.number}: {one.type}: {one.message[:300]}")
        elif kind == "metric":
            numbers[one.label] = one.body
        elif kind == "markdown" and one.body.startswith("Rounding to"):
            numbers["rounding"] = one.body  # a number that every move changes
        elif kind == "slider":
            self.sliders |= {end: one.id for end in (RHO, ALPHA) if one.id.endswith(end)}


def _told(numbers: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{label} {body}" for label, body in sorted(numbers.items()))


async def visit(number: int, url: str, until: float, pause: float, log: Log) -> None:
    """One visitor: arrives a little after the others, mostly moves sliders, sometimes looks at another page."""
    await asyncio.sleep(number * 0.5)
    address = url.replace("http", "ws", 1) + "/_stcore/stream"
    try:
        async with connect(address, subprotocols=["streamlit"], max_size=None, origin=url) as socket:  # pyright: ignore[reportArgumentType]
            visitor = Visitor(number, socket, log)
            await visitor.open(MERGE, "method=dc_merge&smoothing=linear")
            await visitor.move(leaves=False)
            while time.monotonic() < until:
                if random.random() < 0.2:
                    await visitor.open(random.choice(OTHERS))
                    await asyncio.sleep(pause * random.random())
                    await visitor.open(MERGE)
                await visitor.move(leaves=random.random() < LEAVES)
                await asyncio.sleep(pause * 2 * random.random())
    except (WebSocketException, OSError) as error:
        log.errors.append(f"visitor {number} was cut off: {error}")


def memory_of(group: int) -> int:
    """Resident bytes of a process group; 0 where the system does not tell."""
    found = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(entry.name)) == group:
                found += int((entry / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            continue
    return found


def share_below(values: Sequence[float], share: float) -> float:
    """The smallest value that a share of all does not exceed: 0.95 gives the p95."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


async def watch(log: Log, group: int | None, start: float, until: float) -> None:
    """A line four times a minute."""
    while (now := time.monotonic()) < until:
        await asyncio.sleep(min(REPORT_SECONDS, max(0.1, until - now)))
        passed = time.monotonic() - start
        told = f"{passed / 60:5.1f} min  {len(log.seconds):5d} answers  p95 {share_below(log.seconds, 0.95):5.1f} s"
        if group is not None:
            log.memory.append((passed, memory_of(group)))
            told += f"  {log.memory[-1][1] / 2**20:6.0f} MiB"
        print(f"{told}  {len(log.errors)} errors", flush=True)


def rise_of(memory: Sequence[tuple[float, int]]) -> float:
    """How much more the last third after the warm-up takes than the first third, as a share; 0 for too few values."""
    later = [size for passed, size in memory if passed >= WARM_SECONDS]
    third = len(later) // 3
    return sum(later[-third:]) / sum(later[:third]) - 1 if third and sum(later[:third]) else 0.0


async def soak(url: str, visitors: int, seconds: float, pause: float, group: int | None) -> Log:
    """All visitors at once, for so long. ``group``: the server's process group, where its memory is to be seen."""
    log, start = Log(), time.monotonic()
    until = start + seconds
    visits = [visit(number, url, until, pause, log) for number in range(visitors)]
    await asyncio.gather(watch(log, group, start, until), *visits)
    return log


def told(log: Log) -> tuple[str, bool]:
    """The finding in words, and whether all is well."""
    rise = rise_of(log.memory)
    wrong = [*log.errors, *([f"memory rose by {rise:.0%} after the warm-up"] if rise > RISE else [])]
    middle, slow = (share_below(log.seconds, share) for share in (0.5, 0.95))
    lines = [f"{len(log.seconds)} answers: median {middle:.1f} s, p95 {slow:.1f} s; {len(log.seen)} pairs of ρ and α were seen"]
    lines.append(f"first pages: at most {max(log.first, default=0.0):.1f} s")
    if log.memory:
        lines.append(f"memory: {', '.join(f'{size / 2**20:.0f}' for _, size in log.memory)} MiB; change {rise:+.1%}")
    return "\n".join([*lines, *wrong[:20], f"{len(wrong)} faults"]), not wrong


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__)
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--pause", type=float, default=3.0, help="seconds that a visitor looks at a page, on average")
    parser.add_argument("--url", help="a running dashboard, whose memory is not seen, instead of starting one")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    random.seed(options.seed)
    seconds = options.minutes * 60
    if options.url:
        log = asyncio.run(soak(options.url.rstrip("/"), options.visitors, seconds, options.pause, None))
    else:
        with running_app() as app:
            log = asyncio.run(soak(app.url, options.visitors, seconds, options.pause, os.getpgid(app.process.pid)))
    text, well = told(log)
    print(text)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
