// The ten scenes that the page begins with: a name, a sentence and an address.

export const PRESETS = [
  ["Bimodal river", "Noise flows back into two modes, and the exact law is drawn behind the paths.",
    "#v=1&view=river&p=200"],
  ["Three rivers", "VP, sub-VP and VE destroy the same data in different units: scaled to unit variance they look alike.",
    "#v=1&view=compare&panes=vp|subvp|ve:0.01,30&scale=unit"],
  ["Swiss roll, unrolled from noise", "A thousand particles find a spiral; the contours are the exact law at every moment.",
    "#v=1&view=cloud&law=swiss&p=1500&t=0.12"],
  ["Three dynamics, one marginal", "The ODE, the SDE and a noisier SDE have different paths and the same law at every time.",
    "#v=1&view=compare&panes=vp~euler_maruyama~0|vp~euler_maruyama~1|vp~euler_maruyama~2&n=256&grid=time"],
  ["One path, refined", "The same Brownian path with 8, 32, 128 and 512 steps: the error of a coarse solver can be seen.",
    "#v=1&view=lab&solvers=euler_maruyama,ancestral,ddim,heun&method=euler_maruyama&path=1&measure=path&grid=time"],
  ["Guidance misses its target", "Guided samples are narrower than the tilted law that they are meant to follow.",
    "#v=1&view=guidance&w=4"],
  ["Drag the observation", "A line is observed: only the exact posterior puts the right weight on every mode.",
    "#v=1&view=question&y=0.4&angle=20"],
  ["Paint half a digit", "The class posterior and eight completions of what is painted, in closed form.",
    "#v=1&view=digits&mode=complete&seen=003cga0002eccc0005a0ab000001e920--------------------------------"],
  ["Digits from an exact score", "Sixteen digits drawn by a sampler whose score is known in closed form.",
    "#v=1&view=digits&label=8"],
  ["The photocopier", "With components of no width the sampler gives back its training points, and nothing else.",
    "#v=1&view=cloud&law=points:0.02&p=800&t=0"],
];
