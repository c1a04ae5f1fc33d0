// A WebSocket client that shares no code with the suite (npm `ws`), driven by lines of JSON on standard input:
//   {"send": <frame>}  {"binary": <frame>}  {"ping": "payload"}  {"close": [code, reason]}
// and telling what happens to it by lines of JSON on standard output.
// Usage: node chat.mjs <url> [<header name> <header value>]...
import { createInterface } from "node:readline";
import WebSocket from "ws";

const [url, ...rest] = process.argv.slice(2);
const headers = {};
for (let index = 0; index < rest.length; index += 2) headers[rest[index]] = rest[index + 1];

const tell = (what, value) => console.log(JSON.stringify({ [what]: value }));
const socket = new WebSocket(url, { headers });
const input = createInterface({ input: process.stdin });

socket.on("open", () => tell("open", socket.extensions));
socket.on("message", (data, isBinary) => tell(isBinary ? "binary" : "frame", JSON.parse(data.toString())));
socket.on("pong", (data) => tell("pong", data.toString()));
socket.on("error", (error) => tell("error", error.message));
socket.on("close", (code, reason) => {
  tell("closed", [code, reason.toString()]);
  input.close();
});

input.on("line", (line) => {
  const { send, binary, ping, close } = JSON.parse(line);
  if (send !== undefined) socket.send(JSON.stringify(send));
  if (binary !== undefined) socket.send(Buffer.from(JSON.stringify(binary)));
  if (ping !== undefined) socket.ping(ping);
  if (close !== undefined) socket.close(...close);
});
