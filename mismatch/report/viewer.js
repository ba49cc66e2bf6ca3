// The tokens of a pair: a list of sequences, the worst first, filters, and walking along matches.
const viewers = (() => {
  const FIRST = 12, MORE = 100; // sequences in the list at first, and with each press
  const OPEN = 2; // stand open at first

  class Viewer {
    constructor(root) {
      this.root = root;
      this.built = false;
    }
    get id() { return this.root.dataset.pair; }
    part(name) { return this.root.querySelector(`.${name}`); }

    // ---- built when its pair is opened

    build() {
      if (this.built) return;
      this.built = true;
      this.pair = new data.Pair(this.root.dataset.block);
      this.sequences = [];
      this.hits = null; // place in the list -> indices that match; null without a filter
      this.shown = []; // places in the list that the filter leaves
      this.drawn = 0; // of those, how many stand in the list
      this.at = -1; // which match was gone to
      this.waiting = 0; // the timer of a filter that was typed and has not run
      this.part("controls").hidden = false;
      this.listen();
      this.list(Array.from({ length: this.pair.listed }, (_, k) => k));
      for (let k = 0; k < Math.min(OPEN, this.pair.held); k++) this.sequence(k).unfold();
    }
    sequence(k) {
      if (!this.sequences[k]) {
        const link = (s, t) => links.to(this.id, s, t);
        this.sequences[k] = new sequences.Sequence(this.pair, k, link);
        this.sequences[k].filter(this.matches(k));
      }
      return this.sequences[k];
    }
    matches(k) { return this.hits && (this.hits.get(k) || []); }
    listen() {
      for (const name of ["find", "least", "kind"]) {
        this.part(name).addEventListener("input", () => {
          clearTimeout(this.waiting);
          this.waiting = setTimeout(() => this.filter(), 150);
        });
      }
      this.part("find").addEventListener("keydown", (e) => {
        if (e.key !== "Enter") return;
        if (this.waiting) this.filter();
        this.step(1);
      });
      this.part("next").addEventListener("click", () => this.step(1));
      this.part("previous").addEventListener("click", () => this.step(-1));
      this.part("jump").addEventListener("click", () => this.jump());
      this.part("more").addEventListener("click", () => this.more(MORE));
      this.part("list").addEventListener("focusin", (e) => {
        if (e.target.matches(".t")) this.of(e.target).name(Number(e.target.dataset.i));
      });
    }
    of(token) { return this.sequence(Number(token.closest(".seq").dataset.k)); }

    // ---- the list

    list(shown) {
      this.shown = shown;
      this.drawn = 0;
      this.part("list").replaceChildren();
      this.more(FIRST);
    }
    more(count) {
      const next = this.shown.slice(this.drawn, this.drawn + count);
      this.part("list").append(...next.map((k) => this.sequence(k).element));
      this.drawn += next.length;
      const rest = this.shown.length - this.drawn;
      this.part("more").hidden = rest === 0;
      this.part("more").textContent = `show ${Math.min(rest, MORE)} of ${sequences.plural(rest, "more sequence")}`;
    }
    bring(k) {
      const place = this.shown.indexOf(k);
      if (place < 0) return false;
      if (place >= this.drawn) this.more(place + 1 - this.drawn);
      return true;
    }

    // ---- filters

    filter() {
      clearTimeout(this.waiting);
      this.waiting = 0;
      const text = this.part("find").value.trim().toLowerCase().replaceAll(" ", "·");
      const least = parseFloat(this.part("least").value), kind = this.part("kind").value;
      const isAny = !text && !(least > 0) && kind === "";
      this.hits = isAny ? null : this.matching(text, least, kind);
      this.at = -1;
      for (const one of this.sequences.filter(Boolean)) one.filter(this.matches(one.k));
      this.list(this.hits ? [...this.hits.keys()] : Array.from({ length: this.pair.listed }, (_, k) => k));
      if (this.hits && this.shown.length) this.sequence(this.shown[0]).unfold();
      this.say();
    }
    matching(text, least, kind) {
      const found = new Map();
      for (let k = 0; k < this.pair.held; k++) {
        const one = this.pair.sequence(k), named = text && this.named(one, text);
        const fits = (index) => {
          if (text && !named.has(index)) return false;
          if (kind !== "" && this.pair.word(one.id[index])[1] !== Number(kind)) return false;
          const d = this.pair.d(one, one.row[index]);
          return !(least > 0) || (d !== null && !(Math.abs(d) < least));
        };
        const hits = [];
        for (let index = 0; index < one.size; index++) if (fits(index)) hits.push(index);
        if (hits.length) found.set(k, hits);
      }
      return found;
    }
    // Indices of the tokens that a place of the text touches: words are longer than tokens.
    named(one, text) {
      const words = Array.from(one.id, (id) => this.pair.word(id)[0].toLowerCase());
      const joined = words.join(""), ends = [];
      words.reduce((end, word) => { ends.push(end + word.length); return end + word.length; }, 0);
      const found = new Set();
      let index = 0;
      for (let at = joined.indexOf(text); at >= 0; at = joined.indexOf(text, at + text.length)) {
        while (ends[index] <= at) index++;
        for (let k = index; k < ends.length && (k ? ends[k - 1] : 0) < at + text.length; k++) found.add(k);
      }
      return found;
    }
    say() {
      const total = this.hits ? [...this.hits.values()].reduce((n, hits) => n + hits.length, 0) : 0;
      const among = this.pair.held === this.pair.block.of ? "" : `, of the ${this.pair.held} whose tokens are on this page`;
      this.part("count").textContent = this.hits
        ? `${sequences.plural(total, "token")} in ${sequences.plural(this.hits.size, "sequence")} match${among}.` : "";
      for (const name of ["next", "previous"]) this.part(name).disabled = !total;
    }

    // ---- going somewhere

    step(by) {
      const all = this.hits ? [...this.hits].flatMap(([k, hits]) => hits.map((index) => [k, index])) : [];
      if (!all.length) return;
      this.at = this.at < 0 ? (by > 0 ? 0 : all.length - 1) : (this.at + by + all.length) % all.length;
      this.go(...all[this.at]);
    }
    jump() {
      const k = this.shown.find((place) => place < this.pair.held);
      if (k === undefined) return;
      const one = this.sequence(k);
      if (!this.hits) { this.go(k, one.worst); return; }
      let worst = null, size = -1;
      for (const [place, hits] of this.hits) {
        const found = this.pair.sequence(place);
        for (const index of hits) {
          const d = this.pair.d(found, found.row[index]);
          const here = d === null ? -1 : Number.isFinite(d) ? Math.abs(d) : Infinity;
          if (worst === null || here > size) { worst = [place, index]; size = here; }
        }
      }
      this.go(...worst);
    }
    go(k, index) {
      if (this.bring(k)) this.sequence(k).go(index);
    }
    reset() {
      for (const name of ["find", "least", "kind"]) this.part(name).value = "";
      if (this.hits || this.waiting) this.filter();
    }
    // A sequence, and a position of it, by their numbers; the reason where they are not here.
    open(number, position) {
      this.build();
      this.reset();
      const k = this.pair.find(number);
      if (k < 0) return `Sequence ${number} is not listed on this page.`;
      this.bring(k);
      const one = this.sequence(k);
      if (!one.held) {
        one.element.scrollIntoView({ block: "center" });
        return `The tokens of sequence ${number} are not on this page, its numbers alone.`;
      }
      const index = position === null ? one.worst : one.indexOf(position);
      if (index >= 0) one.go(index);
      return index >= 0 ? "" : `Position ${position} of sequence ${number} is not on this page.`;
    }
  }

  const all = Array.from(document.querySelectorAll(".viewer"), (root) => new Viewer(root));
  for (const viewer of all) {
    const fold = viewer.root.closest("details");
    if (fold) fold.addEventListener("toggle", () => { if (fold.open) viewer.build(); });
  }
  tips.describe((token) => {
    const viewer = all.find((one) => one.root.contains(token)), one = viewer.of(token);
    return sequences.about(viewer.pair, one.found, Number(token.dataset.i));
  });

  const start = () => { for (const one of all) if (!one.root.closest("details")) one.build(); };
  return { all, start, of: (pair) => all.find((one) => one.id === pair) };
})();
