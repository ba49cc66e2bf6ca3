// Tooltips for tokens: on hover and on focus; arrow keys walk along a sequence.
(() => {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  document.body.append(tip);

  const hide = () => { tip.hidden = true; };
  const show = (token) => {
    if (token.title) { // the browser's own tooltip would stand on top of ours
      token.dataset.about = token.title;
      token.setAttribute("aria-label", `${token.textContent}: ${token.title}`);
      token.removeAttribute("title");
    }
    tip.textContent = token.dataset.about;
    tip.hidden = false;
    const box = token.getBoundingClientRect();
    const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    const below = box.bottom + 6;
    const fits = below + tip.offsetHeight < window.innerHeight;
    tip.style.left = `${Math.max(8, left) + window.scrollX}px`;
    tip.style.top = `${(fits ? below : box.top - tip.offsetHeight - 6) + window.scrollY}px`;
  };
  const tokenOf = (target) => target instanceof Element ? target.closest(".t") : null;
  const move = (token, to) => {
    if (!to) return;
    token.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  };
  const neighbour = (token, key) => {
    const all = [...token.parentElement.querySelectorAll(".t")];
    const k = all.indexOf(token);
    return { ArrowRight: all[k + 1], ArrowLeft: all[k - 1], Home: all[0], End: all.at(-1) }[key];
  };

  for (const event of ["mouseover", "focusin"]) {
    document.addEventListener(event, (e) => {
      const token = tokenOf(e.target);
      if (token) show(token); else hide();
    });
  }
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (e) => {
    const token = tokenOf(e.target);
    if (e.key === "Escape") hide();
    if (!token || !["ArrowRight", "ArrowLeft", "Home", "End"].includes(e.key)) return;
    e.preventDefault();
    move(token, neighbour(token, e.key));
  });
})();
