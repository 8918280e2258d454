import type { ReadSession } from '../../backends/contract/backend.js';
import type { Repository } from '../../backends/contract/repository.js';
import { parseLsRefsArguments, writeLsRefsLine, type LsRefsRequest } from '../wire/ls-refs.js';
import { pktText } from '../wire/pkt-line.js';
import { WireError } from '../wire/wire-error.js';
import { type Asked, type GitContext, openSession } from './git-context.js';
import type { KnownAnswer } from './git-request.js';
import { maxKnownRequestBytes } from './known-answers.js';
import { ProtocolRefusal } from './service-error.js';
import { encodeRef, type RefForm } from './ref-encoding.js';
import type { RefView } from './ref-view.js';
import { groundOf } from './upload-run.js';

/** For the log line. */
interface LsRefsFields extends Readonly<Record<string, unknown>> {
  readonly command: 'ls-refs';
  readonly refs: number;
}

/** Answers of at most this many refs are built as one text and written at once. */
const maxRefsAtOnce = 256;

/** How every `ls-refs` begins that git sends; others need not be looked up. */
const usualBeginning = pktText('command=ls-refs\n');

/** The answer to an `ls-refs` over HTTP that was asked before, and of which nothing has changed since. */
export async function knownLsRefs(
  { parts, request }: Asked,
  repository: Repository,
  bytes: Buffer,
): Promise<KnownAnswer | undefined> {
  if (request.mode !== 'stateless' || request.protocol !== 2) return undefined;
  if (bytes.length > maxKnownRequestBytes) return undefined;
  const text = bytes.toString('latin1');
  if (!text.startsWith(usualBeginning)) return undefined;
  let session: ReadSession;
  try {
    session = await openSession({ parts, request }, repository, { refsOnly: true });
  } catch {
    return undefined;
  }
  const answer = parts.answers.get(groundOf({ parts }, session).view, text);
  session.release();
  return answer;
}

interface LsRefsAsked {
  readonly args: readonly string[];
  /** The request as it came. */
  readonly takeBytes: () => Buffer;
}

/** Answers v2 `ls-refs` (gitprotocol-v2(5)) from memory. */
export async function lsRefs(
  { output, parts }: GitContext,
  view: RefView,
  { args, takeBytes }: LsRefsAsked,
): Promise<LsRefsFields> {
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
    const bytes = Buffer.from(`${text}0000`);
    const fields: LsRefsFields = { command: 'ls-refs', refs };
    parts.answers.keep(view, takeBytes().toString('latin1'), {
      text: bytes.toString('latin1'),
      outcome: { status: 'ok', exitCode: 0, fields },
    });
    await output.write(bytes);
    return fields;
  }
  if (head !== '') await output.write(head);
  for (const [start, end] of ranges) {
    await parts.encodings.write(output, view, { form, start, end });
  }
  await output.write('0000');
  return { command: 'ls-refs', refs };
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
