// The tokens that the page carries: read out of its blocks when they are asked for, never before.
const data = (() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  let words = null;
  const vocabulary = (corpus) => {
    words = words || read("vocabulary");
    return words[corpus] || {};
  };

  const bytes = (text) => {
    const letters = atob(text);
    const found = new Uint8Array(letters.length);
    for (let k = 0; k < letters.length; k++) found[k] = letters.charCodeAt(k);
    return found.buffer;
  };

  // Positions of all tokens, and of each the row of its values: -1 where it is not scored.
  const places = (segments) => {
    const size = segments.reduce((n, [, count]) => n + count, 0);
    const position = new Int32Array(size), row = new Int32Array(size).fill(-1);
    let k = 0, scored = 0;
    for (const [first, count, isScored] of segments) {
      for (let j = 0; j < count; j++, k++) {
        position[k] = first + j;
        if (isScored) row[k] = scored++;
      }
    }
    return { position, row, size, scored };
  };

  // Arrays one behind the other; which follows from data.py, `_packed`.
  const unpack = (block, held) => {
    const { position, row, size, scored } = places(held.segments);
    const buffer = bytes(held.data);
    let at = 0;
    const take = (kind, count) => {
      const found = new kind(buffer, at, count);
      at += found.byteLength;
      return found;
    };
    const Ids = block.wide ? Uint32Array : Uint16Array;
    const left = take(Float32Array, scored), right = take(Float32Array, scored);
    const id = take(Ids, size);
    const asked = [0, 1].filter((side) => block.shown[side]);
    const tops = [null, null];
    for (const side of asked) tops[side] = { ids: take(Ids, scored * block.shown[side]) };
    for (const side of asked) {
      tops[side].steps = take(Uint16Array, scored * block.shown[side]);
      tops[side].rank = take(Uint16Array, scored);
    }
    return { position, row, size, id, left, right, tops, hidden: held.hidden };
  };

  class Pair {
    constructor(id) {
      this.block = read(id);
      this.words = vocabulary(this.block.corpus);
      this.unpacked = new Map();
    }
    get listed() { return this.block.number.length; }
    get held() { return this.block.held.length; }
    find(number) { return this.block.number.indexOf(number); }
    sequence(k) {
      if (!this.unpacked.has(k)) this.unpacked.set(k, unpack(this.block, this.block.held[k]));
      return this.unpacked.get(k);
    }
    word(id) { return this.words[id] || [`‹${id}›`, -1, 0]; }
    // d as it was compared: the float32 values subtracted in float64.
    d(sequence, row) { return row < 0 ? null : sequence.left[row] - sequence.right[row]; }
    // The likeliest tokens of one side: [text, p], the likeliest first.
    top(sequence, side, row) {
      const found = sequence.tops[side], count = this.block.shown[side];
      const none = this.block.wide ? 0xffffffff : 0xffff;
      const made = [];
      for (let k = row * count; k < (row + 1) * count; k++) {
        if (found.ids[k] === none) continue;
        made.push([this.word(found.ids[k])[0], Math.exp(-found.steps[k] / this.block.steps)]);
      }
      return made;
    }
  }

  // Three digits, as in the rest of the report; "—" where there is no number.
  const number = (value, digits = 3) => {
    if (value === null || value === undefined) return "—";
    if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (size < 0.01 || size >= 1e6) return value.toExponential(digits - 1).replace("+", "");
    if (size >= 10 ** digits - 0.5) return Math.round(value).toLocaleString("en-US");
    return value.toPrecision(digits);
  };
  const signed = (value) => (value > 0 ? "+" : "") + number(value, 4);

  return { Pair, number, signed };
})();
