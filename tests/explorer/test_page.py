"""The page in a browser without network: every scene draws, says what it shows, and reproduces in Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explorer.engine import browser, evaluated

from undiffuse.explorer import page, url, write_page

VIEWS = ("river", "cloud", "compare", "lab", "guidance", "question", "digits", "latent", "proof")
SEEN = "003cga0002eccc0005a0ab000001e920" + "-" * 32
SCENES = {
    "river": "#v=1&view=river&p=60",
    "river, ODE": "#v=1&view=river&method=heun&n=20&sde=ve:0.01,30&p=50&seed=3",
    "river, one path": "#v=1&view=river&path=1&n=32&p=40&eta=0.5&seed=9",
    "river, forward": "#v=1&view=river&dir=forward&p=50&n=40&law=trimodal",
    "cloud": "#v=1&view=cloud&p=80&n=24",
    "cloud, corrected": "#v=1&view=cloud&law=moons&method=predictor_corrector&corr=2&p=60&n=20&sde=subvp:0.1,15",
    "cloud, own law": "#v=1&view=cloud&law=mix:0.3,-1,0,0.4,0.1,0.3;0.7,1.2,0.5,0.2,0,0.5&p=60&method=dpmpp_2m&n=16",
    "photocopier": "#v=1&view=cloud&law=points:0.05&p=40&n=32&method=ancestral",
    "compare": "#v=1&view=compare&p=30&panes=rectified_flow|cosine&method=ddim",
    "guidance": "#v=1&view=guidance&p=60&w=3&low=0.05&high=0.8",
    "question": "#v=1&view=question&p=60&angle=30&y=0.7&answers=exact",
    "river, faulty score": "#v=1&view=river&score=half&p=40&n=24&seed=2",
    "sign lab": "#v=1&view=compare&panes=vp~euler_maruyama~1~both|vp~euler_maruyama~1&n=32&grid=time&p=20",
    "latent": "#v=1&view=latent&n=16&a=-1,0.4&b=1.2,-0.3",
    "proof": "#v=1&view=proof&p=50&dt=0.02&t=0.4&law=trimodal&seed=8",
    "digits, drawn and guided": "#v=1&view=digits&label=2&w=2.5&p=6&n=12",
    "digits, photocopied": "#v=1&view=digits&label=7&h=0.12&p=5&n=12&seed=3",
    "digits": f"#v=1&view=digits&mode=complete&seen={SEEN}&n=20&seed=4",
}
PARTICLES = "() => Array.from(app.view.run.frames ? app.view.run.frames.at(-1) : [])"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("page") / "explorer.html")


class Opened:
    """A page from a file, offline, with what it complained of and what it asked the network for."""

    def __init__(self, chromium: Any, file: Path, hash: str, **options: Any) -> None:
        self.context = chromium.new_context(**{"viewport": {"width": 1000, "height": 700}, "offline": True, **options})
        self.page, self.complaints, self.requests = self.context.new_page(), [], []
        self.page.on("console", self.note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.goto(file.as_uri() + hash)
        self.settle()

    def note(self, message: Any) -> None:
        """Keep errors and warnings, but not the one about these tests' own looks at the pixels."""
        if message.type in ("error", "warning") and "willReadFrequently" not in message.text:
            self.complaints.append(message.text)

    def settle(self) -> None:
        self.page.wait_for_function("window.app && !app.working && !app.dirty", timeout=30_000)

    def colours(self) -> int:
        """How many different colours the picture has on a lattice."""
        return self.page.evaluate(
            "() => { const {ctx, canvas} = app, {data} = ctx.getImageData(0, 0, canvas.width, canvas.height);"
            "const found = new Set();"
            "for (let i = 0; i < data.length; i += 4 * 37) found.add(data.slice(i, i + 3).join());"
            "return found.size; }"
        )

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


def test_the_page_is_one_small_file_that_asks_for_nothing() -> None:
    text = page()
    assert len(text.encode()) <= 400_000
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"|@import|url\((?!data:)', text) == []
    assert "innerHTML" not in text and "insertAdjacentHTML" not in text and "document.write" not in text


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_the_copied_python_reproduces_the_particles(name: str, chromium: Any, file: Path) -> None:
    with Opened(chromium, file, SCENES[name]) as opened:
        got = np.array(opened.page.evaluate(PARTICLES))
        code = opened.page.evaluate("() => undiffuse.model.codeOf(app.state)")
        assert opened.complaints == [] and opened.page.inner_text(".notice") == ""
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert len([line for line in code.splitlines() if line]) <= 20
    assert np.abs(np.asarray(scope["x"]).ravel() - got).max() < 1e-6


