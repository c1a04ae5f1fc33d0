// An independent SSE client: npm `eventsource`, which reconnects by itself as a browser does. It prints what it gets,
// one JSON object a line: {"open":true}, {"id","event","data"}, {"error":status}.
import { EventSource } from "eventsource";

const [url, token, ...named] = process.argv.slice(2);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const withToken = (address, init) =>
  fetch(address, { ...init, headers: { ...init.headers, Authorization: `Bearer ${token}` } });

const source = new EventSource(url, { fetch: withToken });
const tell = ({ lastEventId, type, data }) => say({ id: lastEventId, event: type, data });
source.onopen = () => say({ open: true });
source.onerror = ({ code }) => say({ error: code ?? 0 });
source.onmessage = tell;
for (const name of named) source.addEventListener(name, tell);
