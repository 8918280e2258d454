import type { RefEntry } from '../../backends/contract/objects.js';
import { writeLsRefsLine } from '../wire/ls-refs.js';
import { writeAdvertisedRef } from '../wire/ref-advertisement.js';
import type { ClientOutput } from './client-output.js';
import type { RefView } from './ref-view.js';

/** The forms in which refs are listed. Closed, since each may be kept encoded. */
export type RefForm =
  | { readonly kind: 'ls-refs'; readonly peel: boolean; readonly symrefs: boolean }
  /** v0 and v1 of upload-pack: peeled lines behind tags. */
  | { readonly kind: 'fetch' }
  /** receive-pack: no peeled lines. */
  | { readonly kind: 'push' };

/** Below this many refs encoding afresh is cheaper than keeping: a request for one branch must not encode them all. */
const minKeptRefs = 256;
/** Refs encoded between two writes when a list is not kept: about 64 KiB. */
const refsPerWrite = 512;

interface Encoded {
  readonly bytes: Buffer;
  /** Start of each ref's bytes, and the end of the last. */
  readonly offsets: Uint32Array;
}

/** One ref in the given form. */
export function encodeRef(view: RefView, ref: RefEntry, form: RefForm): string {
  switch (form.kind) {
    case 'push':
      return writeAdvertisedRef({ name: ref.name, oid: ref.oid });
    case 'fetch':
      return writeAdvertisedRef(ref);
    case 'ls-refs': {
      const symrefTarget = form.symrefs ? view.visibleTarget(ref) : undefined;
      return writeLsRefsLine({
        name: ref.name,
        oid: ref.oid,
        ...(symrefTarget === undefined ? {} : { symrefTarget }),
        ...(form.peel && ref.peeled !== undefined ? { peeled: ref.peeled } : {}),
      });
    }
  }
}

/**
 * Reference lists, kept encoded per view and form while they fit the budget (oldest out first), so that listing a
 * large repository costs a copy into the socket. Gone with the snapshot.
 */
export class RefEncodings {
  readonly #budgetBytes: number;
  readonly #byView = new WeakMap<RefView, Map<string, Encoded>>();
  /** What is kept, oldest first. Weak: a snapshot that nobody reads any more must not stay for its list's sake. */
  readonly #kept = new Map<WeakRef<RefView>, { readonly key: string; readonly bytes: number }>();
  #keptBytes = 0;

  constructor(budgetBytes: number) {
    this.#budgetBytes = budgetBytes;
  }

  /** Writes the refs [start, end) of the view. */
  async write(
    output: ClientOutput,
    view: RefView,
    list: { readonly form: RefForm; readonly start: number; readonly end: number },
  ): Promise<void> {
    const { form, start, end } = list;
    const encoded = end - start >= minKeptRefs ? this.#encoded(view, form) : undefined;
    if (encoded !== undefined) {
      const { bytes, offsets } = encoded;
      await output.write(bytes.subarray(offsets[start], offsets[end]));
      return;
    }
    for (let from = start; from < end; from += refsPerWrite) {
      await output.write(encodeRange(view, form, from, Math.min(end, from + refsPerWrite)));
    }
  }

  /** The whole list; undefined when it would take more than a quarter of the budget. */
  #encoded(view: RefView, form: RefForm): Encoded | undefined {
    const key = JSON.stringify(form);
    const known = this.#byView.get(view)?.get(key);
    if (known !== undefined) return known;
    // 100 bytes is a usual line's length: a guess that spares encoding what could not be kept.
    const maxBytes = this.#budgetBytes / 4;
    if (view.refs.length * 100 > maxBytes) return undefined;
    const encoded = encodeAll(view, form);
    if (encoded.bytes.length > maxBytes) return undefined;
    this.#keep(view, key, encoded);
    return encoded;
  }

  #keep(view: RefView, key: string, encoded: Encoded): void {
    const lists = this.#byView.get(view) ?? new Map<string, Encoded>();
    this.#byView.set(view, lists.set(key, encoded));
    this.#kept.set(new WeakRef(view), { key, bytes: encoded.bytes.length });
    this.#keptBytes += encoded.bytes.length;
    for (const [reference, { key, bytes }] of this.#kept) {
      const kept = reference.deref();
      if (kept !== undefined && this.#keptBytes <= this.#budgetBytes) break;
      if (kept !== undefined) this.#byView.get(kept)?.delete(key);
      this.#kept.delete(reference);
      this.#keptBytes -= bytes;
    }
  }
}

function encodeRange(view: RefView, form: RefForm, start: number, end: number): string {
  let text = '';
  for (let index = start; index < end; index += 1) {
    const ref = view.refs[index];
    if (ref !== undefined) text += encodeRef(view, ref, form);
  }
  return text;
}

function encodeAll(view: RefView, form: RefForm): Encoded {
  const offsets = new Uint32Array(view.refs.length + 1);
  const parts: string[] = [];
  let offset = 0;
  for (const [index, ref] of view.refs.entries()) {
    const text = encodeRef(view, ref, form);
    parts.push(text);
    offset += Buffer.byteLength(text);
    offsets[index + 1] = offset;
  }
  return { bytes: Buffer.from(parts.join('')), offsets };
}
