/** What an operator may order, and with how many words more: also for who has no registry at hand. */
export const orderWords = {
  list: { usage: "list", words: [0, 0] },
  confirm: { usage: "confirm REGISTRATION", words: [1, 1] },
  refuse: { usage: "refuse REGISTRATION", words: [1, 1] },
  revoke: { usage: "revoke VEHICLE", words: [1, 1] },
  // Of a legacy vehicle an RSA key too.
  rotate: { usage: 'rotate VEHICLE "ssh-ed25519 AAAA…"', words: [2, 4] },
  password: { usage: "password VEHICLE", words: [1, 1] },
  quota: { usage: "quota VEHICLE|EMAIL SIZE|default", words: [2, 2] },
  delete: { usage: "delete EMAIL", words: [1, 1] },
} as const satisfies Readonly<Record<string, { readonly usage: string; readonly words: readonly [number, number] }>>;

export const usages: readonly string[] = Object.values(orderWords).map(({ usage }) => usage);

export const needsWord = `filesync registry needs a word: ${usages.join(", ")}`;
