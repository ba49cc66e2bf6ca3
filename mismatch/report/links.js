// Addresses inside the page: #p=PAIR&s=SEQUENCE&t=POSITION opens, scrolls and focuses.
const links = (() => {
  const to = (pair, sequence, position) => {
    const named = new URLSearchParams({ p: pair });
    if (sequence !== undefined) named.set("s", sequence);
    if (position !== undefined) named.set("t", position);
    return `#${named}`;
  };
  const whole = (text) => /^\d{1,15}$/.test(text || "") ? Number(text) : null;
  const say = (text) => {
    const note = document.getElementById("link-note");
    note.textContent = text;
    note.hidden = !text;
    if (text) note.scrollIntoView({ block: "nearest" });
  };

  const open = () => {
    const named = new URLSearchParams(location.hash.slice(1)), pair = named.get("p");
    if (pair === null) return;
    const block = Array.from(document.querySelectorAll(".block")).find((one) => one.dataset.pair === pair);
    if (!block) { say(`This link names the pair ${pair}, which is not on this page.`); return; }
    if (block instanceof HTMLDetailsElement) block.open = true;
    const viewer = viewers.of(pair);
    if (!named.has("s")) { say(""); block.scrollIntoView(); return; }
    const number = whole(named.get("s")), position = named.has("t") ? whole(named.get("t")) : null;
    if (!viewer) { say("The tokens of this pair are not on this page."); return; }
    if (number === null || (named.has("t") && position === null)) {
      say("This link names no sequence or position: s and t are numbers.");
      return;
    }
    say(viewer.open(number, position));
  };

  addEventListener("hashchange", open);
  // A link that was followed before leads there again.
  document.addEventListener("click", (e) => {
    const link = e.target instanceof Element ? e.target.closest('a[href^="#p="]') : null;
    if (link && link.getAttribute("href") === location.hash) open();
  });
  return { to, open };
})();

viewers.start();
links.open();
