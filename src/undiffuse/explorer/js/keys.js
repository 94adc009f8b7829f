// Keys that work anywhere on the page but in a text box.

export const SHORTCUTS = [
  ["space", "play and pause"], ["← →", "one step back, one step on"], ["[ ]", "half as many steps, twice as many"],
  ["R", "another seed"], ["1 … 7", "the views"], ["S", "scenes"], ["P", "this scene in Python"], ["T", "the numbers as a table"],
  ["?", "this list"], ["arrow keys on a handle", "move it; with Shift ten times as far"],
];

const typing = (target) => target.matches("input[type=number], textarea, select, [contenteditable]");

export function onKey(app, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || app.dialog.open) return;
  const act = actionOf(app, event);
  if (!act) return;
  event.preventDefault();
  act();
}

function actionOf(app, {key, target}) {
  const onControl = target.matches("button, summary, input"), slider = target.matches("input[type=range]");
  if (key === " " && !onControl) return () => app.play(!app.playing);
  if (key === "ArrowLeft" && !slider) return () => app.step(-1);
  if (key === "ArrowRight" && !slider) return () => app.step(1);
  if (key === "[") return () => app.set({n: Math.max(1, Math.round(app.state.n / 2))});
  if (key === "]") return () => app.set({n: Math.min(1024, app.state.n * 2)});
  const number = Number(key) - 1;
  if (key >= "1" && key <= "9" && app.tabs[number]) return () => app.tabs[number].click();
  return {r: () => app.newSeed(), s: () => app.showScenes(), p: () => app.showPython(), t: () => app.showTable(),
    "?": () => app.showHelp()}[key.toLowerCase()];
}
