/** The few DOM helpers of the page. Text goes in as text only: nothing here parses markup. */

interface Attributes {
  class?: string;
  text?: string;
  title?: string;
  label?: string;
  testid?: string;
}

/** Return the element of index.html with this id. */
export function byId<T extends Element = HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no #${id}`);
  return element as unknown as T;
}

/** Make an element. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (attributes.class) element.className = attributes.class;
  if (attributes.text !== undefined) element.textContent = attributes.text;
  if (attributes.title) element.title = attributes.title;
  if (attributes.label) element.setAttribute("aria-label", attributes.label);
  if (attributes.testid) element.dataset["testid"] = attributes.testid;
  element.append(...children);
  return element;
}

/** Make a button that does `action`. */
export function button(attributes: Attributes, action: () => void): HTMLButtonElement {
  const element = make("button", attributes);
  element.type = "button";
  element.addEventListener("click", action);
  return element;
}

/** Call `submit` with the trimmed text of `input` and empty it; nothing happens for an empty one. */
export function onSubmit(
  form: HTMLFormElement,
  input: HTMLInputElement,
  submit: (text: string) => void,
): void {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value.trim();
    input.value = "";
    if (text) submit(text);
  });
}

/** Return a stable hue class for a user, so that each has a colour of their own without inline styles. */
export function hue(id: string): string {
  let sum = 0;
  for (const char of id) sum = (sum * 31 + char.charCodeAt(0)) % 997;
  return `hue-${sum % 8}`;
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const DAY_TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** Make a `<time>` of ms since the epoch; the day is in its title. */
export function timeOf(ms: number): HTMLTimeElement {
  const date = new Date(ms);
  const element = make("time", { text: TIME.format(date), title: DAY_TIME.format(date) });
  element.dateTime = date.toISOString();
  return element;
}
