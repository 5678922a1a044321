import { defineConfig } from "vite";

// The script and the style that Go puts into the HTML files of record: plain ones, in one piece each.
export default defineConfig({
  publicDir: false,
  build: {
    outDir: "../assets/standalone",
    emptyOutDir: true,
    target: "es2022",
    reportCompressedSize: false,
    cssCodeSplit: false,
    rollupOptions: {
      input: "src/standalone.ts",
      output: { format: "iife", entryFileNames: "standalone.js", assetFileNames: "standalone[extname]" },
    },
  },
});
