/** One signal out of several, without leaving listeners behind: `AbortSignal.any` keeps them as long as its sources live. */
export interface Joined {
  readonly signal: AbortSignal;
  /** Takes the listeners off the sources. */
  release(): void;
}

/** Given when the first of `sources` is, with its reason. */
export function joinSignals(...sources: readonly AbortSignal[]): Joined {
  const joined = new AbortController();
  const take = (event: Event): void => joined.abort((event.target as AbortSignal).reason);
  for (const source of sources) {
    if (source.aborted) joined.abort(source.reason);
    else source.addEventListener("abort", take, { once: true });
  }
  return {
    signal: joined.signal,
    release() {
      for (const source of sources) source.removeEventListener("abort", take);
    },
  };
}
