// Stateless randomness: the same integers as noise.py. Every number is a function of (seed, purpose, step, index).
// Salmon et al. (2011), Philox4x64-10, on 32-bit halves; normals by Box and Muller.

export const PURPOSE = {INIT: 0, STEP: 1, ORDER: 2, TIME: 3, NOISE: 4, PROBE: 7, DATA: 9, PATH: 10};

const LIMB = 2 ** 32;
const M0 = [0xd2e7470e, 0xe14c6c93],
  M1 = [0xca5a8263, 0x95121157];
const BUMP0 = 0x9e3779b97f4a7c15n,
  BUMP1 = 0xbb67ae8584caa73bn;
const product = new Uint32Array(4);

// The upper half of the product of two 32-bit numbers.
function high(a, b) {
  const a1 = a >>> 16,
    a0 = a & 0xffff,
    b1 = b >>> 16,
    b0 = b & 0xffff;
  const mid = a1 * b0 + ((a0 * b0) >>> 16);
  return a1 * b1 + (mid >>> 16) + (((mid & 0xffff) + a0 * b1) >>> 16);
}

// The 128-bit product of two 64-bit numbers, four limbs from the highest.
function multiply(m, hi, lo) {
  const mid = high(m[1], lo) + (Math.imul(m[1], hi) >>> 0) + (Math.imul(m[0], lo) >>> 0);
  const top = high(m[1], hi) + high(m[0], lo) + (Math.imul(m[0], hi) >>> 0) + Math.floor(mid / LIMB);
  product[3] = Math.imul(m[1], lo);
  product[2] = mid % LIMB;
  product[1] = top % LIMB;
  product[0] = high(m[0], hi) + Math.floor(top / LIMB);
}

// The ten round keys of a key of two 64-bit words, as limbs.
function schedule(key0, key1) {
  const keys = new Uint32Array(40);
  for (let round = 0; round < 10; round++) {
    const a = BigInt.asUintN(64, key0 + BigInt(round) * BUMP0),
      b = BigInt.asUintN(64, key1 + BigInt(round) * BUMP1);
    keys.set([Number(a >> 32n), Number(a & 0xffffffffn), Number(b >> 32n), Number(b & 0xffffffffn)], 4 * round);
  }
  return keys;
}

// One block of the cipher: four words of the stream into out, each as (low half, high half).
function encipher(keys, block, out, at) {
  let a1 = Math.floor(block / LIMB),
    a0 = block % LIMB,
    b1 = 0,
    b0 = 0,
    c1 = 0,
    c0 = 0,
    d1 = 0,
    d0 = 0;
  for (let k = 0; k < 40; k += 4) {
    multiply(M0, a1, a0);
    const p0 = product[0],
      p1 = product[1],
      p2 = product[2],
      p3 = product[3];
    multiply(M1, c1, c0);
    a1 = (product[0] ^ b1 ^ keys[k]) >>> 0;
    a0 = (product[1] ^ b0 ^ keys[k + 1]) >>> 0;
    b1 = product[2];
    b0 = product[3];
    c1 = (p0 ^ d1 ^ keys[k + 2]) >>> 0;
    c0 = (p1 ^ d0 ^ keys[k + 3]) >>> 0;
    d1 = p2;
    d0 = p3;
  }
  out[at] = a0;
  out[at + 1] = a1;
  out[at + 2] = b0;
  out[at + 3] = b1;
  out[at + 4] = c0;
  out[at + 5] = c1;
  out[at + 6] = d0;
  out[at + 7] = d1;
}

// The 64-bit integers `first` to `first + count - 1` of a stream, as (low, high) halves.
export function words(seed, purpose, step, first, count) {
  const keys = schedule(BigInt(seed), BigInt(step) * 256n + BigInt(purpose));
  const block = Math.floor(first / 4),
    skip = first - 4 * block,
    blocks = Math.ceil((skip + count) / 4);
  const out = new Uint32Array(8 * blocks);
  for (let b = 0; b < blocks; b++) encipher(keys, block + b, out, 8 * b);
  return out.subarray(2 * skip, 2 * (skip + count));
}

