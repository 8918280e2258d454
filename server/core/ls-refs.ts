import { parseLsRefsArguments, writeLsRefsLine, type LsRefsRequest } from '../wire/ls-refs.js';
import { WireError } from '../wire/wire-error.js';
import type { GitContext } from './git-context.js';
import { ProtocolRefusal } from './service-error.js';
import { encodeRef, type RefForm } from './ref-encoding.js';
import type { RefView } from './ref-view.js';

/** Answers of at most this many refs are built as one text and written at once. */
const maxRefsAtOnce = 256;

/** Answers v2 `ls-refs` (gitprotocol-v2(5)) from memory. */
export async function lsRefs(
  { output, parts }: GitContext,
  view: RefView,
  args: readonly string[],
): Promise<{ readonly refs: number }> {
  const request = parse(args);
  const form: RefForm = { kind: 'ls-refs', peel: request.peel, symrefs: request.symrefs };
  const head = headLine(view, request);
  const ranges = rangesOf(view, request.prefixes);
  const refs = ranges.reduce((sum, [start, end]) => sum + end - start, 0);
  if (refs <= maxRefsAtOnce) {
    let text = head;
    for (const [start, end] of ranges) {
      for (const ref of view.refs.slice(start, end)) text += encodeRef(view, ref, form);
    }
    await output.write(`${text}0000`);
    return { refs };
  }
  if (head !== '') await output.write(head);
  for (const [start, end] of ranges) {
    await parts.encodings.write(output, view, { form, start, end });
  }
  await output.write('0000');
  return { refs };
}

function parse(args: readonly string[]): LsRefsRequest {
  try {
    return parseLsRefsArguments(args);
  } catch (error) {
    throw error instanceof WireError ? new ProtocolRefusal(`ls-refs: ${error.message}`) : error;
  }
}

/** HEAD comes first, where a prefix asks for it; an unborn one only to clients that know of such. */
function headLine({ head }: RefView, { prefixes, peel, symrefs, unborn }: LsRefsRequest): string {
  if (head === undefined) return '';
  if (prefixes.length > 0 && !prefixes.some((prefix) => 'HEAD'.startsWith(prefix))) return '';
  if (head.oid === undefined && !(unborn && symrefs)) return '';
  return writeLsRefsLine({
    name: 'HEAD',
    ...(head.oid === undefined ? {} : { oid: head.oid }),
    ...(symrefs && head.symref !== undefined ? { symrefTarget: head.symref } : {}),
    ...(peel && head.peeled !== undefined ? { peeled: head.peeled } : {}),
  });
}

/** The ranges that the prefixes select, sorted and without overlap; everything when there is no prefix. */
function rangesOf(
  view: RefView,
  prefixes: readonly string[],
): readonly (readonly [number, number])[] {
  if (prefixes.length === 0) return [[0, view.refs.length]];
  const ranges = prefixes
    .map((prefix) => view.prefixRange(prefix))
    .filter(([start, end]) => start < end)
    .sort(([a], [b]) => a - b);
  const merged: [number, number][] = [];
  for (const [start, end] of ranges) {
    const last = merged.at(-1);
    if (last !== undefined && start <= last[1]) last[1] = Math.max(last[1], end);
    else merged.push([start, end]);
  }
  return merged;
}
