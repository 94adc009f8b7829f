// Things on the picture that can be moved: buttons, for the pointer and for the arrow keys alike.
import {el} from "./dom.js";

export class Handles {
  constructor(app) {
    this.app = app;
    this.root = el("div", {className: "handles"});
    this.buttons = [];
    this.root.addEventListener("pointerdown", (event) => this.press(event));
  }

  // One button for each handle of the view, where it is now.
  place() {
    const found = this.app.view.handles?.() ?? [];
    while (this.buttons.length < found.length) this.add();
    this.buttons.forEach((button, i) => {
      const handle = found[i];
      button.hidden = !handle;
      if (!handle) return;
      button.handle = handle;
      button.style.transform = `translate(${handle.at[0] - 14}px, ${handle.at[1] - 14}px)`;
      button.classList.toggle("faint", handle.show === false);
      button.classList.toggle("small", Boolean(handle.small));
      button.setAttribute(
        "aria-label",
        `${handle.name} at ${handle.value.map((v) => Number(v.toPrecision(3))).join(", ")}; arrow keys move it`,
      );
    });
  }

  add() {
    const button = el("button", {type: "button", className: "handle", onkeydown: (event) => this.key(event, button)});
    this.buttons.push(button);
    this.root.append(button);
  }

  // Keys may come faster than pictures: each acts on where the last one left the handle.
  key(event, button) {
    this.place();
    if (event.key === "Enter" && button.handle.press) {
      event.preventDefault();
      button.handle.press();
    }
    const [dx, dy] = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]}[event.key] ?? [0, 0];
    if (!dx && !dy) return;
    event.preventDefault();
    event.stopPropagation();
    const {handle} = button,
      times = event.shiftKey ? 10 : 1,
      [x, y] = handle.value,
      [sx, sy] = handle.step;
    handle.set(x + times * dx * sx, (y ?? 0) + times * dy * sy);
  }

  // A press on a handle drags it; elsewhere a drag moves the time or paints, and a click is the view's.
  press(event) {
    const box = this.root.getBoundingClientRect(),
      spot = (e) => [e.clientX - box.left, e.clientY - box.top];
    const {view} = this.app,
      handle = event.target.handle,
      from = spot(event);
    let moved = false;
    event.target.focus?.();
    const move = (e) => {
      const at = spot(e);
      moved ||= Math.hypot(at[0] - from[0], at[1] - from[1]) > 4;
      if (handle) handle.move(...at);
      else if (view.paint) view.paint(...at, e);
      else if (moved && view.scrub) {
        const t = view.scrub(...at);
        if (t !== null) this.app.set({t});
      }
    };
    const up = (e) => {
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", up);
      if (!moved && !handle) view.click?.(...spot(e));
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", up);
    if (view.paint && !handle) view.paint(...from, event);
    if (!event.target.handle) return;
    event.preventDefault();
  }
}