// Standard normals of samples first ... first + n - 1, `size` numbers each, row after row.
export function normal(seed, purpose, step, first, n, size) {
  const pairs = (size + 1) >> 1,
    halves = words(seed, purpose, step, first * pairs, n * pairs);
  const out = new Float64Array(n * size),
    unit = 2 ** -32,
    turn = 2 * Math.PI * unit;
  for (let i = 0, at = 0; i < n; i++) {
    for (let p = 0; p < pairs; p++, at += 2) {
      const radius = Math.sqrt(-2 * Math.log((halves[at] + 1) * unit)),
        angle = halves[at + 1] * turn;
      out[i * size + 2 * p] = radius * Math.cos(angle);
      if (2 * p + 1 < size) out[i * size + 2 * p + 1] = radius * Math.sin(angle);
    }
  }
  return out;
}

// Uniform numbers in [0, 1) with 53 bits.
export function uniform(seed, purpose, step, first, n, size = 1) {
  const halves = words(seed, purpose, step, first * size, n * size);
  return Float64Array.from(
    {length: n * size},
    (_, i) => (halves[2 * i + 1] * 2 ** 21 + (halves[2 * i] >>> 11)) * 2 ** -53,
  );
}

// Brownian motion (n, steps·2^refine + 1) on [0, T]: each level halves every interval by the Brownian bridge.
export function brownian(n, steps, T, seed, refine = 0, first = 0) {
  const z = normal(seed, PURPOSE.PATH, 0, first, n, steps);
  let w = Array.from({length: n}, (_, i) => cumulated(z.subarray(i * steps, (i + 1) * steps), Math.sqrt(T / steps)));
  for (let level = 1; level <= refine; level++) {
    const gaps = w[0].length - 1,
      spread = Math.sqrt(T / gaps / 4);
    const bridge = normal(seed, PURPOSE.PATH, level, first, n, gaps);
    w = w.map((path, i) => halved(path, bridge.subarray(i * gaps, (i + 1) * gaps), spread));
  }
  return w;
}

function cumulated(z, scale) {
  const w = new Float64Array(z.length + 1);
  for (let j = 0; j < z.length; j++) w[j + 1] = w[j] + scale * z[j];
  return w;
}

function halved(path, z, spread) {
  const out = new Float64Array(2 * path.length - 1);
  path.forEach((value, j) => {
    out[2 * j] = value;
  });
  z.forEach((value, j) => {
    out[2 * j + 1] = (path[j] + path[j + 1]) / 2 + spread * value;
  });
  return out;
}

const LEVELS = 32,
  CELLS = 2 ** LEVELS,
  FIRST = 2 ** 40,
  KEPT_LEVELS = 10;

// Brownian motions that can be asked for any time in [start, end]: finer steps refine the same path.
export class Motion {
  constructor(seed, first, n, size, start, end) {
    Object.assign(this, {seed, first, n, size, start, end, kept: new Map()});
  }

  // (w(t) - w(s))/√(t - s), standard normal.
  increment(t, s) {
    const a = this.cell(s),
      b = this.cell(t);
    const length = Math.sqrt(Math.max(1e-300, (b - a) * ((this.end - this.start) / CELLS)));
    const low = this.at(a),
      high = this.at(b);
    return high.map((value, i) => (value - low[i]) / length);
  }

  cell(t) {
    return Math.min(CELLS, Math.max(0, Math.round(((t - this.start) / (this.end - this.start)) * CELLS)));
  }

  // w at a cell, by descent from the whole interval.
  at(cell) {
    let size = CELLS,
      width = this.end - this.start,
      left = 0,
      low = new Float64Array(this.n * this.size);
    let high = this.point(CELLS, 0, () => this.normals(0, 0).map((z) => Math.sqrt(width) * z));
    for (let level = 1; level <= LEVELS && cell !== left && cell !== left + size; level++) {
      size /= 2;
      width /= 2;
      const from = low,
        to = high,
        spread = Math.sqrt(width / 2),
        number = Math.floor(left / (2 * size));
      const middle = this.point(left + size, level, () =>
        this.normals(level, number).map((z, i) => (from[i] + to[i]) / 2 + spread * z),
      );
      if (cell >= left + size) {
        low = middle;
        left += size;
      } else high = middle;
    }
    return cell > left ? high : low;
  }

  // A point that is kept where many paths pass through it.
  point(cell, level, make) {
    if (level > KEPT_LEVELS) return make();
    if (!this.kept.has(cell)) this.kept.set(cell, make());
    return this.kept.get(cell);
  }

  normals(level, number) {
    return normal(this.seed, PURPOSE.PATH, FIRST + 2 ** level + number, this.first, this.n, this.size);
  }
}
