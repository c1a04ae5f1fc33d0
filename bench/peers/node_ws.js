// A peer of the benchmark: npm `ws` with its defaults (no compression). POST /publish sends the body to every client.
'use strict';
const http = require('node:http');
const { WebSocketServer } = require('ws');

const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false });
const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const body = Buffer.concat(parts);
    for (const client of sockets.clients) client.send(body, { binary: false });
    response.writeHead(202).end();
  });
});
server.on('upgrade', (request, socket, head) => sockets.handleUpgrade(request, socket, head, () => {}));
server.listen(Number(process.argv[2]), '127.0.0.1', 1024);
