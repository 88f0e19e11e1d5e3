// What the browser does by itself: keys, waiting for a busy or lost server, copying and saving.
// Gradio does the rest. The words come from assets/texts, in the page's head.
const arenaWords = JSON.parse(document.getElementById("arena-words").textContent);

function arenaSay(key, values) {
  const page = document.documentElement.lang, browser = navigator.language.slice(0, 2);
  const language = [page, browser, "en"].find((one) => arenaWords[one]);
  return arenaWords[language][key].replace(/{(\w+)}/g, (_, name) => values[name].toLocaleString(language));
}

// What is pressed before the page has its state would be overwritten when that comes: a vote on the
// first screen, a situation, a text. It is held, and pressed again then, or when that takes too long.
const ARENA_STATE = 10000, ARENA_HELD = "#language, [role=tabpanel] button";
let arenaHasState = false, arenaEarly = null;
function arenaHoldEarly(event, pressed) {
  if (arenaHasState || !pressed) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  if (!arenaEarly) setTimeout(arenaGiveState, ARENA_STATE);
  arenaEarly = pressed;
}
function arenaGiveState() {
  if (arenaHasState) return;
  arenaHasState = true;
  const early = arenaEarly, same = (one) => one.id === early.id && one.textContent === early.textContent;
  if (!early) return;
  // Gradio has drawn the state by then, and may have put another element into the place.
  const found = early.isConnected ? early : [...document.querySelectorAll(ARENA_HELD)].find(same);
  setTimeout(() => found?.click());
}
document.addEventListener("click", (event) => arenaHoldEarly(event, event.target.closest(ARENA_HELD)), true);
document.addEventListener("keydown", (event) => {
  const sends = event.key === "Enter" && !event.shiftKey && event.target.closest("#box");
  arenaHoldEarly(event, sends && document.querySelector("#send button, button#send"));
}, true);

function arenaSpeak(language) {
  arenaGiveState();
  document.documentElement.lang = language;
  document.getElementById("toggle")?.setAttribute("aria-label", arenaSay("theme"));
}

function arenaTell(key) {
  const places = ["message", "x-message"].map((id) => document.getElementById(id));
  const place = places.find((one) => one && one.parentElement.offsetParent) || places[0];
  if (!place) return;
  // Beside Gradio's own message: what stands inside it is Gradio's to change.
  let line = document.getElementById("told");
  if (!line) {
    line = document.createElement("p");
    line.id = "told";
    line.className = "message state";
    line.dataset.say = "";
  }
  // Said once: a sentence that changed with each try would be read aloud with each try.
  if (line.textContent !== arenaSay(key)) line.textContent = arenaSay(key);
  place.after(line);
}

// What is to be read aloud carries `data-say`; it is put into the one live region of the page, which
// is always there. A region that comes with its text is announced by some browsers and not by others.
let arenaHeard = [], arenaByKey = false;
function arenaAnnounce() {
  const live = document.getElementById("live");
  const said = [...document.querySelectorAll("[data-say]")]
    // What takes the focus is read by that.
    .filter((one) => one.checkVisibility() && !(arenaByKey && one.closest("#reveal")))
    .map((one) => one.innerText.trim().replace(/\s+/g, " "));
  const added = said.filter((text) => !arenaHeard.includes(text));
  if (live && added.length) live.textContent = added.join(" ");
  arenaHeard = said;
}

// The box of a round that is not voted on takes no text, but keeps the focus and the keys.
function arenaWait() {
  const box = document.querySelector("#box textarea");
  if (box) box.readOnly = document.querySelector("#steps [data-waiting]") !== null;
}

// Gradio loads its view of the API only after a click. An address that asks for it gets it, too.
let arenaApi = new URLSearchParams(location.search).get("view") === "api";
function arenaShowApi() {
  const button = arenaApi && document.querySelector("footer button.show-api");
  if (!button) return;
  arenaApi = false;
  button.click();
  setTimeout(() => button.click());
}

let arenaLooking = 0;
new MutationObserver(() => {
  arenaLooking ||= requestAnimationFrame(() => {
    arenaLooking = 0;
    arenaWait();
    arenaAnnounce();
    arenaShowApi();
  });
}).observe(document.documentElement, { childList: true, subtree: true, characterData: true });

// How full a box is, from three quarters on. Nothing is cut: what is too long is told.
function arenaCount(id, text, most) {
  const box = document.getElementById(id);
  if (!box) return;
  const n = [...(text || "").trim()].length, place = box.closest(".writing") || box;
  let line = document.getElementById(`${id}-counted`);
  if (n < 0.75 * most) return line?.remove();
  if (!line) {
    line = document.createElement("p");
    line.id = `${id}-counted`;
    place.after(line);
    box.querySelector("textarea").setAttribute("aria-describedby", line.id);
  }
  line.className = n > most ? "counted over" : "counted";
  // Only the limit is read aloud, not each letter on the way to it.
  line.toggleAttribute("data-say", n >= most);
  line.textContent = arenaSay(n < most ? "count" : n > most ? "over" : "full", { n, most, over: n - most });
}

