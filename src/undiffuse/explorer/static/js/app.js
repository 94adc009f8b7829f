// The page: header, stage, transport and rail around one view; state in, address and picture out.
import {button, copy, download, el} from "./dom.js";
import {Rail} from "./controls.js";
import {Pen} from "./pen.js";
import {showHelp, showPython, showScenes, showTable} from "./dialogs.js";
import {VIEWS, defaults, fitting, format, parse} from "./state.js";
import {Handles} from "./handles.js";
import {onKey} from "./keys.js";
import {csv, film, picture, saveText} from "./save.js";

const BUDGET = 14,
  SPOKEN_EVERY = 2000,
  QUIET = 250;

export class App {
  constructor(root, views, options = {}) {
    Object.assign(this, {root, views, options, dirty: true, playing: false, speed: 1, made: {}, frames: []});
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.darkness = matchMedia("(prefers-color-scheme: dark)");
    this.darkness.addEventListener("change", () => this.recolour());
    this.build();
    const {state, ignored} = parse(options.hash ?? location.hash);
    this.enter(state, ignored);
    if (!options.silent) addEventListener("hashchange", () => this.visit(location.hash));
    new ResizeObserver(() => this.resize()).observe(this.stage);
    (options.silent ? root : document).addEventListener("keydown", (event) => onKey(this, event));
    requestAnimationFrame((now) => this.tick(now));
  }

  get dark() {
    return this.theme ? this.theme === "dark" : this.darkness.matches;
  }

  build() {
    this.tabs = Object.entries(VIEWS)
      .filter(([name]) => this.views[name])
      .map(([name, title]) =>
        el("button", {
          "type": "button",
          "role": "tab",
          "id": `tab-${name}`,
          "text": title,
          "aria-controls": "stage",
          "onclick": () => this.open(name),
        }),
      );
    this.canvas = el("canvas", {"role": "img", "id": "picture", "aria-label": "The picture is being drawn"});
    this.handles = new Handles(this);
    this.stage = el("div", {className: "stage", id: "stage", role: "tabpanel"}, this.canvas, this.handles.root);
    this.said = el("p", {className: "sentence"});
    this.notice = el("p", {className: "notice", role: "status"});
    this.spoken = el("div", {"className": "unseen", "aria-live": "polite"});
    this.figures = el("dl", {className: "numbers"});
    this.rail = new Rail(this);
    this.dialog = el("dialog", {"aria-labelledby": "dialog-title"});
    const settings = el(
      "details",
      {className: "settings", open: innerWidth >= 800},
      el("summary", {text: "Settings"}),
      this.rail.root,
    );
    this.root.replaceChildren(
      this.header(),
      el(
        "main",
        {},
        el("div", {className: "column"}, this.said, this.notice, this.stage, this.transport(), this.figures),
        settings,
      ),
      this.spoken,
      this.dialog,
    );
  }

  header() {
    const share = el(
      "details",
      {className: "menu"},
      el("summary", {text: "Share"}),
      el(
        "div",
        {className: "items"},
        ...[
          ["Copy the link", () => this.copyLink()],
          ["Copy as Python", () => showPython(this)],
          ["Save the picture (PNG)", () => this.savePicture()],
          ["Save a film (GIF)", () => this.saveFilm()],
          ["Save the particles (CSV)", () => this.saveParticles()],
          ["Show the numbers", () => showTable(this)],
        ].map(([text, act]) =>
          el("button", {
            type: "button",
            text,
            onclick: () => {
              share.open = false;
              act();
            },
          }),
        ),
      ),
    );
    return el(
      "header",
      {},
      el("h1", {}, el("span", {text: "SDE explorer"})),
      el("div", {"className": "tabs", "role": "tablist", "aria-label": "Views"}, ...this.tabs),
      el(
        "div",
        {className: "tools"},
        el("button", {type: "button", text: "Scenes", onclick: () => showScenes(this)}),
        share,
        button("◐", "Light or dark", () => {
          this.theme = this.dark ? "light" : "dark";
          this.recolour();
        }),
        button("?", "Keyboard shortcuts", () => showHelp(this)),
      ),
    );
  }

