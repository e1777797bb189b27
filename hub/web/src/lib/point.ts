// What the charts of a route are drawn in: the same margins, so that times lie below each other.
export const left = 58;
export const right = 10;
