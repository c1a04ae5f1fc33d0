// A peer of the benchmark: uWebSockets (C++) through npm `uwebsockets`, with its own publish. POST /publish sends the
// body to every client.
'use strict';
const uws = require('uwebsockets');

const app = uws
  .App()
  .ws('/*', { compression: uws.DISABLED, open: (socket) => socket.subscribe('bench'), message: () => {} })
  .post('/publish', (response) => {
    let body = Buffer.alloc(0);
    response.onAborted(() => {});
    response.onData((part, last) => {
      body = Buffer.concat([body, Buffer.from(part)]);
      if (!last) return;
      app.publish('bench', body, false);
      response.writeStatus('202 Accepted').end();
    });
  })
  .listen('127.0.0.1', Number(process.argv[2]), (listening) => {
    if (!listening) process.exit(1);
  });
