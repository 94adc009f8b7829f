// Pictures as an animated GIF89a: one table of the 256 colours that are met most, pixels packed by LZW.

const CLEAR = 256,
  END = 257,
  FULL = 4096;

const two = (value) => [value & 255, value >> 8];
const cellOf = (data, at) => ((data[at] >> 3) << 10) | ((data[at + 1] >> 3) << 5) | (data[at + 2] >> 3);

// The bytes of frames (RGBA, w by h each), each shown for so many hundredths of a second, over and over.
export function gif(frames, w, h, delay) {
  const {table, indexOf} = colours(frames),
    loop = [0x21, 0xff, 11, ...[..."NETSCAPE2.0"].map((c) => c.charCodeAt(0)), 3, 1, 0, 0, 0],
    parts = [[..."GIF89a"].map((c) => c.charCodeAt(0)), [...two(w), ...two(h), 0xf7, 0, 0], table, loop];
  for (const data of frames) {
    parts.push([0x21, 0xf9, 4, 0, ...two(delay), 0, 0, 0x2c, 0, 0, 0, 0, ...two(w), ...two(h), 0, 8]);
    parts.push(blocks(packed(Uint8Array.from({length: w * h}, (_, i) => indexOf(data, 4 * i)))));
  }
  return new Blob([...parts, [0x3b]].map((part) => Uint8Array.from(part)), {type: "image/gif"});
}

// The colours that most pixels are near to, each the mean of a cell of colours, and where the nearest one stands.
function colours(frames) {
  const cells = new Map();
  for (const data of frames)
    for (let at = 0; at < data.length; at += 12) {
      const key = cellOf(data, at),
        cell = cells.get(key) ?? cells.set(key, [0, 0, 0, 0]).get(key);
      for (let c = 0; c < 3; c++) cell[c] += data[at + c];
      cell[3]++;
    }
  const kept = [...cells.values()]
      .sort((a, b) => b[3] - a[3])
      .slice(0, 256)
      .map(([r, g, b, n]) => [r, g, b].map((sum) => Math.round(sum / n))),
    table = Uint8Array.from({length: 768}, (_, i) => kept[Math.floor(i / 3)]?.[i % 3] ?? 0),
    found = new Map();
  return {
    table,
    indexOf(data, at) {
      const key = cellOf(data, at);
      if (!found.has(key)) found.set(key, nearestColour(kept, data, at));
      return found.get(key);
    },
  };
}

function nearestColour(kept, data, at) {
  const apart = (colour) => colour.reduce((sum, value, c) => sum + (value - data[at + c]) ** 2, 0);
  return kept.reduce((best, colour, i) => (apart(colour) < apart(kept[best]) ? i : best), 0);
}

// Codes of 9 to 12 bits for strings of pixels that have been met before.
function packed(pixels) {
  const out = [],
    table = new Map();
  let bits = 0,
    held = 0,
    size = 9,
    next = END + 1,
    prefix = pixels[0];
  const emit = (code) => {
    held |= code << bits;
    for (bits += size; bits >= 8; bits -= 8) {
      out.push(held & 255);
      held >>>= 8;
    }
  };
  emit(CLEAR);
  for (const pixel of pixels.subarray(1)) {
    const key = prefix * 256 + pixel;
    if (table.has(key)) {
      prefix = table.get(key);
      continue;
    }
    emit(prefix);
    if (next === FULL) {
      emit(CLEAR);
      size = 9;
      next = END + 1;
      table.clear();
    } else {
      if (next === 1 << size) size++;
      table.set(key, next++);
    }
    prefix = pixel;
  }
  emit(prefix);
  emit(END);
  if (bits) out.push(held & 255);
  return out;
}

// Bytes in blocks of at most 255, each with its length before it, and an empty one at the end.
function blocks(bytes) {
  const out = [];
  for (let i = 0; i < bytes.length; i += 255) {
    const part = bytes.slice(i, i + 255);
    out.push(part.length, ...part);
  }
  return [...out, 0];
}
