import type { Compare, KeyValue } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';

export function taken(name: string, by: string): QuorateError {
  return new QuorateError('already-exists', whyTaken(name, by));
}

/** Whoever asks knows what is above the name, and need not know what is below it. */
function whyTaken(name: string, by: string): string {
  if (name === by) return `a repository named ${name} exists already`;
  return by.startsWith(`${name}/`)
    ? `${name} cannot be a repository: there are repositories below it`
    : `${name} cannot be a repository: ${by} is one, and one path would lie inside the other`;
}

/** `a/b/c` -> `a/b`, `a`. */
export function ancestors(name: string): string[] {
  const parts = name.split('/');
  return parts.slice(1).map((_, index) => parts.slice(0, index + 1).join('/'));
}

/** No key here, or in this range. */
function free(key: string, rangeEnd?: string): Compare {
  return {
    key,
    ...(rangeEnd === undefined ? {} : { rangeEnd }),
    target: 'createRevision',
    op: '=',
    operand: 0,
  };
}

/** Nobody has this name, one above it, or one below it; `except` is the name that the same transaction gives up. */
export function nameFree(name: string, except?: string): Compare[] {
  const below = keys.name(`${name}/`);
  const end = prefixEnd(below);
  const own = except?.startsWith(`${name}/`) === true ? keys.name(except) : undefined;
  return [
    ...[name, ...ancestors(name)]
      .filter((other) => other !== except)
      .map((other) => free(keys.name(other))),
    ...(own === undefined ? [free(below, end)] : [free(below, own), free(`${own}\0`, end)]),
  ];
}

/** The repository that a name's record leads to. */
export function idOf(pointer: KeyValue): string {
  const parsed: unknown = JSON.parse(new TextDecoder().decode(pointer.value));
  if (
    typeof parsed === 'object' &&
    parsed !== null &&
    'id' in parsed &&
    typeof parsed.id === 'string'
  ) {
    return parsed.id;
  }
  throw new QuorateError('data-corrupt', `the coordinator's record ${pointer.key} is damaged`);
}

/** Some 100 bytes each. */
const maxRecalled = 10_000;

/** Which repository had a name last: a guess, which saves a round when the name is read together with the record. */
export class RecalledIds {
  readonly #ids = new Map<string, string>();

  get(name: string): string | undefined {
    return this.#ids.get(name);
  }

  set(name: string, id: string): void {
    if (this.#ids.get(name) === id) return;
    if (this.#ids.size >= maxRecalled) this.#ids.clear();
    this.#ids.set(name, id);
  }
}
