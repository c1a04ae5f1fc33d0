// A peer of the benchmark: Socket.IO on its WebSocket transport alone, without compression. POST /publish sends the body
// to every client as one event. Pings are rare: the clients of the benchmark are there for the messages.
'use strict';
const http = require('node:http');
const { Server } = require('socket.io');

const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    io.emit('message', Buffer.concat(parts).toString());
    response.writeHead(202).end();
  });
});
const io = new Server(server, { transports: ['websocket'], perMessageDeflate: false, pingInterval: 600_000 });
server.listen(Number(process.argv[2]), '127.0.0.1', 1024);
