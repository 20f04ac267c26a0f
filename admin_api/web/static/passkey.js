/* Passkeys in the browser: sign in, enrol, confirm, add another one, and sign what waits for a signature.

   A form says what it is for: data-passkey="sign-in|enrol|confirm|add", data-act-challenge on an act's form, or
   data-recent on a submit button of something that asks for the passkey again. What goes wrong is told in words in the
   form's [data-passkey-message]. Nothing is kept here; a one-time link's secret is taken out of the address at once. */
(() => {
  "use strict";

  const { announce, csrf, newKey, t: _ } = window.zegel;
  const forms = "form[data-passkey], form[data-act-challenge]";

  /* -- Base64url --------------------------------------------------------------------------------------------------- */

  function bytes(text) {
    const plain = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    return Uint8Array.from(plain, (c) => c.charCodeAt(0));
  }

  function text(buffer) {
    const plain = String.fromCharCode(...new Uint8Array(buffer));
    return btoa(plain).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  }

  /* -- Words -------------------------------------------------------------------------------------------------------- */

  class Told extends Error {}

  function words(error) {
    if (error instanceof Told) return error.message;
    switch (error?.name) {
      case "NotAllowedError": return _("Nothing was signed: it was cancelled, took too long, or this device has no such passkey.");
      case "InvalidStateError": return _("This device has a passkey for this account already.");
      case "SecurityError": return _("This browser does not use passkeys at this address. Open the pages at their own address.");
      case "NotSupportedError": return _("This device cannot make the kind of passkey that is needed here.");
      case "TypeError": return _("The server cannot be reached. Check the connection and try again.");
      default: return _("Something went wrong in the browser: %(what)s", { what: error?.name ?? String(error) });
    }
  }

  function place(form) {
    let found = form.querySelector("[data-passkey-message]");
    if (!found) {
      found = form.appendChild(document.createElement("p"));
      found.dataset.passkeyMessage = "";
      found.setAttribute("role", "alert");
    }
    return found;
  }

  function tell(form, message) {
    const found = place(form);
    found.textContent = message;
    found.classList.toggle("danger", message !== "");
  }

  /* -- The server ---------------------------------------------------------------------------------------------------- */

  async function ask(path, body) {
    const headers = { "Content-Type": "application/json", "Idempotency-Key": newKey() };
    if (csrf()) headers["X-CSRF-Token"] = csrf();
    const answer = await fetch(`/api/v1${path}`, {
      method: "POST", headers, body: JSON.stringify(body ?? {}), credentials: "same-origin", redirect: "error",
    });
    const said = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Told([said.detail, said.todo].filter(Boolean).map(sentence).join(" ") || _("The server refused."));
    return said;
  }

  const sentence = (said) => said.charAt(0).toUpperCase() + said.slice(1) + (/[.!?]$/.test(said) ? "" : ".");

  /* -- Ceremonies ----------------------------------------------------------------------------------------------------- */

  function check(form) {
    const expected = form.dataset.origin;
    if (expected && expected !== location.origin) {
      throw new Told(_("These pages belong to %(origin)s; a passkey works there only. Open them there.", { origin: expected }));
    }
    if (!window.PublicKeyCredential || !navigator.credentials) {
      throw new Told(_("This browser knows no passkeys, or the page was not opened over TLS."));
    }
  }

  const descriptors = (list) => (list ?? []).map((each) => ({ ...each, id: bytes(each.id) }));

  async function make(options) {
    const made = await navigator.credentials.create({
      publicKey: {
        ...options,
        challenge: bytes(options.challenge),
        user: { ...options.user, id: bytes(options.user.id) },
        excludeCredentials: descriptors(options.excludeCredentials),
      },
    });
    return {
      id: made.id,
      rawId: text(made.rawId),
      type: made.type,
      response: {
        clientDataJSON: text(made.response.clientDataJSON),
        attestationObject: text(made.response.attestationObject),
        transports: made.response.getTransports?.() ?? [],
      },
    };
  }

  async function use(options) {
    const used = await navigator.credentials.get({
      publicKey: {
        ...options,
        challenge: bytes(options.challenge),
        allowCredentials: descriptors(options.allowCredentials),
      },
    });
    return {
      id: used.id,
      rawId: text(used.rawId),
      type: used.type,
      response: {
        clientDataJSON: text(used.response.clientDataJSON),
        authenticatorData: text(used.response.authenticatorData),
        signature: text(used.response.signature),
        userHandle: used.response.userHandle ? text(used.response.userHandle) : null,
      },
    };
  }

  async function answer(path, next) {
    const { publicKey } = await ask(`${path}/options`);
    return ask(path, { credential: await use(publicKey), next });
  }

  async function register(form, path, publicKey) {
    const credential = await make(publicKey);
    const asked = await ask(path, { credential, name: form.elements.namedItem("name").value });
    tell(form, "");
    announce(_("Your passkey was made. It is asked for once more, to prove that it works."));
    return ask(`${path}/proof`, { credential: await use(asked.publicKey) });
  }

  const go = (next) => location.assign(new URL(next ?? "/", location.origin));

  const ceremonies = {
    "sign-in": async (form) => go((await answer("/sign-in", form.dataset.next)).next),
    confirm: async (form) => go((await answer("/sign-in/confirm", form.dataset.next)).next),
    add: async (form) => {
      await confirmed();
      const { publicKey } = await ask("/account/passkeys/options");
      await register(form, "/account/passkeys", publicKey);
      go("/account");
    },
    enrol: async (form) => {
      if (!link) throw new Told(_("This page needs the whole link that you were given, with what stands behind the #."));
      const opened = await ask("/enrolment/options", { link });
      go((await register(form, "/enrolment", opened.publicKey)).next);
    },
  };

  /* Prove again who you are, unless it was minutes ago. */
  async function confirmed() {
    const response = await fetch("/api/v1/session", { credentials: "same-origin", redirect: "error" });
    if (response.status === 401) throw new Told(_("You are signed out. Sign in again; what you typed is still here."));
    if (!(await response.json()).recent) await answer("/sign-in/confirm");
  }

  async function sign(form) {
    const { actChallenge, actRp, actCredentials } = form.dataset;
    const credential = await use({
      challenge: actChallenge,
      rpId: actRp,
      userVerification: "required",
      timeout: 300000,
      allowCredentials: actCredentials.split(" ").filter(Boolean).map((id) => ({ type: "public-key", id })),
    });
    let field = form.elements.namedItem("assertion");
    if (!field) {
      field = form.appendChild(document.createElement("input"));
      field.type = "hidden";
      field.name = "assertion";
    }
    field.value = JSON.stringify(credential);
    form.submit();
  }

  /* -- Forms ---------------------------------------------------------------------------------------------------------- */

  let busy = false;

  async function run(form, work) {
    if (busy) return;
    busy = true;
    form.setAttribute("aria-busy", "true");
    tell(form, "");
    try {
      check(form);
      await work();
    } catch (error) {
      tell(form, words(error));
    } finally {
      busy = false;
      form.removeAttribute("aria-busy");
    }
  }

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.matches(forms)) {
      event.preventDefault();
      run(form, () => ("actChallenge" in form.dataset ? sign(form) : ceremonies[form.dataset.passkey](form)));
    } else if (event.submitter?.hasAttribute("data-recent") && !event.defaultPrevented) {
      event.preventDefault();
      run(form, async () => {
        await confirmed();
        const { name, value } = event.submitter;
        if (name) {
          const field = form.appendChild(document.createElement("input"));
          Object.assign(field, { type: "hidden", name, value });
        }
        form.submit();
      });
    }
  });

  /* -- A one-time link -------------------------------------------------------------------------------------------------- */

  let link = "";
  const enrolment = document.querySelector('form[data-passkey="enrol"]');
  if (enrolment) {
    link = location.hash.slice(1);
    history.replaceState(null, "", location.pathname);
    if (!link) tell(enrolment, _("This page needs the whole link that you were given, with what stands behind the #."));
  }
})();
