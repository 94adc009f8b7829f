"""Figures of the SDE explorer: `python -m benchmarks explorer`.

In headless Chromium, whose compositor works in software, a frame is measured as the processor time that the page's
thread needs to draw it (`App.draw`: exact density, contours, particles, trails), without the compositor; the clock's
time of it stands beside it, and says as much about how busy the machine is. A response is the clock's time from a
change of a setting to the end of the next drawn frame.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from undiffuse.data.toys import digits
from undiffuse.explorer import mixture, page, write_page
from undiffuse.metrics import agreement, classifier
from undiffuse.processes import VP
from undiffuse.samplers.driver import sample

_FRAMES = """(n) => {
  const {view} = app, times = [];
  for (let i = 0; i < n; i++) {
    const began = performance.now();
    app.state = view.state = {...app.state, t: 0.02 + 0.96 * i / n};
    app.lastNumbers = Infinity;
    app.draw(0);
    times.push(performance.now() - began);
  }
  app.lastNumbers = 0;
  return times;
}"""
_OPEN = """async (hash) => {
  app.visit(hash);
  while (app.working) await new Promise(requestAnimationFrame);
}"""
_RESPONSES = """async (hash) => {
  app.visit(hash);
  while (app.working) await new Promise(requestAnimationFrame);
  const law = app.state.view === "river" ? "trimodal" : "moons";
  const changes = [{n: 128}, {eta: 0.4}, {seed: 5}, {sde: "subvp"}, {law}, {p: 2000}, {gamma: 0.8}];
  const times = [];
  for (const change of changes) {
    const began = performance.now(), drawn = app.lastDraw;
    app.set(change);
    while (app.lastDraw === drawn) await new Promise(requestAnimationFrame);
    times.push(performance.now() - began);
    while (app.working) await new Promise(requestAnimationFrame);
  }
  return times;
}"""
_COMPLETION = """async () => {
  app.visit("#v=1&view=digits&mode=complete");
  while (app.working) await new Promise(requestAnimationFrame);
  const began = performance.now();
  app.set({seen: "003cga0002eccc0005a0ab000001e920" + "-".repeat(32)});
  while (app.working || app.dirty) await new Promise(requestAnimationFrame);
  return performance.now() - began;
}"""


def table() -> Iterator[str]:
    """The size of the page, frames, responses, the completion of a digit, and whether digits are seen as asked."""
    yield f"page: {len(page().encode()) / 1000:.0f} kB"
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = write_page(Path(folder) / "explorer.html")
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        opened = playwright.chromium.launch(executable_path=chromium, args=[] if os.geteuid() else ["--no-sandbox"])
        yield from _measured(opened.new_page(viewport={"width": 1280, "height": 800}), path.as_uri())
        opened.close()
    yield _agreement()


def _measured(tab: Any, address: str) -> Iterator[str]:
    tab.goto(address)
    session = tab.context.new_cdp_session(tab)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    for hash in ("#v=1&view=cloud&p=2000", "#v=1&view=cloud&p=2000&law=swiss", "#v=1&view=river&p=2000"):
        tab.evaluate(_OPEN, hash)
        yield f"{hash}: a frame takes {_frame(tab, session)}"
    for hash in ("#v=1&view=cloud&p=1000", "#v=1&view=river&p=200"):
        yield f"{hash}: a change is seen after {_spread(tab.evaluate(_RESPONSES, hash))}"
    yield f"class posterior and eight completions of half a digit: {tab.evaluate(_COMPLETION):.0f} ms"


def _frame(tab: Any, session: Any, rounds: int = 9, frames: int = 12) -> str:
    """The median over rounds of the processor time of a frame, and the spread of its time by the clock."""

    def busy() -> float:
        found = session.send("Performance.getMetrics")["metrics"]
        return float(next(entry["value"] for entry in found if entry["name"] == "TaskDuration"))

    costs, times = list[float](), list[float]()
    for _ in range(rounds):
        before = busy()
        times += tab.evaluate(_FRAMES, frames)
        costs.append(1000 * (busy() - before) / frames)
    return f"{statistics.median(costs):.1f} ms of the processor; by the clock {_spread(times)}"


def _spread(times: list[float]) -> str:
    high = sorted(times)[int(0.95 * (len(times) - 1))]
    return f"median {statistics.median(times):.1f} ms, 95 % within {high:.1f} ms"


def _agreement(n: int = 200) -> str:
    """Digits drawn as the page draws them, read by a classifier that was trained on the real ones."""
    data, fitted, sde = digits(), mixture("digits"), VP()
    assert data.y is not None
    read = classifier(data.x.double() / 8 - 1, data.y)
    digits_by_class = [sample(fitted.given(k).denoiser(sde), n, "dpmpp_2m_sde", 30, seed=k).x for k in range(10)]
    label = torch.arange(10).repeat_interleave(n)
    value, error = agreement(read(torch.cat(digits_by_class)), label)
    return f"digits read as the class asked for: {100 * value:.1f} % ± {100 * error:.1f} of {len(label)}"