  transport() {
    this.playButton = button("▶", "Play", () => this.play(!this.playing), {className: "play"});
    this.scrubber = el("input", {
      "type": "range",
      "min": 0,
      "max": 1,
      "step": 0.001,
      "aria-label": "Time t as a fraction of T",
      "oninput": () => this.set({t: Number(this.scrubber.value)}),
    });
    this.clock = el("output", {className: "clock"});
    const speed = el(
      "select",
      {
        "aria-label": "Speed",
        "onchange": () => {
          this.speed = Number(speed.value);
        },
      },
      ...[0.1, 0.25, 0.5, 1, 2, 4].map((v) => el("option", {value: v, text: `${v}×`, selected: v === 1})),
    );
    this.bar = el(
      "div",
      {className: "transport"},
      this.playButton,
      button("‹", "One step back", () => this.step(-1)),
      button("›", "One step forward", () => this.step(1)),
      this.scrubber,
      this.clock,
      speed,
    );
    return this.bar;
  }

  // A state from the address, from a scene or from the start.
  enter(state, ignored = []) {
    this.notice.textContent = ignored.length ? `Unknown settings ignored: ${ignored.join(", ")}.` : "";
    this.state = this.views[state.view] ? fitting(state) : defaults("river");
    this.renew();
  }

  // An address from outside, such as a notebook's.
  visit(hash) {
    if (hash === format(this.state)) return;
    const {state, ignored} = parse(hash);
    this.enter(state, ignored);
  }

  open(name) {
    const {seed, sde} = this.state;
    this.enter({...defaults(name), seed, ...(name === "digits" ? {} : {sde})});
    this.remember(true);
  }

  // A change by the user.
  set(patch) {
    this.state = fitting({...this.state, ...patch});
    this.remember(false);
    const keys = Object.keys(patch);
    if (keys.length === 1 && keys[0] === "t") this.moved();
    else this.renew();
  }

  remember(push) {
    this.options.changed?.(format(this.state));
    if (this.options.silent) return;
    const hash = format(this.state) + (this.options.embed ? "&embed=1" : "");
    try {
      history[push ? "pushState" : "replaceState"](null, "", hash);
    } catch {
      /* a page without an address */
    }
  }

  renew() {
    const {view} = this.state;
    this.view = this.made[view] ??= new this.views[view](this);
    this.view.set(this.state);
    this.tabs.forEach((tab) => tab.setAttribute("aria-selected", tab.id === `tab-${view}`));
    this.stage.setAttribute("aria-labelledby", `tab-${view}`);
    this.rail.show(this.state, this.views[view].controls);
    this.bar.hidden = Boolean(this.view.timeless);
    this.working = true;
    this.moved();
  }

  moved() {
    const {t} = this.state;
    this.view.state = this.state;
    this.scrubber.value = t;
    const time = t * (this.view.scene?.sde.T ?? 1);
    this.clock.textContent = `t = ${time.toFixed(3)}`;
    this.scrubber.setAttribute("aria-valuetext", `t = ${time.toFixed(3)}`);
    this.dirty = true;
  }

  refresh() {
    this.rail.show(this.state, this.views[this.state.view].controls);
  }

  newSeed() {
    this.set({seed: ((this.state.seed * 1664525 + 1013904223) % 2 ** 32) % 100000});
  }

  play(on) {
    this.playing = on;
    const end = this.state.dir === "forward" ? 1 : 0;
    if (on && this.state.t === end) this.set({t: 1 - end});
    this.playButton.textContent = on ? "❚❚" : "▶";
    this.playButton.setAttribute("aria-label", on ? "Pause" : "Play");
  }

