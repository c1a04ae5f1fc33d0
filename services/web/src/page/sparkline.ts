/** A line of the latest values, as an SVG that takes the size of its box. */

const SVG = "http://www.w3.org/2000/svg";
const POINTS = 60;
const WIDTH = 100;
const HEIGHT = 28;
const MARGIN = 2;

export class Sparkline {
  readonly element = document.createElementNS(SVG, "svg");
  readonly #line = document.createElementNS(SVG, "polyline");
  #values: number[] = [];

  constructor() {
    this.element.setAttribute("class", "sparkline");
    this.element.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.element.setAttribute("preserveAspectRatio", "none");
    this.element.setAttribute("aria-hidden", "true");
    this.#line.setAttribute("vector-effect", "non-scaling-stroke");
    this.element.append(this.#line);
  }

  push(value: number): void {
    this.#values.push(value);
    if (this.#values.length > POINTS) this.#values.shift();
  }

  draw(): void {
    const first = this.#values[0] ?? 0;
    const last = this.#values.at(-1) ?? 0;
    this.element.classList.toggle("up", last > first);
    this.element.classList.toggle("down", last < first);
    this.#line.setAttribute("points", polyline(this.#values));
  }
}

/** Return the `points` of a polyline over `values`, scaled to the box; a flat line runs through its middle. */
export function polyline(values: readonly number[]): string {
  const low = Math.min(...values);
  const range = Math.max(...values) - low;
  const step = WIDTH / (POINTS - 1);
  const offset = WIDTH - (values.length - 1) * step; // the newest value is at the right edge
  return values
    .map((value, i) => {
      const share = range === 0 ? 0.5 : (value - low) / range;
      const y = HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN);
      return `${(offset + i * step).toFixed(1)},${y.toFixed(1)}`;
    })
    .join(" ");
}
