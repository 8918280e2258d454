/*
 * What a fetching client asks for.
 *
 * v2 `fetch` arguments (gitprotocol-v2(5)):
 *   args = *( "want" SP obj-id / "have" SP obj-id / "done" / "thin-pack" / "no-progress" / "include-tag" /
 *             "ofs-delta" / "shallow" SP obj-id / "deepen" SP depth / "deepen-relative" /
 *             "deepen-since" SP timestamp / "deepen-not" SP ref / "filter" SP filter-spec /
 *             "want-ref" SP ref / "sideband-all" / "wait-for-done" )
 *
 * v0 and v1 (gitprotocol-pack(5), "Packfile Negotiation"), up to the first flush:
 *   upload-request = want-list *shallow-line *depth-request [filter-request] flush-pkt
 *   want-list      = PKT-LINE("want" SP obj-id SP capability-list LF) *PKT-LINE("want" SP obj-id LF)
 */
import { parseCapabilities, writeCapabilities, type Capability } from './capabilities.js';
import { parseOid } from './oid.js';
import { parsePktText, pktText, type PktReader } from './pkt-line.js';
import { excerpt, WireError } from './wire-error.js';

/** The part that both protocols share. */
export interface FetchScope {
  readonly wants: readonly string[];
  readonly shallow: readonly string[];
  /** Commits from the tips; git's "infinite" depth is 0x7fffffff. */
  readonly depth?: number;
  /** Seconds since the Unix epoch. */
  readonly deepenSince?: number;
  /** As the client wrote them: full or short ref names. */
  readonly deepenNot: readonly string[];
  readonly filter?: string;
}

export interface FetchRequest extends FetchScope {
  readonly wantRefs: readonly string[];
  readonly haves: readonly string[];
  /** `done`, `thin-pack`, ...: those that were given. */
  readonly flags: ReadonlySet<FetchFlag>;
}

export interface UploadRequest extends FetchScope {
  readonly capabilities: readonly Capability[];
}

export const fetchFlags = [
  'done',
  'thin-pack',
  'no-progress',
  'include-tag',
  'ofs-delta',
  'deepen-relative',
  'sideband-all',
  'wait-for-done',
] as const;

export type FetchFlag = (typeof fetchFlags)[number];

/** Longest `filter` taken; `combine:` of every kind there is takes a few hundred bytes. */
const maxFilterLength = 4096;

/** A scope while its lines come in. */
class ScopeBuilder {
  readonly wants: string[] = [];
  readonly shallow: string[] = [];
  readonly deepenNot: string[] = [];
  #depth: number | undefined;
  #deepenSince: number | undefined;
  #filter: string | undefined;

  /** Takes `key value`; false when the key is none of a scope's. */
  take(key: string, value: string): boolean {
    switch (key) {
      case 'want':
        this.wants.push(parseOid(value));
        return true;
      case 'shallow':
        this.shallow.push(parseOid(value));
        return true;
      case 'deepen':
        this.#depth = parseNumber(key, value, 0x7fff_ffff);
        return true;
      case 'deepen-since':
        this.#deepenSince = parseNumber(key, value, Number.MAX_SAFE_INTEGER);
        return true;
      case 'deepen-not':
        this.deepenNot.push(value);
        return true;
      case 'filter':
        if (value.length > maxFilterLength) throw new WireError('too-large', 'filter too long');
        this.#filter = value;
        return true;
      default:
        return false;
    }
  }

