// Which lines two texts share.

export interface Line {
  text: string;
  mark: " " | "+" | "−";
}

const most = 4_000_000; // of pairs that are looked at

// changes is one text made of two; undefined: they differ in more than can be looked at.
export function changes(before: string, after: string): Line[] | undefined {
  const [a, b] = [before.split("\n"), after.split("\n")];
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const [rows, columns] = [a.length - head - tail, b.length - head - tail];
  if (rows * columns > most) return undefined;
  // shared[i][j] is how many lines those from i and j on share, in order.
  const wide = columns + 1;
  const shared = new Uint32Array((rows + 1) * wide);
  for (let i = rows - 1; i >= 0; i--) {
    for (let j = columns - 1; j >= 0; j--) {
      shared[i * wide + j] = a[head + i] === b[head + j] ? shared[(i + 1) * wide + j + 1]! + 1 : Math.max(shared[(i + 1) * wide + j]!, shared[i * wide + j + 1]!);
    }
  }
  const out: Line[] = a.slice(0, head).map((text) => ({ text, mark: " " }));
  for (let i = 0, j = 0; i < rows || j < columns; ) {
    if (i < rows && j < columns && a[head + i] === b[head + j]) {
      out.push({ text: a[head + i]!, mark: " " });
      i++;
      j++;
    } else if (j >= columns || (i < rows && shared[(i + 1) * wide + j]! >= shared[i * wide + j + 1]!)) {
      out.push({ text: a[head + i++]!, mark: "−" });
    } else {
      out.push({ text: b[head + j++]!, mark: "+" });
    }
  }
  return [...out, ...a.slice(a.length - tail).map((text) => ({ text, mark: " " as const }))];
}
