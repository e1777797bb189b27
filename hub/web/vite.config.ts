import { readFileSync } from "node:fs";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";

// What is bundled comes with its licence.
function licences(...names: string[]): Plugin {
  return {
    name: "licences",
    generateBundle() {
      const source = names
        .map((name) => {
          const file = name === "svelte" ? "LICENSE.md" : "LICENSE";
          return `${name}\n\n${readFileSync(`node_modules/${name}/${file}`, "utf8")}`;
        })
        .join("\n\n----\n\n");
      this.emitFile({ type: "asset", fileName: "assets/licences.txt", source });
    },
  };
}

export default defineConfig({
  plugins: [svelte({ compilerOptions: { runes: true } }), licences("svelte", "uplot", "@dagrejs/dagre", "@dagrejs/graphlib")],
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  worker: { format: "es" },
  server: { proxy: { "/api": process.env.STILE_HUB ?? "http://127.0.0.1:4319" } },
});
