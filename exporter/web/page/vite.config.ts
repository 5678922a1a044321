import { defineConfig } from "vite";

// What is built is committed, and embedded by Go: index.html and pprof.html are templates that the agent fills in,
// the files that carry a hash in their name are served as they are below /assets/.
export default defineConfig({
  build: {
    outDir: "../assets/page",
    emptyOutDir: true,
    assetsInlineLimit: 0, // the content policy has no data: URLs
    modulePreload: { polyfill: false },
    target: "es2022",
    reportCompressedSize: false,
    rollupOptions: { input: ["index.html", "pprof.html"] },
  },
  // npm run dev shows the page over the agent that listens on the usual port.
  server: { proxy: { "/api": "http://127.0.0.1:7070", "/static": "http://127.0.0.1:7070", "/debug": "http://127.0.0.1:7070" } },
});
