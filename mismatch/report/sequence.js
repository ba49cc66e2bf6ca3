// One sequence: its heading, the tokens around a place of it, and what a tooltip says of one.
const sequences = (() => {
  const AROUND = 121; // tokens shown at first, MORE with each press of a button
  const MORE = 400;

  const element = (tag, about, ...inside) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(about)) {
      if (name === "text") made.textContent = value; else made.setAttribute(name, value);
    }
    made.append(...inside);
    return made;
  };
  const button = (text, press) => {
    const made = element("button", { type: "button", text });
    made.addEventListener("click", press);
    return made;
  };
  const plural = (n, noun) => `${n.toLocaleString("en-US")} ${noun}${n === 1 ? "" : "s"}`;

  // ---- what is said

  const heading = (pair, k) => {
    const { number, tokens, lost, worst, total, mean, largest } = pair.block;
    const bad = lost[k] ? `${plural(lost[k], "token")} not finite, the first` : `max |d| ${data.number(largest[k])}`;
    return [`sequence ${number[k]}`, `${bad} at position ${worst[k]}`,
      `mean |d| ${data.number(mean[k])}`, `D = ${data.number(total[k])}`, plural(tokens[k], "scored token")];
  };

  const probability = (lp) => Number.isFinite(lp)
    ? `p = ${data.number(Math.exp(lp))} (ln p = ${data.number(lp, 4)})` : `ln p = ${data.number(lp)}`;

  const ranked = (pair, found, side, row) => {
    if (!found.tops[side]) return "";
    const rank = found.tops[side].rank[row];
    if (!pair.top(found, side, row).length) return ""; // it gave none here
    return rank ? `, rank ${rank}` : `, not among its ${pair.block.depths[side]} likeliest`;
  };

  const facts = (pair, found, index) => {
    const id = found.id[index], row = found.row[index], kind = pair.word(id)[1];
    const place = `position ${found.position[index]}, id ${id}`;
    const lines = [kind < 0 ? place : `${place}, ${pair.block.kinds[kind]}`];
    if (row < 0) return [...lines, "not scored"];
    const [left, right] = pair.block.sides, d = pair.d(found, row);
    lines.push(`${left}: ${probability(found.left[row])}${ranked(pair, found, 0, row)}`);
    lines.push(`${right}: ${probability(found.right[row])}${ranked(pair, found, 1, row)}`);
    lines.push(`d = ${data.signed(d)}, r = ${data.number(Math.exp(d))}`);
    return lines;
  };

  const alternatives = (pair, found, row) => {
    const sides = [0, 1].filter((side) => row >= 0 && found.tops[side]);
    return sides.map((side) => {
      const rows = pair.top(found, side, row).map(([text, p]) => element("tr", {},
        element("td", { text, class: "mono" }), element("td", { text: data.number(p), class: "num" })));
      const title = element("caption", { text: `${pair.block.sides[side]}: likeliest` });
      return element("table", {}, title, ...rows);
    });
  };

  const about = (pair, found, index) => {
    const tables = alternatives(pair, found, found.row[index]);
    const made = document.createDocumentFragment();
    made.append(element("div", { text: facts(pair, found, index).join("\n") }));
    if (tables.length) made.append(element("div", { class: "likeliest" }, ...tables));
    return made;
  };

  // ---- what is drawn

  const shade = (pair, d) => {
    if (d === null) return "off";
    if (!Number.isFinite(d)) return "nan";
    const level = pair.block.shades.filter((least) => Math.abs(d) >= least).length;
    return level ? `${d < 0 ? "n" : "p"}${level}` : "";
  };

  class Sequence {
    // k: its place in the list, the worst first. hits: indices that match, null without a filter.
    constructor(pair, k, link) {
      Object.assign(this, { pair, k, link, hits: null, low: 0, high: 0, drawn: false });
      this.held = k < pair.held;
      this.number = pair.block.number[k];
      const [name, ...rest] = heading(pair, k);
      this.matches = element("strong", { class: "matches" });
      const words = [element("strong", { text: name }), ` · ${rest.join(" · ")}`, this.matches];
      this.element = this.held
        ? element("details", { class: "seq" }, element("summary", {}, ...words))
        : element("p", { class: "seq bare" }, ...words, " · tokens not on this page");
      this.element.dataset.k = k;
      if (this.held) this.element.addEventListener("toggle", () => this.opened());
    }
    get found() { return this.pair.sequence(this.k); }
    get worst() { return this.indexOf(this.pair.block.worst[this.k]); }
    indexOf(position) { return this.found.position.indexOf(position); }

    // At once: drawn when the browser tells of it, its tokens would move what was scrolled to.
    unfold() {
      this.element.open = true;
      this.opened();
    }
    opened() {
      if (!this.element.open || this.drawn) return;
      this.around(this.hits && this.hits.length ? this.hits[0] : this.worst);
    }

    around(index) {
      const size = this.found.size, low = Math.min(index - (AROUND >> 1), size - AROUND);
      this.draw(Math.max(0, low), Math.min(size, Math.max(0, low) + AROUND));
    }

    draw(low, high) {
      Object.assign(this, { low, high, drawn: true });
      const body = element("div", { class: "body" }, this.cut(), this.tokens(), this.links());
      this.element.replaceChildren(this.element.firstElementChild, body);
    }

    cut() {
      const { position, size, hidden } = this.found;
      const first = position[0], last = position[size - 1];
      const part = `positions ${position[this.low]}–${position[this.high - 1]} of ${first}–${last}`;
      const lost = hidden ? `; ${plural(hidden, "token")} of it not on this page` : "";
      const said = this.high - this.low === size ? `all positions ${first}–${last}` : part;
      const line = element("p", { class: "caption cut" },
        element("span", { text: said + lost }));
      if (this.low > 0) line.append(button("earlier", () => this.draw(Math.max(0, this.low - MORE), this.high)));
      if (this.high < size) line.append(button("later", () => this.draw(this.low, Math.min(size, this.high + MORE))));
      if (this.low > 0 || this.high < size) line.append(button("all", () => this.draw(0, size)));
      return line;
    }

    tokens() {
      const box = element("div", { class: "tokens", role: "group", "aria-label": `sequence ${this.number}` });
      const hits = this.hits && new Set(this.hits);
      const worst = this.worst;
      for (let index = this.low; index < this.high; index++) {
        const [text, , breaks] = this.pair.word(this.found.id[index]);
        const token = document.createElement("span");
        const kind = shade(this.pair, this.pair.d(this.found, this.found.row[index]));
        token.className = `t ${kind}${index === worst ? " worst" : ""}${hits && hits.has(index) ? " hit" : ""}`;
        token.textContent = text;
        token.dataset.i = index;
        token.tabIndex = index === worst || (index === this.low && (worst < this.low || worst >= this.high)) ? 0 : -1;
        box.append(token);
        if (breaks) box.append(document.createElement("br"));
      }
      if (hits) box.classList.add("filtered");
      return box;
    }

    links() {
      this.tokenLink = element("a", { class: "token-link", hidden: "" });
      const whole = element("a", { href: this.link(this.number), text: "link to this sequence" });
      return element("p", { class: "caption links" }, whole, this.tokenLink);
    }

    // The token that has the focus has a link of its own.
    name(index) {
      const position = this.found.position[index];
      this.tokenLink.href = this.link(this.number, position);
      this.tokenLink.textContent = `link to the token at position ${position}`;
      this.tokenLink.hidden = false;
    }

    filter(hits) {
      this.hits = hits;
      this.matches.textContent = hits ? ` · ${hits.length} matching` : "";
      this.drawn = false;
      if (this.held && this.element.open) this.opened();
    }

    go(index) {
      this.element.open = true;
      if (!this.drawn || index < this.low || index >= this.high) this.around(index);
      const token = this.element.querySelector(`.t[data-i="${index}"]`);
      token.scrollIntoView({ block: "center" });
      tips.focus(token);
    }
  }

  return { Sequence, about, element, plural };
})();
