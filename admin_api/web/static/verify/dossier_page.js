// The page that checks a dossier: takes a file, or fetches the release's, and shows each step as it is done.

import { STEPS, verifyDossier } from "./dossier.js";

const panel = document.getElementById("dossier");
const { announce, t: _ } = window.zegel;
const verdict = panel.querySelector("[data-dossier-verdict]");
const number = new Intl.NumberFormat(document.documentElement.lang, { maximumSignificantDigits: 6 });
let latest = 0;

function tell(step, state, words) {
  const item = panel.querySelector(`[data-dossier-step="${step}"]`);
  item.dataset.state = state;
  item.querySelector("[data-dossier-word]").textContent = words;
}

function conclude(tone, words) {
  verdict.className = `sentence ${tone}`;
  verdict.textContent = words;
}

async function check(name, bytes) {
  const turn = latest += 1; // a file chosen meanwhile takes over
  const told = (...step) => { if (turn === latest) tell(...step); };
  for (const step of STEPS) tell(step, "waiting", "");
  conclude("", _("Checking %(name)s.", { name }));
  panel.setAttribute("aria-busy", "true");
  let found = null;
  try {
    const known = { vkey: panel.dataset.dossierVkey, root: panel.dataset.dossierRoot };
    found = await verifyDossier(new Uint8Array(await bytes()), known, told, _);
  } catch (error) {
    if (turn === latest) tell(STEPS[0], "failed", error.message);
  }
  if (turn !== latest) return;
  panel.removeAttribute("aria-busy");
  if (found === null) {
    conclude("danger", _("%(name)s does not hold. Do not rely on it; ask whoever gave it to you for another copy.", { name }));
  } else {
    conclude("ok", _("Everything checked here holds: release %(release)s, epsilon %(epsilon)s, in a log of %(size)s entries.", {
      release: found.release.release, epsilon: number.format(found.release.epsilon), size: number.format(found.size),
    }));
  }
  announce(verdict.textContent);
}

async function fetched(path) {
  const answer = await fetch(path, { credentials: "same-origin" });
  if (!answer.ok) throw new Error((await answer.json()).detail ?? answer.statusText);
  return answer.arrayBuffer();
}

panel.querySelector("input[type=file]").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) check(file.name, () => file.arrayBuffer());
});
const source = panel.querySelector("[data-dossier-source]")?.dataset.dossierSource;
document.getElementById("dossier-fetch")?.addEventListener("click", () => {
  check(decodeURIComponent(source.split("/").at(-2)), () => fetched(source));
});
