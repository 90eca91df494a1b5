/** Requests to the service: JSON, streams of events, and errors in plain words. */

/** What went wrong, as a sentence for the reader of the page. */
export class ServiceError extends Error {
  /**
   * @param {string} message the sentence
   * @param {number} status HTTP status, 0 without an answer
   * @param {number} retryAfter seconds after which the service asks to try again, 0 if it does not say
   */
  constructor(message, status = 0, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

const NO_ANSWER = "The service does not answer. If it was stopped, start it with `smoothed serve` and try again.";
const CUT = "The service closed the connection before the run had ended. Run it again.";

/** Splits the text of an event stream, which arrives in pieces, into events of a name and their JSON data. */
export class EventParser {
  #rest = "";
  #name = "";
  #data = [];

  /** The events that are complete with this piece of text, as [name, data]. */
  push(text) {
    this.#rest += text;
    // A carriage return at the end may be the first half of a line's end.
    const held = this.#rest.endsWith("\r") ? "\r" : "";
    const lines = this.#rest.slice(0, this.#rest.length - held.length).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() + held;
    return lines.map((line) => this.#line(line)).filter(Boolean);
  }

  #line(line) {
    if (line === "") {
      const event = this.#data.length ? [this.#name || "message", JSON.parse(this.#data.join("\n"))] : null;
      this.#name = "";
      this.#data = [];
      return event;
    }
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === "event") this.#name = value;
    else if (field === "data") this.#data.push(value);
    return null;
  }
}

/** The sentence of an answer that is an error. */
async function failure(response) {
  let body = null;
  try {
    body = await response.json();
  } catch {
    // The answer is not JSON, for example that of a proxy.
  }
  const retryAfter = Number(response.headers.get("Retry-After")) || 0;
  let text = sentence(body?.detail) || `The service answered with status ${response.status}`;
  if (!/[.!?]$/.test(text)) text += ".";
  if (retryAfter && !/try again/i.test(text)) text += ` Try again in ${retryAfter} s.`;
  return new ServiceError(text, response.status, retryAfter);
}

function sentence(detail) {
  if (typeof detail === "string") return detail;
  if (!Array.isArray(detail)) return "";
  return detail.map((each) => [each?.loc?.at?.(-1), each?.msg].filter(Boolean).join(": ")).join("; ");
}

/**
 * The page's address without a user and a password, which a reader may have put into it: fetch() takes no address with
 * them. The browser itself keeps the token of the service and presents it with each request of the page.
 */
export const pageAddress = () => location.origin + location.pathname;

/** fetch() whose errors are `ServiceError`; an abort stays an abort. */
async function ask(path, options) {
  let response;
  try {
    response = await fetch(new URL(path, pageAddress()), { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(NO_ANSWER);
  }
  if (!response.ok) throw await failure(response);
  return response;
}

/** The JSON answer to a GET request. */
export async function getJson(path, signal) {
  return (await ask(path, { signal })).json();
}

/**
 * The events of a run, as [name, data], until its `end`.
 * @throws {ServiceError} the request is refused, the run fails, or the stream ends early
 */
export async function* events(path, body, signal) {
  const headers = { "Content-Type": "application/json", Accept: "text/event-stream" };
  const response = await ask(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  const reader = response.body.getReader();
  const parser = new EventParser();
  const decoder = new TextDecoder();
  let end = null;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      for (const [name, data] of parser.push(decoder.decode(value, { stream: true }))) {
        if (name === "error") throw new ServiceError(sentence(data?.detail) || "The run failed in the service.");
        if (name === "end") end = [name, data];
        else yield [name, data];
      }
    }
    // Only now, so that the connection ends before the reader of the events goes on.
    if (end === null) throw new ServiceError(CUT);
    yield end;
  } catch (error) {
    if (error instanceof ServiceError || error.name === "AbortError") throw error;
    throw new ServiceError(error instanceof SyntaxError ? "The service sent an event that is not JSON." : CUT);
  } finally {
    reader.cancel().catch(() => {});
  }
}
