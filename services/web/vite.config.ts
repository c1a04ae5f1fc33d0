import { defineConfig } from "vite";

/** Where `npm run dev` finds the services: the port of `make run`. */
const BACKEND = "http://127.0.0.1:8080";

export default defineConfig({
  build: {
    target: "es2022",
    // Nothing is inlined as a data: address, so that `default-src 'self'` is enough of a policy.
    assetsInlineLimit: 0,
    rollupOptions: {
      // The client is an entry of its own under a fixed name: any page of this origin may import "/client.js".
      input: { page: "index.html", client: "src/client/index.ts" },
      preserveEntrySignatures: "exports-only",
      output: {
        entryFileNames: (chunk) => (chunk.name === "client" ? "client.js" : "assets/[name]-[hash].js"),
      },
    },
  },
  server: {
    proxy: {
      "/api": BACKEND,
      "/ws": { target: BACKEND, ws: true },
    },
  },
});