@pytest.mark.slow
def test_every_preset_draws_without_a_complaint(chromium: Any, file: Path) -> None:
    presets = evaluated("model => model.PRESETS", None)
    assert len(presets) == 10
    for i, (name, words, hash) in enumerate(presets):
        with Opened(chromium, file, hash, color_scheme=("light", "dark")[i % 2]) as opened:
            assert opened.complaints == [] and opened.page.inner_text(".notice") == "", name
            assert [r for r in opened.requests if not r.startswith(("file:", "blob:", "data:"))] == []
            assert opened.colours() > 20, name
            assert opened.page.inner_text(".sentence").endswith(".") and words.endswith(".")
            assert len(opened.page.get_attribute("canvas", "aria-label") or "") > 40


@pytest.mark.slow
def test_the_keyboard_does_what_the_pointer_does(chromium: Any, file: Path) -> None:
    with Opened(chromium, file, "#v=1&view=river&p=20&n=64") as opened:
        keys = opened.page.keyboard
        opened.page.evaluate("() => document.activeElement.blur()")
        keys.press("[")
        assert opened.page.evaluate("app.state.n") == 32
        keys.press("]")
        keys.press("r")
        assert opened.page.evaluate("app.state.n") == 64 and opened.page.evaluate("app.state.seed") != 0
        opened.page.evaluate("app.set({t: 0.5})")
        keys.press("ArrowRight")
        assert opened.page.evaluate("app.state.t") < 0.5
        keys.press("7")
        assert opened.page.evaluate("app.state.view") == "digits"
        keys.press("6")
        opened.settle()
        before = opened.page.evaluate("[app.state.y, app.state.angle]")
        opened.page.focus("button.handle >> nth=0")
        keys.press("Shift+ArrowUp")
        opened.page.focus("button.handle >> nth=1")
        keys.press("ArrowRight")
        after = opened.page.evaluate("[app.state.y, app.state.angle]")
        assert after == [pytest.approx(before[0] + 1), before[1] + 5]
        assert "y=" in opened.page.evaluate("location.hash") and opened.complaints == []


@pytest.mark.slow
def test_the_ends_of_a_dropped_path_are_moved_by_keyboard_and_pointer(chromium: Any, file: Path) -> None:
    with Opened(chromium, file, "#v=1&view=river&p=10&n=8&drop=0.3,0.4") as opened:
        ends = "() => [app.view.dropped.back.at(-1)[1], app.view.dropped.on.at(-1)[1], app.view.dropped.t]"
        data, noise, t = opened.page.evaluate(ends)
        opened.page.focus("button.handle >> nth=1")
        opened.page.keyboard.press("Shift+ArrowUp")
        opened.settle()
        moved, lifted, same = opened.page.evaluate(ends)
        assert same == t and lifted > noise and moved == pytest.approx(data + 1, abs=2e-3)
        box = opened.page.locator("button.handle >> nth=2").bounding_box()
        opened.page.mouse.move(box["x"] + 14, box["y"] + 14)
        opened.page.mouse.down()
        opened.page.mouse.move(box["x"] + 14, box["y"] + 74)
        opened.page.mouse.up()
        opened.settle()
        assert opened.page.evaluate(ends)[1] < lifted - 0.2 and opened.complaints == []
        assert "drop=0.3," in opened.page.evaluate("location.hash")


@pytest.mark.slow
def test_modes_are_edited_by_handles_and_by_numbers(chromium: Any, file: Path) -> None:
    law = "mix:0.5,-1,0,0.4,0,0.4;0.3,1,0,0.64,0,0.16;0.2,0,1,0.2,0,0.2"
    with Opened(chromium, file, f"#v=1&view=cloud&p=20&n=8&edit=2&law={law}") as opened:
        mode = "(k) => undiffuse.model.modeOf(app.view.scene.law, k)"
        for nth, key in ((3, "ArrowRight"), (3, "ArrowUp"), (5, "ArrowRight")):
            opened.page.focus(f"button.handle >> nth={nth}")
            opened.page.keyboard.press(key)
        found = opened.page.evaluate(mode, 1)
        wanted = {"weight": 0.32, "x": 1, "y": 0, "long": 0.85, "wide": 0.4, "angle": 5}
        assert found == pytest.approx(wanted, abs=2e-3)
        assert opened.page.evaluate(mode, 0)["weight"] == pytest.approx(0.5 / 0.7 * 0.68, abs=1e-3)
        opened.page.fill("[aria-label='Width across, exact value']", "0.5")
        opened.page.keyboard.press("Tab")
        assert opened.page.evaluate(mode, 1)["wide"] == pytest.approx(0.5, abs=1e-3)
        opened.page.click("button:text-is('Another mode')")
        assert opened.page.evaluate("[app.view.scene.law.K, app.state.edit]") == [4, 4]
        opened.page.click("button:text-is('Remove this one')")
        assert opened.page.evaluate("app.view.scene.law.K") == 3 and opened.complaints == []
        state = opened.page.evaluate("() => undiffuse.model.parse(location.hash).state.law === app.state.law")
        assert state is True


