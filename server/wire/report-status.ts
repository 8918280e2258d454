/*
 * The answer to a push (gitprotocol-pack(5), "Report Status").
 *
 *   report-status    = unpack-status 1*command-status flush-pkt
 *   unpack-status    = PKT-LINE("unpack" SP ("ok" / error-msg) LF)
 *   command-status   = ok-line *option-line / PKT-LINE("ng" SP refname SP error-msg LF)
 *   ok-line          = PKT-LINE("ok" SP refname LF)
 *   option-line      = PKT-LINE("option" SP key [SP value] LF)     ; v2 only
 *   key              = "refname" / "old-oid" / "new-oid" / "forced-update"
 */
import { maxPktPayloadBytes, parsePktText, pktText, type PktReader } from './pkt-line.js';
import { parseOid } from './oid.js';
import { excerpt, WireError } from './wire-error.js';

export type RefReport =
  | { readonly ref: string; readonly status: 'ok'; readonly options?: ReportOptions }
  | { readonly ref: string; readonly status: 'ng'; readonly reason: string };

/** What really happened, where it is not what was asked. */
export interface ReportOptions {
  readonly refName?: string;
  readonly oldOid?: string;
  readonly newOid?: string;
  readonly forcedUpdate?: boolean;
}

export interface StatusReport {
  /** `ok`, or why no object was taken. */
  readonly unpack: string;
  readonly refs: readonly RefReport[];
}

/** `version` 1 leaves the option lines out. */
export function writeStatusReport(report: StatusReport, version: 1 | 2): string {
  const lines = [line(`unpack ${oneLine(report.unpack)}`)];
  for (const entry of report.refs) {
    if (entry.status === 'ng') {
      lines.push(line(`ng ${entry.ref} ${oneLine(entry.reason)}`));
    } else {
      lines.push(line(`ok ${entry.ref}`));
      if (version === 2 && entry.options !== undefined) lines.push(writeOptions(entry.options));
    }
  }
  return `${lines.join('')}0000`;
}

/** Reads a report up to and with its flush. Throws WireError. */
export async function readStatusReport(reader: PktReader): Promise<StatusReport> {
  const refs: RefReport[] = [];
  let unpack: string | undefined;
  for (;;) {
    const pkt = await reader.read();
    if (pkt === undefined) throw new WireError('truncated', 'the report is cut off');
    if (pkt.type === 'flush' && unpack !== undefined) return { unpack, refs };
    if (pkt.type !== 'data') throw new WireError('malformed', `unexpected ${pkt.type} packet`);
    const text = parsePktText(pkt.payload);
    if (unpack === undefined) {
      if (!text.startsWith('unpack ')) throw new WireError('malformed', 'no unpack status');
      unpack = text.slice(7);
    } else {
      takeStatus(text, refs);
    }
  }
}

function takeStatus(text: string, refs: RefReport[]): void {
  const [word = '', second = '', ...others] = text.split(' ');
  const last = refs.at(-1);
  if (word === 'ok' && second !== '') {
    refs.push({ ref: second, status: 'ok' });
  } else if (word === 'ng' && second !== '') {
    refs.push({ ref: second, status: 'ng', reason: others.join(' ') });
  } else if (word === 'option' && last?.status === 'ok') {
    refs[refs.length - 1] = {
      ...last,
      options: { ...last.options, ...parseOption(second, others.join(' ')) },
    };
  } else {
    throw new WireError('malformed', `bad status line '${excerpt(text)}'`);
  }
}

/** Options of keys unknown here are skipped, as the protocol asks. */
function parseOption(key: string, value: string): ReportOptions {
  switch (key) {
    case 'refname':
      return { refName: value };
    case 'old-oid':
      return { oldOid: parseOid(value) };
    case 'new-oid':
      return { newOid: parseOid(value) };
    case 'forced-update':
      return { forcedUpdate: true };
    default:
      return {};
  }
}

function writeOptions({ refName, oldOid, newOid, forcedUpdate }: ReportOptions): string {
  return [
    refName === undefined ? '' : line(`option refname ${refName}`),
    oldOid === undefined ? '' : line(`option old-oid ${oldOid}`),
    newOid === undefined ? '' : line(`option new-oid ${newOid}`),
    forcedUpdate === true ? line('option forced-update') : '',
  ].join('');
}

/** Reasons come from hooks as well: a line feed in one would forge a status line. */
function oneLine(text: string): string {
  const flat = text.replace(/[\x00-\x1f\x7f]+/g, ' ').trim();
  return flat.length > 1000 ? `${flat.slice(0, 997)}...` : flat;
}

/** A ref name fills a packet almost whole at worst; the reason gives way then. */
function line(text: string): string {
  if (Buffer.byteLength(text) < maxPktPayloadBytes) return pktText(`${text}\n`);
  const cut = Buffer.from(text)
    .subarray(0, maxPktPayloadBytes - 8)
    .toString();
  return pktText(`${cut.replace(/�$/, '')}\n`);
}
