"""Figures of the SDE explorer: `python -m benchmarks explorer`.

In headless Chromium, whose compositor works in software, a frame is measured as the time that the page's own code
needs for it (Pen, contours, particles: `App.draw`); the distance between animation frames is given beside it. A
response is the time from a change of a setting to the end of the next drawn frame.
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

from undiffuse.data.digits import digits
from undiffuse.explorer import law, page, write_page
from undiffuse.metrics import agreement, classifier
from undiffuse.processes import VP
from undiffuse.sampling import sample

_FRAMES = """async (hash) => {
  app.visit(hash);
  while (app.working) await new Promise(requestAnimationFrame);
  app.frames.length = 0;
  const gaps = [];
  let last = performance.now();
  for (let i = 0; i < 60; i++) {
    app.set({t: 0.02 + 0.96 * i / 60});
    await new Promise(requestAnimationFrame);
    gaps.push(performance.now() - last);
    last = performance.now();
  }
  return {draw: [...app.frames], gaps};
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
    for hash in ("#v=1&view=cloud&p=2000", "#v=1&view=cloud&p=2000&law=swiss", "#v=1&view=river&p=2000"):
        found = tab.evaluate(_FRAMES, hash)
        yield f"{hash}: drawing {_spread(found['draw'])}; between animation frames {_spread(found['gaps'])}"
    for hash in ("#v=1&view=cloud&p=1000", "#v=1&view=river&p=200"):
        yield f"{hash}: a change is seen after {_spread(tab.evaluate(_RESPONSES, hash))}"
    yield f"class posterior and eight completions of half a digit: {tab.evaluate(_COMPLETION):.0f} ms"


def _spread(times: list[float]) -> str:
    high = sorted(times)[int(0.95 * (len(times) - 1))]
    return f"median {statistics.median(times):.1f} ms, 95 % within {high:.1f} ms"


def _agreement(n: int = 200) -> str:
    """Digits drawn as the page draws them, read by a classifier that was trained on the real ones."""
    data, mixture, sde = digits(), law("digits"), VP()
    assert data.y is not None
    read = classifier(data.x.double() / 8 - 1, data.y)
    drawn = [sample(mixture.given(k).denoiser(sde), n, "dpmpp_2m_sde", 30, seed=k).x for k in range(10)]
    asked = torch.arange(10).repeat_interleave(n)
    value, error = agreement(read(torch.cat(drawn)), asked)
    return f"digits read as the class asked for: {100 * value:.1f} % ± {100 * error:.1f} of {len(asked)}"
