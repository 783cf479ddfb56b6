"use strict";
// Marks say what they show in aria-label: shown beside them when pointed at or focused.
const tip = document.getElementById("tip");
let shown = null;
const marks = (svg) => [...svg.querySelectorAll('[role="img"]')];

function show(mark) {
  shown = mark;
  tip.textContent = mark.getAttribute("aria-label");
  tip.hidden = false;
  const at = mark.getBoundingClientRect(), size = tip.getBoundingClientRect();
  const middle = (at.left + at.right) / 2 - size.width / 2;
  const above = at.top - size.height - 8;
  tip.style.left = `${Math.max(8, Math.min(middle, innerWidth - size.width - 8))}px`;
  tip.style.top = `${above > 8 ? above : Math.min(at.bottom + 8, innerHeight - size.height - 8)}px`;
}

function hide() {
  shown = null;
  tip.hidden = true;
}

const markOf = (event) => event.target.closest?.('svg [role="img"]');

// Only one mark of a drawing is in the tab order; arrow keys go on to its neighbours.
function focus(from, to) {
  from.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}

// The nearest mark along one axis (0: x, 1: y); sideways, one in the same row if there is any.
function neighbour(mark, all, axis, sign) {
  const centre = (item) => {
    const box = item.getBoundingClientRect();
    return [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
  };
  const here = centre(mark);
  let best = null, least = Infinity;
  for (const item of all) {
    const there = centre(item);
    const gap = sign * (there[axis] - here[axis]), off = Math.abs(there[1 - axis] - here[1 - axis]);
    const cost = gap + off / 100 + (axis === 0 && off > 2 ? 1e5 : 0);
    if (gap > 1 && cost < least) [best, least] = [item, cost];
  }
  return best;
}

const moves = {
  ArrowRight: (mark, all) => neighbour(mark, all, 0, 1),
  ArrowLeft: (mark, all) => neighbour(mark, all, 0, -1),
  ArrowDown: (mark, all) => neighbour(mark, all, 1, 1),
  ArrowUp: (mark, all) => neighbour(mark, all, 1, -1),
  Home: (mark, all) => all[0],
  End: (mark, all) => all[all.length - 1],
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
  const mark = markOf(event), move = moves[event.key];
  if (!mark || !move || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  const next = move(mark, marks(mark.closest("svg")));
  if (next) focus(mark, next);
});
document.addEventListener("mouseover", (event) => {
  const mark = markOf(event);
  if (mark) show(mark); else hide();
});
document.addEventListener("focusin", (event) => {
  const mark = markOf(event);
  if (mark) show(mark); else hide();
});
document.addEventListener("focusout", hide);
document.addEventListener("scroll", () => { if (shown) show(shown); }, { passive: true });