  step(sign) {
    const times = this.view.run?.stamps,
      T = this.view.scene?.sde.T ?? 1,
      now = this.state.t;
    const places = (times ?? Array.from({length: 51}, (_, i) => i / 50))
      .map((s) => (times ? s / T : s))
      .sort((a, b) => a - b);
    const forward = sign > 0 === (this.state.dir === "forward");
    const next = forward ? places.find((s) => s > now + 1e-6) : places.filter((s) => s < now - 1e-6).at(-1);
    if (next !== undefined) this.set({t: Math.min(1, Math.max(0, next))});
  }

  // One turn of the loop: time passes, work is done for a few milliseconds, the picture is drawn if it changed.
  tick(now) {
    if (this.playing) this.pass(now);
    this.lastTick = now;
    if (this.working) {
      const before = performance.now();
      this.working = this.view.work(before + BUDGET);
      if (!this.working || now - (this.lastDraw ?? 0) > 50) this.dirty = true;
      if (!this.working) this.tell(now, true);
    }
    if (this.dirty && this.ctx) this.draw(now);
    else if (this.untold) this.tell(now, false);
    requestAnimationFrame((next) => this.tick(next));
  }

  pass(now) {
    const {dir, t} = this.state,
      sign = dir === "forward" ? 1 : -1,
      elapsed = Math.min(100, now - (this.lastTick ?? now)) / 1000;
    if (this.still.matches) {
      if (now - (this.lastJump ?? 0) < 1200) return;
      this.lastJump = now;
    }
    const next = t + sign * (this.still.matches ? 0.2 : (elapsed * this.speed) / 6);
    if (next <= 0 || next >= 1) this.play(false);
    this.set({t: Math.min(1, Math.max(0, next))});
  }

  draw(now) {
    const began = performance.now(),
      {ctx, ratio} = this,
      pen = new Pen(ctx, this.canvas.width / ratio, this.canvas.height / ratio, this.dark);
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clear();
    this.view.draw(pen);
    this.dirty = false;
    this.lastDraw = now;
    this.frames.push(performance.now() - began);
    if (this.frames.length > 600) this.frames.shift();
    this.handles.place();
    this.tell(now, false);
  }

  // Words and numbers beside the picture; what a screen reader hears at most every two seconds.
  tell(now, force) {
    if (this.said.textContent !== this.view.sentence()) this.said.textContent = this.view.sentence();
    this.untold = !force && (this.working || now - (this.lastNumbers ?? -Infinity) < QUIET);
    if (this.untold) return;
    this.lastNumbers = now;
    this.figures.replaceChildren(
      ...this.view.numbers().map(([name, value]) => el("div", {}, el("dt", {text: name}), el("dd", {text: value}))),
    );
    const words = this.view.describe();
    this.canvas.setAttribute("aria-label", words);
    if (now - (this.lastSpoken ?? -SPOKEN_EVERY) >= SPOKEN_EVERY && !this.playing) {
      this.lastSpoken = now;
      this.spoken.textContent = words;
    }
  }

  resize() {
    const {width, height} = this.stage.getBoundingClientRect();
    this.ratio = Math.min(2, devicePixelRatio || 1);
    Object.assign(this.canvas, {
      width: Math.max(1, Math.round(width * this.ratio)),
      height: Math.max(1, Math.round(height * this.ratio)),
    });
    this.ctx = this.canvas.getContext("2d");
    this.draw(this.lastTick ?? 0); // a canvas is blank once its size is set
  }

  recolour() {
    this.root.dataset.theme = this.theme ?? "";
    this.dirty = true;
  }

  copyLink() {
    copy((location.href.split("#")[0] || "explorer.html") + format(this.state)).then(() => {
      this.notice.textContent = "The link is copied.";
    });
  }

  savePicture(scale = 2) {
    picture(this, scale).then((blob) => download("explorer.png", blob));
  }

  async saveFilm() {
    if (this.view.timeless) this.notice.textContent = "This view has no animation.";
    else download("explorer.gif", await film(this));
  }

  saveParticles() {
    saveText("particles.csv", csv(this.view.rows()));
  }
}
