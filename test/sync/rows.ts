/** The rows of the two-way table with PiSync's names for them: contents of one name as agreed, here and there, and what both sides hold in the end. */

export interface RowCase {
  readonly row: number;
  /** "lp lc rp rc" of PiSync's table. */
  readonly pisync: string;
  readonly base?: string;
  readonly here?: string;
  readonly there?: string;
  /** What has the name on both sides afterwards. */
  readonly result?: string;
  /** What has a conflict's name. */
  readonly beside?: string;
  /** What is in the trash, and where. */
  readonly trash?: { readonly here?: string; readonly there?: string };
}

export const rows: readonly RowCase[] = [
  { row: 1, pisync: "s14 s16" },
  { row: 2, pisync: "s13 s15", there: "x", result: "x" },
  { row: 3, pisync: "s4 s10 s12", here: "x", result: "x" },
  { row: 4, pisync: "s3 s9, s11 with equal contents", here: "x", there: "x", result: "x" },
  { row: 5, pisync: "s11", here: "x", there: "y", result: "y", beside: "x" },
  { row: 6, pisync: "s6 s8", base: "b" },
  { row: 7, pisync: "s5 s7", base: "b", there: "b", trash: { there: "b" } },
  { row: 8, pisync: "s5 s7 with a change", base: "b", there: "x", result: "x" },
  { row: 9, pisync: "s2", base: "b", here: "b", trash: { here: "b" } },
  { row: 10, pisync: "s1", base: "b", here: "b", there: "b", result: "b" },
  { row: 11, pisync: "s1 with a change there", base: "b", here: "b", there: "x", result: "x", trash: { here: "b" } },
  { row: 12, pisync: "s2 with a change", base: "b", here: "x", result: "x" },
  { row: 13, pisync: "s1 with a change here", base: "b", here: "x", there: "b", result: "x", trash: { there: "b" } },
  { row: 14, pisync: "s1 with the same change on both sides", base: "b", here: "x", there: "x", result: "x" },
  { row: 15, pisync: "s1, both changed", base: "b", here: "x", there: "y", result: "y", beside: "x" },
];
