// Keys that work anywhere on the page but in a text box.
import {showHelp, showPython, showScenes, showTable} from "./dialogs.js";

const typing = (target) => target.matches("input[type=number], textarea, select, [contenteditable]");

export function onKey(app, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || app.dialog.open) return;
  const act = actionOf(app, event);
  if (!act) return;
  event.preventDefault();
  act();
}

function actionOf(app, {key, target}) {
  const onControl = target.matches("button, summary, input"),
    slider = target.matches("input[type=range]");
  if (key === " " && !onControl) return () => app.play(!app.playing);
  if (key === "ArrowLeft" && !slider) return () => app.step(-1);
  if (key === "ArrowRight" && !slider) return () => app.step(1);
  if (key === "[") return () => app.set({n: Math.max(1, Math.round(app.state.n / 2))});
  if (key === "]") return () => app.set({n: Math.min(1024, app.state.n * 2)});
  const number = Number(key) - 1;
  if (key >= "1" && key <= "9" && app.tabs[number]) return () => app.tabs[number].click();
  return {
    "r": () => app.newSeed(),
    "s": () => showScenes(app),
    "p": () => showPython(app),
    "t": () => showTable(app),
    "?": () => showHelp(app),
  }[key.toLowerCase()];
}
