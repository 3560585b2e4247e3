/** How long a cable stays pulled: for so many ms, or until that resolves. */
export type Pulled = number | Promise<void>;

export function isBack(pulled: Pulled): Promise<void> {
  return typeof pulled === "number" ? new Promise((resolve) => setTimeout(resolve, pulled)) : pulled;
}
