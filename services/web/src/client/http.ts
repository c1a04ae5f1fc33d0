/** HTTP calls to the services; every failure is one kind of error (RFC 9457). */

const TIMEOUT_MS = 10_000;

export type Method = "GET" | "POST" | "PUT";

/** What went wrong, by its stable `code`; `retryable` says whether the same request may succeed later. */
export class ProblemError extends Error {
  readonly code: string;
  /** HTTP status; 0 when no answer came. */
  readonly status: number;
  readonly retryable: boolean;
  readonly retryAfterMs: number | undefined;

  constructor(problem: Problem, status = 0) {
    super(problem.detail);
    this.name = "ProblemError";
    this.code = problem.code;
    this.status = status;
    this.retryable = problem.retryable;
    this.retryAfterMs = problem.retryAfterMs;
  }
}

export interface Problem {
  code: string;
  detail: string;
  retryable: boolean;
  retryAfterMs?: number;
}

/** Return the JSON body of the answer, undefined if it has none; throws ProblemError. */
export async function request<T>(method: Method, path: string, body?: unknown): Promise<T> {
  const init: RequestInit = { method, credentials: "same-origin", signal: AbortSignal.timeout(TIMEOUT_MS) };
  if (body !== undefined) {
    init.headers = { "content-type": "application/json" };
    init.body = JSON.stringify(body);
  }
  const response = await fetch(path, init).catch((cause: unknown) => {
    const detail = `The server cannot be reached (${cause instanceof Error ? cause.name : "network"}).`;
    throw new ProblemError({ code: "network", detail, retryable: true });
  });
  const text = await response.text().catch(() => "");
  if (!response.ok) throw new ProblemError(problemOf(text, response.status), response.status);
  return (text ? parse(text) : undefined) as T;
}

/** Return a ProblemError; anything else is a defect and is thrown on. */
export function asProblem(error: unknown): ProblemError {
  if (error instanceof ProblemError) return error;
  throw error;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new ProblemError({ code: "broken_answer", detail: "The answer was cut off.", retryable: true });
  }
}

/** Read a problem; an answer of a proxy may be none. */
function problemOf(text: string, status: number): Problem {
  const fallback = {
    code: `http_${status}`,
    detail: `The server answered ${status}.`,
    retryable: status >= 500,
  };
  try {
    return { ...fallback, ...(JSON.parse(text) as Partial<Problem>) };
  } catch {
    return fallback;
  }
}
