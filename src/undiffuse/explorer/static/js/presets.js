// The ten scenes of the page; Python has put them into it (scenes.json).

export const PRESETS = [];

export function setScenes(scenes) {
  PRESETS.splice(0, PRESETS.length, ...scenes.map(({name, summary, hash}) => [name, summary, hash]));
}
