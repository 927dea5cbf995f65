// Accounts: the form to sign in (or to create the first administrator), and signing out. Without accounts none of it is seen.

import * as api from "./api.js";
import { $ } from "./dom.js";

const RETRY = 3_000;
const COOKIE_RENEWAL = 3_600_000;


let callbacks;
let accounts = false;
let setup = false;
let reason = ""; // why the form is shown again
let attempt = 0;
let retryTimer;

/**
 * Set up the forms. `hooks`: enter(user) when the page may be used (user is null without accounts), leave() when it no longer may,
 * waiting() when the server cannot be asked.
 */
export function prepare(hooks) {
  callbacks = hooks;
  api.onUnauthorized(() => { if (!$("account").open) expire(); });
  $("account").addEventListener("cancel", (event) => event.preventDefault());
  $("account-form").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  $("sign-out").addEventListener("click", signOut);
  addEventListener("storage", ({ key, newValue }) => { // another tab signed in or out
    if (key !== "auth_token" || newValue === api.currentToken()) return;
    const renewed = newValue && api.currentToken();
    api.keepToken(newValue);
    if (!renewed) start();
  });
  setInterval(() => { if (accounts && api.currentToken()) api.renewCookie().catch(() => {}); }, COOKIE_RENEWAL);
}

/** Find out whether users sign in here; then enter, or show the form. Asks again while the server cannot be reached. */
export async function start() {
  clearTimeout(retryTimer);
  const started = ++attempt;
  let user = null;
  try {
    const status = await api.accounts();
    if (started !== attempt) return;
    accounts = status.multiuser_enabled;
    setup = status.setup_required;
    if (!accounts && api.currentToken()) api.keepToken(null);
    if (accounts && (setup || !api.currentToken())) return ask();
    if (accounts) [user] = await Promise.all([api.me(), api.renewCookie()]);
  } catch (error) {
    if (started !== attempt || error.status === 401) return; // the latter shows the form
    callbacks.waiting(error.message);
    retryTimer = setTimeout(start, RETRY);
    return;
  }
  if (started !== attempt) return;
  reason = "";
  $("account").close();
  showUser(user);
  callbacks.enter(user);
}

function showUser(user) {
  $("sign-out").hidden = !user;
  if (user) $("sign-out").title = `Signed in as ${user.display_name || user.email}`;
}

function expire() {
  if (api.currentToken()) reason = "Your sign-in is no longer valid. Sign in again to continue: what you have entered is kept.";
  api.keepToken(null);
  callbacks.leave();
  start();
}

function ask() {
  callbacks.leave();
  showUser(null);
  $("account-title").textContent = setup ? "Create the administrator's account" : "Sign in";
  $("account-text").textContent = reason || (setup ? "This server has no account yet. The first one administers it." : "This server requires an account.");
  $("account-submit").textContent = setup ? "Create the account" : "Sign in";
  for (const field of document.querySelectorAll("[data-setup]")) field.hidden = !setup;
  $("account-again").required = setup;
  $("account-password").autocomplete = setup ? "new-password" : "current-password";
  $("account-error").textContent = "";
  if (!$("account").open) $("account").showModal();
  $(reason && $("account-email").value ? "account-password" : "account-email").focus();
}

async function submit() {
  const [email, password] = [$("account-email").value.trim(), $("account-password").value];
  $("account-error").textContent = "";
  if (setup && password !== $("account-again").value) {
    $("account-error").textContent = "The two passwords differ.";
    return;
  }
  $("account-submit").disabled = true;
  try {
    if (setup) await api.setUp({ email, password, display_name: $("account-name").value.trim() || null });
    setup = false;
    const { token } = await api.logIn({ email, password, remember_me: $("account-remember").checked });
    api.keepToken(token);
    $("account-password").value = $("account-again").value = "";
    await start();
  } catch (error) {
    $("account-error").textContent = error.message;
  } finally {
    $("account-submit").disabled = false;
  }
}

async function signOut() {
  await api.logOut().catch(() => {}); // deletes the cookie
  api.keepToken(null);
  callbacks.forget();
  reason = "You are signed out.";
  start();
}