  build(): FetchScope {
    if (
      this.#depth !== undefined &&
      (this.#deepenSince !== undefined || this.deepenNot.length > 0)
    ) {
      throw new WireError(
        'malformed',
        'deepen and deepen-since (or deepen-not) cannot be used together',
      );
    }
    return {
      wants: this.wants,
      shallow: this.shallow,
      ...(this.#depth === undefined ? {} : { depth: this.#depth }),
      ...(this.#deepenSince === undefined ? {} : { deepenSince: this.#deepenSince }),
      deepenNot: this.deepenNot,
      ...(this.#filter === undefined ? {} : { filter: this.#filter }),
    };
  }
}

/** Throws WireError. The bound on bytes is that of the request. */
export function parseFetchArguments(args: readonly string[]): FetchRequest {
  const scope = new ScopeBuilder();
  const haves: string[] = [];
  const wantRefs: string[] = [];
  const flags = new Set<FetchFlag>();
  for (const arg of args) {
    const space = arg.indexOf(' ');
    const key = space < 0 ? arg : arg.slice(0, space);
    const value = space < 0 ? '' : arg.slice(space + 1);
    const flag = space < 0 ? fetchFlags.find((name) => name === arg) : undefined;
    if (flag !== undefined) flags.add(flag);
    else if (key === 'have') haves.push(parseOid(value));
    else if (key === 'want-ref' && value !== '') wantRefs.push(value);
    else if (!scope.take(key, value)) {
      throw new WireError('malformed', `unexpected line: '${excerpt(arg)}'`);
    }
  }
  return { ...scope.build(), wantRefs, haves, flags };
}

export function writeFetchArguments(request: FetchRequest): readonly string[] {
  return [
    ...fetchFlags.filter((flag) => flag !== 'done' && request.flags.has(flag)),
    ...scopeLines(request),
    ...request.wantRefs.map((ref) => `want-ref ${ref}`),
    ...request.haves.map((oid) => `have ${oid}`),
    ...(request.flags.has('done') ? ['done'] : []),
  ];
}

/**
 * Reads the want section of v0 and v1 with its flush. Undefined when the client wants nothing: a lone flush, or the
 * stream's end. The bound on bytes is the reader's (`limit`). Throws WireError.
 */
export async function readUploadRequest(reader: PktReader): Promise<UploadRequest | undefined> {
  const scope = new ScopeBuilder();
  let capabilities: readonly Capability[] | undefined;
  for (let first = true; ; first = false) {
    const pkt = await reader.read();
    if (pkt === undefined && first) return undefined;
    if (pkt === undefined) throw new WireError('truncated', 'the request is cut off');
    if (pkt.type === 'flush') {
      // Without a want git's server ends the conversation, whatever else was said.
      if (capabilities === undefined) return undefined;
      return { ...scope.build(), capabilities };
    }
    if (pkt.type !== 'data') throw new WireError('malformed', `unexpected ${pkt.type} packet`);
    const text = parsePktText(pkt.payload);
    const [, key, value] = /^([a-z-]+) (.*)$/s.exec(text) ?? [];
    if (key === undefined || value === undefined) {
      throw new WireError('malformed', `unexpected line: '${excerpt(text)}'`);
    }
    if (key === 'want' && capabilities === undefined) {
      const [, oid, list] = /^([0-9a-f]+)(.*)$/s.exec(value) ?? [];
      scope.take('want', oid ?? value);
      capabilities = parseCapabilities(list ?? '');
    } else if (!scope.take(key, value)) {
      throw new WireError('malformed', `unexpected line: '${excerpt(text)}'`);
    }
  }
}

export function writeUploadRequest(request: UploadRequest): string {
  const list = writeCapabilities(request.capabilities);
  const lines = scopeLines(request).map((line, index) =>
    pktText(index === 0 && list !== '' ? `${line} ${list}\n` : `${line}\n`),
  );
  return `${lines.join('')}0000`;
}

function scopeLines(scope: FetchScope): readonly string[] {
  return [
    ...scope.wants.map((oid) => `want ${oid}`),
    ...scope.shallow.map((oid) => `shallow ${oid}`),
    ...(scope.depth === undefined ? [] : [`deepen ${scope.depth}`]),
    ...(scope.deepenSince === undefined ? [] : [`deepen-since ${scope.deepenSince}`]),
    ...scope.deepenNot.map((ref) => `deepen-not ${ref}`),
    ...(scope.filter === undefined ? [] : [`filter ${scope.filter}`]),
  ];
}

function parseNumber(key: string, value: string, max: number): number {
  const number = /^\d{1,16}$/.test(value) ? Number(value) : 0;
  if (number < 1 || number > max) {
    throw new WireError('malformed', `invalid ${key}: '${excerpt(value)}'`);
  }
  return number;
}
