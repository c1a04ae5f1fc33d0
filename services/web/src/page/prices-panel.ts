/** The prices panel: a row for each watched symbol, drawn at most once a frame however fast the ticks come. */

import { type Price, type Stream, type User, asProblem } from "../client";
import { button, byId, make, onSubmit } from "./dom";
import { loadSymbols, saveSymbols } from "./settings";
import { Sparkline } from "./sparkline";
import { toast } from "./toast";

/** How many symbols someone watches who never chose any. */
const FIRST_SYMBOLS = 8;
/** A tick that was on its way when its symbol was removed must not bring it back. */
const REMOVED_MS = 3_000;
const MAX_WATCHED = 100;

export function openPricesPanel(stream: Stream, user: User): void {
  new PricesPanel(stream, user);
}

class PricesPanel {
  readonly #stream: Stream;
  readonly #user: User;
  readonly #rows = new Map<string, PriceRow>();
  readonly #removed = new Set<string>();
  #watched: string[] | null;

  constructor(stream: Stream, user: User) {
    this.#stream = stream;
    this.#user = user;
    this.#watched = loadSymbols(user.id);
    stream.on("connected", () => void this.#attempt(() => this.#subscribe()));
    stream.on("price_update", (price) => this.#update(price));
    stream.on("snapshot", ({ symbols }) => symbols.forEach((price) => this.#update(price)));
    stream.on("state", (state) => byId("prices").classList.toggle("offline", state !== "open"));
    onSubmit(
      byId("price-form"),
      byId("price-input"),
      (text) => void this.#attempt(() => this.#add(text.toUpperCase())),
    );
  }

  /** The server keeps the watchlist too; saying it again after each connect heals whatever was lost. */
  async #subscribe(): Promise<void> {
    const all = await this.#stream.symbols();
    const options = all.map(({ symbol }) => Object.assign(make("option"), { value: symbol }));
    byId("price-symbols").replaceChildren(...options);
    this.#watched ??= all.slice(0, FIRST_SYMBOLS).map(({ symbol }) => symbol);
    const known = new Map(all.map((price) => [price.symbol, price]));
    for (const symbol of this.#watched)
      this.#update(known.get(symbol) ?? { symbol, price: NaN, timestamp: 0 });
    if (this.#watched.length) await this.#stream.subscribe(this.#watched);
  }

  async #add(symbol: string): Promise<void> {
    this.#removed.delete(symbol);
    await this.#stream.subscribe([symbol]);
    this.#update({ symbol, price: NaN, timestamp: 0 });
    this.#save();
  }

  async #remove(symbol: string): Promise<void> {
    await this.#stream.unsubscribe([symbol]);
    this.#removed.add(symbol);
    setTimeout(() => this.#removed.delete(symbol), REMOVED_MS);
    this.#rows.get(symbol)?.element.remove();
    this.#rows.delete(symbol);
    this.#save();
    byId("price-empty").hidden = this.#rows.size > 0;
  }

  #save(): void {
    this.#watched = [...this.#rows.keys()];
    saveSymbols(this.#user.id, this.#watched);
  }

  #update(price: Price): void {
    if (this.#removed.has(price.symbol)) return;
    const row = this.#rows.get(price.symbol) ?? this.#addRow(price.symbol);
    row?.set(price);
  }

  #addRow(symbol: string): PriceRow | undefined {
    if (this.#rows.size >= MAX_WATCHED) return undefined;
    const row = new PriceRow(symbol, () => void this.#attempt(() => this.#remove(symbol)));
    this.#rows.set(symbol, row);
    byId("price-rows").append(row.element);
    byId("price-empty").hidden = true;
    return row;
  }

  async #attempt(action: () => Promise<void>): Promise<void> {
    await action().catch((error: unknown) => toast("Prices", asProblem(error).message));
  }
}

class PriceRow {
  readonly element: HTMLTableRowElement;
  readonly #price = make("span", { class: "price" });
  readonly #change = make("span", { class: "change" });
  readonly #trend = new Sparkline();
  #latest: Price | null = null;
  #shown = NaN;
  #drawing = false;

  constructor(symbol: string, remove: () => void) {
    const trend = make("td", { class: "trend" });
    trend.append(this.#trend.element);
    const head = make("th", { text: symbol });
    head.scope = "row";
    this.element = make(
      "tr",
      { testid: `price-row-${symbol}` },
      head,
      make("td", { class: "number" }, this.#price),
      make("td", { class: "number" }, this.#change),
      trend,
      make(
        "td",
        { class: "remove" },
        button({ class: "close", text: "×", label: `Remove ${symbol}` }, remove),
      ),
    );
    this.#price.textContent = "–";
  }

  set(price: Price): void {
    if (!Number.isFinite(price.price)) return; // not known yet
    if (price.timestamp < (this.#latest?.timestamp ?? 0)) return; // a snapshot that a tick has overtaken
    if (price.price !== this.#latest?.price) this.#trend.push(price.price);
    this.#latest = price;
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => this.#draw());
  }

  #draw(): void {
    this.#drawing = false;
    const latest = this.#latest;
    if (!latest) return;
    const { price, changePercent = 0, stale = false } = latest;
    this.element.classList.toggle("stale", stale);
    this.element.title = stale ? "No price for a while" : "";
    this.#price.textContent = format(price);
    this.#change.textContent = `${arrow(changePercent)} ${percent(Math.abs(changePercent))}`;
    this.#change.className = `change ${direction(changePercent)}`;
    this.#trend.draw();
    if (price !== this.#shown && !Number.isNaN(this.#shown)) this.#flash(price - this.#shown);
    this.#shown = price;
  }

  #flash(difference: number): void {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const color = getComputedStyle(this.element).getPropertyValue(`--${direction(difference)}-soft`);
    this.#price.animate([{ backgroundColor: color }, { backgroundColor: "transparent" }], 900);
  }
}

function format(price: number): string {
  const digits = price < 10 ? 4 : 2;
  return price.toLocaleString(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** The change is from tick to tick, so it is often small. */
function percent(value: number): string {
  return `${value.toFixed(value < 0.1 ? 3 : 2)}%`;
}

function direction(value: number): "up" | "down" | "flat" {
  return value > 0 ? "up" : value < 0 ? "down" : "flat";
}

function arrow(value: number): string {
  return { up: "▲", down: "▼", flat: "•" }[direction(value)];
}
