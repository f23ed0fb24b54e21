// The search of /docs while somebody types. Without this script, the server answers the form.
"use strict";

const field = document.getElementById("search");
const parts = [...document.querySelectorAll("details[data-search]")];

function search() {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const part of parts) {
    part.hidden = !words.every((word) => part.dataset.search.includes(word));
  }
  for (const section of document.querySelectorAll("main > section")) {
    section.hidden = !section.querySelector("details[data-search]:not([hidden])");
  }
  document.getElementById("found").textContent = `${parts.filter((part) => !part.hidden).length} found`;
}

// A link to a schema or a call shows it, also if the search hid it.
function reveal() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const part = target && target.closest("details[data-search]");
  if (part) {
    part.hidden = false;
    part.closest("section").hidden = false;
    part.open = true;
    target.scrollIntoView();
  }
}

field.addEventListener("input", search);
window.addEventListener("hashchange", reveal);
reveal();
