// What the browser does by itself: keys, waiting for a busy or lost server, copying and saving.
// Gradio does the rest. The words come from assets/texts, in the page's head.
const arenaWords = JSON.parse(document.getElementById("arena-words").textContent);

function arenaSay(key, values) {
  const page = document.documentElement.lang, browser = navigator.language.slice(0, 2);
  const language = [page, browser, "en"].find((one) => arenaWords[one]);
  return arenaWords[language][key].replace(/{(\w+)}/g, (_, name) => values[name].toLocaleString(language));
}

function arenaTell(key, seconds) {
  const places = ["message", "x-message"].map((id) => document.getElementById(id));
  const place = places.find((one) => one && one.parentElement.offsetParent) || places[0];
  if (!place) return;
  // Beside Gradio's own message: what stands inside it is Gradio's to change.
  let line = document.getElementById("told");
  if (!line) {
    line = document.createElement("p");
    line.id = "told";
    line.className = "message state";
    line.setAttribute("role", "status");
  }
  line.textContent = arenaSay(key, { n: seconds });
  place.after(line);
}

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
  line.setAttribute("role", n < most ? "none" : "status");
  line.textContent = arenaSay(n < most ? "count" : n > most ? "over" : "full", { n, most, over: n - most });
}

// A full queue answers 503, and a lost server not at all: what was asked is asked again.
const fetchOnce = window.fetch.bind(window);
window.fetch = async (input, options) => {
  const address = String(input.url || input);
  if (address.endsWith("/app_id")) {
    // Gradio's own question whether the server is back; its note about that is in English only.
    return fetchOnce(input, options).catch((error) => {
      arenaTell("lost", 2);
      for (const note of document.querySelectorAll(".toast-text")) note.textContent = arenaSay("lost", { n: 2 });
      for (const title of document.querySelectorAll(".toast-title")) title.textContent = "";
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
    arenaTell(answer ? "busy" : "lost", seconds);
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
// An empty text is no text: the cursor goes to where it is written.
function arenaSend(text, ...values) {
  if (!String(text || "").trim()) document.querySelector("#box textarea")?.focus();
  return arenaHold(text, ...values);
}
function arenaRelease() {
  document.getElementById("votebar")?.removeAttribute("inert");
  // A text that was not sent stays in the box: bring into view why, and the help that is offered.
  const unsent = document.querySelector("#box textarea")?.value ? ["notices", "message"] : [];
  const why = ["consent", ...unsent].map((id) => document.getElementById(id))
    .find((one) => one?.offsetParent);
  if (why) why.scrollIntoView({ block: "center" });
  else if (document.activeElement?.matches("#box textarea")) {
    document.activeElement.scrollIntoView({ block: "nearest" });
  }
}

// Help that is offered comes into view, once: above the replies it may stand above the screen.
let arenaNoticed = "";
document.addEventListener("animationstart", ({ animationName, target }) => {
  if (animationName !== "noticed" || !target.matches(":first-child")) return;
  const told = document.querySelector("#thread")?.textContent + target.textContent;
  if (told !== arenaNoticed) target.scrollIntoView({ block: "nearest" });
  arenaNoticed = told;
});

document.addEventListener("keydown", (event) => {
  const at = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (at.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName)) return;
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
