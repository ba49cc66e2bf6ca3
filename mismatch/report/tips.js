// Tooltips of tokens: on hover, and on focus as long as it lasts; arrow keys walk along a row of tokens.
const tips = (() => {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "tooltip");
  document.body.append(tip);

  // What a tooltip says of a token, as a node: the title it came with, where nobody knows better.
  const sources = [(token) => {
    if (token.title) { // the browser's own tooltip would stand on top of ours
      token.dataset.about = token.title;
      token.removeAttribute("title");
    }
    return document.createTextNode(token.dataset.about || "");
  }];

  let shown = null; // the token whose tip stands
  let kept = null; // the token that has the focus: its tip stays, unless Escape took it away

  // In places of the document, so that the tip scrolls with its token.
  const place = () => {
    if (!shown.getClientRects().length) { hide(); return; } // filtered or folded away
    const box = shown.getBoundingClientRect();
    const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    const below = box.bottom + 6;
    const fits = below + tip.offsetHeight < window.innerHeight;
    tip.style.left = `${Math.max(8, left) + window.scrollX}px`;
    tip.style.top = `${(fits ? below : box.top - tip.offsetHeight - 6) + window.scrollY}px`;
  };
  const hide = () => { shown = null; tip.hidden = true; };
  const show = (token) => {
    if (token === shown) return;
    tip.replaceChildren(sources.at(-1)(token));
    token.setAttribute("aria-describedby", "tip");
    tip.hidden = false;
    shown = token;
    place();
  };
  // What opens above a token moves it, and what scrolls changes on which side the tip fits.
  const follow = () => { if (shown) place(); };
  new ResizeObserver(follow).observe(document.body);
  for (const event of ["scroll", "resize"]) window.addEventListener(event, follow);

  const tokenOf = (target) => target instanceof Element ? target.closest(".t") : null;
  const beside = (token, step) => {
    let found = token;
    do found = found && found[step]; while (found && !found.matches(".t"));
    return found;
  };
  const neighbour = (token, key) => {
    const row = token.parentElement.getElementsByClassName("t");
    if (key === "ArrowRight") return beside(token, "nextElementSibling");
    if (key === "ArrowLeft") return beside(token, "previousElementSibling");
    return { Home: row[0], End: row[row.length - 1] }[key];
  };
  // One token of each row can be reached with the tab key.
  const focus = (token) => {
    for (const other of token.parentElement.querySelectorAll('.t[tabindex="0"]')) other.tabIndex = -1;
    token.tabIndex = 0;
    token.focus();
  };

  const point = (token) => { if (token) show(token); else hide(); };
  // A token that scrolls below a mouse at rest is not pointed at while another has the focus.
  let pointer = "";
  document.addEventListener("mousemove", (e) => {
    const at = `${e.screenX} ${e.screenY}`;
    if (at !== pointer) point(tokenOf(e.target) || kept);
    pointer = at;
  });
  document.addEventListener("mouseover", (e) => { if (!kept) point(tokenOf(e.target)); });
  document.addEventListener("focusin", (e) => {
    kept = tokenOf(e.target);
    point(kept);
  });
  document.addEventListener("focusout", () => { kept = null; hide(); });
  document.addEventListener("click", (e) => {
    const token = tokenOf(e.target);
    if (token) focus(token);
  });
  document.addEventListener("keydown", (e) => {
    if (e.key === "Escape") { kept = null; hide(); }
    const token = tokenOf(e.target);
    const next = token && neighbour(token, e.key);
    if (!next) return;
    e.preventDefault();
    focus(next);
  });

  return { focus, describe: (source) => { sources.push(source); } };
})();