@pytest.mark.slow
def test_what_the_score_explains_of_an_increment_is_what_is_taken_away(chromium: Any, file: Path) -> None:
    slope = "() => [app.view.slope().value, app.view.slope().error, -app.view.g * app.view.length]"
    with Opened(chromium, file, "#v=1&view=proof&p=20000&dt=0.005") as opened:
        value, error, expected = opened.page.evaluate(slope)
        assert abs(value - expected) < 3 * error and value < -5 * error
        opened.page.check("#c-minus")
        value, error, _ = opened.page.evaluate(slope)
        assert abs(value) < 3 * error and "minus=1" in opened.page.evaluate("location.hash")
        assert opened.complaints == []


@pytest.mark.slow
def test_a_film_is_the_pictures_of_its_times(chromium: Any, file: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    with Opened(chromium, file, "#v=1&view=river&p=30&n=16", viewport={"width": 900, "height": 600}) as opened:
        with opened.page.expect_download() as waiting:
            opened.page.click("text=Share")
            opened.page.click("text=Save a film")
        waiting.value.save_as(tmp_path / "film.gif")
        opened.page.wait_for_function("!app.dirty")
        data = opened.page.evaluate(
            "() => { const c = document.createElement('canvas'), x = c.getContext('2d'), {width, height} = app.canvas;"
            "const w = Math.round(width * Math.min(1, 560 / width)), h = Math.round(height * Math.min(1, 560 / width));"
            "Object.assign(c, {width: w, height: h}); x.drawImage(app.canvas, 0, 0, w, h);"
            "return [w, h, Array.from(x.getImageData(0, 0, w, h).data)]; }"
        )
        assert opened.complaints == []
    film = image.open(tmp_path / "film.gif")
    w, h, pixels = data
    assert film.size == (w, h) and film.n_frames == 31 and film.info["loop"] == 0
    film.seek(30)
    last, wanted = np.asarray(film.convert("RGB"), float), np.array(pixels, float).reshape(h, w, 4)[..., :3]
    assert np.abs(last - wanted).mean() < 6  # of 255: 256 colours, and lines drawn small instead of made small
    film.seek(0)
    assert np.abs(np.asarray(film.convert("RGB"), float) - last).mean() > 4  # another time is another picture


@pytest.mark.slow
def test_pixels_are_painted_by_keyboard_and_pointer(chromium: Any, file: Path) -> None:
    with Opened(chromium, file, "#v=1&view=digits&mode=complete") as opened:
        opened.page.evaluate(  # in one go, so that no picture is drawn between two keys
            "() => { const handle = document.querySelector('button.handle'); handle.focus();"
            "for (const key of ['Enter', 'ArrowRight', 'Enter'])"
            " handle.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true})); }"
        )
        assert opened.page.evaluate("app.state.seen").replace("-", "") == "gg"
        opened.page.keyboard.press("ArrowRight")
        opened.page.keyboard.press("Enter")
        assert opened.page.evaluate("app.state.seen").replace("-", "") == "ggg"
        box = opened.page.locator("canvas").bounding_box()
        opened.page.mouse.click(box["x"] + 30, box["y"] + 40)
        assert opened.page.evaluate("app.state.seen").count("g") == 4
        opened.settle()
        assert sum(opened.page.evaluate("Array.from(app.view.classes)")) == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize(("dark", "views"), [("light", VIEWS), ("dark", ("river", "digits"))])
def test_axe_finds_no_serious_violation(dark: str, views: tuple[str, ...], chromium: Any, file: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    with Opened(chromium, file, "#v=1&view=river&p=20", color_scheme=dark) as opened:
        for view in views:
            opened.page.click(f"#tab-{view}")
            opened.page.evaluate("app.set({p: 12})")
            found = axe.run(opened.page).response["violations"]
            serious = [(v["id"], v["nodes"][0]["html"][:90]) for v in found if v["impact"] in ("serious", "critical")]
            assert serious == [], view


@pytest.mark.slow
def test_nothing_moves_by_itself_where_motion_is_unwanted(chromium: Any, file: Path) -> None:
    with Opened(chromium, file, "#v=1&view=river&p=20", reduced_motion="reduce") as opened:
        opened.page.click(".play")
        opened.page.wait_for_timeout(3000)
        times = opened.page.evaluate("app.state.t")
        assert times in (pytest.approx(0.8), pytest.approx(0.6), pytest.approx(0.4))  # a few jumps, no film


@pytest.mark.slow
def test_nothing_is_wider_than_a_telephone(chromium: Any, file: Path) -> None:
    with Opened(chromium, file, "#v=1&view=river&p=20", viewport={"width": 320, "height": 640}) as opened:
        for view in VIEWS:
            opened.page.click(f"#tab-{view}")
            opened.page.evaluate("app.set({p: 12})")
            assert opened.page.evaluate("document.documentElement.scrollWidth") <= 320, view
        assert opened.complaints == []


def test_a_link_of_python_is_understood() -> None:
    state = evaluated(
        "(model, hash) => model.parse(hash)", url("cloud", "", law="swiss", sde="vp:0.2,10", n=48, path=True)
    )
    assert state["ignored"] == []
    assert {k: state["state"][k] for k in ("view", "law", "sde", "n", "path")} == {
        "view": "cloud",
        "law": "swiss",
        "sde": "vp:0.2,10",
        "n": 48,
        "path": True,
    }


def test_unknown_keys_and_wrong_values_are_named() -> None:
    found = evaluated("(model, hash) => model.parse(hash)", "#v=1&view=river&colour=red&n=0&eta=x&law=<b>&t=0.5")
    assert found["ignored"] == ["colour=red", "n=0", "eta=x", "law=<b>"] and found["state"]["t"] == 0.5


RANDOM_STATES = """(model, seed) => {
  const u = model.uniform(seed, 7, 0, 0, 200000); let at = 0;
  const next = () => u[at++], pick = (list) => list[Math.floor(next() * list.length)];
  const laws = {river: ["bimodal", "trimodal", "mix:0.5,-1.5,0.3;0.5,2,0.25"],
    cloud: ["swiss", "points:0.07", "mix:1,0,0,1,0.1,2"]};
  const texts = {law: (view) => pick((laws[view] ?? laws[model.WANTED[view]?.includes(1) ? "river" : "cloud"])),
    sde: () => pick(["vp", "ve:0.02,30", "subvp:0.1,9.5", "rectified_flow", "ou:0.7,1.1"]),
    drop: () => pick(["", "0.4,-1.2"]), a: () => pick(["", "0.4,-1.2"]), b: () => pick(["", "-1,2.5"]),
    panes: () => pick(["vp|ve", "vp~heun~0|edm:40|cosine:0.01"]),
    seen: () => pick(["", "0g".repeat(32), "-8".repeat(32)])};
  const value = (key, field, view) => ({
    number: () => Number((field.low + next() * (field.high - field.low)).toPrecision(5)),
    whole: () => field.low + Math.floor(next() * (field.high - field.low + 1)),
    choice: () => (key === "view" ? view : pick(field.options)), flag: () => next() < 0.5,
    list: () => field.options.filter(() => next() < 0.4), text: () => texts[key](view)})[field.kind]();
  const wrong = [];
  for (let i = 0; i < 1000; i++) {
    const view = pick(Object.keys(model.VIEWS)), keep = model.defaults(view);
    const state = Object.fromEntries(Object.entries(model.FIELDS).map(([key, field]) =>
      [key, next() < 0.5 ? keep[key] : value(key, field, view)]));
    const hash = model.format(state), back = model.parse(hash);
    if (JSON.stringify(back.state) !== JSON.stringify(state) || back.ignored.length) wrong.push([hash, back]);
  }
  return wrong.slice(0, 3);
}"""


def test_parsing_a_formatted_state_gives_the_state() -> None:
    assert evaluated(RANDOM_STATES, 5) == []


VISIT = "async (hash) => { app.visit(hash); for (let i = 0; i < 4; i++) await new Promise(requestAnimationFrame); }"
LINKS = sorted(
    {
        found.group(1)
        for folder in ("docs", "tutorials", ".")
        for file in (Path(__file__).parents[2] / folder).glob("*.[mp][dy]")
        for found in re.finditer(r"explorer\.html(#v=1&[^\s)\"'`]*)", file.read_text("utf-8"))
    }
)


def test_every_link_of_the_documentation_is_understood() -> None:
    found = evaluated("(model, hashes) => hashes.map((hash) => [model.parse(hash), hash])", LINKS)
    assert len(LINKS) >= 10
    assert [(hash, parsed["ignored"]) for parsed, hash in found if parsed["ignored"]] == []
    assert [hash for parsed, hash in found if f"view={parsed['state']['view']}" not in hash] == []


@pytest.mark.slow
def test_every_link_of_the_documentation_opens_its_scene(chromium: Any, file: Path) -> None:
    with Opened(chromium, file, "#v=1&view=river&p=2") as opened:
        for hash in LINKS:
            opened.page.evaluate(VISIT, hash)
            assert opened.page.evaluate("app.state.view") in hash and opened.colours() > 10, hash
        assert opened.complaints == []
