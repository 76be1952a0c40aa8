// What needs a script: appearance, the book's list on a phone, copying, where one is on the page, search.
const root = document.currentScript.dataset.root;
const html = document.documentElement;
const find = (selector, all) => (all ? [...document.querySelectorAll(selector)] : document.querySelector(selector));

find(".appearance").addEventListener("click", () => {
  html.dataset.appearance = html.dataset.appearance === "dark" ? "light" : "dark";
  localStorage.setItem("appearance", html.dataset.appearance);
});

const menu = find(".menu");
const book = find(".book");
menu.addEventListener("click", () => {
  const open = book.classList.toggle("open");
  menu.setAttribute("aria-expanded", open);
});
find(".book [aria-current]")?.scrollIntoView({ block: "nearest" });

for (const block of find("div.sourceCode", true)) {
  const button = document.createElement("button");
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(block.querySelector("code").textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  block.append(button);
}

// A link into what is folded opens it, and what is printed is open.
const unfold = (node) => {
  for (let fold = node?.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
};
const arrive = () => {
  const place = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!place || !place.closest("details:not([open])")) return;
  unfold(place);
  place.scrollIntoView();
};
addEventListener("hashchange", arrive);
addEventListener("load", arrive);
addEventListener("beforeprint", () => find("main details", true).forEach((fold) => (fold.open = true)));

// A box that scrolls can be reached with the keyboard.
const boxes = find(".wide, div.sourceCode, .claim .body, .cell-output pre", true);
const reachable = () => boxes.forEach((box) => (box.scrollWidth > box.clientWidth + 1 ? (box.tabIndex = 0) : box.removeAttribute("tabindex")));
addEventListener("load", reachable);
addEventListener("resize", reachable);

const places = new Map(find(".contents li a", true).map((a) => [decodeURIComponent(a.hash.slice(1)), a]));
if (places.size) {
  const headings = find("main :is(h2, h3)[id]", true);
  const mark = () => {
    const passed = headings.filter((heading) => heading.getBoundingClientRect().top < 120).at(-1);
    for (const [id, a] of places) a.classList.toggle("now", passed?.id === id);
  };
  addEventListener("scroll", mark, { passive: true });
  mark();
}

// On the map, what a page builds on and what builds on it.
for (const box of find(".map a[data-key]", true)) {
  const show = (on) => {
    for (const arrow of find(".map .arrow", true)) {
      const mine = arrow.classList.contains(`of-${box.dataset.key}`);
      arrow.classList.toggle("near", on && mine);
      arrow.classList.toggle("far", on && !mine);
    }
  };
  for (const name of ["mouseenter", "focus"]) box.addEventListener(name, () => show(true));
  for (const name of ["mouseleave", "blur"]) box.addEventListener(name, () => show(false));
}

// Search: the index comes when it is first asked for.
const dialog = find("dialog.search");
const field = dialog.querySelector("input");
const list = dialog.querySelector("ol");
let engine;
const open = async () => {
  dialog.showModal();
  field.select();
  engine ??= await import(new URL(`${root}pagefind/pagefind.js`, location.href));
};
find(".find").addEventListener("click", open);
addEventListener("keydown", (event) => {
  if (event.key === "/" && !/INPUT|TEXTAREA/.test(document.activeElement.tagName)) {
    event.preventDefault();
    open();
  }
});
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
field.addEventListener("input", async () => {
  const found = await engine?.debouncedSearch(field.value, {}, 150);
  if (!found) return;
  const pages = await Promise.all(found.results.slice(0, 12).map((result) => result.data()));
  const asked = field.value.trim().toLowerCase();
  const all = pages.flatMap((page, number) => places_of(page, number, asked));
  const best = all.sort((a, b) => b.worth - a.worth).slice(0, 10);
  list.replaceChildren(...best.map(hit));
});
// A place whose heading is what was asked for comes first, then one whose heading has it.
const rank = (place, page, order, asked) => {
  const name = place.title.toLowerCase();
  const has = name.includes(asked) ? 3 : asked.split(/\s+/).every((word) => name.includes(word)) ? 2 : 0;
  const aside = /^(evidence|solution)\b/.test(name) ? 1.5 : 0; // the line comes first
  return (name === asked ? 8 : has) - aside + (page.meta.title.toLowerCase().includes(asked) ? 2 : 0) - order;
};
const places_of = (page, number, asked) =>
  page.sub_results
    .sort((a, b) => b.locations.length - a.locations.length)
    .map((place, i) => ({ page, place, worth: rank(place, page, number / 3 + i / 2, asked) }));
const hit = ({ page, place }) => {
  const item = document.createElement("li");
  const link = document.createElement("a");
  link.href = place.url;
  const name = document.createElement("strong");
  name.textContent = place.title === page.meta.title ? page.meta.title : `${page.meta.title} › ${place.title}`;
  const text = document.createElement("span");
  text.innerHTML = place.excerpt;
  link.append(name, text);
  item.append(link);
  return item;
};
