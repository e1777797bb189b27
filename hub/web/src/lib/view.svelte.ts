// Rows that can be seen, of many of one height that scroll with the page.

export class View {
  begin = $state(0);
  end = $state(0);

  constructor(
    private readonly count: () => number,
    private readonly height: () => number,
    private readonly top: () => HTMLElement | undefined, // where the first begins
  ) {
    $effect(() => {
      void this.count();
      void this.height();
      void this.top();
      this.measure();
    });
    $effect(() => {
      const measure = () => this.measure();
      addEventListener("scroll", measure, { passive: true });
      addEventListener("resize", measure);
      return () => {
        removeEventListener("scroll", measure);
        removeEventListener("resize", measure);
      };
    });
  }

  measure() {
    const over = 12;
    const up = -(this.top()?.getBoundingClientRect().top ?? 0);
    const count = this.count();
    this.begin = Math.max(0, Math.min(Math.floor(up / this.height()) - over, count));
    this.end = Math.min(count, Math.max(0, Math.ceil((up + innerHeight) / this.height()) + over));
  }

  // reach scrolls so that a row is in view, below what stays at the top and above what stays at the bottom.
  reach(row: number, above = 40, below = 130) {
    const at = (this.top()?.getBoundingClientRect().top ?? 0) + row * this.height();
    if (at < above) scrollBy(0, at - above);
    else if (at + this.height() > innerHeight - below) scrollBy(0, at + this.height() - innerHeight + below);
    this.measure();
  }
}

const phone = matchMedia("(max-width: 719px)");

class Narrow {
  now = $state(phone.matches);
}

export const narrow = new Narrow();
phone.addEventListener("change", () => (narrow.now = phone.matches));
