/** The sign-in form: log in, or make an account. */

import { type Auth, asProblem } from "../client";
import { request } from "../client/http";
import { byId } from "./dom";

type Mode = "login" | "register";

const TEXTS: Record<Mode, { title: string; submit: string; question: string; other: string }> = {
  login: {
    title: "Sign in to Fanfare",
    submit: "Sign in",
    question: "New here?",
    other: "Create an account",
  },
  register: {
    title: "Create an account",
    submit: "Create account",
    question: "Have an account?",
    other: "Sign in",
  },
};

/** Wire the form to `auth`; what follows a success is up to the listeners of its `change`. */
export function setUpSignIn(auth: Auth): void {
  const form = byId<HTMLFormElement>("sign-in-form");
  const user = byId<HTMLInputElement>("login-user");
  const password = byId<HTMLInputElement>("login-password");
  const submit = byId<HTMLButtonElement>("login-submit");
  const error = byId("login-error");
  let mode: Mode = "login";

  function enter(next: Mode): void {
    mode = next;
    byId("sign-in-title").textContent = TEXTS[mode].title;
    submit.textContent = TEXTS[mode].submit;
    byId("switch-text").textContent = TEXTS[mode].question;
    byId("login-switch").textContent = TEXTS[mode].other;
    password.autocomplete = mode === "login" ? "current-password" : "new-password";
    error.hidden = true;
  }

  async function send(): Promise<void> {
    error.hidden = true;
    submit.disabled = true;
    try {
      await auth[mode](user.value.trim(), password.value);
      form.reset();
      enter("login");
    } catch (problem: unknown) {
      error.textContent = asProblem(problem).message;
      error.hidden = false;
      password.focus();
    } finally {
      submit.disabled = false;
    }
  }

  byId("login-switch").addEventListener("click", () => {
    enter(mode === "login" ? "register" : "login");
    user.focus();
  });
  void offerDemo();
  byId("login-demo").addEventListener("click", () => {
    enter("login");
    user.value = "demo";
    password.value = "demo-password";
    submit.focus();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void send();
  });
}

/** Show the account that everybody knows, where there is one. */
async function offerDemo(): Promise<void> {
  const { available } = await request<{ available: boolean }>("GET", "/api/auth/demo").catch(() => ({
    available: false,
  }));
  byId("login-demo").hidden = !available;
}
