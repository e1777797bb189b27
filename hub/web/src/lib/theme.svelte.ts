// Light or dark: as the system has it, unless it was switched.

const name = "stile-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

class Theme {
  chosen = $state(localStorage.getItem(name) ?? "");
  dark = $state(system.matches);

  now = $derived(this.chosen || (this.dark ? "dark" : "light"));

  switch() {
    const next = this.now === "dark" ? "light" : "dark";
    this.chosen = next === (system.matches ? "dark" : "light") ? "" : next;
    if (this.chosen) localStorage.setItem(name, this.chosen);
    else localStorage.removeItem(name);
    this.show();
  }

  show() {
    if (this.chosen) document.documentElement.dataset.theme = this.chosen;
    else delete document.documentElement.dataset.theme;
  }
}

export const theme = new Theme();
theme.show();
system.addEventListener("change", (e) => (theme.dark = e.matches));

// colour is a colour of the style, as it is now.
export function colour(of: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${of}`).trim();
}
