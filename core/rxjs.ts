/**
 * RxJS, from the one file of its package that holds all of it: Node's own entry loads 224 files, which takes each start 0.12 s (x64; a Raspberry Pi several
 * times that) and 12 MB more. What is only a type is imported from "rxjs" itself.
 */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type * as types from "rxjs";

const require = createRequire(import.meta.url);

/** All of it; as a namespace the types that cross the contract. */
export const rxjs = require(join(dirname(require.resolve("rxjs/package.json")), "dist/bundles/rxjs.umd.js")) as typeof types;
// eslint-disable-next-line @typescript-eslint/no-namespace -- no alias has the types of a module and another value
export declare namespace rxjs {
  type BehaviorSubject<T> = types.BehaviorSubject<T>;
  type Observable<T> = types.Observable<T>;
  type Subject<T> = types.Subject<T>;
  type Subscription = types.Subscription;
}

export const {
  EMPTY,
  audit,
  auditTime,
  concat,
  defaultIfEmpty,
  defer,
  distinctUntilChanged,
  exhaustMap,
  filter,
  firstValueFrom,
  fromEvent,
  interval,
  lastValueFrom,
  map,
  merge,
  of,
  race,
  scan,
  skip,
  startWith,
  switchMap,
  take,
  takeUntil,
  tap,
  timer,
} = rxjs;

export const { BehaviorSubject, Observable, Subject } = rxjs;
export type BehaviorSubject<T> = types.BehaviorSubject<T>;
export type Observable<T> = types.Observable<T>;
export type Subject<T> = types.Subject<T>;