// A full queue answers 503, and a lost server not at all: what was asked is asked again.
const fetchOnce = window.fetch.bind(window);
window.fetch = async (input, options) => {
  const address = String(input.url || input);
  if (address.endsWith("/app_id")) {
    // Gradio's own question whether the server is back; its note about that is in English only.
    return fetchOnce(input, options).catch((error) => {
      arenaTell("lost");
      // Said once, and beside the round: Gradio's own note would say it a second time.
      for (const note of document.querySelectorAll(".toast-body")) note.hidden = true;
      throw error;
    });
  }
  if (!address.includes("/queue/join")) return fetchOnce(input, options);
  for (let seconds = 1, busy = 0; ; seconds = Math.min(2 * seconds, 8)) {
    const answer = await fetchOnce(input, options).catch(() => null);
    if (answer && (answer.status !== 503 || ++busy > 4)) {
      document.getElementById("told")?.remove();
      return answer;
    }
    arenaTell(answer ? "busy" : "lost");
    await new Promise((go) => {
      setTimeout(go, 1000 * seconds);
      window.addEventListener("online", go, { once: true });
    });
  }
};

// Gradio loads the page anew once a lost server is back. What stood in the box stays there.
const ARENA_DRAFT = "empo-arena-draft";
window.addEventListener("pagehide", () => {
  const box = document.querySelector("#box textarea");
  if (box && box.value) sessionStorage.setItem(ARENA_DRAFT, box.value);
});
new MutationObserver((_, watch) => {
  const box = document.querySelector("#box textarea");
  if (!box) return;
  watch.disconnect();
  const draft = sessionStorage.getItem(ARENA_DRAFT);
  sessionStorage.removeItem(ARENA_DRAFT);
  if (!draft || box.value) return;
  box.value = draft;
  box.dispatchEvent(new Event("input", { bubbles: true }));
}).observe(document.documentElement, { childList: true, subtree: true });

// Between Send and the first answer of the server the old round's vote bar is dead.
function arenaHold(...values) {
  document.getElementById("votebar")?.setAttribute("inert", "");
  return values;
}
// The question of consent gives the focus back to the box that it came from.
function arenaAnswer(...values) {
  document.querySelector("#box textarea")?.focus({ preventScroll: true });
  return arenaHold(...values);
}
// An empty text is no text: the cursor goes to where it is written.
function arenaSend(text, ...values) {
  if (!String(text || "").trim()) document.querySelector("#box textarea")?.focus();
  return arenaHold(text, ...values);
}
function arenaRelease() {
  document.getElementById("votebar")?.removeAttribute("inert");
  // A text that was not sent stays in the box: bring into view why, and the help that is offered.
  const unsent = document.querySelector("#box textarea")?.value ? ["notices", "warning", "message"] : [];
  const why = ["consent", ...unsent].map((id) => document.getElementById(id))
    .find((one) => one?.offsetParent && one.textContent.trim());
  if (why?.id === "consent") why.querySelector("[tabindex]")?.focus({ preventScroll: true });
  if (why) why.scrollIntoView({ block: "center" });
  else if (document.activeElement?.matches("#box textarea")) {
    document.activeElement.scrollIntoView({ block: "nearest" });
  }
}

// After a vote who used a key reads who was who first; who used the mouse writes on.
document.addEventListener("keydown", () => { arenaByKey = true; }, true);
document.addEventListener("pointerdown", () => { arenaByKey = false; }, true);
function arenaRevealed() {
  const reveal = document.querySelector("#reveal .reveal");
  if (!reveal) return;
  const box = document.querySelector("#box textarea");
  if (arenaByKey) reveal.focus();
  else if (box?.offsetParent && matchMedia("(hover: hover)").matches) box.focus({ preventScroll: true });
}

// Help that is offered comes into view, once: above the replies it may stand above the screen.
let arenaNoticed = "";
document.addEventListener("animationstart", ({ animationName, target }) => {
  if (animationName !== "noticed" || !target.matches(":first-child")) return;
  const told = document.querySelector("#thread")?.textContent + target.textContent;
  if (told !== arenaNoticed) target.scrollIntoView({ block: "nearest" });
  arenaNoticed = told;
});

// A row of examples is one stop of the Tab key; the arrow keys go along it.
const ARENA_STEPS = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
document.addEventListener("keydown", (event) => {
  const step = ARENA_STEPS[event.key], row = event.target.closest?.(".example-row");
  if (!step || !row || event.target === row) return;
  const chips = [...row.querySelectorAll("button")];
  const next = Math.max(0, Math.min(chips.length - 1, chips.indexOf(event.target) + step));
  for (const [place, chip] of chips.entries()) chip.tabIndex = place === next ? 0 : -1;
  chips[next].focus();
  event.preventDefault();
});

document.addEventListener("keydown", (event) => {
  const at = event.target;
  if (event.key !== "Enter" || !at.matches?.("#box textarea:read-only")) return;
  // A box that waits for the vote sends nothing.
  event.preventDefault();
  event.stopPropagation();
}, true);

document.addEventListener("keydown", (event) => {
  const at = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const writes = at.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName);
  if (writes && !at.matches("#box textarea:read-only")) return;
  const button = document.querySelectorAll("#votebar:not([inert]) button")[Number(event.key) - 1];
  if (button && button.offsetParent && !button.disabled) { event.preventDefault(); button.click(); }
});

document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]"), save = event.target.closest("[data-png]");
  if (copy) {
    const address = new URL(copy.dataset.copy, document.baseURI.split("?")[0]).href;
    try { await navigator.clipboard.writeText(address); } catch { window.prompt("", address); }
    copy.textContent = copy.dataset.done;
  }
  if (save) {
    const picture = save.closest("figure").querySelector("img");
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [2 * picture.naturalWidth, 2 * picture.naturalHeight];
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await new Promise((done) => canvas.toBlob(done, "image/png")));
    link.download = save.dataset.png;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
});
